//! Names of the hub on the command line, against a local server that speaks its protocol.

mod server;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;
use server::{COMMIT, Fault, Files, REPO, Server};
use tempfile::TempDir;

/// A server with a fixture as its model, and a folder with an empty cache to work in.
struct Setup {
    server: Server,
    folder: TempDir,
}

fn fixture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/checkpoints/falcon3-packed")
}

fn setup() -> Setup {
    let file = |entry: std::io::Result<std::fs::DirEntry>| {
        let entry = entry.unwrap();
        (
            entry.file_name().into_string().unwrap(),
            std::fs::read(entry.path()).unwrap(),
        )
    };
    let files: Files = fixture().read_dir().unwrap().map(file).collect();
    Setup {
        server: Server::start(files),
        folder: tempfile::tempdir().unwrap(),
    }
}

impl Setup {
    /// Runs a command in the folder, with nothing of this machine's settings.
    fn sterna(&self, args: &[&str], variables: &[(&str, &str)]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sterna"));
        let is_ours =
            |name: &str| name.starts_with("HF_") || name.to_lowercase().ends_with("_proxy");
        for (name, _) in std::env::vars_os() {
            if name.to_str().is_some_and(is_ours) {
                command.env_remove(name);
            }
        }
        command
            .args(args)
            .current_dir(self.folder.path())
            .env("HF_HOME", self.folder.path().join("home"))
            .env("XDG_CACHE_HOME", self.folder.path().join("caches"))
            .env("HF_ENDPOINT", &self.server.url)
            .envs(variables.iter().copied())
            .output()
            .unwrap()
    }

    fn stdout(&self, args: &[&str], variables: &[(&str, &str)]) -> String {
        let output = self.sterna(args, variables);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "sterna {args:?}: {stderr}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn json(&self, args: &[&str]) -> Value {
        serde_json::from_str(&self.stdout(args, &[])).unwrap()
    }

    /// Runs a command that must fail with `code`, and returns what it says.
    fn fails(&self, args: &[&str], variables: &[(&str, &str)], code: i32) -> String {
        let output = self.sterna(args, variables);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(
            output.status.code(),
            Some(code),
            "sterna {args:?}: {stderr}"
        );
        stderr
    }

    fn read(&self, file: &str) -> Vec<u8> {
        std::fs::read(self.folder.path().join(file)).unwrap()
    }
}

const OFFLINE: [(&str, &str); 1] = [("HF_HUB_OFFLINE", "1")];

#[test]
fn a_name_converts_to_the_same_bytes_as_its_folder() {
    let setup = setup();
    setup.stdout(&["convert", REPO, "--out", "name.sterna"], &[]);
    let local = fixture();
    setup.stdout(
        &["convert", local.to_str().unwrap(), "--out", "folder.sterna"],
        &[],
    );
    assert!(setup.read("name.sterna") == setup.read("folder.sterna"));

    setup.server.requests();
    setup.stdout(&["convert", REPO, "--out", "offline.sterna"], &OFFLINE);
    assert!(setup.read("name.sterna") == setup.read("offline.sterna"));
    assert!(setup.server.requests().is_empty());
}

#[test]
fn a_converted_folder_has_a_card_or_keeps_that_of_its_source() {
    let setup = setup();
    setup.stdout(&["convert", REPO, "--to", "hf", "--out", "converted"], &[]);
    let card = String::from_utf8(setup.read("converted/README.md")).unwrap();
    for part in [
        "base_model: \"org/name\"\n",
        "# org/name\n",
        "`org/name`",
        "accelerate",
    ] {
        assert!(card.contains(part), "{part} in {card}");
    }
    assert!(!card.contains("license"), "{card}");
    let own = "---\nlicense: mit\n---\nMine.\n";
    std::fs::write(setup.folder.path().join("converted/README.md"), own).unwrap();
    setup.stdout(
        &["convert", "converted", "--to", "hf", "--out", "again"],
        &[],
    );
    assert_eq!(setup.read("again/README.md"), own.as_bytes());
}

