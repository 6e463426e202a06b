//! Converts the tokenizer of a GGUF file to the files of a Hugging Face folder.
//!
//! A file written by Sterna contains them unchanged. Other files contain a list of tokens with
//! merges or scores, the name of a split rule and a chat template. From these, tokenizer.json,
//! tokenizer_config.json, generation_config.json and chat_template.jinja are made. Known defects of
//! published files are repaired with a warning.

use std::collections::HashMap;

use serde_json::{Value, json};

use super::metadata::Metadata;
use crate::Result;
use crate::gguf::names::Architecture;
use crate::gguf::splits::SplitRule;
use crate::gguf::{FILE_KEYS, TOKENIZER};

/// Kinds of tokens in `tokenizer.ggml.token_type`.
pub(crate) const NORMAL: u64 = 1;
pub(crate) const UNKNOWN: u64 = 2;
pub(crate) const CONTROL: u64 = 3;
pub(crate) const USER_DEFINED: u64 = 4;
pub(crate) const UNUSED: u64 = 5;
pub(crate) const BYTE: u64 = 6;

/// Control tokens that end a turn in some chat format, whatever the metadata says.
const ENDS_OF_TURN: [&str; 4] = ["<|eot_id|>", "<|im_end|>", "<|end|>", "<end_of_turn>"];

/// The chat template that BitNet b1.58 2B4T was trained with.
const BITNET_TEMPLATE: &str = "{{ bos_token }}{% for message in messages %}\
    {{ message['role'] | capitalize }}: {{ message['content'] | trim }}<|eot_id|>{% endfor %}\
    {% if add_generation_prompt %}Assistant: {% endif %}";
/// Part of the wrong template in the first published files.
const WRONG_TEMPLATE: &str = "BITNETAssistant";

/// The model of SentencePiece whose merges are in the file.
const GEMMA_4: &str = "gemma4";

/// Longest token whose merges are derived, in bytes. The work grows with the square of the length.
const LONGEST: usize = 256;

/// The files that could be made, in the order of [`sterna_ternary::file::FILES`], without
/// config.json.
pub(crate) fn read(
    metadata: &Metadata,
    architecture: &Architecture,
    vocab_size: usize,
    warnings: &mut Vec<String>,
) -> Result<Vec<(String, Vec<u8>)>> {
    if metadata.has(crate::gguf::CONFIG) {
        let mut files = Vec::new();
        for (name, key) in &FILE_KEYS[1..] {
            if let Some(text) = metadata.text(key)? {
                files.push((name.to_string(), text.as_bytes().to_vec()));
            }
        }
        return Ok(files);
    }
    let Some(vocabulary) = Vocabulary::read(metadata, architecture, warnings)? else {
        return Ok(Vec::new());
    };
    if vocabulary.tokens.len() > vocab_size {
        let expected = format!("at most {vocab_size}, the rows of token_embd.weight");
        let found = vocabulary.tokens.len().to_string();
        return Err(metadata.bad("tokenizer.ggml.tokens", expected, found));
    }
    let mut files = Vec::new();
    let mut push = |name: &str, json: &Value| {
        files.push((name.to_owned(), format!("{json:#}\n").into_bytes()));
    };
    match metadata.text(TOKENIZER)? {
        Some(text) => push("tokenizer.json", &parse(metadata, text)?),
        None => push("tokenizer.json", &vocabulary.tokenizer(metadata, warnings)?),
    }
    push("tokenizer_config.json", &vocabulary.settings());
    push("generation_config.json", &vocabulary.generation(warnings));
    if let Some(template) = template(metadata, architecture, warnings)? {
        files.push(("chat_template.jinja".into(), template.into_bytes()));
    }
    Ok(files)
}

fn parse(metadata: &Metadata, text: &str) -> Result<Value> {
    serde_json::from_str(text)
        .ok()
        .filter(Value::is_object)
        .ok_or_else(|| metadata.bad(TOKENIZER, "a JSON object", "other text"))
}

fn template(
    metadata: &Metadata,
    architecture: &Architecture,
    warnings: &mut Vec<String>,
) -> Result<Option<String>> {
    let template = metadata.text("tokenizer.chat_template")?;
    let is_wrong = template.is_some_and(|t| t.contains(WRONG_TEMPLATE));
    if is_wrong && architecture.model_type == "bitnet" {
        warnings.push(
            "the chat template is the wrong one of this model's early files; it was replaced by \
             the template of the model card"
                .into(),
        );
        return Ok(Some(BITNET_TEMPLATE.into()));
    }
    Ok(template.map(str::to_owned))
}

