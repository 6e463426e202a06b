//! `sterna train` and `sterna plot`: recipes in layers, exact resume, and the files of a run.

mod program;

use std::path::{Path, PathBuf};
use std::process::Command;

use program::{json, refused, stdout, text};
use serde_json::Value;

/// Checkpoints at every step, evaluations between them, several batches per step, and a ramp from
/// full precision.
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
    steps = 12
    batch = 2
    accumulate = 2
    context = 96
    learning_rate = 4e-3
    schedule = 'two-stage'
    warmup = 2
    ternary_from = 2
    ternary_ramp = 6
    skip_spikes = 0.5
    spike_window = 3
    z_loss = 1e-3
    evaluate_every = 5
    checkpoint_every = 1
    keep_last = 2
    keep_every = 4
    sample_tokens = 4
";

fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    let name = |entry: std::io::Result<std::fs::DirEntry>| entry.unwrap().file_name();
    let mut names: Vec<String> = entries.map(|e| name(e).into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_run_resumed_within_a_ramp_ends_in_the_same_bytes_and_explains_itself() {
    let folder = tempfile::tempdir().unwrap();
    let (recipe, whole) = (folder.path().join("r.toml"), folder.path().join("whole"));
    std::fs::write(&recipe, RECIPE).unwrap();
    let train = |out: &Path, threads: &str| {
        let args = ["train", "--config", text(&recipe), "--out", text(out)];
        stdout(&[&args[..], &["--threads", threads, "--json"]].concat())
    };
    train(&whole, "2");
    let metrics = std::fs::read_to_string(whole.join("metrics.jsonl")).unwrap();
    let lines: Vec<Value> = metrics
        .lines()
        .map(|l| serde_json::from_str(l).unwrap())
        .collect();
    let steps = || lines.iter().filter(|line| line.get("loss").is_some());
    assert_eq!(steps().count(), 12);
    let lambdas: Vec<f64> = steps()
        .map(|l| (l["lambda"].as_f64().unwrap() * 6.0).round())
        .collect();
    assert_eq!(lambdas, [0., 0., 1., 2., 3., 4., 5., 6., 6., 6., 6., 6.]);
    let skipped = |step: &&Value| step["skipped"] == true;
    assert!(
        steps().any(|l| skipped(&l)) && !steps().all(|l| skipped(&l)),
        "{metrics}"
    );
    let evaluations: Vec<&Value> = lines.iter().filter(|l| l.get("layers").is_some()).collect();
    assert_eq!(evaluations.len(), 3);
    let layer = &evaluations[1]["layers"][13];
    assert_eq!(layer["name"], "model.layers.1.mlp.down_proj.weight");
    for key in ["zeros", "flips", "scale", "gradient_norm"] {
        assert!(layer[key].as_f64().is_some_and(|x| x >= 0.0), "{layer}");
    }
    assert!(evaluations[1]["bits_per_byte"].as_f64().unwrap() > 0.5);
    assert_eq!(evaluations[1]["sample"].as_array().unwrap().len(), 2);
    let kept = [4, 8, 11, 12].map(|step| format!("step-{step:08}.safetensors"));
    assert_eq!(names(&whole.join("checkpoints")), kept);

    // The files that kill -9 leaves: checkpoints up to a step, metrics beyond it, a torn last line.
    for (last, threads) in [(4, "1"), (8, "3"), (11, "2")] {
        let killed = folder.path().join(format!("killed-{last}"));
        train(&killed, "1");
        for name in names(&killed.join("checkpoints")) {
            if name > format!("step-{last:08}.safetensors") {
                std::fs::remove_file(killed.join("checkpoints").join(name)).unwrap();
            }
        }
        std::fs::write(killed.join("metrics.jsonl"), &metrics[..metrics.len() - 7]).unwrap();
        std::fs::remove_dir_all(killed.join("model")).unwrap();
        train(&killed, threads);
        for name in ["metrics.jsonl", "model/model.safetensors"] {
            let bytes = |run: &Path| std::fs::read(run.join(name)).unwrap();
            assert!(bytes(&whole) == bytes(&killed), "{name} after step {last}");
        }
        let run: Value =
            serde_json::from_slice(&std::fs::read(killed.join("run.json")).unwrap()).unwrap();
        assert_eq!(run["sessions"][1]["from_step"], last);
        assert_eq!(run["values"]["train.steps"]["from"], text(&recipe));
        assert_eq!(run["values"]["train.clip"]["from"], "default");
        assert_eq!(run["data"].as_object().unwrap().len(), 3);
        assert_eq!(names(&killed.join("tensorboard")).len(), 2);
    }

    let picture = folder.path().join("loss.svg");
    let killed = folder.path().join("killed-8");
    stdout(&["plot", text(&whole), text(&killed), "--out", text(&picture)]);
    let svg = std::fs::read_to_string(&picture).unwrap();
    assert!(svg.contains(">whole: ") && svg.contains(">killed-8: ") && svg.contains("<circle"));
    stdout(&["plot", text(&whole)]);
    let alone = std::fs::read_to_string(whole.join("loss.svg")).unwrap();
    assert!(alone.contains(">whole: ") && !alone.contains(">killed-8: "));
    let message = refused(3, &["plot", text(folder.path())]);
    assert!(message.contains("metrics.jsonl"), "{message}");
    let message = refused(2, &["plot", text(&whole), "--out", "loss.gif"]);
    assert!(message.contains("expected a .svg file"), "{message}");

    // Both runs have one recipe and one seed, so they are one point with an error of 0.
    let table = stdout(&["plot", "--scaling=bytes", text(&whole), text(&killed)]);
    let row = table.lines().nth(1).unwrap();
    assert!(
        row.starts_with("ternary ") && row.ends_with("0.0000  whole"),
        "{table}"
    );
    let svg = std::fs::read_to_string(whole.join("scaling.svg")).unwrap();
    assert!(
        svg.contains(">bytes of the weights, packed</text>"),
        "{svg}"
    );
    let message = refused(3, &["plot", "--scaling", text(folder.path())]);
    assert!(
        message.contains("expected the recipe of a run"),
        "{message}"
    );
    let unfinished = folder.path().join("killed-4");
    std::fs::write(
        unfinished.join("metrics.jsonl"),
        &metrics[..metrics.len() / 2],
    )
    .unwrap();
    let message = refused(3, &["plot", "--scaling", text(&unfinished)]);
    assert!(
        message.contains("expected the held-out loss after step"),
        "{message}"
    );
}

#[test]
fn a_run_gets_more_steps_where_its_past_stays_what_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let recipe = folder.path().join("r.toml");
    let wsd = RECIPE.replace("'two-stage'", "'wsd'");
    std::fs::write(
        &recipe,
        wsd.replace("evaluate_every = 5", "evaluate_every = 50"),
    )
    .unwrap();
    let path = |name: &str| folder.path().join(name);
    let (whole, longer) = (path("whole"), path("longer"));
    let args = |out: &Path, steps: &str| -> Vec<String> {
        let args = [
            "train",
            "--config",
            text(&recipe),
            "--out",
            text(out),
            "--steps",
            steps,
        ];
        args.map(str::to_owned).into()
    };
    let run =
        |out: &Path, steps| stdout(&args(out, steps).iter().map(|a| &**a).collect::<Vec<_>>());
    run(&whole, "20");
    run(&longer, "12");
    let refusal = args(&longer, "20");
    let refusal = refused(3, &refusal.iter().map(|a| &**a).collect::<Vec<_>>());
    for expected in ["took 12 steps of 12", "from step 11 on", "--from"] {
        assert!(refusal.contains(expected), "{refusal}");
    }
    // Before the learning rate falls, the two runs are equal.
    for step in [11, 12] {
        let name = format!("checkpoints/step-{step:08}.safetensors");
        std::fs::remove_file(longer.join(name)).unwrap();
    }
    run(&longer, "20");
    let last = "checkpoints/step-00000020.safetensors";
    for name in ["model/model.safetensors", "recipe.toml", last] {
        let bytes = |run: &Path| std::fs::read(run.join(name)).unwrap();
        assert!(bytes(&whole) == bytes(&longer), "{name}");
    }
    let message = refused(
        3,
        &[
            "train",
            "--config",
            text(&recipe),
            "--out",
            text(&whole),
            "--set",
            "train.seed=2",
        ],
    );
    assert!(
        message.contains("another recipe: `train.seed` was 1 and is 2;"),
        "{message}"
    );
}

