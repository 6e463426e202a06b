//! Two programs with one output, and programs that a signal ends: nothing is lost, nothing remains.
#![cfg(unix)]

mod program;

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use program::{fixture, refused, stdout, sterna, text};

/// A recipe of more steps than a test waits for.
const RECIPE: &str = "
    [model]
    family = 'llama'
    hidden_size = 32
    intermediate_size = 48
    num_hidden_layers = 1
    num_attention_heads = 2
    [data]
    mix = 'stories=1'
    documents = 100
    vocab_size = 300
    [train]
    steps = 1000000
    batch = 2
    context = 64
    learning_rate = 4e-3
    warmup = 1
    sample_tokens = 0
";

fn start(args: &[&str]) -> Child {
    Command::new(env!("CARGO_BIN_EXE_sterna"))
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

fn send(signal: &str, process: &Child) {
    let id = process.id().to_string();
    let sent = Command::new("kill")
        .args([&format!("-{signal}"), &id])
        .status();
    assert!(sent.unwrap().success());
}

/// Waits until something is true. A limit of time keeps a broken program from blocking the tests.
fn wait_until(what: &str, mut is_true: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_true() {
        assert!(start.elapsed() < Duration::from_secs(120), "never: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// The names in a folder, ascending.
fn names(folder: &Path) -> Vec<String> {
    let entries = folder.read_dir().unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn has_part(folder: &Path) -> bool {
    names(folder).iter().any(|name| name.ends_with(".part"))
}

/// Whether a run has taken a step.
fn has_step(run: &Path) -> bool {
    let metrics = std::fs::read_to_string(run.join("metrics.jsonl"));
    metrics.is_ok_and(|lines| lines.contains('\n'))
}

/// Writes a model of some gigabytes, which takes seconds.
fn synthesize(folder: &Path) -> Child {
    let out = folder.join("model.sterna");
    start(&["synthesize", "bitnet-2b4t", "--out", text(&out)])
}

#[test]
fn a_signal_leaves_no_temporary_files() {
    for signal in ["INT", "TERM", "HUP"] {
        let folder = tempfile::tempdir().unwrap();
        let mut process = synthesize(folder.path());
        wait_until("a temporary file", || has_part(folder.path()));
        send(signal, &process);
        assert_eq!(process.wait().unwrap().code(), Some(130), "{signal}");
        assert_eq!(names(folder.path()), [""; 0], "{signal}");
    }
}

#[test]
fn what_a_killed_program_left_is_removed_by_the_next() {
    let folder = tempfile::tempdir().unwrap();
    let mut process = synthesize(folder.path());
    wait_until("a temporary file", || has_part(folder.path()));
    // While it works, nobody else writes the same file.
    let out = folder.path().join("model.sterna");
    let source = fixture("trained/llama");
    let said = refused(1, &["convert", text(&source), "--out", text(&out)]);
    assert!(
        said.contains(&format!("process {} is writing it", process.id())),
        "{said}"
    );
    send("KILL", &process);
    process.wait().unwrap();
    assert!(has_part(folder.path()));
    stdout(&["convert", text(&source), "--out", text(&out)]);
    assert_eq!(names(folder.path()), ["model.sterna"]);
}

#[test]
fn a_hangup_is_ignored_under_nohup() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("run");
    let mut process = train(folder.path(), &out, Some("nohup"));
    wait_until("a step", || has_step(&out));
    send("HUP", &process);
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(process.try_wait().unwrap(), None);
    send("INT", &process);
    assert_eq!(process.wait().unwrap().code(), Some(130));
}

/// Starts to train, as the argument of `program` if there is one.
fn train(folder: &Path, out: &Path, program: Option<&str>) -> Child {
    let recipe = folder.join("recipe.toml");
    std::fs::write(&recipe, RECIPE).unwrap();
    let sterna = env!("CARGO_BIN_EXE_sterna");
    let words = program.into_iter().chain([sterna, "train"]);
    let words: Vec<&str> = words.collect();
    Command::new(words[0])
        .args(&words[1..])
        .args(["--config", text(&recipe), "--out", text(out)])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

#[test]
fn one_run_in_a_folder_and_two_signals_of_a_moment_are_one() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("run");
    let mut process = train(folder.path(), &out, None);
    wait_until("a step", || has_step(&out));
    let recipe = folder.path().join("recipe.toml");
    let said = refused(
        1,
        &["train", "--config", text(&recipe), "--out", text(&out)],
    );
    assert!(
        said.contains(&format!("process {} trains in this folder", process.id())),
        "{said}"
    );
    // `timeout` sends a signal twice. The run saves a checkpoint nevertheless.
    send("TERM", &process);
    send("TERM", &process);
    assert_eq!(process.wait().unwrap().code(), Some(130));
    assert_eq!(names(&out.join("checkpoints")).len(), 1);
    assert!(out.join("model/config.json").exists());
    assert!(!out.join("run.lock").exists());
    // The folder is free again.
    let found = sterna(&["generate", text(&out), "-n", "1"]);
    assert!(found.status.success());
}
