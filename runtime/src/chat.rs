//! Conversations to text: the chat template that came with a checkpoint, rendered as `transformers`
//! does.
//!
//! The template is Jinja, in chat_template.jinja or in tokenizer_config.json (a string, or a list
//! of which the one called `default` is taken, or `tool_use` where there are tools). It sees
//! `messages` without keys that are null, `add_generation_prompt`, the special tokens by their
//! names, `tools` and `documents` (none if the caller has none), every other variable of the
//! caller, `raise_exception`, `strftime_now` (in UTC) and `tojson`. A line with nothing but a block
//! tag leaves no line. Values are computed and printed as in Python (`expression.rs`,
//! `operators.rs`).
//!
//! A template is code from strangers. It runs with limits on its length, its steps, its time and
//! the size of every value that it binds or prints (`limits.rs`); exceeding one of them is an
//! error. Contents of messages are data and never parsed.

mod arguments;
mod categories;
mod cycler;
mod ends;
mod environment;
mod expression;
mod filters;
mod format;
mod guard;
mod json;
mod keys;
mod letters;
mod lexer;
mod limits;
mod methods;
mod operators;
mod range;
mod strftime;
mod strings;
mod text;
mod value_tests;

use std::sync::{Arc, Mutex, PoisonError};

use minijinja::Environment;
use minijinja::value::Value;
use serde::{Deserialize, Serialize};
use sterna_ternary::PackedFile;

use crate::tokenizer::{TOKENIZER_CONFIG, token_name};
use crate::{Error, Result, tokenizer};
use environment::{Watch, environment};
use limits::RenderUsage;

/// One message of a conversation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// `system`, `user` or `assistant`; the template decides which roles exist.
    pub role: String,
    /// The text.
    pub content: String,
}

impl Message {
    /// Creates a message.
    pub fn new(role: &str, content: &str) -> Message {
        Message {
            role: role.to_owned(),
            content: content.to_owned(),
        }
    }
}

/// The text format of a model's conversations.
#[derive(Debug)]
pub struct ChatTemplate {
    file: &'static str,
    original: String,
    /// The template with its checks.
    source: String,
    /// Compiled templates that no rendering uses at the moment.
    compiled: Mutex<Vec<Compiled>>,
    /// `bos_token`, `eos_token` and so on, and their texts.
    special_tokens: Vec<(String, String)>,
    /// Another template for conversations with tools, or why it cannot be used.
    with_tools: Option<std::result::Result<Box<ChatTemplate>, String>>,
}

/// A compiled template. It runs one rendering at a time, since its functions count what that uses.
#[derive(Debug)]
struct Compiled {
    environment: Environment<'static>,
    usage: Arc<RenderUsage>,
}

impl Compiled {
    fn new(source: &str) -> RenderResult<Compiled> {
        let usage = Arc::new(RenderUsage::new(source));
        let mut environment = environment(&usage);
        environment.add_template_owned(NAME, source.to_owned())?;
        Ok(Compiled { environment, usage })
    }
}

const TEMPLATE: &str = "chat_template.jinja";
/// The name of the template in errors.
const NAME: &str = "<string>";
/// Marks where the last message ends in the text of a conversation.
pub const CONTINUED: &str = "\u{f8ff}sterna:continue\u{f8ff}";

type RenderResult<T> = std::result::Result<T, minijinja::Error>;

impl ChatTemplate {
    /// Reads and checks the template inside a packed file.
    ///
    /// # Errors
    /// [`Error::NoChatTemplate`], and [`Error::ChatTemplate`] for one that is too long, malformed
    /// or uses what is not supported.
    pub fn open(file: &PackedFile) -> Result<ChatTemplate> {
        ChatTemplate::of_files(|name| file.file(name))
    }

