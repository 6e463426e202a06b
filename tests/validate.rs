//! `sterna validate`: the figures of transformers, the verdicts on a damaged model and on a copy,
//! and the report.

mod program;
#[path = "validate/tasks.rs"]
mod tasks;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::time::SystemTime;

use program::{fixture, json, refused, sterna, text};
use safetensors::SafeTensors;
use safetensors::tensor::TensorView;
use serde_json::Value;
use tempfile::TempDir;

/// A copy of a fixture, because its packed file is written beside it.
fn copied(name: &str) -> PathBuf {
    static FOLDER: LazyLock<TempDir> = LazyLock::new(|| tempfile::tempdir().unwrap());
    let copy = FOLDER.path().join(name);
    std::fs::create_dir_all(&copy).unwrap();
    for entry in std::fs::read_dir(fixture(name)).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, copy.join(path.file_name().unwrap())).unwrap();
    }
    copy
}

/// A copy of a model whose scales in one layer are multiplied.
fn with_scales(of: &Path, layer: usize, factor: f32, out: &Path) {
    std::fs::create_dir(out).unwrap();
    for entry in std::fs::read_dir(of).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, out.join(path.file_name().unwrap())).unwrap();
    }
    let bytes = std::fs::read(of.join("model.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let prefix = format!("model.layers.{layer}.");
    let mut changed = 0;
    let scaled: Vec<_> = tensors
        .tensors()
        .into_iter()
        .map(|(name, view)| {
            let mut data = view.data().to_vec();
            if name.starts_with(&prefix) && name.ends_with("weight_scale") {
                changed += 1;
                let scale = f32::from_le_bytes(data[..4].try_into().unwrap());
                data = (scale * factor).to_le_bytes().to_vec();
            }
            (name, view.dtype(), view.shape().to_vec(), data)
        })
        .collect();
    assert_eq!(changed, 7);
    let views = scaled.iter().map(|(name, dtype, shape, data)| {
        (name, TensorView::new(*dtype, shape.clone(), data).unwrap())
    });
    let written = safetensors::serialize(views, None).unwrap();
    std::fs::write(out.join("model.safetensors"), written).unwrap();
}

#[test]
fn perplexity_is_that_of_transformers() {
    let folder = tempfile::tempdir().unwrap();
    let expected = std::fs::read(fixture("perplexity/expected.json")).unwrap();
    let expected: Value = serde_json::from_slice(&expected).unwrap();
    let stories = fixture("perplexity/stories.jsonl");
    for family in ["bitnet", "llama"] {
        let model = copied(&format!("trained/{family}"));
        for (convention, more) in [
            ("chunks", &["--context", "64"][..]),
            ("rolling", &["--context", "40"]),
            ("strided", &["--context", "64", "--stride", "24"]),
        ] {
            let out = folder.path().join(family).join(convention);
            let mut args = vec![
                "validate",
                text(&model),
                "--text",
                text(&stories),
                "--out",
                text(&out),
            ];
            args.extend([
                "--convention",
                convention,
                "--kv",
                "f32",
                "--no-speed",
                "--json",
            ]);
            args.extend(more);
            let report = json(&args);
            let found = &report["models"][0]["accuracy"][0]["perplexity"];
            let expected = &expected[family][convention];
            assert_eq!(found["tokens"], expected["tokens"], "{family} {convention}");
            let lengths = &found["by_length"];
            for (key, found) in [
                ("perplexity", &found["perplexity"]["mean"]),
                ("error_of_llama_cpp", &found["error_of_llama_cpp"]),
                ("word_perplexity", &lengths["word_perplexity"]),
                ("byte_perplexity", &lengths["byte_perplexity"]),
                ("bits_per_byte", &lengths["bits_per_byte"]["mean"]),
            ] {
                let Some(expected) = expected[key].as_f64() else {
                    assert!(found.is_null() && convention != "rolling");
                    continue;
                };
                let off = (found.as_f64().unwrap() / expected - 1.0).abs();
                let most = if key == "error_of_llama_cpp" {
                    1e-3
                } else {
                    1e-4
                };
                assert!(off <= most, "{family} {convention} {key}: {off:e} off");
            }
        }
    }
}

#[test]
fn a_damaged_model_is_worse_and_a_copy_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let model = copied("trained/bitnet");
    let [copy, damaged] = ["copy", "damaged"].map(|name| folder.path().join(name));
    with_scales(&model, 0, 1.0, &copy);
    with_scales(&model, 0, 1.02, &damaged);
    let args = [
        text(&model),
        text(&copy),
        text(&damaged),
        "--tokens",
        "20000",
        "--no-speed",
        "--json",
    ];
    let report = json(&[&["validate"], &args[..]].concat());
    let of = |model: usize| &report["models"][model]["accuracy"][0]["divergence"];
    assert!(of(0).is_null());
    assert_eq!(
        (&of(1)["verdict"], &of(1)["kl"]["mean"]),
        (&"identical".into(), &0.0.into())
    );
    assert_eq!(of(1)["top1"]["mean"], 1.0);
    // Surely worse, and by less than matters.
    assert_eq!(of(2)["verdict"], "no_practical_difference");
    assert_eq!(
        (&of(2)["significance"], &of(2)["effect"]),
        (&"significant".into(), &"negligible".into())
    );
    assert!(of(2)["kl"]["mean"].as_f64().unwrap() < 1e-3);
    let answers = report["answer"].as_array().unwrap();
    let starts = |i: usize, start: &str| {
        let answer = answers[i].as_str().unwrap();
        assert!(answer.starts_with(start), "{answer}");
    };
    starts(0, "No difference: `copy` gives every token exactly");
    starts(
        1,
        "No practical difference: the predictions of `damaged` differ from `bitnet` by ",
    );
    let strict = json(&[&["validate", "--negligible", "1e-7"], &args[..]].concat());
    let verdict = &strict["models"][2]["accuracy"][0]["divergence"]["verdict"];
    assert!(["worse", "worse_by_kl"].contains(&verdict.as_str().unwrap()));
    let answer = strict["answer"][1].as_str().unwrap();
    assert!(answer.contains("significantly worse"), "{answer}");
}

