//! Errors between a packed file and text.

/// A result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Every way in which a model, a prompt or a setting is refused.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The packed file.
    #[error(transparent)]
    Ternary(#[from] sterna_ternary::Error),
    /// Threads could not be started.
    #[error("starting {threads} threads: {source}; ask for fewer threads")]
    Threads {
        /// The requested number.
        threads: usize,
        /// The cause.
        source: std::io::Error,
    },
    /// A token id that the model does not have.
    #[error(
        "token id {id} at position {index}: expected ids below the vocabulary size {vocab_size}; \
         encode the text with the tokenizer of this model"
    )]
    TokenId {
        /// Place in the ids that were passed.
        index: usize,
        /// The id.
        id: u32,
        /// `vocab_size` of the config.
        vocab_size: usize,
    },
    /// No token to compute.
    #[error("no tokens: expected at least one; begin with the token that begins a sequence")]
    NoTokens,
    /// A stop text that would never be found.
    #[error(
        "stop text {stop:?}: expected text without special tokens, or a special token alone; \
         {token} is one, and generated text does not contain it"
    )]
    StopText {
        /// The stop text.
        stop: String,
        /// The special token in it.
        token: String,
    },
    /// A constraint of an answer that cannot be followed.
    #[error("the constraint of the answer: {0}")]
    Constraint(String),
    /// A model that cannot guess tokens for another one.
    #[error("the draft model: {0}; it must have the tokens of the model")]
    Draft(String),
    /// More positions than the cache has.
    #[error(
        "{cached} tokens in the cache and {new} new ones: expected at most {capacity} together; \
         make a larger cache, shorten the prompt or generate less"
    )]
    ContextFull {
        /// Tokens that the cache holds.
        cached: usize,
        /// Tokens that would follow.
        new: usize,
        /// Positions of the cache.
        capacity: usize,
    },
    /// A cache longer than the model was trained for.
    #[error(
        "a context of {found} tokens: expected 1 to {expected}, the model's \
         max_position_embeddings; ask for less"
    )]
    ContextLength {
        /// `max_position_embeddings` of the config.
        expected: usize,
        /// The requested number of positions.
        found: usize,
    },
    /// A cache that was made for another model.
    #[error("the cache belongs to another model; make one with this model's `new_cache`")]
    ForeignCache,
    /// A computation produced NaN or an infinity.
    #[error(
        "{tensor} of {place} holds NaN or an infinity: expected finite numbers; the checkpoint is \
         broken or was converted with a wrong scale, check it with `sterna doctor`"
    )]
    NonFinite {
        /// The layer, or what follows the layers.
        place: Location,
        /// The tensor with the value.
        tensor: &'static str,
    },
    /// A key or value that half precision cannot hold.
    #[error(
        "{tensor} of {place} holds {found}: expected at most 65504 in a half-precision KV cache; \
         use one of f32 or q8"
    )]
    CacheOverflow {
        /// The layer.
        place: Location,
        /// Keys or values.
        tensor: &'static str,
        /// The largest magnitude.
        found: f32,
    },
    /// An embedded tokenizer file that cannot be used.
    #[error("{file} in the packed file: {why}; fix the checkpoint and convert it again")]
    Tokenizer {
        /// The embedded file.
        file: &'static str,
        /// What is wrong, with expected and found.
        why: String,
    },
    /// The model has no chat template.
    #[error(
        "the packed file has no chat template: it is a base model, which continues texts with \
         `sterna generate`; or put the checkpoint's chat_template.jinja beside it and convert \
         again"
    )]
    NoChatTemplate,
    /// A chat template that cannot be used, or not for these messages.
    #[error("the chat template in {file}: {why}")]
    ChatTemplate {
        /// The embedded file.
        file: &'static str,
        /// What is wrong, with its line.
        why: String,
    },
    /// A text has a token that the model has no row for.
    #[error(
        "the text has the token {token:?} with id {id}, but the model's embedding has {rows} rows: \
         ids without a row in tokenizer.json are {without}; leave the token out of the text, or \
         convert the checkpoint again with the tokenizer.json that it was trained with"
    )]
    TokenWithoutRow {
        /// The token.
        token: String,
        /// Its id.
        id: u32,
        /// Rows of the embedding.
        rows: usize,
        /// All tokens without a row, in words.
        without: String,
    },
    /// The tokenizer failed on a text or on ids.
    #[error(
        "the tokenizer failed: {0}; compare tokenizer.json with that of the published model and \
         convert the checkpoint again"
    )]
    Encoding(String),
    /// A sampling parameter out of range.
    #[error("{name} is {found}, expected {expected}")]
    Sampling {
        /// The parameter.
        name: &'static str,
        /// What would be accepted.
        expected: &'static str,
        /// The value.
        found: f32,
    },
}

impl Error {
    /// Whether the cause is a file or folder that the caller named: the program then exits with 3.
    pub fn is_bad_input(&self) -> bool {
        use Error::*;
        match self {
            Ternary(error) => error.is_bad_input(),
            Tokenizer { .. } | NoChatTemplate | ChatTemplate { .. } | NonFinite { .. } => true,
            Threads { .. } | TokenId { .. } | NoTokens | ContextFull { .. } => false,
            ContextLength { .. } | ForeignCache | CacheOverflow { .. } => false,
            TokenWithoutRow { .. } | Constraint(_) | Encoding(_) => false,
            Sampling { .. } | StopText { .. } | Draft(_) => false,
        }
    }
}

/// Where in the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Location {
    /// A decoder layer, counted from 0.
    Layer(usize),
    /// After the last layer.
    End,
}

impl std::fmt::Display for Location {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        match self {
            Location::Layer(i) => write!(f, "layer {i}"),
            Location::End => write!(f, "the end of the model"),
        }
    }
}
