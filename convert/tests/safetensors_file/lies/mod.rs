//! Ways in which the files of a folder can lie.

pub mod files;
pub mod index;
pub mod tensors;

use super::Folder;

const Q: &str = "model.layers.0.self_attn.q_proj.weight";
const SCALE: &str = "model.layers.0.self_attn.q_proj.weight_scale";
const NORM: &str = "model.norm.weight";
const EMBEDDING: &str = "model.embed_tokens.weight";

/// Name of the lie, the change to a good folder, and the required parts of the error.
pub type Lie = (&'static str, fn(&mut Folder), &'static [&'static str]);

const NOT_WHOLE: &str = "not a whole safetensors file";
