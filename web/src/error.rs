//! What the page is told when something is refused.

use serde_json::{Value, json};

/// A result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Every reason to refuse a call.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The packed file.
    #[error(transparent)]
    File(#[from] sterna_ternary::Error),
    /// The model, or what it is asked for.
    #[error(transparent)]
    Runtime(#[from] sterna_runtime::Error),
    /// The bytes do not have the sum that was expected.
    #[error(
        "{name}: sha256 {expected} expected, {found} found; it is another file, or it was damaged \
         on its way: load it again"
    )]
    Sum {
        /// The file.
        name: String,
        /// The sum that was given.
        expected: String,
        /// The sum of the bytes.
        found: String,
    },
    /// A file that memory has no room for.
    #[error(
        "{needed} bytes of memory for the model: the browser has no more for this page; close \
         other tabs, or choose a smaller model"
    )]
    Memory {
        /// The size of the file.
        needed: usize,
    },
    /// The prompt is longer than the context.
    #[error(
        "the prompt has {tokens} tokens, and the context holds {context}; shorten a message, or \
         start a new conversation"
    )]
    Context {
        /// Tokens of the prompt.
        tokens: usize,
        /// What fits.
        context: usize,
    },
    /// The model cannot chat.
    #[error("{0}")]
    Template(String),
    /// The chat template leaves the last message out.
    #[error("the chat template does not write the last message, so it cannot be continued")]
    NotContinued,
    /// A call that is out of order or has fields that it cannot have.
    #[error("{0}")]
    Call(String),
}

impl Error {
    /// A word for programs; the same as the server's where it has one.
    fn code(&self) -> &'static str {
        use sterna_runtime::Error as Runtime;
        match self {
            Error::File(_) | Error::Runtime(Runtime::Ternary(_)) => "bad_file",
            Error::Sum { .. } => "wrong_sum",
            Error::Memory { .. } => "memory",
            Error::Context { .. } => "context_length_exceeded",
            Error::Template(_) => "no_chat_template",
            Error::NotContinued | Error::Runtime(Runtime::ChatTemplate { .. }) => "template_error",
            Error::Runtime(_) => "refused",
            Error::Call(_) => "call",
        }
    }

    /// `{"message": …, "code": …}`.
    pub fn json(&self) -> Value {
        json!({"message": self.to_string(), "code": self.code()})
    }
}
