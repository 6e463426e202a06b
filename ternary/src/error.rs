//! What can be wrong with a config or a packed file.

use std::path::{Path, PathBuf};

/// A result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Every way in which a config or a packed file is refused.
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
    /// A key of config.json is absent.
    #[error("config.json has no `{0}`; add it with the value that the model was trained with")]
    MissingKey(&'static str),
    /// A key of config.json has a value of the wrong type or range.
    #[error("config.json: `{key}` is {found}, expected {expected}")]
    BadKey {
        /// The key.
        key: &'static str,
        /// What would be accepted.
        expected: String,
        /// The value there.
        found: String,
    },
    /// The config describes something that this version cannot compute.
    #[error("config.json: {what} is not supported{hint}")]
    Unsupported {
        /// What, with its value.
        what: String,
        /// What would be, beginning with `; `, or empty.
        hint: String,
    },
    /// The file does not begin like a packed file.
    #[error("{path}: not a Sterna packed file: {why}; make one with `sterna convert`")]
    NotPacked {
        /// The file.
        path: PathBuf,
        /// What is wrong with its first bytes.
        why: String,
    },
    /// The file was written by a later version.
    #[error(
        "{path}: format version {found}, this program reads {expected}; update the program or convert the model again"
    )]
    Version {
        /// The file.
        path: PathBuf,
        /// The versions that this crate reads.
        expected: &'static str,
        /// The version in the file.
        found: String,
    },
    /// A checksum does not match: the file was damaged or edited.
    #[error(
        "{path}: the {part} is damaged: sha256 {expected} expected, {found} found; copy or convert the file again"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Which part: header, vectors and files, or matrices.
        part: &'static str,
        /// The checksum in the header.
        expected: String,
        /// The checksum of the bytes.
        found: String,
    },
    /// The file is shorter or longer than its header says.
    #[error(
        "{path}: {found} bytes, the header describes {expected}; the copy was cut off or something was appended"
    )]
    Length {
        /// The file.
        path: PathBuf,
        /// Bytes that the header describes.
        expected: u64,
        /// Bytes in the file.
        found: u64,
    },
    /// A tensor that the config calls for is missing, has another shape or type, or should not be there.
    #[error("{path}: tensor {tensor}: expected {expected}, found {found}; convert the model again")]
    Tensor {
        /// The file.
        path: PathBuf,
        /// Its name.
        tensor: String,
        /// Type and shape that the config calls for.
        expected: String,
        /// What is there.
        found: String,
    },
    /// A scale or norm holds NaN, an infinity, or a scale that is not above zero.
    #[error(
        "{path}: tensor {tensor}: value {index} is {value}; the checkpoint is broken, convert it again"
    )]
    Value {
        /// The file.
        path: PathBuf,
        /// Its name.
        tensor: String,
        /// Position in the tensor.
        index: usize,
        /// The value there.
        value: f32,
    },
    /// A matrix has a scale a group, and the packing keeps no groups apart.
    #[error(
        "{path}: tensor {tensor}: it has a scale for each 128 columns, and blocks of {packing} reach into two such \
         groups; pack the model as i2"
    )]
    Scaling {
        /// The file.
        path: PathBuf,
        /// Its name.
        tensor: String,
        /// The packing.
        packing: &'static str,
    },
    /// A packed byte that no packer writes.
    #[error(
        "packing {packing}: a byte that stands for no trits, or padding that is not zero, at byte {offset} of the row"
    )]
    Code {
        /// The packing.
        packing: &'static str,
        /// Position of the block in the row.
        offset: usize,
    },
    /// A result cannot be written there.
    #[error("{path}: {why}")]
    Output {
        /// The path given.
        path: PathBuf,
        /// Why, and what to do.
        why: String,
    },
    /// The writer was handed something else than the layout calls for; see [`crate::PackedWriter`].
    #[error("{path}: writing tensor {found}, the layout has {expected} next")]
    Order {
        /// The file.
        path: PathBuf,
        /// The tensor that is due.
        expected: String,
        /// The tensor that came.
        found: String,
    },
}

impl Error {
    /// Whether the cause is a file or folder that the caller named: the program then exits with 3.
    pub fn is_bad_input(&self) -> bool {
        use Error::*;
        match self {
            Io { source, .. } => source.kind() == std::io::ErrorKind::NotFound,
            MissingKey(_) | BadKey { .. } | Unsupported { .. } => true,
            NotPacked { .. } | Version { .. } | Damaged { .. } | Length { .. } => true,
            Tensor { .. } | Value { .. } | Scaling { .. } | Code { .. } => true,
            Output { .. } | Order { .. } => false,
        }
    }

    /// Wraps an I/O error with the file it happened to.
    pub fn io(path: &Path) -> impl FnOnce(std::io::Error) -> Error + '_ {
        move |source| Error::Io {
            path: path.to_owned(),
            source,
        }
    }
}
