//! One message of a record: its role, its content, and every other field as the record has it.

use serde_json::{Map, Value, json};

use super::{ASSISTANT, Fields};

/// One message of a conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The fields that a chat template sees: `role`, `content` and any other of the record.
    pub fields: Fields,
    /// Whether it is learned if the assistant says it.
    pub is_learned: bool,
}

impl Message {
    /// A message with a role and a text.
    pub fn new(role: &str, content: &str) -> Self {
        let fields = [("role", role), ("content", content)];
        let fields = fields.map(|(key, text)| (key.to_owned(), text.into()));
        Self {
            fields: Map::from_iter(fields),
            is_learned: true,
        }
    }

    /// `system`, `user`, `assistant` or another role that the chat template knows.
    pub fn role(&self) -> &str {
        self.fields["role"].as_str().unwrap_or_default()
    }

    /// The text; empty if there is none.
    pub fn content(&self) -> &str {
        let content = self.fields.get("content");
        content.and_then(Value::as_str).unwrap_or_default()
    }

    /// Whether the assistant says it.
    pub fn is_answer(&self) -> bool {
        self.role() == ASSISTANT
    }
}

/// Keys of a message that say whether it is learned.
const LEARNED: [&str; 5] = ["weight", "train", "trainable", "loss_mask", "loss"];

/// The roles that have one meaning everywhere and another name in chat templates.
const ROLES: [(&str, &[&str]); 2] = [
    ("user", &["human", "prompter"]),
    (
        ASSISTANT,
        &[
            "gpt", "chatgpt", "gpt4", "gpt-4", "bot", "chatbot", "model", "ai", "bing", "bard",
            "claude",
        ],
    ),
];

/// The roles of ShareGPT that report the result of a tool.
const TOOLS: [&str; 4] = ["function", "tool", "observation", "function_response"];

/// A message and the role that the record gave it.
pub(super) struct ReadMessage {
    pub message: Message,
    pub written_role: String,
}

/// Reads a message with the keys of its layout, or says what is wrong with it.
pub(super) fn read(value: &Value, [role, content]: [&str; 2]) -> Result<ReadMessage, String> {
    let Value::Object(fields) = value else {
        return Err(format!("it is not an object with `{role}` and `{content}`"));
    };
    let mut fields = fields.clone();
    let written_role = match fields.shift_remove(role) {
        Some(Value::String(name)) => name,
        Some(_) => return Err(format!("`{role}` is not a string")),
        None => return Err(format!("there is no `{role}`")),
    };
    let mut text = match fields.shift_remove(content) {
        Some(value) => Some(text_of(value).map_err(|why| format!("`{content}` {why}"))?),
        None => None,
    };
    let is_learned = is_learned(&mut fields)?;
    fields.retain(|_, value| !value.is_null());
    if written_role == "function_call"
        && let Some(calls) = calls(&text)
    {
        fields.entry("tool_calls").or_insert(calls);
        text = Some("".into());
    }
    // Only a message with something else may have no text.
    if fields.is_empty() && text.as_ref().is_none_or(Value::is_null) {
        return Err(match text {
            None => format!("there is no `{content}`"),
            Some(_) => format!("`{content}` is null, and it has nothing else"),
        });
    }
    let mut ordered = Map::new();
    ordered.insert("role".into(), canonical(&written_role, role).into());
    if let Some(text) = text {
        ordered.insert("content".into(), text);
    }
    if let Some(key) = ["role", "content"]
        .into_iter()
        .find(|key| fields.contains_key(*key))
    {
        return Err(format!("it has `{key}` beside `{role}` and `{content}`"));
    }
    ordered.extend(fields);
    Ok(ReadMessage {
        message: Message {
            fields: ordered,
            is_learned,
        },
        written_role,
    })
}

/// The name that chat templates have for a role. `key` is the key of the role: only ShareGPT has
/// names of its own for tools.
fn canonical(written: &str, key: &str) -> String {
    let lower = written.to_lowercase();
    let known = ["system", "user", ASSISTANT].contains(&&*lower);
    let synonym = ROLES.iter().find(|(_, names)| names.contains(&&*lower));
    match synonym {
        _ if known => lower,
        Some((role, _)) => (*role).to_owned(),
        None if key == "from" && TOOLS.contains(&&*lower) => "tool".to_owned(),
        None if key == "from" && lower == "function_call" => ASSISTANT.to_owned(),
        None => written.to_owned(),
    }
}

/// The content as a chat template gets it: a text or null. Parts of type text are joined.
fn text_of(content: Value) -> Result<Value, String> {
    let parts = match content {
        Value::String(_) | Value::Null => return Ok(content),
        Value::Array(parts) => parts,
        _ => return Err("is not a string".into()),
    };
    let mut text = String::new();
    for part in &parts {
        let kind = part["type"].as_str().unwrap_or("text");
        match (kind, part.as_str().or(part["text"].as_str())) {
            ("text" | "input_text" | "output_text", Some(part)) => text += part,
            ("text" | "input_text" | "output_text", None) => {
                return Err("has a part without `text`".into());
            }
            (other, _) => {
                return Err(format!(
                    "has a part of type {other:?}; only parts of type text are read"
                ));
            }
        }
    }
    Ok(text.into())
}

/// Takes the keys that say whether a message is learned.
fn is_learned(fields: &mut Fields) -> Result<bool, String> {
    let mut is_learned = true;
    for key in LEARNED {
        match fields.shift_remove(key) {
            None | Some(Value::Null | Value::Bool(true)) => {}
            Some(Value::Bool(false)) => is_learned = false,
            Some(value) => match value.as_f64() {
                Some(0.0) => is_learned = false,
                Some(1.0) => {}
                _ => return Err(format!("`{key}` is {value}, expected 0 or 1")),
            },
        }
    }
    Ok(is_learned)
}

/// A call of ShareGPT, `{"name": …, "arguments": …}` as text, as `tool_calls`.
fn calls(text: &Option<Value>) -> Option<Value> {
    let function = crate::json::parse(text.as_ref()?.as_str()?.as_bytes())
        .ok()?
        .value;
    let is_call = function["name"].is_string();
    is_call.then(|| json!([{"type": "function", "function": function}]))
}
