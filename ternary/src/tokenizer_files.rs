//! One tokenizer.json from the files of a tokenizer, by the rules of transformers (5.24).
//!
//! A folder may name tokens that its tokenizer.json lacks: as special tokens in
//! tokenizer_config.json or special_tokens_map.json, in `added_tokens_decoder`, or in
//! added_tokens.json. transformers adds them when it loads the tokenizer. A token that the
//! vocabulary has keeps its id; every other token gets the next free id, whatever id its file
//! states.
//!
//! Some tokenizer classes also have rules of their own. `LlamaTokenizer` decides by
//! `add_prefix_space` and `legacy` where text gets a space, whatever tokenizer.json says; in classes
//! that split bytes, `add_prefix_space` counts. Their split rules stay those of tokenizer.json.

use std::collections::{BTreeMap, HashMap};

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Map, Value, json};

use crate::json;

/// Files that may name tokens, beside those that a packed file embeds.
pub const LEGACY: [&str; 2] = [ADDED_TOKENS, SPECIAL_TOKENS];

const TOKENIZER: &str = "tokenizer.json";
const SETTINGS: &str = "tokenizer_config.json";
const ADDED_TOKENS: &str = "added_tokens.json";
const SPECIAL_TOKENS: &str = "special_tokens_map.json";

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

/// A class of transformers that builds its tokenizer from the vocabulary of tokenizer.json and
/// rules of its own.
struct Class {
    name: &'static str,
    /// Special tokens of a tokenizer_config.json without these keys.
    defaults: &'static [(&'static str, &'static str)],
    /// Whether spaces are written `▁`, as in Llama. Other classes are byte-level.
    has_metaspace: bool,
}

const END: &str = "<|endoftext|>";
const CLASSES: [Class; 4] = [
    Class {
        name: "LlamaTokenizer",
        defaults: &[
            ("unk_token", "<unk>"),
            ("bos_token", "<s>"),
            ("eos_token", "</s>"),
        ],
        has_metaspace: true,
    },
    Class {
        name: "Qwen2Tokenizer",
        defaults: &[("unk_token", END), ("eos_token", END), ("pad_token", END)],
        has_metaspace: false,
    },
    Class {
        name: "GPT2Tokenizer",
        defaults: &[("unk_token", END), ("bos_token", END), ("eos_token", END)],
        has_metaspace: false,
    },
    Class {
        name: "GPTNeoXTokenizer",
        defaults: &[
            ("unk_token", END),
            ("bos_token", END),
            ("eos_token", END),
            ("pad_token", "<|padding|>"),
        ],
        has_metaspace: false,
    },
];

/// A tokenizer.json that contains what the other files say.
#[derive(Debug)]
pub struct Completed {
    /// The new tokenizer.json.
    pub json: Vec<u8>,
    /// A sentence for each change.
    pub changes: Vec<String>,
}

/// A file of a tokenizer that cannot be understood.
#[derive(Debug, thiserror::Error)]
#[error("{file}: {why}")]
pub struct Malformed {
    /// The name of the file.
    pub file: &'static str,
    /// Expected and found.
    pub why: String,
}

type Result<T> = std::result::Result<T, Malformed>;

/// Added tokens with their ids.
type WithIds = Vec<(u64, Added)>;

/// A token that is found in text before the vocabulary is used. The fields are those of
/// tokenizer.json.
#[derive(Debug, Clone, PartialEq, Deserialize)]
struct Added {
    content: String,
    #[serde(default)]
    single_word: bool,
    #[serde(default)]
    lstrip: bool,
    #[serde(default)]
    rstrip: bool,
    /// By default the opposite of `special`.
    normalized: Option<bool>,
    #[serde(default)]
    special: bool,
}

impl Added {
    /// A special token of which only the text is known.
    fn special(content: &str) -> Added {
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
    fn of(value: &Value) -> Option<Added> {
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

    fn json(&self, id: u64) -> Value {
        json!({"id": id, "content": self.content, "single_word": self.single_word,
            "lstrip": self.lstrip, "rstrip": self.rstrip, "normalized": self.normalized,
            "special": self.special})
    }
}

/// The tokenizer.json that transformers would make of these files; None if it is the given one.
/// `file` gives the bytes of a file by its name.
///
/// # Errors
/// [`Malformed`] names the file that is not as transformers expects it.
pub fn complete<'a>(file: impl Fn(&str) -> Option<&'a [u8]>) -> Result<Option<Completed>> {
    let Some(bytes) = file(TOKENIZER) else {
        return Ok(None);
    };
    let small = |name: &'static str| match file(name) {
        None => Ok(Value::Null),
        Some(bytes) => json::parse(bytes).map_err(|e| malformed(name, format!("not JSON: {e}"))),
    };
    let files = Files {
        settings: small(SETTINGS)?,
        special: small(SPECIAL_TOKENS)?,
        added: small(ADDED_TOKENS)?,
        config: small("config.json")?,
    };
    let mut tokenizer = Parts::read(bytes)?;
    if tokenizer.model.is_none() {
        return Ok(None);
    }
    let own = tokenizer.added()?;
    let class = files.class(bytes).filter(|_| tokenizer.is_bpe());
    // A class that builds its own tokenizer starts without added tokens.
    let kept = if class.is_some() { &[] } else { &own[..] };
    let (missing, stated) = files.missing(&own, kept, class)?;
    let rebuilt = class.and_then(|class| class.rebuild(&files.settings, &mut tokenizer.values));
    if missing.is_empty() && rebuilt.is_none() {
        return Ok(None);
    }

