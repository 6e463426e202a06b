//! The layouts of conversations in data sets, recognized by their keys.
//!
//! | layout | keys | is |
//! |---|---|---|
//! | `messages` | a list of `role` and `content` | the conversation |
//! | `sharegpt` | a list of `from` and `value` | the conversation |
//! | `alpaca` | `instruction`, `input`, `output`, `history` | user and assistant |
//! | `prompt-completion` | `prompt`, `completion`: texts or lists | user and assistant |
//! | `preference` | `prompt` or a list, `chosen`, `rejected`: texts or lists | the chosen answer |
//! | `question-answer` | `question`, `answer` and other pairs of texts | user and assistant |
//!
//! A list of messages has one of the names of [`LISTS`]. Beside all of them, `system` is a message
//! of the system, and `tools`, `documents` and `chat_template_kwargs` go to the template.
//!
//! Sets for KTO (Ethayarajh et al., 2024) have answers that people do not want. `label` says which,
//! as in TRL, or `kto_tag`, as in LLaMA-Factory.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::message::{self, Message};
use super::{ASSISTANT, Fields};

/// A layout of records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum Layout {
    /// A list of `role` and `content`.
    Messages,
    /// A list of `from` and `value`.
    ShareGpt,
    /// `instruction`, `input` and `output`.
    Alpaca,
    /// `prompt` and `completion`.
    PromptCompletion,
    /// `prompt`, `chosen` and `rejected`.
    Preference,
    /// A question and an answer.
    QuestionAnswer,
}

impl Layout {
    /// All of them, in the order in which they are looked for.
    pub const ALL: [Layout; 6] = [
        Layout::Messages,
        Layout::ShareGpt,
        Layout::Preference,
        Layout::PromptCompletion,
        Layout::Alpaca,
        Layout::QuestionAnswer,
    ];

    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Layout::Messages => "messages",
            Layout::ShareGpt => "sharegpt",
            Layout::Alpaca => "alpaca",
            Layout::PromptCompletion => "prompt-completion",
            Layout::Preference => "preference",
            Layout::QuestionAnswer => "question-answer",
        }
    }

    /// The keys and their meaning, for messages.
    pub fn meaning(self) -> &'static str {
        match self {
            Layout::Messages => "a list of `role` and `content`",
            Layout::ShareGpt => "a list of `from` and `value`",
            Layout::Alpaca => "`instruction` and `input` are the user, `output` the assistant",
            Layout::PromptCompletion => "`prompt` is read, `completion` is learned",
            Layout::Preference => "`prompt` is read, `chosen` is learned, `rejected` is not",
            Layout::QuestionAnswer => "a question and an answer, texts",
        }
    }
}

impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl From<Layout> for String {
    fn from(layout: Layout) -> String {
        layout.name().to_owned()
    }
}

impl TryFrom<String> for Layout {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        name.parse()
    }
}

impl FromStr for Layout {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|layout| layout.name() == name);
        found.ok_or_else(|| {
            let names = Self::ALL.map(Layout::name).join(", ");
            format!("the layout of conversations is {name:?}, expected one of {names}")
        })
    }
}

/// Names of lists of messages, in the order in which they are looked for.
pub const LISTS: [&str; 5] = [
    "messages",
    "conversations",
    "conversation",
    "dialogue",
    "dialog",
];

/// Names of a message of the system beside the others.
const SYSTEM: [&str; 3] = ["system", "system_prompt", "system_message"];

/// Keys of questions and of answers, most specific first.
const PAIRS: [(&str, &str); 8] = [
    ("question", "answer"),
    ("question", "response"),
    ("query", "response"),
    ("query", "answer"),
    ("prompt", "response"),
    ("prompt", "answer"),
    ("input", "output"),
    ("inputs", "targets"),
];

/// Keys of the prompt of a preference set.
const PROMPTS: [&str; 4] = ["prompt", "question", "instruction", "input"];

/// Keys of the input and of the output in Alpaca and in Dolly.
const ALPACA: [(&str, &str); 3] = [
    ("input", "output"),
    ("context", "response"),
    ("input", "response"),
];

/// What a record says.
pub(super) struct ReadRecord {
    pub layout: Layout,
    pub messages: Vec<Message>,
    /// Variables for the template, beside the messages.
    pub variables: Fields,
    /// Whether the record says that its answers are not wanted.
    pub is_undesirable: bool,
    /// Keys that are not null and not read.
    pub unread: Vec<String>,
    /// Roles that have another name in the template: as written, and there.
    pub renamed: Vec<(String, String)>,
}

