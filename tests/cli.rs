//! The command line: the whole pipeline on a tiny model, and the errors of broken files.

mod program;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use program::{json, stdout, sterna, text};
use serde_json::Value;

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
    context = 96
    learning_rate = 4e-3
    warmup = 2
    evaluate_every = 6
    checkpoint_every = 4
";

/// Runs a command that must refuse its input, and returns its only message.
fn refused(args: &[&str]) -> String {
    let message = program::refused(3, args);
    assert!(message.starts_with("error: "), "{message}");
    message
}

/// A run of the recipe above, its Hugging Face folder and its packed file, shared by the tests.
struct Run {
    _folder: tempfile::TempDir,
    recipe: PathBuf,
    out: PathBuf,
    packed: PathBuf,
}

static RUN: LazyLock<Run> = LazyLock::new(|| {
    let folder = tempfile::tempdir().unwrap();
    let recipe = folder.path().join("tiny.toml");
    std::fs::write(&recipe, RECIPE).unwrap();
    let out = folder.path().join("run");
    let trained = json(&[
        "train",
        "--config",
        text(&recipe),
        "--out",
        text(&out),
        "--json",
    ]);
    assert_eq!(trained["step"], 12);
    assert!(trained["held_out_loss"].as_f64().unwrap() < 6.0);
    let packed = out.join("model.sterna");
    stdout(&["convert", text(&out.join("model")), "--out", text(&packed)]);
    Run {
        _folder: folder,
        recipe,
        out,
        packed,
    }
});

#[test]
fn text_to_train_to_convert_to_text() {
    let run = &*RUN;
    let model = text(&run.packed);
    let greedy = json(&["generate", model, "--prompt", "Once", "-n", "8", "--json"]);
    assert_eq!(greedy["ids"].as_array().unwrap().len(), 8);
    let plain = stdout(&[
        "generate",
        model,
        "--prompt",
        "Once",
        "-n",
        "8",
        "--threads",
        "1",
    ]);
    assert_eq!(
        plain.trim_end_matches('\n'),
        greedy["text"].as_str().unwrap().trim_end_matches('\n')
    );
    let facts = json(&["inspect", model, "--verify", "--json"]);
    assert_eq!(
        (&facts["family"], &facts["packing"]),
        (&"bitnet".into(), &"i2".into())
    );
    assert_eq!(facts["matrices"].as_array().unwrap().len(), 14);
    // The folder it came from has the same model and, by the one quantizer, the same trits.
    let folder = run.out.join("model");
    let masters = json(&["inspect", text(&folder), "--verify", "--json"]);
    assert_eq!(masters["packing"], "masters");
    for key in [
        "family",
        "parameters",
        "ternary_weights",
        "files",
        "matrices",
    ] {
        assert_eq!(masters[key], facts[key], "{key}");
    }
}

#[test]
fn the_same_recipe_gives_the_same_bytes_for_any_number_of_threads_and_after_a_resume() {
    let run = &*RUN;
    let folder = tempfile::tempdir().unwrap();
    let weights = |out: &Path| std::fs::read(out.join("model/model.safetensors")).unwrap();
    let metrics = |out: &Path| std::fs::read(out.join("metrics.jsonl")).unwrap();
    let (one, resumed) = (folder.path().join("one"), folder.path().join("resumed"));
    let train = |out: &Path, more: &[&str]| {
        stdout(
            &[
                &["train", "--config", text(&run.recipe), "--out", text(out)],
                more,
            ]
            .concat(),
        );
    };
    train(&one, &["--threads", "1"]);
    assert!(weights(&one) == weights(&run.out) && metrics(&one) == metrics(&run.out));

    // A run that was killed after the checkpoint of step 8 while it wrote the next one.
    train(&resumed, &[]);
    let checkpoints = resumed.join("checkpoints");
    let last = checkpoints.join("step-00000012.safetensors");
    let torn = std::fs::read(&last).unwrap();
    std::fs::write(&last, &torn[..torn.len() / 2]).unwrap();
    std::fs::remove_dir_all(resumed.join("model")).unwrap();
    train(&resumed, &["--threads", "3"]);
    assert!(weights(&resumed) == weights(&run.out) && metrics(&resumed) == metrics(&run.out));
}

#[test]
fn logits_are_the_same_for_every_packing_and_as_wide_as_the_vocabulary() {
    let run = &*RUN;
    let folder = tempfile::tempdir().unwrap();
    let i2 = folder.path().join("i2.sterna");
    stdout(&[
        "convert",
        text(&run.out.join("model")),
        "--packing",
        "i2",
        "--out",
        text(&i2),
    ]);
    let logits = |model: &Path, name: &str| {
        let out = folder.path().join(name);
        stdout(&[
            "logits",
            text(model),
            "--ids",
            "0,5,6,7",
            "--out",
            text(&out),
        ]);
        std::fs::read(out).unwrap()
    };
    let (a, b) = (logits(&run.packed, "a"), logits(&i2, "b"));
    assert!(a == b);
    let tensors = safetensors::SafeTensors::deserialize(&a).unwrap();
    let vocabulary = json(&["inspect", text(&i2), "--json"])["vocab_size"]
        .as_u64()
        .unwrap();
    assert_eq!(
        tensors.tensor("logits").unwrap().shape(),
        [4, vocabulary as usize]
    );
}

