//! What can be wrong with a checkpoint or with the place of the result.

use std::path::{Path, PathBuf};

/// A result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Every way in which a conversion is refused.
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
    /// The config describes something that cannot be converted.
    #[error("{path}: {source}")]
    Config {
        /// The checkpoint.
        path: PathBuf,
        /// The cause.
        source: sterna_ternary::Error,
    },
    /// The source is nothing that a reader knows.
    #[error(
        "{path}: {why}; what can be read is a Hugging Face folder with config.json and model.safetensors, a \
         GGUF file, or a packed file"
    )]
    Input {
        /// The path given.
        path: PathBuf,
        /// What it is.
        why: String,
    },
    /// A file that belongs to every model is absent.
    #[error(
        "{path}: there is no {file}: {consequence}; copy it from the model that this one was trained \
         from, or convert without it (--allow-missing)"
    )]
    MissingFile {
        /// The checkpoint.
        path: PathBuf,
        /// The file.
        file: &'static str,
        /// What goes wrong without it.
        consequence: &'static str,
    },
    /// A file to embed is not what its name says.
    #[error("{path}: {why}; download or write it again")]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// A safetensors file is cut off or its header lies.
    #[error("{path}: not a whole safetensors file: {why}; download or copy it again")]
    Safetensors {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// A GGUF file is cut off, its header lies, or it says something that cannot be read.
    #[error("{path}: {part}: expected {expected}, found {found}; {advice}")]
    Gguf {
        /// The file.
        path: PathBuf,
        /// Header, key or tensor.
        part: String,
        /// What would be accepted.
        expected: String,
        /// What is there.
        found: String,
        /// What to do.
        advice: &'static str,
    },
    /// The kernel configuration given for TL1 or TL2 does not describe the file.
    #[error(
        "{path}: {why}; give the include/kernel_config.ini of the program that wrote the model"
    )]
    Kernels {
        /// The configuration.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The index and the shards disagree, or the index is malformed.
    #[error("{path}: {why}; download the checkpoint again")]
    Index {
        /// The index.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// A tensor that the config calls for is absent or has another type or shape.
    #[error("{path}: tensor {tensor}: expected {expected}, found {found}; {advice}")]
    Tensor {
        /// The file or folder.
        path: PathBuf,
        /// Its name.
        tensor: String,
        /// Type and shape that the config calls for.
        expected: String,
        /// What is there.
        found: String,
        /// What to do.
        advice: &'static str,
    },
    /// A tensor that the model does not have: converting would drop it in silence.
    #[error(
        "{path}: tensor {tensor}: the {family} family has no such tensor and the model would be computed \
         without it; {advice}"
    )]
    UnknownTensor {
        /// The file.
        path: PathBuf,
        /// Its name.
        tensor: String,
        /// The family that the config names.
        family: &'static str,
        /// What to do.
        advice: &'static str,
    },
    /// A value that no working model has, or that the chosen type cannot hold.
    #[error("{path}: tensor {tensor}: value {index} is {value}, expected {expected}; {advice}")]
    Value {
        /// The file or folder.
        path: PathBuf,
        /// Its name.
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
    /// A packed byte that stands for no trits.
    #[error(
        "{path}: tensor {tensor}: byte {index} is {byte:#04x}, expected four codes from 0 to 2; \
         download the checkpoint again"
    )]
    Code {
        /// The file.
        path: PathBuf,
        /// Its name.
        tensor: String,
        /// Position in the tensor, row-major.
        index: usize,
        /// The byte there.
        byte: u8,
    },
    /// Two models that cannot be compared.
    #[error(
        "{path}: expected {expected}, as the other model, found {found}; give two forms of one model"
    )]
    Shapes {
        /// The second model.
        path: PathBuf,
        /// What the first one is.
        expected: String,
        /// What it is.
        found: String,
    },
    /// The result is not the source: its proof failed and it was removed.
    #[error(
        "{path}: {differ} values differ from the source, the first ones in {tensor}; nothing was kept. \
         Convert again; if it happens again, test the memory and the disk of this machine"
    )]
    Differs {
        /// The result.
        path: PathBuf,
        /// The first tensor or file that differs.
        tensor: String,
        /// How many values differ in all.
        differ: u64,
    },
}

impl Error {
    /// Whether the cause is a file or folder that the caller named: the program then exits with 3.
    pub fn is_bad_input(&self) -> bool {
        use Error::*;
        match self {
            Io { source, .. } => source.kind() == std::io::ErrorKind::NotFound,
            Packed(error) => error.is_bad_input(),
            Config { .. } | Input { .. } | MissingFile { .. } | File { .. } => true,
            Safetensors { .. } | Gguf { .. } | Kernels { .. } | Index { .. } => true,
            Tensor { .. } | UnknownTensor { .. } | Value { .. } | Code { .. } => true,
            Shapes { .. } | Differs { .. } => false,
        }
    }

    /// Wraps an I/O error with the file it happened to.
    pub(crate) fn io(path: &Path) -> impl FnOnce(std::io::Error) -> Error + '_ {
        move |source| Error::Io {
            path: path.to_owned(),
            source,
        }
    }
}
