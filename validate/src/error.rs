//! What keeps a measurement from being made.

use std::path::PathBuf;

/// A result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Every way in which a measurement is refused.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The operating system could not read or write the file.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// The metrics of a run cannot be drawn.
    #[error("{path}: {why}")]
    Metrics {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// The system has no memory for a measurement.
    #[error(
        "{bytes} bytes to measure how fast memory is read: {source}; allow this process more memory"
    )]
    Memory {
        /// What was asked for.
        bytes: usize,
        /// The cause.
        source: std::io::Error,
    },
    /// The model could not be run.
    #[error(transparent)]
    Runtime(#[from] sterna_runtime::Error),
    /// The text could not be read.
    #[error(transparent)]
    Data(#[from] sterna_datasets::Error),
    /// Logits that are not numbers.
    #[error(
        "{path}: a logit is NaN or infinite, so nothing can be said of the model; see `sterna \
         doctor {path}`"
    )]
    NotFinite {
        /// The packed file.
        path: PathBuf,
    },
    /// Files and folders without a document.
    #[error("{name}: expected at least one document with a visible character, found none")]
    NoText {
        /// What was read.
        name: String,
    },
    /// Too few tokens for a convention.
    #[error(
        "{name}: {found} tokens, expected at least {expected} for the convention `{convention}`; \
         give more text or a smaller --context"
    )]
    TooShort {
        /// The text.
        name: String,
        /// The convention.
        convention: &'static str,
        /// Tokens of the text.
        found: usize,
        /// What the convention needs.
        expected: usize,
    },
    /// A tokenizer without a token that could begin a text.
    #[error(
        "tokenizer_config.json and config.json in the packed file: expected a bos_token or an \
         eos_token, with which the convention `rolling` begins documents, found neither; use \
         `chunks`"
    )]
    NoPrefix,
    /// A task could not be read or scored.
    #[error(transparent)]
    Task(#[from] crate::tasks::Error),
    /// A condition that cannot be read.
    #[error("--gate {condition}: {why}")]
    Gate {
        /// What was given.
        condition: String,
        /// What is wrong with it.
        why: String,
    },
}

impl Error {
    /// Whether the cause is a file or folder that the caller named: the program then exits with 3.
    pub fn is_bad_input(&self) -> bool {
        use Error::*;
        match self {
            Runtime(error) => error.is_bad_input(),
            Data(error) => error.is_bad_input(),
            Io { source, .. } => source.kind() == std::io::ErrorKind::NotFound,
            NoText { .. } | TooShort { .. } | NotFinite { .. } | NoPrefix | Task(_) => true,
            Metrics { .. } => true,
            Gate { .. } | Memory { .. } => false,
        }
    }
}
