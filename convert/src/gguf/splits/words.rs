//! The words into which each rule divides some texts.

use std::collections::HashSet;

use tokenizers::{
    NormalizedString, Normalizer, NormalizerWrapper, OffsetReferential, OffsetType,
    PreTokenizedString, PreTokenizer, PreTokenizerWrapper,
};

use super::{SPLITS, SplitRule};

const TEXTS: [&str; 5] = [
    "We'LL say it's  12345 tonnes\r\n",
    "$x+=y^2;\n\n  done  ",
    "the GreyTERN's ne\u{301}st",
    "ते 海鳥の巣 море²",
    "path//\n/to",
];
/// The words of each text, between bars: made with the module regex of Python from the
/// expressions that llama.cpp lists for these names.
const WORDS: [(&str, [&str; 5]); 18] = [
    (
        "gpt-2",
        [
            "We|'|LL| say| it|'s| | 12345| tonnes|\r\n",
            "$|x|+=|y|^|2|;|\n\n | done|  ",
            "the| GreyTERN|'s| ne|\u{301}|st",
            "त|े| 海鳥の巣| море|²",
            "path|//|\n|/|to",
        ],
    ),
    (
        "starcoder",
        [
            "We|'|LL| say| it|'s|  |1|2|3|4|5| tonnes|\r\n",
            "$|x|+=|y|^|2|;|\n\n | done|  ",
            "the| GreyTERN|'s| ne|\u{301}|st",
            "त|े| 海鳥の巣| море|²",
            "path|//|\n|/|to",
        ],
    ),
    (
        "llama-bpe",
        [
            "We|'LL| say| it|'s| | |123|45| tonnes|\r\n",
            "$x|+=|y|^|2|;\n\n| | done|  ",
            "the| GreyTERN|'s| ne|\u{301}st",
            "त|े| 海鳥の巣| море|²",
            "path|//\n|/to",
        ],
    ),
    (
        "qwen2",
        [
            "We|'LL| say| it|'s| | |1|2|3|4|5| tonnes|\r\n",
            "$x|+=|y|^|2|;\n\n| | done|  ",
            "the| GreyTERN|'s| n\u{e9}st",
            "त|े| 海鳥の巣| море|²",
            "path|//\n|/to",
        ],
    ),
    (
        "qwen35",
        [
            "We|'LL| say| it|'s| | |1|2|3|4|5| tonnes|\r\n",
            "$x|+=|y|^|2|;\n\n| | done|  ",
            "the| GreyTERN|'s| n\u{e9}st",
            "ते| 海鳥の巣| море|²",
            "path|//\n|/to",
        ],
    ),
    (
        "dbrx",
        [
            "We|'LL| say| it|'s| | |123|45| tonnes|\r\n",
            "$x|+=|y|^|2|;\n\n| | done|  ",
            "the| GreyTERN|'s| ne|\u{301}st",
            "त|े| 海鳥の巣| море|²",
            "path|//\n|/to",
        ],
    ),
    (
        "glm4",
        [
            "We|'LL| say| it|'s| | |123|45| tonnes|\r\n",
            "$x|+=|y|^|2|;\n\n| | done|  ",
            "the| GreyTERN|'s| ne|\u{301}st",
            "त|े| 海鳥の巣| море|²",
            "path|//\n|/to",
        ],
    ),
    (
        "stablelm2",
        [
            "We|'LL| say| it|'s| | |1|2|3|4|5| tonnes|\r\n",
            "$x|+=|y|^|2|;\n\n| | done|  ",
            "the| GreyTERN|'s| ne|\u{301}st",
            "त|े| 海鳥の巣| море|²",
            "path|//\n|/to",
        ],
    ),
    (
        "command-r",
        [
            "We|'|LL| say| it|'s|  |1|2|3|4|5| tonnes|\r\n",
            "$|x|+=|y|^|2|;|\n\n | done|  ",
            "the| GreyTERN|'s| n\u{e9}st",
            "त|े| 海鳥の巣| море|²",
            "path|//|\n|/|to",
        ],
    ),
    (
        "mpt",
        [
            "We|'|LL| say| it|'s| | 12345| tonnes|\r\n",
            "$|x|+=|y|^|2|;|\n\n | done|  ",
            "the| GreyTERN|'s| n\u{e9}st",
            "त|े| 海鳥の巣| море|²",
            "path|//|\n|/|to",
        ],
    ),
    (
        "falcon",
        [
            "We|'|LL| say| it|'|s| | |123|45| tonnes|\r\n",
            "$|x|+=|y|^|2|;|\n\n | done|  ",
            "the| GreyTERN|'|s| ne|\u{301}|st",
            "त|े| 海鳥の巣| море|²",
            "path|//|\n|/|to",
        ],
    ),
    (
        "deepseek-llm",
        [
            "We|'|LL| say| it|'|s|  |12345| tonnes|\r|\n",
            "$|x|+=|y|^|2|;|\n|\n| | done|  ",
            "the| GreyTERN|'|s| ne|\u{301}|st",
            "ते| |海鳥の巣| море|²",
            "path|//|\n|/|to",
        ],
    ),
    (
        "deepseek-coder",
        [
            "We|'|LL| say| it|'|s|  |1|2|3|4|5| tonnes|\r|\n",
            "$|x|+=|y|^|2|;|\n|\n| | done|  ",
            "the| GreyTERN|'|s| ne|\u{301}|st",
            "त|े| |海鳥の巣| море|²",
            "path|//|\n|/|to",
        ],
    ),
    (
        "deepseek-v3",
        [
            "We|'LL| say| it|'s|  |123|45| tonnes|\r\n",
            "$x|+=|y|^|2|;\n\n| | done|  ",
            "the| GreyTERN|'s| ne\u{301}st",
            "ते| |海鳥の巣| море|²",
            "path|//\n|/to",
        ],
    ),
    (
        "gpt-4o",
        [
            "We'LL| say| it's| | |123|45| tonnes|\r\n",
            "$x|+=|y|^|2|;\n\n| | done|  ",
            "the| Grey|TERN's| ne\u{301}st",
            "ते| 海鳥の巣| море|²",
            "path|//\n/|to",
        ],
    ),
    (
        "tekken",
        [
            "We|'LL| say| it|'s| | |1|2|3|4|5| tonnes|\r\n",
            "$x|+=|y|^|2|;\n\n| | done|  ",
            "the| Grey|TERN|'s| ne\u{301}st",
            "ते| 海鳥の巣| море|²",
            "path|//\n/|to",
        ],
    ),
    (
        "seed-coder",
        [
            "We|'LL| say| it|'s| | |1|2|3|4|5| tonnes|\r\n",
            "$x|+=|y|^|2|;|\n\n| | done|  ",
            "the| GreyTERN|'s| ne|\u{301}st",
            "त|े| 海鳥の巣| море|²",
            "path|//|\n|/to",
        ],
    ),
    (
        "minicpm5",
        [
            "We|'LL| say| it|'s|  |123|45| tonnes|\r\n",
            "$x|+=|y|^|2|;\n\n| | done|  ",
            "the| GreyTERN|'s| ne|\u{301}st",
            "त|े| 海鳥の巣| море|²",
            "path|//\n|/to",
        ],
    ),
];

