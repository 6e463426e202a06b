//! Our ids and those of `tokenizers` for the whole text, for tokenizers of many kinds.

use serde_json::json;
use tokenizers::Tokenizer;
use tokenizers::models::TrainerWrapper;
use tokenizers::models::bpe::BpeTrainer;

use super::template::TemplateEncoder;
use super::texts::TextEncoder;
use super::*;
use crate::answers::Rendered;
use crate::generate::Split;
use crate::generate::mix::Corpus;
use crate::random::mix64;

/// A stream of random numbers.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 += 1;
        (mix64(self.0) % end as u64) as usize
    }

    fn of<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }
}

/// Texts that pre-tokenizers have rules about.
const PARTS: &[&str] = &[
    " ",
    " ",
    " ",
    "  ",
    "    ",
    "\n",
    "\n\n",
    "\r\n",
    "\t",
    " \n ",
    "\u{a0}",
    "\u{3000}",
    "the",
    "sea",
    " tern",
    "Mia",
    "don't",
    "'s",
    "'LL",
    "''",
    "a",
    "aa",
    "ab",
    "aaaa",
    "A",
    "Ab",
    "1",
    "12",
    "2026",
    "7,000",
    "½",
    "²",
    "٣",
    ".",
    "...",
    "!?",
    "—",
    "_",
    "(",
    "{}",
    "=====",
    "é",
    "e\u{301}",
    "\u{301}",
    "\u{300}\u{323}",
    "ﬁ",
    "Ａ",
    "中文",
    "鳥がいる",
    "한국",
    "한",
    "🦅",
    "👩‍🚀",
    "\u{200d}",
    "▁",
    "▁▁",
    "<tool>",
    "<too",
    "<|end|>",
    "\u{0}",
    "<unk>",
    "ẞ",
    "İ",
    "ǅ",
    "K",
    "١٢",
    "ª",
    "\u{85}",
    "\u{1680}",
    "\u{feff}",
];

fn random_text(random: &mut Random, parts: usize) -> String {
    let mut text = String::new();
    for _ in 0..parts {
        let part = *random.of(PARTS);
        // Sometimes a run that no boundary ends.
        let times = if random.below(40) == 0 {
            1 + random.below(300)
        } else {
            1
        };
        text.push_str(&part.repeat(times));
    }
    text
}

fn corpus() -> Vec<String> {
    let mix = "stories=1,addition2=1".parse().unwrap();
    let corpus = Corpus {
        mix,
        seed: 1,
        split: Split::Train,
    };
    let mut random = Random(77);
    let texts = corpus.texts().take(150);
    texts
        .chain((0..200).map(|_| random_text(&mut random, 60)))
        .collect()
}

/// A tokenizer with these steps, trained on the corpus.
fn trained(normalizer: Value, pre_tokenizer: Value, model: Value, added: Value) -> Tokenizer {
    let mut all = json!({"version": "1.0", "truncation": null, "padding": null, "added_tokens": [],
        "normalizer": normalizer, "pre_tokenizer": pre_tokenizer, "post_processor": null,
        "decoder": null, "model": {"type": "BPE", "vocab": {}, "merges": []}});
    let mut tokenizer: Tokenizer = all.to_string().parse().unwrap();
    let mut trainer = BpeTrainer::builder()
        .vocab_size(900)
        .min_frequency(2)
        .show_progress(false);
    let is_bytes = pre_tokenizer.to_string().contains("ByteLevel");
    if is_bytes {
        let bytes = (0..=255).map(split::char_of).collect();
        trainer = trainer.initial_alphabet(bytes);
    }
    let mut trainer = TrainerWrapper::from(trainer.build());
    tokenizer.train(&mut trainer, corpus().into_iter()).unwrap();
    let learned: Value = serde_json::from_str(&tokenizer.to_string(false).unwrap()).unwrap();
    all["model"] = learned["model"].clone();
    for (key, value) in model.as_object().unwrap() {
        all["model"][key] = value.clone();
    }
    if model["byte_fallback"] == true {
        let vocab = all["model"]["vocab"].as_object_mut().unwrap();
        let first = vocab.len();
        vocab.extend((0..256).map(|b| (format!("<0x{b:02X}>"), json!(first + b))));
    }
    let count = all["model"]["vocab"].as_object().unwrap().len();
    let mut added = added;
    for (i, token) in added.as_array_mut().unwrap().iter_mut().enumerate() {
        token["id"] = json!(count + i);
    }
    all["added_tokens"] = added;
    let mut tokenizer: Tokenizer = all.to_string().parse().unwrap();
    tokenizer.set_encode_special_tokens(true);
    tokenizer
}

