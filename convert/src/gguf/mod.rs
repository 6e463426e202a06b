//! GGUF, the file format of llama.cpp, bitnet.cpp and ik_llama.cpp: definitions that the reader
//! ([`crate::read::gguf`]) and the writer ([`crate::write::gguf`]) share.
//!
//! `types` has an entry per tensor type, with codecs in `trits`, `floats`, `q6_k` and `lut`.
//! `names` translates tensor names. `splits` has the rules by which tokenizers split text.

pub(crate) mod floats;
pub(crate) mod lut;
pub(crate) mod names;
pub(crate) mod q6_k;
pub(crate) mod splits;
mod trits;
pub(crate) mod types;

use serde_json::Value;

pub use self::lut::LutKernels;
use self::splits::SplitRule;

/// Key of the model's config.json in files that Sterna writes.
pub(crate) const CONFIG: &str = "sterna.config.json";
/// Key of tokenizer.json, as in the GGUF specification.
pub(crate) const TOKENIZER: &str = "tokenizer.huggingface.json";

/// Embedded files and their keys.
pub(crate) const FILE_KEYS: [(&str, &str); 5] = [
    ("config.json", CONFIG),
    ("tokenizer.json", TOKENIZER),
    ("tokenizer_config.json", "sterna.tokenizer_config.json"),
    ("generation_config.json", "sterna.generation_config.json"),
    ("chat_template.jinja", "sterna.chat_template.jinja"),
];

/// The order of the codes in I2_S. The file does not state it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum I2sOrder {
    /// Blocks of 128, as in all published files.
    #[default]
    Blocks128,
    /// Blocks of 64, as bitnet.cpp writes on ARM since November 2025.
    Blocks64,
}

/// Properties of a GGUF file that the file does not state.
#[derive(Debug, Clone, Default)]
pub struct GgufHints {
    /// Order of the codes in I2_S.
    pub i2s_order: I2sOrder,
    /// Kernel configuration of TL1 and TL2. These types cannot be read without it.
    pub kernels: Option<LutKernels>,
}

/// The name, as in `tokenizer.ggml.pre`, of the rule by which a pre-tokenizer of tokenizer.json
/// splits text. None for an unknown rule.
pub fn split_rule(pre_tokenizer: &Value) -> Option<&'static str> {
    SplitRule::of(pre_tokenizer).map(|split| split.names[0])
}

/// The preferred name of the split rule that has `name` among its names.
pub fn split_rule_named(name: &str) -> Option<&'static str> {
    SplitRule::named(name).map(|split| split.names[0])
}
