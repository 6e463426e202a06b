//! The parts of a tokenizer.json.

use std::collections::HashMap;

use serde::de::IgnoredAny;
use serde_json::{Map, Value};

use super::added::Added;
use super::{Result, TOKENIZER, malformed};
use crate::json;

/// tokenizer.json. The model stays text, because it is large.
pub(super) struct Parts<'a> {
    pub values: Map<String, Value>,
    pub model: Option<&'a str>,
}

impl<'a> Parts<'a> {
    pub fn read(bytes: &'a [u8]) -> Result<Parts<'a>> {
        let bad = |e: String| malformed(TOKENIZER, format!("expected a JSON object: {e}"));
        let text = std::str::from_utf8(bytes).map_err(|e| bad(e.to_string()))?;
        serde_json::from_str::<IgnoredAny>(text).map_err(|e| bad(e.to_string()))?;
        let members = json::members(text).ok_or_else(|| bad("it is not one".into()))?;
        let (mut values, mut model) = (Map::new(), None);
        for (key, text) in members {
            if key == "model" {
                model = Some(text);
                continue;
            }
            let value = json::parse(text.as_bytes());
            let value = value.map_err(|e| malformed(TOKENIZER, format!("`{key}`: {e}")))?;
            values.insert(key, value);
        }
        Ok(Parts { values, model })
    }

    /// A part of the model, such as `vocab`.
    fn of_model(&self, name: &str) -> Option<&'a str> {
        let members = json::members(self.model?)?;
        members
            .into_iter()
            .find(|(key, _)| key == name)
            .map(|(_, text)| text)
    }

    pub fn added(&self) -> Result<Vec<(u64, Added)>> {
        let list = self.values.get("added_tokens").and_then(Value::as_array);
        let token = |value: &Value| {
            let entry = value["id"].as_u64().zip(Added::of(value));
            entry.ok_or_else(|| malformed(TOKENIZER, format!("an added token is {value}")))
        };
        list.into_iter().flatten().map(token).collect()
    }

    pub fn is_bpe(&self) -> bool {
        self.of_model("type").is_some_and(|kind| kind == "\"BPE\"")
    }

    /// Ids by token: from an object, or from a list of pairs of token and score.
    pub fn vocabulary(&self) -> Result<HashMap<String, u64>> {
        let Some(vocab) = self.of_model("vocab") else {
            return Ok(HashMap::new());
        };
        let bad = |e| malformed(TOKENIZER, format!("`vocab`: {e}"));
        if vocab.starts_with('{') {
            return serde_json::from_str(vocab).map_err(bad);
        }
        let pairs: Vec<(String, f64)> = serde_json::from_str(vocab).map_err(bad)?;
        Ok(pairs
            .into_iter()
            .zip(0..)
            .map(|((token, _), id)| (token, id))
            .collect())
    }

    pub fn written(&self) -> Vec<u8> {
        let mut json = String::from("{");
        for (key, value) in &self.values {
            json += &format!("{}: {value},\n", Value::from(key.as_str()));
        }
        let model = self.model.unwrap_or("null");
        json += &format!("\"model\": {model}}}\n");
        json.into_bytes()
    }
}
