//! `mpirun -np N sterna train` writes the files of one rank, for any N and also after a stop.

mod program;

use program::text;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Eight sequences per step are eight shards; there are checkpoints, evaluations and samples.
const RECIPE: &str = "
    [model]
    family = 'bitnet'
    hidden_size = 32
    intermediate_size = 48
    num_hidden_layers = 2
    num_attention_heads = 2
    [data]
    mix = 'addition2=0.5,stories=0.5'
    documents = 400
    vocab_size = 300
    [train]
    steps = 6
    batch = 8
    accumulate = 2
    context = 256
    learning_rate = 4e-3
    warmup = 2
    evaluate_every = 4
    checkpoint_every = 2
    keep_last = 3
    sample_tokens = 4
";

/// Largest difference of the last losses from those of one rank.
const FAST_TOLERANCE: f64 = 1e-6;

/// What mpirun needs on a small machine and as root.
const MPIRUN: [&str; 5] = [
    "--oversubscribe",
    "--allow-run-as-root",
    "--bind-to",
    "none",
    "-q",
];

fn mpirun(args: &[&str]) -> Output {
    let mut command = Command::new("mpirun");
    let output = command.args(MPIRUN).args(args).output();
    output.expect("mpirun runs: the feature `mpi` needs it")
}

struct Runs {
    folder: tempfile::TempDir,
    recipe: PathBuf,
}

impl Runs {
    fn new() -> Runs {
        let folder = tempfile::tempdir().unwrap();
        let recipe = folder.path().join("recipe.toml");
        std::fs::write(&recipe, RECIPE).unwrap();
        Runs { folder, recipe }
    }

    /// Trains on this many ranks, without mpirun on one, and returns the run's folder.
    fn train(&self, name: &str, ranks: usize, more: &[&str]) -> PathBuf {
        let out = self.folder.path().join(name);
        let args = ["train", "--config", text(&self.recipe), "--out", text(&out)];
        let args = [&args[..], &["--threads", "1"], more].concat();
        let program = env!("CARGO_BIN_EXE_sterna");
        let ran = match ranks {
            1 => Command::new(program).args(args).output().unwrap(),
            _ => mpirun(&[&["-np", &ranks.to_string(), program], &args[..]].concat()),
        };
        let stderr = String::from_utf8_lossy(&ran.stderr);
        assert!(ran.status.success(), "{ranks} ranks: {stderr}");
        let lines = String::from_utf8(ran.stdout).unwrap();
        assert_eq!(lines.matches("held-out loss").count(), 1, "{lines}");
        out
    }
}

fn bytes(run: &Path, name: &str) -> Vec<u8> {
    std::fs::read(run.join(name)).unwrap()
}

/// Checks that two runs end in the same bytes: losses, weights and the last checkpoint.
fn check_same(a: &Path, b: &Path) {
    let last = "checkpoints/step-00000006.safetensors";
    for name in ["metrics.jsonl", "model/model.safetensors", last] {
        assert!(bytes(a, name) == bytes(b, name), "{name}: {}", b.display());
    }
}

#[test]
fn any_number_of_ranks_writes_the_files_of_one() {
    let runs = Runs::new();
    let one = runs.train("one", 1, &[]);
    for ranks in [2, 3] {
        let several = runs.train(&format!("of-{ranks}"), ranks, &[]);
        check_same(&one, &several);
        let sessions = String::from_utf8(bytes(&several, "run.json")).unwrap();
        assert_eq!(sessions.matches("from_step").count(), 1);
        assert!(
            sessions.contains(&format!("\"ranks\": {ranks}")),
            "{sessions}"
        );
    }

    // The run was stopped after the checkpoint of step 2 and continues with other ranks.
    let resumed = runs.train("resumed", 2, &[]);
    for step in [4, 6] {
        let name = format!("checkpoints/step-{step:08}.safetensors");
        std::fs::remove_file(resumed.join(name)).unwrap();
    }
    runs.train("resumed", 3, &[]);
    check_same(&one, &resumed);
}

#[test]
fn the_fast_reduction_has_the_losses_of_one_rank() {
    let runs = Runs::new();
    let first_losses = |run: &Path| -> Vec<f64> {
        let metrics = String::from_utf8(bytes(run, "metrics.jsonl")).unwrap();
        let lines = metrics.lines().take(2);
        let lines = lines.map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        lines.map(|line| line["loss"].as_f64().unwrap()).collect()
    };
    let one = first_losses(&runs.train("one", 1, &[]));
    let fast = first_losses(&runs.train("fast", 2, &["--reduce", "fast"]));
    for (one, fast) in one.iter().zip(&fast) {
        assert!((one - fast).abs() < FAST_TOLERANCE, "{one} {fast}");
    }
}

#[test]
fn a_rank_that_fails_ends_all_with_its_message() {
    let runs = Runs::new();
    let out = runs.folder.path().join("out");
    let program = env!("CARGO_BIN_EXE_sterna");
    let own = |steps| {
        let train = [
            program,
            "train",
            "--config",
            text(&runs.recipe),
            "--out",
            text(&out),
        ];
        [&["-np", "1"], &train[..], &["--steps", steps]].concat()
    };
    let ran = mpirun(&[&own("6")[..], &[":"], &own("7")].concat());
    let stderr = String::from_utf8_lossy(&ran.stderr);
    assert!(!ran.status.success());
    assert!(
        stderr.contains("rank 1: this rank has another recipe than rank 0"),
        "{stderr}"
    );
    assert!(!out.join("model").exists());

    let plan = [
        program, "train", "--preset", "tiny-1m", "--plan", "--text", ".",
    ];
    let ran = mpirun(&[&["-np", "2"], &plan[..]].concat());
    let stderr = String::from_utf8_lossy(&ran.stderr);
    assert!(
        !ran.status.success() && stderr.contains("only training itself"),
        "{stderr}"
    );
}