const RECIPE: &str = "
    [model]
    family = 'llama'
    hidden_size = 32
    intermediate_size = 48
    num_hidden_layers = 1
    num_attention_heads = 2
    [data]
    text = ['hf:org/name@main']
    vocab_size = 300
    held_out = 0.2
    [train]
    steps = 2
    batch = 2
    context = 16
    learning_rate = 1e-3
    warmup = 1
    sample_tokens = 4
";

#[test]
fn a_data_set_is_trained_on_by_name_and_the_run_says_of_which_commit() {
    let line = |i: usize| {
        format!(
            "{{\"text\": \"story {i} of {} terns and a very long way to go\"}}\n",
            i * i
        )
    };
    let lines = |of: std::ops::Range<usize>| of.map(line).collect::<String>().into_bytes();
    let files = [
        ("README.md".to_owned(), b"a card".to_vec()),
        ("data/a.jsonl".to_owned(), lines(0..40)),
        ("data/b.jsonl".to_owned(), lines(40..80)),
    ];
    let setup = Setup {
        server: Server::start(files.into()),
        folder: tempfile::tempdir().unwrap(),
    };
    std::fs::write(setup.folder.path().join("r.toml"), RECIPE).unwrap();
    let args = ["train", "--config", "r.toml", "--out"];
    setup.stdout(&[&args[..], &["run"]].concat(), &[]);
    let asked = setup.server.requests();
    let has = |part: &str| asked.iter().any(|request| request.path.contains(part));
    assert!(has("/api/datasets/org/name/revision/main"));
    assert!(has("/datasets/org/name/resolve/") && has("data/b.jsonl") && !has("README"));
    let snapshot = format!("datasets--org--name/snapshots/{COMMIT}");
    for name in ["run/recipe.toml", "run/run.json"] {
        let text = String::from_utf8(setup.read(name)).unwrap();
        assert!(text.contains(&snapshot), "{text}");
    }
    let card = String::from_utf8(setup.read("run/model/README.md")).unwrap();
    let (block, body) = card
        .strip_prefix("---\n")
        .unwrap()
        .split_once("---\n")
        .unwrap();
    assert!(
        block.contains("datasets: [\"org/name\"]\n") && block.contains("\"bitnet\""),
        "{block}"
    );
    assert!(
        !block.contains("license") && !block.contains("base_model"),
        "{block}"
    );
    let folder = setup.folder.path().to_str().unwrap();
    assert!(
        !card.contains(folder),
        "a card tells no path of this machine: {card}"
    );
    for part in [
        "# run\n",
        "trained from scratch",
        "held-out loss: ",
        "| train.steps | 2 |",
        "train.tokens | ",
    ] {
        assert!(body.contains(part), "{part} in {body}");
    }
    setup.stdout(&[&args[..], &["again"]].concat(), &OFFLINE);
    let model = "model/model.safetensors";
    assert!(setup.read(&format!("run/{model}")) == setup.read(&format!("again/{model}")));

    let empty = "fedcba9876543210fedcba9876543210fedcba98";
    let card = ("README.md".to_owned(), b"a card".to_vec());
    setup.server.set_revision("empty", empty, [card].into());
    let other = ["none", "--set", "data.text=['hf:org/name@empty']"];
    let message = setup.fails(&[&args[..], &other].concat(), &[], 3);
    assert!(
        message.contains(".parquet or .txt") && message.contains("README.md"),
        "{message}"
    );

    let absent = ["none", "--set", "data.text=['hf:org/other']"];
    let message = setup.fails(&[&args[..], &absent].concat(), &[], 3);
    assert!(
        message.contains("no such data set") && !message.contains("model"),
        "{message}"
    );
}

