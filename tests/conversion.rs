//! `sterna convert`: errors of hostile files, the files after a kill, and bytes that do not depend
//! on the number of threads.
#![cfg(unix)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

const TARGETS: [&str; 8] = [
    "native",
    "i2_s",
    "tq1_0",
    "tq2_0",
    "q2_0",
    "q2_0_g128",
    "iq2_bn",
    "hf",
];

fn sterna(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sterna"));
    command.args(args);
    command
}

fn succeed(mut command: Command) -> Output {
    let output = command.output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {stderr}");
    output
}

/// Runs a command on a bad file: exit code 3, one line that names what is wrong, no panic.
fn refused(args: &[&str], part: &str) {
    let output = sterna(args).stdin(Stdio::null()).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "sterna {args:?}: {stderr}");
    assert!(
        stderr.starts_with("error: ") && stderr.contains(part),
        "sterna {args:?}: {stderr}"
    );
    assert!(
        !stderr.contains("panicked") && stderr.len() < 2000,
        "sterna {args:?}: {stderr}"
    );
}

struct Place(TempDir);

impl Place {
    fn new() -> Place {
        Place(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    fn write(&self, name: &str, bytes: &[u8]) -> String {
        fs::write(self.path(name), bytes).unwrap();
        self.text(name)
    }

    /// A model with random weights whose widths are multiples of the blocks of every format.
    fn folder(&self, name: &str, hidden_size: usize, layers: usize) -> String {
        let config = json!({
            "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu",
            "hidden_size": hidden_size, "intermediate_size": 2 * hidden_size,
            "num_hidden_layers": layers, "num_attention_heads": 4, "num_key_value_heads": 2,
            "head_dim": 64, "vocab_size": 301,
            "max_position_embeddings": 128, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
            "tie_word_embeddings": false,
        });
        let shape = self.write("shape.json", config.to_string().as_bytes());
        let out = self.text(name);
        succeed(sterna(&["synthesize", &shape, "--as", "hf", "--out", &out]));
        out
    }
}

/// All bytes of a file, or of the files of a folder in order.
fn content(path: &Path) -> Vec<u8> {
    if path.is_file() {
        return fs::read(path).unwrap();
    }
    let mut files: Vec<PathBuf> = fs::read_dir(path)
        .unwrap()
        .map(|e| e.unwrap().path())
        .collect();
    files.sort();
    files
        .iter()
        .flat_map(|file| fs::read(file).unwrap())
        .collect()
}

fn remove(path: &Path) {
    match path.is_dir() {
        true => fs::remove_dir_all(path).unwrap(),
        false => fs::remove_file(path).unwrap(),
    }
}

#[test]
fn hostile_folders_end_with_code_3() {
    let place = Place::new();
    let folder = place.folder("model", 256, 1);
    let out = place.text("out");
    let check = |name: &str, bytes: Option<&[u8]>, part: &str| {
        let path = Path::new(&folder).join(name);
        let good = fs::read(&path).ok();
        match bytes {
            Some(bytes) => fs::write(&path, bytes).unwrap(),
            None => fs::remove_file(&path).unwrap(),
        }
        refused(&["convert", &folder, "--out", &out], part);
        refused(&["verify", &folder, &folder], part);
        match good {
            Some(good) => fs::write(&path, good).unwrap(),
            None => fs::remove_file(&path).unwrap(),
        }
        assert!(!Path::new(&out).exists());
    };
    let weights = fs::read(Path::new(&folder).join("model.safetensors")).unwrap();
    check(
        "model.safetensors",
        Some(&weights[..weights.len() - 1]),
        "model.safetensors",
    );
    check("model.safetensors", Some(&[255; 64]), "model.safetensors");
    check("model.safetensors", None, "model.safetensors");
    // An index is read only without a whole file.
    fs::remove_file(Path::new(&folder).join("model.safetensors")).unwrap();
    let index = |file: &str| json!({"weight_map": {"a": file}}).to_string().into_bytes();
    for file in [
        "../model/model.safetensors",
        "/etc/passwd",
        "a\\b",
        "a\0",
        &"x".repeat(5000),
    ] {
        check(
            "model.safetensors.index.json",
            Some(&index(file)),
            "in this folder",
        );
    }
    fs::write(Path::new(&folder).join("model.safetensors"), weights).unwrap();
    check("config.json", Some(b"{\"a\": "), "config.json");
    check("config.json", Some(&b"[".repeat(100_000)), "config.json");
    check("config.json", None, "config.json");
    fs::create_dir(place.path("empty")).unwrap();
    refused(
        &["convert", &place.text("empty"), "--out", &out],
        "config.json",
    );
}

#[test]
fn hostile_files_end_with_code_3() {
    let place = Place::new();
    let folder = place.folder("model", 256, 1);
    let [packed, gguf] = ["good.sterna", "good.gguf"].map(|name| place.text(name));
    succeed(sterna(&["convert", &folder, "--out", &packed]));
    succeed(sterna(&[
        "convert", &folder, "--to", "i2_s", "--out", &gguf,
    ]));
    for (good, runs) in [(&packed, true), (&gguf, false)] {
        let bytes = fs::read(good).unwrap();
        let mut damaged = bytes.clone();
        damaged[4] ^= 0x40;
        for (name, bytes) in [
            ("nothing", Vec::new()),
            ("short", bytes[..7].to_vec()),
            ("cut", bytes[..bytes.len() - 1].to_vec()),
            ("half", bytes[..bytes.len() / 2].to_vec()),
            ("damaged", damaged),
            ("noise", vec![0x47; 4096]),
        ] {
            let bad = place.write(name, &bytes);
            refused(&["convert", &bad, "--out", &place.text("out")], name);
            refused(&["verify", &bad, good], name);
            if runs {
                refused(&["inspect", &bad], name);
                refused(&["generate", &bad, "--prompt", "x"], name);
            }
            assert!(!place.path("out").exists());
        }
    }
    // A pipe without a writer.
    let pipe = place.text("pipe");
    let mut mkfifo = Command::new("mkfifo");
    mkfifo.arg(&pipe);
    succeed(mkfifo);
    refused(&["convert", &pipe, "--out", &place.text("out")], "pipe");
    refused(&["generate", &pipe, "--prompt", "x"], "pipe");
}

#[test]
fn a_kill_leaves_nothing_half_written() {
    let place = Place::new();
    let folder = place.folder("model", 1024, 2);
    for to in ["native", "tq2_0", "hf"] {
        let out = place.path("out");
        let args = [
            "convert",
            &folder,
            "--to",
            to,
            "--out",
            out.to_str().unwrap(),
        ];
        succeed(sterna(&args));
        let whole = content(&out);
        remove(&out);
        // Kills from before the first byte to after the last one, when the result is read again.
        for part in [0, 1, 2, 4, 6, 7, 8] {
            let enough = whole.len() as u64 * part / 8;
            let mut child = sterna(&args)
                .stderr(Stdio::null())
                .stdout(Stdio::null())
                .spawn()
                .unwrap();
            while unfinished(place.0.path()) < enough && child.try_wait().unwrap().is_none() {
                std::thread::yield_now();
            }
            child.kill().unwrap();
            child.wait().unwrap();
            if out.exists() {
                assert!(content(&out) == whole, "{to} {part}");
                remove(&out);
            }
            for name in hidden(place.0.path()) {
                remove(&name);
            }
        }
    }
}

/// Files and folders under temporary names.
fn hidden(folder: &Path) -> Vec<PathBuf> {
    let paths = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let is_hidden = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().starts_with('.');
    paths.filter(is_hidden).collect()
}

/// Bytes under temporary names.
fn unfinished(folder: &Path) -> u64 {
    let size = |path: PathBuf| match fs::read_dir(&path) {
        Ok(entries) => entries
            .flatten()
            .filter_map(|e| e.metadata().ok())
            .map(|m| m.len())
            .sum(),
        Err(_) => path.metadata().map_or(0, |m| m.len()),
    };
    hidden(folder).into_iter().map(size).sum()
}

#[test]
fn bytes_do_not_depend_on_the_number_of_threads() {
    let place = Place::new();
    let folder = place.folder("model", 512, 1);
    let has_taskset = Command::new("taskset").arg("--version").output().is_ok();
    for to in TARGETS {
        let out = place.path("out");
        let args = [
            "convert",
            &folder,
            "--to",
            to,
            "--out",
            out.to_str().unwrap(),
            "--lossy",
            "--json",
        ];
        let takes_lossy = !["native", "hf"].contains(&to);
        let args = &args[..if takes_lossy { 8 } else { 6 }];
        let mut expected: Option<Vec<u8>> = None;
        for threads in ["1", "2", "3"] {
            let mut command = sterna(args);
            if threads == "1" && has_taskset {
                command = Command::new("taskset");
                command.args(["1", env!("CARGO_BIN_EXE_sterna")]).args(args);
            }
            command.env("RAYON_NUM_THREADS", threads);
            succeed(command);
            let bytes = content(&out);
            assert!(
                *expected.get_or_insert_with(|| bytes.clone()) == bytes,
                "{to} {threads}"
            );
            remove(&out);
        }
    }
}

#[test]
fn several_scales_go_to_the_formats_that_hold_them() {
    let place = Place::new();
    let folder = place.folder("model", 256, 1);
    let products = place.text("products");
    // Unpacks the weights by hand: a folder of numbers with one scale per 128 columns.
    make_products(Path::new(&folder), Path::new(&products));
    let out = place.text("out");
    succeed(sterna(&[
        "convert", &products, "--to", "q2_0", "--out", &out,
    ]));
    succeed(sterna(&["verify", &products, &out]));
    let again = place.text("again");
    succeed(sterna(&["convert", &out, "--to", "hf", "--out", &again]));
    succeed(sterna(&["verify", &products, &again]));
    refused(
        &[
            "convert",
            &products,
            "--to",
            "tq2_0",
            "--out",
            &place.text("no"),
        ],
        "off by",
    );
    let lossy = place.text("lossy");
    let report = succeed(sterna(&[
        "convert", &products, "--to", "tq2_0", "--lossy", "--out", &lossy, "--json",
    ]));
    let report: Value = serde_json::from_slice(&report.stdout).unwrap();
    assert!(report["scale_rounding"].as_f64().unwrap() > 0.01);
}

fn make_products(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    let bytes = fs::read(from.join("model.safetensors")).unwrap();
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header: Value = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
    let (mut entries, mut data) = (serde_json::Map::new(), Vec::new());
    for (name, entry) in header.as_object().unwrap() {
        if name == "__metadata__" || name.ends_with("_scale") {
            continue;
        }
        let offset = |i: usize| 8 + length + entry["data_offsets"][i].as_u64().unwrap() as usize;
        let mut stored = bytes[offset(0)..offset(1)].to_vec();
        let (mut dtype, mut shape) = (entry["dtype"].clone(), entry["shape"].clone());
        if dtype == "U8" {
            let columns = shape[1].as_u64().unwrap() as usize;
            let codes =
                (0..4).flat_map(|n| stored.iter().map(move |b| (b >> (2 * n) & 3) as f32 - 1.0));
            let scale = |i: usize| [0.25f32, 0.5, 0.375][(i / columns + i % columns / 128) % 3];
            let values = codes.enumerate().map(|(i, trit)| trit * scale(i));
            stored = values.flat_map(f32::to_le_bytes).collect();
            (dtype, shape[0]) = (json!("F32"), json!(4 * shape[0].as_u64().unwrap()));
        }
        let start = data.len();
        data.extend(stored);
        let entry = json!({"dtype": dtype, "shape": shape, "data_offsets": [start, data.len()]});
        entries.insert(name.clone(), entry);
    }
    let header = Value::Object(entries).to_string().into_bytes();
    let file = [&(header.len() as u64).to_le_bytes()[..], &header, &data].concat();
    fs::write(to.join("model.safetensors"), file).unwrap();
    for name in [
        "tokenizer.json",
        "tokenizer_config.json",
        "generation_config.json",
    ] {
        fs::copy(from.join(name), to.join(name)).unwrap();
    }
    let config = fs::read(from.join("config.json")).unwrap();
    let mut config: Value = serde_json::from_slice(&config).unwrap();
    config
        .as_object_mut()
        .unwrap()
        .remove("quantization_config");
    fs::write(to.join("config.json"), config.to_string()).unwrap();
}
