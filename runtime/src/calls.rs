//! How a model writes calls of tools, as its chat template shows it.
//!
//! Models differ in what stands around the name and the arguments of a call. A template that can
//! write a call of an earlier turn knows it, so a short conversation with a call is rendered and
//! taken apart; nothing depends on the name of the model or on the source of its template.

use serde_json::{Map, Value, json};

use crate::{ChatTemplate, Tokenizer};

/// A part of a fixed text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// Characters.
    Text(String),
    /// A special token, which texts do not show.
    Special(u32),
}

/// How calls are written: `open`, a name, `middle` and arguments; then `separator`, the next name
/// and so on, or `close`. Arguments are a JSON object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallSyntax {
    /// What begins the first call.
    pub open: Vec<Part>,
    /// What stands between a name and its arguments.
    pub middle: Vec<Part>,
    /// What stands between arguments and the next name; none where a template writes only one call.
    pub separator: Option<Vec<Part>>,
    /// What ends the last call.
    pub close: Vec<Part>,
    /// Whether the template expects arguments as a text of JSON; others expect the object.
    pub takes_text: bool,
}

/// Where the first call of an answer may begin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// At the start: the answer is a call.
    First,
    /// After this beginning of `open`, which ends a text that is free.
    Tag(Part),
    /// At the start, if the answer begins with `open`; it is a text if not. One of these special
    /// tokens may stand before.
    Start(Vec<u32>),
}

/// Names of tools in the conversation that is tried. No template contains them.
const NAMES: [&str; 2] = ["sterna_first", "sterna_second"];
/// The name of the argument.
const ARGUMENT: &str = "sterna_argument";
/// Ids of calls. Some templates insist on nine letters and digits.
const IDS: [&str; 2] = ["sternaid1", "sternaid2"];
/// Ids as servers give them.
const LONG_IDS: [&str; 2] = ["call_sterna_first_id", "call_sterna_second_id"];
/// The special token that models of Llama 3 may write before a call.
const PYTHON: &str = "<|python_tag|>";
/// Fewest bytes of a text that begins a call wherever it stands.
const SHORTEST_TAG: usize = 4;
/// A text of the assistant.
const ANSWER: &str = "sterna_answer";

impl CallSyntax {
    /// The syntax that a template writes. `None` for a template that writes no calls, or in another
    /// form than a name, a fixed text and JSON.
    pub fn of(template: &ChatTemplate, tokenizer: &Tokenizer) -> Option<CallSyntax> {
        let ways = [(false, true), (false, false), (true, true), (true, false)];
        ways.into_iter().find_map(|(takes_text, is_followed)| {
            let trial = Trial {
                template,
                tokenizer,
                takes_text,
                is_followed,
                ids: IDS,
            };
            trial.syntax()
        })
    }

    /// Whether a template refuses ids of calls that are not nine letters and digits.
    pub fn needs_short_ids(template: &ChatTemplate, tokenizer: &Tokenizer) -> bool {
        [false, true].into_iter().any(|takes_text| {
            let writes = |ids| {
                let trial = Trial {
                    template,
                    tokenizer,
                    takes_text,
                    is_followed: true,
                    ids,
                };
                trial.answer(trial.calls(1)).is_some()
            };
            writes(IDS) && !writes(LONG_IDS)
        })
    }

    /// What a model is asked to write whose template knows no calls: an object with `name` and
    /// `arguments` a line.
    pub fn plain() -> CallSyntax {
        let text = |text: &str| vec![Part::Text(text.to_owned())];
        CallSyntax {
            open: text("{\"name\": \""),
            middle: text("\", \"arguments\": "),
            separator: Some(text("}\n{\"name\": \"")),
            close: text("}"),
            takes_text: false,
        }
    }

    /// Where a call may begin in an answer that is not bound to be one. `None` if calls begin with
    /// what a text may contain.
    pub fn place(&self, tokenizer: &Tokenizer) -> Option<Place> {
        let open = match self.open.first()? {
            Part::Special(id) => return Some(Place::Tag(Part::Special(*id))),
            Part::Text(open) => open,
        };
        let end = open.find(|c: char| c.is_whitespace() || c == '{' || c == '"');
        match &open[..end.unwrap_or(open.len())] {
            // Calls that are nothing but JSON.
            "" | "[" if open.contains('{') => Some(Place::Start(
                tokenizer.token_to_id(PYTHON).into_iter().collect(),
            )),
            tag if tag.starts_with(['<', '[']) && tag.len() >= SHORTEST_TAG => {
                Some(Place::Tag(Part::Text(tag.to_owned())))
            }
            _ => None,
        }
    }

