//! A checkpoint that training starts from, or learns from: its shape, the files of its tokenizer
//! and its weights.
//!
//! The caller reads it, so this crate knows no formats. The weights are read once, when a run takes
//! its first step, and not when it resumes from a checkpoint of its own.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use sterna_ternary::{Config, Scaling};

use crate::{Error, Result};

/// A function that reads all weights in the order of [`sterna_ternary::layout::weights`], each
/// row-major, or says why it cannot.
pub type ReadWeights = dyn Fn() -> std::result::Result<Vec<Vec<f32>>, String> + Send + Sync;

/// A checkpoint that was not made by this run.
#[derive(Clone)]
pub struct Pretrained {
    /// Its path, for messages.
    pub path: PathBuf,
    /// `org/name`, if it came from the hub; for the model card.
    pub hub_name: Option<String>,
    /// Shapes and constants of the model that is trained.
    pub config: Config,
    /// Names and contents of the files of its tokenizer, its generation settings and its chat
    /// template. They are copied unchanged into the exported model.
    pub files: Vec<(String, Vec<u8>)>,
    /// Which weights of a matrix share a scale.
    pub scaling: Scaling,
    read: Arc<ReadWeights>,
}

impl Pretrained {
    /// A checkpoint whose weights are read by `read`.
    pub fn new(
        path: PathBuf,
        config: Config,
        files: Vec<(String, Vec<u8>)>,
        read: Arc<ReadWeights>,
    ) -> Pretrained {
        Pretrained {
            path,
            hub_name: None,
            config,
            files,
            scaling: Scaling::default(),
            read,
        }
    }

    /// The weights in the order of [`sterna_ternary::layout::weights`].
    ///
    /// # Errors
    /// [`Error::Pretrained`] if they cannot be read.
    pub fn weights(&self) -> Result<Vec<Vec<f32>>> {
        (self.read)().map_err(|why| self.error(why))
    }

    /// The contents of one of its files.
    pub fn file(&self, name: &str) -> Option<&[u8]> {
        let file = self.files.iter().find(|(n, _)| n == name);
        file.map(|(_, bytes)| &**bytes)
    }

    /// An error about this checkpoint.
    pub(crate) fn error(&self, why: String) -> Error {
        Error::Pretrained {
            path: self.path.clone(),
            why,
        }
    }
}

impl fmt::Debug for Pretrained {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.debug_tuple("Pretrained").field(&self.path).finish()
    }
}
