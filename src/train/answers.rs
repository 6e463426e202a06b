//! The chat template of a checkpoint as the trainer's renderer of conversations.

use std::sync::Arc;

use serde_json::{Map, Value};
use sterna_datasets::{Message, Renderer};
use sterna_runtime::{ChatTemplate, Tokenizer};
use sterna_ternary::Config;

/// Files of a checkpoint by name.
type Files = [(String, Vec<u8>)];

/// The template of a checkpoint's files; `None` if they have none.
pub fn template(files: &Files) -> anyhow::Result<Option<ChatTemplate>> {
    match ChatTemplate::of_files(|name| file(files, name)) {
        Err(sterna_runtime::Error::NoChatTemplate) => Ok(None),
        template => Ok(Some(template?)),
    }
}

/// The token that ends an answer in conversations of the checkpoint's template, if one does.
pub fn end_of_turn(template: &ChatTemplate, config: &Config, files: &Files) -> Option<u32> {
    let tokenizer = Tokenizer::of_files(config, |name| file(files, name)).ok()?;
    tokenizer.end_of_turn(template)
}

fn file<'a>(files: &'a Files, name: &str) -> Option<&'a [u8]> {
    let file = files.iter().find(|(n, _)| n == name);
    file.map(|(_, bytes)| &**bytes)
}

/// The template as the trainer takes it.
pub fn renderer(template: ChatTemplate) -> Arc<Renderer> {
    let template = Arc::new(template);
    let source = template.clone();
    let write = move |messages: &[Message], variables: &Map<String, Value>, prompt| {
        let messages = messages.iter().map(|m| Value::from(m.fields.clone()));
        let mut variables = variables.clone();
        variables.insert("messages".into(), messages.collect());
        let text = template.render_with(&variables, prompt);
        text.map_err(|e| e.to_string())
    };
    Arc::new(Renderer::new(write, move |key| source.names(key)))
}
