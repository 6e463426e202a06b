//! The content and the calls of one answer, while it comes.

use std::sync::Arc;

use serde_json::{Map, Value, json};
use sterna_runtime::StopReason;
use sterna_ternary::sha256;

use super::super::answers::{Answers, Choice, finish_reason};
use super::super::error::{ApiError, ApiResult};
use super::super::served::Served;
use super::parser::{Format, Found, Parser, Symbol, special};
use crate::engine::{End, Token};

/// What the forms of answers need to know about tools.
#[derive(Debug, Clone)]
pub struct Called {
    /// How calls are found; none if nothing may be called.
    calls: Option<(Arc<Format>, Arc<[u32]>)>,
    /// What ids of calls are made of.
    request: String,
}

impl Called {
    /// Answers to a prompt; `calls` are the format and the special tokens that it has.
    pub fn new(calls: Option<(Format, Vec<u32>)>, prompt: &[u32], seed: i64) -> Called {
        let ids: Vec<u8> = prompt.iter().flat_map(|id| id.to_le_bytes()).collect();
        Called {
            calls: calls.map(|(format, special)| (Arc::new(format), special.into())),
            request: format!("{} {seed}", sha256::of(&ids)),
        }
    }

    /// Whether anything may be called.
    pub fn may_call(&self) -> bool {
        self.calls.is_some()
    }

    /// An answer before its first part.
    pub fn answer(&self, index: usize) -> CalledAnswer {
        let calls = self.calls.as_ref();
        CalledAnswer {
            parser: calls.map(|(format, _)| Parser::new(Arc::clone(format))),
            special: calls.map_or_else(|| [].into(), |(_, special)| Arc::clone(special)),
            ids: Vec::new(),
            shown: 0,
            seed: format!("{} {index}", self.request),
            content: String::new(),
            calls: Vec::new(),
        }
    }

    /// An answer that is whole.
    pub fn whole(&self, served: &Served, index: usize, choice: &Choice) -> CalledAnswer {
        let mut answer = self.answer(index);
        answer.push(served, &choice.text, &choice.tokens);
        answer.finish();
        answer
    }

    /// Whether the calls of the first answer can be written where arguments are an object.
    ///
    /// # Errors
    /// 500 and the call whose arguments have ended and are no object that can be read.
    pub fn check(&self, served: &Served, answers: &Answers) -> ApiResult<()> {
        let Some(choice) = answers.choices.first() else {
            return Ok(());
        };
        let has_ended = choice.end.as_ref().map(|end| end.reason) == Some(StopReason::Eos);
        let answer = self.whole(served, 0, choice);
        let bad = |call: &&Call| (has_ended || call.is_complete) && call.object().is_none();
        match answer.calls.iter().find(bad) {
            None => Ok(()),
            Some(call) => Err(ApiError::internal(format!(
                "the arguments of the call of {} cannot be read as a JSON object: a number is too \
                 large, or the nesting too deep; bound them in the schema, or use \
                 /v1/chat/completions, which gives arguments as a text",
                call.name
            ))),
        }
    }
}

/// A call of a tool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// Its id. It follows from the prompt, the seed and the place of the call, and from nothing
    /// else.
    pub id: String,
    /// The tool.
    pub name: String,
    /// JSON, as far as it has come.
    pub arguments: String,
    /// Whether all of it has come.
    pub is_complete: bool,
}

impl Call {
    /// The arguments as an object; `None` while they are not complete.
    pub fn object(&self) -> Option<Map<String, Value>> {
        let value = self
            .is_complete
            .then(|| serde_json::from_str(&self.arguments));
        value?.ok()
    }

    /// OpenAI's object.
    pub fn json(&self) -> Value {
        json!({"id": self.id, "type": "function",
            "function": {"name": self.name, "arguments": self.arguments}})
    }
}

/// What has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// Text for the reader.
    Content(String),
    /// The call with this index begins.
    Call(usize),
    /// More of the arguments of the call with this index.
    Arguments(usize, String),
    /// The call with this index is complete.
    Done(usize),
}