fn added(content: &str, special: bool, normalized: bool) -> Value {
    json!({"content": content, "special": special, "normalized": normalized, "single_word": false,
        "lstrip": false, "rstrip": false})
}

/// The first tokens of long texts of a template, with their marks, against those of the whole.
fn check_beginnings(tokenizer: &Tokenizer) {
    let mut encoder = TemplateEncoder::new(tokenizer.clone(), None);
    let mut random = Random(1);
    for round in 0..60 {
        let length = 100 + random.below(300);
        let text = random_text(&mut random, length);
        // Answers of random lengths with gaps between them.
        let (mut answers, mut at) = (Vec::new(), 0);
        while at + 40 < text.len() {
            let start = at + random.below(30);
            at = start + 1 + random.below(40);
            answers.push(start..at.min(text.len()));
        }
        let whole = Rendered {
            text,
            answers,
            read_only: Vec::new(),
        };
        encoder.least = 1 << 30;
        let expected = encoder.encode(vec![whole.clone()], 0).unwrap().remove(0);
        encoder.least = 600;
        let most = 1 + random.below(expected.len());
        let found = encoder.encode(vec![whole], most).unwrap().remove(0);
        assert!(found.len() > most || found == expected, "round {round}");
        assert!(expected.starts_with(&found), "round {round}");
    }
}

/// Texts in which special tokens are found, and texts without any, in parts.
fn check_texts(tokenizer: &Tokenizer) {
    let mut library = tokenizer.clone();
    library.set_encode_special_tokens(false);
    let json = library.to_string(false).unwrap();
    let mut random = Random(2);
    for round in 0..60 {
        let length = random.below(150);
        let mut text = random_text(&mut random, length);
        if round % 2 == 0 {
            text = text.replace("<|end|>", " ").replace("<unk>", " ");
        }
        let chunk = 64 + random.below(4000);
        let encoder = TextEncoder::new(json.as_bytes()).unwrap().with_chunk(chunk);
        let mut at = random.below(text.len() + 1);
        while !text.is_char_boundary(at) {
            at -= 1;
        }
        let found = encoder.encode(&[&text[..at], &text[at..]]).unwrap();
        assert!(
            found == by_library(&library, &text).unwrap(),
            "round {round}"
        );
    }
}

