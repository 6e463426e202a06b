//! Tokens that only other files than tokenizer.json name, against transformers: for each set of
//! files in the fixture, the added tokens and the ids of some texts that `AutoTokenizer` of
//! transformers 5.24 gives. The two tokenizers in it were written for this test.

use std::collections::BTreeMap;

use serde_json::Value;
use sterna_ternary::tokenizer_files::{beyond, complete};
use tokenizers::Tokenizer;

const EXPECTED: &str = include_str!("fixtures/tokenizer_files.json");

/// The files that mean the same without added_tokens.json and special_tokens_map.json.
fn alone(tokenizer: &Value, files: &Value) -> (Value, Value) {
    let given = |name: &str| match name {
        "tokenizer.json" => Some(tokenizer.to_string()),
        name => files.get(name).map(Value::to_string),
    };
    let names = ["tokenizer.json", "tokenizer_config.json", "config.json"];
    let names = names
        .into_iter()
        .chain(["added_tokens.json", "special_tokens_map.json"]);
    let texts: BTreeMap<_, _> = names.filter_map(|n| Some((n, given(n)?))).collect();
    let completed = complete(|name| texts.get(name).map(String::as_bytes)).unwrap();
    let mut left = files.clone();
    for name in ["added_tokens.json", "special_tokens_map.json"] {
        left.as_object_mut().unwrap().remove(name);
    }
    let Some(completed) = completed else {
        return (tokenizer.clone(), left);
    };
    if let Some(settings) = completed.settings {
        left["tokenizer_config.json"] = serde_json::from_slice(&settings).unwrap();
    }
    (serde_json::from_slice(&completed.json).unwrap(), left)
}

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
        let (again, files) = alone(&expected["tokenizers"][kind], &case["files"]);
        let (same, more) = completed(&again, &files);
        assert_eq!(more.len(), 0, "{name}: {more:?}");
        let same: Value = serde_json::from_slice(&same).unwrap();
        assert_eq!(same, again, "{name}");
        changed += usize::from(!changes.is_empty());
    }
    assert!(changed > 30, "{changed}");
}

#[test]
fn files_that_disagree_mean_the_same_when_written_and_read_again() {
    let expected: Value = serde_json::from_str(EXPECTED).unwrap();
    let bytes = &expected["tokenizers"]["spm"];
    let check = |files: Value| {
        let (once, left) = alone(bytes, &files);
        assert!(left.get("special_tokens_map.json").is_none());
        let (twice, more) = completed(&once, &left);
        assert_eq!(more.len(), 0, "{files}: {more:?}");
        assert_eq!(serde_json::from_slice::<Value>(&twice).unwrap(), once);
        (once, left["tokenizer_config.json"].clone())
    };
    let token = |content: &str, lstrip: bool| {
        serde_json::json!({"content": content, "lstrip": lstrip, "rstrip": false,
            "normalized": false, "single_word": false, "special": true})
    };
    let names = |tokenizer: &Value| {
        let added = tokenizer["added_tokens"].as_array().unwrap().iter();
        let names = added.map(|token| token["content"].as_str().unwrap().to_owned());
        names.collect::<Vec<_>>()
    };

    // Of a token listed twice, the later place counts.
    let (once, _) = check(serde_json::json!({"tokenizer_config.json": {
        "added_tokens_decoder": {"5": token("<x>", false), "276": token("<x>", true)},
    }}));
    let added = once["added_tokens"].as_array().unwrap();
    let x = added
        .iter()
        .find(|token| token["content"] == "<x>")
        .unwrap();
    assert_eq!(x["lstrip"], true);

    // special_tokens_map.json has another end and another list.
    for class in [None, Some("LlamaTokenizer"), Some("Qwen2Tokenizer")] {
        let mut settings = serde_json::json!({"eos_token": "<a>", "extra_special_tokens": {
            "image_token": "<image>"}, "additional_special_tokens": ["<b>", "<c>"]});
        if let Some(class) = class {
            settings["tokenizer_class"] = class.into();
        }
        let map = serde_json::json!({"eos_token": token("<d>", true),
            "additional_special_tokens": ["<c>"]});
        let files = serde_json::json!({"tokenizer_config.json": settings,
            "special_tokens_map.json": map});
        let (once, settings) = check(files.clone());
        let names = names(&once);
        for (name, is_token) in [("<a>", false), ("<b>", false), ("<c>", true), ("<d>", true)] {
            assert_eq!(
                names.iter().any(|n| n == name),
                is_token,
                "{class:?}: {name}"
            );
        }
        assert_eq!(settings["eos_token"]["content"], "<d>");
        assert_eq!(settings["eos_token"]["__type"], "AddedToken");
        let (_, changes) = completed(bytes, &files);
        let told = "special_tokens_map.json overrides tokenizer_config.json";
        assert!(changes.iter().any(|c| c.contains(told)), "{changes:?}");
    }
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