/// The state file whose name ends in `.scores`.
fn scores(out: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(out.join("state")).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    let mut scores: Vec<_> = paths
        .filter(|path| path.extension().unwrap() == "scores")
        .collect();
    scores.sort();
    scores
}

#[test]
fn threads_change_no_digit_and_torn_work_is_done_again() {
    let folder = tempfile::tempdir().unwrap();
    let [one, two] = ["one", "two"].map(|name| folder.path().join(name));
    let other = folder.path().join("other");
    let model = copied("trained/llama");
    with_scales(&model, 1, 1.5, &other);
    let figures = |out: &Path, threads: &str, tokens: &str| -> Value {
        let mut args = vec![
            "validate",
            text(&model),
            text(&other),
            "--out",
            text(out),
            "--no-speed",
        ];
        args.extend(["--tokens", tokens, "--threads", threads, "--json"]);
        let report = json(&args);
        let models = report["models"].as_array().unwrap();
        models.iter().map(|m| m["accuracy"].clone()).collect()
    };
    let expected = figures(&one, "1", "3000");
    assert_eq!(figures(&two, "2", "3000"), expected);
    let files = scores(&two);
    let whole: Vec<Vec<u8>> = files
        .iter()
        .map(|path| std::fs::read(path).unwrap())
        .collect();
    assert_eq!(whole.len(), 2);
    for (path, keep) in files.iter().zip([7001, 30_005]) {
        let bytes = std::fs::read(path).unwrap();
        std::fs::write(path, &bytes[..keep]).unwrap();
    }
    assert_eq!(figures(&two, "1", "3000"), expected);
    for (path, whole) in files.iter().zip(&whole) {
        assert!(
            std::fs::read(path).unwrap() == *whole,
            "the same bytes again"
        );
    }
    // A run with fewer tokens keeps the results of a run with more.
    figures(&two, "1", "500");
    assert!(std::fs::read(&files[0]).unwrap() == whole[0]);
}