    /// [`ChatTemplate::open`] for a model that is not packed; `file` gives the bytes of a file by
    /// its name.
    ///
    /// # Errors
    /// Those of [`ChatTemplate::open`].
    pub fn of_files<'a>(file: impl Fn(&str) -> Option<&'a [u8]>) -> Result<ChatTemplate> {
        let settings = tokenizer::json(&file, TOKENIZER_CONFIG)?;
        ChatTemplate::from_files(file(TEMPLATE), &settings)
    }

    /// Like [`ChatTemplate::open`] from the contents of chat_template.jinja, if there is one, and
    /// tokenizer_config.json.
    ///
    /// # Errors
    /// Those of [`ChatTemplate::open`].
    pub fn from_files(
        template: Option<&[u8]>,
        settings: &serde_json::Value,
    ) -> Result<ChatTemplate> {
        let (name, source) = match template {
            Some(bytes) => {
                let text = std::str::from_utf8(bytes);
                let text = text.map_err(|e| error(TEMPLATE, format!("expected UTF-8: {e}")))?;
                (TEMPLATE, text)
            }
            None => (TOKENIZER_CONFIG, named_default(&settings["chat_template"])?),
        };
        let mut parsed = ChatTemplate::parse(name, source, settings)?;
        let source = template
            .is_none()
            .then(|| named(&settings["chat_template"], "tool_use"));
        parsed.with_tools = source.flatten().map(|source| {
            let other = ChatTemplate::parse(name, source, settings);
            other.map(Box::new).map_err(|error| error.to_string())
        });
        Ok(parsed)
    }

    fn parse(
        file: &'static str,
        source: &str,
        settings: &serde_json::Value,
    ) -> Result<ChatTemplate> {
        let entries = settings.as_object().into_iter().flatten();
        let special_tokens = entries.filter(|(key, _)| key.ends_with("_token"));
        let original = source.to_owned();
        let source = guard::guard(source).map_err(|why| error(file, why))?;
        let compiled = Compiled::new(&source).map_err(|e| error(file, describe(&e)))?;
        Ok(ChatTemplate {
            file,
            original,
            source,
            compiled: Mutex::new(vec![compiled]),
            special_tokens: special_tokens
                .filter_map(|(key, value)| Some((key.clone(), token_name(value)?.to_owned())))
                .collect(),
            with_tools: None,
        })
    }

    /// The template itself, as its file has it.
    pub fn original(&self) -> &str {
        &self.original
    }

    /// Whether the template can write a short conversation, with or without a message of the
    /// system, so that a template that cannot be used is known before it is needed.
    ///
    /// # Errors
    /// Those of [`ChatTemplate::render`] without a message of the system.
    pub fn trial(&self) -> Result<()> {
        let talk = ["system", "user", "assistant", "user"].map(|role| Message::new(role, "Hi"));
        match self.render(&talk[1..], true) {
            Ok(_) => Ok(()),
            Err(error) => self.render(&talk, true).map(drop).map_err(|_| error),
        }
    }

    /// The text of a conversation; with `add_generation_prompt` it ends where the assistant's
    /// answer begins. Encode it without adding special tokens: it already has them.
    ///
    /// # Errors
    /// [`Error::ChatTemplate`]: what the template itself objects to, such as a role, and the
    /// limits.
    pub fn render(&self, messages: &[Message], add_generation_prompt: bool) -> Result<String> {
        let messages = serde_json::to_value(messages).expect("messages are plain data");
        let variables = [("messages".to_owned(), messages)];
        self.render_with(&variables.into_iter().collect(), add_generation_prompt)
    }

    /// Like [`ChatTemplate::render`] with any variables: `messages`, whose items may have any keys,
    /// and others that the template knows, such as `tools`.
    ///
    /// # Errors
    /// Those of [`ChatTemplate::render`].
    pub fn render_with(
        &self,
        variables: &serde_json::Map<String, serde_json::Value>,
        add_generation_prompt: bool,
    ) -> Result<String> {
        let has_tools = variables.get("tools").is_some_and(|tools| !tools.is_null());
        match self.with_tools.as_ref().filter(|_| has_tools) {
            Some(Ok(other)) => other.render_with(variables, add_generation_prompt),
            Some(Err(why)) => Err(error(self.file, format!("its template `tool_use`: {why}"))),
            None => self
                .rendered(variables, add_generation_prompt)
                .map_err(|e| error(self.file, describe(&e))),
        }
    }

    /// The text of a conversation up to the end of its last message, for an answer that goes on
    /// with that message; `None` if the template does not write its content. The content of no
    /// message may contain [`CONTINUED`].
    ///
    /// # Errors
    /// Those of [`ChatTemplate::render`].
    pub fn render_continued(
        &self,
        mut variables: serde_json::Map<String, serde_json::Value>,
    ) -> Result<Option<String>> {
        let messages = variables.get_mut("messages").and_then(|m| m.as_array_mut());
        let last = messages.and_then(|messages| messages.last_mut());
        if let Some(content) = last.and_then(|last| last.get_mut("content")) {
            let text = content.as_str().unwrap_or_default();
            *content = format!("{text}{CONTINUED}").into();
        }
        let mut text = self.render_with(&variables, false)?;
        Ok(text.rfind(CONTINUED).map(|end| {
            text.truncate(end);
            text
        }))
    }

    /// Whether the source of the template contains this word. A template reads only keys that it
    /// names, unless it writes whole messages. A template for tools counts, too.
    pub fn names(&self, key: &str) -> bool {
        if let Some(Ok(other)) = &self.with_tools
            && other.names(key)
        {
            return true;
        }
        match REASONING.contains(&key) {
            true => REASONING.iter().take(2).any(|name| self.has_word(name)),
            false => self.has_word(key),
        }
    }

    fn has_word(&self, key: &str) -> bool {
        let is_part = |c: char| c.is_alphanumeric() || c == '_';
        let found = self.original.match_indices(key).map(|(at, _)| at);
        found.into_iter().any(|at| {
            let (before, after) = (&self.original[..at], &self.original[at + key.len()..]);
            !before.ends_with(is_part) && !after.starts_with(is_part)
        })
    }

    fn rendered(
        &self,
        variables: &serde_json::Map<String, serde_json::Value>,
        add_generation_prompt: bool,
    ) -> RenderResult<String> {
        let mut values = vec![("add_generation_prompt", add_generation_prompt.into())];
        for (name, value) in variables {
            let value = match &**name {
                "add_generation_prompt" => continue,
                "messages" => json::variable(&normalized(value))?,
                _ => json::variable(value)?,
            };
            values.push((name, value));
        }
        let absent = ["tools", "documents"].map(|name| (name, Value::from(())));
        let tokens = self.special_tokens.iter();
        let tokens = tokens.map(|(name, text)| (&**name, Value::from(&**text)));
        values.extend(
            tokens
                .chain(absent)
                .filter(|(name, _)| !variables.contains_key(*name)),
        );
        let free = || self.compiled.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = free().pop();
        let compiled = match taken {
            Some(compiled) => compiled,
            None => Compiled::new(&self.source)?,
        };
        compiled.usage.begin();
        let template = compiled.environment.get_template(NAME)?;
        let text = template.render(Value::from_pairs(values));
        free().push(compiled);
        let text = text?;
        limits::check_size(text.len()).map(|()| text)
    }
}

