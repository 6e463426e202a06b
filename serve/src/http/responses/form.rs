//! The form of responses: one object, or the events that build it up item by item.

use serde_json::{Value, json};
use sterna_runtime::StopReason;

use super::super::answers::{Answers, Choice};
use super::super::chat::scored;
use super::super::clock;
use super::super::error::ApiError;
use super::super::form::{Form, Piece, named_event};
use super::super::served::Served;
use super::super::tools::{Call, Called, CalledAnswer, Part};
use crate::engine::{End, Token};

/// The form of responses.
pub struct Responses {
    /// The response before the answer.
    response: Value,
    /// The id of the message of the answer.
    message: String,
    has_logprobs: bool,
    /// What the answer may call.
    called: Called,
    /// The answer of a stream so far.
    answer: CalledAnswer,
    /// The item of a stream that is open.
    open: Open,
    /// Items of a stream so far.
    items: usize,
    /// Number of the next event.
    sequence: u64,
}

/// An item that is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Open {
    /// No item is.
    None,
    Message,
    /// The call with this index.
    Call(usize),
}

impl Responses {
    /// A form for this response, whose message has this id.
    pub fn new(response: Value, message: String, has_logprobs: bool, called: Called) -> Responses {
        Responses {
            response,
            message,
            has_logprobs,
            answer: called.answer(0),
            called,
            open: Open::None,
            items: 0,
            sequence: 0,
        }
    }

    /// The response with its answer.
    fn ended(&self, served: &Served, answers: &Answers) -> Value {
        let choice = &answers.choices[0];
        let answer = self.called.whole(served, 0, choice);
        let mut response = self.response.clone();
        response["status"] = status(choice).into();
        response["completed_at"] = clock::unix().into();
        if status(choice) == "incomplete" {
            response["completed_at"] = Value::Null;
            response["incomplete_details"] = json!({"reason": "max_output_tokens"});
        }
        let mut output = Vec::new();
        if answer.calls.is_empty() || !answer.content.is_empty() {
            let status = if answer.calls.is_empty() {
                status(choice)
            } else {
                "completed"
            };
            output.push(self.item(served, status, &answer.content, &choice.tokens));
        }
        output.extend(
            answer
                .calls
                .iter()
                .map(|call| function_call(call, call_status(call))),
        );
        response["output"] = output.into();
        response["usage"] = usage(answers);
        response
    }

    fn item(&self, served: &Served, status: &str, text: &str, tokens: &[Token]) -> Value {
        json!({
            "id": self.message,
            "type": "message",
            "status": status,
            "role": "assistant",
            "content": [self.part(served, text, tokens)],
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
        event["item_id"] = self.message.clone().into();
        event["output_index"] = self.items.into();
        event["content_index"] = 0.into();
        self.send(out, name, event);
    }

    /// Sends an event about the arguments of a call.
    fn send_call(&mut self, out: &mut String, name: &str, index: usize, mut event: Value) {
        event["item_id"] = item_id(&self.answer.calls[index]).into();
        event["output_index"] = self.items.into();
        self.send(out, name, event);
    }

    /// Begins the message.
    fn open_message(&mut self, served: &Served, out: &mut String) {
        let mut item = self.item(served, "in_progress", "", &[]);
        item["content"] = json!([]);
        let event = json!({"output_index": self.items, "item": item});
        self.send(out, "response.output_item.added", event);
        let event = json!({"part": self.part(served, "", &[])});
        self.send_text(out, "response.content_part.added", event);
        self.open = Open::Message;
    }

    /// Sends parts of the answer, each in an item of its kind. Scores come with the first one.
    fn send_parts(
        &mut self,
        served: &Served,
        answers: &Answers,
        parts: Vec<Part>,
        mut tokens: &[Token],
        out: &mut String,
    ) {
        for part in parts {
            match part {
                Part::Content(text) => {
                    if self.open == Open::None {
                        self.open_message(served, out);
                    }
                    let logprobs = self.logprobs(served, std::mem::take(&mut tokens));
                    let event = json!({"delta": text, "logprobs": logprobs});
                    self.send_text(out, "response.output_text.delta", event);
                }
                Part::Call(index) => {
                    self.close(served, answers, "completed", out);
                    self.open = Open::Call(index);
                    let item = function_call(&self.answer.calls[index], "in_progress");
                    let mut event = json!({"output_index": self.items, "item": item});
                    event["item"]["arguments"] = "".into();
                    self.send(out, "response.output_item.added", event);
                }
                Part::Arguments(index, text) => {
                    let event = json!({"delta": text});
                    let name = "response.function_call_arguments.delta";
                    self.send_call(out, name, index, event);
                }
                Part::Done(_) => self.close(served, answers, "completed", out),
            }
        }
        let logprobs = self.logprobs(served, tokens);
        if !logprobs.is_empty() {
            let event = json!({"delta": "", "logprobs": logprobs});
            self.send_text(out, "response.output_text.delta", event);
        }
    }

    /// Ends the item that is open.
    fn close(&mut self, served: &Served, answers: &Answers, status: &str, out: &mut String) {
        let tokens = &answers.choices[0].tokens;
        let item = match self.open {
            Open::None => return,
            Open::Message => {
                let text = self.answer.content.clone();
                let logprobs = self.logprobs(served, tokens);
                let event = json!({"text": text, "logprobs": logprobs});
                self.send_text(out, "response.output_text.done", event);
                let event = json!({"part": self.part(served, &text, tokens)});
                self.send_text(out, "response.content_part.done", event);
                self.item(served, status, &text, tokens)
            }
            Open::Call(index) => {
                let call = self.answer.calls[index].clone();
                let event = json!({"name": call.name, "arguments": call.arguments});
                let name = "response.function_call_arguments.done";
                self.send_call(out, name, index, event);
                function_call(&call, call_status(&call))
            }
        };
        let event = json!({"output_index": self.items, "item": item});
        self.send(out, "response.output_item.done", event);
        (self.open, self.items) = (Open::None, self.items + 1);
    }
}

/// The id of the item of a call.
fn item_id(call: &Call) -> String {
    call.id.replace("call_", "fc_")
}

/// The item of a call.
fn function_call(call: &Call, status: &str) -> Value {
    json!({"id": item_id(call), "type": "function_call", "status": status, "call_id": call.id,
        "name": call.name, "arguments": call.arguments})
}

fn call_status(call: &Call) -> &'static str {
    match call.is_complete {
        true => "completed",
        false => "incomplete",
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
        if !self.called.may_call() {
            self.open_message(served, out);
        }
    }

    fn piece(&mut self, served: &Served, answers: &Answers, piece: Piece, out: &mut String) {
        let parts = self.answer.push(served, piece.text, piece.tokens);
        self.send_parts(served, answers, parts, piece.tokens, out);
    }

    fn end(&mut self, served: &Served, answers: &Answers, index: usize, _: &End, out: &mut String) {
        let parts = self.answer.finish();
        self.send_parts(served, answers, parts, &[], out);
        if self.items == 0 && self.open == Open::None {
            self.open_message(served, out);
        }
        self.close(served, answers, status(&answers.choices[index]), out);
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
