//! Files inside a packed file that lie: tokenizer, its settings, generation settings, chat
//! template. An error or a text, never a panic, and never for long.

mod random_model;

use std::path::Path;
use std::time::{Duration, Instant};

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use random_model::{odd, write};
use serde_json::{Value, json};
use sterna_runtime::{ChatTemplate, Message, Model, Options, Tokenizer};
use sterna_ternary::{PackedFile, Packing, TableType};

type Files = Vec<(&'static str, Vec<u8>)>;

/// A tokenizer of a few tokens with every kind of part.
fn tokenizer() -> Value {
    let byte_level = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true});
    json!({
        "version": "1.0", "truncation": null, "padding": null,
        "added_tokens": [{"id": 4, "content": "<s>", "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true}],
        "normalizer": {"type": "Sequence", "normalizers": [{"type": "NFC"},
            {"type": "Replace", "pattern": {"String": "x"}, "content": "ab"}]},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": "\\p{L}+|\\d{1,3}"}, "behavior": "Isolated", "invert": false},
            byte_level]},
        "post_processor": {"type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [4], "tokens": ["<s>"]}}},
        "decoder": byte_level,
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
            "vocab": {"a": 0, "b": 1, "Ġ": 2, "ab": 3}, "merges": [["a", "b"]]},
    })
}

const TEMPLATE: &str = "{% for m in messages %}{{ '<|' + m['role'] + '|>' + m.content | trim }}{% if not loop.last %}\
    {{ eos_token }}{% endif %}{% endfor %}{% set x = namespace(n=0) %}{% if add_generation_prompt \
    %}{{ bos_token ~ messages | length }}{% endif %}";

fn files() -> Files {
    vec![
        ("tokenizer.json", tokenizer().to_string().into_bytes()),
        (
            "tokenizer_config.json",
            br#"{"add_bos_token": true, "bos_token": "<s>", "eos_token": {"content": "b"}}"#
                .to_vec(),
        ),
        (
            "generation_config.json",
            br#"{"eos_token_id": [1, 3]}"#.to_vec(),
        ),
        ("chat_template.jinja", TEMPLATE.as_bytes().to_vec()),
    ]
}

fn packed(folder: &Path, files: Files) -> PackedFile {
    let mut recipe = odd("llama", true, TableType::F16);
    for (key, size) in [
        ("hidden_size", 4),
        ("intermediate_size", 4),
        ("num_hidden_layers", 1),
        ("num_attention_heads", 2),
        ("num_key_value_heads", 1),
        ("head_dim", 2),
        ("vocab_size", 5),
    ] {
        recipe.config[key] = size.into();
    }
    recipe.files = files;
    let (path, _) = write(&recipe, Packing::I2, folder, "model.sterna");
    PackedFile::open(&path).unwrap()
}

/// What a conversation does with the files: whether all of it went well.
fn converse(file: &PackedFile) -> bool {
    let text = Tokenizer::open(file).and_then(|tokenizer| {
        let ids = tokenizer.encode("ab xa <s> 12345 é", true)?;
        tokenizer.decode(&ids)
    });
    let messages = [
        Message::new("user", "Hi"),
        Message::new("assistant", " you "),
    ];
    let turn = ChatTemplate::open(file).and_then(|template| template.render(&messages, true));
    for error in [text.as_ref().err(), turn.as_ref().err()]
        .into_iter()
        .flatten()
    {
        assert!(error.to_string().len() < 3000, "{error}");
    }
    text.is_ok() && turn.is_ok()
}

fn place() -> tempfile::TempDir {
    let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
    folder.unwrap()
}

#[test]
fn mutated_files_never_panic() {
    const ALL: usize = 6_000;
    const LONGEST: Duration = Duration::from_secs(3);
    let folder = place();
    assert!(
        converse(&packed(folder.path(), files())),
        "the files are good"
    );
    let mut random = ChaCha8Rng::seed_from_u64(1);
    let mut below = |n: usize| random.next_u32() as usize % n;
    let mut refused = 0;
    for i in 0..ALL {
        let mut files = files();
        let bytes = &mut files[[0, 0, 1, 2, 3, 3][i % 6]].1;
        for _ in 0..1 + below(3) {
            let at = below(bytes.len());
            let len = (1 + below(12)).min(bytes.len() - at);
            match below(5) {
                0 => bytes[at] ^= 1 << below(8),
                1 => bytes[at..at + len].fill(b"09-[{}]\",:%|.e "[below(15)]),
                2 if bytes.len() > len => drop(bytes.drain(at..at + len)),
                3 => {
                    let part = bytes[at..at + len].to_vec();
                    bytes.splice(at..at, part);
                }
                _ => bytes[at] = below(256) as u8,
            }
        }
        let file = packed(folder.path(), files);
        let start = Instant::now();
        refused += usize::from(!converse(&file));
        if start.elapsed() > LONGEST {
            // Once more, as a machine may pause.
            let start = Instant::now();
            converse(&file);
            assert!(start.elapsed() < LONGEST, "{i}");
        }
    }
    assert!(refused > ALL / 3, "{refused}");
}

#[test]
fn settings_of_many_values_are_refused_before_they_are_made() {
    let folder = place();
    for name in ["tokenizer_config.json", "generation_config.json"] {
        let mut files = files();
        let file = files.iter_mut().find(|f| f.0 == name).unwrap();
        file.1 = format!("{{\"a\": [{}0]}}", "0,".repeat(1_000_000)).into_bytes();
        let error = Tokenizer::open(&packed(folder.path(), files))
            .unwrap_err()
            .to_string();
        assert!(error.contains(name) && error.contains("values"), "{error}");
    }
}

#[cfg(unix)]
#[test]
fn a_device_is_no_model() {
    for path in ["/dev/zero", "/dev/tty", "/dev"] {
        let error = Model::open(path.as_ref(), Options::default())
            .unwrap_err()
            .to_string();
        assert!(error.contains("not a file"), "{error}");
    }
}