/// Reads a record in the layout `wanted`, or in the one that its keys say.
pub(super) fn read(record: &Value, wanted: Option<Layout>) -> Result<ReadRecord, String> {
    let Value::Object(fields) = record else {
        return Err("the record is not an object".into());
    };
    let mut reader = Reader {
        fields: fields.clone(),
        renamed: Vec::new(),
    };
    // Merged sets have a null in every column of the others.
    reader.fields.retain(|_, value| !value.is_null());
    let layout = match wanted.or_else(|| reader.layout()) {
        Some(layout) => layout,
        None => return Err(unknown(fields)),
    };
    let mut messages = reader.messages(layout)?;
    reader.add_system(&mut messages)?;
    let variables = reader.variables()?;
    let is_undesirable = reader.is_undesirable(layout);
    match messages.iter().any(Message::is_answer) {
        true => Ok(ReadRecord {
            layout,
            messages,
            variables,
            is_undesirable,
            unread: reader.fields.keys().cloned().collect(),
            renamed: reader.renamed,
        }),
        false if messages.is_empty() => Err("there is no message".into()),
        false => Err("there is no message of the assistant".into()),
    }
}

fn unknown(fields: &Fields) -> String {
    let keys: Vec<String> = fields.keys().map(|key| format!("`{key}`")).collect();
    match keys.is_empty() {
        true => "the record is empty".into(),
        false => format!(
            "the record has none of the known keys, but {}",
            keys.join(", ")
        ),
    }
}

/// A record that is being read: keys leave `fields` when they are read.
struct Reader {
    fields: Fields,
    renamed: Vec<(String, String)>,
}

impl Reader {
    fn has(&self, key: &str) -> bool {
        self.fields.contains_key(key)
    }

    /// The layout that the keys say.
    fn layout(&self) -> Option<Layout> {
        if let Some(key) = LISTS.into_iter().find(|key| self.has(key)) {
            if self.has("chosen") && asks(&self.fields[key]) {
                return Some(Layout::Preference);
            }
            let is_sharegpt = list(&self.fields[key]).is_some_and(|list| {
                let first = list.first();
                first.is_some_and(|m| m.get("from").is_some() && m.get("role").is_none())
            });
            return Some(match is_sharegpt {
                true => Layout::ShareGpt,
                false => Layout::Messages,
            });
        }
        let alpaca = ALPACA.iter().any(|(_, output)| self.has(output));
        if self.has("chosen") {
            Some(Layout::Preference)
        } else if self.has("completion") || self.has("prompt") && !self.has_pair() {
            Some(Layout::PromptCompletion)
        } else if self.has("instruction") && alpaca {
            Some(Layout::Alpaca)
        } else {
            self.has_pair().then_some(Layout::QuestionAnswer)
        }
    }

    fn has_pair(&self) -> bool {
        PAIRS.iter().any(|(q, a)| self.has(q) && self.has(a))
    }

    fn messages(&mut self, layout: Layout) -> Result<Vec<Message>, String> {
        match layout {
            Layout::Messages | Layout::ShareGpt => {
                let key = LISTS.into_iter().find(|key| self.has(key));
                let key = key.ok_or_else(|| format!("there is no {}", one_of(&LISTS)))?;
                let value = self.fields.shift_remove(key).expect("it was found");
                let list = list(&value).ok_or_else(|| format!("`{key}` is not a list"))?;
                self.list(&list, Some(layout))
            }
            Layout::Alpaca => self.alpaca(),
            Layout::PromptCompletion => {
                let prompt = self.side("prompt", "user")?;
                let completion = self.side("completion", ASSISTANT)?;
                Ok(joined(prompt, completion))
            }
            Layout::Preference => self.preference(),
            Layout::QuestionAnswer => {
                let pair = PAIRS.iter().find(|(q, a)| self.has(q) && self.has(a));
                let (question, answer) = pair.ok_or("there is no question with an answer")?;
                let question = Message::new("user", &self.text(question)?);
                Ok(vec![question, Message::new(ASSISTANT, &self.text(answer)?)])
            }
        }
    }

