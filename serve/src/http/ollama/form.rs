//! The form of Ollama's answers: one JSON object, or one per line.

use std::time::Duration;

use serde_json::{Value, json};

use super::super::answers::{Answers, finish_reason};
use super::super::chat::scored;
use super::super::clock;
use super::super::error::ApiError;
use super::super::form::{Form, Piece};
use super::super::served::Served;
use super::super::style::Style;
use crate::engine::{End, Token};

/// Which of the two answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A message.
    Chat,
    /// A text.
    Generate,
}

impl Kind {
    /// The path of its route.
    pub fn route(self) -> &'static str {
        match self {
            Kind::Chat => "/api/chat",
            Kind::Generate => "/api/generate",
        }
    }
}

/// Ollama's form of answers.
pub struct Ollama {
    /// Which one.
    pub kind: Kind,
    /// Whether tokens are scored.
    pub has_logprobs: bool,
    /// The seed.
    pub seed: i64,
}

impl Ollama {
    fn object(&self, served: &Served, text: &str, tokens: &[Token]) -> Value {
        let mut object = json!({"model": served.name, "created_at": clock::now()});
        match self.kind {
            Kind::Chat => object["message"] = json!({"role": "assistant", "content": text}),
            Kind::Generate => object["response"] = text.into(),
        }
        object["done"] = false.into();
        if self.has_logprobs {
            object["logprobs"] = tokens.iter().map(|token| scored(served, token)).collect();
        }
        object
    }

    /// Adds why and after what time the answer ended.
    fn end_with(&self, served: &Served, answers: &Answers, object: &mut Value) {
        let (before, after) = answers.times();
        let end = answers
            .choices
            .first()
            .and_then(|choice| choice.end.as_ref());
        object["done"] = true.into();
        object["done_reason"] = end.map_or("load", |end| finish_reason(end.reason)).into();
        let rest = json!({
            "total_duration": nanos(before + after),
            "load_duration": 0,
            "prompt_eval_count": answers.prompt_tokens(),
            "prompt_eval_duration": nanos(before),
            "eval_count": answers.generated_tokens(),
            "eval_duration": nanos(after),
            "sterna": {"seed": self.seed, "system_fingerprint": served.fingerprint},
        });
        for (name, value) in rest.as_object().into_iter().flatten() {
            object[name] = value.clone();
        }
    }
}

/// Nanoseconds, as all of Ollama's durations.
pub fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn line(out: &mut String, object: &Value) {
    out.push_str(&object.to_string());
    out.push('\n');
}

impl Form for Ollama {
    fn whole(&self, served: &Served, answers: &Answers) -> Value {
        let choice = answers.choices.first().cloned().unwrap_or_default();
        let mut object = self.object(served, &choice.text, &choice.tokens);
        self.end_with(served, answers, &mut object);
        object
    }

    fn media(&self) -> &'static str {
        "application/x-ndjson"
    }

    // A line has no form that clients would pass over.
    fn ping(&self) -> &'static str {
        ""
    }

    fn piece(&mut self, served: &Served, _: &Answers, piece: Piece, out: &mut String) {
        let has_scores = self.has_logprobs && !piece.tokens.is_empty();
        if has_scores || !piece.text.is_empty() {
            line(out, &self.object(served, piece.text, piece.tokens));
        }
    }

    fn end(&mut self, _: &Served, _: &Answers, _: usize, _: &End, _: &mut String) {}

    fn finish(&mut self, served: &Served, answers: &Answers, out: &mut String) {
        let mut object = self.object(served, "", &[]);
        self.end_with(served, answers, &mut object);
        line(out, &object);
    }

    fn fail(&mut self, error: &ApiError, out: &mut String) {
        line(out, &Style::Ollama.body(error));
    }
}