    let mut table = Table::new(tokenizer.vocabulary()?);
    for token in kept.iter().chain(&missing) {
        table.add(token);
    }
    let mut changes = table.changes(&own, &missing, &stated);
    changes.extend(rebuilt);
    if changes.is_empty() {
        return Ok(None);
    }
    tokenizer.values.insert("added_tokens".into(), table.json());
    let json = tokenizer.written();
    Ok(Some(Completed { json, changes }))
}

/// The tokens of a tokenizer.json for which a model with `rows` rows in its embedding has none.
#[derive(Debug, Default)]
pub struct Beyond {
    /// Added tokens, such as one for padding. Other text does not contain them.
    pub added: Vec<(String, u64)>,
    /// The token of the vocabulary with the largest id. Any text can contain such tokens.
    pub vocabulary: Option<(String, u64)>,
}

/// Finds tokens with ids of `rows` and more.
///
/// # Errors
/// [`Malformed`] if the bytes are not a tokenizer.json.
pub fn beyond(tokenizer: &[u8], rows: usize) -> Result<Beyond> {
    let tokenizer = Parts::read(tokenizer)?;
    let mut table = Table::new(tokenizer.vocabulary()?);
    for token in &tokenizer.added()? {
        table.add(token);
    }
    let is_beyond = |id: u64| id >= rows as u64;
    let added = table.tokens.iter().filter(|(id, _)| is_beyond(*id));
    let added: Vec<_> = added
        .map(|(id, token)| (token.content.clone(), *id))
        .collect();
    let is_added = |content: &str| added.iter().any(|(added, _)| added == content);
    let vocabulary = table
        .vocabulary
        .iter()
        .filter(|(token, id)| is_beyond(**id) && !is_added(token));
    let vocabulary = vocabulary
        .max_by_key(|(_, id)| **id)
        .map(|(token, id)| (token.clone(), *id));
    Ok(Beyond { added, vocabulary })
}

fn malformed(file: &'static str, why: impl Into<String>) -> Malformed {
    let why = why.into();
    Malformed { file, why }
}

/// The small files; null where one is absent.
struct Files {
    settings: Value,
    special: Value,
    added: Value,
    config: Value,
}

impl Files {
    /// The class that tokenizer_config.json names, if it is one of [`CLASSES`].
    fn class(&self, tokenizer: &[u8]) -> Option<&'static Class> {
        let name = [&self.settings, &self.config].map(|file| file["tokenizer_class"].as_str());
        let name = name[0].or(name[1])?;
        let name = name.strip_suffix("Fast").unwrap_or(name);
        let class = CLASSES.iter().find(|class| class.name == name)?;
        // Llama 3 has byte-level files under the name of Llama 2; transformers takes them unchanged.
        let is_bytes = || tokenizer.windows(11).any(|text| text == b"\"ByteLevel\"");
        (!class.has_metaspace || !is_bytes()).then_some(class)
    }

    /// The tokens to add to `kept`, in order, and the ids that the files state for them.
    fn missing(
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

impl Class {
    /// Replaces the rules of tokenizer.json by those of the class. Returns a sentence if this
    /// changes something.
    fn rebuild(&self, settings: &Value, parts: &mut Map<String, Value>) -> Option<String> {
        let before = parts.clone();
        let add_prefix_space = settings["add_prefix_space"].as_bool();
        if !self.has_metaspace {
            let adds = add_prefix_space.unwrap_or(false);
            set_prefix_space(parts.get_mut("pre_tokenizer")?, adds);
            let with = if adds { "with" } else { "without" };
            let change = format!(
                "text begins {with} a space of its own, as `{}` says",
                self.name
            );
            return (*parts != before).then_some(change);
        }
        let is_legacy = settings["legacy"] == true;
        let (scheme, place) = match (add_prefix_space.unwrap_or(true), is_legacy) {
            (false, _) => ("never", "no text"),
            (true, true) => ("always", "a text and what follows a special token"),
            (true, false) => ("first", "a text, not before what follows a special token"),
        };
        let mut decoders = vec![
            json!({"type": "Replace", "pattern": {"String": "▁"}, "content": " "}),
            json!({"type": "ByteFallback"}),
            json!({"type": "Fuse"}),
        ];
        if scheme != "never" {
            decoders.push(json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}));
        }
        let metaspace = json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme,
            "split": false});
        parts.insert("normalizer".into(), Value::Null);
        parts.insert("pre_tokenizer".into(), metaspace);
        parts.insert(
            "decoder".into(),
            json!({"type": "Sequence", "decoders": decoders}),
        );
        let change = format!("a space is put before {place}, as `{}` does", self.name);
        (*parts != before).then_some(change)
    }
}

