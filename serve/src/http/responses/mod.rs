//! `/v1/responses` and `/v1/responses/input_tokens`: OpenAI's second API as a form of chat. Nothing
//! is kept between requests: the client sends the whole conversation each time.

mod form;
mod tools;

use std::sync::Arc;

use serde_json::{Map, Value, json};
use sterna_ternary::json::shown;

use super::error::{ApiError, ApiResult};
use super::fields::{self, Fields};
use super::job::{Job, unique};
use super::meaning::{Meaning, number, score};
use super::read::{Reader, wrong};
use super::served::Served;
use super::tools::Plan;

/// Parts of answers that can be asked for. All but the first belong to tools of a server and to
/// thoughts, of which answers have none.
const INCLUDE: [&str; 9] = [
    LOGPROBS,
    "code_interpreter_call.outputs",
    "computer_call_output.output.image_url",
    "file_search_call.results",
    "message.input_image.image_url",
    "reasoning.encrypted_content",
    "web_search_call.action.sources",
    "web_search_call.results",
    "program_call.outputs",
];
const LOGPROBS: &str = "message.output_text.logprobs";

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
    let mut ignored = fields::ignored(&body, Fields::Responses, is_strict)?;
    let reader = Reader(&body);
    let meaning = meaning(reader)?;
    let mut wish = meaning.wish(&served)?;
    let has_logprobs = score(&mut wish, reader, includes_logprobs(reader)?)?;
    let plan = meaning.plan(&served, &mut wish)?;
    wish.name_ignored(&mut ignored, is_strict)?;
    if plan.is_some() && has_logprobs {
        let message = "scores of tokens are asked for, and tools may be called; send \
                       \"tool_choice\": \"none\", or use /v1/chat/completions";
        return Err(ApiError::unsupported("include", message));
    }
    let tools = meaning.tools()?;
    let prompt = meaning.prompt(&served, "input", &mut wish)?;
    let called = Plan::called(plan, &prompt, wish.seed);
    let sampling = wish.sampling();
    let response = json!({
        "id": format!("resp_{}", unique()?),
        "object": "response",
        "created_at": super::clock::unix(),
        "completed_at": null,
        "status": "in_progress",
        "background": false,
        "error": null,
        "incomplete_details": null,
        "instructions": body.get("instructions"),
        "max_output_tokens": body.get("max_output_tokens"),
        "max_tool_calls": null,
        "metadata": reader.object("metadata")?.cloned().unwrap_or_default(),
        "model": served.name,
        "output": [],
        "parallel_tool_calls": tools.are_several(),
        "previous_response_id": null,
        "prompt_cache_key": null,
        "reasoning": {"effort": effort(reader)?, "summary": null},
        "safety_identifier": null,
        "service_tier": "default",
        "store": false,
        "temperature": number(sampling.temperature),
        "top_p": number(sampling.top_p),
        "presence_penalty": number(sampling.presence_penalty),
        "frequency_penalty": number(sampling.frequency_penalty),
        "text": {"format": asked_format(reader)?.cloned().unwrap_or(json!({"type": "text"}))},
        "tool_choice": tools::choice(reader, &tools),
        "tools": reader.value("tools").cloned().unwrap_or_else(|| json!([])),
        "top_logprobs": reader.value("top_logprobs").cloned().unwrap_or_else(|| 0.into()),
        "truncation": "disabled",
        "usage": null,
        "user": null,
        "sterna": {"seed": wish.seed, "system_fingerprint": served.fingerprint},
    });
    let form = form::Responses::new(response, format!("msg_{}", unique()?), has_logprobs, called);
    let is_streamed = reader.flag("stream")?;
    let request = wish.request(&served, key, prompt);
    body.insert("seed".into(), wish.seed.into());
    Ok(Job {
        served,
        route: "/v1/responses",
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
pub fn input_tokens(served: &Served, body: &Map<String, Value>) -> ApiResult<Value> {
    let reader = Reader(body);
    let meaning = meaning(reader)?;
    score(
        &mut meaning.wish(served)?,
        reader,
        includes_logprobs(reader)?,
    )?;
    reader.object("metadata")?;
    reader.flag("stream")?;
    let tokens = meaning.count(served, "input")?;
    Ok(json!({"object": "response.input_tokens", "input_tokens": tokens}))
}

/// A request as one for chat.
fn meaning(fields: Reader) -> ApiResult<Meaning> {
    let mut meaning = Meaning::of(fields.0);
    meaning.copy("stop", "stop", fields.0);
    meaning.copy("max_tokens", "max_output_tokens", fields.0);
    if fields.value("prompt").is_some() {
        let message = "prompt names a stored template, and this server stores none; send its text \
                       as instructions and input";
        return Err(ApiError::unsupported("prompt", message));
    }
    format(fields, &mut meaning)?;
    tools::read(fields, &mut meaning)?;
    if let Some(effort) = effort(fields)? {
        meaning.set("reasoning_effort", "reasoning.effort", effort.into());
    }
    // An answer of the model at the end is complete: the next one is a message of its own.
    meaning.set_absent("continue_final_message", false.into());
    if let Some(instructions) = fields.text("instructions")?.filter(|text| !text.is_empty()) {
        meaning.say("instructions", "system", &instructions.into());
    }
    input(fields, &mut meaning)?;
    Ok(meaning)
}

/// Adds the messages of `input`.
fn input(fields: Reader, meaning: &mut Meaning) -> ApiResult<()> {
    const EXPECTED: &str = "a string or a list of at least one message";
    match fields.value("input") {
        None => {
            let message = format!("input is missing, expected {EXPECTED}");
            Err(ApiError::invalid("input", message))
        }
        Some(text @ Value::String(_)) => {
            meaning.say("input", "user", text);
            Ok(())
        }
        Some(Value::Array(items)) if !items.is_empty() => {
            for (index, item) in items.iter().enumerate() {
                say(format!("input[{index}]"), item, meaning)?;
            }
            Ok(())
        }
        Some(other) => Err(wrong("input", other, EXPECTED)),
    }
}

fn say(at: String, item: &Value, meaning: &mut Meaning) -> ApiResult<()> {
    if !item.is_object() {
        return Err(wrong(at, item, "an object with role and content"));
    }
    match &item["type"] {
        Value::Null => {}
        Value::String(kind) if kind == "message" => {}
        Value::String(kind) if tools::say(&at, kind, item, meaning)? => return Ok(()),
        Value::String(kind) => {
            let message = format!(
                "{at} is of type {}, and this server reads messages, calls of functions and their \
                 results",
                shown(kind)
            );
            return Err(ApiError::unsupported(at, message));
        }
        other => return Err(wrong(format!("{at}.type"), other, "\"message\"")),
    }
    let role = &item["role"];
    match role.as_str() {
        Some(name @ ("user" | "assistant" | "system" | "developer")) => {
            meaning.say(at, name, &item["content"]);
            Ok(())
        }
        _ => {
            let expected = "user, assistant, system or developer";
            Err(wrong(format!("{at}.role"), role, expected))
        }
    }
}

fn effort(fields: Reader<'_>) -> ApiResult<Option<&str>> {
    let Some(reasoning) = fields.object("reasoning")? else {
        return Ok(None);
    };
    match reasoning.get("effort") {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(effort)) => Ok(Some(effort)),
        Some(other) => Err(wrong("reasoning.effort", other, "a string")),
    }
}

fn format(fields: Reader, meaning: &mut Meaning) -> ApiResult<()> {
    match asked_format(fields)? {
        None => Ok(()),
        Some(format) => meaning.set_format("text.format", format.clone()),
    }
}

/// What the answer keeps to, as the client has said it.
fn asked_format(fields: Reader<'_>) -> ApiResult<Option<&Value>> {
    let text = fields.object("text")?;
    let format = text.and_then(|text| text.get("format"));
    Ok(format.filter(|format| !format.is_null()))
}

/// Whether scores of tokens are among the parts of an answer that are asked for.
fn includes_logprobs(fields: Reader) -> ApiResult<bool> {
    let expected = format!("a list of some of {}", INCLUDE.join(", "));
    let Some(value) = fields.value("include") else {
        return Ok(false);
    };
    let list = value.as_array();
    let list = list.ok_or_else(|| wrong("include", value, &expected))?;
    let unknown = |part: &&Value| !part.as_str().is_some_and(|part| INCLUDE.contains(&part));
    match list.iter().find(unknown) {
        Some(part) => Err(wrong("include", part, expected)),
        None => Ok(list.iter().any(|part| part == LOGPROBS)),
    }
}