/// Compares on random texts: whole, in parts of random sizes with small chunks and windows.
fn check(tokenizer: &Tokenizer, is_fast: bool) {
    check_beginnings(tokenizer);
    check_texts(tokenizer);
    let json = tokenizer.to_string(false).unwrap();
    let mut encoder = Encoder::new(json.as_bytes());
    assert_eq!(encoder.is_fast(), is_fast);
    let mut random = Random(0);
    for round in 0..200 {
        let length = random.below(150);
        let text = random_text(&mut random, length);
        encoder.chunk = 64 + random.below(4000);
        if let Some(fast) = &mut encoder.fast {
            // More than the longest token, which is a run of 256 spaces.
            fast.words.window = 600 + random.below(100);
        }
        let mut stream = Stream::new(&encoder, tokenizer);
        let mut pieces = Vec::new();
        let mut rest = &text[..];
        while !rest.is_empty() {
            let mut end = (1 + random.below(400)).min(rest.len());
            while !rest.is_char_boundary(end) {
                end += 1;
            }
            stream.push(&rest[..end], &mut pieces).unwrap();
            rest = &rest[end..];
        }
        stream.finish(&mut pieces);
        let found = encoder.encode_all(tokenizer, &pieces).unwrap().concat();
        let expected = by_library(tokenizer, &text).unwrap();
        if found != expected {
            let at = found.iter().zip(&expected).position(|(a, b)| a != b);
            let at = at.unwrap_or(found.len().min(expected.len()));
            let around = |ids: &[u32]| {
                let ids = &ids[at.saturating_sub(5)..ids.len().min(at + 5)];
                let token = |id: &u32| tokenizer.id_to_token(*id);
                ids.iter().filter_map(token).collect::<Vec<_>>()
            };
            let (ours, theirs) = (around(&found), around(&expected));
            panic!("round {round}: at token {at}: {ours:?}, expected {theirs:?}");
        }
    }
}

const LLAMA3: &str = "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| \
                      ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";

fn byte_level(use_regex: bool, add_prefix_space: bool) -> Value {
    json!({"type": "ByteLevel", "add_prefix_space": add_prefix_space, "trim_offsets": true,
        "use_regex": use_regex})
}

fn regex(pattern: &str) -> Value {
    json!({"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": false})
}

fn sequence(steps: &[Value]) -> Value {
    json!({"type": "Sequence", "pretokenizers": steps})
}

#[test]
fn gpt2_and_ours() {
    let none = || json!([]);
    check(
        &trained(Value::Null, byte_level(true, false), json!({}), none()),
        true,
    );
    check(
        &trained(Value::Null, byte_level(true, true), json!({}), none()),
        false,
    );
    let digits = json!({"type": "Digits", "individual_digits": true});
    let ours = sequence(&[digits, byte_level(true, false)]);
    check(&trained(Value::Null, ours, json!({}), none()), true);
}

#[test]
fn llama3_and_qwen() {
    let steps = sequence(&[regex(LLAMA3), byte_level(false, false)]);
    let ignores = json!({"ignore_merges": true});
    let special = json!([added("<|end|>", true, false)]);
    check(&trained(Value::Null, steps.clone(), ignores, special), true);
    let tokens = json!([added("<tool>", false, false), added("<|end|>", true, false)]);
    let qwen = regex(&LLAMA3.replace("{1,3}", ""));
    let steps = sequence(&[qwen, byte_level(false, false)]);
    check(
        &trained(json!({"type": "NFC"}), steps, json!({}), tokens),
        true,
    );
}

#[test]
fn falcon_and_deepseek() {
    let falcon = sequence(&[
        json!({"type": "Punctuation", "behavior": "Contiguous"}),
        byte_level(true, false),
        json!({"type": "Digits", "individual_digits": false}),
        regex("[0-9][0-9][0-9]"),
    ]);
    check(&trained(Value::Null, falcon, json!({}), json!([])), true);
    let deepseek = sequence(&[
        regex("\\p{N}{1,3}"),
        regex("[一-龥぀-ゟ゠-ヿ]+"),
        regex(
            "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\\r\\n\\p{L}\\p{P}\\p{S}]?\
               [\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
        ),
        byte_level(false, false),
    ]);
    check(&trained(Value::Null, deepseek, json!({}), json!([])), true);
}

#[test]
fn runs_of_spaces_that_are_tokens() {
    let runs = (2..24).map(|n| added(&" ".repeat(n), false, true));
    let tokens: Vec<Value> = runs.chain([added("<|end|>", true, false)]).collect();
    let neox = trained(
        json!({"type": "NFC"}),
        byte_level(true, false),
        json!({}),
        json!(tokens),
    );
    check(&neox, true);
}

