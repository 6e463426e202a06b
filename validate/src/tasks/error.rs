//! What keeps a task from being read or scored.

use std::path::PathBuf;

/// A result of this module.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Every way in which a task is refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs)] // each variant's message says what its fields are
pub enum Error {
    #[error(transparent)]
    Runtime(#[from] sterna_runtime::Error),

    #[error(transparent)]
    Data(#[from] sterna_datasets::Error),

    #[error("{}: {source}", path.display())]
    Io {
        path: PathBuf,
        source: std::io::Error,
    },

    #[error(
        "unknown task {found:?}: expected a file or folder of .jsonl or .parquet, a task file \
         .toml, LAYOUT=PATH with a layout of {layouts}, or a generated task of {generated}"
    )]
    Unknown {
        found: String,
        layouts: String,
        generated: String,
    },

    #[error(
        "{found} is a task of conversations, and tasks are asked without a chat template; give one \
         of {generated}, or try the model with `sterna chat`"
    )]
    Conversations { found: String, generated: String },

    #[error(
        "{}: {reason}; if one of {layouts} is meant, name it (LAYOUT={}), or write a task file",
        path.display(), path.display()
    )]
    UnknownLayout {
        path: PathBuf,
        reason: String,
        layouts: String,
    },

    #[error(
        "{}: its fields are those of {}; say which one is meant, as in {}={}, or ask for both",
        path.display(), layouts.join(" and "), layouts[0], path.display()
    )]
    SeveralLayouts {
        path: PathBuf,
        layouts: Vec<&'static str>,
    },

    #[error(
        "{name}: record {record} of the examples does not say how its answer is found \
         (`cot_content`), which an example shows; give examples that do, or --fewshot 0"
    )]
    NoExample { name: String, record: usize },

    #[error(
        "two tasks are called {name}; name them in task files (`name = ...`), or copy one of the \
         data files to another name"
    )]
    SameName { name: String },

    #[error("{}, record {record}: {reason}", path.display())]
    Record {
        path: PathBuf,
        record: u64,
        reason: String,
    },

    #[error("{}: no record is in it", path.display())]
    Empty { path: PathBuf },

    #[error("task file {}: {reason}", path.display())]
    Definition { path: PathBuf, reason: String },

    #[error(
        "{name}: {expected} examples are asked for and {found} are there; ask for fewer with \
         --fewshot, or name a file with more in a task file"
    )]
    TooFewExamples {
        name: String,
        found: usize,
        expected: usize,
    },

    #[error("{text:?} is {tokens} tokens, expected 1 to {most}")]
    Continuation {
        text: String,
        tokens: usize,
        most: usize,
    },

    #[error(
        "a text begins with nothing, and the model has neither bos_token nor eos_token to begin \
         it with"
    )]
    NoBos,

    #[error(
        "{tokens} tokens are to be written and the context has {max_length}; shorten the answers \
         with a task file (`layout` or `kind`, and `max_tokens` in [generation]), or give a model \
         with a longer context"
    )]
    Room { tokens: usize, max_length: usize },

    #[error("item {item} is in one run and not in the other; compare runs of the same items")]
    Unpaired { item: usize },

    #[error("the outcomes have no metric {metric:?}; there are {found}")]
    NoMetric { metric: String, found: String },
}
