//! The chat template of a checkpoint as the trainer's renderer of conversations.

use std::sync::Arc;

use serde_json::Value;
use sterna_datasets::chat::Render;
use sterna_datasets::{Message, answers};
use sterna_runtime::ChatTemplate;

use crate::exit::BadInput;

/// The renderer of a checkpoint's files; `None` if they have no template.
pub fn renderer(files: &[(String, Vec<u8>)]) -> anyhow::Result<Option<Arc<Render>>> {
    let file = |name: &str| files.iter().find(|(n, _)| n == name);
    let settings = match file("tokenizer_config.json") {
        Some((name, bytes)) => {
            serde_json::from_slice(bytes).map_err(|e| BadInput(format!("{name}: {e}")))?
        }
        None => Value::Null,
    };
    let template = file("chat_template.jinja").map(|(_, bytes)| &**bytes);
    let template = match ChatTemplate::from_files(template, &settings) {
        Err(sterna_runtime::Error::NoChatTemplate) => return Ok(None),
        template => template?,
    };
    let text = move |messages: &[Message], prompt| {
        let message = |m: &Message| sterna_runtime::Message::new(&m.role, &m.content);
        let messages: Vec<_> = messages.iter().map(message).collect();
        let text = template.render(&messages, prompt);
        text.map_err(|e| e.to_string())
    };
    let render = move |messages: &[Message]| answers::rendered(messages, &text);
    Ok(Some(Arc::new(render)))
}
