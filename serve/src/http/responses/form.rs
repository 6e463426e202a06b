//! The form of responses: one object, or the events that build it up.

use serde_json::{Value, json};
use sterna_runtime::StopReason;

use super::super::answers::{Answers, Choice};
use super::super::chat::scored;
use super::super::clock;
use super::super::error::ApiError;
use super::super::form::{Form, Piece, named_event};
use super::super::served::Served;
use crate::engine::{End, Token};

/// The form of responses.
pub struct Responses {
    /// The response before the answer.
    response: Value,
    /// The id of the only message of the answer.
    item: String,
    has_logprobs: bool,
    /// Number of the next event.
    sequence: u64,
}

impl Responses {
    /// A form for this response, whose message has this id.
    pub fn new(response: Value, item: String, has_logprobs: bool) -> Responses {
        Responses {
            response,
            item,
            has_logprobs,
            sequence: 0,
        }
    }

    /// The response with its answer.
    fn ended(&self, served: &Served, answers: &Answers) -> Value {
        let choice = &answers.choices[0];
        let mut response = self.response.clone();
        response["status"] = status(choice).into();
        response["completed_at"] = clock::unix().into();
        if status(choice) == "incomplete" {
            response["completed_at"] = Value::Null;
            response["incomplete_details"] = json!({"reason": "max_output_tokens"});
        }
        response["output"] = json!([self.message(served, choice)]);
        response["usage"] = usage(answers);
        response
    }

    fn message(&self, served: &Served, choice: &Choice) -> Value {
        json!({
            "id": self.item,
            "type": "message",
            "status": status(choice),
            "role": "assistant",
            "content": [self.part(served, &choice.text, &choice.tokens)],
        })
    }

    fn part(&self, served: &Served, text: &str, tokens: &[Token]) -> Value {
        let logprobs = self.logprobs(served, tokens);
        json!({"type": "output_text", "text": text, "annotations": [], "logprobs": logprobs})
    }

    /// Scores of tokens; none where they were not asked for.
    fn logprobs(&self, served: &Served, tokens: &[Token]) -> Vec<Value> {
        let tokens = if self.has_logprobs { tokens } else { &[] };
        tokens.iter().map(|token| scored(served, token)).collect()
    }

    /// Sends an event with the next number.
    fn send(&mut self, out: &mut String, name: &str, mut event: Value) {
        event["type"] = name.into();
        event["sequence_number"] = self.sequence.into();
        self.sequence += 1;
        named_event(out, name, &event);
    }

    /// Sends an event about the text of the message.
    fn send_text(&mut self, out: &mut String, name: &str, mut event: Value) {
        event["item_id"] = self.item.clone().into();
        event["output_index"] = 0.into();
        event["content_index"] = 0.into();
        self.send(out, name, event);
    }
}

/// Whether the answer ended by itself.
fn status(choice: &Choice) -> &'static str {
    match choice.end.as_ref().map(|end| end.reason) {
        Some(StopReason::Length) => "incomplete",
        Some(StopReason::Eos | StopReason::StopText) => "completed",
        None => "in_progress",
    }
}

fn usage(answers: &Answers) -> Value {
    let (input, output) = (answers.prompt_tokens(), answers.generated_tokens());
    let cached = answers.cached_tokens();
    json!({
        "input_tokens": input,
        "input_tokens_details": {"cached_tokens": cached, "cache_write_tokens": 0},
        "output_tokens": output,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": input + output,
    })
}

impl Form for Responses {
    fn whole(&self, served: &Served, answers: &Answers) -> Value {
        self.ended(served, answers)
    }

    fn begin(&mut self, served: &Served, _: &Answers, out: &mut String) {
        for name in ["response.created", "response.in_progress"] {
            let event = json!({"response": self.response});
            self.send(out, name, event);
        }
        let mut item = self.message(served, &Choice::default());
        item["content"] = json!([]);
        let event = json!({"output_index": 0, "item": item});
        self.send(out, "response.output_item.added", event);
        let event = json!({"part": self.part(served, "", &[])});
        self.send_text(out, "response.content_part.added", event);
    }

    fn piece(&mut self, served: &Served, _: &Answers, piece: Piece, out: &mut String) {
        let logprobs = self.logprobs(served, piece.tokens);
        if piece.text.is_empty() && logprobs.is_empty() {
            return;
        }
        let event = json!({"delta": piece.text, "logprobs": logprobs});
        self.send_text(out, "response.output_text.delta", event);
    }

    fn end(&mut self, served: &Served, answers: &Answers, index: usize, _: &End, out: &mut String) {
        let choice = &answers.choices[index];
        let logprobs = self.logprobs(served, &choice.tokens);
        let event = json!({"text": choice.text, "logprobs": logprobs});
        self.send_text(out, "response.output_text.done", event);
        let event = json!({"part": self.part(served, &choice.text, &choice.tokens)});
        self.send_text(out, "response.content_part.done", event);
        let event = json!({"output_index": 0, "item": self.message(served, choice)});
        self.send(out, "response.output_item.done", event);
    }

    fn finish(&mut self, served: &Served, answers: &Answers, out: &mut String) {
        let response = self.ended(served, answers);
        let name = match status(&answers.choices[0]) {
            "incomplete" => "response.incomplete",
            _ => "response.completed",
        };
        self.send(out, name, json!({"response": response}));
    }

    fn fail(&mut self, error: &ApiError, out: &mut String) {
        let mut response = self.response.clone();
        response["status"] = "failed".into();
        let code = error.code.unwrap_or("server_error");
        response["error"] = json!({"code": code, "message": error.message});
        self.send(out, "response.failed", json!({"response": response}));
    }
}