    /// The same syntax without spaces before the first call, which a text before it may end with.
    pub fn trimmed(mut self) -> CallSyntax {
        if let Some(Part::Text(open)) = self.open.first_mut() {
            *open = open.trim_start().to_owned();
        }
        self.open.retain(|part| *part != Part::Text(String::new()));
        self
    }

    /// The special tokens in it.
    pub fn special(&self) -> Vec<u32> {
        let fixed = [&self.open, &self.middle, &self.close];
        let parts = fixed.into_iter().chain(&self.separator).flatten();
        let special = |part: &Part| match part {
            Part::Special(id) => Some(*id),
            Part::Text(_) => None,
        };
        parts.filter_map(special).collect()
    }
}

/// One way to try a template.
struct Trial<'t> {
    template: &'t ChatTemplate,
    tokenizer: &'t Tokenizer,
    takes_text: bool,
    /// Whether results and another turn follow the call. Some templates write the last turn in
    /// another way, and some write tools beside the last message of the user.
    is_followed: bool,
    /// The ids of calls.
    ids: [&'static str; 2],
}

impl Trial<'_> {
    fn syntax(&self) -> Option<CallSyntax> {
        let one = self.answer(self.calls(1))?;
        let is_name_first = one.find(NAMES[0])? < one.find(ARGUMENT)?;
        let ([open, middle, close], separator) = match is_name_first {
            true => self.name_first(&one)?,
            false => self.name_last(&one)?,
        };
        // A name ends where `middle` begins.
        let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        if open.is_empty() || middle.is_empty() || middle.starts_with(is_name) {
            return None;
        }
        let fixed = [&open, &middle, &close].into_iter().chain(&separator);
        // Ids would have to be invented by the model, and what was ours is not fixed.
        let ours = [&NAMES[..], &self.ids, &[ARGUMENT]].concat();
        if fixed
            .into_iter()
            .any(|text| ours.iter().any(|own| text.contains(own)))
        {
            return None;
        }
        Some(CallSyntax {
            open: self.parts(&open)?,
            middle: self.parts(&middle)?,
            separator: match separator {
                Some(text) => Some(self.parts(&text)?),
                None => None,
            },
            close: self.parts(&close)?,
            takes_text: self.takes_text,
        })
    }

    /// The fixed texts of a call whose name comes first, and what stands between two calls.
    fn name_first(&self, one: &str) -> Option<Fixed> {
        let (open, rest) = one.split_once(NAMES[0])?;
        let (middle, rest) = arguments(rest, 1)?;
        let close = self.without_end(rest)?;
        let separator = self.answer(self.calls(2)).and_then(|two| {
            let rest = two.strip_prefix(open)?.strip_prefix(NAMES[0])?;
            let (_, rest) = arguments(rest.strip_prefix(middle)?, 1)?;
            let (separator, rest) = rest.split_once(NAMES[1])?;
            let (second, rest) = arguments(rest, 2)?;
            let is_same = second == middle && self.without_end(rest)? == close;
            is_same.then(|| separator.to_owned())
        });
        Some(([open, middle, close].map(str::to_owned), separator))
    }

    /// The same for a call that is an object of two members, with the name as the last one. The
    /// order of members means nothing, so the name is written first here, too: what the arguments
    /// must keep to depends on it.
    fn name_last(&self, one: &str) -> Option<Fixed> {
        let (before, _) = arguments(one, 1)?;
        let start = before.rfind('{')?;
        let (tag, call) = one.split_at(start);
        let (first, after) = object(call)?;
        let mut members = first
            .as_object()
            .filter(|members| members.len() == 2)?
            .iter();
        let (key, (name, value)) = (members.next()?.0, members.next()?);
        if *value != NAMES[0] {
            return None;
        }
        let open = format!("{{{}: \"", json!(name));
        let separator = self.answer(self.calls(2)).and_then(|two| {
            let (_, rest) = object(two.strip_prefix(tag)?)?;
            let (between, rest) = rest.split_at(rest.find('{')?);
            let is_call = object(rest)?.0[name] == NAMES[1] && between.ends_with(tag);
            is_call.then(|| format!("}}{between}{open}"))
        });
        let middle = format!("\", {}: ", json!(key));
        let close = format!("}}{}", self.without_end(after)?);
        Some(([format!("{tag}{open}"), middle, close], separator))
    }

    /// A message with calls.
    fn calls(&self, count: usize) -> Value {
        let call = |index: usize| {
            let arguments = json!({ARGUMENT: index + 1});
            let arguments = match self.takes_text {
                true => arguments.to_string().into(),
                false => arguments,
            };
            json!({"id": self.ids[index], "type": "function",
                "function": {"name": NAMES[index], "arguments": arguments}})
        };
        let calls: Vec<Value> = (0..count).map(call).collect();
        json!({"role": "assistant", "content": "", "tool_calls": calls})
    }

    /// What a template writes for a message of the assistant, and all that follows.
    fn answer(&self, message: Value) -> Option<String> {
        let tool = |name: &str| {
            let properties = json!({ARGUMENT: {"type": "integer", "description": "A number."}});
            json!({"type": "function", "function": {"name": name, "description": "A tool.",
                "parameters": {"type": "object", "properties": properties,
                "required": [ARGUMENT]}}})
        };
        let user = json!({"role": "user", "content": "Hi"});
        let mut messages = vec![user.clone()];
        let mut variables = Map::new();
        variables.insert("tools".into(), NAMES.map(tool).to_vec().into());
        variables.insert("messages".into(), messages.clone().into());
        let before = self.template.render_with(&variables, true).ok()?;
        let calls = message["tool_calls"].as_array().map_or(0, Vec::len);
        messages.push(message);
        if self.is_followed {
            messages.extend((0..calls).map(|index| {
                json!({"role": "tool", "tool_call_id": self.ids[index], "name": NAMES[index],
                    "content": "1"})
            }));
            messages.push(json!({"role": "assistant", "content": ANSWER}));
            messages.push(user);
        }
        variables.insert("messages".into(), messages.into());
        let text = self.template.render_with(&variables, false).ok()?;
        text.strip_prefix(&before).map(str::to_owned)
    }

    /// The text of an answer without what ends it: a token that ends texts, or what the template
    /// writes after a text of the assistant.
    fn without_end<'r>(&self, rest: &'r str) -> Option<&'r str> {
        let eos = self.tokenizer.eos().iter();
        let names = eos.filter_map(|id| self.tokenizer.token(*id));
        let ends = names.filter_map(|(name, _)| rest.find(&name)).min();
        match ends {
            Some(end) => Some(&rest[..end]),
            None if self.is_followed => None,
            None => {
                let answer = self.answer(json!({"role": "assistant", "content": ANSWER}))?;
                rest.strip_suffix(answer.split_once(ANSWER)?.1)
            }
        }
    }

    /// A fixed text in parts. `None` if a special token in it has no row in the model.
    fn parts(&self, text: &str) -> Option<Vec<Part>> {
        let special = self.tokenizer.special_tokens();
        let mut parts = Vec::new();
        let mut rest = text;
        while !rest.is_empty() {
            // A name that is empty is found everywhere.
            let named = special.iter().filter(|(_, name)| !name.is_empty());
            let found = named.filter_map(|(id, name)| {
                let at = rest.find(name.as_str())?;
                Some((at, std::cmp::Reverse(name.len()), *id))
            });
            let Some((at, length, id)) = found.min() else {
                parts.push(Part::Text(rest.to_owned()));
                break;
            };
            if id as usize >= self.tokenizer.rows() {
                return None;
            }
            if at > 0 {
                parts.push(Part::Text(rest[..at].to_owned()));
            }
            parts.push(Part::Special(id));
            rest = &rest[at + length.0..];
        }
        Some(parts)
    }
}

/// `open`, `middle` and `close`, and the separator if there can be several calls.
type Fixed = ([String; 3], Option<String>);

/// The JSON value that a text begins with, and the rest.
fn object(text: &str) -> Option<(Value, &str)> {
    let mut values = serde_json::Deserializer::from_str(text).into_iter::<Value>();
    let value = values.next()?.ok()?;
    Some((value, &text[values.byte_offset()..]))
}

/// What stands before the arguments with this value, and after them.
fn arguments(text: &str, value: usize) -> Option<(&str, &str)> {
    let key = text.find(&format!("\"{ARGUMENT}\""))?;
    let start = text[..key].rfind('{')?;
    let end = key + text[key..].find('}')? + 1;
    let found: Value = serde_json::from_str(&text[start..end]).ok()?;
    (found == json!({ARGUMENT: value})).then(|| (&text[..start], &text[end..]))
}