#[test]
fn sentencepiece() {
    let writes_spaces = json!({"type": "Sequence", "normalizers": [
        {"type": "Prepend", "prepend": "▁"},
        {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]});
    let falls_back = json!({"byte_fallback": true, "fuse_unk": true, "unk_token": "a"});
    let special = json!([added("<unk>", true, false)]);
    check(
        &trained(
            writes_spaces.clone(),
            Value::Null,
            falls_back.clone(),
            special,
        ),
        true,
    );
    let unknown = json!({"fuse_unk": true, "unk_token": "a"});
    let tool = json!([added("<tool>", false, false)]);
    check(
        &trained(writes_spaces, Value::Null, unknown, tool.clone()),
        true,
    );
    for scheme in ["always", "first", "never"] {
        for split in [true, false] {
            let step = json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme,
                "split": split});
            check(
                &trained(Value::Null, step, falls_back.clone(), tool.clone()),
                true,
            );
        }
    }
}

#[test]
fn others_are_left_to_the_library() {
    let words = json!({"type": "Whitespace"});
    let lower = json!({"type": "Lowercase"});
    check(
        &trained(
            lower,
            words,
            json!({}),
            json!([added("<tool>", false, true)]),
        ),
        false,
    );
    let strips = json!({"content": "<tool>", "special": false, "normalized": false,
        "single_word": false, "lstrip": true, "rstrip": false});
    check(
        &trained(
            Value::Null,
            byte_level(true, false),
            json!({}),
            json!([strips]),
        ),
        false,
    );
    let suffix = json!({"end_of_word_suffix": "</w>"});
    check(
        &trained(Value::Null, byte_level(true, false), suffix, json!([])),
        false,
    );
    let bert = json!({"version": "1.0", "added_tokens": [], "post_processor": null,
        "truncation": null, "padding": null, "decoder": null,
        "normalizer": {"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true,
            "strip_accents": null, "lowercase": true},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "model": {"type": "WordPiece", "unk_token": "?", "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100,
            "vocab": {"?": 0, "the": 1, "a": 2, "##a": 3, "##b": 4, "tern": 5, "mia": 6, "1": 7}}});
    check(&bert.to_string().parse().unwrap(), false);
}

#[test]
fn long_words_in_little_time() {
    let tokenizer = trained(Value::Null, byte_level(true, false), json!({}), json!([]));
    let encoder = Encoder::new(tokenizer.to_string(false).unwrap().as_bytes());
    let mut random = Random(5);
    let dna: String = (0..300_000)
        .map(|_| *random.of(&['A', 'C', 'G', 'T']))
        .collect();
    for text in [
        "a".repeat(300_000),
        "ab".repeat(150_001),
        dna,
        "中文鳥".repeat(60_000),
    ] {
        let mut pieces = Vec::new();
        let mut stream = Stream::new(&encoder, &tokenizer);
        stream.push(&text, &mut pieces).unwrap();
        stream.finish(&mut pieces);
        assert!(pieces.len() > 1 && matches!(pieces[0], Piece::Ids(..)));
        let found = encoder.encode_all(&tokenizer, &pieces).unwrap().concat();
        assert!(found == by_library(&tokenizer, &text).unwrap());
    }
}

#[test]
fn of_a_long_text_of_a_template_the_beginning_is_encoded() {
    let tokenizer = trained(Value::Null, byte_level(true, false), json!({}), json!([]));
    let encoder = TemplateEncoder::new(tokenizer.clone(), None);
    let text = |words: usize| Rendered {
        text: "the sea ".repeat(words),
        ..Rendered::default()
    };
    let found = encoder.encode(vec![text(1_000_000), text(10)], 50).unwrap();
    assert!(found[0].len() > 50 && found[0].len() < 100_000);
    let ids: Vec<u32> = found[1].iter().copied().map(crate::rows::id).collect();
    assert_eq!(ids, by_library(&tokenizer, &text(10).text).unwrap());
}