/// One text as long as a book.
fn book(folder: &Path) -> PathBuf {
    let path = folder.join("book.txt");
    let lines = (0..4000).map(|i| format!("line {} of a story about {}\n", i, i * i % 97));
    std::fs::write(&path, lines.collect::<String>()).unwrap();
    path
}

#[test]
fn a_preset_a_file_and_flags_make_a_recipe() {
    let folder = tempfile::tempdir().unwrap();
    let (book, file) = (book(folder.path()), folder.path().join("mine.toml"));
    std::fs::write(&file, "[train]\nsteps = 30\nbatch = 3\n").unwrap();
    let args = [
        "train",
        "--preset",
        "tiny-1m",
        "--text",
        text(&book),
        "--config",
        text(&file),
    ];
    let flags = ["--steps", "40", "--set", "train.learning_rate=1e-4"];
    let args = [&args[..], &flags].concat();
    let values = json(&[&args[..], &["--print-config", "--json"]].concat());
    for (key, value, from) in [
        ("train.steps", Value::from(40), "--steps"),
        ("train.batch", 3.into(), text(&file)),
        ("train.learning_rate", 1e-4.into(), "--set"),
        ("train.context", 256.into(), "preset tiny-1m"),
        ("train.clip", 1.0.into(), "default"),
    ] {
        assert_eq!(
            (&values[key]["value"], &values[key]["from"]),
            (&value, &from.into()),
            "{key}"
        );
    }
    assert!(stdout(&[&args[..], &["--print-config"]].concat()).contains("batch = 3 "));
    let message = refused(
        3,
        &[&args[..], &["--plan", "--set", "train.stepz=1"]].concat(),
    );
    assert!(
        message.contains("--set") && message.contains("stepz"),
        "{message}"
    );
    let message = refused(3, &["train", "--preset", "tiny-1m", "--plan"]);
    assert!(message.contains("`mix`, `text` and `chat`"), "{message}");
    refused(2, &["train", "--out", "x"]);
    refused(2, &["train", "--preset", "1b", "--out", "x"]);
}