    /// The messages of a list. Without a layout, each may have the keys of either.
    fn list(&mut self, list: &[Value], layout: Option<Layout>) -> Result<Vec<Message>, String> {
        let mut messages = Vec::new();
        for (i, value) in list.iter().enumerate() {
            let is_sharegpt = match layout {
                Some(layout) => layout == Layout::ShareGpt,
                None => value.get("role").is_none() && value.get("from").is_some(),
            };
            let keys = match is_sharegpt {
                true => ["from", "value"],
                false => ["role", "content"],
            };
            let read = message::read(value, keys);
            let read = read.map_err(|why| format!("message {}: {why}", i + 1))?;
            let role = read.message.role();
            if role != read.written_role {
                self.renamed.push((read.written_role, role.to_owned()));
            }
            messages.push(read.message);
        }
        Ok(messages)
    }

    /// The messages of a key that holds a list of them, or the text of one.
    fn side(&mut self, key: &str, role: &str) -> Result<Vec<Message>, String> {
        match self.fields.shift_remove(key) {
            None => Err(format!("there is no `{key}`")),
            Some(Value::String(text)) => Ok(vec![Message::new(role, &text)]),
            Some(Value::Array(list)) => {
                let read = self.list(&list, None);
                read.map_err(|why| format!("`{key}`: {why}"))
            }
            Some(Value::Object(one)) => {
                let read = self.list(&[Value::Object(one)], None);
                read.map_err(|why| format!("`{key}`: {why}"))
            }
            Some(_) => Err(format!("`{key}` is neither a text nor a list of messages")),
        }
    }

    fn text(&mut self, key: &str) -> Result<String, String> {
        match self.fields.shift_remove(key) {
            Some(Value::String(text)) => Ok(text),
            Some(_) => Err(format!("`{key}` is not a string")),
            None => Err(format!("there is no `{key}`")),
        }
    }

    fn alpaca(&mut self) -> Result<Vec<Message>, String> {
        let keys = ALPACA.iter().find(|(_, output)| self.has(output));
        let (input, output) = keys.unwrap_or(&ALPACA[0]);
        let mut messages = Vec::new();
        if let Some(history) = self.fields.shift_remove("history") {
            let pairs = list(&history).ok_or("`history` is not a list")?;
            for pair in pairs.iter() {
                let [question, answer] = [&pair[0], &pair[1]].map(Value::as_str);
                let pair = question.zip(answer);
                let (question, answer) = pair.ok_or("`history` is not a list of pairs of texts")?;
                messages.push(Message::new("user", question));
                messages.push(Message::new(ASSISTANT, answer));
            }
        }
        let mut question = self.text("instruction")?;
        let more = match self.has(input) {
            true => self.text(input)?,
            false => String::new(),
        };
        if !more.trim().is_empty() {
            question = format!("{question}\n{more}");
        }
        messages.push(Message::new("user", &question));
        messages.push(Message::new(ASSISTANT, &self.text(output)?));
        Ok(messages)
    }

    /// The prompt and the chosen answer. What the chosen and the rejected conversation have in
    /// common is the prompt where none is given, and is read only.
    fn preference(&mut self) -> Result<Vec<Message>, String> {
        let mut keys = PROMPTS.into_iter().chain(LISTS);
        let key = keys.find(|key| self.has(key));
        let prompt = key.map(|key| self.side(key, "user")).transpose()?;
        let mut chosen = self.side("chosen", ASSISTANT)?;
        let rejected = match self.has("rejected") {
            true => self.side("rejected", ASSISTANT)?,
            false => Vec::new(),
        };
        // Some sets repeat the prompt at the beginning of the chosen conversation.
        let asks = |m: &Message| m.role() == "user";
        let is_repeated = |prompt: &[Message]| {
            let last = prompt.last();
            last.is_some_and(|last| chosen.iter().any(|m| m.content() == last.content()))
        };
        match prompt {
            Some(prompt) if !is_repeated(&prompt) => return Ok(joined(prompt, chosen)),
            None if !chosen.iter().any(asks) => {
                let why = "`chosen` has no message of the user, and there is no `prompt`";
                return Err(why.into());
            }
            _ => {}
        }
        let pairs = chosen.iter().zip(&rejected);
        let common = pairs.take_while(|(a, b)| a.fields == b.fields).count();
        for message in &mut chosen[..common] {
            message.is_learned = false;
        }
        Ok(chosen)
    }

