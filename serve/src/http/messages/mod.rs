//! `/v1/messages` and `/v1/messages/count_tokens`: Anthropic's API as a form of chat. Nothing is
//! kept between requests, as in that API.

mod blocks;

use std::sync::Arc;

use serde_json::{Map, Value, json};
use sterna_runtime::StopReason;

use super::answers::Answers;
use super::error::{ApiError, ApiResult};
use super::fields::{self, Fields};
use super::form::{Form, Piece, named_event};
use super::job::{Job, unique};
use super::meaning::Meaning;
use super::read::{Reader, wrong};
use super::served::Served;
use super::style::Style;
use super::tools::{Call, Called, CalledAnswer, Part, Plan};
use crate::engine::End;

/// Reads a request.
///
/// # Errors
/// 400 and the field that is wrong.
pub fn job(
    served: Arc<Served>,
    mut body: Map<String, Value>,
    key: usize,
    is_strict: bool,
) -> ApiResult<Job> {
    let mut ignored = fields::ignored(&body, Fields::Messages, is_strict)?;
    let reader = Reader(&body);
    if reader.value("max_tokens").is_none() {
        let message = "max_tokens is missing, expected a whole number from 1";
        return Err(ApiError::invalid("max_tokens", message));
    }
    let meaning = meaning(reader)?;
    let mut wish = meaning.wish(&served)?;
    let plan = meaning.plan(&served, &mut wish)?;
    wish.name_ignored(&mut ignored, is_strict)?;
    let prompt = meaning.prompt(&served, "messages", &mut wish)?;
    let called = Plan::called(plan, &prompt, wish.seed);
    let form = Messages {
        id: format!("msg_{}", unique()?),
        seed: wish.seed,
        answer: called.answer(0),
        called,
        block: Block::None,
        blocks: 0,
    };
    let is_streamed = reader.flag("stream")?;
    let request = wish.request(&served, key, prompt);
    body.insert("seed".into(), wish.seed.into());
    Ok(Job {
        served,
        route: "/v1/messages",
        requests: vec![request],
        form: Box::new(form),
        is_streamed,
        ignored,
        body,
    })
}

/// The number of tokens of a request.
///
/// # Errors
/// 400.
pub fn count_tokens(served: &Served, body: &Map<String, Value>) -> ApiResult<Value> {
    let reader = Reader(body);
    reader.flag("stream")?;
    let tokens = meaning(reader)?.count(served, "messages")?;
    Ok(json!({"input_tokens": tokens}))
}

/// A request as one for chat.
fn meaning(fields: Reader) -> ApiResult<Meaning> {
    const EXPECTED: &str = "a list of at least one message";
    let mut meaning = Meaning::of(fields.0);
    meaning.copy("max_tokens", "max_tokens", fields.0);
    if let Some(stop) = fields.value("stop_sequences") {
        if !stop.is_array() {
            return Err(wrong("stop_sequences", stop, "a list of strings"));
        }
        meaning.set("stop", "stop_sequences", stop.clone());
    }
    check_thinking(fields)?;
    blocks::tools(fields, &mut meaning)?;
    output(fields, &mut meaning)?;
    match fields.value("system") {
        None => {}
        Some(Value::String(text)) if text.is_empty() => {}
        Some(Value::Array(blocks)) if blocks.is_empty() => {}
        Some(system @ (Value::String(_) | Value::Array(_))) => {
            meaning.say("system", "system", system);
        }
        Some(other) => return Err(wrong("system", other, "a string or a list of text blocks")),
    }
    let Some(messages) = fields.value("messages") else {
        let message = format!("messages is missing, expected {EXPECTED}");
        return Err(ApiError::invalid("messages", message));
    };
    let list = messages.as_array().filter(|list| !list.is_empty());
    let list = list.ok_or_else(|| wrong("messages", messages, EXPECTED))?;
    for (index, message) in list.iter().enumerate() {
        let at = format!("messages[{index}]");
        let role = &message["role"];
        match role.as_str() {
            Some(name @ ("user" | "assistant")) => {
                blocks::say(&mut meaning, &at, name, &message["content"])?;
            }
            _ => return Err(wrong(format!("{at}.role"), role, "user or assistant")),
        }
    }
    Ok(meaning)
}

fn check_thinking(fields: Reader) -> ApiResult<()> {
    let Some(thinking) = fields.object("thinking")? else {
        return Ok(());
    };
    match thinking.get("type").and_then(Value::as_str) {
        Some("disabled") => Ok(()),
        _ => {
            let message = "thinking is not {\"type\": \"disabled\"}, and this server does not \
                           separate thoughts from answers; leave thinking out";
            Err(ApiError::unsupported("thinking", message))
        }
    }
}

fn output(fields: Reader, meaning: &mut Meaning) -> ApiResult<()> {
    let config = fields.object("output_config")?;
    match config.and_then(|config| config.get("format")) {
        None | Some(Value::Null) => Ok(()),
        Some(format) => meaning.set_format("output_config.format", format.clone()),
    }
}

/// Anthropic's form of answers.
struct Messages {
    id: String,
    seed: i64,
    /// What the answer may call.
    called: Called,
    /// The answer of a stream so far.
    answer: CalledAnswer,
    /// The block of a stream that is open.
    block: Block,
    /// Blocks of a stream so far.
    blocks: usize,
}

/// What an open block holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Block {
    /// No block is open.
    None,
    Text,
    Call,
}

