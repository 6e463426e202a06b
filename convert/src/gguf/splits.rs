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
    /// Several regular expressions: each splits the pieces of the one before.
    Steps(&'static [&'static str]),
}

const LLAMA_3: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}",
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
);
const QWEN_2: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}",
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
);

/// Three digits at a time, then Chinese and Japanese, then words of all other scripts, as
/// DeepSeek V3 splits.
const DEEPSEEK_3: [&str; 3] = [
    r"\p{N}{1,3}",
    "[\u{4e00}-\u{9fa5}\u{3040}-\u{309f}\u{30a0}-\u{30ff}]+",
    concat!(
        r##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"##,
        r"| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    ),
];
/// Small, capital and title letters, with a space before. The published rule lists those of an
/// older Unicode; letters that came later, and those of mathematics, differ.
const LETTERS_WITH_CASE: &str = r"\s?[\p{Lu}\p{Ll}\p{Lt}]+";
const HAN: &str = "[\u{4e00}-\u{9fa5}\u{800}-\u{4e00}\u{ac00}-\u{d7ff}]+";
const DEEPSEEK_LLM: [&str; 6] = [
    r"[\r\n]",
    LETTERS_WITH_CASE,
    "\\s?[!-/:-~\u{ff01}-\u{ff0f}\u{ff1a}-\u{ff5e}\u{2018}-\u{201f}\u{3000}-\u{3002}]+",
    r"\s+$",
    HAN,
    r"\p{N}+",
];
const DEEPSEEK_CODER: [&str; 5] = [r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", HAN, r"\p{N}"];
/// GPT-2's regular expression.
const GPT_2: &str = concat!(
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+",
    r"| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
);
const FALCON: [&str; 3] = [r"[\p{P}\$\+<=>\^~\|`]+", GPT_2, "[0-9][0-9][0-9]"];
const QWEN_35: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}",
    r"| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
);
/// Words begin at capital letters; contractions belong to the word before.
const GPT_4O: &str = concat!(
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+",
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*",
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
);
const TEKKEN: &str = concat!(
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+",
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*",
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
);
const SEED_CODER: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}",
    r"| ?[^\s\p{L}\p{N}\r\n]+|\s*[\r\n]+|\s+(?!\S)|\s+",
);
const MINICPM_5: [&str; 2] = [
    r"\p{N}{1,3}",
    concat!(
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}+",
        r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    ),
];

/// A rule without a normalizer, whose tokens are all made by merges.
const fn row(names: &'static [&'static str], pieces: PieceRule) -> SplitRule {
    SplitRule {
        names,
        pieces,
        ignore_merges: false,
        adds_bos: false,
        normalizer: None,
    }
}

