//! What a conversion writes.

use sterna_ternary::{Output, OutputFolder};

use crate::{
    ConversionReport, GgufOptions, PackedOptions, Result, Source, write_gguf, write_huggingface,
    write_packed,
};

/// What a conversion writes, and where.
pub enum Target {
    /// A packed file.
    Packed(Output, PackedOptions),
    /// A GGUF file.
    Gguf(Output, GgufOptions),
    /// A Hugging Face folder.
    HuggingFace {
        /// The folder.
        out: OutputFolder,
        /// Whether tokenizer and generation settings may be missing.
        allow_missing: bool,
    },
}

impl Target {
    /// Whether tokenizer and generation settings may be missing.
    pub fn allow_missing(&self) -> bool {
        match self {
            Target::Packed(_, options) => options.allow_missing,
            Target::Gguf(_, options) => options.allow_missing,
            Target::HuggingFace { allow_missing, .. } => *allow_missing,
        }
    }

    /// Writes a checkpoint and proves what was written. `progress` gets the weights that are done,
    /// and all of them.
    ///
    /// # Errors
    /// Those of [`write_packed`], [`write_gguf`] and [`write_huggingface`].
    pub fn write(
        &self,
        source: &dyn Source,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<ConversionReport> {
        match self {
            Target::Packed(out, options) => write_packed(source, out, options, progress),
            Target::Gguf(out, options) => write_gguf(source, out, options, progress),
            Target::HuggingFace { out, .. } => write_huggingface(source, out, progress),
        }
    }
}
