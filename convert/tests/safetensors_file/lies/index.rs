//! Lies of `model.safetensors.index.json`.

use serde_json::json;

use super::{EMBEDDING, Lie, NORM, NOT_WHOLE};

/// Each in a folder of two shards.
pub const LIES: &[Lie] = &[
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
        &["index.json", "names three.safetensors", "not in the folder"],
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
        &["x should be in"],
    ),
    (
        "a long tensor",
        |f| f.index(|m| drop(m.insert("x".repeat(100_000), json!("one.safetensors")))),
        &["should be in"],
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