/// One answer.
#[derive(Debug, Clone)]
pub struct CalledAnswer {
    parser: Option<Parser>,
    /// Special tokens that stand around calls.
    special: Arc<[u32]>,
    /// All tokens so far, if there are such special tokens.
    ids: Vec<u32>,
    /// Bytes of text so far.
    shown: usize,
    seed: String,
    /// Text for the reader.
    pub content: String,
    /// The calls.
    pub calls: Vec<Call>,
}

impl CalledAnswer {
    /// Adds a part of the answer.
    pub fn push(&mut self, served: &Served, text: &str, tokens: &[Token]) -> Vec<Part> {
        let symbols = self.symbols(served, text, tokens);
        let found = match &mut self.parser {
            Some(parser) => parser.push(symbols),
            None if text.is_empty() => Vec::new(),
            None => vec![Found::Content(text.to_owned())],
        };
        self.add(found)
    }

    /// Ends the answer: what could have become a call is content.
    pub fn finish(&mut self) -> Vec<Part> {
        let found = self.parser.as_mut().map(Parser::finish);
        self.add(found.unwrap_or_default())
    }

    /// OpenAI's word for its end.
    pub fn finish_reason(&self, end: &End) -> &'static str {
        match (end.reason, self.has_calls()) {
            (StopReason::Eos | StopReason::StopText, true) => "tool_calls",
            (reason, _) => finish_reason(reason),
        }
    }

    /// Whether there are calls, all of them complete.
    pub fn has_calls(&self) -> bool {
        self.calls.last().is_some_and(|call| call.is_complete)
    }

    /// OpenAI's message.
    pub fn message(&self) -> Value {
        let content = match self.calls.is_empty() || !self.content.is_empty() {
            true => self.content.clone().into(),
            false => Value::Null,
        };
        let mut message = json!({"role": "assistant", "content": content, "refusal": null});
        if !self.calls.is_empty() {
            message["tool_calls"] = self.calls.iter().map(Call::json).collect();
        }
        message
    }

    fn add(&mut self, found: Vec<Found>) -> Vec<Part> {
        found.into_iter().map(|found| self.part(found)).collect()
    }

    fn part(&mut self, found: Found) -> Part {
        let last = self.calls.len().saturating_sub(1);
        match found {
            Found::Content(text) => {
                self.content += &text;
                Part::Content(text)
            }
            Found::Name(name) => {
                let index = self.calls.len();
                let hash = sha256::of(format!("{} {index}", self.seed).as_bytes());
                self.calls.push(Call {
                    id: format!("call_{}", &hash[..24]),
                    name,
                    arguments: String::new(),
                    is_complete: false,
                });
                Part::Call(index)
            }
            Found::Arguments(text) => {
                self.calls[last].arguments += &text;
                Part::Arguments(last, text)
            }
            Found::End => {
                self.calls[last].is_complete = true;
                Part::Done(last)
            }
        }
    }

    /// The text of a part with the special tokens that stand in it.
    fn symbols(&mut self, served: &Served, text: &str, tokens: &[Token]) -> Vec<Symbol> {
        let mut symbols = Vec::with_capacity(text.len());
        let mut rest = text;
        if !self.special.is_empty() {
            for token in tokens {
                if self.special.contains(&token.id) {
                    // A special token has no text: it stands after the text of those before it.
                    // The engine has decoded these tokens, so they can be decoded.
                    let before = served.tokenizer.decode(&self.ids).unwrap_or_default();
                    let start = self.shown + text.len() - rest.len();
                    let mut at = before.len().saturating_sub(start).min(rest.len());
                    while !rest.is_char_boundary(at) {
                        at -= 1;
                    }
                    let (first, second) = rest.split_at(at);
                    symbols.extend(first.chars().map(u32::from));
                    symbols.push(special(token.id));
                    rest = second;
                }
                self.ids.push(token.id);
            }
        }
        symbols.extend(rest.chars().map(u32::from));
        self.shown += text.len();
        symbols
    }
}
