//! Prompts: a text, token ids, or a list of either.

use serde_json::Value;

use super::error::{ApiError, ApiResult};
use super::read::{Reader, ids, wrong};
use super::served::Served;

/// A prompt that fits into the context.
#[derive(Debug, Clone)]
pub struct Prompt {
    /// Its tokens.
    pub ids: Vec<u32>,
    /// Its text, if it was given as one.
    given: Option<String>,
}

impl Prompt {
    /// Its text.
    ///
    /// # Errors
    /// 400 for ids that the tokenizer cannot decode.
    pub fn text(&self, served: &Served) -> ApiResult<String> {
        match &self.given {
            Some(text) => Ok(text.clone()),
            None => {
                let text = served.tokenizer.decode(&self.ids);
                text.map_err(|error| ApiError::runtime("prompt", &error))
            }
        }
    }
}

/// The prompts of a field; texts get their special tokens if `special` says so.
///
/// # Errors
/// 400: another type, no prompts, more than `most`, empty ones, and prompts that do not fit.
pub fn prompts(
    served: &Served,
    fields: Reader,
    name: &str,
    special: bool,
    most: usize,
) -> ApiResult<Vec<Prompt>> {
    let expected = format!("a string, token ids, or a list of at most {most} of either");
    let Some(value) = fields.value(name) else {
        let message = format!("{name} is missing, expected {expected}");
        return Err(ApiError::invalid(name, message));
    };
    let one = |at: &str, value: &Value| match value {
        Value::String(text) => {
            let ids = served.encode(at, text, special)?;
            served.check(at, &ids)?;
            let given = Some(text.clone());
            Ok(Prompt { ids, given })
        }
        Value::Array(list) => {
            let ids = ids(at, list, served.vocab_size())?;
            served.check(at, &ids)?;
            Ok(Prompt { ids, given: None })
        }
        other => Err(wrong(at, other, "a string or a list of token ids")),
    };
    match value {
        Value::String(_) => Ok(vec![one(name, value)?]),
        Value::Array(list) if list.first().is_some_and(Value::is_number) => {
            Ok(vec![one(name, value)?])
        }
        Value::Array(list) if (1..=most).contains(&list.len()) => {
            let items = list.iter().enumerate();
            items
                .map(|(i, item)| one(&format!("{name}[{i}]"), item))
                .collect()
        }
        other => Err(wrong(name, other, expected)),
    }
}
