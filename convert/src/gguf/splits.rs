//! Split rules of byte-level tokenizers, which GGUF names in `tokenizer.ggml.pre`, as data.

use serde_json::{Value, json};

/// A rule that divides text into the pieces in which byte pairs are merged.
pub(crate) struct SplitRule {
    /// Names of the rule. The writer takes the first.
    pub names: &'static [&'static str],
    pieces: PieceRule,
    /// Whether a piece that is itself a token skips the merges.
    pub ignore_merges: bool,
    /// Whether a text starts with the beginning-of-sequence token if the file does not say so.
    pub adds_bos: bool,
    normalizer: Option<&'static str>,
}

/// The definition of a piece.
#[derive(Clone, Copy, PartialEq)]
enum PieceRule {
    /// A match of GPT-2's regular expression, which the tokenizers library has built in.
    Gpt2,
    /// As `Gpt2`, with every digit a piece of its own.
    Gpt2Digits,
    /// A match of this regular expression.
    Regex(&'static str),
}

const LLAMA_3: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}",
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
);
const QWEN_2: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}",
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
);

pub(crate) static SPLITS: [SplitRule; 4] = [
    SplitRule {
        names: &["gpt-2", "default", "olmo", "gpt-neox", "phi-2"],
        pieces: PieceRule::Gpt2,
        ignore_merges: false,
        adds_bos: false,
        normalizer: None,
    },
    SplitRule {
        // Sterna's own tokenizers also use this rule.
        names: &["starcoder", "refact", "smollm", "codeshell"],
        pieces: PieceRule::Gpt2Digits,
        ignore_merges: false,
        adds_bos: false,
        normalizer: None,
    },
    SplitRule {
        names: &["llama-bpe", "llama3", "llama-v3", "falcon3", "falcon_e"],
        pieces: PieceRule::Regex(LLAMA_3),
        ignore_merges: true,
        adds_bos: true,
        normalizer: None,
    },
    SplitRule {
        names: &["qwen2", "deepseek-r1-qwen"],
        pieces: PieceRule::Regex(QWEN_2),
        ignore_merges: false,
        adds_bos: false,
        normalizer: Some("NFC"),
    },
];

impl SplitRule {
    pub fn named(name: &str) -> Option<&'static SplitRule> {
        SPLITS.iter().find(|s| s.names.contains(&name))
    }

    pub fn known() -> String {
        let names: Vec<_> = SPLITS.iter().flat_map(|s| s.names).copied().collect();
        names.join(", ")
    }

    pub fn pre_tokenizer(&self) -> Value {
        let bytes = |use_regex: bool| {
            json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true,
                "use_regex": use_regex})
        };
        let (first, bytes) = match self.pieces {
            PieceRule::Gpt2 => return bytes(true),
            PieceRule::Gpt2Digits => (
                json!({"type": "Digits", "individual_digits": true}),
                bytes(true),
            ),
            PieceRule::Regex(regex) => {
                let pattern = json!({ "Regex": regex });
                let split = json!({"type": "Split", "pattern": pattern, "behavior": "Isolated",
                    "invert": false});
                (split, bytes(false))
            }
        };
        json!({"type": "Sequence", "pretokenizers": [first, bytes]})
    }

    pub fn normalizer(&self) -> Value {
        self.normalizer
            .map_or(Value::Null, |kind| json!({ "type": kind }))
    }

    /// Finds the rule of a pre-tokenizer in tokenizer.json.
    pub fn of(pre_tokenizer: &Value) -> Option<&'static SplitRule> {
        let is_bytes = |v: &Value, use_regex: bool| {
            v["type"] == "ByteLevel"
                && v["add_prefix_space"] == false
                && v["use_regex"].as_bool().unwrap_or(true) == use_regex
        };
        let list = pre_tokenizer["pretokenizers"].as_array().map(Vec::as_slice);
        let is = |pieces: PieceRule| match (pieces, list) {
            (PieceRule::Gpt2, _) => is_bytes(pre_tokenizer, true),
            (PieceRule::Gpt2Digits, Some([digits, bytes])) => {
                digits["type"] == "Digits"
                    && digits["individual_digits"] == true
                    && is_bytes(bytes, true)
            }
            (PieceRule::Regex(regex), Some([split, bytes])) => {
                split["type"] == "Split"
                    && split["pattern"]["Regex"] == regex
                    && split["behavior"] == "Isolated"
                    && split["invert"] == false
                    && is_bytes(bytes, false)
            }
            _ => false,
        };
        SPLITS.iter().find(|s| is(s.pieces))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rule_is_recognized() {
        for split in &SPLITS {
            let found = SplitRule::of(&split.pre_tokenizer()).unwrap();
            assert_eq!(found.names, split.names);
            assert_eq!(SplitRule::named(split.names[1]).unwrap().names, split.names);
        }
        assert!(SplitRule::of(&json!({"type": "Whitespace"})).is_none());
        assert!(SplitRule::of(&Value::Null).is_none());
    }
}
