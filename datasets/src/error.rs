//! The one error type: what was wrong, where, and what to do about it.

use std::io;
use std::path::{Path, PathBuf};

use crate::files::KINDS;
use crate::generate::Task;

/// An error on the way from text to batches.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs)] // each variant's message says what its fields are
pub enum Error {
    #[error("{}: cannot {action}: {source}", path.display())]
    Io {
        path: PathBuf,
        action: &'static str,
        source: io::Error,
    },

    #[error("unknown task {found:?}; the tasks are {}", task_names())]
    UnknownTask { found: String },

    #[error(
        "the mix of tasks is invalid: {reason}; write for example \"addition2=0.6,stories=0.4\""
    )]
    Mix { reason: String },

    #[error(
        "a text contains the token {token:?} with id {id}, but the model's embedding has {rows} \
         rows; leave the token out of the text or of the chat template"
    )]
    NoRow { token: String, id: u32, rows: usize },

    #[error("{}: cannot read this kind of file; expected {KINDS}", path.display())]
    UnknownFormat { path: PathBuf },

    #[error("{}: no file of texts found here{}; expected {KINDS}; in a folder, .json files and \
             README.md are not taken for data, so name them",
            path.display(),
            match left_out { 0 => String::new(), n => format!(" among {n} files") })]
    NoInput { path: PathBuf, left_out: usize },

    #[error("{}, line {line}: the text is not UTF-8; convert it first", path.display())]
    NotUtf8 { path: PathBuf, line: u64 },

    #[error("{}: the text is UTF-16, as Windows PowerShell's `>` writes it; save it as UTF-8",
            path.display())]
    Utf16 { path: PathBuf },

    #[error("{}: {reason}", place(path, *line))]
    Json {
        path: PathBuf,
        line: u64,
        reason: String,
    },

    #[error("{}{}: {reason}", path.display(),
            match row { 0 => String::new(), row => format!(", row {row}") })]
    Parquet {
        path: PathBuf,
        row: u64,
        reason: String,
    },

    #[error("{}: {reason}; expected an object with `text`, with `messages` (a list of \
             {{role, content}}), or with `prompt` and `completion`, all strings; `column` \
             (--column) names another key with a text",
            place(path, *line))]
    Record {
        path: PathBuf,
        line: u64,
        reason: String,
    },

    #[error("{}: no .jsonl, .ndjson, .json or .parquet file found here, and records are read from \
             these; in a folder, .json files are not taken for data, so name them", path.display())]
    NoRecords { path: PathBuf },

    #[error("{}: {reason}", place(path, *line))]
    Conversation {
        path: PathBuf,
        line: u64,
        reason: String,
    },

    #[error("{}: the chat template cannot write this conversation: {reason}", place(path, *line))]
    Template {
        path: PathBuf,
        line: u64,
        reason: String,
    },

    #[error("{count} of {of} records cannot be used; expected at most a tenth of them{}",
            first.iter().map(|line| format!("\n  {line}")).collect::<String>())]
    BadRecords {
        count: u64,
        of: u64,
        first: Vec<String>,
    },

    #[error("{}: no conversation would be in this file; add some, hold out a larger share \
             (`held_out`), or lengthen the context (`context`)",
            path.display())]
    NoConversation { path: PathBuf },

    #[error("the share of held-out documents is {found}; expected at least 0 and less than 1")]
    HeldOutShare { found: f64 },

    #[error(
        "a vocabulary of {found} is too small for byte-level BPE; expected at least {least} \
         (256 bytes and the special tokens)"
    )]
    VocabSize { found: usize, least: usize },

    #[error("tokenizer {}: {reason}", path.display())]
    Tokenizer { path: PathBuf, reason: String },

    #[error("the tokenizer failed: {reason}")]
    Tokenization { reason: String },

    #[error("{}: not a token shard: {reason}; prepare the data first", path.display())]
    NotAShard { path: PathBuf, reason: String },

    #[error("{}: shard version {found}, expected {expected}; prepare the data again",
            path.display())]
    ShardVersion {
        path: PathBuf,
        found: u32,
        expected: u32,
    },

    #[error("{}: the header says {field} = {found}, expected {expected}; the file is damaged, \
             prepare the data again", path.display())]
    ShardHeader {
        path: PathBuf,
        field: &'static str,
        found: u64,
        expected: String,
    },

    #[error("{}: {found} bytes, but its header promises {expected}; the file is damaged, prepare \
             the data again", path.display())]
    ShardSize {
        path: PathBuf,
        found: u64,
        expected: u128,
    },

    #[error("{}: token {position} is {found}, expected an id below the vocabulary of {vocab_size}; \
             the file is damaged, prepare the data again", path.display())]
    ShardToken {
        path: PathBuf,
        position: u64,
        found: u32,
        vocab_size: u32,
    },

    #[error("{}: made with another tokenizer than {}; prepare both with the same one",
            path.display(), other.display())]
    TokenizerMismatch { path: PathBuf, other: PathBuf },

    #[error("{}: too small for one row of {expected} tokens that begins with a document: it has \
             {found} tokens; add data or shorten the context (`context`)", path.display())]
    TooSmall {
        path: PathBuf,
        found: u64,
        expected: u64,
    },

    #[error("a source of text has the weight {found}; expected a number above 0")]
    Weight { found: f64 },

    #[error("{found} sources of text are mixed; expected at most 1024")]
    Sources { found: usize },

    #[error("stopped before the data were prepared; nothing was kept")]
    Stopped,

    #[error("the loader has {name} = 0; expected at least 1")]
    Zero { name: &'static str },
}

