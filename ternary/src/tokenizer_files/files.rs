//! What the small files of a tokenizer say of its tokens.

use std::collections::{BTreeMap, HashMap, HashSet};

use serde_json::{Map, Value};

use super::added::Added;
use super::class::{CLASSES, Class};
use super::{ADDED_TOKENS, Result, SETTINGS, WithIds, malformed};

/// Special tokens that every tokenizer of transformers can have.
pub(super) const NAMED: [&str; 7] = [
    "bos_token",
    "eos_token",
    "unk_token",
    "sep_token",
    "pad_token",
    "cls_token",
    "mask_token",
];

/// The small files; null where one is absent.
pub(super) struct Files {
    pub settings: Value,
    pub special: Value,
    pub added: Value,
    pub config: Value,
}

impl Files {
    /// The class that tokenizer_config.json names, if it is one of [`CLASSES`].
    pub fn class(&self, tokenizer: &[u8]) -> Option<&'static Class> {
        let name = [&self.settings, &self.config].map(|file| file["tokenizer_class"].as_str());
        let name = name[0].or(name[1])?;
        let name = name.strip_suffix("Fast").unwrap_or(name);
        let class = CLASSES.iter().find(|class| class.name == name)?;
        // Llama 3 has byte-level files under the name of Llama 2; transformers takes them unchanged.
        let is_bytes = || tokenizer.windows(11).any(|text| text == b"\"ByteLevel\"");
        (!class.has_metaspace || !is_bytes()).then_some(class)
    }

    /// The tokens to add to `kept`, in order, and the ids that the files state for them.
    pub fn missing(
        &self,
        own: &[(u64, Added)],
        kept: &[(u64, Added)],
        class: Option<&Class>,
    ) -> Result<(WithIds, HashMap<String, u64>)> {
        let special = self.special_tokens(class)?;
        let stated = self.stated(own, &special.as_texts)?;
        let mut missing: Vec<(u64, Added)> = Vec::new();
        for (id, token) in &stated {
            if !kept.iter().any(|(_, kept)| kept == token) {
                missing.push((*id, token.clone()));
            }
        }
        let known = kept.iter().chain(&missing);
        let known: HashSet<String> = known.map(|(_, token)| token.content.clone()).collect();
        // A token that is listed twice has the properties of the last place.
        let tokens = special.named.iter().chain(&special.unnamed);
        let tokens = tokens.filter(|token| !known.contains(&token.content));
        missing.extend(tokens.map(|token| (0, token.clone())));
        for (_, token) in &mut missing {
            let mut named = special.named.iter();
            token.special |= named.any(|named| named.content == token.content);
        }
        if class.is_some_and(|class| class.has_plain_specials) {
            let tokens = special.named.iter().chain(&special.unnamed);
            missing.extend(tokens.map(|token| (0, Added::special(&token.content))));
        }
        let ids = stated.into_iter().map(|(id, token)| (token.content, id));
        Ok((missing, ids.collect()))
    }

    /// Tokens whose properties and ids the files state, by id.
    fn stated(
        &self,
        own: &[(u64, Added)],
        special: &HashSet<String>,
    ) -> Result<BTreeMap<u64, Added>> {
        let mut stated = BTreeMap::new();
        match &self.settings["added_tokens_decoder"] {
            Value::Null => {}
            Value::Object(entries) => {
                for (id, token) in entries {
                    let (id, token) = (id.parse().ok(), Added::of(token));
                    let entry = id.zip(token).ok_or_else(|| {
                        malformed(
                            SETTINGS,
                            "`added_tokens_decoder`: expected tokens by their ids",
                        )
                    })?;
                    stated.insert(entry.0, entry.1);
                }
                return Ok(stated);
            }
            _ => {
                let why = "`added_tokens_decoder`: expected an object";
                return Err(malformed(SETTINGS, why));
            }
        }
        for (content, id) in self.added.as_object().into_iter().flatten() {
            let is_special = special.contains(content);
            let mut token = Added::special(content);
            (token.special, token.normalized) = (is_special, Some(!is_special));
            let why = || malformed(ADDED_TOKENS, format!("{content:?}: expected an id"));
            stated.insert(id.as_u64().ok_or_else(why)?, token);
        }
        stated.extend(own.iter().cloned());
        Ok(stated)
    }

    /// The settings with those of special_tokens_map.json, and the tokens that have names of their
    /// own.
    pub(super) fn merged(&self) -> (Map<String, Value>, Vec<Value>) {
        let mut keys: Map<String, Value> = Map::new();
        keys.extend(self.settings.as_object().into_iter().flatten().map(owned));
        // The older name of the list counts if the newer one has nothing.
        if keys.get(EXTRA).is_none_or(is_empty)
            && let Some(tokens) = keys.remove(ADDITIONAL)
        {
            keys.insert(EXTRA.to_owned(), tokens);
        }
        let mut by_name: Vec<Value> = Vec::new();
        take_names(&mut keys, &mut by_name);
        // transformers reads the other file only if this one does not list tokens by their ids.
        if self.counts_legacy() {
            for (key, value) in self.special.as_object().into_iter().flatten() {
                match (keys.get_mut(EXTRA), value) {
                    (Some(Value::Array(list)), Value::Array(more)) if key == EXTRA => {
                        let more = more.iter().filter(|token| !list.contains(token));
                        list.extend(more.cloned().collect::<Vec<_>>());
                    }
                    _ => drop(keys.insert(key.clone(), value.clone())),
                }
            }
            take_names(&mut keys, &mut by_name);
        }
        (keys, by_name)
    }

    /// The special tokens that tokenizer_config.json and special_tokens_map.json list.
    fn special_tokens(&self, class: Option<&Class>) -> Result<Special> {
        let (mut keys, by_name) = self.merged();
        let texts = NAMED.iter().filter_map(|key| keys.get(*key));
        let texts = texts.chain(
            keys.get(EXTRA)
                .and_then(Value::as_array)
                .into_iter()
                .flatten(),
        );
        let as_texts = texts.filter_map(Value::as_str).map(str::to_owned).collect();
        if !keys.contains_key(EXTRA)
            && let Some(tokens) = keys.remove(ADDITIONAL)
        {
            keys.insert(EXTRA.to_owned(), tokens);
        }
        for (key, token) in class.map_or(&[][..], |class| class.defaults) {
            keys.entry(*key).or_insert_with(|| (*token).into());
        }
        let mut named: Vec<&Value> = NAMED.iter().filter_map(|key| keys.get(*key)).collect();
        // Names that only this model has, such as `image_token`.
        let others = keys.iter().filter(|(key, _)| key.ends_with("_token"));
        let others = others.filter(|(key, value)| !NAMED.contains(&&***key) && value.is_string());
        named.extend(others.map(|(_, value)| value));
        named.extend(&by_name);
        let unnamed = match keys.get(EXTRA) {
            Some(Value::Array(list)) => list.iter().collect(),
            None | Some(Value::Null) => Vec::new(),
            Some(_) => {
                let why = "`extra_special_tokens`: expected a list or an object of tokens";
                return Err(malformed(SETTINGS, why));
            }
        };
        Ok(Special {
            named: tokens(named)?,
            unnamed: tokens(unnamed)?,
            as_texts,
        })
    }
}