#[test]
fn a_report_is_written_and_gates_decide() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("report");
    let (a, b) = (copied("trained/bitnet"), copied("trained/llama"));
    let common = |gate: &'static str| {
        let mut args = vec![
            "validate",
            text(&a),
            text(&b),
            "--out",
            text(&out),
            "--tokens",
            "2000",
        ];
        args.extend([
            "--repetitions",
            "1",
            "--batch",
            "1,2",
            "--json",
            "--gate",
            gate,
        ]);
        args.iter().map(|arg| arg.to_string()).collect::<Vec<_>>()
    };
    let run = |gate| {
        let args = common(gate);
        sterna(&args.iter().map(String::as_str).collect::<Vec<_>>())
    };
    let held = run("kl<10,decode>0,bytes<1000000");
    assert_eq!(
        held.status.code(),
        Some(0),
        "{}",
        String::from_utf8_lossy(&held.stderr)
    );
    let report: Value = serde_json::from_slice(&held.stdout).unwrap();
    let written: Value =
        serde_json::from_slice(&std::fs::read(out.join("report.json")).unwrap()).unwrap();
    assert_eq!(report, written);
    let speed = &report["models"][1]["speed"];
    assert!(
        speed["by_threads"][0]["generate"]["tokens_per_second"]
            .as_f64()
            .unwrap()
            > 0.0
    );
    assert_eq!(speed["by_batch"].as_array().unwrap().len(), 2);
    assert_eq!(report["gates"].as_array().unwrap().len(), 3);
    let failed = run("kl<1e-9");
    assert_eq!(failed.status.code(), Some(1));
    let stderr = String::from_utf8_lossy(&failed.stderr).into_owned();
    assert!(
        stderr.contains("gate: kl<1e-9 fails for llama: found "),
        "{stderr}"
    );
    let unknown = common("kel<1");
    let unknown = refused(2, &unknown.iter().map(String::as_str).collect::<Vec<_>>());
    assert!(
        unknown.contains("no figure `kel`; there are kl "),
        "{unknown}"
    );

    let html = std::fs::read_to_string(out.join("report.html")).unwrap();
    let answer = report["answer"][0].as_str().unwrap();
    assert!(
        html.contains("<svg")
            && html.contains("name=\"viewport\"")
            && html.contains("significantly")
    );
    let links = ["href=", "src=", "<script", "@import", "url("];
    assert!(
        links.iter().all(|link| !html.contains(link)),
        "the page needs nothing else"
    );
    let markdown = std::fs::read_to_string(out.join("report.md")).unwrap();
    assert!(markdown.contains(&answer[..20]) && markdown.contains("](kl-histogram.svg)"));
    for plot in [
        "accuracy-speed",
        "accuracy-size",
        "kl-histogram",
        "loss-by-position",
        "speed-by-threads",
        "speed-by-batch",
    ] {
        let svg = std::fs::read_to_string(out.join(format!("{plot}.svg"))).unwrap();
        assert!(
            svg.starts_with("<svg ") && svg.ends_with("</svg>\n"),
            "{plot}"
        );
        assert!(html.contains(&svg), "{plot} is in the page");
    }
}

#[test]
fn models_with_other_tokens_are_compared_by_bytes() {
    let (a, b) = (
        copied("trained/bitnet"),
        copied("checkpoints/falcon3-packed"),
    );
    let stories = fixture("perplexity/stories.jsonl");
    let args = [
        text(&a),
        text(&b),
        "--text",
        text(&stories),
        "--tokens",
        "500",
        "--no-speed",
        "--json",
    ];
    let report = json(&[&["validate"], &args[..]].concat());
    let of = |model: usize| &report["models"][model]["accuracy"][0];
    assert!(of(1)["divergence"].is_null());
    let bits = |model| {
        of(model)["perplexity"]["by_length"]["bits_per_byte"]["mean"]
            .as_f64()
            .unwrap()
    };
    assert!(bits(1) > bits(0)); // random weights know no stories
    assert!(
        report["answer"][0]
            .as_str()
            .unwrap()
            .contains("other tokens")
    );
}