#[test]
fn a_plan_is_measured_and_rates_are_tried() {
    let folder = tempfile::tempdir().unwrap();
    let (book, file) = (book(folder.path()), folder.path().join("small.toml"));
    let small = RECIPE.replace("mix = 'addition2=0.5,stories=0.5'", "text = ['book.txt']");
    std::fs::write(&file, small).unwrap();
    let args = ["train", "--config", text(&file), "--json"];
    let plan = json(&[&args[..], &["--plan"]].concat());
    let number = |key: &str| plan[key].as_f64().unwrap();
    assert_eq!(number("tokens"), 12.0 * 4.0 * 96.0);
    assert_eq!(number("state_bytes"), 16.0 * number("parameters"));
    assert!(number("estimated_bytes") > number("state_bytes"));
    assert!(number("tokens_per_second") > 0.0 && number("hours") > 0.0);
    let preparation = &plan["preparation"];
    let bytes = std::fs::metadata(&book).unwrap().len();
    assert_eq!(
        (&preparation["bytes"], &preparation["measured_bytes"]),
        (&bytes.into(), &bytes.into())
    );
    assert!(preparation["seconds"].as_f64().unwrap() > 0.0);
    let found = json(&[&args[..], &["--find-lr", "--find-lr-steps", "4"]].concat());
    let trials = found["trials"].as_array().unwrap();
    assert_eq!(trials.len(), 11);
    let best = trials
        .iter()
        .filter_map(|t| t["loss"].as_f64())
        .fold(f64::INFINITY, f64::min);
    let suggested = trials
        .iter()
        .find(|t| t["learning_rate"] == found["suggestion"]);
    assert_eq!(suggested.unwrap()["loss"].as_f64(), Some(best));
    assert!(
        book.exists() && names(folder.path()).len() == 2,
        "nothing else is written"
    );
}

#[test]
fn the_parts_of_a_step_add_up_to_its_time() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("small.toml");
    std::fs::write(&file, RECIPE).unwrap();
    let args = [
        "train",
        "--config",
        text(&file),
        "--threads",
        "1",
        "--profile",
    ];
    let profile = json(&[&args[..], &["--json"]].concat());
    let parts = profile["parts"].as_array().unwrap();
    let found: Vec<&str> = parts.iter().map(|p| p["part"].as_str().unwrap()).collect();
    let of_ternary = [
        "forward products, int8 × trit",
        "gradients to inputs",
        "gradients of weights",
        "head and loss",
        "attention",
        "norms, activation, elementwise",
        "graph and memory",
        "sums of gradients",
        "rounding of weights",
        "statistics",
        "optimizer",
        "waiting and the rest",
    ];
    assert_eq!(found, of_ternary);
    let sum: f64 = parts.iter().map(|p| p["seconds"].as_f64().unwrap()).sum();
    let (last, step) = (parts.last().unwrap(), profile["seconds"].as_f64().unwrap());
    assert!((sum / step - 1.0).abs() < 1e-6, "{profile}");
    // How much no part counts depends on what else the machine does.
    let rest = last["share"].as_f64().unwrap();
    assert!((0.0..1.0).contains(&rest), "{profile}");
    for part in parts.iter().filter(|part| part.get("work").is_some()) {
        let of_limit = part["share_of_limit"].as_f64();
        let is_counted = part["part"] != "graph and memory";
        assert_eq!(
            of_limit.is_some_and(|share| share > 0.0),
            is_counted,
            "{part}"
        );
    }
    let plain = RECIPE
        .replace("ternary_from = 2", "")
        .replace("ternary_ramp = 6", "");
    std::fs::write(&file, plain).unwrap();
    let full = ["--set", "train.precision=full"];
    let table = stdout(&[&args[..], &full].concat());
    assert!(
        table.contains("forward products, f32") && !table.contains("trit"),
        "{table}"
    );
    assert!(
        table.contains("tokens/s") && table.contains("limits: int8"),
        "{table}"
    );
    assert_eq!(names(folder.path()).len(), 1, "nothing is written");
}