fn set_prefix_space(pre_tokenizer: &mut Value, adds: bool) {
    if pre_tokenizer["type"] == "ByteLevel" {
        pre_tokenizer["add_prefix_space"] = adds.into();
    }
    let list = pre_tokenizer
        .get_mut("pretokenizers")
        .and_then(Value::as_array_mut);
    list.into_iter()
        .flatten()
        .for_each(|part| set_prefix_space(part, adds));
}

/// tokenizer.json. The model stays text, because it is large.
struct Parts<'a> {
    values: Map<String, Value>,
    model: Option<&'a str>,
}

impl<'a> Parts<'a> {
    fn read(bytes: &'a [u8]) -> Result<Parts<'a>> {
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

    fn added(&self) -> Result<Vec<(u64, Added)>> {
        let list = self.values.get("added_tokens").and_then(Value::as_array);
        let token = |value: &Value| {
            let entry = value["id"].as_u64().zip(Added::of(value));
            entry.ok_or_else(|| malformed(TOKENIZER, format!("an added token is {value}")))
        };
        list.into_iter().flatten().map(token).collect()
    }

    fn is_bpe(&self) -> bool {
        self.of_model("type").is_some_and(|kind| kind == "\"BPE\"")
    }

    /// Ids by token: from an object, or from a list of pairs of token and score.
    fn vocabulary(&self) -> Result<HashMap<String, u64>> {
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

    fn written(&self) -> Vec<u8> {
        let mut json = String::from("{");
        for (key, value) in &self.values {
            json += &format!("{}: {value},\n", Value::from(key.as_str()));
        }
        let model = self.model.unwrap_or("null");
        json += &format!("\"model\": {model}}}\n");
        json.into_bytes()
    }
}

/// Added tokens with the ids that the crate `tokenizers` gives them.
struct Table {
    vocabulary: HashMap<String, u64>,
    tokens: Vec<(u64, Added)>,
}

impl Table {
    fn new(vocabulary: HashMap<String, u64>) -> Table {
        let tokens = Vec::new();
        Table { vocabulary, tokens }
    }

    fn add(&mut self, (_, token): &(u64, Added)) {
        if token.content.is_empty() {
            return;
        }
        if let Some(known) = self
            .tokens
            .iter_mut()
            .find(|(_, t)| t.content == token.content)
        {
            known.1 = token.clone();
            return;
        }
        let size = self.vocabulary.len() as u64;
        let next = || {
            self.tokens
                .iter()
                .map(|(id, _)| id + 1)
                .max()
                .unwrap_or(0)
                .max(size)
        };
        let id = self
            .vocabulary
            .get(&token.content)
            .copied()
            .unwrap_or_else(next);
        self.tokens.push((id, token.clone()));
    }

    /// A sentence for each kind of difference to the tokens that tokenizer.json has.
    fn changes(
        &self,
        own: &[(u64, Added)],
        missing: &[(u64, Added)],
        stated: &HashMap<String, u64>,
    ) -> Vec<String> {
        let known = |token: &Added| own.iter().find(|(_, own)| own.content == token.content);
        let (mut new, mut other, mut moved) = (Vec::new(), Vec::new(), Vec::new());
        for (id, token) in &self.tokens {
            let name = json::shown(&token.content);
            match known(token) {
                None => new.push(format!("{name} ({id})")),
                Some((_, own)) if own != token => other.push(name.clone()),
                Some(_) => {}
            }
            let is_new = missing.iter().any(|(_, new)| new.content == token.content);
            match stated.get(&token.content) {
                Some(stated) if is_new && stated != id => {
                    moved.push(format!("{name} ({id}, not {stated})"));
                }
                _ => {}
            }
        }
        let sentence = |what: &str, names: Vec<String>| {
            (!names.is_empty()).then(|| format!("{what}: {}", listed(&names)))
        };
        [
            sentence(
                "tokens that tokenizer.json lacks were added to it, with their ids",
                new,
            ),
            sentence(
                "tokens got the properties that tokenizer_config.json states",
                other,
            ),
            sentence(
                "tokens have other ids than their file states, as in transformers",
                moved,
            ),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    fn json(&self) -> Value {
        let mut tokens = self.tokens.clone();
        tokens.sort_by_key(|(id, _)| *id);
        tokens.iter().map(|(id, token)| token.json(*id)).collect()
    }
}

/// The first names of a list, and how many more there are.
fn listed(names: &[String]) -> String {
    const SHOWN: usize = 8;
    let first = names[..names.len().min(SHOWN)].join(", ");
    match names.len().saturating_sub(SHOWN) {
        0 => first,
        more => format!("{first} and {more} more"),
    }
}