#[test]
fn what_cannot_be_measured_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let model = copied("trained/bitnet");
    let short = folder.path().join("short.txt");
    std::fs::write(&short, "Once Mia.").unwrap();
    let check = |code, more: &[&str], part: &str| {
        let stderr = refused(
            code,
            &[&["validate", text(&model), "--no-speed"], more].concat(),
        );
        assert!(stderr.contains(part), "{stderr}");
    };
    check(
        3,
        &["--text", text(&short), "--convention", "chunks"],
        "expected at least 192 for the convention `chunks`",
    );
    check(
        2,
        &["--context", "97"],
        "expected 4 to 96, which all models take",
    );
    check(
        2,
        &["--convention", "strided", "--stride", "0"],
        "--stride 0: expected 1 to 96",
    );
    check(2, &["--gate", "kl<1"], "expected at least two models");
    check(2, &["--gate", "decode>1"], "remove --no-speed");
    check(2, &["--gate", "arc:acc>0.3"], "--tasks has no arc");
    check(2, &["--tokens", "0"], "--tokens is 0");
    check(2, &["--negligible", "-1"], "expected a number of nats");
    check(2, &["--tasks", "facts", "--limit", "0"], "--limit is 0");
    check(3, &["--text", "absent.txt"], "absent.txt");
    check(3, &["--masters"], "expected master weights");
}

/// A training run of a few steps.
const RECIPE: &str = "
    [model]
    family = 'bitnet'
    hidden_size = 64
    intermediate_size = 128
    num_hidden_layers = 2
    num_attention_heads = 2
    [data]
    held_out = 0.2
    vocab_size = 300
    [train]
    steps = 6
    learning_rate = 4e-3
    warmup = 2
    batch = 2
    context = 320
    evaluate_every = 3
    checkpoint_every = 3
";

#[test]
fn a_run_without_a_model_stands_for_its_checkpoint_and_masters_are_a_reference() {
    let folder = tempfile::tempdir().unwrap();
    let (recipe, run) = (folder.path().join("r.toml"), folder.path().join("run"));
    std::fs::write(&recipe, RECIPE).unwrap();
    let nothing = refused(3, &["validate", text(&folder.path().join("absent/run"))]);
    assert!(nothing.contains("absent"), "{nothing}");
    // A path relative to where the program runs, not to the folder of the run.
    let stories = "tests/fixtures/perplexity/stories.jsonl";
    let args = [
        "train",
        "--config",
        text(&recipe),
        "--text",
        stories,
        "--out",
    ];
    program::stdout(&[&args[..], &[text(&run)]].concat());
    let model = folder.path().join("model");
    let common = ["--tokens", "2000", "--no-speed", "--json"];
    let compare = |args: &[&str]| json(&[&["validate"], args, &common].concat());
    let is_same = || {
        let report = compare(&[text(&model), text(&run)]);
        report["models"][0]["sha256"] == report["models"][1]["sha256"]
    };
    std::fs::rename(run.join("model"), &model).unwrap();
    assert!(is_same());
    // A run that was continued has checkpoints that are newer than its exported model.
    std::fs::create_dir(run.join("model")).unwrap();
    let old = File::create(run.join("model/config.json")).unwrap();
    old.set_modified(SystemTime::UNIX_EPOCH).unwrap();
    assert!(is_same());
    std::fs::remove_dir_all(run.join("model")).unwrap();

    let report = compare(&[text(&run), "--masters"]);
    let of = |model: usize| &report["models"][model];
    assert_eq!(of(0)["name"], "run masters");
    assert_eq!(
        (&of(0)["packing"], &of(1)["packing"]),
        (&"f16".into(), &"i2".into())
    );
    assert!(of(0)["accuracy"][0]["divergence"].is_null());
    let note = report["notes"][0].as_str().unwrap();
    assert!(
        note.starts_with("`run masters` has the master weights") && note.contains("upper bound"),
        "{note}"
    );
    // A file of masters is known for what it is, one of products of trits and scales is not taken
    // for it.
    let [masters, packed, products] =
        ["masters", "packed", "products"].map(|name| folder.path().join(format!("{name}.sterna")));
    for (from, packing, to) in [
        (&model, "f16", &masters),
        (&model, "i2", &packed),
        (&packed, "f16", &products),
    ] {
        let to = ["--packing", packing, "--out", text(to)];
        program::stdout(&[&["convert", text(from)], &to[..]].concat());
    }
    let report = compare(&[text(&products), text(&masters)]);
    let has_masters = |model: usize| report["models"][model]["has_masters"].clone();
    assert_eq!(
        (has_masters(0), has_masters(1)),
        (false.into(), true.into())
    );
    assert_eq!(report["notes"].as_array().unwrap().len(), 1);
    let kl = &of(1)["accuracy"][0]["divergence"]["kl"]["mean"];
    assert!(kl.as_f64().unwrap() > 0.0, "{kl}");
    std::fs::remove_dir_all(run.join("checkpoints")).unwrap();
    let nothing = refused(3, &["validate", text(&run)]);
    assert!(nothing.contains("no checkpoint yet"), "{nothing}");
}