#[test]
fn a_data_set_is_pulled_listed_prepared_and_removed_by_name() {
    let line = |i: usize| format!("{{\"text\": \"tern {i} of {}\"}}\n", i * i);
    let lines = (0..60).map(line).collect::<String>().into_bytes();
    let setup = Setup {
        server: Server::start([("data/a.jsonl".to_owned(), lines)].into()),
        folder: tempfile::tempdir().unwrap(),
    };
    let name = "hf:org/name";
    let pulled = setup.json(&["pull", name, "--json"]);
    assert_eq!(pulled["files"][0]["name"], "data/a.jsonl");
    let models = &setup.json(&["models", "--json"])["models"];
    assert_eq!(
        (&models[0]["name"], &models[0]["kind"], &models[0]["bytes"]),
        (&name.into(), &"dataset".into(), &pulled["bytes"])
    );
    assert!(setup.stdout(&["models"], &[]).contains(name));

    let train = ["tokenizer", "train", name, "--vocab-size", "280"];
    setup.stdout(&[&train[..], &["--out", "tokens"]].concat(), &OFFLINE);
    let prepare = |text: &str, out: &str| {
        let args = ["data", "prepare", text, "--tokenizer", "tokens"];
        setup.stdout(&[&args[..], &["--out", out]].concat(), &OFFLINE);
        setup.read(&format!("{out}/train.tokens"))
    };
    let file = pulled["path"].as_str().unwrap();
    assert!(prepare(name, "by-name") == prepare(file, "by-path"));

    setup.stdout(&["models", "remove", name], &[]);
    let error = setup.fails(&["models", "remove", name], &[], 3);
    assert!(error.contains("no such data set in the cache"), "{error}");
    let error = setup.fails(&["pull", "hf:stories"], &[], 3);
    assert!(error.contains("expected hf:org/name"), "{error}");
}

#[test]
fn a_broken_connection_is_resumed_and_the_token_stays_at_the_hub() {
    let setup = setup();
    setup.server.require_token("hf_right");
    setup.server.fault("store", Fault::Cut(100_000));
    let token = [("HF_TOKEN", "hf_right")];
    let output = setup.sterna(&["convert", REPO, "--out", "name.sterna"], &token);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && stderr.contains("the connection broke"),
        "{stderr}"
    );
    assert!(
        !stderr.contains("hf_right") && !stderr.contains("secret"),
        "{stderr}"
    );
    let stored: Vec<_> = setup
        .server
        .requests()
        .into_iter()
        .filter(|r| r.to_store)
        .collect();
    assert_eq!(stored[1].range.as_deref(), Some("bytes=100000-"));
    assert!(
        stored
            .iter()
            .all(|r| r.authorization.is_none() && r.path.contains("model.safetensors"))
    );
}

#[test]
fn models_are_compared_by_name() {
    let setup = setup();
    setup.stdout(&["convert", REPO, "--out", "local.sterna"], &[]);
    for pair in [[REPO, "local.sterna"], ["local.sterna", REPO]] {
        let found = setup.json(&[&["verify", "--json"], &pair[..]].concat());
        assert_eq!(
            (&found["differ"], &found["scales_differ"]),
            (&0.into(), &0.into())
        );
        assert!(found["weights"].as_u64() > Some(1000), "{found}");
    }
    for file in ["nope.sterna", "nope.gguf"] {
        let error = setup.fails(&["verify", REPO, file], &[], 3);
        assert_eq!(error, format!("error: {file}: no such file or folder\n"));
    }
    setup.fails(&["verify", "org/other", REPO], &[], 3);
}

#[test]
fn a_path_that_exists_wins() {
    let setup = setup();
    let here = setup.folder.path().join(REPO);
    std::fs::create_dir_all(&here).unwrap();
    let error = setup.fails(&["convert", REPO, "--out", "x.sterna"], &[], 3);
    assert!(error.contains("there is no config.json"), "{error}");
    assert!(setup.server.requests().is_empty());
}

#[test]
fn pull_list_inspect_remove() {
    let setup = setup();
    assert_eq!(
        setup.json(&["models", "--json"])["models"],
        Value::Array(vec![])
    );
    let pulled = setup.json(&["pull", REPO, "--json"]);
    assert_eq!(
        (&pulled["commit"], &pulled["downloaded_bytes"]),
        (&COMMIT.into(), &pulled["bytes"])
    );
    let path = setup.stdout(&["pull", REPO], &[]);
    assert_eq!(path.trim(), pulled["path"]);

    let models = setup.json(&["models", "--json"]);
    assert_eq!(
        (&models["models"][0]["name"], &models["models"][0]["bytes"]),
        (&REPO.into(), &pulled["bytes"])
    );
    assert!(setup.stdout(&["models"], &[]).contains("main"));
    let facts = setup.json(&["inspect", REPO, "--verify", "--json"]);
    assert_eq!(
        (&facts["family"], &facts["path"]),
        (&"llama".into(), &pulled["path"])
    );
    assert!(
        setup
            .stdout(&["inspect", REPO], &OFFLINE)
            .contains("2 bits, scales to")
    );

    setup.fails(&["models", "remove", "org/name:config.json"], &[], 2);
    setup.stdout(&["models", "remove", REPO], &[]);
    assert_eq!(
        setup.json(&["models", "--json"])["models"],
        Value::Array(vec![])
    );
    let error = setup.fails(&["models", "remove", REPO], &[], 3);
    assert!(error.contains("no such model in the cache"), "{error}");
}