/// If several rules have the same pieces, tokenizer.json is recognized as the first.
pub(crate) static SPLITS: [SplitRule; 18] = [
    row(
        &[
            "gpt-2",
            "default",
            "olmo",
            "gpt-neox",
            "phi-2",
            "jais",
            "trillion",
            "granite-docling",
            "gigachat",
            "a.x-4.0",
            "mellum",
            "modern-bert",
        ],
        PieceRule::Gpt2,
    ),
    // Sterna's own tokenizers also use this rule.
    row(
        &[
            "starcoder",
            "refact",
            "smollm",
            "codeshell",
            "exaone",
            "exaone4",
            "minerva-7b",
            "mellum2",
        ],
        PieceRule::Gpt2Digits,
    ),
    SplitRule {
        ignore_merges: true,
        adds_bos: true,
        ..row(
            &[
                "llama-bpe",
                "llama3",
                "llama-v3",
                "falcon3",
                "falcon_e",
                "falcon-h1",
                "pixtral",
                "midm-2.0",
                "lfm2",
                "jina-v5-nano",
            ],
            PieceRule::Regex(LLAMA_3),
        )
    },
    SplitRule {
        normalizer: Some("NFC"),
        ..row(
            &["qwen2", "deepseek-r1-qwen", "kormo", "f2llmv2", "megrez"],
            PieceRule::Regex(QWEN_2),
        )
    },
    SplitRule {
        normalizer: Some("NFC"),
        ..row(&["qwen35"], PieceRule::Regex(QWEN_35))
    },
    row(
        &["dbrx", "smaug-bpe", "chatglm-bpe"],
        PieceRule::Regex(LLAMA_3),
    ),
    SplitRule {
        ignore_merges: true,
        ..row(&["glm4", "glm5"], PieceRule::Regex(LLAMA_3))
    },
    row(
        &["stablelm2", "hunyuan", "solar-open", "grok-2"],
        PieceRule::Regex(QWEN_2),
    ),
    SplitRule {
        normalizer: Some("NFC"),
        ..row(&["command-r"], PieceRule::Gpt2Digits)
    },
    SplitRule {
        normalizer: Some("NFC"),
        ..row(&["mpt"], PieceRule::Gpt2)
    },
    row(&["falcon"], PieceRule::Steps(&FALCON)),
    row(&["deepseek-llm"], PieceRule::Steps(&DEEPSEEK_LLM)),
    row(&["deepseek-coder"], PieceRule::Steps(&DEEPSEEK_CODER)),
    row(
        &["deepseek-v3", "hunyuan-dense", "joyai-llm", "hy_v4"],
        PieceRule::Steps(&DEEPSEEK_3),
    ),
    row(
        &["gpt-4o", "llama4", "kanana2", "talkie", "minimax-m2"],
        PieceRule::Regex(GPT_4O),
    ),
    SplitRule {
        ignore_merges: true,
        adds_bos: true,
        ..row(&["tekken"], PieceRule::Regex(TEKKEN))
    },
    row(&["seed-coder"], PieceRule::Regex(SEED_CODER)),
    SplitRule {
        ignore_merges: true,
        ..row(&["minicpm5"], PieceRule::Steps(&MINICPM_5))
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
        let split = |regex: &str| {
            json!({"type": "Split", "pattern": { "Regex": regex }, "behavior": "Isolated",
                "invert": false})
        };
        let (first, bytes) = match self.pieces {
            PieceRule::Gpt2 => return bytes(true),
            PieceRule::Gpt2Digits => (
                json!({"type": "Digits", "individual_digits": true}),
                bytes(true),
            ),
            PieceRule::Regex(regex) => (split(regex), bytes(false)),
            PieceRule::Steps(regexes) => {
                let steps = regexes.iter().map(|regex| split(regex));
                let steps: Vec<Value> = steps.chain([bytes(false)]).collect();
                return json!({"type": "Sequence", "pretokenizers": steps});
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
        let is_split = |split: &Value, regex: &str| {
            split["type"] == "Split"
                && split["pattern"]["Regex"] == regex
                && split["behavior"] == "Isolated"
                && split["invert"] == false
        };
        let is = |pieces: PieceRule| match (pieces, list) {
            (PieceRule::Gpt2, _) => is_bytes(pre_tokenizer, true),
            (PieceRule::Gpt2Digits, Some([digits, bytes])) => {
                digits["type"] == "Digits"
                    && digits["individual_digits"] == true
                    && is_bytes(bytes, true)
            }
            (PieceRule::Regex(regex), Some([split, bytes])) => {
                is_split(split, regex) && is_bytes(bytes, false)
            }
            (PieceRule::Steps(regexes), Some([splits @ .., bytes])) => {
                let mut pairs = splits.iter().zip(regexes);
                splits.len() == regexes.len()
                    && pairs.all(|(split, regex)| is_split(split, regex))
                    && is_bytes(bytes, false)
            }
            _ => false,
        };
        SPLITS.iter().find(|s| is(s.pieces))
    }
}

#[cfg(test)]
mod words;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rule_is_recognized() {
        for split in &SPLITS {
            let found = SplitRule::of(&split.pre_tokenizer()).unwrap();
            assert_eq!(found.pre_tokenizer(), split.pre_tokenizer());
            for name in split.names {
                assert_eq!(SplitRule::named(name).unwrap().names, split.names);
            }
        }
        assert!(SplitRule::of(&json!({"type": "Whitespace"})).is_none());
        assert!(SplitRule::of(&Value::Null).is_none());
    }
}
