//! Readers. Each converts a format to a [`crate::Source`].

mod adapter;
pub(crate) mod embedded;
pub(crate) mod gguf;
pub(crate) mod huggingface;
pub(crate) mod mapped;
pub(crate) mod packed;
pub(crate) mod safetensors;
mod spelling;
mod wrappers;