pub(super) const EXTRA: &str = "extra_special_tokens";
pub(super) const ADDITIONAL: &str = "additional_special_tokens";

/// The special tokens of a tokenizer.
struct Special {
    /// Those with a name such as `eos_token`.
    named: Vec<Added>,
    unnamed: Vec<Added>,
    /// Those of which a file gives only the text, without properties.
    as_texts: HashSet<String>,
}

/// Moves special tokens with names, `{"image_token": "<image>"}`, out of the list of the others.
fn take_names(keys: &mut Map<String, Value>, names: &mut Vec<Value>) {
    if keys.get(EXTRA).is_some_and(Value::is_object)
        && let Some(Value::Object(tokens)) = keys.remove(EXTRA)
    {
        names.extend(tokens.into_iter().map(|(_, token)| token));
    }
}

fn tokens(values: Vec<&Value>) -> Result<Vec<Added>> {
    let values = values.into_iter().filter(|value| !value.is_null());
    let token = |value| {
        let why = || malformed(SETTINGS, format!("a special token is {value}"));
        Added::of(value).ok_or_else(why)
    };
    values.map(token).collect()
}

/// Whether Python counts a value as false.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Array(list) => list.is_empty(),
        Value::Object(entries) => entries.is_empty(),
        value => value.is_null(),
    }
}

fn owned((key, value): (&String, &Value)) -> (String, Value) {
    (key.clone(), value.clone())
}
