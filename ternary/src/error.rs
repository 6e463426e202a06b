//! Errors of configs and packed files.

use std::path::{Path, PathBuf};

/// A result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Every reason to refuse a config or a packed file.
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
    /// A required key of config.json is absent.
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
    /// The config describes a model that this version cannot compute.
    #[error("config.json: {what} is not supported{hint}")]
    Unsupported {
        /// The setting and its value.
        what: String,
        /// The supported values, beginning with `; `, or an empty string.
        hint: String,
    },
    /// The file does not start as a packed file does.
    #[error("{path}: not a Sterna packed file: {why}; make one with `sterna convert`")]
    NotPacked {
        /// The file.
        path: PathBuf,
        /// What is wrong with its first bytes.
        why: String,
    },
    /// The format version is unknown to this program.
    #[error(
        "{path}: format version {found}, this program reads {expected}; update the program or \
         convert the model again"
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
        "{path}: the {part} is damaged: sha256 {expected} expected, {found} found; copy or \
         convert the file again"
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
        "{path}: {found} bytes, the header describes {expected}; the copy was cut off or \
         something was appended"
    )]
    Length {
        /// The file.
        path: PathBuf,
        /// Bytes that the header describes.
        expected: u64,
        /// Bytes in the file.
        found: u64,
    },
    /// A tensor is missing, unexpected, or has another type or shape than the config requires.
    #[error("{path}: tensor {tensor}: expected {expected}, found {found}; convert the model again")]
    Tensor {
        /// The file.
        path: PathBuf,
        /// The name of the tensor.
        tensor: String,
        /// Required type and shape.
        expected: String,
        /// The type and shape in the file.
        found: String,
    },
    /// A scale or norm is not finite, or a scale is not positive.
    #[error(
        "{path}: tensor {tensor}: value {index} is {value}; the checkpoint is broken, \
         convert it again"
    )]
    Value {
        /// The file.
        path: PathBuf,
        /// The name of the tensor.
        tensor: String,
        /// Position in the tensor.
        index: usize,
        /// The value there.
        value: f32,
    },
    /// A matrix has one scale per group, but the blocks of the packing cross group boundaries.
    #[error(
        "{path}: tensor {tensor}: one scale per 128 columns, but blocks of {packing} cross the \
         boundaries of such groups; pack the model as i2"
    )]
    Scaling {
        /// The file.
        path: PathBuf,
        /// The name of the tensor.
        tensor: String,
        /// The packing.
        packing: &'static str,
    },
    /// A packed block contains a byte that no packer writes.
    #[error(
        "packing {packing}: invalid code of trits or nonzero padding in the block at byte \
         {offset} of the row; the file is damaged, make it again"
    )]
    Code {
        /// The packing.
        packing: &'static str,
        /// Position of the block in the row.
        offset: usize,
    },
    /// The result cannot be written to this path.
    #[error("{path}: {why}")]
    Output {
        /// The path given.
        path: PathBuf,
        /// The reason, and what to do.
        why: String,
    },
    /// The caller wrote tensors in another order than the layout; see [`crate::PackedWriter`].
    #[error("{path}: writing tensor {found}, the layout has {expected} next")]
    Order {
        /// The file.
        path: PathBuf,
        /// The tensor that is due.
        expected: String,
        /// The tensor that was written.
        found: String,
    },
}

impl Error {
    /// Whether the cause is a file or folder that the caller named. The program then exits with
    /// code 3.
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

    /// Returns a function that adds the path to an I/O error.
    pub fn io(path: &Path) -> impl FnOnce(std::io::Error) -> Error + '_ {
        move |source| Error::Io {
            path: path.to_owned(),
            source,
        }
    }
}
