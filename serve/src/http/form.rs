//! The form of an answer: what a route makes of the engine's events.

use serde_json::Value;

use super::answers::Answers;
use super::error::{ApiError, ApiResult};
use super::served::Served;
use crate::engine::{End, Token};

/// How a route writes answers: as one object, or as parts of a stream.
///
/// The functions of a stream append to `out` what is sent, with its framing.
pub trait Form: Send + Sync {
    /// Whether the answers can be written in this form. It is asked before they end.
    ///
    /// # Errors
    /// 500 and what cannot be written.
    fn check(&self, _served: &Served, _answers: &Answers) -> ApiResult<()> {
        Ok(())
    }

    /// The object of the whole answer.
    fn whole(&self, served: &Served, answers: &Answers) -> Value;

    /// The media type of a stream.
    fn media(&self) -> &'static str {
        "text/event-stream"
    }

    /// What is sent when nothing else was for some time.
    fn ping(&self) -> &'static str {
        ": ping\n\n"
    }

    /// The beginning of a stream.
    fn begin(&mut self, _served: &Served, _answers: &Answers, _out: &mut String) {}

    /// Scores of more tokens of a prompt, which `answers` has already.
    fn prompt(&mut self, _served: &Served, _answers: &Answers, _request: usize, _out: &mut String) {
    }

    /// The next part of an answer, which `answers` has already.
    fn piece(&mut self, served: &Served, answers: &Answers, piece: Piece, out: &mut String);

    /// The end of an answer.
    fn end(
        &mut self,
        served: &Served,
        answers: &Answers,
        index: usize,
        end: &End,
        out: &mut String,
    );

    /// The end of the stream.
    fn finish(&mut self, served: &Served, answers: &Answers, out: &mut String);

    /// An error after the stream has begun. The stream ends with it.
    fn fail(&mut self, error: &ApiError, out: &mut String) {
        event(out, &error.body());
    }
}

/// The next part of an answer.
#[derive(Debug, Clone, Copy)]
pub struct Piece<'p> {
    /// The index of the answer.
    pub index: usize,
    /// The text.
    pub text: &'p str,
    /// The tokens; none while they wait for the rest of a character.
    pub tokens: &'p [Token],
}

/// Appends a server-sent event without a name.
pub fn event(out: &mut String, data: &Value) {
    out.push_str("data: ");
    out.push_str(&data.to_string());
    out.push_str("\n\n");
}

/// Appends a server-sent event with a name.
pub fn named_event(out: &mut String, name: &str, data: &Value) {
    out.push_str("event: ");
    out.push_str(name);
    out.push('\n');
    event(out, data);
}

/// The end of a stream of OpenAI's API.
pub const DONE: &str = "data: [DONE]\n\n";
