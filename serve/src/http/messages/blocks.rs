//! Tools in requests: their definitions, and the blocks with calls and results in messages.

use serde_json::{Map, Value, json};
use sterna_ternary::json::shown;

use super::super::error::{ApiError, ApiResult};
use super::super::meaning::Meaning;
use super::super::read::{Reader, under, wrong};

/// Reads `tools` and `tool_choice`.
pub fn tools(fields: Reader, meaning: &mut Meaning) -> ApiResult<()> {
    if let Some(tools) = fields.value("tools") {
        let list = tools.as_array();
        let list = list.ok_or_else(|| wrong("tools", tools, "a list of tools"))?;
        let tools = list
            .iter()
            .enumerate()
            .map(|(index, tool)| function(index, tool));
        meaning.set_tools(tools.collect::<ApiResult<_>>()?, "input_schema");
    }
    let Some(choice) = fields.object("tool_choice")? else {
        return Ok(());
    };
    let choice = Reader(choice);
    choice
        .text("name")
        .map_err(|error| under("tool_choice", error))?;
    let several = choice.boolean("disable_parallel_tool_use");
    let several = several.map_err(|error| under("tool_choice", error))?;
    if let Some(is_off) = several {
        meaning.set("parallel_tool_calls", "tool_choice", (!is_off).into());
    }
    let tools = fields.value("tools").and_then(Value::as_array);
    let has_tools = tools.is_some_and(|tools| !tools.is_empty());
    let value = match choice.value("type").and_then(Value::as_str) {
        Some("auto") => "auto".into(),
        Some("any") if !has_tools => {
            let message = "tool_choice is {\"type\": \"any\"}, and there are no tools; send tools";
            return Err(ApiError::invalid("tool_choice", message));
        }
        Some("any") => "required".into(),
        Some("none") => "none".into(),
        Some("tool") => {
            let name = choice.value("name").unwrap_or(&Value::Null);
            json!({"type": "function", "function": {"name": name}})
        }
        _ => {
            let kind = choice.value("type").unwrap_or(&Value::Null);
            return Err(wrong("tool_choice.type", kind, "auto, any, tool or none"));
        }
    };
    meaning.name("tool_choice.function", "tool_choice");
    meaning.set("tool_choice", "tool_choice", value);
    Ok(())
}

/// A tool as a function of chat.
fn function(index: usize, tool: &Value) -> ApiResult<Value> {
    let at = format!("tools[{index}]");
    let object = tool
        .as_object()
        .ok_or_else(|| wrong(&at, tool, "an object with name"))?;
    match &tool["type"] {
        Value::Null => {}
        Value::String(kind) if kind == "custom" => {}
        Value::String(kind) => {
            let kind = shown(kind);
            let message = format!(
                "{at}.type is {kind:?}, and this server has no tools of its own; send tools of \
                 type custom, which the client runs"
            );
            return Err(ApiError::unsupported(format!("{at}.type"), message));
        }
        other => return Err(wrong(format!("{at}.type"), other, "\"custom\"")),
    }
    let mut function = Map::new();
    for (own, name) in [
        ("name", "name"),
        ("description", "description"),
        ("input_schema", "parameters"),
        ("strict", "strict"),
    ] {
        if let Some(value) = object.get(own) {
            function.insert(name.to_owned(), value.clone());
        }
    }
    Ok(json!({"type": "function", "function": function}))
}

/// Adds the messages that a message stands for: results of tools are messages of their own.
pub fn say(meaning: &mut Meaning, at: &str, role: &str, content: &Value) -> ApiResult<()> {
    let is_call = |block: &&Value| {
        ["tool_use", "tool_result"]
            .iter()
            .any(|k| block["type"] == *k)
    };
    let blocks = content.as_array();
    let Some(blocks) = blocks.filter(|blocks| blocks.iter().any(|block| is_call(&block))) else {
        meaning.say(at, role, content);
        return Ok(());
    };
    let (mut calls, mut texts) = (Vec::new(), Vec::new());
    for (index, block) in blocks.iter().enumerate() {
        let at = format!("{at}.content[{index}]");
        match (block["type"].as_str(), role) {
            (Some("tool_use"), "assistant") => calls.push((at.clone(), call(&at, block)?)),
            (Some("tool_result"), "user") => {
                let content = result(&at, block)?;
                let id = text(&at, block, "tool_use_id")?;
                let message = json!({"role": "tool", "tool_call_id": id, "content": content});
                meaning.say_all(at, message);
            }
            (Some(kind @ ("tool_use" | "tool_result")), role) => {
                let message = format!("{at} is of type {kind}, which a message of {role} has not");
                return Err(ApiError::invalid(at, message));
            }
            _ => texts.push((at, block.clone())),
        }
    }
    if !texts.is_empty() {
        for (index, (own, _)) in texts.iter().enumerate() {
            meaning.name(
                format!("messages[{}].content[{index}]", meaning.said()),
                own,
            );
        }
        let texts = texts.into_iter().map(|(_, block)| block);
        meaning.say(at, role, &texts.collect());
    } else if !calls.is_empty() {
        meaning.say_all(at, json!({"role": role, "content": null}));
    }
    for (own, call) in calls {
        meaning.say_call(own, call);
    }
    Ok(())
}

/// The content of a block with a result. Chat has no word for a failure, so the text says it.
fn result(at: &str, block: &Value) -> ApiResult<Value> {
    let is_error = match &block["is_error"] {
        Value::Null => false,
        Value::Bool(is_error) => *is_error,
        other => return Err(wrong(format!("{at}.is_error"), other, "true or false")),
    };
    let part = |text: &str| json!({"type": "text", "text": text});
    let failed = part("(The tool failed.)");
    Ok(match (&block["content"], is_error) {
        (Value::Null, false) => "".into(),
        (Value::Null, true) => json!([failed]),
        (Value::String(text), true) => json!([part(text), failed]),
        (Value::Array(parts), true) => parts.iter().cloned().chain([failed]).collect(),
        (content, _) => content.clone(),
    })
}

/// A block with a call as a call of chat.
fn call(at: &str, block: &Value) -> ApiResult<Value> {
    let input = &block["input"];
    if !input.is_object() {
        return Err(wrong(format!("{at}.input"), input, "an object"));
    }
    let function = json!({"name": text(at, block, "name")?, "arguments": input});
    Ok(json!({"id": text(at, block, "id")?, "type": "function", "function": function}))
}

/// A text of a block.
fn text<'b>(at: &str, block: &'b Value, name: &str) -> ApiResult<&'b str> {
    let text = block[name].as_str();
    text.ok_or_else(|| wrong(format!("{at}.{name}"), &block[name], "a string"))
}
