//! Every verb that runs a model takes it in any format and packs it once.

mod program;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use program::{fixture, stdout, text};

const RECIPE: &str = "
    [model]
    family = 'llama'
    hidden_size = 32
    intermediate_size = 48
    num_hidden_layers = 1
    num_attention_heads = 2
    [data]
    mix = 'addition2=0.5,stories=0.5'
    documents = 400
    vocab_size = 300
    [train]
    steps = 2
    batch = 2
    context = 96
    learning_rate = 1e-3
    warmup = 1
    sample_tokens = 4
";

fn command(args: &[&str], home: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sterna"));
    command.args(args).env("XDG_CACHE_HOME", home);
    command
}

fn sterna(args: &[&str], home: &Path) -> Output {
    let output = command(args, home).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "sterna {args:?}: {stderr}");
    output
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// A copy of a checkpoint, beside which files may be written.
fn checkpoint(folder: &Path) -> PathBuf {
    let model = folder.join("checkpoint");
    fs::create_dir(&model).unwrap();
    for entry in fs::read_dir(fixture("checkpoints/falcon3-packed")).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), model.join(entry.file_name())).unwrap();
    }
    model
}

#[test]
fn a_run_a_folder_and_a_gguf_file_run_like_their_packed_files() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let (recipe, run) = (at("r.toml"), at("run"));
    fs::write(&recipe, RECIPE).unwrap();
    stdout(&["train", "--config", text(&recipe), "--out", text(&run)]);
    let model = checkpoint(folder.path());
    let gguf = at("model.gguf");
    let to_gguf = ["--to", "i2_s", "--out", text(&gguf)];
    stdout(&[&["convert", text(&model)], &to_gguf[..]].concat());

    let logits = |model: &Path| {
        let out = at("logits.safetensors");
        let args = ["logits", text(model), "--ids", "1,2,3", "--out", text(&out)];
        let output = sterna(&args, &at("home"));
        (fs::read(out).unwrap(), stderr(&output))
    };
    for (given, source) in [
        (&run, run.join("model")),
        (&model, model.clone()),
        (&gguf, gguf.clone()),
    ] {
        let packed = at("packed.sterna");
        stdout(&["convert", text(&source), "--out", text(&packed)]);
        let (expected, _) = logits(&packed);
        let (first, said) = logits(given);
        assert!(first == expected, "{}", given.display());
        let lines: Vec<&str> = said.lines().filter(|l| l.starts_with("packed ")).collect();
        assert!(lines.len() == 1 && lines[0].contains(".sterna/"), "{said}");
        let (again, said) = logits(given);
        assert!(again == expected && said.is_empty(), "{said}");
    }
    // The packed file of a run is used if it is the newest.
    fs::copy(at("packed.sterna"), run.join("model.sterna")).unwrap();
    assert_eq!(logits(&run), logits(&at("packed.sterna")));

    let home = at("home");
    for args in [
        &[
            "generate",
            text(&model),
            "--prompt",
            "a",
            "--max-tokens",
            "2",
        ][..],
        &["embed", text(&model), "--text", "a"],
        &[
            "bench",
            text(&model),
            "--pp",
            "4",
            "--tg",
            "2",
            "--repetitions",
            "1",
        ],
    ] {
        let output = sterna(args, &home);
        assert!(!output.stdout.is_empty() && !stderr(&output).contains("packed "));
    }
    assert!(!home.exists(), "everything was beside the models");
}

#[test]
fn two_programs_pack_a_model_once() {
    let folder = tempfile::tempdir().unwrap();
    let (model, home) = (checkpoint(folder.path()), folder.path().join("home"));
    let args = ["embed", text(&model), "--text", "a"];
    let start = || {
        let mut command = command(&args, &home);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().unwrap()
    };
    let programs = [start(), start(), start()];
    let outputs = programs.map(|program| program.wait_with_output().unwrap());
    let packers = outputs.iter().filter(|o| stderr(o).contains("packed "));
    assert_eq!(packers.count(), 1);
    for output in &outputs {
        assert!(output.status.success(), "{}", stderr(output));
        assert_eq!(output.stdout, outputs[0].stdout);
    }
}
