//! Lies of `model.safetensors`.

use serde_json::{Value, json};

use super::super::{Folder, SINGLE, floats};
use super::{EMBEDDING, Lie, NORM, NOT_WHOLE, Q, SCALE};

/// Changes a field of the entry of a tensor.
fn set(folder: &mut Folder, name: &str, field: &str, value: Value) {
    folder.entry(name)[field] = value;
}

fn remove(folder: &mut Folder, name: &str) {
    folder.shards[0].header.remove(name);
}

fn whole(folder: &mut Folder, bytes: &[u8]) {
    folder.shards[0].whole = Some(bytes.to_vec());
}

/// Each in a folder of one file.
pub const LIES: &[Lie] = &[
    ("empty", |f| whole(f, b""), &[SINGLE, NOT_WHOLE]),
    ("seven bytes", |f| whole(f, &[1; 7]), &[SINGLE, NOT_WHOLE]),
    (
        "eight bytes",
        |f| whole(f, &[1, 0, 0, 0, 0, 0, 0, 0]),
        &[NOT_WHOLE],
    ),
    (
        "a web page",
        |f| whole(f, b"<!doctype html><html></html>"),
        &[NOT_WHOLE],
    ),
    (
        "a pickle",
        |f| whole(f, b"PK\x03\x04\0\0\0\0\0\0\0\0"),
        &[NOT_WHOLE],
    ),
    ("length 0", |f| f.shards[0].length = Some(0), &[NOT_WHOLE]),
    ("length 1", |f| f.shards[0].length = Some(1), &[NOT_WHOLE]),
    ("length 2", |f| f.shards[0].length = Some(2), &[NOT_WHOLE]),
    (
        "length 2^64 - 1",
        |f| f.shards[0].length = Some(u64::MAX),
        &[NOT_WHOLE],
    ),
    (
        "length 2^63",
        |f| f.shards[0].length = Some(1 << 63),
        &[NOT_WHOLE],
    ),
    (
        "length 2^64 - 8",
        |f| f.shards[0].length = Some(u64::MAX - 7),
        &[NOT_WHOLE],
    ),
    (
        "length 100 000 001",
        |f| f.shards[0].length = Some(100_000_001),
        &[NOT_WHOLE],
    ),
    (
        "length 4 GiB",
        |f| f.shards[0].length = Some(1 << 32),
        &[NOT_WHOLE],
    ),
    (
        "length of a part",
        |f| f.shards[0].length = Some(100),
        &[NOT_WHOLE],
    ),
    (
        "header is no UTF-8",
        |f| f.shards[0].raw = Some(b"{\"\xff\": 1}".to_vec()),
        &[NOT_WHOLE],
    ),
    ("header is no JSON", |f| f.raw("{\"a\": "), &[NOT_WHOLE]),
    ("header is an array", |f| f.raw("[]"), &[NOT_WHOLE]),
    ("header is a number", |f| f.raw("12"), &[NOT_WHOLE]),
    ("header is null", |f| f.raw("null"), &[NOT_WHOLE]),
    ("header is a text", |f| f.raw("\"model\""), &[NOT_WHOLE]),
    ("header of spaces", |f| f.raw(&" ".repeat(64)), &[NOT_WHOLE]),
    ("header and more", |f| f.raw("{} {}"), &[NOT_WHOLE]),
    ("header of no tensors", |f| f.raw("{}"), &[SINGLE]),
    (
        "header 10 000 deep",
        |f| f.raw(&format!("{{\"a\": {}", "[".repeat(10_000))),
        &[NOT_WHOLE],
    ),
    (
        "a million values",
        |f| f.raw(&format!("{{\"a\": [{}0]}}", "0,".repeat(1_000_000))),
        &[NOT_WHOLE, "values"],
    ),
    (
        "a million tensors",
        |f| {
            let entry = "\"a\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]},";
            f.raw(&format!("{{{}\"b\":1}}", entry.repeat(200_000)));
        },
        &[NOT_WHOLE, "values"],
    ),
    (
        "ten thousand tensors",
        |f| {
            for i in 0..10_000 {
                let entry = json!({"dtype": "U8", "shape": [0], "data_offsets": [0, 0]});
                f.shards[0].header.insert(format!("x{i}"), entry);
            }
            f.config["num_hidden_layers"] = json!(10_000);
        },
        &["model.layers.9999", "10018 tensors"],
    ),
    (
        "metadata is a list",
        |f| drop(f.shards[0].header.insert("__metadata__".into(), json!([]))),
        &[NOT_WHOLE],
    ),
    (
        "metadata of numbers",
        |f| {
            drop(
                f.shards[0]
                    .header
                    .insert("__metadata__".into(), json!({"a": 1})),
            )
        },
        &[NOT_WHOLE],
    ),
    ("entry is null", |f| *f.entry(Q) = Value::Null, &[NOT_WHOLE]),
    (
        "entry is a list",
        |f| *f.entry(Q) = json!([1]),
        &[NOT_WHOLE],
    ),
    (
        "no dtype",
        |f| drop(f.entry(Q).as_object_mut().unwrap().remove("dtype")),
        &[NOT_WHOLE, "dtype"],
    ),
    (
        "no shape",
        |f| drop(f.entry(Q).as_object_mut().unwrap().remove("shape")),
        &[NOT_WHOLE, "shape"],
    ),
    (
        "no offsets",
        |f| drop(f.entry(Q).as_object_mut().unwrap().remove("data_offsets")),
        &[NOT_WHOLE, "data_offsets"],
    ),
    (
        "unknown dtype",
        |f| set(f, Q, "dtype", json!("U7")),
        &[NOT_WHOLE, "U7"],
    ),
    (
        "lower-case dtype",
        |f| set(f, Q, "dtype", json!("u8")),
        &[NOT_WHOLE, "u8"],
    ),
    (
        "dtype is a number",
        |f| set(f, Q, "dtype", json!(8)),
        &[NOT_WHOLE],
    ),
    (
        "dtype of 100 000 letters",
        |f| set(f, Q, "dtype", json!("X".repeat(100_000))),
        &[NOT_WHOLE],
    ),
    (
        "dtype that steers",
        |f| set(f, Q, "dtype", json!("\u{1b}[2J")),
        &[NOT_WHOLE],
    ),
    (
        "dimension below zero",
        |f| set(f, Q, "shape", json!([-1, 4])),
        &[NOT_WHOLE],
    ),
    (
        "dimension of a half",
        |f| set(f, Q, "shape", json!([0.5, 4])),
        &[NOT_WHOLE],
    ),
    (
        "dimension is a text",
        |f| set(f, Q, "shape", json!(["1", 4])),
        &[NOT_WHOLE],
    ),
    (
        "dimension 2^64",
        |f| set(f, Q, "shape", json!([18446744073709551616.0, 4])),
        &[NOT_WHOLE],
    ),
    (
        "product 2^64",
        |f| set(f, Q, "shape", json!([1u64 << 32, 1u64 << 32])),
        &[NOT_WHOLE],
    ),
    (
        "product 2^64 + 4",
        |f| set(f, Q, "shape", json!([4, (1u64 << 62) + 1])),
        &[NOT_WHOLE],
    ),
    (
        "product of 2^63 floats",
        |f| set(f, NORM, "shape", json!([1u64 << 63])),
        &[NOT_WHOLE],
    ),
    (
        "product of 2^61 f64",
        |f| set(f, Q, "dtype", json!("F64")),
        &[NOT_WHOLE],
    ),
    (
        "a dimension of zero",
        |f| set(f, Q, "shape", json!([0, 4])),
        &[NOT_WHOLE],
    ),
    (
        "no dimensions",
        |f| set(f, Q, "shape", json!([])),
        &[NOT_WHOLE],
    ),
    (
        "shape is a number",
        |f| set(f, Q, "shape", json!(4)),
        &[NOT_WHOLE],
    ),
    (
        "three dimensions",
        |f| set(f, Q, "shape", json!([1, 1, 4])),
        &[Q, "[1, 4]", "[1, 1, 4]"],
    ),
    (
        "a thousand dimensions",
        |f| set(f, Q, "shape", json!([&[4][..], &[1; 1000]].concat())),
        &[Q, "..."],
    ),
    (
        "turned over",
        |f| set(f, Q, "shape", json!([4, 1])),
        &[Q, "[1, 4]", "[4, 1]"],
    ),
    (
        "one offset",
        |f| set(f, Q, "data_offsets", json!([80])),
        &[NOT_WHOLE],
    ),
    (
        "three offsets",
        |f| set(f, Q, "data_offsets", json!([80, 84, 88])),
        &[NOT_WHOLE],
    ),
    (
        "offsets turned over",
        |f| set(f, Q, "data_offsets", json!([84, 80])),
        &[NOT_WHOLE],
    ),
    (
        "offset below zero",
        |f| set(f, Q, "data_offsets", json!([-4, 0])),
        &[NOT_WHOLE],
    ),
    (
        "offset 2^64 - 1",
        |f| set(f, Q, "data_offsets", json!([80, u64::MAX])),
        &[NOT_WHOLE],
    ),
    (
        "both offsets 2^64 - 1",
        |f| set(f, Q, "data_offsets", json!([u64::MAX, u64::MAX])),
        &[NOT_WHOLE],
    ),
    (
        "a gap",
        |f| set(f, Q, "data_offsets", json!([81, 85])),
        &[NOT_WHOLE],
    ),
    (
        "an overlap",
        |f| set(f, Q, "data_offsets", json!([79, 83])),
        &[NOT_WHOLE],
    ),
    (
        "the bytes of another",
        |f| set(f, Q, "data_offsets", json!([0, 4])),
        &[NOT_WHOLE],
    ),
    ("a byte less", |f| f.shards[0].cut(), &[NOT_WHOLE]),
    ("a byte more", |f| f.shards[0].data.push(0), &[NOT_WHOLE]),
    ("no data", |f| f.shards[0].data.clear(), &[NOT_WHOLE]),
    (
        "a name of 100 000 letters",
        |f| f.shards[0].push(&"n".repeat(100_000), "U8", &[0], &[]),
        &["named", "256"],
    ),
    (
        "a name that steers",
        |f| f.shards[0].push("\u{1b}[2J", "U8", &[0], &[]),
        &["named"],
    ),
    (
        "a name of nothing",
        |f| f.shards[0].push("", "U8", &[0], &[]),
        &["named"],
    ),
    (
        "packed weights of I8",
        |f| set(f, Q, "dtype", json!("I8")),
        &[Q, "U8 [1, 4]", "I8 [1, 4]"],
    ),
    (
        "packed weights of BOOL",
        |f| set(f, Q, "dtype", json!("BOOL")),
        &[Q, "BOOL"],
    ),
    (
        "packed weights of F8",
        |f| set(f, Q, "dtype", json!("F8_E4M3")),
        &[Q, "F8_E4M3"],
    ),
    (
        "packed weights of half a byte",
        |f| {
            set(f, Q, "dtype", json!("F4"));
            set(f, Q, "shape", json!([2, 4]));
        },
        &[Q, "F4"],
    ),
    (
        "a norm of integers",
        |f| set(f, NORM, "dtype", json!("I32")),
        &[NORM, "F32, F16 or BF16", "I32"],
    ),
    (
        "a norm of halves",
        |f| {
            set(f, NORM, "dtype", json!("F16"));
            set(f, NORM, "shape", json!([8]));
        },
        &[NORM, "[4]", "F16 [8]"],
    ),
    (
        "a table of F64",
        |f| {
            set(f, EMBEDDING, "dtype", json!("F64"));
            set(f, EMBEDDING, "shape", json!([5, 2]));
        },
        &[EMBEDDING, "F64"],
    ),
    (
        "a scale of bytes",
        |f| {
            set(f, SCALE, "dtype", json!("U8"));
            set(f, SCALE, "shape", json!([4]));
        },
        &[SCALE, "U8 [4]"],
    ),
    (
        "two scales",
        |f| {
            set(f, SCALE, "dtype", json!("F16"));
            set(f, SCALE, "shape", json!([2]));
        },
        &[SCALE, "F16 [2]"],
    ),
    (
        "a tensor renamed",
        |f| {
            let entry = f.shards[0].header.remove(Q).unwrap();
            f.shards[0].header.insert("q".into(), entry);
        },
        &[Q, "nothing"],
    ),
    (
        "a scale renamed",
        |f| {
            let entry = f.shards[0].header.remove(SCALE).unwrap();
            f.shards[0].header.insert("s".into(), entry);
        },
        &[SCALE, "nothing"],
    ),
    ("a tensor removed", |f| remove(f, Q), &[NOT_WHOLE]),
    (
        "a tensor of another layer",
        |f| f.shards[0].push("model.layers.1.mlp.up_proj.weight", "U8", &[1], &[0]),
        &["layers.1"],
    ),
    (
        "a tensor of another family",
        |f| f.shards[0].push("model.layers.0.self_attn.q_proj.bias", "F32", &[1], &[0; 4]),
        &["bias"],
    ),
    (
        "another head",
        |f| {
            let table = vec![1.0; 20];
            f.shards[0].push("lm_head.weight", "F32", &[5, 4], &floats(&table));
        },
        &["lm_head.weight", "tie_word_embeddings"],
    ),
    (
        "a head of other rows",
        |f| f.shards[0].push("lm_head.weight", "F32", &[4], &[0; 16]),
        &["lm_head.weight"],
    ),
    (
        "code 3",
        |f| f.shards[0].data[80] = 0xff,
        &[Q, "0xff", "byte 0"],
    ),
    (
        "a scale of zero",
        |f| f.number(SCALE, 0, 0.0),
        &[SCALE, "above zero"],
    ),
    (
        "a scale below zero",
        |f| f.number(SCALE, 0, -1.0),
        &[SCALE, "above zero"],
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
        "a scale without a reciprocal",
        |f| {
            f.config["quantization_config"] = json!({"quant_method": "bitnet"});
            f.number(SCALE, 0, 1e-40);
        },
        &[SCALE, "reciprocal"],
    ),
    (
        "a norm of NaN",
        |f| f.number(NORM, 3, f32::NAN),
        &[NORM, "value 3", "NaN"],
    ),
    (
        "an infinite embedding",
        |f| f.number(EMBEDDING, 19, f32::NEG_INFINITY),
        &[EMBEDDING, "value 19"],
    ),
];