/// Names of the text that a model thinks before it answers. Templates read the first or second.
const REASONING: [&str; 3] = ["reasoning_content", "thinking", "reasoning"];

/// Messages as transformers passes them: without the keys that are null, because many templates
/// would write `None`, and with what the model thought under both names that templates know.
fn normalized(messages: &serde_json::Value) -> serde_json::Value {
    let mut messages = messages.clone();
    for message in messages.as_array_mut().into_iter().flatten() {
        let Some(message) = message.as_object_mut() else {
            continue;
        };
        message.retain(|_, value| !value.is_null());
        let thought = REASONING.iter().find_map(|name| message.get(*name));
        let Some(thought) = thought.cloned() else {
            continue;
        };
        let other = message.shift_remove("thinking");
        let first = other.unwrap_or_else(|| thought.clone());
        message.shift_insert(0, "thinking".to_owned(), first);
        message.insert("reasoning_content".to_owned(), thought);
    }
    messages
}

/// A template, or the one called `default` of a list of them.
fn named_default(templates: &serde_json::Value) -> Result<&str> {
    let bad = |why: String| error(TOKENIZER_CONFIG, why);
    match templates {
        serde_json::Value::Null => Err(Error::NoChatTemplate),
        serde_json::Value::String(source) => Ok(source),
        serde_json::Value::Array(list) => {
            let names: Vec<String> = list.iter().map(|t| t["name"].to_string()).collect();
            let why = format!(
                "`chat_template` has templates {}: expected one named \"default\"",
                names.join(", ")
            );
            named(templates, "default").ok_or_else(|| bad(why))
        }
        _ => Err(bad(
            "`chat_template`: expected a string or a list of named ones".into(),
        )),
    }
}

/// The template with a name in a list of them.
fn named<'t>(templates: &'t serde_json::Value, name: &str) -> Option<&'t str> {
    let found = templates.as_array()?.iter().find(|t| t["name"] == name);
    found?["template"].as_str()
}

fn error(file: &'static str, why: String) -> Error {
    Error::ChatTemplate { file, why }
}

/// The message with its line and its causes.
fn describe(error: &minijinja::Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(e) = cause {
        text += &format!(": {e}");
        cause = e.source();
    }
    text
}

#[cfg(test)]
mod tests;
