//! `/v1/messages` and `/v1/messages/count_tokens`: Anthropic's API as a form of chat. Nothing is
//! kept between requests, as in that API.

use std::sync::Arc;

use serde_json::{Map, Value, json};
use sterna_runtime::StopReason;

use super::answers::{Answers, Choice};
use super::error::{ApiError, ApiResult};
use super::fields::{self, Fields};
use super::form::{Form, Piece, named_event};
use super::job::{Job, unique};
use super::meaning::Meaning;
use super::read::{Reader, wrong};
use super::served::Served;
use super::style::Style;
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
    wish.name_ignored(&mut ignored, is_strict)?;
    let prompt = meaning.prompt(&served, "messages", &mut wish)?;
    let form = Messages {
        id: format!("msg_{}", unique()?),
        seed: wish.seed,
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
            Some(name @ ("user" | "assistant")) => meaning.say(at, name, &message["content"]),
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
}

impl Messages {
    fn message(&self, served: &Served, answers: &Answers, content: Value) -> Value {
        let end = answers.choices[0].end.as_ref();
        let (reason, sequence) = stopped(end);
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
}

/// Why an answer ended, and the text that ended it.
fn stopped(end: Option<&End>) -> (Value, Value) {
    let Some(end) = end else {
        return (Value::Null, Value::Null);
    };
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
    fn whole(&self, served: &Served, answers: &Answers) -> Value {
        let Choice { text, .. } = &answers.choices[0];
        let content = json!([{"type": "text", "text": text}]);
        self.message(served, answers, content)
    }

    fn ping(&self) -> &'static str {
        "event: ping\ndata: {\"type\":\"ping\"}\n\n"
    }

    fn begin(&mut self, served: &Served, answers: &Answers, out: &mut String) {
        let message = self.message(served, answers, json!([]));
        send(out, &json!({"type": "message_start", "message": message}));
        let block = json!({"type": "text", "text": ""});
        let start = json!({"type": "content_block_start", "index": 0, "content_block": block});
        send(out, &start);
        out.push_str(self.ping());
    }

    fn piece(&mut self, _: &Served, _: &Answers, piece: Piece, out: &mut String) {
        if !piece.text.is_empty() {
            let delta = json!({"type": "text_delta", "text": piece.text});
            let event = json!({"type": "content_block_delta", "index": 0, "delta": delta});
            send(out, &event);
        }
    }

    fn end(&mut self, _: &Served, answers: &Answers, _: usize, end: &End, out: &mut String) {
        send(out, &json!({"type": "content_block_stop", "index": 0}));
        let (reason, sequence) = stopped(Some(end));
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
