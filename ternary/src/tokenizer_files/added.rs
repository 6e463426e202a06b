//! A token that is added to a vocabulary.

use serde::Deserialize;
use serde_json::{Value, json};

/// A token that is found in text before the vocabulary is used. The fields are those of
/// tokenizer.json.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(super) struct Added {
    pub content: String,
    #[serde(default)]
    single_word: bool,
    #[serde(default)]
    lstrip: bool,
    #[serde(default)]
    rstrip: bool,
    /// By default the opposite of `special`.
    pub normalized: Option<bool>,
    #[serde(default)]
    pub special: bool,
}

impl Added {
    /// A special token of which only the text is known.
    pub fn special(content: &str) -> Added {
        Added {
            content: content.to_owned(),
            single_word: false,
            lstrip: false,
            rstrip: false,
            normalized: Some(false),
            special: true,
        }
    }

    /// A token given by its text or by an object; None for anything else.
    pub fn of(value: &Value) -> Option<Added> {
        match value {
            Value::String(content) => Some(Added::special(content)),
            Value::Object(_) => Added::deserialize(value).ok().map(Added::complete),
            _ => None,
        }
    }

    fn complete(mut self) -> Added {
        self.normalized.get_or_insert(!self.special);
        self
    }

    pub fn json(&self, id: u64) -> Value {
        json!({"id": id, "content": self.content, "single_word": self.single_word,
            "lstrip": self.lstrip, "rstrip": self.rstrip, "normalized": self.normalized,
            "special": self.special})
    }
}