struct Vocabulary<'a> {
    tokens: Vec<&'a str>,
    kinds: Vec<u64>,
    split: Option<&'static SplitRule>,
    bos: Option<usize>,
    eos: Vec<usize>,
    unknown: Option<usize>,
    padding: Option<usize>,
    adds_bos: bool,
    adds_eos: bool,
}

impl<'a> Vocabulary<'a> {
    fn read(
        metadata: &'a Metadata,
        architecture: &Architecture,
        warnings: &mut Vec<String>,
    ) -> Result<Option<Vocabulary<'a>>> {
        let Some(model) = metadata.text("tokenizer.ggml.model")? else {
            return Ok(None);
        };
        let Some(tokens) = metadata.strings("tokenizer.ggml.tokens")? else {
            return Ok(None);
        };
        // Byte-level BPE needs a split rule; SentencePiece has none.
        let split = match model {
            "gpt2" => Some(split(metadata, architecture, tokens.len(), warnings)?),
            "llama" | GEMMA_4 => None,
            "none" | "no_vocab" => return Ok(None),
            other => {
                let expected = "gpt2, llama or gemma4";
                return Err(metadata.bad("tokenizer.ggml.model", expected, other));
            }
        };
        let kinds = metadata.unsigneds("tokenizer.ggml.token_type")?;
        let kinds = kinds.unwrap_or_else(|| vec![NORMAL; tokens.len()]);
        if kinds.len() != tokens.len() {
            let expected = format!("{} kinds, one a token", tokens.len());
            let key = "tokenizer.ggml.token_type";
            return Err(metadata.bad(key, expected, kinds.len().to_string()));
        }
        // A special token is an id below the number of tokens.
        let id = |name: &str| {
            let key = format!("tokenizer.ggml.{name}_token_id");
            match metadata.unsigned(&key)? {
                Some(id) if id >= tokens.len() as u64 => {
                    let expected = format!("a token below {}", tokens.len());
                    Err(metadata.bad(&key, expected, id.to_string()))
                }
                id => Ok(id.map(|id| id as usize)),
            }
        };
        let mut eos: Vec<usize> = Vec::new();
        // Chat models end a turn with another token than a text.
        for name in ["eos", "eot", "eom"] {
            eos.extend(id(name)?);
        }
        let adds = metadata.boolean("tokenizer.ggml.add_bos_token")?;
        let adds_eos = metadata.boolean("tokenizer.ggml.add_eos_token")?;
        Ok(Some(Vocabulary {
            bos: id("bos")?,
            unknown: id("unknown")?,
            padding: id("padding")?,
            adds_bos: adds.unwrap_or(split.is_none_or(|s| s.adds_bos)),
            adds_eos: adds_eos.unwrap_or(false),
            tokens,
            kinds,
            split,
            eos,
        }))
    }

    fn tokenizer(&self, metadata: &Metadata, warnings: &mut Vec<String>) -> Result<Value> {
        let vocab = self.vocab(metadata)?;
        let mut json = match self.split {
            Some(split) => {
                warnings.push(
                    "tokenizer.json was rebuilt from a list of tokens; if you have the original, \
                     compare the two on some text"
                        .into(),
                );
                byte_level(split, merges(metadata)?)
            }
            None if metadata.text("tokenizer.ggml.model")? == Some(GEMMA_4) => {
                sentence_piece(merges(metadata)?, false, self.unknown_token())
            }
            None => {
                let scores = metadata.floats("tokenizer.ggml.scores")?;
                let scores = scores.filter(|s| s.len() == self.tokens.len());
                let key = "tokenizer.ggml.scores";
                let scores = scores
                    .ok_or_else(|| metadata.bad(key, "one score a token", "another number"))?;
                let space = metadata.boolean("tokenizer.ggml.add_space_prefix")?;
                let merges = self.merges_of_scores(metadata, &scores)?;
                sentence_piece(merges, space.unwrap_or(true), self.unknown_token())
            }
        };
        json["model"]["vocab"] = Value::Object(vocab);
        json["added_tokens"] = self.added();
        json["post_processor"] = self.post_processor();
        Ok(json)
    }

    /// Map from token to id, in the order of the ids.
    fn vocab(&self, metadata: &Metadata) -> Result<serde_json::Map<String, Value>> {
        let mut vocab = serde_json::Map::new();
        for (id, token) in self.tokens.iter().enumerate() {
            if vocab.insert(token.to_string(), json!(id)).is_some() {
                let found = format!("{token:?} twice");
                return Err(metadata.bad("tokenizer.ggml.tokens", "tokens that differ", found));
            }
        }
        Ok(vocab)
    }

    fn unknown_token(&self) -> Option<&str> {
        let id = self
            .unknown
            .or(self.kinds.iter().position(|k| *k == UNKNOWN));
        id.map(|id| self.tokens[id])
    }

    fn added(&self) -> Value {
        let special = |id: usize| self.kinds[id] == CONTROL || self.kinds[id] == UNKNOWN;
        let added =
            (0..self.tokens.len()).filter(|id| special(*id) || self.kinds[*id] == USER_DEFINED);
        let added = added.map(|id| {
            json!({"id": id, "content": self.tokens[id], "single_word": false, "lstrip": false,
                "rstrip": false, "normalized": false, "special": special(id)})
        });
        added.collect()
    }

    fn post_processor(&self) -> Value {
        let (a, b) = (
            json!({"Sequence": {"id": "A", "type_id": 0}}),
            json!({"Sequence": {"id": "B", "type_id": 1}}),
        );
        let (bos, eos) = (self.first_token(), self.last_token());
        if bos.or(eos).is_none() {
            return Value::Null;
        }
        let token =
            |id: usize, kind: u8| json!({"SpecialToken": {"id": self.tokens[id], "type_id": kind}});
        let around = |sequence: &Value, kind: u8| -> Vec<Value> {
            let (bos, eos) = (bos.map(|id| token(id, kind)), eos.map(|id| token(id, kind)));
            bos.into_iter()
                .chain([sequence.clone()])
                .chain(eos)
                .collect()
        };
        let special = |id: usize| {
            let name = self.tokens[id];
            (
                name.to_owned(),
                json!({"id": name, "ids": [id], "tokens": [name]}),
            )
        };
        let special = bos.into_iter().chain(eos).map(special);
        let pair = [around(&a, 0), around(&b, 1)].concat();
        json!({"type": "TemplateProcessing", "single": around(&a, 0), "pair": pair,
            "special_tokens": special.collect::<serde_json::Map<_, _>>()})
    }

    /// The token that is prepended to a text.
    fn first_token(&self) -> Option<usize> {
        self.bos.filter(|_| self.adds_bos)
    }

    /// The token that is appended to a text, as in embedding models.
    fn last_token(&self) -> Option<usize> {
        self.eos.first().copied().filter(|_| self.adds_eos)
    }

    fn settings(&self) -> Value {
        let name = |id: Option<usize>| id.map(|id| self.tokens[id]);
        json!({
            "add_bos_token": self.first_token().is_some(),
            "add_eos_token": self.last_token().is_some(),
            "bos_token": name(self.bos),
            "eos_token": name(self.eos.first().copied()),
            "pad_token": name(self.padding),
            "unk_token": self.unknown_token(),
            "clean_up_tokenization_spaces": false,
            "tokenizer_class": "PreTrainedTokenizerFast",
        })
    }

    fn generation(&self, warnings: &mut Vec<String>) -> Value {
        let mut eos: Vec<usize> = Vec::new();
        for id in &self.eos {
            if !eos.contains(id) {
                eos.push(*id);
            }
        }
        for (id, token) in self.tokens.iter().enumerate() {
            if self.kinds[id] == CONTROL && ENDS_OF_TURN.contains(token) && !eos.contains(&id) {
                warnings.push(format!(
                    "the file does not say that {token} ends a turn; it was added to the tokens \
                     that end a text"
                ));
                eos.push(id);
            }
        }
        json!({"bos_token_id": self.bos, "eos_token_id": eos, "pad_token_id": self.padding})
    }

    /// Derives merges from a vocabulary with scores: every split of a token into two tokens, the
    /// best score first.
    fn merges_of_scores(&self, metadata: &Metadata, scores: &[f32]) -> Result<Vec<Value>> {
        let ids: HashMap<&str, usize> = self.tokens.iter().copied().zip(0..).collect();
        let mut merges = Vec::new();
        for (id, token) in self.tokens.iter().enumerate() {
            if self.kinds[id] != NORMAL && self.kinds[id] != USER_DEFINED {
                continue;
            }
            if token.len() > LONGEST {
                let expected = format!("tokens of at most {LONGEST} bytes");
                let found = token.len().to_string();
                return Err(metadata.bad("tokenizer.ggml.tokens", expected, found));
            }
            let cuts = token
                .char_indices()
                .skip(1)
                .map(|(at, _)| token.split_at(at));
            let known = cuts.filter_map(|(l, r)| Some((ids.get(l)?, ids.get(r)?)));
            let mut known: Vec<_> = known.map(|(l, r)| (*l, *r)).collect();
            known.sort_unstable();
            merges.extend(known.into_iter().map(|(l, r)| (id, l, r)));
        }
        merges.sort_by(|a, b| scores[b.0].total_cmp(&scores[a.0]));
        let pair = |(_, l, r): (usize, usize, usize)| json!([self.tokens[l], self.tokens[r]]);
        Ok(merges.into_iter().map(pair).collect())
    }
}

