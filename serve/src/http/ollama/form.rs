//! The form of Ollama's answers: one JSON object, or one per line.

use std::time::Duration;

use serde_json::{Value, json};

use super::super::answers::{Answers, finish_reason};
use super::super::chat::scored;
use super::super::clock;
use super::super::error::{ApiError, ApiResult};
use super::super::form::{Form, Piece};
use super::super::served::Served;
use super::super::style::Style;
use super::super::tools::{Call, Called, CalledAnswer, Part};
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
    /// What the answer may call.
    pub called: Called,
    /// The answer of a stream so far.
    pub answer: CalledAnswer,
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

    /// Lists calls in an object, the first of them with this index.
    fn call(object: &mut Value, first: usize, calls: &[Call]) {
        // The arguments of a call that was cut are not an object, and `check` refuses others.
        let calls = calls.iter().enumerate().filter_map(|(index, call)| {
            let (name, arguments) = (&call.name, call.object()?);
            Some(json!({"id": call.id,
                "function": {"index": first + index, "name": name, "arguments": arguments}}))
        });
        let calls: Vec<Value> = calls.collect();
        if !calls.is_empty() {
            object["message"]["tool_calls"] = calls.into();
        }
    }

    /// Sends the parts of a piece; its scores come with the first of them.
    fn send(&self, served: &Served, parts: Vec<Part>, tokens: &[Token], out: &mut String) {
        let mut tokens = tokens;
        for part in parts {
            let mut object = match &part {
                Part::Content(text) => self.object(served, text, tokens),
                Part::Done(_) => self.object(served, "", tokens),
                Part::Call(_) | Part::Arguments(..) => continue,
            };
            if let Part::Done(index) = part {
                Ollama::call(&mut object, index, &self.answer.calls[index..=index]);
            }
            line(out, &object);
            tokens = &[];
        }
        if self.has_logprobs && !tokens.is_empty() {
            line(out, &self.object(served, "", tokens));
        }
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
    fn check(&self, served: &Served, answers: &Answers) -> ApiResult<()> {
        self.called.check(served, answers)
    }

    fn whole(&self, served: &Served, answers: &Answers) -> Value {
        let choice = answers.choices.first().cloned().unwrap_or_default();
        let answer = self.called.whole(served, 0, &choice);
        let mut object = self.object(served, &answer.content, &choice.tokens);
        Ollama::call(&mut object, 0, &answer.calls);
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
        let parts = self.answer.push(served, piece.text, piece.tokens);
        self.send(served, parts, piece.tokens, out);
    }

    fn end(&mut self, served: &Served, _: &Answers, _: usize, _: &End, out: &mut String) {
        let parts = self.answer.finish();
        self.send(served, parts, &[], out);
    }

    fn finish(&mut self, served: &Served, answers: &Answers, out: &mut String) {
        let mut object = self.object(served, "", &[]);
        self.end_with(served, answers, &mut object);
        line(out, &object);
    }

    fn fail(&mut self, error: &ApiError, out: &mut String) {
        line(out, &Style::Ollama.body(error));
    }
}
