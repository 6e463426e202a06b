//! A small vocabulary, and texts that follow a rule at random.
#![allow(dead_code)] // each test binary uses a part

use serde_json::{Value, json};
use sterna_runtime::{Allowed, Constraint, Tokenizer};
use sterna_ternary::Config;
use sterna_ternary::random::SplitMix64;

/// `<s>`, `</s>` and `<|eot_id|>`, the 256 bytes, then these words, as byte-level BPE spells them.
/// Returns the size of the vocabulary, too.
pub fn tokenizer(words: &[&str]) -> (Tokenizer, usize) {
    tokenizer_with(&["<s>", ENDS[0], ENDS[1]], words)
}

/// Special tokens that end texts.
const ENDS: [&str; 2] = ["</s>", "<|eot_id|>"];

/// tokenizer.json with these special tokens, and the size of the vocabulary.
pub fn tokenizer_json(specials: &[&str], words: &[&str]) -> (Value, usize) {
    let printable = |b: &u32| matches!(b, 33..=126 | 161..=172 | 174..=255);
    let mut others = 256..;
    let spelled: Vec<char> = (0..256)
        .map(|b| match printable(&b) {
            true => char::from_u32(b).unwrap(),
            false => char::from_u32(others.next().unwrap()).unwrap(),
        })
        .collect();
    let word = |text: &str| -> String { text.bytes().map(|b| spelled[b as usize]).collect() };
    let bytes = spelled.iter().map(char::to_string);
    let texts = specials.iter().map(|name| name.to_string()).chain(bytes);
    let texts: Vec<String> = texts.chain(words.iter().map(|text| word(text))).collect();
    let vocab: serde_json::Map<String, Value> = texts
        .iter()
        .zip(0..)
        .map(|(text, id)| (text.clone(), json!(id)))
        .collect();
    let added: Vec<Value> = (0..specials.len())
        .map(|id| {
            json!({"id": id, "content": specials[id], "single_word": false, "lstrip": false,
                "rstrip": false, "normalized": false, "special": true})
        })
        .collect();
    let level = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true,
        "use_regex": true});
    let tokenizer = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added,
        "normalizer": null, "pre_tokenizer": level, "post_processor": null, "decoder": level,
        "model": {"type": "BPE", "dropout": null, "unk_token": null,
            "continuing_subword_prefix": null, "end_of_word_suffix": null, "fuse_unk": false,
            "byte_fallback": false, "vocab": vocab, "merges": []},
    });
    (tokenizer, texts.len())
}

/// The tokenizer with these special tokens.
pub fn tokenizer_with(specials: &[&str], words: &[&str]) -> (Tokenizer, usize) {
    let (tokenizer, vocab_size) = tokenizer_json(specials, words);
    let ends = |id: &usize| ENDS.contains(&specials[*id]);
    let ends: Vec<usize> = (0..specials.len()).filter(ends).collect();
    let config = json!({
        "model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": vocab_size,
        "hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1,
        "num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 64,
        "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "hidden_act": "silu",
        "tie_word_embeddings": true, "eos_token_id": ends,
    });
    let config = Config::from_json(&config).unwrap();
    let bytes = tokenizer.to_string();
    let file = |name: &str| (name == "tokenizer.json").then_some(bytes.as_bytes());
    (Tokenizer::of_files(&config, file).unwrap(), vocab_size)
}

/// Words that JSON texts and regular expressions have in the middle, also parts of characters.
pub const WORDS: [&str; 12] = [
    "{\"", "\":", "\", \"", "true", "ab", "abc", "ba", "\"}", " \n", "12", "é", "aé",
];

pub fn allowed(constraint: &mut dyn Constraint, vocab_size: usize) -> Allowed {
    let mut allowed = Allowed::none(vocab_size);
    constraint.allow(&mut allowed).unwrap();
    allowed
}

/// Follows a constraint with tokens drawn from those it allows. `None` if the text is longer than
/// this number of tokens.
pub fn random_text(
    mut constraint: Box<dyn Constraint>,
    tokenizer: &Tokenizer,
    vocab_size: usize,
    random: &mut SplitMix64,
    most: usize,
) -> Option<String> {
    let mut bytes = Vec::new();
    for _ in 0..most {
        if constraint.is_complete() {
            return Some(String::from_utf8(bytes).unwrap());
        }
        let ids: Vec<u32> = allowed(&mut *constraint, vocab_size).ids().collect();
        // Half of the tokens are of those that end something, so that texts end.
        let ends = |id: &&u32| {
            let bytes = tokenizer.bytes(**id);
            tokenizer.eos().contains(*id) || matches!(bytes, [b'"' | b'}' | b']' | b'0'..=b'9'])
        };
        let ending: Vec<u32> = ids.iter().filter(ends).copied().collect();
        let ids = match ending.is_empty() || random.next().is_multiple_of(2) {
            true => ids,
            false => ending,
        };
        let id = ids[random.next() as usize % ids.len()];
        constraint.accept(id).unwrap();
        if tokenizer.eos().contains(&id) {
            return Some(String::from_utf8(bytes).unwrap());
        }
        assert!(!tokenizer.is_special(id), "token {id} has no text");
        bytes.extend(tokenizer.bytes(id));
    }
    None
}
