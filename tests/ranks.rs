//! Ranks that are started one by one, each with RANK and WORLD_SIZE, and meet over TCP.

mod program;

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use program::text;

/// Eight sequences a step are eight shards.
const RECIPE: &str = "
    [model]
    family = 'bitnet'
    hidden_size = 32
    intermediate_size = 48
    num_hidden_layers = 1
    num_attention_heads = 2
    [data]
    mix = 'addition2=1'
    documents = 400
    vocab_size = 300
    [train]
    optimizer = 'muon'
    batch = 8
    context = 128
    learning_rate = 4e-3
    warmup = 2
    evaluate_every = 4
    checkpoint_every = 2
    sample_tokens = 4
    steps = 4
";

/// Starts the ranks of a run that writes `out`.
fn start(recipe: &Path, out: &Path, size: usize, more: &[&str]) -> Vec<Child> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    drop(listener);
    let rank = |rank: usize| {
        Command::new(env!("CARGO_BIN_EXE_sterna"))
            .args(["train", "--config", text(recipe), "--out", text(out)])
            .args(["--threads", "1"])
            .args(more)
            .envs([("RANK", rank.to_string()), ("WORLD_SIZE", size.to_string())])
            .env("MASTER_PORT", &port)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    };
    (0..size).map(rank).collect()
}

fn recipe(folder: &Path) -> PathBuf {
    let path = folder.join("recipe.toml");
    std::fs::write(&path, RECIPE).unwrap();
    path
}

#[test]
fn they_write_the_files_of_one_and_go_on_where_they_stopped() {
    let folder = tempfile::tempdir().unwrap();
    let recipe = recipe(folder.path());
    let run = |name: &str, size: usize| {
        let out = folder.path().join(name);
        for rank in start(&recipe, &out, size, &[]) {
            let ran = rank.wait_with_output().unwrap();
            let stderr = String::from_utf8_lossy(&ran.stderr);
            assert!(ran.status.success(), "{size} ranks: {stderr}");
        }
        out
    };
    let (one, three) = (run("one", 1), run("three", 3));
    let last = "checkpoints/step-00000004.safetensors";
    let check = |what: &str| {
        for name in ["metrics.jsonl", "model/model.safetensors", last] {
            let read = |run: &Path| std::fs::read(run.join(name)).unwrap();
            assert!(read(&one) == read(&three), "{name} {what}");
        }
    };
    check("at once");
    std::fs::remove_file(three.join(last)).unwrap();
    run("three", 2);
    check("resumed by two ranks");
}

#[test]
fn a_rank_that_fails_or_is_killed_ends_all() {
    let folder = tempfile::tempdir().unwrap();
    let recipe = recipe(folder.path());
    let steps = ["--steps", "1000000"];
    let mut ranks = start(&recipe, &folder.path().join("killed"), 3, &steps);
    let written = folder.path().join("killed/metrics.jsonl");
    while !written.exists() {
        assert!(ranks[0].try_wait().unwrap().is_none(), "rank 0 ended");
        std::thread::yield_now();
    }
    ranks[1].kill().unwrap();
    for (rank, child) in ranks.into_iter().enumerate() {
        let ran = child.wait_with_output().unwrap();
        let stderr = String::from_utf8_lossy(&ran.stderr);
        assert!(!ran.status.success(), "{rank}: {stderr}");
        assert!(
            rank != 0 || stderr.contains("rank 1 ended early"),
            "{stderr}"
        );
    }

    let wrong = start(
        &recipe,
        &folder.path().join("wrong"),
        2,
        &["--set", "train.batch=0"],
    );
    for child in wrong {
        let ran = child.wait_with_output().unwrap();
        assert_eq!(ran.status.code(), Some(3));
    }
}
