//! A small byte-level tokenizer.

use serde_json::{Value, json};

/// Special tokens 0..3, then the 256 bytes as byte-level BPE spells them, then `th` and `the`.
pub fn tokenizer_json() -> Value {
    let printable = |b: &u32| matches!(b, 33..=126 | 161..=172 | 174..=255);
    let mut others = 256..;
    let spelled = (0..256).map(|b| match printable(&b) {
        true => char::from_u32(b).unwrap(),
        false => char::from_u32(others.next().unwrap()).unwrap(),
    });
    let mut vocab: serde_json::Map<String, Value> = spelled
        .zip(3..)
        .map(|(c, id)| (c.to_string(), json!(id)))
        .collect();
    vocab.insert("th".into(), json!(259));
    vocab.insert("the".into(), json!(260));
    let special = ["<s>", "</s>", "<|eot_id|>"].iter().zip(0..).map(|(content, id)| {
        vocab.insert(content.to_string(), json!(id));
        json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true})
    });
    let added: Vec<Value> = special.collect();
    let byte_level = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true,
        "use_regex": true});
    json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added,
        "normalizer": null, "pre_tokenizer": byte_level, "post_processor": null,
        "decoder": byte_level,
        "model": {"type": "BPE", "dropout": null, "unk_token": null,
            "continuing_subword_prefix": null, "end_of_word_suffix": null, "fuse_unk": false,
            "byte_fallback": false, "vocab": vocab, "merges": ["t h", "th e"]},
    })
}
