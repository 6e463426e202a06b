//! The errors of training.

use std::path::{Path, PathBuf};

use crate::NUMERICS;

/// A result with the error of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Every way in which training is refused or fails.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A tensor operation failed.
    #[error(transparent)]
    Candle(#[from] candle_core::Error),
    /// A config or file of a model is wrong.
    #[error(transparent)]
    Ternary(#[from] sterna_ternary::Error),
    /// The data is wrong.
    #[error(transparent)]
    Data(#[from] sterna_datasets::Error),
    /// The operating system could not read or write the file.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// A recipe is not valid TOML, or it has an unknown key or an impossible value.
    #[error("{path}: {why}")]
    Recipe {
        /// The recipe.
        path: PathBuf,
        /// What is wrong, with line and column where known.
        why: String,
    },
    /// The forward pass of the trainer does not compute a part of this model.
    #[error("the trainer does not compute {what} of the {family} family; train one of {known}")]
    Untrainable {
        /// The part.
        what: &'static str,
        /// Name of the model's family.
        family: &'static str,
        /// Families that can be trained.
        known: String,
    },
    /// A checkpoint is damaged or belongs to another run.
    #[error("{path}: {why}")]
    Checkpoint {
        /// The file.
        path: PathBuf,
        /// What is wrong and what to do.
        why: String,
    },
    /// Texts are not those that the run began with.
    #[error(
        "the data changed since this run began: {}; it goes on with the tokens that it made then. \
         To train on the data of now, start another run from its model: --from {}",
        first(changes), model.display()
    )]
    SourcesChanged {
        /// What changed, one line a file.
        changes: Vec<String>,
        /// The model of the run.
        model: PathBuf,
    },
    /// A step needs more memory than there is.
    #[error("{0}")]
    Memory(String),
    /// Another version of this program, whose sums have another order, took the steps so far.
    #[error(
        "{path}: a program with numerics version {found} took the steps of these checkpoints, and \
         this program has version {NUMERICS}, whose results differ in the last bits; go on with \
         the program that began the run, or choose another folder for a new run"
    )]
    Numerics {
        /// The folder of the checkpoints.
        path: PathBuf,
        /// The version that computed them.
        found: u64,
    },
    /// A checkpoint to start from or to learn from cannot be used.
    #[error("{path}, which `from` names: {why}")]
    Pretrained {
        /// The checkpoint.
        path: PathBuf,
        /// What is wrong and what to do.
        why: String,
    },
    /// Threads could not be started.
    #[error("{threads} threads: {why}; ask for fewer")]
    Threads {
        /// The number that was requested.
        threads: usize,
        /// The cause.
        why: String,
    },
    /// The ranks of a run cannot reach each other.
    #[error("ranks: {0}")]
    Collective(String),
    /// The ranks of a run would not compute the same results.
    #[error(
        "this rank has another {what} than rank 0; give all ranks the same arguments, folders and \
         program"
    )]
    RanksDiffer {
        /// What differs.
        what: &'static str,
    },
    /// The loss or the gradient is not finite.
    #[error(
        "step {step}: the {what} is {value}, expected a finite number; lower the learning rate or \
         lengthen the warm-up, then resume from the last checkpoint"
    )]
    Diverged {
        /// The step.
        step: u64,
        /// Loss or gradient norm.
        what: &'static str,
        /// Its value.
        value: f64,
    },
}

impl Error {
    /// Whether the cause is a file or folder that the caller named. The program then exits with 3.
    pub fn is_bad_input(&self) -> bool {
        use Error::*;
        match self {
            Ternary(error) => error.is_bad_input(),
            Data(error) => error.is_bad_input(),
            Io { source, .. } => source.kind() == std::io::ErrorKind::NotFound,
            Recipe { .. } | Checkpoint { .. } | Numerics { .. } | Pretrained { .. } => true,
            SourcesChanged { .. } | Memory(_) => true,
            Candle(_) | Untrainable { .. } | Threads { .. } => false,
            Collective(_) | RanksDiffer { .. } | Diverged { .. } => false,
        }
    }

    /// Wraps an I/O error with the path of its file.
    pub fn io(path: &Path) -> impl FnOnce(std::io::Error) -> Error + '_ {
        move |source| Error::Io {
            path: path.to_owned(),
            source,
        }
    }
}

/// The first lines, and the number of the others.
fn first(lines: &[String]) -> String {
    const MOST: usize = 3;
    let shown = lines[..lines.len().min(MOST)].join(", ");
    match lines.len() {
        0..=MOST => shown,
        more => format!("{shown}, and {} more files", more - MOST),
    }
}
