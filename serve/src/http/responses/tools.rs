//! Functions in requests: their definitions, and the items with calls and results.

use serde_json::{Map, Value, json};
use sterna_ternary::json::shown;

use super::super::error::{ApiError, ApiResult};
use super::super::meaning::Meaning;
use super::super::read::{Reader, wrong};
use super::super::tools::Tools;

/// Reads `tools`, `tool_choice` and `parallel_tool_calls`.
pub fn read(fields: Reader, meaning: &mut Meaning) -> ApiResult<()> {
    if let Some(tools) = fields.value("tools") {
        let list = tools.as_array();
        let list = list.ok_or_else(|| wrong("tools", tools, "a list of functions"))?;
        let tools = list
            .iter()
            .enumerate()
            .map(|(index, tool)| function(index, tool));
        meaning.set_tools(tools.collect::<ApiResult<_>>()?, "parameters");
    }
    meaning.copy("parallel_tool_calls", "parallel_tool_calls", fields.0);
    let Some(choice) = fields.value("tool_choice") else {
        return Ok(());
    };
    // Objects have no object in the middle here.
    let nested = |tool: &Value| json!({"type": tool["type"], "function": {"name": tool["name"]}});
    let value = match choice["type"].as_str() {
        Some("function") => nested(choice),
        Some("allowed_tools") => {
            let tools = match &choice["tools"] {
                Value::Array(tools) => tools.iter().map(nested).collect(),
                other => other.clone(),
            };
            json!({"type": "allowed_tools",
                "allowed_tools": {"mode": choice["mode"], "tools": tools}})
        }
        _ => choice.clone(),
    };
    meaning.name("tool_choice.function", "tool_choice");
    meaning.name("tool_choice.allowed_tools", "tool_choice");
    meaning.set("tool_choice", "tool_choice", value);
    Ok(())
}

/// A function as chat has it.
fn function(index: usize, tool: &Value) -> ApiResult<Value> {
    let at = format!("tools[{index}]");
    let object = tool
        .as_object()
        .ok_or_else(|| wrong(&at, tool, "an object with type"))?;
    match &tool["type"] {
        Value::String(kind) if kind == "function" => {}
        Value::String(kind) => {
            let kind = shown(kind);
            let message = format!(
                "{at}.type is {kind:?}, and this server has no tools of its own; send tools of \
                 type function, which the client calls"
            );
            return Err(ApiError::unsupported(format!("{at}.type"), message));
        }
        other => return Err(wrong(format!("{at}.type"), other, "\"function\"")),
    }
    let mut function: Map<String, Value> = object.clone();
    function.shift_remove("type");
    Ok(json!({"type": "function", "function": function}))
}

/// What a response says about `tool_choice`.
pub fn choice(fields: Reader, tools: &Tools) -> Value {
    let default = if tools.is_empty() { "none" } else { "auto" };
    let choice = fields.value("tool_choice").cloned();
    choice.unwrap_or_else(|| default.into())
}

/// Adds an item that is a call or a result. Returns whether it is one.
///
/// # Errors
/// 400 and the place that is wrong.
pub fn say(at: &str, kind: &str, item: &Value, meaning: &mut Meaning) -> ApiResult<bool> {
    let text = |name: &str| match &item[name] {
        text @ Value::String(_) => Ok(text.clone()),
        other => Err(wrong(format!("{at}.{name}"), other, "a string")),
    };
    match kind {
        "function_call" => {
            let function = json!({"name": text("name")?, "arguments": text("arguments")?});
            let call = json!({"id": text("call_id")?, "type": "function", "function": function});
            meaning.say_call(at, call);
            Ok(true)
        }
        "function_call_output" => {
            let message = json!({"role": "tool", "tool_call_id": text("call_id")?,
                "content": item["output"]});
            meaning.name(
                format!("messages[{}].content", meaning.said()),
                format!("{at}.output"),
            );
            meaning.say_all(at, message);
            Ok(true)
        }
        _ => Ok(false),
    }
}