#[test]
fn a_packed_file_runs_by_its_name() {
    let setup = setup();
    setup.stdout(&["convert", REPO, "--out", "local.sterna"], &[]);
    let mut files = Files::new();
    files.insert("m.sterna".into(), setup.read("local.sterna"));
    setup.server.set_revision("packed", &"a".repeat(40), files);
    let logits = |model: &str| {
        setup.stdout(
            &[
                "logits",
                model,
                "--ids",
                "1,2,3",
                "--out",
                "logits.safetensors",
            ],
            &[],
        );
        setup.read("logits.safetensors")
    };
    let local = logits("local.sterna");
    assert!(logits("org/name@packed") == local && logits("org/name@packed:m.sterna") == local);
    assert_eq!(
        setup.json(&["inspect", "org/name@packed", "--json"])["packing"],
        "i2"
    );
    // What is not packed on the hub is packed into the cache of the user, not into that of the hub.
    let listed = setup.stdout(&["models", "--json"], &[]);
    let output = setup.sterna(
        &[
            "logits",
            REPO,
            "--ids",
            "1,2,3",
            "--out",
            "logits.safetensors",
        ],
        &[],
    );
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(
        said.contains("packed ") && said.contains("caches/sterna"),
        "{said}"
    );
    assert!(setup.read("logits.safetensors") == local);
    assert_eq!(setup.stdout(&["models", "--json"], &[]), listed);
}

#[test]
fn what_fails_says_why_and_with_which_code() {
    let setup = setup();
    let check = |model: &str, variables: &[(&str, &str)], code: i32, part: &str| {
        let error = setup.fails(&["convert", model, "--out", "x.sterna"], variables, code);
        assert!(
            error.starts_with("error: ") && error.contains(part),
            "{error}"
        );
        assert!(!error.contains("panicked"), "{error}");
    };
    for file in [
        "nothing",
        "nope.gguf",
        "nope.sterna",
        "runs/x.sterna",
        "a/b/c",
    ] {
        let error = setup.fails(&["convert", file, "--out", "x.sterna"], &[], 3);
        assert_eq!(error, format!("error: {file}: no such file or folder\n"));
    }
    check(
        "org/name@",
        &[],
        3,
        "no such file or folder: org/name@ is not the name",
    );
    check("./org/name", &[], 3, "./org/name");
    check("/org/name", &[], 3, "/org/name");
    check(
        "org/other",
        &[],
        3,
        "no such file or folder, so the hub was asked: org/other: ",
    );
    check("org/name@v9", &[], 3, "no revision v9");
    check("org/name:z.gguf", &[], 3, "\"z.gguf\"");
    check(REPO, &OFFLINE, 3, "HF_HUB_OFFLINE");
    check(
        REPO,
        &[("HF_ENDPOINT", "http://127.0.0.1:1")],
        1,
        "cannot be reached",
    );
    check(REPO, &[("HF_ENDPOINT", "ftp://x")], 1, "HF_ENDPOINT");
    setup.server.requests();
    setup.fails(&["convert", REPO, "--out", "no/folder/x.sterna"], &[], 1);
    assert!(
        setup.server.requests().is_empty(),
        "nothing is fetched for a place that does not exist"
    );
    setup.server.require_token("hf_right");
    check(REPO, &[], 3, "set HF_TOKEN");
    setup.stdout(&["pull", REPO], &[("HF_TOKEN", "hf_right")]);
}
