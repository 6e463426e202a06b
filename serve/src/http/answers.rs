//! What the engine has said about a request, put together from its events.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sterna_runtime::StopReason;

use super::served::Served;
use crate::engine::{End, Event, Score, Token};

/// One answer.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Choice {
    /// The text so far.
    pub text: String,
    /// The tokens of the text.
    pub tokens: Vec<Token>,
    /// Its end, when it has come.
    pub end: Option<End>,
}

/// Everything about the requests of a list.
#[derive(Debug, Clone, PartialEq)]
pub struct Answers {
    /// Answers per request.
    choices_each: usize,
    /// Tokens of each prompt.
    pub prompts: Vec<Vec<u32>>,
    /// The first token of each prompt, and the others with their scores if they were asked for.
    pub prompt_scores: Vec<Vec<Token>>,
    /// Tokens of each prompt that were not computed.
    pub cached: Vec<usize>,
    /// The answers: those to the first prompt, then those to the second.
    pub choices: Vec<Choice>,
    /// The vectors of the prompts, if they were asked for.
    pub vectors: Vec<Vec<f32>>,
    /// When the requests were given to the engine.
    start: Instant,
    /// When the first part of an answer came.
    first: Option<Instant>,
}

impl Answers {
    /// Nothing yet.
    pub fn new(prompts: Vec<Vec<u32>>, choices_each: usize) -> Answers {
        let count = prompts.len();
        // No model scores the first token of a prompt.
        let first = |prompt: &Vec<u32>| Token {
            id: prompt[0],
            score: None,
        };
        Answers {
            choices_each,
            prompt_scores: prompts.iter().map(|prompt| vec![first(prompt)]).collect(),
            cached: vec![0; count],
            choices: vec![Choice::default(); count * choices_each],
            vectors: vec![Vec::new(); count],
            prompts,
            start: Instant::now(),
            first: None,
        }
    }

    /// Time until the first part of an answer came, and time since then.
    pub fn times(&self) -> (Duration, Duration) {
        let now = Instant::now();
        let first = self.first.unwrap_or(now);
        (first - self.start, now - first)
    }

    /// The index among all answers.
    pub fn index(&self, request: usize, choice: usize) -> usize {
        request * self.choices_each + choice
    }

    /// The request of an answer.
    pub fn request(&self, index: usize) -> usize {
        index / self.choices_each
    }

    /// The tokens of a prompt with their scores.
    pub fn prompt(&self, request: usize) -> &[Token] {
        &self.prompt_scores[request]
    }

    /// Adds an event of a request.
    pub fn add(&mut self, request: usize, event: &Event) {
        match event {
            Event::Prompt(tokens) => self.prompt_scores[request].extend_from_slice(tokens),
            Event::Piece {
                choice,
                text,
                tokens,
            } => {
                self.first.get_or_insert_with(Instant::now);
                let index = self.index(request, *choice);
                self.choices[index].text += text;
                self.choices[index].tokens.extend_from_slice(tokens);
            }
            Event::End(end) => {
                let index = self.index(request, end.choice);
                self.cached[request] = self.cached[request].max(end.cached_tokens);
                self.choices[index].end = Some(end.clone());
            }
            Event::Embedding {
                vector,
                cached_tokens,
            } => {
                self.vectors[request].clone_from(vector);
                self.cached[request] = *cached_tokens;
            }
            Event::Failed(_) => {}
        }
    }

    /// Tokens of all prompts.
    pub fn prompt_tokens(&self) -> usize {
        self.prompts.iter().map(Vec::len).sum()
    }

    /// Tokens of prompts that were not computed.
    pub fn cached_tokens(&self) -> usize {
        self.cached.iter().sum()
    }

    /// Tokens of all answers that ended.
    pub fn generated_tokens(&self) -> usize {
        let ends = self.choices.iter().filter_map(|choice| choice.end.as_ref());
        ends.map(|end| end.generated_tokens).sum()
    }

