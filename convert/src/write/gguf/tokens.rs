//! Writes tokenizer.json and related files as `tokenizer.ggml.*`, for programs that read only these
//! keys.

use std::collections::HashMap;

use serde_json::Value;
use sterna_ternary::Config;

use super::pairs::Pairs;
use crate::gguf::splits::SplitRule;
use crate::read::embedded::parse_object;
use crate::read::gguf::vocabulary::{BYTE, CONTROL, NORMAL, UNKNOWN, UNUSED, USER_DEFINED};
use crate::{Error, Result, Source};

const FILE: &str = "tokenizer.json";

/// Appends the tokenizer of a source. `pre` names the split rule if it is not a known one.
pub(crate) fn write(pairs: &mut Pairs, source: &dyn Source, pre: Option<&str>) -> Result<()> {
    let json = |name: &str| match source.files().iter().find(|(n, _)| n == name) {
        Some((_, bytes)) => parse_object(&source.path().join(name), bytes),
        None => Ok(Value::Null),
    };
    let tokenizer = json(FILE)?;
    if tokenizer.is_null() {
        pairs.text("tokenizer.ggml.model", "no_vocab");
        return Ok(());
    }
    let bad = |why: String| Error::File {
        path: source.path().join(FILE),
        why,
    };
    let tokens = Tokens::read(&tokenizer, source.config().vocab_size).map_err(bad)?;
    tokens.write(pairs, &tokenizer, pre).map_err(bad)?;
    let settings = json("tokenizer_config.json")?;
    let generation = json("generation_config.json")?;
    special(
        pairs,
        &tokens,
        source.config(),
        [&tokenizer, &settings, &generation],
    );
    let file = source
        .files()
        .iter()
        .find(|(name, _)| name == "chat_template.jinja");
    let template = match file {
        Some((_, bytes)) => std::str::from_utf8(bytes).ok(),
        None => default_template(&settings["chat_template"]),
    };
    if let Some(template) = template {
        pairs.text("tokenizer.chat_template", template);
    }
    Ok(())
}

/// The template, or the entry `default` of a list of templates.
fn default_template(templates: &Value) -> Option<&str> {
    let named = |list: &'_ Vec<Value>| list.iter().position(|t| t["name"] == "default");
    match templates {
        Value::Array(list) => list[named(list)?]["template"].as_str(),
        template => template.as_str(),
    }
}

/// All tokens by id, and ids by token.
struct Tokens {
    texts: Vec<String>,
    kinds: Vec<i32>,
    ids: HashMap<String, usize>,
    /// Whether bytes without a token become tokens such as `<0x0A>`, as in SentencePiece.
    falls_back: bool,
    merges: Vec<[String; 2]>,
}

impl Tokens {
    fn read(tokenizer: &Value, size: usize) -> std::result::Result<Tokens, String> {
        let model = &tokenizer["model"];
        let kind = model["type"].as_str().unwrap_or("absent");
        let vocab = model["vocab"].as_object().filter(|_| kind == "BPE");
        let vocab = vocab.ok_or(format!("expected a BPE model with a `vocab`, found {kind}"))?;
        let falls_back = model["byte_fallback"] == true;
        let mut tokens = Tokens {
            texts: (0..size).map(|id| format!("[PAD{id}]")).collect(),
            kinds: vec![UNUSED as i32; size],
            ids: HashMap::new(),
            falls_back,
            merges: merges(&model["merges"])?,
        };
        for (token, id) in vocab {
            let is_byte = falls_back && is_byte(token);
            tokens.put(token, id, if is_byte { BYTE } else { NORMAL })?;
        }
        for added in tokenizer["added_tokens"].as_array().into_iter().flatten() {
            let token = added["content"]
                .as_str()
                .ok_or("an added token has no `content`")?;
            let kind = if added["special"] == true {
                CONTROL
            } else {
                USER_DEFINED
            };
            tokens.put(token, &added["id"], kind)?;
        }
        if let Some(id) = model["unk_token"]
            .as_str()
            .and_then(|token| tokens.ids.get(token))
        {
            tokens.kinds[*id] = UNKNOWN as i32;
        }
        Ok(tokens)
    }

    fn put(&mut self, token: &str, id: &Value, kind: u64) -> std::result::Result<(), String> {
        let size = self.texts.len();
        let id = id.as_u64().map(|id| id as usize).filter(|id| *id < size);
        let id = id.ok_or(format!(
            "token {token:?} has no id below {size}, the vocabulary of the model"
        ))?;
        self.texts[id] = token.to_owned();
        self.kinds[id] = kind as i32;
        self.ids.insert(token.to_owned(), id);
        Ok(())
    }