#[test]
fn a_model_folder_without_one_of_its_files_is_refused() {
    let run = &*RUN;
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("model");
    let out = folder.path().join("out.sterna");
    let copy = || {
        std::fs::create_dir_all(&model).unwrap();
        let entries = std::fs::read_dir(run.out.join("model")).unwrap();
        let is_read = |name: &std::ffi::OsStr| name != "README.md";
        entries
            .map(|entry| entry.unwrap())
            .filter(|entry| is_read(&entry.file_name()))
            .map(|entry| {
                std::fs::copy(entry.path(), model.join(entry.file_name())).unwrap();
                model.join(entry.file_name())
            })
            .collect::<Vec<_>>()
    };
    assert_eq!(copy().len(), 5);
    for path in copy() {
        copy();
        std::fs::remove_file(&path).unwrap();
        let message = refused(&["convert", text(&model), "--out", text(&out)]);
        let name = path.file_name().unwrap().to_str().unwrap();
        assert!(message.contains(name), "{name}: {message}");
        assert!(!out.exists());
    }
}

#[test]
fn other_formats_and_back_and_whether_they_are_equal() {
    let run = &*RUN;
    let folder = tempfile::tempdir().unwrap();
    let model = run.out.join("model");
    let at = |name: &str| folder.path().join(name);
    // No GGUF type has blocks of 32 columns, so the shape of the quickstart is too small here.
    let recipe = at("wide.toml");
    let wide = RECIPE
        .replace("= 32", "= 256")
        .replace("= 48", "= 256")
        .replace("= 12", "= 2");
    std::fs::write(&recipe, wide.replace("= 'bitnet'", "= 'llama'")).unwrap();
    let out = at("run");
    stdout(&["train", "--config", text(&recipe), "--out", text(&out)]);
    let wide = out.join("model");
    let message = refused(&[
        "convert",
        text(&model),
        "--to",
        "i2_s",
        "--out",
        text(&at("x")),
    ]);
    assert!(message.contains("multiple of 128"), "{message}");
    for to in ["i2_s", "tq1_0", "tq2_0", "q2_0", "iq2_bn", "hf"] {
        let file = at(to);
        let mut args = vec![
            "convert",
            text(&wide),
            "--to",
            to,
            "--out",
            text(&file),
            "--json",
        ];
        if !["i2_s", "iq2_bn", "hf"].contains(&to) {
            let message = refused(&args);
            assert!(message.contains("--lossy"), "{message}");
            args.push("--lossy");
        }
        let report = json(&args);
        assert_eq!(report["differ"], 0);
        let packed = at("packed");
        stdout(&[
            "convert",
            text(&file),
            "--out",
            text(&packed),
            "--head",
            "lossless",
        ]);
        let found = sterna(&["verify", text(&wide), text(&packed), "--json"]);
        let is_exact = report["scale_rounding"] == 0.0;
        assert_eq!(found.status.code(), Some(i32::from(!is_exact)), "{to}");
        let found: Value = serde_json::from_slice(&found.stdout).unwrap();
        assert_eq!(
            (&found["differ"], &found["values_differ"]),
            (&0.into(), &0.into())
        );
        assert_eq!(found["weights"], report["weights"]);
        stdout(&["generate", text(&packed), "--prompt", "Once", "-n", "2"]);
    }
    let packed = text(&run.packed);
    stdout(&["verify", text(&model), packed]);
    let other = sterna(&["verify", packed, text(&wide)]);
    assert_eq!(other.status.code(), Some(1));
    refused(&["verify", packed, text(&recipe)]);
    let garbage = at("garbage.gguf");
    std::fs::write(&garbage, b"GGUF\x03\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff").unwrap();
    let message = refused(&["convert", text(&garbage), "--out", text(&at("y"))]);
    assert!(message.contains("garbage.gguf"), "{message}");
}

#[test]
fn a_damaged_packed_file_is_refused() {
    let run = &*RUN;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("broken.sterna");
    let whole = std::fs::read(&run.packed).unwrap();
    let check = |bytes: &[u8]| {
        std::fs::write(&path, bytes).unwrap();
        refused(&["generate", text(&path), "-n", "1"]);
    };
    for i in 0..50 {
        check(&whole[..whole.len() * i / 50]);
    }
    let header = 8 + u64::from_le_bytes(whole[..8].try_into().unwrap()) as usize;
    for i in 0..100 {
        let mut bytes = whole.clone();
        bytes[i * header / 100] ^= 1 << (i % 8);
        check(&bytes);
    }
    refused(&["inspect", text(&run.recipe)]);
    refused(&["generate", text(&folder.path().join("absent.sterna"))]);
}

