//! GGUF, the file of llama.cpp, bitnet.cpp and ik_llama.cpp: what reader ([`crate::read::gguf`]) and writer
//! ([`crate::write::gguf`]) share.
//!
//! `types` has a row for each type of tensors, with codecs in `trits`, `floats` and `lut`; `names` translates the names
//! of tensors, `splits` the rules by which tokenizers split text.

pub(crate) mod floats;
pub(crate) mod lut;
pub(crate) mod names;
pub(crate) mod splits;
mod trits;
pub(crate) mod types;

use serde_json::Value;

pub use self::lut::LutKernels;
use self::splits::Split;

/// config.json of the model in a file that we wrote.
pub(crate) const CONFIG: &str = "sterna.config.json";
/// tokenizer.json, as the specification of the format names it.
pub(crate) const TOKENIZER: &str = "tokenizer.huggingface.json";

/// Files that travel with a model and the keys that hold them.
pub(crate) const FILE_KEYS: [(&str, &str); 5] = [
    ("config.json", CONFIG),
    ("tokenizer.json", TOKENIZER),
    ("tokenizer_config.json", "sterna.tokenizer_config.json"),
    ("generation_config.json", "sterna.generation_config.json"),
    ("chat_template.jinja", "sterna.chat_template.jinja"),
];

/// In what order the codes of I2_S lie: nothing in a file tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum I2sOrder {
    /// Blocks of 128, as all published files have them.
    #[default]
    Blocks128,
    /// Blocks of 64, as bitnet.cpp writes them on ARM since November 2025.
    Blocks64,
}

/// What a GGUF file does not say of itself.
#[derive(Debug, Clone, Default)]
pub struct GgufHints {
    /// Of I2_S.
    pub i2s_order: I2sOrder,
    /// Of TL1 and TL2, which cannot be read without.
    pub kernels: Option<LutKernels>,
}

/// The name of the rule by which a pre-tokenizer of tokenizer.json splits text, as in `tokenizer.ggml.pre`; none for
/// a rule that is not known.
pub fn split_rule(pre_tokenizer: &Value) -> Option<&'static str> {
    Split::of(pre_tokenizer).map(|split| split.names[0])
}

/// The first of the names of a rule, one of which is `name`.
pub fn split_rule_named(name: &str) -> Option<&'static str> {
    Split::named(name).map(|split| split.names[0])
}
