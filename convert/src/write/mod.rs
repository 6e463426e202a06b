//! Writers. Each writes any [`crate::Source`] to a file and proves the file before it gets its
//! name.

pub(crate) mod dense;
pub(crate) mod gguf;
pub(crate) mod huggingface;
pub(crate) mod packed;
pub(crate) mod repack;
pub(crate) mod stream;
pub(crate) mod table;
pub(crate) mod ternary_table;