    fn write(
        &self,
        pairs: &mut Pairs,
        tokenizer: &Value,
        pre: Option<&str>,
    ) -> std::result::Result<(), String> {
        let unknown = || {
            format!(
                "its `pre_tokenizer` is not one of {}; name its split rule in llama.cpp (--pre)",
                SplitRule::known()
            )
        };
        pairs.text(
            "tokenizer.ggml.model",
            if self.falls_back { "llama" } else { "gpt2" },
        );
        if !self.falls_back {
            let split = || SplitRule::of(&tokenizer["pre_tokenizer"]).map(|s| s.names[0]);
            pairs.text(
                "tokenizer.ggml.pre",
                pre.or_else(split).ok_or_else(unknown)?,
            );
        }
        pairs.texts("tokenizer.ggml.tokens", &self.texts);
        pairs.integers("tokenizer.ggml.token_type", &self.kinds);
        if self.falls_back {
            pairs.floats("tokenizer.ggml.scores", &self.scores());
            let text = tokenizer["normalizer"].to_string();
            pairs.boolean(
                "tokenizer.ggml.add_space_prefix",
                text.contains("\"Prepend\""),
            );
        } else {
            let merges: Vec<_> = self
                .merges
                .iter()
                .map(|[a, b]| format!("{a} {b}"))
                .collect();
            pairs.texts("tokenizer.ggml.merges", &merges);
        }
        Ok(())
    }

    /// Scores that decrease with the rank of the merge that makes the token.
    fn scores(&self) -> Vec<f32> {
        let mut scores = vec![0.0; self.texts.len()];
        for (rank, [a, b]) in self.merges.iter().enumerate().rev() {
            if let Some(id) = self.ids.get(&format!("{a}{b}")) {
                scores[*id] = -(rank as f32) - 1.0;
            }
        }
        scores
    }
}

fn is_byte(token: &str) -> bool {
    let digits = token
        .strip_prefix("<0x")
        .and_then(|rest| rest.strip_suffix('>'));
    digits.is_some_and(|d| d.len() == 2 && u8::from_str_radix(d, 16).is_ok())
}

/// Reads merges in either form: a pair, or both parts separated by a space.
fn merges(merges: &Value) -> std::result::Result<Vec<[String; 2]>, String> {
    let pair = |merge: &Value| {
        let (a, b) = match merge {
            Value::Array(pair) => (pair.first()?.as_str()?, pair.get(1)?.as_str()?),
            merge => merge.as_str()?.split_once(' ')?,
        };
        Some([a.to_owned(), b.to_owned()])
    };
    let list = merges.as_array().ok_or("it has no `merges`")?;
    let pairs = list
        .iter()
        .map(|merge| pair(merge).ok_or(format!("a merge is {merge}")));
    pairs.collect()
}

/// Writes the tokens for beginning, end and padding, and whether a text starts with the beginning
/// token.
fn special(pairs: &mut Pairs, tokens: &Tokens, config: &Config, files: [&Value; 3]) {
    let [tokenizer, settings, generation] = files;
    let named = |key: &str| {
        let token = &settings[key];
        let token = token.as_str().or(token["content"].as_str())?;
        tokens.ids.get(token).map(|id| *id as u32)
    };
    let below = |id: &u32| (*id as usize) < tokens.texts.len();
    let mut eos: Vec<u32> = named("eos_token").into_iter().collect();
    let listed = match &generation["eos_token_id"] {
        Value::Array(ids) => ids.iter().filter_map(Value::as_u64).collect(),
        id => Vec::from_iter(id.as_u64()),
    };
    let listed = listed.into_iter().filter_map(|id| u32::try_from(id).ok());
    for id in config
        .eos_token_id
        .iter()
        .copied()
        .chain(listed)
        .filter(below)
    {
        if !eos.contains(&id) {
            eos.push(id);
        }
    }
    let bos = named("bos_token").or(config.bos_token_id.filter(below));
    let ids = [
        ("bos", bos),
        ("padding", named("pad_token")),
        ("unknown", named("unk_token")),
    ];
    let ends = ["eos", "eot", "eom"]
        .into_iter()
        .zip(eos.into_iter().map(Some));
    for (name, id) in ids.into_iter().chain(ends) {
        if let Some(id) = id {
            pairs.number(&format!("tokenizer.ggml.{name}_token_id"), id);
        }
    }
    let template = &tokenizer["post_processor"];
    let is_first = |t: &Value| t["single"][0]["SpecialToken"].is_object();
    let nested = template["processors"].as_array().into_iter().flatten();
    let adds = settings["add_bos_token"] == true
        || settings["add_bos_token"].is_null()
            && (is_first(template) || nested.into_iter().any(is_first));
    pairs.boolean("tokenizer.ggml.add_bos_token", adds && bos.is_some());
}
