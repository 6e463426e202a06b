//! From the messages of a request to the tokens of a prompt, by the model's chat template.

use serde_json::{Map, Value};
use sterna_runtime::chat::CONTINUED;
use sterna_ternary::json::shown;

use super::error::{ApiError, ApiResult};
use super::read::{Reader, under, wrong};
use super::served::Served;
use super::tools::{Tools, calls_of, describe, shorten_ids};

/// Names of `chat_template_kwargs` that are not the client's to set.
const RESERVED: [&str; 5] = [
    "messages",
    "tools",
    "documents",
    "add_generation_prompt",
    "continue_final_message",
];
/// Most bytes of `chat_template_kwargs`.
const MOST_KWARGS: usize = 16 << 10;

/// The tokens of a conversation, checked against the context, and whether an answer continues its
/// last message.
///
/// # Errors
/// 400: a message that is wrong, one that the template refuses, or too many tokens.
pub fn tokens(served: &Served, fields: Reader) -> ApiResult<(Vec<u32>, bool)> {
    let (text, is_continued) = text(served, fields)?;
    let special = fields.flag("add_special_tokens")?;
    let tokens = served.encode("messages", &text, special)?;
    served.check("messages", &tokens)?;
    Ok((tokens, is_continued))
}

/// The text of a conversation, and whether an answer continues its last message.
///
/// # Errors
/// 400.
pub fn text(served: &Served, fields: Reader) -> ApiResult<(String, bool)> {
    let tools = Tools::read(fields)?;
    let template = served.template()?;
    let takes_text = || served.call_syntax().is_some_and(|syntax| syntax.takes_text);
    let mut messages = messages(fields, takes_text)?;
    let names_calls = |message: &Map<String, Value>| {
        message.contains_key("tool_calls") || message.contains_key("tool_call_id")
    };
    if messages.iter().any(names_calls) && served.needs_short_ids() {
        shorten_ids(&mut messages);
    }
    let is_continued = is_continued(fields, &messages)?;
    if is_continued && tools.may_call() {
        let message = "the last message is the assistant's, so the answer would continue it, and \
                       tools may be called; send \"continue_final_message\": false or \
                       \"tool_choice\": \"none\"";
        return Err(ApiError::invalid("continue_final_message", message));
    }
    let mut variables = variables(fields)?;
    let shown = tools.shown();
    let untold = shown.as_ref().filter(|_| !served.knows_tools());
    describe(&mut messages, untold, template.names("tool_calls"));
    if let Some(shown) = shown {
        variables.insert("tools".into(), shown);
    }
    let messages = messages.into_iter().map(Value::Object).collect();
    variables.insert("messages".into(), Value::Array(messages));
    let rendered = match is_continued {
        true => template.render_continued(variables),
        false => {
            let add_prompt = fields.boolean("add_generation_prompt")?.unwrap_or(true);
            template.render_with(&variables, add_prompt).map(Some)
        }
    };
    let text = rendered.map_err(|error| ApiError::runtime("messages", &error))?;
    let text = text.ok_or_else(|| {
        let message = "the chat template does not write the last message, so it cannot be \
                       continued; send \"continue_final_message\": false";
        ApiError::template(message.into())
    })?;
    Ok((text, is_continued))
}

/// Refuses fields of conversations that are of the wrong type, also where there is none.
///
/// # Errors
/// 400.
pub fn check_types(fields: Reader) -> ApiResult<()> {
    fields.boolean("add_generation_prompt")?;
    fields.boolean("continue_final_message")?;
    Tools::read(fields)?;
    variables(fields).map(|_| ())
}

/// Whether the answer continues the last message: where that is said, and where that message is the
/// assistant's and nothing else is said.
fn is_continued(fields: Reader, messages: &[Map<String, Value>]) -> ApiResult<bool> {
    let last = messages.last().expect("there is at least one");
    let is_answer = last["role"] == "assistant" && !last.contains_key("tool_calls");
    let said = fields.boolean("continue_final_message")?;
    let adds = fields.boolean("add_generation_prompt")?;
    match (said, adds) {
        (Some(true), Some(true)) => {
            let message = "continue_final_message and add_generation_prompt are both true, \
                           expected one of them";
            Err(ApiError::invalid("continue_final_message", message))
        }
        (Some(true), _) if !is_answer => {
            let message = "continue_final_message is true, and the last message is not a text of \
                           the assistant";
            Err(ApiError::invalid("continue_final_message", message))
        }
        (Some(said), _) => Ok(said),
        (None, Some(_)) => Ok(false),
        (None, None) => Ok(is_answer),
    }
}