    /// Tokens of all answers that were guessed and right, and those that were guessed and wrong.
    pub fn guessed_tokens(&self) -> (usize, usize) {
        let ends = self.choices.iter().filter_map(|choice| choice.end.as_ref());
        let counts = ends.map(|end| (end.accepted_tokens, end.drafted_tokens));
        let add = |a: (usize, usize), b: (usize, usize)| (a.0 + b.0, a.1 + b.1);
        let (right, all) = counts.fold((0, 0), add);
        (right, all - right)
    }

    /// OpenAI's object of counts.
    pub fn usage(&self) -> Value {
        let (prompt, generated) = (self.prompt_tokens(), self.generated_tokens());
        let (right, wrong) = self.guessed_tokens();
        json!({
            "prompt_tokens": prompt,
            "completion_tokens": generated,
            "total_tokens": prompt + generated,
            "prompt_tokens_details": {"cached_tokens": self.cached_tokens()},
            "completion_tokens_details": {
                "accepted_prediction_tokens": right,
                "rejected_prediction_tokens": wrong,
            },
        })
    }

    /// All that the promise of a fingerprint covers: texts, ids, log-probabilities, ends and
    /// vectors, in one form for every route, streamed or not. Counts of cached and of guessed
    /// tokens are not part of it.
    pub fn promised(&self) -> Value {
        let choices = self.choices.iter().map(|choice| {
            let end = choice.end.as_ref();
            let last = end.and_then(|end| end.last.as_ref());
            let tokens: Vec<&Token> = choice.tokens.iter().chain(last).collect();
            json!({
                "text": choice.text,
                "ids": tokens.iter().map(|token| token.id).collect::<Vec<u32>>(),
                "logprobs": scores(&tokens),
                "finish_reason": end.map(|end| finish_reason(end.reason)),
            })
        });
        let prompts = self.prompts.iter().zip(&self.prompt_scores);
        let prompts = prompts.map(|(ids, scored)| {
            json!({"ids": ids, "logprobs": scores(&scored.iter().collect::<Vec<_>>())})
        });
        json!({
            "prompts": prompts.collect::<Vec<_>>(),
            "choices": choices.collect::<Vec<_>>(),
            "vectors": self.vectors,
        })
    }
}

fn scores(tokens: &[&Token]) -> Vec<Value> {
    let score = |score: &Score| json!([score.logprob, score.top]);
    tokens
        .iter()
        .map(|token| token.score.as_ref().map_or(Value::Null, score))
        .collect()
}

/// OpenAI's word for the end of an answer.
pub fn finish_reason(reason: StopReason) -> &'static str {
    match reason {
        StopReason::Eos | StopReason::StopText => "stop",
        StopReason::Length => "length",
    }
}

/// A log-probability as JSON, which has no infinities.
pub fn logprob(value: f64) -> f64 {
    value.max(-9999.0)
}

/// Texts of single tokens.
#[derive(Clone, Copy)]
pub struct TokenTexts<'s>(pub &'s Served);

impl<'s> TokenTexts<'s> {
    /// The bytes of a token.
    pub fn bytes(self, id: u32) -> &'s [u8] {
        self.0.tokenizer.bytes(id)
    }

    /// Whether it is a special token, which texts do not show.
    pub fn is_special(self, id: u32) -> bool {
        self.0.tokenizer.is_special(id)
    }

    /// Its text; bytes that are part of a character become U+FFFD.
    pub fn text(self, id: u32) -> String {
        String::from_utf8_lossy(self.bytes(id)).into_owned()
    }

    /// Its text as a name that no other token has: part of a character is spelled as
    /// `bytes:\xe2\x82`, as OpenAI did.
    pub fn name(self, id: u32) -> String {
        let bytes = self.bytes(id);
        match std::str::from_utf8(bytes) {
            Ok(text) => text.to_owned(),
            Err(_) => {
                let digits = bytes.iter().map(|byte| format!("\\x{byte:02x}"));
                format!("bytes:{}", digits.collect::<String>())
            }
        }
    }
}
