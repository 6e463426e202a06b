//! What the small files of a tokenizer say of its tokens.

use std::collections::{BTreeMap, HashMap};

use serde_json::{Map, Value};

use super::added::Added;
use super::class::{CLASSES, Class};
use super::{ADDED_TOKENS, Result, SETTINGS, WithIds, malformed};

/// Special tokens that every tokenizer of transformers can have.
const NAMED: [&str; 7] = [
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
        let (named, extra) = self.special_tokens(class)?;
        let stated = self.stated(own, &named, &extra)?;
        let mut missing: Vec<(u64, Added)> = Vec::new();
        for (id, token) in &stated {
            if !kept.iter().any(|(_, kept)| kept == token) {
                missing.push((*id, token.clone()));
            }
        }
        let is_known = |content: &str, missing: &[(u64, Added)]| {
            kept.iter()
                .chain(missing)
                .any(|(_, token)| token.content == content)
        };
        // A named token has the properties that the files state elsewhere.
        let of_named = |token: &Added| {
            let stated = stated
                .values()
                .find(|stated| stated.content == token.content);
            stated.unwrap_or(token).clone()
        };
        for (_, token) in &mut missing {
            token.special |= named.iter().any(|named| named.content == token.content);
        }
        for mut token in named.iter().map(of_named).chain(extra) {
            if !is_known(&token.content, &missing) {
                token.special = true;
                missing.push((0, token));
            }
        }
        let ids = stated.into_iter().map(|(id, token)| (token.content, id));
        Ok((missing, ids.collect()))
    }

    /// Tokens whose properties and ids the files state, by id.
    fn stated(
        &self,
        own: &[(u64, Added)],
        named: &[Added],
        extra: &[Added],
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
            let is_special = named
                .iter()
                .chain(extra)
                .any(|token| token.content == *content);
            let mut token = Added::special(content);
            (token.special, token.normalized) = (is_special, Some(!is_special));
            let why = || malformed(ADDED_TOKENS, format!("{content:?}: expected an id"));
            stated.insert(id.as_u64().ok_or_else(why)?, token);
        }
        stated.extend(own.iter().cloned());
        Ok(stated)
    }

    /// The special tokens with a name such as `eos_token`, and those without.
    fn special_tokens(&self, class: Option<&Class>) -> Result<(Vec<Added>, Vec<Added>)> {
        let mut keys: Map<String, Value> = Map::new();
        keys.extend(self.settings.as_object().into_iter().flatten().map(owned));
        let defaults = class.map_or(&[][..], |class| class.defaults);
        for (key, token) in defaults {
            keys.entry(*key).or_insert_with(|| (*token).into());
        }
        // transformers reads the other file only if this one does not list tokens by their ids.
        if keys.get("added_tokens_decoder").is_none() {
            keys.extend(self.special.as_object().into_iter().flatten().map(owned));
        }
        let is_absent = |value: Option<&Value>| match value {
            Some(Value::Array(list)) => list.is_empty(),
            value => value.is_none_or(Value::is_null),
        };
        let mut extra = keys.get("extra_special_tokens");
        if is_absent(extra) {
            extra = keys.get("additional_special_tokens");
        }
        let mut named: Vec<&Value> = NAMED.iter().filter_map(|key| keys.get(*key)).collect();
        // Names that only this model has, such as `image_token`.
        let others = keys.iter().filter(|(key, _)| key.ends_with("_token"));
        let others = others.filter(|(key, value)| !NAMED.contains(&&***key) && value.is_string());
        named.extend(others.map(|(_, value)| value));
        let mut unnamed = Vec::new();
        match extra {
            Some(Value::Object(names)) => named.extend(names.values()),
            Some(Value::Array(list)) => unnamed.extend(list),
            None | Some(Value::Null) => {}
            Some(_) => {
                let why = "`extra_special_tokens`: expected a list or an object of tokens";
                return Err(malformed(SETTINGS, why));
            }
        }
        let tokens = |values: Vec<&Value>| -> Result<Vec<Added>> {
            let values = values.into_iter().filter(|value| !value.is_null());
            let token = |value| {
                let why = || malformed(SETTINGS, format!("a special token is {value}"));
                Added::of(value).ok_or_else(why)
            };
            values.map(token).collect()
        };
        Ok((tokens(named)?, tokens(unnamed)?))
    }
}

fn owned((key, value): (&String, &Value)) -> (String, Value) {
    (key.clone(), value.clone())
}