/// The words of a text, with bars between them.
fn words(rule: &SplitRule, text: &str) -> String {
    let mut text = NormalizedString::from(text);
    let normalizer: Option<NormalizerWrapper> = serde_json::from_value(rule.normalizer()).unwrap();
    if let Some(normalizer) = normalizer {
        normalizer.normalize(&mut text).unwrap();
    }
    let text = text.get().to_owned();
    let split: PreTokenizerWrapper = serde_json::from_value(rule.pre_tokenizer()).unwrap();
    let mut pieces = PreTokenizedString::from(text.as_str());
    split.pre_tokenize(&mut pieces).unwrap();
    let pieces = pieces.get_splits(OffsetReferential::Original, OffsetType::Byte);
    let words: Vec<&str> = pieces.iter().map(|(_, at, _)| &text[at.0..at.1]).collect();
    words.join("|")
}

#[test]
fn texts_are_divided_as_in_llama_cpp() {
    assert_eq!(WORDS.len(), SPLITS.len());
    for (rule, (name, expected)) in SPLITS.iter().zip(WORDS) {
        assert_eq!(rule.names[0], name);
        for (text, expected) in TEXTS.iter().zip(expected) {
            assert_eq!(words(rule, text), expected, "{name}: {text:?}");
        }
    }
}

#[test]
fn no_two_rules_are_the_same() {
    let rules = SPLITS.iter().zip(WORDS);
    let rules = rules.map(|(rule, (_, words))| (words, rule.ignore_merges, rule.adds_bos));
    assert_eq!(rules.collect::<HashSet<_>>().len(), SPLITS.len());
}