#[test]
fn usage_errors_say_what_is_possible() {
    let run = &*RUN;
    let usage = |args: &[&str], expected: &str| {
        let output = sterna(args);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {stderr}");
        assert!(stderr.contains(expected), "{args:?}: {stderr}");
    };
    usage(&["convert", "x", "--out", "y", "--packing", "q4"], "i2");
    usage(&["convert", "x", "--out", "y", "--to", "onnx"], "tq2_0");
    usage(&["convert", "x", "--out", "y", "--pre", "gpt-2"], "--to");
    usage(
        &["convert", "x", "--out", "y", "--to", "hf", "--head", "q8"],
        "--head",
    );
    usage(
        &["generate", text(&run.packed), "--kernels", "gpu"],
        "scalar",
    );
    usage(
        &["generate", text(&run.packed), "--threads", "0"],
        "1 to 4096",
    );
    usage(&["data", "generate", "--mix", "chess=1"], "addition2");
    usage(&["trian"], "train");
    for expected in ["--preset", "tiny-1m, 5m", "--text", "--config", "--from"] {
        usage(&["train"], expected);
    }
    usage(&["train", "--preset", "5m", "--text", "x"], "--out");
    let recipe = run.out.with_file_name("typo.toml");
    std::fs::write(&recipe, RECIPE.replace("steps", "stepz")).unwrap();
    let out = run.out.with_file_name("typo");
    let message = refused(&["train", "--config", text(&recipe), "--out", text(&out)]);
    assert!(
        message.contains("stepz") && message.contains("typo.toml"),
        "{message}"
    );
}

#[test]
fn a_negative_number_reaches_the_check_of_its_own() {
    for name in ["temperature", "top_p", "min_p", "repetition_penalty"] {
        let flag = format!("--{}", name.replace('_', "-"));
        let message = program::refused(2, &["generate", text(&RUN.packed), &flag, "-1"]);
        assert!(
            message.contains(&format!("{name} is -1, expected")),
            "{message}"
        );
    }
}

#[test]
fn man_pages_of_the_program_and_of_each_verb() {
    let page = stdout(&["man"]);
    assert!(
        page.contains(".TH sterna 1") && page.contains("sterna\\-train(1)"),
        "{page}"
    );
    let folder = tempfile::tempdir().unwrap();
    stdout(&["man", "--out", text(folder.path())]);
    assert_eq!(
        std::fs::read_to_string(folder.path().join("sterna.1")).unwrap(),
        page
    );
    let nested = std::fs::read_to_string(folder.path().join("sterna-data-generate.1")).unwrap();
    assert!(
        nested.contains("held\\-out") && nested.contains("Examples:"),
        "{nested}"
    );
    // A page for each verb that a shell completes, and completions of each shell of a release.
    let bash = stdout(&["completions", "bash"]);
    let verbs = bash.lines().filter_map(|line| {
        let path = line.trim().strip_prefix("cmd=\"sterna__subcmd__")?;
        Some(path.trim_end_matches('"').replace("__subcmd__", "-"))
    });
    // A verb with an alias is there twice.
    let verbs: BTreeSet<String> = verbs.filter(|verb| !verb.contains("help")).collect();
    assert!(verbs.len() > 20, "{verbs:?}");
    for verb in &verbs {
        let path = folder.path().join(format!("sterna-{verb}.1"));
        let page = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{verb}: {e}"));
        assert!(
            page.contains(".SH NAME\n") && page.contains(".SH SYNOPSIS\n"),
            "{page}"
        );
    }
    let pages = folder.path().read_dir().unwrap().count();
    assert_eq!(pages, 1 + verbs.len());
    for (shell, begin) in [
        ("zsh", "#compdef sterna"),
        ("fish", "# Print an optspec"),
        ("powershell", "using namespace"),
    ] {
        let script = stdout(&["completions", shell]);
        assert!(script.trim_start().starts_with(begin), "{shell}: {script}");
        assert!(script.contains("quickstart") && script.contains("api-key-file"));
    }
}

#[test]
fn data_and_tokenizer_by_hand() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let generated = stdout(&["data", "generate", "--mix", "facts=1", "-n", "50"]);
    assert_eq!(
        generated,
        stdout(&["data", "generate", "--mix", "facts=1", "-n", "50"])
    );
    assert_eq!(generated.lines().count(), 50);
    std::fs::write(at("facts.jsonl"), &generated).unwrap();
    let trained = json(&[
        "tokenizer",
        "train",
        text(&at("facts.jsonl")),
        "--vocab-size",
        "280",
        "--out",
        text(&at("tokenizer")),
        "--json",
    ]);
    assert_eq!(trained["vocab_size"], 280);
    let prepared = json(&[
        "data",
        "prepare",
        text(&at("facts.jsonl")),
        "--tokenizer",
        text(&at("tokenizer")),
        "--out",
        text(&at("tokens")),
        "--held-out",
        "0.2",
        "--json",
    ]);
    let documents = |side: &str| prepared[side]["documents"].as_u64().unwrap();
    assert_eq!(documents("train") + documents("held_out"), 50);
    let message = refused(&[
        "data",
        "prepare",
        text(&at("absent.txt")),
        "--tokenizer",
        text(&at("tokenizer")),
        "--out",
        text(&at("tokens")),
    ]);
    assert!(message.contains("absent.txt"), "{message}");
    assert!(stdout(&["completions", "bash"]).contains("quickstart"));
}