    /// Puts the message of the system that stands beside the others before them.
    fn add_system(&mut self, messages: &mut Vec<Message>) -> Result<(), String> {
        let Some(key) = SYSTEM.into_iter().find(|key| self.has(key)) else {
            return Ok(());
        };
        let text = self.text(key)?;
        match messages.first() {
            _ if text.trim().is_empty() => Ok(()),
            Some(first) if first.role() == "system" && first.content() == text => Ok(()),
            Some(first) if first.role() == "system" => Err(format!(
                "`{key}` and the first message are two different messages of the system"
            )),
            _ => {
                messages.insert(0, Message::new("system", &text));
                Ok(())
            }
        }
    }

    /// Takes the key that says whether the answers are wanted. A label that says something else is
    /// not read; a number may be a class, except beside `prompt` and `completion`.
    fn is_undesirable(&mut self, layout: Layout) -> bool {
        let mut is_undesirable = false;
        for key in ["kto_tag", "label"] {
            let value = self.fields.get(key);
            let is_of_class = key == "label" && layout != Layout::PromptCompletion;
            let value = value.filter(|value| value.is_boolean() || !is_of_class);
            if let Some(is_wanted) = value.and_then(yes_or_no) {
                self.fields.shift_remove(key);
                is_undesirable |= !is_wanted;
            }
        }
        is_undesirable
    }

    /// The variables of the template: tools and documents as lists, even if they are written as
    /// text, and what `chat_template_kwargs` holds.
    fn variables(&mut self) -> Result<Fields, String> {
        let mut variables = Map::new();
        for key in ["tools", "functions", "documents"] {
            let Some(value) = self.fields.shift_remove(key) else {
                continue;
            };
            let is_blank = value.as_str().is_some_and(|text| text.trim().is_empty());
            let items = match is_blank {
                true => Vec::new(),
                false => list(&value)
                    .ok_or_else(|| format!("`{key}` is not a list"))?
                    .into_owned(),
            };
            if items.is_empty() {
                continue;
            }
            let (key, items) = match key {
                // The older name, without the wrapper of a tool.
                "functions" => {
                    let tool = |f| json!({"type": "function", "function": f});
                    ("tools", items.into_iter().map(tool).collect())
                }
                key => (key, items),
            };
            variables.insert(key.into(), items.into());
        }
        match self.fields.shift_remove("chat_template_kwargs") {
            None => {}
            Some(Value::Object(more)) => {
                variables.extend(more.into_iter().filter(|(_, v)| !v.is_null()))
            }
            Some(_) => return Err("`chat_template_kwargs` is not an object".into()),
        }
        Ok(variables)
    }
}

/// Whether a list of messages ends with one that the assistant does not say.
fn asks(value: &Value) -> bool {
    let list = list(value).unwrap_or_default();
    let read = list.last().map(|last| {
        let keys = match last.get("role") {
            Some(_) => ["role", "content"],
            None => ["from", "value"],
        };
        message::read(last, keys)
    });
    matches!(read, Some(Ok(read)) if !read.message.is_answer())
}

/// A value that says yes or no, as JSON, Parquet and tables write it.
fn yes_or_no(value: &Value) -> Option<bool> {
    match value {
        Value::Bool(answer) => Some(*answer),
        Value::Number(number) if number.as_f64() == Some(1.0) => Some(true),
        Value::Number(number) if number.as_f64() == Some(0.0) => Some(false),
        Value::String(text) => text.to_lowercase().parse().ok(),
        _ => None,
    }
}

/// Messages that are read, then messages that are learned.
fn joined(mut prompt: Vec<Message>, completion: Vec<Message>) -> Vec<Message> {
    for message in &mut prompt {
        message.is_learned = false;
    }
    prompt.extend(completion);
    prompt
}

/// A list, or the list that a text holds as JSON.
fn list(value: &Value) -> Option<std::borrow::Cow<'_, [Value]>> {
    match value {
        Value::Array(list) => Some(list.into()),
        Value::String(text) => match crate::json::parse(text.as_bytes()).map(|parsed| parsed.value)
        {
            Ok(Value::Array(list)) => Some(list.into()),
            _ => None,
        },
        _ => None,
    }
}

fn one_of(keys: &[&str]) -> String {
    let keys: Vec<String> = keys.iter().map(|key| format!("`{key}`")).collect();
    keys.join(", ")
}
