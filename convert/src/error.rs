//! Errors of checkpoints and of output paths.

use std::path::{Path, PathBuf};

/// A result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Every reason to refuse a conversion.
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
    /// The packed file could not be written or read back.
    #[error(transparent)]
    Packed(#[from] sterna_ternary::Error),
    /// The config describes a model that cannot be converted.
    #[error("{path}: {source}")]
    Config {
        /// The checkpoint.
        path: PathBuf,
        /// The cause.
        source: sterna_ternary::Error,
    },
    /// No reader recognizes the source.
    #[error(
        "{path}: {why}; give a Hugging Face folder with config.json and \
         model.safetensors, a GGUF file, or a packed file"
    )]
    Input {
        /// The path given.
        path: PathBuf,
        /// The reason.
        why: String,
    },
    /// An adapter, or a model with one that is not merged into it.
    #[error("{path}: {why}")]
    Adapter {
        /// The path given.
        path: PathBuf,
        /// The reason, and what to do.
        why: String,
    },
    /// The vocabulary has a token without a row in the embedding.
    #[error(
        "{path}: token {token:?} has id {id}, expected ids below {rows}, the rows of the embedding: \
         take tokenizer.json from the model that this one was trained from"
    )]
    Vocabulary {
        /// The file tokenizer.json.
        path: PathBuf,
        /// The token with the largest id.
        token: String,
        /// Its id.
        id: u64,
        /// Rows of the embedding.
        rows: usize,
    },
    /// A file that every model needs is absent.
    #[error(
        "{path}: there is no {file}: {consequence}; copy it from the model that this one was \
         trained from, or convert without it (--allow-missing)"
    )]
    MissingFile {
        /// The checkpoint.
        path: PathBuf,
        /// The file.
        file: &'static str,
        /// The consequence of its absence.
        consequence: &'static str,
    },
    /// The content of a file to embed does not fit its name.
    #[error("{path}: {why}; download or write it again")]
    File {
        /// The file.
        path: PathBuf,
        /// The reason.
        why: String,
    },
    /// A safetensors file is incomplete, or its header is invalid.
    #[error("{path}: not a whole safetensors file: {why}; download or copy it again")]
    Safetensors {
        /// The file.
        path: PathBuf,
        /// The reason.
        why: String,
    },
    /// A GGUF file is incomplete, invalid, or describes something that is not supported.
    #[error("{path}: {part}: expected {expected}, found {found}; {advice}")]
    Gguf {
        /// The header, a key or a tensor.
        path: PathBuf,
        /// Header, key or tensor.
        part: String,
        /// What would be accepted.
        expected: String,
        /// The value in the file.
        found: String,
        /// What to do.
        advice: &'static str,
    },
    /// The kernel configuration for TL1 or TL2 does not match the file.
    #[error(
        "{path}: {why}; give the include/kernel_config.ini of the program that wrote the model"
    )]
    Kernels {
        /// The configuration.
        path: PathBuf,
        /// The reason.
        why: String,
    },
    /// The index is malformed, or the shards contradict it.
    #[error("{path}: {why}; download the checkpoint again")]
    Index {
        /// The index.
        path: PathBuf,
        /// The reason.
        why: String,
    },
    /// A tensor is absent, or has another type or shape than the config requires.
    #[error("{path}: tensor {tensor}: expected {expected}, found {found}; {advice}")]
    Tensor {
        /// The file or folder.
        path: PathBuf,
        /// The name of the tensor.
        tensor: String,
        /// Required type and shape.
        expected: String,
        /// The type and shape in the file.
        found: String,
        /// What to do.
        advice: &'static str,
    },
    /// The model family has no such tensor. A conversion would silently drop it.
    #[error(
        "{path}: tensor {tensor}: the {family} family has no such tensor and the model would be \
         computed without it; {advice}"
    )]
    UnknownTensor {
        /// The file.
        path: PathBuf,
        /// The name of the tensor.
        tensor: String,
        /// The family that the config names.
        family: &'static str,
        /// What to do.
        advice: &'static str,
    },
    /// A value that no working model has, or that the chosen type cannot represent.
    #[error("{path}: tensor {tensor}: value {index} is {value}, expected {expected}; {advice}")]
    Value {
        /// The file or folder.
        path: PathBuf,
        /// The name of the tensor.
        tensor: String,
        /// Position in the tensor, row-major.
        index: usize,
        /// The value there.
        value: f32,
        /// What would be accepted.
        expected: &'static str,
        /// What to do.
        advice: &'static str,
    },
    /// A byte that does not encode trits.
    #[error(
        "{path}: tensor {tensor}: byte {index} is {byte:#04x}, expected four codes from 0 to 2; \
         download the checkpoint again"
    )]
    Code {
        /// The file.
        path: PathBuf,
        /// The name of the tensor.
        tensor: String,
        /// Position in the tensor, row-major.
        index: usize,
        /// The byte there.
        byte: u8,
    },
    /// The two models have different shapes.
    #[error(
        "{path}: expected {expected}, like the other model, found {found}; give two forms of the \
         same model"
    )]
    Shapes {
        /// The second model.
        path: PathBuf,
        /// The shape of the first model.
        expected: String,
        /// The shape of the second model.
        found: String,
    },
    /// The proof failed: the result differs from the source and was removed.
    #[error(
        "{path}: {differ} values differ from the source, the first ones in {tensor}; nothing was \
         kept. Convert again; if it happens again, test the memory and the disk of this machine"
    )]
    Differs {
        /// The result.
        path: PathBuf,
        /// The first tensor or file that differs.
        tensor: String,
        /// Number of different values in total.
        differ: u64,
    },
}

impl Error {
    /// Whether the cause is a file or folder that the caller named. The program then exits with
    /// code 3.
    pub fn is_bad_input(&self) -> bool {
        use Error::*;
        match self {
            Io { source, .. } => source.kind() == std::io::ErrorKind::NotFound,
            Packed(error) => error.is_bad_input(),
            Config { .. } | Input { .. } | MissingFile { .. } | File { .. } => true,
            Vocabulary { .. } | Adapter { .. } => true,
            Safetensors { .. } | Gguf { .. } | Kernels { .. } | Index { .. } => true,
            Tensor { .. } | UnknownTensor { .. } | Value { .. } | Code { .. } => true,
            Shapes { .. } | Differs { .. } => false,
        }
    }

    /// Returns a function that adds the path to an I/O error.
    pub(crate) fn io(path: &Path) -> impl FnOnce(std::io::Error) -> Error + '_ {
        move |source| Error::Io {
            path: path.to_owned(),
            source,
        }
    }
}