/// Variables of the template beside the messages.
fn variables(fields: Reader) -> ApiResult<Map<String, Value>> {
    let mut variables = Map::new();
    if let Some(effort) = fields.text("reasoning_effort")? {
        variables.insert("reasoning_effort".into(), effort.into());
    }
    let Some(kwargs) = fields.object("chat_template_kwargs")? else {
        return Ok(variables);
    };
    if Value::Object(kwargs.clone()).to_string().len() > MOST_KWARGS {
        let message = format!("chat_template_kwargs is larger than {MOST_KWARGS} bytes");
        return Err(ApiError::invalid("chat_template_kwargs", message));
    }
    for (name, value) in kwargs {
        if RESERVED.contains(&name.as_str()) || name.ends_with("_token") {
            let message = format!("chat_template_kwargs sets {name}, which is not its to set");
            return Err(ApiError::invalid("chat_template_kwargs", message));
        }
        variables.insert(name.clone(), value.clone());
    }
    Ok(variables)
}

/// The messages as templates expect them: `developer` is `system`, and content is a string.
fn messages(fields: Reader, takes_text: impl Fn() -> bool) -> ApiResult<Vec<Map<String, Value>>> {
    const EXPECTED: &str = "a list of at least one message";
    let Some(value) = fields.value("messages") else {
        let message = format!("messages is missing, expected {EXPECTED}");
        return Err(ApiError::invalid("messages", message));
    };
    let list = value.as_array().filter(|list| !list.is_empty());
    let list = list.ok_or_else(|| wrong("messages", value, EXPECTED))?;
    let messages = list.iter().enumerate();
    let messages = messages.map(|(index, one)| message(index, one, &takes_text));
    let mut messages: Vec<_> = messages.collect::<ApiResult<_>>()?;
    name_results(&mut messages);
    Ok(messages)
}

/// Gives results of tools the name of the tool, which some templates need. Clients name the call.
fn name_results(messages: &mut [Map<String, Value>]) {
    let mut names: Vec<(Value, Value)> = Vec::new();
    for message in messages {
        let calls = message.get("tool_calls").and_then(Value::as_array);
        let calls = calls.into_iter().flatten();
        names.extend(calls.map(|call| (call["id"].clone(), call["function"]["name"].clone())));
        let id = message
            .get("tool_call_id")
            .filter(|_| message["role"] == "tool");
        let call = names.iter().rev().find(|(known, _)| id == Some(known));
        if let Some((_, name)) = call.filter(|_| !message.contains_key("name")) {
            message.insert("name".into(), name.clone());
        }
    }
}

fn message(
    index: usize,
    value: &Value,
    takes_text: impl Fn() -> bool,
) -> ApiResult<Map<String, Value>> {
    let at = format!("messages[{index}]");
    let expected = "an object with role and content";
    let object = value
        .as_object()
        .ok_or_else(|| wrong(&at, value, expected))?;
    let role = object.get("role").unwrap_or(&Value::Null);
    let role = match role.as_str() {
        Some("developer") => "system",
        Some(role @ ("system" | "user" | "assistant" | "tool")) => role,
        _ => {
            let expected = "system, developer, user, assistant or tool";
            return Err(wrong(format!("{at}.role"), role, expected));
        }
    };
    let id = Reader(object).text("tool_call_id");
    id.map_err(|error| under(&at, error))?;
    let calls = object.get("tool_calls").filter(|calls| !is_empty(calls));
    let content = object.get("content").unwrap_or(&Value::Null);
    let content = match content {
        Value::String(text) => Value::String(text.clone()),
        Value::Array(parts) => joined(&format!("{at}.content"), parts)?.into(),
        Value::Null if role == "assistant" && calls.is_some() => Value::Null,
        other => {
            let expected = "a string, or a list of parts of type text";
            return Err(wrong(format!("{at}.content"), other, expected));
        }
    };
    if content
        .as_str()
        .is_some_and(|text| text.contains(CONTINUED))
    {
        let message = format!("{at}.content has a text that the server reserves");
        return Err(ApiError::invalid(format!("{at}.content"), message));
    }
    let mut message = object.clone();
    message.retain(|name, value| name != "refusal" && !(name == "tool_calls" && is_empty(value)));
    message.insert("role".into(), role.into());
    message.insert("content".into(), content);
    if let Some(calls) = calls {
        let calls = calls_of(&format!("{at}.tool_calls"), calls, takes_text())?;
        message.insert("tool_calls".into(), calls);
    }
    Ok(message)
}