/// Each process of a launcher would train the whole run alone, and all would write the same files.
#[cfg(not(feature = "mpi"))]
#[test]
fn a_program_without_mpi_refuses_to_be_a_rank() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sterna"));
    command.args(["train", "--preset", "tiny-1m", "--print-config"]);
    let refused = command.env("OMPI_COMM_WORLD_SIZE", "2").output().unwrap();
    let stderr = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(2), "{stderr}");
    assert!(stderr.contains("--features mpi"), "{stderr}");
    let mut command = Command::new(env!("CARGO_BIN_EXE_sterna"));
    let refused = command.args(["quickstart"]).env("PMI_SIZE", "2");
    let refused = refused.current_dir(std::env::temp_dir()).output().unwrap();
    let stderr = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(2), "{stderr}");
    assert!(stderr.contains("runs alone, without mpirun"), "{stderr}");
}

#[test]
fn a_rank_that_mpi_did_not_start_is_refused_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let book = book(folder.path());
    let out = folder.path().join("alone");
    let refused = |args: &[&str], name: &str, value: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sterna"));
        command.args(args).args(["--out", text(&out)]);
        let ran = command.env(name, value).output().unwrap();
        let stderr = String::from_utf8_lossy(&ran.stderr).into_owned();
        assert_eq!(ran.status.code(), Some(2), "{args:?}: {stderr}");
        assert!(stderr.contains(name), "{args:?}: {stderr}");
        assert!(!out.exists());
    };
    let train = ["train", "--preset", "tiny-1m", "--text", text(&book)];
    for args in [&train[..], &["quickstart", "--steps", "1"]] {
        refused(args, "WORLD_SIZE", "2");
        refused(args, "RANK", "1");
        refused(args, "WORLD_SIZE", "many");
    }
}

/// It would train for hours without the page that was asked for.
#[cfg(not(feature = "serve"))]
#[test]
fn a_program_without_the_server_refuses_to_be_watched() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("run");
    let args = [
        "train",
        "--preset",
        "tiny-1m",
        "--watch",
        "--out",
        text(&out),
    ];
    let stderr = refused(2, &args);
    assert!(
        stderr.contains("--watch") && stderr.contains("--features serve"),
        "{stderr}"
    );
    assert!(!out.exists());
}

#[cfg(feature = "serve")]
#[test]
fn a_run_can_be_watched_and_needs_no_page() {
    let folder = tempfile::tempdir().unwrap();
    let recipe = folder.path().join("r.toml");
    std::fs::write(&recipe, RECIPE).unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    for (watch, expected) in [
        ("--watch".to_owned(), "watch at http://127.0.0.1:"),
        (format!("--watch={port}"), "warning: no page to watch"),
    ] {
        let out = folder.path().join(expected.len().to_string());
        let mut command = Command::new(env!("CARGO_BIN_EXE_sterna"));
        command.args([
            "train",
            "--config",
            text(&recipe),
            "--out",
            text(&out),
            &watch,
        ]);
        let ran = command.output().unwrap();
        let stderr = String::from_utf8_lossy(&ran.stderr);
        assert!(
            ran.status.success() && stderr.contains(expected),
            "{stderr}"
        );
    }
}

#[test]
fn quickstart_takes_another_recipe_with_what_it_tries() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mine.toml");
    let out = folder.path().join("run");
    let recipe = include_str!("../configs/quickstart.toml");
    let args = [
        "quickstart",
        "--config",
        text(&path),
        "--steps",
        "1",
        "--out",
        text(&out),
    ];
    for (mix, missing) in [
        ("addition2=0.5,stories=0.5", "chat"),
        ("chat=0.5,stories=0.5", "addition2"),
        ("addition2=0.5,chat=0.5", "stories"),
    ] {
        let mix = recipe.replace("addition2=0.35,stories=0.1,chat=0.55", mix);
        assert_ne!(mix, recipe);
        std::fs::write(&path, mix).unwrap();
        let error = refused(3, &args);
        assert!(error.contains(&format!("has no {missing}")), "{error}");
        assert!(!out.exists());
    }
    let smaller = recipe.replace("hidden_size = 128", "hidden_size = 64");
    std::fs::write(&path, smaller.replace("60000", "300")).unwrap();
    let printed = stdout(&args);
    assert!(printed.contains(&format!("train --config {}", path.display())));
    let kept = std::fs::read_to_string(out.join("recipe.toml")).unwrap();
    assert!(kept.contains("hidden_size = 64"), "{kept}");
}
