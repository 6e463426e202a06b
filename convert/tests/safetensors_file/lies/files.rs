//! Lies of config.json and of the files beside it.

use serde_json::{Value, json};

use super::super::Folder;
use super::{EMBEDDING, Lie};

fn config(folder: &mut Folder, key: &str, value: Value) {
    folder.config[key] = value;
}

fn raw_config(folder: &mut Folder, text: &[u8]) {
    folder.raw_config = Some(text.to_vec());
}

fn file(folder: &mut Folder, name: &str, bytes: &[u8]) {
    let file = folder.files.iter_mut().find(|f| f.0 == name);
    file.unwrap().1 = bytes.to_vec();
}

/// Each in a folder of one file.
pub const LIES: &[Lie] = &[
    (
        "config of nothing",
        |f| raw_config(f, b""),
        &["config.json", "not JSON"],
    ),
    (
        "config cut off",
        |f| raw_config(f, b"{\"hidden_size\": 4"),
        &["config.json", "not JSON"],
    ),
    (
        "config is a list",
        |f| raw_config(f, b"[]"),
        &["config.json", "object"],
    ),
    (
        "config is no UTF-8",
        |f| raw_config(f, b"{\"a\": \"\xff\"}"),
        &["config.json"],
    ),
    (
        "config of zeros",
        |f| raw_config(f, &[0; 4096]),
        &["config.json"],
    ),
    (
        "config of a million values",
        |f| raw_config(f, &b"[0,".repeat(500_000)),
        &["config.json", "values"],
    ),
    (
        "config of brackets",
        |f| raw_config(f, &b"[".repeat(49_000)),
        &["config.json"],
    ),
    (
        "config of lists",
        |f| {
            raw_config(
                f,
                format!("{{\"a\": [{}0]}}", "[0],".repeat(24_000)).as_bytes(),
            )
        },
        &["model_type"],
    ),
    (
        "config of objects",
        |f| {
            raw_config(
                f,
                format!("{{\"a\": [{}0]}}", "{\"\":0},".repeat(24_000)).as_bytes(),
            )
        },
        &["model_type"],
    ),
    (
        "config of keys",
        |f| {
            let keys: String = (0..49_000).map(|i| format!("\"{i}\":0,")).collect();
            raw_config(f, format!("{{{keys}\"a\":0}}").as_bytes());
        },
        &["model_type"],
    ),
    (
        "no model_type",
        |f| config(f, "model_type", Value::Null),
        &["model_type"],
    ),
    (
        "model_type is a number",
        |f| config(f, "model_type", json!(1)),
        &["model_type"],
    ),
    (
        "no architectures",
        |f| config(f, "architectures", json!([])),
        &["architectures"],
    ),
    (
        "an architecture of 100 000 letters",
        |f| config(f, "architectures", json!(["A".repeat(100_000)])),
        &["not supported"],
    ),
    (
        "an architecture that steers",
        |f| config(f, "architectures", json!(["\u{1b}[2J"])),
        &["not supported"],
    ),
    (
        "hidden_size 0",
        |f| config(f, "hidden_size", json!(0)),
        &["hidden_size"],
    ),
    (
        "hidden_size below zero",
        |f| config(f, "hidden_size", json!(-4)),
        &["hidden_size"],
    ),
    (
        "hidden_size 2^64 - 1",
        |f| config(f, "hidden_size", json!(u64::MAX)),
        &["hidden_size"],
    ),
    (
        "hidden_size of a half",
        |f| config(f, "hidden_size", json!(4.5)),
        &["hidden_size"],
    ),
    (
        "hidden_size 2^22",
        |f| config(f, "hidden_size", json!(1 << 22)),
        &[EMBEDDING],
    ),
    (
        "intermediate_size 2^63",
        |f| config(f, "intermediate_size", json!(1u64 << 63)),
        &["intermediate_size"],
    ),
    (
        "hidden_size 2^22",
        |f| config(f, "hidden_size", json!(1 << 22)),
        &[EMBEDDING],
    ),
    (
        "vocab_size is a list",
        |f| config(f, "vocab_size", json!([5])),
        &["vocab_size"],
    ),
    (
        "no layers",
        |f| config(f, "num_hidden_layers", json!(0)),
        &["num_hidden_layers"],
    ),
    (
        "2^32 layers",
        |f| config(f, "num_hidden_layers", json!(1u64 << 32)),
        &["num_hidden_layers"],
    ),
    (
        "4 million layers",
        |f| config(f, "num_hidden_layers", json!(1 << 22)),
        &["num_hidden_layers"],
    ),
    (
        "10 000 layers",
        |f| config(f, "num_hidden_layers", json!(10_000)),
        &["model.layers.9999"],
    ),
    (
        "2 layers",
        |f| config(f, "num_hidden_layers", json!(2)),
        &["model.layers.1"],
    ),
    (
        "no heads",
        |f| config(f, "num_attention_heads", json!(0)),
        &["num_attention_heads"],
    ),
    (
        "2^22 heads",
        |f| config(f, "num_attention_heads", json!(1 << 22)),
        &["num_attention_heads"],
    ),
    (
        "more heads than columns",
        |f| {
            config(f, "num_attention_heads", json!(1 << 20));
            config(f, "head_dim", Value::Null);
        },
        &["head_dim"],
    ),
    (
        "3 heads for keys",
        |f| config(f, "num_key_value_heads", json!(3)),
        &["num_key_value_heads"],
    ),
    (
        "head_dim 0",
        |f| config(f, "head_dim", json!(0)),
        &["head_dim"],
    ),
    (
        "head_dim 3",
        |f| config(f, "head_dim", json!(3)),
        &["head_dim"],
    ),
    (
        "head_dim 2^22",
        |f| config(f, "head_dim", json!(1 << 22)),
        &["head_dim"],
    ),
    (
        "a context of 2^40",
        |f| config(f, "max_position_embeddings", json!(1u64 << 40)),
        &["max_position_embeddings"],
    ),
    (
        "epsilon 0",
        |f| config(f, "rms_norm_eps", json!(0)),
        &["rms_norm_eps"],
    ),
    (
        "epsilon 1e300",
        |f| config(f, "rms_norm_eps", json!(1e300)),
        &["rms_norm_eps"],
    ),
    (
        "epsilon 1e-300",
        |f| config(f, "rms_norm_eps", json!(1e-300)),
        &["rms_norm_eps"],
    ),
    (
        "theta below zero",
        |f| config(f, "rope_theta", json!(-1.0)),
        &["rope_theta"],
    ),
    (
        "theta is a text",
        |f| config(f, "rope_theta", json!("NaN")),
        &["rope_theta"],
    ),
    (
        "scaling of an unknown kind",
        |f| config(f, "rope_scaling", json!({"rope_type": "x".repeat(5000)})),
        &["rope scaling"],
    ),
    (
        "scaling of a list",
        |f| config(f, "rope_scaling", json!({"rope_type": []})),
        &["rope_type"],
    ),
    (
        "scaling by zero",
        |f| {
            config(
                f,
                "rope_scaling",
                json!({"rope_type": "linear", "factor": 0}),
            )
        },
        &["factor"],
    ),
    (
        "tied is a text",
        |f| config(f, "tie_word_embeddings", json!("yes")),
        &["tie_word_embeddings"],
    ),
    (
        "untied",
        |f| config(f, "tie_word_embeddings", json!(false)),
        &["lm_head.weight", "nothing"],
    ),
    (
        "bos below zero",
        |f| config(f, "bos_token_id", json!(-1)),
        &["bos_token_id"],
    ),
    (
        "eos 2^32",
        |f| config(f, "eos_token_id", json!([1u64 << 32])),
        &["eos_token_id"],
    ),
    (
        "eos of 49 000 texts",
        |f| config(f, "eos_token_id", json!(vec!["x"; 49_000])),
        &["eos_token_id"],
    ),
    (
        "another method",
        |f| {
            config(
                f,
                "quantization_config",
                json!({"quant_method": "x".repeat(5000)}),
            )
        },
        &["quant_method"],
    ),
    (
        "other exceptions",
        |f| {
            let list = vec!["model.layers.0"; 10_000];
            config(
                f,
                "quantization_config",
                json!({"quant_method": "bitnet", "modules_to_not_convert": list}),
            );
        },
        &["modules_to_not_convert"],
    ),
    (
        "quantization is a text",
        |f| config(f, "quantization_config", json!("bitnet")),
        &["quant_method"],
    ),
    (
        "tokenizer of nothing",
        |f| file(f, "tokenizer.json", b""),
        &["tokenizer.json", "not JSON"],
    ),
    (
        "tokenizer cut off",
        |f| file(f, "tokenizer.json", b"{\"model\": {"),
        &["tokenizer.json", "not JSON"],
    ),
    (
        "tokenizer is a list",
        |f| file(f, "tokenizer.json", b" []"),
        &["tokenizer.json", "object"],
    ),
    (
        "tokenizer is no UTF-8",
        |f| file(f, "tokenizer.json", b"{\"\xff\": 1}"),
        &["tokenizer.json", "UTF-8"],
    ),
    (
        "tokenizer of 4 MB",
        |f| file(f, "tokenizer.json", &b"[0,".repeat(1_400_000)),
        &["tokenizer.json", "not JSON"],
    ),
    (
        "tokenizer very deep",
        |f| file(f, "tokenizer.json", &b"[".repeat(1_000_000)),
        &["tokenizer.json", "not JSON"],
    ),
    (
        "settings are a text",
        |f| file(f, "tokenizer_config.json", b"\"x\""),
        &["tokenizer_config.json", "object"],
    ),
    (
        "settings cut off",
        |f| file(f, "tokenizer_config.json", b"{\"a"),
        &["tokenizer_config.json", "not JSON"],
    ),
    (
        "generation is a number",
        |f| file(f, "generation_config.json", b"1e999"),
        &["generation_config.json"],
    ),
    (
        "generation and more",
        |f| file(f, "generation_config.json", b"{} x"),
        &["generation_config.json"],
    ),
    (
        "template is no UTF-8",
        |f| file(f, "chat_template.jinja", b"\xc0\xaf"),
        &["chat_template.jinja", "UTF-8"],
    ),
];