impl Messages {
    fn message(&self, served: &Served, answers: &Answers, content: Value) -> Value {
        let end = answers.choices[0].end.as_ref();
        let whole = self.called.whole(served, 0, &answers.choices[0]);
        let (reason, sequence) = stopped(end, &whole);
        json!({
            "id": self.id,
            "type": "message",
            "role": "assistant",
            "model": served.name,
            "content": content,
            "stop_reason": reason,
            "stop_sequence": sequence,
            "usage": usage(answers),
            "sterna": {"seed": self.seed, "system_fingerprint": served.fingerprint},
        })
    }

    /// Sends parts of the answer, each in a block of its kind.
    fn send_parts(&mut self, parts: Vec<Part>, out: &mut String) {
        for part in parts {
            match part {
                Part::Content(text) => {
                    if self.block != Block::Text {
                        self.open(Block::Text, &json!({"type": "text", "text": ""}), out);
                    }
                    self.delta(&json!({"type": "text_delta", "text": text}), out);
                }
                Part::Call(index) => {
                    let block = tool_use(&self.answer.calls[index], json!({}));
                    self.open(Block::Call, &block, out);
                }
                Part::Arguments(_, text) => {
                    self.delta(
                        &json!({"type": "input_json_delta", "partial_json": text}),
                        out,
                    );
                }
                Part::Done(_) => self.close(out),
            }
        }
    }

    fn open(&mut self, block: Block, content: &Value, out: &mut String) {
        self.close(out);
        self.block = block;
        let index = self.blocks;
        let start =
            json!({"type": "content_block_start", "index": index, "content_block": content});
        send(out, &start);
    }

    fn delta(&self, delta: &Value, out: &mut String) {
        let index = self.blocks;
        send(
            out,
            &json!({"type": "content_block_delta", "index": index, "delta": delta}),
        );
    }

    fn close(&mut self, out: &mut String) {
        if self.block != Block::None {
            send(
                out,
                &json!({"type": "content_block_stop", "index": self.blocks}),
            );
            (self.block, self.blocks) = (Block::None, self.blocks + 1);
        }
    }
}

/// A block with a call.
fn tool_use(call: &Call, input: Value) -> Value {
    let id = call.id.replace("call_", "toolu_");
    json!({"type": "tool_use", "id": id, "name": call.name, "input": input})
}

/// Why an answer ended, and the text that ended it.
fn stopped(end: Option<&End>, answer: &CalledAnswer) -> (Value, Value) {
    let Some(end) = end else {
        return (Value::Null, Value::Null);
    };
    if answer.finish_reason(end) == "tool_calls" {
        return ("tool_use".into(), Value::Null);
    }
    match end.reason {
        StopReason::Eos => ("end_turn".into(), Value::Null),
        StopReason::Length => ("max_tokens".into(), Value::Null),
        StopReason::StopText => ("stop_sequence".into(), json!(end.stop_text)),
    }
}

/// Counts of tokens. Those of the prompt that were computed and those that were not add up to it.
fn usage(answers: &Answers) -> Value {
    let cached = answers.cached_tokens();
    json!({
        "input_tokens": answers.prompt_tokens() - cached,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": cached,
        "output_tokens": answers.generated_tokens(),
    })
}

fn send(out: &mut String, event: &Value) {
    let name = event["type"].as_str().expect("every event has a type");
    named_event(out, name, event);
}

impl Form for Messages {
    fn check(&self, served: &Served, answers: &Answers) -> ApiResult<()> {
        self.called.check(served, answers)
    }

    fn whole(&self, served: &Served, answers: &Answers) -> Value {
        let answer = self.called.whole(served, 0, &answers.choices[0]);
        let mut content = Vec::new();
        if answer.calls.is_empty() || !answer.content.is_empty() {
            content.push(json!({"type": "text", "text": answer.content}));
        }
        // The input of a call that was cut is not an object.
        let calls = answer.calls.iter();
        content.extend(calls.filter_map(|call| Some(tool_use(call, call.object()?.into()))));
        self.message(served, answers, content.into())
    }

    fn ping(&self) -> &'static str {
        "event: ping\ndata: {\"type\":\"ping\"}\n\n"
    }

    fn begin(&mut self, served: &Served, answers: &Answers, out: &mut String) {
        let message = self.message(served, answers, json!([]));
        send(out, &json!({"type": "message_start", "message": message}));
        if !self.called.may_call() {
            self.open(Block::Text, &json!({"type": "text", "text": ""}), out);
        }
        out.push_str(self.ping());
    }

    fn piece(&mut self, served: &Served, _: &Answers, piece: Piece, out: &mut String) {
        let parts = self.answer.push(served, piece.text, piece.tokens);
        self.send_parts(parts, out);
    }

    fn end(&mut self, _: &Served, answers: &Answers, _: usize, end: &End, out: &mut String) {
        let parts = self.answer.finish();
        self.send_parts(parts, out);
        if self.blocks == 0 && self.block == Block::None {
            self.open(Block::Text, &json!({"type": "text", "text": ""}), out);
        }
        self.close(out);
        let (reason, sequence) = stopped(Some(end), &self.answer);
        let delta = json!({"stop_reason": reason, "stop_sequence": sequence});
        let usage = usage(answers);
        send(
            out,
            &json!({"type": "message_delta", "delta": delta, "usage": usage}),
        );
    }

    fn finish(&mut self, _: &Served, _: &Answers, out: &mut String) {
        send(out, &json!({"type": "message_stop"}));
    }

    fn fail(&mut self, error: &ApiError, out: &mut String) {
        send(out, &Style::Anthropic.body(error));
    }
}
