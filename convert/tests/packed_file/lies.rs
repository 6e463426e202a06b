//! Ways in which a packed file can lie. Its checksums are correct, unless they are
//! the lie: an attacker can compute them.

use serde_json::{Value, json};

use super::File;

const Q: &str = "model.layers.0.self_attn.q_proj.weight";
const SCALE: &str = "model.layers.0.self_attn.q_proj.weight_scale";
const NORM: &str = "model.norm.weight";
const EMBEDDING: &str = "model.embed_tokens.weight";

/// Name of the lie, the change to a good file, and the required parts of the error.
pub type Lie = (&'static str, fn(&mut File), &'static [&'static str]);

/// Files that are not recognized as packed ones at all.
const OTHER: &[&str] = &["model.sterna", "another kind"];

fn whole(file: &mut File, bytes: &[u8]) {
    file.whole = Some(bytes.to_vec());
}

fn raw(file: &mut File, text: &str) {
    file.raw = Some(text.as_bytes().to_vec());
}

fn set(file: &mut File, name: &str, field: &str, value: Value) {
    file.entry(name)[field] = value;
}

/// A header with the right metadata, followed by this text.
fn behind(file: &mut File, text: &str) {
    let metadata = &file.header["__metadata__"];
    raw(file, &format!("{{\"__metadata__\":{metadata},{text}}}"));
}

pub const LIES: &[Lie] = &[
    ("empty", |f| whole(f, b""), OTHER),
    ("seven bytes", |f| whole(f, &[0; 7]), OTHER),
    ("eight zeros", |f| whole(f, &[0; 8]), OTHER),
    (
        "a web page",
        |f| whole(f, b"<!doctype html><html></html>"),
        OTHER,
    ),
    (
        "a pickle",
        |f| whole(f, b"PK\x03\x04\0\0\0\0\0\0\0\0"),
        OTHER,
    ),
    ("length 0", |f| f.length = Some(0), OTHER),
    ("length 2", |f| f.length = Some(2), OTHER),
    ("length 2^64 - 1", |f| f.length = Some(u64::MAX), OTHER),
    ("length 2^64 - 8", |f| f.length = Some(u64::MAX - 7), OTHER),
    ("length 2^63", |f| f.length = Some(1 << 63), OTHER),
    ("length 4 GiB", |f| f.length = Some(1 << 32), OTHER),
    (
        "length 100 000 001",
        |f| f.length = Some(100_000_001),
        OTHER,
    ),
    ("length of a part", |f| f.length = Some(100), OTHER),
    (
        "length of the file",
        |f| f.length = Some(f.bytes().len() as u64 - 8),
        OTHER,
    ),
    ("header is an array", |f| raw(f, "[]"), OTHER),
    ("header is a number", |f| raw(f, "12"), OTHER),
    ("header is null", |f| raw(f, "null"), OTHER),
    ("header of spaces", |f| raw(f, ""), OTHER),
    (
        "header is no UTF-8",
        |f| f.raw = Some(b"{\"\xff\": 1}".to_vec()),
        OTHER,
    ),
    (
        "header of nothing",
        |f| raw(f, "{}"),
        &["another kind", "format"],
    ),
    ("header 10 000 deep", |f| raw(f, &"[".repeat(10_000)), OTHER),
    (
        "a million values",
        |f| raw(f, &format!("{{\"a\":[{}0]}}", "0,".repeat(1_000_000))),
        &["values"],
    ),
    (
        "a shape of 90 000 ones",
        |f| {
            let shape = "1,".repeat(90_000);
            behind(
                f,
                &format!("\"a\":{{\"dtype\":\"U8\",\"shape\":[{shape}1],\"data_offsets\":[0,0]}}"),
            );
        },
        &["config.json", "nothing"],
    ),
    (
        "ten thousand tensors",
        |f| {
            for i in 0..10_000 {
                f.push(&format!("x{i}"), "U8", json!([0]), &[]);
            }
            f.config("num_hidden_layers", json!(10_000));
        },
        &["model.layers.9999", "tensors"],
    ),
    (
        "a model in ten thousand tensors",
        |f| {
            for i in 0..10_000 {
                f.push(&format!("x{i}"), "U8", json!([0]), &[]);
            }
            f.config("num_hidden_layers", json!(620));
        },
        &["model.sterna"],
    ),
    (
        "metadata is a text",
        |f| drop(f.header.insert("__metadata__".into(), json!("sterna"))),
        OTHER,
    ),
    (
        "metadata of numbers",
        |f| f.metadata("version", json!(2)),
        OTHER,
    ),
    (
        "no metadata",
        |f| drop(f.header.remove("__metadata__")),
        &["another kind", "format"],
    ),
    (
        "another format",
        |f| f.metadata("format", json!("pt")),
        &["another kind", "format"],
    ),
    (
        "version 1",
        |f| f.metadata("version", json!("1")),
        &["version 1", "reads 2"],
    ),
    (
        "version 6",
        |f| f.metadata("version", json!("6")),
        &["version 6", "update"],
    ),
    (
        "version 4 with trits",
        |f| f.metadata("version", json!("4")),
        &["another kind", "packing i2"],
    ),
    (
        "version 3 without what it says",
        |f| f.metadata("version", json!("3")),
        &["activations"],
    ),
    (
        "no version",
        |f| f.metadata("version", json!("")),
        &["version"],
    ),
    (
        "a version of 100 000 letters",
        |f| f.metadata("version", json!("2".repeat(100_000))),
        &["version 222"],
    ),
    (
        "a version that steers",
        |f| f.metadata("version", json!("\u{1b}[2J")),
        &["version"],
    ),
    (
        "unknown packing",
        |f| f.metadata("packing", json!("i3")),
        &["packing i3"],
    ),
    (
        "a packing of 100 000 letters",
        |f| f.metadata("packing", json!("i".repeat(100_000))),
        &["packing iii"],
    ),
    (
        "the other packing",
        |f| f.metadata("packing", json!("t5")),
        &["model.sterna"],
    ),
    (
        "unknown head",
        |f| f.metadata("head", json!("f64")),
        &["head type f64"],
    ),
    (
        "unknown embedding",
        |f| f.metadata("embedding", json!("")),
        &["embedding type"],
    ),
    (
        "head and embedding differ in a tied model",
        |f| f.metadata("embedding", json!("f32")),
        &["embedding type", "tied"],
    ),
    (
        "a head of codes that are numbers",
        |f| {
            for key in ["head", "embedding"] {
                f.metadata(key, json!("q8"));
            }
        },
        &[EMBEDDING],
    ),
    (
        "checksum of the header",
        |f| {
            f.seals = false;
            f.metadata("header_sha256", json!("0".repeat(64)));
        },
        &["header is damaged"],
    ),
    (
        "no checksum of the header",
        |f| {
            f.seals = false;
            f.metadata("header_sha256", json!(""));
        },
        &["header is damaged"],
    ),
    (
        "a short checksum",
        |f| {
            f.seals = false;
            f.metadata("header_sha256", json!("0"));
        },
        &["header is damaged"],
    ),
    (
        "a checksum of 100 000 letters",
        |f| {
            f.seals = false;
            f.metadata("header_sha256", json!("e".repeat(100_000)));
        },
        &["header is damaged"],
    ),
    ("entry is null", |f| *f.entry(Q) = Value::Null, OTHER),
    ("entry is a list", |f| *f.entry(Q) = json!([]), OTHER),
    (
        "no dtype",
        |f| drop(f.entry(Q).as_object_mut().unwrap().remove("dtype")),
        &["dtype"],
    ),
    (
        "no shape",
        |f| drop(f.entry(Q).as_object_mut().unwrap().remove("shape")),
        &["shape"],
    ),
    (
        "no offsets",
        |f| drop(f.entry(Q).as_object_mut().unwrap().remove("data_offsets")),
        &["data_offsets"],
    ),
    (
        "unknown dtype",
        |f| set(f, Q, "dtype", json!("F64")),
        &[Q, "malformed"],
    ),
    (
        "another dtype",
        |f| set(f, Q, "dtype", json!("F32")),
        &[Q, "U8", "F32"],
    ),
    (
        "a name of 100 000 letters",
        |f| f.push(&"n".repeat(100_000), "F64", json!([0]), &[]),
        &["nnn", "malformed"],
    ),
    (
        "a name that steers",
        |f| f.push("\u{1b}[2J", "U8", json!([0]), &[]),
        &["no such tensor"],
    ),
    (
        "dimension below zero",
        |f| set(f, Q, "shape", json!([-1, 16])),
        OTHER,
    ),
    (
        "dimension of a half",
        |f| set(f, Q, "shape", json!([0.5, 16])),
        OTHER,
    ),
    (
        "dimension 2^64 - 1",
        |f| set(f, Q, "shape", json!([u64::MAX, 16])),
        &[Q, "18446744073709551615"],
    ),
    (
        "product 2^64",
        |f| set(f, Q, "shape", json!([1u64 << 32, 1u64 << 32])),
        &[Q],
    ),
    ("turned over", |f| set(f, Q, "shape", json!([16, 4])), &[Q]),
    ("no dimensions", |f| set(f, Q, "shape", json!([])), &[Q]),
    (
        "a thousand dimensions",
        |f| set(f, Q, "shape", json!(vec![1; 1000])),
        &[Q, "..."],
    ),
    (
        "one offset",
        |f| set(f, Q, "data_offsets", json!([0])),
        OTHER,
    ),
    (
        "three offsets",
        |f| set(f, Q, "data_offsets", json!([0, 1, 2])),
        OTHER,
    ),
    (
        "offsets turned over",
        |f| set(f, Q, "data_offsets", json!([128, 64])),
        &[Q],
    ),
    (
        "offset below zero",
        |f| set(f, Q, "data_offsets", json!([-64, 0])),
        OTHER,
    ),
    (
        "offset 2^64 - 1",
        |f| set(f, Q, "data_offsets", json!([128, u64::MAX])),
        &[Q],
    ),
    (
        "the bytes of another",
        |f| set(f, Q, "data_offsets", json!([0, 64])),
        &[Q],
    ),
    (
        "config of 2^63 bytes",
        |f| set(f, "config.json", "data_offsets", json!([0, 1u64 << 63])),
        &["config.json"],
    ),
    (
        "config at 2^64 - 1",
        |f| {
            set(
                f,
                "config.json",
                "data_offsets",
                json!([u64::MAX, u64::MAX]),
            )
        },
        &["config.json"],
    ),
    (
        "config turned over",
        |f| set(f, "config.json", "data_offsets", json!([100, 0])),
        &["config.json"],
    ),
    (
        "tokenizer of 2^63 bytes",
        |f| set(f, "tokenizer.json", "data_offsets", json!([0, 1u64 << 63])),
        &["tokenizer"],
    ),
    (
        "tokenizer turned over",
        |f| set(f, "tokenizer.json", "data_offsets", json!([1, 0])),
        &["tokenizer"],
    ),
    (
        "tokenizer of 2^60 bytes",
        |f| set(f, "tokenizer.json", "data_offsets", json!([0, 1u64 << 60])),
        &["tokenizer"],
    ),
    (
        "no config",
        |f| drop(f.header.remove("config.json")),
        &["config.json", "nothing"],
    ),
    (
        "a tensor less",
        |f| drop(f.header.remove(Q)),
        &[Q, "nothing"],
    ),
    (
        "a scale less",
        |f| drop(f.header.remove(SCALE)),
        &[SCALE, "nothing"],
    ),
    (
        "a tensor more",
        |f| f.push("more", "U8", json!([1]), &[0]),
        &["more", "no such tensor"],
    ),
    (
        "a byte less",
        |f| f.data.truncate(f.data.len() - 1),
        &["bytes, the header describes"],
    ),
    (
        "a byte more",
        |f| f.data.push(0),
        &["bytes, the header describes"],
    ),
    ("no data", |f| f.data.clear(), &["config.json"]),
    ("data aside", |f| f.alignment = 65, &["aligned"]),
    (
        "two scales",
        |f| set(f, SCALE, "shape", json!([2])),
        &[SCALE],
    ),
    (
        "a scale a row without room",
        |f| set(f, SCALE, "shape", json!([4])),
        &[SCALE],
    ),
    (
        "a scale a group without room",
        |f| set(f, SCALE, "shape", json!([1, 4])),
        &[SCALE],
    ),
    (
        "a scale of zero",
        |f| f.number(SCALE, 0, 0.0),
        &[SCALE, "0"],
    ),
    (
        "a scale below zero",
        |f| f.number(SCALE, 0, -1.0),
        &[SCALE, "-1"],
    ),
    (
        "a scale of NaN",
        |f| f.number(SCALE, 0, f32::NAN),
        &[SCALE, "NaN"],
    ),
    (
        "an infinite scale",
        |f| f.number(SCALE, 0, f32::INFINITY),
        &[SCALE, "inf"],
    ),
    (
        "a norm of NaN",
        |f| f.number(NORM, 3, f32::NAN),
        &[NORM, "value 3", "NaN"],
    ),
    (
        "an embedding of NaN",
        |f| f.number(EMBEDDING, 2, f32::NAN),
        &[EMBEDDING, "NaN"],
    ),
    (
        "code 3",
        |f| f.bytes_of(Q)[0] = 0xff,
        &[Q, "invalid code of trits"],
    ),
    (
        "nonzero padding",
        |f| f.bytes_of(Q)[15] = 0xaa,
        &[Q, "padding"],
    ),
    (
        "config is no JSON",
        |f| f.raw_config(b"{"),
        &["config.json"],
    ),
    ("config is a list", |f| f.raw_config(b"[]"), &["model_type"]),
    (
        "config is no UTF-8",
        |f| f.raw_config(b"{\"\xff\": 1}"),
        &["config.json"],
    ),
    (
        "hidden_size 2^22",
        |f| f.config("hidden_size", json!(1 << 22)),
        &["model.sterna"],
    ),
    (
        "hidden_size 2^64 - 1",
        |f| f.config("hidden_size", json!(u64::MAX)),
        &["model.sterna", "hidden_size"],
    ),
    (
        "vocab_size 2^22",
        |f| f.config("vocab_size", json!(1 << 22)),
        &[EMBEDDING],
    ),
    (
        "intermediate_size 1",
        |f| f.config("intermediate_size", json!(1)),
        &["model.layers.0.mlp"],
    ),
    (
        "10 000 layers",
        |f| f.config("num_hidden_layers", json!(10_000)),
        &["model.layers.9999"],
    ),
    (
        "no layers",
        |f| f.config("num_hidden_layers", json!(0)),
        &["num_hidden_layers"],
    ),
    (
        "2^22 heads",
        |f| f.config("num_attention_heads", json!(1 << 22)),
        &["model.sterna"],
    ),
    (
        "untied",
        |f| f.config("tie_word_embeddings", json!(false)),
        &["lm_head.weight"],
    ),
    (
        "another family",
        |f| f.config("architectures", json!(["MambaForCausalLM"])),
        &["MambaForCausalLM"],
    ),
];
