//! Ways in which the files of a folder can lie.

use serde_json::{Value, json};

use super::{Folder, SINGLE, floats};

const Q: &str = "model.layers.0.self_attn.q_proj.weight";
const SCALE: &str = "model.layers.0.self_attn.q_proj.weight_scale";
const NORM: &str = "model.norm.weight";
const EMBEDDING: &str = "model.embed_tokens.weight";

/// What is done to a good folder, and what the error must say.
pub type Lie = (&'static str, fn(&mut Folder), &'static [&'static str]);

const NOT_WHOLE: &str = "not a whole safetensors file";

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

/// Lies of `model.safetensors`.
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

/// Lies of `model.safetensors.index.json`, in a folder of two shards.
pub const INDEX_LIES: &[Lie] = &[
    ("empty", |f| f.index = Some(Vec::new()), &["index.json"]),
    (
        "no JSON",
        |f| f.index = Some(b"{\"weight_map\": ".to_vec()),
        &["index.json"],
    ),
    (
        "no UTF-8",
        |f| f.index = Some(b"{\"weight_map\": {\"\xff\": \"one.safetensors\"}}".to_vec()),
        &["index.json"],
    ),
    ("a list", |f| f.set_index(json!([])), &["index.json"]),
    (
        "no map",
        |f| f.set_index(json!({"metadata": {}})),
        &["weight_map"],
    ),
    (
        "an empty map",
        |f| f.set_index(json!({"weight_map": {}})),
        &["weight_map", "empty"],
    ),
    (
        "a map of lists",
        |f| f.set_index(json!({"weight_map": {"a": ["one.safetensors"]}})),
        &["index.json"],
    ),
    (
        "a map that is a list",
        |f| f.set_index(json!({"weight_map": ["one.safetensors"]})),
        &["index.json"],
    ),
    (
        "deep",
        |f| f.index = Some(vec![b'['; 100_000]),
        &["index.json"],
    ),
    (
        "a million values",
        |f| f.index = Some(b"[0,".repeat(500_000)),
        &["index.json", "values"],
    ),
    (
        "a parent",
        |f| f.index(|m| m[NORM] = json!("../one.safetensors")),
        &["../one.safetensors", "in this folder"],
    ),
    (
        "far away",
        |f| f.index(|m| m[NORM] = json!("../../../../etc/passwd")),
        &["in this folder"],
    ),
    (
        "from the root",
        |f| f.index(|m| m[NORM] = json!("/etc/passwd")),
        &["/etc/passwd", "in this folder"],
    ),
    (
        "a drive",
        |f| f.index(|m| m[NORM] = json!("C:\\one.safetensors")),
        &["in this folder"],
    ),
    (
        "a drive alone",
        |f| f.index(|m| m[NORM] = json!("C:one.safetensors")),
        &["in this folder"],
    ),
    (
        "a share",
        |f| f.index(|m| m[NORM] = json!("\\\\host\\one.safetensors")),
        &["in this folder"],
    ),
    (
        "a backslash",
        |f| f.index(|m| m[NORM] = json!("..\\one.safetensors")),
        &["in this folder"],
    ),
    (
        "a folder",
        |f| f.index(|m| m[NORM] = json!("sub/one.safetensors")),
        &["in this folder"],
    ),
    (
        "a dot in front",
        |f| f.index(|m| m[NORM] = json!("./one.safetensors")),
        &["in this folder"],
    ),
    (
        "this folder",
        |f| f.index(|m| m[NORM] = json!(".")),
        &["in this folder"],
    ),
    (
        "the parent",
        |f| f.index(|m| m[NORM] = json!("..")),
        &["in this folder"],
    ),
    (
        "no name",
        |f| f.index(|m| m[NORM] = json!("")),
        &["in this folder"],
    ),
    (
        "NUL",
        |f| f.index(|m| m[NORM] = json!("one.safetensors\0")),
        &["in this folder"],
    ),
    (
        "a name that steers",
        |f| f.index(|m| m[NORM] = json!("\u{1b}[2J")),
        &["in this folder"],
    ),
    (
        "a long name",
        |f| f.index(|m| m[NORM] = json!("x".repeat(256))),
        &["in this folder"],
    ),
    (
        "a very long name",
        |f| f.index(|m| m[NORM] = json!("x".repeat(1 << 20))),
        &["in this folder"],
    ),
    (
        "a file that is not there",
        |f| f.index(|m| m[NORM] = json!("three.safetensors")),
        &["three.safetensors"],
    ),
    (
        "a file of another kind",
        |f| f.index(|m| m[NORM] = json!("config.json")),
        &["config.json", NOT_WHOLE],
    ),
    (
        "the other shard",
        |f| {
            f.index(|m| {
                let other = if m[NORM] == "one.safetensors" {
                    "two"
                } else {
                    "one"
                };
                m[NORM] = json!(format!("{other}.safetensors"));
            });
        },
        &[NORM],
    ),
    (
        "a tensor less",
        |f| f.index(|m| drop(m.remove(NORM))),
        &[NORM, "not listed"],
    ),
    (
        "a tensor more",
        |f| f.index(|m| drop(m.insert("x".into(), json!("one.safetensors")))),
        &["x should lie in"],
    ),
    (
        "a long tensor",
        |f| f.index(|m| drop(m.insert("x".repeat(100_000), json!("one.safetensors")))),
        &["should lie in"],
    ),
    (
        "many tensors in a shard",
        |f| {
            for i in 0..10_000 {
                f.shards[0].push(&format!("x{i}"), "U8", &[0], &[]);
            }
            f.index(|m| m.extend((0..10_000).map(|i| (format!("x{i}"), json!("one.safetensors")))));
        },
        &["tensor x"],
    ),
    (
        "a tensor in both",
        |f| f.shards[1].push(EMBEDDING, "U8", &[0], &[]),
        &[EMBEDDING, "not listed"],
    ),
    (
        "a shard cut off",
        |f| f.shards[1].cut(),
        &["two.safetensors", NOT_WHOLE],
    ),
];

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

/// Lies of config.json and of the files beside it.
pub const FILE_LIES: &[Lie] = &[
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
