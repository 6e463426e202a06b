//! Tokens that only other files than tokenizer.json name, against transformers: for each set of
//! files in the fixture, the added tokens and the ids of some texts that `AutoTokenizer` of
//! transformers 5.24 gives. The two tokenizers in it were written for this test.

use std::collections::BTreeMap;

use serde_json::Value;
use sterna_ternary::tokenizer_files::{beyond, complete};
use tokenizers::Tokenizer;

const EXPECTED: &str = include_str!("fixtures/tokenizer_files.json");

/// tokenizer.json as the runtime sees it.
fn completed(tokenizer: &Value, files: &Value) -> (Vec<u8>, Vec<String>) {
    let mut bytes: BTreeMap<&str, Vec<u8>> = BTreeMap::new();
    for (name, file) in files.as_object().unwrap() {
        bytes.insert(name, file.to_string().into_bytes());
    }
    bytes.insert("tokenizer.json", tokenizer.to_string().into_bytes());
    let completed = complete(|name| bytes.get(name).map(Vec::as_slice)).unwrap();
    let unchanged = || (bytes["tokenizer.json"].clone(), Vec::new());
    completed.map_or_else(unchanged, |completed| (completed.json, completed.changes))
}

#[test]
fn tokens_and_ids_are_those_of_transformers() {
    let expected: Value = serde_json::from_str(EXPECTED).unwrap();
    let mut changed = 0;
    for case in expected["cases"].as_array().unwrap() {
        let name = &case["name"];
        let kind = case["tokenizer"].as_str().unwrap();
        let (json, changes) = completed(&expected["tokenizers"][kind], &case["files"]);
        let tokenizer = Tokenizer::from_bytes(&json).unwrap();
        let decoder = tokenizer.get_added_tokens_decoder();
        let sorted: BTreeMap<_, _> = decoder.into_iter().collect();
        let added = sorted.iter().map(|(id, t)| {
            serde_json::json!([id, t.content, t.special, t.normalized, t.lstrip, t.rstrip])
        });
        let added: Value = added.collect();
        assert_eq!(added, case["added"], "{name}");
        let texts = expected["texts"].as_array().unwrap();
        for (text, ids) in texts.iter().zip(case["ids"].as_array().unwrap()) {
            let text = text.as_str().unwrap();
            let found = tokenizer.encode(text, false).unwrap();
            assert_eq!(Value::from(found.get_ids()), *ids, "{name}: {text:?}");
        }
        // Completing twice changes nothing.
        let again: Value = serde_json::from_slice(&json).unwrap();
        let (_, more) = completed(&again, &case["files"]);
        assert_eq!(more.len(), 0, "{name}: {more:?}");
        changed += usize::from(!changes.is_empty());
    }
    assert!(changed > 30, "{changed}");
}

#[test]
fn changes_are_told_and_files_that_are_not_understood_are_named() {
    let expected: Value = serde_json::from_str(EXPECTED).unwrap();
    let tokenizer = &expected["tokenizers"]["spm"];
    let check = |files: &str, parts: &[&str]| {
        let (_, changes) = completed(tokenizer, &serde_json::from_str(files).unwrap());
        let all = changes.join("\n");
        assert!(parts.iter().all(|part| all.contains(part)), "{all}");
    };
    check(
        r#"{"tokenizer_config.json": {"pad_token": "<pad>"}}"#,
        &["were added to it", "<pad> (276)"],
    );
    check(
        r#"{"added_tokens.json": {"<q>": 900}}"#,
        &["other ids", "<q> (276, not 900)"],
    );
    check(
        r#"{"tokenizer_config.json": {"tokenizer_class": "LlamaTokenizer",
            "add_prefix_space": false}}"#,
        &["a space is put before no text", "LlamaTokenizer"],
    );
    let refused = |name: &str, file: &str, parts: &[&str]| {
        let tokenizer = tokenizer.to_string();
        let complete = complete(|wanted| match wanted {
            "tokenizer.json" => Some(tokenizer.as_bytes()),
            wanted => (wanted == name).then_some(file.as_bytes()),
        });
        let message = complete.unwrap_err().to_string();
        let all = parts.iter().all(|part| message.contains(part));
        assert!(all && message.contains(name), "{message}");
    };
    refused("added_tokens.json", "{", &["not JSON"]);
    refused("added_tokens.json", r#"{"<q>": "x"}"#, &["<q>", "an id"]);
    refused(
        "tokenizer_config.json",
        r#"{"added_tokens_decoder": {"x": "y"}}"#,
        &["added_tokens_decoder"],
    );
    refused(
        "tokenizer_config.json",
        r#"{"extra_special_tokens": 3}"#,
        &["extra_special_tokens"],
    );
}

#[test]
fn tokens_beyond_the_embedding_are_found() {
    let expected: Value = serde_json::from_str(EXPECTED).unwrap();
    let files = serde_json::json!({"tokenizer_config.json": {"pad_token": "<pad>"}});
    let (json, _) = completed(&expected["tokenizers"]["spm"], &files);
    let all = beyond(&json, 277).unwrap();
    assert!(all.added.is_empty() && all.vocabulary.is_none());
    let pad = beyond(&json, 276).unwrap();
    assert_eq!(pad.added, [("<pad>".to_owned(), 276)]);
    assert!(pad.vocabulary.is_none());
    assert_eq!(
        beyond(&json, 270).unwrap().vocabulary,
        Some(("▁abc".to_owned(), 275))
    );
}
