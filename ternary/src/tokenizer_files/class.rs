//! Classes of transformers that build a tokenizer by rules of their own.

use serde_json::{Map, Value, json};

/// A class of transformers that builds its tokenizer from the vocabulary of tokenizer.json and
/// rules of its own.
pub(super) struct Class {
    pub name: &'static str,
    /// Special tokens of a tokenizer_config.json without these keys.
    pub defaults: &'static [(&'static str, &'static str)],
    /// Whether spaces are written `▁`, as in Llama. Other classes are byte-level.
    pub has_metaspace: bool,
    /// Whether special tokens have no properties but that, whatever the files state.
    pub has_plain_specials: bool,
}

const END: &str = "<|endoftext|>";
pub(super) const CLASSES: [Class; 4] = [
    Class {
        name: "LlamaTokenizer",
        defaults: &[
            ("unk_token", "<unk>"),
            ("bos_token", "<s>"),
            ("eos_token", "</s>"),
        ],
        has_metaspace: true,
        has_plain_specials: false,
    },
    Class {
        name: "Qwen2Tokenizer",
        defaults: &[("unk_token", END), ("eos_token", END), ("pad_token", END)],
        has_metaspace: false,
        has_plain_specials: true,
    },
    Class {
        name: "GPT2Tokenizer",
        defaults: &[("unk_token", END), ("bos_token", END), ("eos_token", END)],
        has_metaspace: false,
        has_plain_specials: false,
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
        has_plain_specials: false,
    },
];

impl Class {
    /// Replaces the rules of tokenizer.json by those of the class. Returns a sentence if this
    /// changes something.
    pub fn rebuild(&self, settings: &Value, parts: &mut Map<String, Value>) -> Option<String> {
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
