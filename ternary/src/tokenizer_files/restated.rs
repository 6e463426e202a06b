//! A tokenizer_config.json that says what the other small files say.

use serde_json::{Map, Value, json};

use super::added::Added;
use super::files::{ADDITIONAL, EXTRA, Files, NAMED};

const BY_ID: &str = "added_tokens_decoder";

impl Files {
    /// Whether transformers reads special_tokens_map.json and added_tokens.json: it does not if
    /// tokenizer_config.json lists tokens by their ids.
    pub fn counts_legacy(&self) -> bool {
        let is_given = |file: &Value| file.as_object().is_some_and(|file| !file.is_empty());
        self.settings.get(BY_ID).is_none() && (is_given(&self.special) || is_given(&self.added))
    }

    pub fn without_legacy(&self) -> Files {
        Files {
            settings: self.settings.clone(),
            special: Value::Null,
            added: Value::Null,
            config: self.config.clone(),
        }
    }

    /// The names, such as `eos_token`, of the special tokens for which special_tokens_map.json has
    /// another text than tokenizer_config.json.
    pub fn overridden(&self) -> Vec<&'static str> {
        if !self.counts_legacy() {
            return Vec::new();
        }
        let text = |file: &Value, key: &str| Added::of(&file[key]).map(|token| token.content);
        let differs = |key: &&str| {
            self.special.get(*key).is_some()
                && text(&self.special, key) != text(&self.settings, key)
        };
        NAMED.into_iter().filter(differs).collect()
    }

    /// A tokenizer_config.json for a tokenizer.json with these added tokens, in a folder without
    /// the other files.
    pub fn settings_of(&self, added: &[(u64, Added)]) -> Vec<u8> {
        let mut settings = self.settings.as_object().cloned().unwrap_or_default();
        if self.counts_legacy() {
            let (mut merged, _) = self.merged();
            for key in NAMED {
                settings.extend(
                    merged
                        .remove_entry(key)
                        .map(|(key, token)| (key, typed(token))),
                );
            }
            let has_list = settings.get(EXTRA).is_some_and(is_filled_list);
            let list = match has_list {
                true => merged.remove(EXTRA),
                false => merged.remove(EXTRA).or(merged.remove(ADDITIONAL)),
            };
            if let Some(list) = list {
                let list = match list {
                    Value::Array(list) => list.into_iter().map(typed).collect(),
                    other => other,
                };
                settings.insert(if has_list { EXTRA } else { ADDITIONAL }.into(), list);
            }
        }
        let by_id = added.iter().map(|(id, token)| {
            let mut token = token.json(*id);
            if let Some(token) = token.as_object_mut() {
                token.remove("id");
            }
            (id.to_string(), token)
        });
        settings.insert(BY_ID.into(), by_id.collect::<Map<_, _>>().into());
        format!("{:#}\n", json!(settings)).into_bytes()
    }
}

/// A special token as tokenizer_config.json has it: an object states its type there.
fn typed(mut token: Value) -> Value {
    if let Some(token) = token.as_object_mut() {
        token.insert("__type".into(), "AddedToken".into());
    }
    token
}

fn is_filled_list(value: &Value) -> bool {
    value.as_array().is_some_and(|list| !list.is_empty())
}