/// The split rule that the file names, or the default of its architecture.
fn split(
    metadata: &Metadata,
    architecture: &Architecture,
    tokens: usize,
    warnings: &mut Vec<String>,
) -> Result<&'static SplitRule> {
    /// Number of tokens of Llama 3.
    const LLAMA_3: usize = 128_256;
    const KEY: &str = "tokenizer.ggml.pre";
    let name = match metadata.text(KEY)? {
        Some(name) => name,
        None => {
            let name = if tokens == LLAMA_3 {
                "llama-bpe"
            } else {
                architecture.pre
            };
            warnings.push(format!(
                "there is no {KEY}: text is split as {name} does, as models of architecture {} \
                 require",
                architecture.name
            ));
            name
        }
    };
    SplitRule::named(name).ok_or_else(|| {
        let expected = format!("one of the split rules {}", SplitRule::known());
        metadata.bad(KEY, expected, name)
    })
}

fn merges(metadata: &Metadata) -> Result<Vec<Value>> {
    const KEY: &str = "tokenizer.ggml.merges";
    let merges = metadata.strings(KEY)?;
    let merges =
        merges.ok_or_else(|| metadata.bad(KEY, "the merges of a gpt2 tokenizer", "nothing"))?;
    let pair = |merge: &str| {
        // A part may start with a space, the same character that separates the parts.
        let at = merge.bytes().skip(1).position(|b| b == b' ')? + 1;
        let (left, right) = (&merge[..at], &merge[at + 1..]);
        (!right.is_empty()).then(|| json!([left, right]))
    };
    let pairs = merges.iter().map(|merge| {
        pair(merge).ok_or_else(|| metadata.bad(KEY, "two parts and a space", format!("{merge:?}")))
    });
    pairs.collect()
}

