//! The tokenizer of a synthetic model: a byte-level BPE without merges, which can encode any text.
//! The other ids of the vocabulary have no token and decode to an empty string.

use serde_json::{Map, Value, json};

const SPECIAL: [&str; 2] = ["<|begin_of_text|>", "<|end_of_text|>"];
/// Number of tokens: the special tokens, then the bytes.
pub(super) const SIZE: usize = SPECIAL.len() + 256;

/// tokenizer.json.
pub(super) fn json() -> Value {
    let bytes = (0..=255).map(|byte| visible(byte).to_string());
    let tokens = SPECIAL.map(str::to_owned).into_iter().chain(bytes);
    let vocab: Map<String, Value> = tokens.enumerate().map(|(id, t)| (t, json!(id))).collect();
    let added = SPECIAL.iter().enumerate().map(|(id, content)| {
        json!({
            "id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true,
        })
    });
    json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added.collect::<Vec<_>>(),
        "normalizer": null,
        "pre_tokenizer": byte_level(),
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [
                { "SpecialToken": { "id": SPECIAL[0], "type_id": 0 } },
                { "Sequence": { "id": "A", "type_id": 0 } },
            ],
            "pair": [
                { "Sequence": { "id": "A", "type_id": 0 } },
                { "Sequence": { "id": "B", "type_id": 1 } },
            ],
            "special_tokens": {
                SPECIAL[0]: { "id": SPECIAL[0], "ids": [0], "tokens": [SPECIAL[0]] },
            },
        },
        "decoder": byte_level(),
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false,
            "ignore_merges": false, "vocab": vocab, "merges": [],
        },
    })
}

/// tokenizer_config.json.
pub(super) fn config() -> Value {
    json!({
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": SPECIAL[0],
        "eos_token": SPECIAL[1],
    })
}

/// generation_config.json.
pub(super) fn generation() -> Value {
    json!({ "bos_token_id": 0, "eos_token_id": 1, "do_sample": false })
}

fn byte_level() -> Value {
    json!({
        "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true,
    })
}

/// The character for a byte in byte-level vocabularies (GPT-2's `bytes_to_unicode`): the byte
/// itself if it is visible, or the next character from U+0100 on.
fn visible(byte: u8) -> char {
    let is_visible = |b: u8| matches!(b, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    if is_visible(byte) {
        return char::from(byte);
    }
    let before = (0..byte).filter(|b| !is_visible(*b)).count() as u32;
    char::from_u32(0x100 + before).expect("U+0100 to U+0143 are characters")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_get_the_characters_of_gpt2() {
        for (byte, expected) in [
            (b'a', 'a'),
            (b' ', 'Ġ'),
            (b'\n', 'Ċ'),
            (0, 'Ā'),
            (0xad, 'Ń'),
        ] {
            assert_eq!(visible(byte), expected);
        }
        assert_eq!(json()["model"]["vocab"].as_object().unwrap().len(), SIZE);
    }
}
