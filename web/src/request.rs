//! What an answer is asked for: the fields of the server's requests that have a meaning here.

use serde::Deserialize;
use serde_json::{Map, Value};
use sterna_runtime::chat::CONTINUED;
use sterna_runtime::{Message, Sampling};

use crate::opened::Opened;
use crate::{Error, Result};

/// A request. It has either messages or a prompt. The other fields mean what they mean to the
/// server; those that are absent are the model's to decide.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Request {
    /// A conversation, which the chat template turns into a text.
    pub messages: Option<Vec<Message>>,
    /// The answer goes on with the last message.
    pub continue_final_message: bool,
    /// A text that is continued.
    pub prompt: Option<String>,
    /// Seed of the random numbers. The page draws one where the user gives none.
    pub seed: i64,
    pub temperature: Option<f64>,
    /// 0 and -1 keep all tokens.
    pub top_k: Option<i64>,
    pub top_p: Option<f64>,
    pub min_p: Option<f64>,
    pub repetition_penalty: Option<f64>,
    pub frequency_penalty: Option<f64>,
    pub presence_penalty: Option<f64>,
    /// Most tokens; as many as fit without it.
    pub max_tokens: Option<usize>,
    /// Texts that end the answer.
    pub stop: Vec<String>,
    /// Score each token, beside this number of the most probable ones.
    pub top_logprobs: Option<usize>,
}

/// What the model computes.
#[derive(Debug)]
pub struct Prompt {
    pub tokens: Vec<u32>,
    /// Whether the answer is the next part of the prompt's text.
    pub is_continued: bool,
}

impl Request {
    /// The tokens of the prompt, which fit into the context.
    pub fn prompt(&self, opened: &Opened) -> Result<Prompt> {
        let (tokens, is_continued) = match (&self.messages, &self.prompt) {
            (Some(messages), None) => {
                let text = rendered(opened, messages, self.continue_final_message)?;
                let tokens = opened.tokenizer.encode(&text, false)?;
                (tokens, self.continue_final_message)
            }
            (None, Some(text)) => (opened.tokenizer.encode(text, true)?, true),
            _ => {
                let why = "a request has either messages or a prompt";
                return Err(Error::Call(why.into()));
            }
        };
        match tokens.len() {
            0 => Err(sterna_runtime::Error::NoTokens.into()),
            count if count > opened.context => Err(Error::Context {
                tokens: count,
                context: opened.context,
            }),
            _ => Ok(Prompt {
                tokens,
                is_continued,
            }),
        }
    }

    /// How tokens are chosen.
    pub fn sampling(&self, default: &Sampling) -> Sampling {
        let or = |given: Option<f64>, default: f32| given.map_or(default, |given| given as f32);
        let top_k = |k: i64| usize::try_from(k).unwrap_or(if k < 0 { 0 } else { usize::MAX });
        Sampling {
            temperature: or(self.temperature, default.temperature),
            top_k: self.top_k.map_or(default.top_k, top_k),
            top_p: or(self.top_p, default.top_p),
            min_p: or(self.min_p, default.min_p),
            repetition_penalty: or(self.repetition_penalty, default.repetition_penalty),
            frequency_penalty: or(self.frequency_penalty, default.frequency_penalty),
            presence_penalty: or(self.presence_penalty, default.presence_penalty),
            seed: self.seed as u64,
            stream: 0,
        }
    }
}

/// The text of a conversation, up to where the answer begins.
pub fn rendered(opened: &Opened, messages: &[Message], is_continued: bool) -> Result<String> {
    let template = match &opened.template {
        Ok(template) => template,
        Err(error) => return Err(Error::Template(error.to_string())),
    };
    if messages.iter().any(|one| one.content.contains(CONTINUED)) {
        return Err(Error::Call("a message has a text that is reserved".into()));
    }
    let messages = serde_json::to_value(messages).expect("messages are plain data");
    let variables: Map<String, Value> = [("messages".to_owned(), messages)].into_iter().collect();
    match is_continued {
        true => template
            .render_continued(variables)?
            .ok_or(Error::NotContinued),
        false => Ok(template.render_with(&variables, true)?),
    }
}
