//! What a record asks, and the requests that it becomes after its few-shot examples.

use serde::{Deserialize, Serialize};

/// A record as text, without its few-shot examples.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Sample {
    /// The text before the answer.
    pub(super) text: String,
    /// The right answer as an example shows it; none where the record cannot be an example.
    pub(super) example: Option<String>,
    /// The text before everything else; items with different descriptions do not share examples.
    pub(super) description: String,
    pub(super) query: Query,
}

/// What is asked.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Query {
    /// Which of the choices is likeliest after the text?
    Choices {
        choices: Vec<String>,
        gold: usize,
        /// Is accuracy by log-likelihood per character a figure too?
        normalized: bool,
    },
    /// How much of the probability of all choices is that of the true ones?
    Truths {
        choices: Vec<String>,
        is_true: Vec<bool>,
    },
    /// After which of these texts is the continuation likeliest?
    Contexts {
        contexts: Vec<String>,
        continuation: String,
        gold: usize,
    },
    /// Is this what greedy decoding writes after the delimiter, and how likely is it?
    Continuation { text: String },
    /// Is this what greedy decoding writes, without a delimiter before it?
    Completion { text: String },
    /// What is written until a stop text, and does its answer match?
    Generation { reference: String },
}

/// One question of a task, as a model sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct Item {
    /// Its number in the task, from 0.
    pub index: usize,
    /// Pairs of what is given and what is scored; for generation, one with the reference as second.
    pub requests: Vec<Request>,
}

/// A text and what may follow it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// What the model is given.
    pub context: String,
    /// The text that is scored, with the delimiter before it.
    pub continuation: String,
}

/// The delimiters between a question and its answer, and after an example.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Delimiters {
    pub(super) target: String,
    pub(super) example: String,
}

impl Default for Delimiters {
    fn default() -> Self {
        Self {
            target: " ".into(),
            example: "\n\n".into(),
        }
    }
}

impl Sample {
    /// The item after its examples.
    pub(super) fn item(&self, index: usize, examples: &[&Sample], delimiters: &Delimiters) -> Item {
        let Delimiters { target, example } = delimiters;
        let mut before = self.description.clone();
        for shot in examples {
            // Without an answer there is nothing to delimit.
            match shot.example.as_deref().unwrap_or_default() {
                "" => before += &shot.text,
                answer => before.extend([&shot.text, target, answer, example]),
            }
        }
        let request = |context: &str, continuation: &str| Request {
            context: format!("{before}{context}"),
            continuation: format!("{target}{continuation}"),
        };
        let requests = match &self.query {
            Query::Choices { choices, .. } | Query::Truths { choices, .. } => {
                let requests = choices.iter().map(|choice| request(&self.text, choice));
                requests.collect()
            }
            Query::Contexts {
                contexts,
                continuation,
                ..
            } => {
                let requests = contexts
                    .iter()
                    .map(|context| request(context, continuation));
                requests.collect()
            }
            Query::Continuation { text } => vec![request(&self.text, text)],
            Query::Completion { text } | Query::Generation { reference: text } => vec![Request {
                context: format!("{before}{}", self.text),
                continuation: text.clone(),
            }],
        };
        Item { index, requests }
    }
}

/// What Python's `str.strip` takes for a space.
pub(super) fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}
