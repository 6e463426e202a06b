//! What a client asks of the engine, and what it hears.

use std::sync::Arc;

use sterna_runtime::{Constraint, Sampling, Score, StopReason};

/// One request: a prompt and what to do with it.
#[derive(Debug, Clone)]
pub struct Request {
    /// Index of the client's key in [`super::Limits::weights`].
    pub key: usize,
    /// The tokens, at least one.
    pub prompt: Vec<u32>,
    /// What is wanted.
    pub work: Work,
    /// Whether keys and values of earlier requests may be used. The answer is the same.
    pub reads_cache: bool,
}

/// What to do with a prompt.
#[derive(Debug, Clone)]
pub enum Work {
    /// Continue it.
    Generate(Box<Generate>),
    /// Compute the hidden state of its last token, scaled to length one.
    Embed,
}

/// How a prompt is continued.
#[derive(Debug, Clone)]
pub struct Generate {
    /// Independent answers, at least one. Answer `i` draws from stream `i` of the seed.
    pub choices: usize,
    /// Most tokens of an answer; 0 only scores the prompt.
    pub max_tokens: usize,
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// What every answer keeps to, at its beginning.
    pub constraint: Option<Arc<dyn Constraint>>,
    /// Numbers that are added to logits of tokens; −∞ forbids one. Each id once.
    pub bias: Vec<(u32, f32)>,
    /// Texts and special tokens by name that end an answer.
    pub stop: Vec<String>,
    /// Tokens that end an answer.
    pub stop_tokens: Vec<u32>,
    /// What ended the answer is part of it, if it has a text.
    pub keeps_stop: bool,
    /// The text of the answer follows that of the prompt: a space that it begins with stays.
    pub continues_text: bool,
    /// Go on after tokens that end a text.
    pub ignores_eos: bool,
    /// The text that the answer is expected to repeat in part, as tokens: it makes it faster.
    pub prediction: Vec<u32>,
    /// Score the tokens of answers, beside this number of the most probable ones.
    pub logprobs: Option<usize>,
    /// Score the tokens of the prompt, beside this number of the most probable ones.
    pub prompt_logprobs: Option<usize>,
    /// The first token of the prompt, by its index, that is scored; the very first one has no
    /// score. Keys and values of the tokens before it may be those of earlier requests.
    pub scored_from: usize,
}

impl Request {
    /// Answers that are computed.
    pub fn choices(&self) -> usize {
        match &self.work {
            Work::Generate(generate) => generate.choices,
            Work::Embed => 1,
        }
    }

    /// Most positions that an answer takes in a cache. The last token is not computed.
    pub fn positions(&self) -> usize {
        let answer = match &self.work {
            Work::Generate(generate) => generate.max_tokens.saturating_sub(1),
            Work::Embed => 0,
        };
        self.prompt.len() + answer
    }
}

/// What a client hears. Every request ends with one [`Event::End`] for each choice, with
/// [`Event::Embedding`], or with [`Event::Failed`].
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// Scores of the next tokens of the prompt. The first token has none.
    Prompt(Vec<Token>),
    /// The next part of an answer.
    Piece {
        /// Which answer.
        choice: usize,
        /// Text that may be shown; can be empty where tokens wait for the rest of a character.
        text: String,
        /// The tokens since the last piece, without those of a stop text that is not kept.
        tokens: Vec<Token>,
    },
    /// An answer is complete.
    End(End),
    /// The vector of the prompt, (hidden_size), of length one.
    Embedding {
        /// The vector.
        vector: Vec<f32>,
        /// Tokens of the prompt that were not computed.
        cached_tokens: usize,
    },
    /// The request failed.
    Failed(Failure),
}

/// The end of an answer.
#[derive(Debug, Clone, PartialEq)]
pub struct End {
    /// Which answer.
    pub choice: usize,
    /// Why.
    pub reason: StopReason,
    /// The stop text that ended it, or the name of the token that did.
    pub stop_text: Option<String>,
    /// The token that ended it, if one did: it has no text.
    pub last: Option<Token>,
    /// Tokens of the prompt that were not computed for this request.
    pub cached_tokens: usize,
    /// Tokens of the answer, `last` and those of a stop text included.
    pub generated_tokens: usize,
    /// Tokens that were guessed and computed.
    pub drafted_tokens: usize,
    /// Those of them that are tokens of the answer.
    pub accepted_tokens: usize,
}

/// A token of a prompt or of an answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Token {
    /// Its id.
    pub id: u32,
    /// Its probability, if that was asked for.
    pub score: Option<Score>,
}

/// Why a request failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// A setting that the runtime refuses.
    #[error("{0}")]
    Refused(String),
    /// The tokenizer cannot decode what was generated.
    #[error("{0}")]
    Decoding(String),
    /// The constraint of the answer cannot be followed.
    #[error("{0}")]
    Constraint(String),
    /// The computation produced NaN or an infinity.
    #[error("{0}")]
    Numeric(String),
    /// The request waited too long for its first step.
    #[error("the request waited for {0} s and was not begun; send it again later")]
    QueueTimeout(u64),
    /// The request took too long.
    #[error("the answer took more than {0} s; ask for fewer tokens")]
    Timeout(u64),
    /// The client did not read what it was sent.
    #[error("the client did not read its answer for {0} s")]
    SlowReader(u64),
    /// The server ends.
    #[error("the server shuts down; send the request again")]
    Stopped,
}

/// Where the events of a request go.
pub trait Sink: Send {
    /// Takes an event. It does not wait.
    fn send(&mut self, event: Event);

    /// Whether the client reads.
    fn reader(&self) -> Reader;
}

/// Whether a client reads its events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reader {
    /// It does.
    Ready,
    /// It has many unread ones: nothing more is computed for it at the moment.
    Slow,
    /// It is gone: nothing more is computed for it.
    Gone,
}
