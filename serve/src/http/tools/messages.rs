//! Tools in conversations: calls of earlier answers, and descriptions for templates that have no
//! place for tools.

use serde_json::{Map, Value, json};
use sterna_ternary::sha256;

use super::super::error::{ApiError, ApiResult};
use super::super::read::{Reader, under, wrong};

/// The calls of a message as templates expect them: arguments are an object, or JSON as a text
/// where `takes_text`.
///
/// # Errors
/// 400 and the place that is wrong.
pub fn calls_of(at: &str, calls: &Value, takes_text: bool) -> ApiResult<Value> {
    let list = calls.as_array();
    let list = list.ok_or_else(|| wrong(at, calls, "a list of calls"))?;
    let calls = list.iter().enumerate();
    let calls = calls.map(|(index, call)| one(&format!("{at}[{index}]"), call, takes_text));
    calls.collect()
}

fn one(at: &str, call: &Value, takes_text: bool) -> ApiResult<Value> {
    let expected = "{\"id\": ID, \"type\": \"function\", \"function\": {\"name\", \"arguments\"}}";
    let object = call.as_object().ok_or_else(|| wrong(at, call, expected))?;
    let function = call["function"].as_object();
    let function = function.ok_or_else(|| wrong(at, call, expected))?;
    let fields = Reader(object);
    fields.text("id").map_err(|error| under(at, error))?;
    if let Some(kind) = fields.value("type").filter(|kind| *kind != "function") {
        return Err(wrong(format!("{at}.type"), kind, "\"function\""));
    }
    if !function.get("name").is_some_and(Value::is_string) {
        let name = function.get("name").unwrap_or(&Value::Null);
        return Err(wrong(format!("{at}.function.name"), name, "a string"));
    }
    let at = format!("{at}.function.arguments");
    let arguments = match function.get("arguments") {
        None | Some(Value::Null) => json!({}),
        Some(Value::String(text)) if text.trim().is_empty() => json!({}),
        Some(Value::String(text)) => {
            let parsed = sterna_ternary::json::parse(text.as_bytes());
            let parsed = parsed.ok().filter(Value::is_object);
            parsed.ok_or_else(|| {
                let message =
                    format!("{at} is not the text of a JSON object; leave out a call that was cut");
                ApiError::invalid(&at, message)
            })?
        }
        Some(Value::Object(members)) => members.clone().into(),
        Some(other) => return Err(wrong(at, other, "the text of a JSON object")),
    };
    let arguments = match takes_text {
        true => arguments.to_string().into(),
        false => arguments,
    };
    let (mut object, mut function) = (object.clone(), function.clone());
    function.insert("arguments".into(), arguments);
    object.insert("function".into(), function.into());
    Ok(object.into())
}

/// Writes what a template has no place for into messages: calls of earlier answers and their
/// results, and, if `tools` are there, what can be called and how.
pub fn describe(messages: &mut Vec<Map<String, Value>>, tools: Option<&Value>, has_calls: bool) {
    // A result without a call is for the template to refuse.
    let were_calls = messages.iter().any(|m| m.contains_key("tool_calls"));
    for message in messages.iter_mut().filter(|_| !has_calls) {
        let Some(calls) = message.shift_remove("tool_calls") else {
            continue;
        };
        let call = |call: &Value| {
            let function = &call["function"];
            let (name, arguments) = (&function["name"], &function["arguments"]);
            format!("{{\"name\": {name}, \"arguments\": {arguments}}}")
        };
        let calls = calls.as_array().into_iter().flatten().map(call);
        let text = message["content"].as_str().filter(|text| !text.is_empty());
        let lines: Vec<String> = text.map(str::to_owned).into_iter().chain(calls).collect();
        message.insert("content".into(), lines.join("\n").into());
    }
    if !has_calls && were_calls {
        say_results(messages);
    }
    let Some(tools) = tools.and_then(Value::as_array) else {
        return;
    };
    let lines: Vec<String> = tools
        .iter()
        .map(|tool| tool["function"].to_string())
        .collect();
    let text = format!(
        "These functions can be called. Each line describes one of them.\n{}\n\nTo call a \
         function, answer with one line of JSON and nothing else:\n{{\"name\": NAME, \
         \"arguments\": OBJECT}}",
        lines.join("\n")
    );
    match messages.first_mut() {
        Some(first) if first["role"] == "system" => {
            let before = first["content"].as_str().unwrap_or_default();
            let text = format!("{before}\n\n{text}");
            first.insert("content".into(), text.into());
        }
        _ => {
            let message = json!({"role": "system", "content": text});
            messages.insert(0, message.as_object().expect("it is one").clone());
        }
    }
}

/// Makes results texts of the user, one message with the user's text that follows them: some
/// templates pass over other roles, and some want turns to alternate.
fn say_results(messages: &mut Vec<Map<String, Value>>) {
    let mut is_after_result = false;
    for mut message in std::mem::take(messages) {
        let is_result = message["role"] == "tool";
        if is_result {
            let of = message.get("name").and_then(Value::as_str);
            let of = of.map(|name| format!(" of {name}")).unwrap_or_default();
            let text = message["content"].as_str().unwrap_or_default();
            let text = format!("Result{of}:\n{text}");
            message = Map::from_iter([
                ("role".to_owned(), "user".into()),
                ("content".to_owned(), text.into()),
            ]);
        }
        let is_user = message["role"] == "user";
        match messages.last_mut().filter(|_| is_after_result && is_user) {
            Some(last) => {
                let text = |message: &Map<String, Value>| {
                    message["content"].as_str().unwrap_or_default().to_owned()
                };
                let text = format!("{}\n\n{}", text(last), text(&message));
                last.insert("content".into(), text.into());
            }
            None => messages.push(message),
        }
        is_after_result = is_result;
    }
}

/// Makes ids of calls nine letters and digits, for templates that refuse others.
pub fn shorten_ids(messages: &mut [Map<String, Value>]) {
    let shorten = |id: &mut Value| {
        let is_long = |id: &&str| id.len() != 9 || !id.chars().all(|c| c.is_ascii_alphanumeric());
        if let Some(long) = id.as_str().filter(is_long) {
            *id = Value::from(&sha256::of(long.as_bytes())[..9]);
        }
    };
    for message in messages {
        message
            .get_mut("tool_call_id")
            .into_iter()
            .for_each(shorten);
        let calls = message.get_mut("tool_calls").and_then(Value::as_array_mut);
        let ids = calls.into_iter().flatten();
        ids.filter_map(|call| call.get_mut("id")).for_each(shorten);
    }
}