fn is_empty(value: &Value) -> bool {
    value.is_null() || value.as_array().is_some_and(Vec::is_empty)
}

/// The text of a list of parts, one line each.
fn joined(at: &str, parts: &[Value]) -> ApiResult<String> {
    fn text(at: String, part: &Value) -> ApiResult<&str> {
        let kind = part["type"].as_str();
        let key = match kind {
            Some("text" | "input_text" | "output_text") => "text",
            Some("refusal") => "refusal",
            Some(kind) => {
                let message = format!(
                    "{at} is of type {}, and the model reads text only",
                    shown(kind)
                );
                return Err(ApiError::unsupported(at, message));
            }
            None => return Err(wrong(at, part, "an object with type and text")),
        };
        let text = part[key].as_str();
        text.ok_or_else(|| wrong(format!("{at}.{key}"), &part[key], "a string"))
    }
    let parts = parts.iter().enumerate();
    let texts = parts.map(|(index, part)| text(format!("{at}[{index}]"), part));
    let texts: ApiResult<Vec<&str>> = texts.collect();
    Ok(texts?.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(list: Value) -> ApiResult<Vec<Map<String, Value>>> {
        let body = json!({"messages": list});
        messages(Reader(body.as_object().unwrap()), || false)
    }

    #[test]
    fn roles_and_parts_become_what_templates_know() {
        let found = read(json!([
            {"role": "developer", "content": "Be brief."},
            {"role": "user", "content": [
                {"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
            {"role": "assistant", "content": null, "refusal": null, "tool_calls": [{"id": "1",
                "type": "function", "function": {"name": "f", "arguments": "{\"a\": 1}"}}]},
            {"role": "tool", "content": "3", "tool_call_id": "1"},
        ]))
        .unwrap();
        let found: Vec<Value> = found.into_iter().map(Value::Object).collect();
        assert_eq!(
            Value::Array(found),
            json!([
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": "a\nb"},
                {"role": "assistant", "content": null, "tool_calls": [{"id": "1",
                    "type": "function", "function": {"name": "f", "arguments": {"a": 1}}}]},
                {"role": "tool", "content": "3", "tool_call_id": "1", "name": "f"},
            ])
        );
    }

    #[test]
    fn wrong_messages_are_refused_by_place() {
        for (list, param) in [
            (json!([]), "messages"),
            (json!("hi"), "messages"),
            (json!(["hi"]), "messages[0]"),
            (json!([{"content": "x"}]), "messages[0].role"),
            (
                json!([{"role": "king", "content": "x"}]),
                "messages[0].role",
            ),
            (json!([{"role": "user"}]), "messages[0].content"),
            (
                json!([{"role": "user", "content": 3}]),
                "messages[0].content",
            ),
            (
                json!([{"role": "assistant", "content": null}]),
                "messages[0].content",
            ),
            (
                json!([{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]),
                "messages[0].content[0]",
            ),
            (
                json!([{"role": "user", "content": [{"type": "text", "text": 3}]}]),
                "messages[0].content[0].text",
            ),
            (
                json!([{"role": "assistant", "content": "x", "tool_calls": [{"id": "1"}]}]),
                "messages[0].tool_calls[0]",
            ),
            (
                json!([{"role": "assistant", "content": "x", "tool_calls": [{"id": "1",
                    "function": {"name": "f", "arguments": "{\"a"}}]}]),
                "messages[0].tool_calls[0].function.arguments",
            ),
            (
                json!([{"role": "user", "content": CONTINUED}]),
                "messages[0].content",
            ),
        ] {
            let error = read(list.clone()).unwrap_err();
            assert_eq!(error.param.as_deref(), Some(param), "{list}");
        }
    }

    #[test]
    fn the_last_answer_is_continued_unless_told() {
        let user = json!({"role": "user", "content": "x"});
        let answer = json!({"role": "assistant", "content": "y"});
        let check = |last: &Value, fields: Value| {
            let list = [last.as_object().unwrap().clone()];
            is_continued(Reader(fields.as_object().unwrap()), &list)
        };
        assert!(!check(&user, json!({})).unwrap());
        assert!(check(&answer, json!({})).unwrap());
        assert!(!check(&answer, json!({"continue_final_message": false})).unwrap());
        assert!(!check(&answer, json!({"add_generation_prompt": true})).unwrap());
        let both = json!({"continue_final_message": true, "add_generation_prompt": true});
        assert!(check(&answer, both).is_err());
        assert!(check(&user, json!({"continue_final_message": true})).is_err());
    }
}