fn byte_level(split: &SplitRule, merges: Vec<Value>) -> Value {
    json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [],
        "normalizer": split.normalizer(),
        "pre_tokenizer": split.pre_tokenizer(),
        "post_processor": null,
        "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true,
            "use_regex": true},
        "model": {"type": "BPE", "dropout": null, "unk_token": null,
            "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false,
            "ignore_merges": split.ignore_merges, "vocab": {}, "merges": merges},
    })
}

fn sentence_piece(merges: Vec<Value>, space_first: bool, unknown: Option<&str>) -> Value {
    let spaces = json!({"type": "Replace", "pattern": {"String": " "}, "content": "▁"});
    let mut decoders = vec![
        json!({"type": "Replace", "pattern": {"String": "▁"}, "content": " "}),
        json!({"type": "ByteFallback"}),
        json!({"type": "Fuse"}),
    ];
    let mut normalizers = vec![spaces];
    if space_first {
        normalizers.insert(0, json!({"type": "Prepend", "prepend": "▁"}));
        decoders.push(json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}));
    }
    json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [],
        "normalizer": {"type": "Sequence", "normalizers": normalizers},
        "pre_tokenizer": null,
        "post_processor": null,
        "decoder": {"type": "Sequence", "decoders": decoders},
        "model": {"type": "BPE", "dropout": null, "unk_token": unknown,
            "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": true, "byte_fallback": true,
            "ignore_merges": false,
            "vocab": {}, "merges": merges},
    })
}