impl Error {
    /// Whether the cause is a file or folder that the caller named: the program then exits with 3.
    pub fn is_bad_input(&self) -> bool {
        use Error::*;
        use io::ErrorKind::{InvalidData, InvalidInput, NotFound, UnexpectedEof};
        match self {
            Io { source, .. } => matches!(
                source.kind(),
                NotFound | InvalidInput | InvalidData | UnexpectedEof
            ),
            Stopped => false,
            UnknownTask { .. } | Mix { .. } | HeldOutShare { .. } | VocabSize { .. } => false,
            UnknownFormat { .. } | NoInput { .. } | Json { .. } | Parquet { .. } => true,
            Record { .. } | NoRecords { .. } | Conversation { .. } => true,
            BadRecords { .. } | NoRow { .. } => true,
            Template { .. } | NoConversation { .. } | NotUtf8 { .. } | Utf16 { .. } => true,
            Tokenizer { .. } | Tokenization { .. } | TokenizerMismatch { .. } => true,
            NotAShard { .. } | ShardVersion { .. } | ShardHeader { .. } => true,
            ShardSize { .. } | ShardToken { .. } | TooSmall { .. } => true,
            Weight { .. } | Sources { .. } | Zero { .. } => true,
        }
    }

    /// Whether one record is the cause, so that reading can go on with the next.
    pub fn is_of_a_record(&self) -> bool {
        use Error::*;
        matches!(
            self,
            Json { .. } | NotUtf8 { .. } | Record { .. } | Conversation { .. } | Template { .. }
        )
    }

    /// Adds to an I/O error its file and the action that failed.
    pub(crate) fn io(path: &Path, action: &'static str) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Error::Io {
            path,
            action,
            source,
        }
    }
}

/// A file and a line in it, or the number of a record if the file has no lines.
pub(crate) fn place(path: &Path, line: u64) -> String {
    let word = match path.extension().and_then(|extension| extension.to_str()) {
        Some("json" | "parquet") => "record",
        _ => "line",
    };
    format!("{}, {word} {line}", path.display())
}

fn task_names() -> String {
    Task::ALL.map(Task::name).join(", ")
}
