//! What keeps a measurement from being made.

use std::path::PathBuf;

/// A result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

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
    /// The model could not be run.
    #[error(transparent)]
    Runtime(#[from] sterna_runtime::Error),
    /// The text could not be read.
    #[error(transparent)]
    Data(#[from] sterna_datasets::Error),
}
