//! Every verb with an output that cannot be written: a closed pipe, and a full device.

mod program;

use std::collections::BTreeSet;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use program::{fixture, stdout, text};

/// Everything that the verbs need, in one folder.
struct Files(tempfile::TempDir);

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
    steps = 2
    batch = 2
    context = 64
    learning_rate = 4e-3
    warmup = 1
    sample_tokens = 0
";

/// A commit of a model in the cache of the hub.
const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

impl Files {
    fn new() -> Files {
        let files = Files(tempfile::tempdir().unwrap());
        let source = fixture("trained/llama");
        std::fs::create_dir(files.0.path().join("folder")).unwrap();
        for entry in source.read_dir().unwrap() {
            let entry = entry.unwrap();
            std::fs::copy(
                entry.path(),
                files.0.path().join("folder").join(entry.file_name()),
            )
            .unwrap();
        }
        let template = "{% for m in messages %}{{ m.content }}{% endfor %}";
        std::fs::write(files.path("folder/chat_template.jinja"), template).unwrap();
        stdout(&[
            "convert",
            &files.path("folder"),
            "--out",
            &files.path("model"),
        ]);
        let embedding = fixture("checkpoints/qwen3-embedding");
        stdout(&[
            "convert",
            text(&embedding),
            "--out",
            &files.path("embedding"),
        ]);
        std::fs::write(files.path("recipe"), RECIPE).unwrap();
        let line = "{\"fingerprint\": \"st-000000000000\", \"route\": \"/v1/completions\"}\n";
        std::fs::write(files.path("log"), line).unwrap();
        stdout(&[
            "train",
            "--config",
            &files.path("recipe"),
            "--out",
            &files.path("run"),
        ]);
        std::fs::write(
            files.path("text.txt"),
            "Once Mia sat in the barn.\n".repeat(200),
        )
        .unwrap();
        std::fs::copy(files.path("folder/config.json"), files.path("config.json")).unwrap();
        stdout(&[
            "tokenizer",
            "train",
            &files.path("text.txt"),
            "--vocab-size",
            "300",
            "--out",
            &files.path("tokenizer"),
        ]);
        let snapshot = files.snapshot("name");
        std::fs::rename(files.0.path().join("folder"), &snapshot).unwrap();
        files
    }

    /// The path of the files of org/NAME in the cache of the hub, before they are written.
    fn snapshot(&self, name: &str) -> PathBuf {
        let repository = self.0.path().join(format!("hub/models--org--{name}"));
        std::fs::create_dir_all(repository.join("refs")).unwrap();
        std::fs::create_dir_all(repository.join("snapshots")).unwrap();
        std::fs::write(repository.join("refs/main"), COMMIT).unwrap();
        repository.join("snapshots").join(COMMIT)
    }

    fn path(&self, name: &str) -> String {
        text(&self.0.path().join(name)).to_owned()
    }

    /// Arguments with which a verb prints to stdout; `@name` is a file of the folder.
    fn arguments(&self, verb: &str) -> Vec<String> {
        let line = match verb {
            "quickstart" => "quickstart --steps 2 --out @quickstart",
            "data generate" => "data generate --mix stories=1 -n 2",
            "data prepare" => "data prepare @text.txt --tokenizer @tokenizer --out @tokens",
            "tokenizer train" => "tokenizer train @text.txt --vocab-size 300 --out @tokenizer",
            "train" => "train --config @recipe --print-config",
            "plot" => "plot @run --out @loss.svg",
            "pull" => "pull org/name",
            "models" => "models --json",
            "models list" => "models list",
            "models remove" => "models remove org/removed",
            "convert" => "convert org/name --out @converted",
            "verify" => "verify @model @model",
            "inspect" => "inspect @model",
            "doctor" => "doctor @model",
            "generate" => "generate @model --prompt Once -n 2",
            "chat" => "chat @model --max-tokens 2",
            "replay" => "replay @log @model",
            "embed" => "embed @embedding --text Once",
            "logits" => "logits @model --ids 1,2 --out @logits",
            "bench" => "bench @model --pp 2 --tg 2 --repetitions 1",
            "validate" => "validate @model --text @text.txt --context 32 --tokens 64 --out @report",
            "cpu" => "cpu",
            "synthesize" => "synthesize @config.json --out @synthetic",
            "completions" => "completions bash",
            "man" => "man",
            verb => panic!("{verb}: this test does not know how the verb prints"),
        };
        let word = |word: &str| match word.strip_prefix('@') {
            Some(name) => self.path(name),
            None => word.to_owned(),
        };
        line.split(' ').map(word).collect()
    }

    fn run(&self, args: &[String], stdout: Stdio) -> Output {
        // The verb that removes a model runs more than once.
        std::fs::create_dir_all(self.snapshot("removed")).unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_sterna"))
            .args(args)
            .env("HF_HUB_CACHE", self.path("hub"))
            .env("HF_HUB_OFFLINE", "1")
            .stdin(Stdio::piped())
            .stdout(stdout)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // A program that ends early does not read it.
        let _ = std::io::Write::write_all(&mut child.stdin.take().unwrap(), b"Hello\n");
        child.wait_with_output().unwrap()
    }
}

/// All verbs, from the completion script of a shell; nested verbs have two words.
fn verbs() -> BTreeSet<String> {
    let script = stdout(&["completions", "bash"]);
    let names = script.lines().filter_map(|line| {
        let path = line
            .trim()
            .strip_prefix("cmd=\"sterna__subcmd__")?
            .strip_suffix('"')?;
        Some(path.replace("__subcmd__", " "))
    });
    names
        .filter(|name| !name.split(' ').any(|word| word == "help"))
        .collect()
}

/// A pipe without a reader.
fn closed() -> Stdio {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    writer.into()
}

fn check(files: &Files, args: &[String], what: &str) {
    let output = files.run(args, closed());
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(
        output.status.code(),
        Some(0),
        "{what}, closed pipe: {stderr}"
    );
    assert!(!stderr.contains("error: "), "{what}, closed pipe: {stderr}");
    let full = Path::new("/dev/full");
    if full.exists() {
        let device = File::options().write(true).open(full).unwrap();
        let output = files.run(args, device.into());
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(
            output.status.code(),
            Some(1),
            "{what}, full device: {stderr}"
        );
        let says = stderr.contains("error: standard output cannot be written");
        assert!(says, "{what}, full device: {stderr}");
    }
}

/// Verbs that run at the same time: most wait for another process or for the disk.
const THREADS: usize = 4;

#[test]
fn no_verb_panics_where_its_output_cannot_be_written() {
    let files = Files::new();
    let verbs = verbs();
    assert!(verbs.len() >= 20, "{verbs:?}");
    let check_verb = |verb: &String| {
        let help: Vec<String> = verb
            .split(' ')
            .chain(["--help"])
            .map(str::to_owned)
            .collect();
        check(&files, &help, &format!("{verb} --help"));
        // Some have only nested verbs. The server goes on, which tests/serve.rs checks, and `ready`
        // needs one, which tests/deploy.rs has.
        if !["data", "tokenizer", "serve", "ready"].contains(&verb.as_str()) {
            check(&files, &files.arguments(verb), verb);
        }
    };
    let verbs: Vec<String> = verbs.into_iter().collect();
    std::thread::scope(|scope| {
        for start in 0..THREADS {
            let verbs = verbs.iter().skip(start).step_by(THREADS);
            scope.spawn(move || verbs.for_each(check_verb));
        }
    });
}
