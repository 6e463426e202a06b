//! What can go wrong while a model is examined.

use std::path::PathBuf;

/// A result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a model could not be examined. Damage of a known kind is a finding, not an error.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A packed file cannot be read or written.
    #[error(transparent)]
    Ternary(#[from] sterna_ternary::Error),
    /// A checkpoint cannot be read or packed.
    #[error(transparent)]
    Convert(#[from] sterna_convert::Error),
    /// The model cannot be run.
    #[error(transparent)]
    Runtime(#[from] sterna_runtime::Error),
    /// The linear layers hold numbers and have no trits to count.
    #[error(
        "{path}: expected ternary layers, found numbers (packing {packing}); there are no trits \
         to count"
    )]
    NoTrits {
        /// The packed file.
        path: PathBuf,
        /// The name of its packing.
        packing: &'static str,
    },
    /// A packed matrix holds bytes that encode no trits.
    #[error(
        "{path}: tensor {tensor}: some of its {bytes} bytes encode no trits; copy or convert the \
         file again"
    )]
    Damaged {
        /// The packed file.
        path: PathBuf,
        /// The name of the matrix.
        tensor: String,
        /// How many bytes it has.
        bytes: usize,
    },
}

impl Error {
    /// Whether the cause is a file or folder that the caller named: the program then exits with 3.
    pub fn is_bad_input(&self) -> bool {
        match self {
            Error::Ternary(error) => error.is_bad_input(),
            Error::Convert(error) => error.is_bad_input(),
            Error::Runtime(error) => error.is_bad_input(),
            Error::NoTrits { .. } | Error::Damaged { .. } => true,
        }
    }
}
