//! A model that is ready: its tokenizer, its template, and what the page shows of it.

use std::path::Path;

use serde_json::{Value, json};
use sterna_runtime::{ChatTemplate, Error as RuntimeError, KvCache, Model, Options, Sampling};
use sterna_runtime::{KvPage, Tokenizer};
use sterna_ternary::{AlignedBytes, PackedFile, layout};

use crate::Result;

/// Most bytes of keys and values. With the 2 GiB that a file may have, they fit into the 4 GiB of
/// WebAssembly.
const MOST_KEYS_AND_VALUES: usize = 1 << 30;

/// A model that is ready.
pub struct Opened {
    pub model: Model,
    pub tokenizer: Tokenizer,
    /// Its chat template; without one it cannot chat.
    pub template: std::result::Result<ChatTemplate, RuntimeError>,
    /// How tokens are chosen where a request does not say it.
    pub sampling: Sampling,
    /// Most tokens of a prompt and its answer.
    pub context: usize,
}

impl Opened {
    /// Checks a file and prepares it. `is_summed` says that the sum of the whole file is known to
    /// be right; if not, the checksum inside the file is compared with its matrices.
    pub fn new(name: &str, bytes: AlignedBytes, is_summed: bool) -> Result<Opened> {
        let file = PackedFile::from_bytes(Path::new(name), bytes)?;
        if !is_summed {
            file.check_sum()?;
        }
        let options = Options {
            threads: Some(1),
            ..Options::default()
        };
        let model = Model::of_file(file, options)?;
        let page = KvCache::page_bytes(model.config(), model.kv_type());
        let fits = (MOST_KEYS_AND_VALUES / page.max(1)).max(1) * KvPage::TOKENS;
        Ok(Opened {
            tokenizer: model.tokenizer()?,
            template: model.chat_template(),
            sampling: model.default_sampling()?,
            context: model.config().max_position_embeddings.min(fits),
            model,
        })
    }

    /// What the page shows, and the settings that a request can change.
    pub fn facts(&self, name: &str, sha256: &str) -> Value {
        let (file, config, sampling) = (self.model.file(), self.model.config(), &self.sampling);
        let weights = layout::weights(config);
        let parameters: usize = weights
            .iter()
            .map(|weight| weight.rows * weight.columns)
            .sum();
        let token = |id: &u32| self.tokenizer.token(*id).map(|(name, _)| name);
        let mut capabilities = vec!["completion"];
        capabilities.extend(self.template.is_ok().then_some("chat"));
        json!({
            "name": name,
            "sha256": sha256,
            "fingerprint": self.model.fingerprint(),
            "version": env!("CARGO_PKG_VERSION"),
            "bytes": file.len(),
            "parameters": parameters,
            "packing": file.packing.name(),
            "kernels": self.model.kernels().name,
            "context": self.context,
            "vocab_size": config.vocab_size,
            "capabilities": capabilities,
            "cannot_chat": self.template.as_ref().err().map(ToString::to_string),
            "eos_tokens": self.tokenizer.eos().iter().filter_map(token).collect::<Vec<_>>(),
            "sampling": {
                "temperature": sampling.temperature,
                "top_k": sampling.top_k,
                "top_p": sampling.top_p,
                "min_p": sampling.min_p,
                "repetition_penalty": sampling.repetition_penalty,
                "frequency_penalty": sampling.frequency_penalty,
                "presence_penalty": sampling.presence_penalty,
            },
        })
    }
}