#[test]
fn a_report_after_kills_has_the_bytes_of_one_without() {
    let folder = tempfile::tempdir().unwrap();
    let [whole, killed] = ["whole", "killed"].map(|name| folder.path().join(name));
    let (a, b) = (copied("trained/bitnet"), folder.path().join("b"));
    with_scales(&a, 1, 1.3, &b);
    let validate = |out: &Path| {
        let mut args = vec!["validate", text(&a), text(&b), "--out", text(out)];
        args.extend(["--tasks", "stories,addition2", "--limit", "40"]);
        args.extend(["--convention", "rolling,chunks", "--tokens", "1500"]);
        args.extend(["--no-speed", "--json"]);
        let mut report = json(&args);
        let setting = report["setting"].as_object_mut().unwrap();
        setting.remove("command"); // it names the folder
        report.to_string()
    };
    let expected = validate(&whole);
    assert_eq!(validate(&killed), expected);
    let entries = std::fs::read_dir(killed.join("state")).unwrap();
    let mut parts: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    parts.sort();
    assert_eq!(parts.len(), 8); // two models: two conventions, two tasks
    for part in &parts {
        // A kill in the middle of each kind of work, and of a record.
        let bytes = std::fs::read(part).unwrap();
        std::fs::write(part, &bytes[..bytes.len() / 2 + 3]).unwrap();
        assert_eq!(validate(&killed), expected, "{}", part.display());
        assert!(std::fs::read(part).unwrap() == bytes, "{}", part.display());
    }
}

#[cfg(unix)]
#[test]
fn ctrl_c_ends_the_measurement_of_speed_soon() {
    use std::io::{BufRead, BufReader};
    use std::process::{Command, Stdio};
    let folder = tempfile::tempdir().unwrap();
    let model = copied("trained/bitnet");
    let mut program = Command::new(env!("CARGO_BIN_EXE_sterna"))
        .args(["validate", text(&model), "--tokens", "500", "--out"])
        .arg(folder.path())
        .args(["--repetitions", "1000000"])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // The first line shows that a measurement has begun that would last for days.
    let mut lines = BufReader::new(program.stderr.take().unwrap()).lines();
    let measures = |line: &String| line.contains("measurements of speed");
    assert!(lines.any(|line| measures(&line.unwrap())));
    let id = program.id().to_string();
    assert!(
        Command::new("kill")
            .args(["-INT", &id])
            .status()
            .unwrap()
            .success()
    );
    let pressed = std::time::Instant::now();
    assert_eq!(program.wait().unwrap().code(), Some(130));
    assert!(pressed.elapsed().as_secs() < 60, "{:?}", pressed.elapsed());
    assert_eq!(scores(folder.path()).len(), 1);
}
