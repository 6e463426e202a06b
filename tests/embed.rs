//! `sterna embed` on the embedding models of the fixtures.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

fn sterna(args: &[&str], input: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_sterna"))
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(input.as_bytes())
        .unwrap();
    child.wait_with_output().unwrap()
}

/// Runs a command that must succeed and returns its stdout.
fn stdout(args: &[&str], input: &str) -> String {
    let output = sterna(args, input);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "sterna {args:?}: {stderr}");
    String::from_utf8(output.stdout).unwrap()
}

fn vectors(text: &str) -> Vec<Vec<f32>> {
    let vector = |line: &str| line.split(' ').map(|x| x.parse().unwrap()).collect();
    text.lines().map(vector).collect()
}

fn fixture(name: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    root.join("tests/fixtures/checkpoints").join(name)
}

/// The fixture's texts and their vectors by transformers.
fn references(name: &str) -> Vec<(String, Vec<f32>, usize)> {
    let json = std::fs::read(fixture(name).join("reference.json")).unwrap();
    let json: Value = serde_json::from_slice(&json).unwrap();
    let texts = json["texts"].as_array().unwrap().iter().map(|text| {
        let embedding = serde_json::from_value(text["embedding"].clone()).unwrap();
        let tokens = text["ids"].as_array().unwrap().len();
        (text["text"].as_str().unwrap().to_owned(), embedding, tokens)
    });
    texts.collect()
}

fn pack(name: &str, folder: &TempDir) -> String {
    let out = folder.path().join("model.sterna");
    let (case, out) = (fixture(name), out.to_str().unwrap());
    let args = [
        "convert",
        case.to_str().unwrap(),
        "--out",
        out,
        "--head",
        "lossless",
    ];
    stdout(&args, "");
    out.to_owned()
}

#[test]
fn vectors_are_those_of_transformers() {
    for name in ["qwen3-embedding", "gemma3-embedding"] {
        let folder = tempfile::tempdir().unwrap();
        let model = pack(name, &folder);
        let references = references(name);
        let lines: Vec<&str> = references.iter().map(|(text, ..)| text.as_str()).collect();
        let lines = lines.join("\n");
        let printed = stdout(&["embed", &model, "--kv", "f32"], &lines);
        let found = vectors(&printed);
        assert_eq!(found.len(), references.len());
        for (found, (text, expected, _)) in found.iter().zip(&references) {
            assert_eq!(found.len(), expected.len());
            for (x, y) in found.iter().zip(expected) {
                assert!((x - y).abs() < 1e-5, "{name} {text}: {x} {y}");
            }
        }
        // A file, single texts and JSON give the same vectors.
        let file = folder.path().join("texts.txt");
        std::fs::write(&file, &lines).unwrap();
        let file = file.to_str().unwrap();
        let of_file = stdout(&["embed", &model, "--kv", "f32", "--file", file], "");
        assert_eq!(of_file, printed);
        for (index, (text, _, tokens)) in references.iter().enumerate() {
            let args = ["embed", &model, "--kv", "f32", "--text", text, "--json"];
            let json: Value = serde_json::from_str(&stdout(&args, "")).unwrap();
            assert_eq!(
                (&json["index"], &json["tokens"]),
                (&0.into(), &(*tokens).into())
            );
            let vector: Vec<f32> = serde_json::from_value(json["embedding"].clone()).unwrap();
            assert_eq!(vector, found[index]);
        }
    }
}

#[test]
fn more_texts_than_a_batch_has_keep_their_order() {
    let folder = tempfile::tempdir().unwrap();
    let model = pack("qwen3-embedding", &folder);
    let lines: Vec<String> = (0..300).map(|i| format!("line {}", i % 7)).collect();
    let found = vectors(&stdout(&["embed", &model], &lines.join("\n")));
    assert_eq!(found.len(), 300);
    for (i, vector) in found.iter().enumerate() {
        assert_eq!(*vector, found[i % 7]);
        let length = vector.iter().map(|x| x * x).sum::<f32>().sqrt();
        assert!((length - 1.0).abs() < 1e-5);
    }
    assert_ne!(found[0], found[1]);
    let raw = vectors(&stdout(
        &["embed", &model, "--no-normalize", "--text", "line 0"],
        "",
    ));
    let length = raw[0].iter().map(|x| x * x).sum::<f32>().sqrt();
    assert!((length - 1.0).abs() > 0.1);
    for (raw, unit) in raw[0].iter().zip(&found[0]) {
        assert!((raw / length - unit).abs() < 1e-5);
    }
}

#[test]
fn texts_that_do_not_fit_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let model = pack("gemma3-embedding", &folder);
    let long = "a b ".repeat(600);
    let output = sterna(&["embed", &model], &format!("short\n{long}\n"));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(
        stderr.contains("text 1") && stderr.contains("expected at most 512"),
        "{stderr}"
    );
    let output = sterna(&["embed", &model, "--file", "no such file"], "");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(
        !output.status.success() && stderr.contains("no such file"),
        "{stderr}"
    );
    let output = sterna(&["embed", &model, "--file", "x", "--text", "y"], "");
    assert_eq!(output.status.code(), Some(2));
}
