//! `sterna generate`: where the prompt comes from, how tokens are chosen, how many there are.

mod program;

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use program::{fixture, json, refused, sterna, text};
use serde_json::{Value, json};

const PROMPT: &str = "Once Mia";

/// A packed model with a chat template, and a folder for files of a test.
struct Model {
    folder: tempfile::TempDir,
}

impl Model {
    fn new() -> Model {
        Model::with(json!({"eos_token_id": 1}))
    }

    /// A model with this generation_config.json.
    fn with(generation_config: Value) -> Model {
        let folder = tempfile::tempdir().unwrap();
        let source = folder.path().join("source");
        std::fs::create_dir(&source).unwrap();
        for entry in fixture("trained/llama").read_dir().unwrap() {
            let entry = entry.unwrap();
            std::fs::copy(entry.path(), source.join(entry.file_name())).unwrap();
        }
        let write = |name: &str, text: &str| std::fs::write(source.join(name), text).unwrap();
        write("generation_config.json", &generation_config.to_string());
        write(
            "chat_template.jinja",
            "{% for m in messages %}{{ m.content }}{% endfor %}",
        );
        let model = Model { folder };
        let packed = model.path();
        assert!(
            sterna(&["convert", text(&source), "--out", &packed])
                .status
                .success()
        );
        model
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn path(&self) -> String {
        text(&self.at("model.sterna")).to_owned()
    }

    /// `sterna generate MODEL ARGS` with this text on standard input.
    fn piped(&self, args: &[&str], input: &[u8]) -> Output {
        let mut program = Command::new(env!("CARGO_BIN_EXE_sterna"))
            .args(["generate", &self.path()])
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = program.stdin.take().unwrap();
        let _ = stdin.write_all(input); // a program that reads nothing closes it
        drop(stdin);
        program.wait_with_output().unwrap()
    }

    fn generate(&self, args: &[&str]) -> Value {
        json(&[&["generate", &self.path(), "--json"], args].concat())
    }
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_prompt_is_an_argument_a_flag_a_file_or_a_pipe() {
    let model = Model::new();
    let expected = model.generate(&["--prompt", PROMPT, "-n", "8"]);
    assert_eq!(expected["prompt"], PROMPT);
    assert_eq!(model.generate(&[PROMPT, "-n", "8"])["ids"], expected["ids"]);
    let file = model.at("prompt.txt");
    for end in ["", "\n", "\r\n"] {
        // Programs of Windows write a byte order mark before a text.
        for mark in ["", "\u{feff}"] {
            std::fs::write(&file, format!("{mark}{PROMPT}{end}")).unwrap();
            let found = model.generate(&["--prompt-file", text(&file), "-n", "8"]);
            assert_eq!(
                found["prompt_ids"], expected["prompt_ids"],
                "{mark:?} {end:?}"
            );
        }
    }
    let line = format!("{PROMPT}\n");
    for args in [
        &["-n", "8", "--json"][..],
        &["-", "-n", "8", "--json"],
        &["-p", "-", "-n", "8", "--json"],
    ] {
        let output = model.piped(args, line.as_bytes());
        let found: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(found["ids"], expected["ids"], "{args:?}");
    }
    // More text than a command line can hold.
    let long = "Once ".repeat(40_000);
    let output = model.piped(&["-n", "1"], long.as_bytes());
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    assert!(stderr(&output).contains("tokens"), "{}", stderr(&output));

    let given_twice = ["generate", &model.path(), PROMPT, "--prompt", PROMPT];
    assert_eq!(sterna(&given_twice).status.code(), Some(2));
    let absent = refused(
        3,
        &["generate", &model.path(), "--prompt-file", "no-such-file"],
    );
    assert!(absent.contains("no-such-file"), "{absent}");
    let output = model.piped(&[], b"\xff\xfe");
    assert_eq!(output.status.code(), Some(3));
    assert!(
        stderr(&output).contains("not UTF-8 at byte 0"),
        "{}",
        stderr(&output)
    );
}

#[test]
#[cfg(feature = "grammar")]
fn an_answer_keeps_to_a_rule() {
    let model = Model::new();
    let schema = model.at("schema.json");
    let write = |rule: Value| std::fs::write(&schema, rule.to_string()).unwrap();
    write(json!({
        "type": "object", "required": ["ok", "n"], "additionalProperties": false,
        "properties": {"ok": {"type": "boolean"}, "n": {"type": "integer", "minimum": 10,
            "maximum": 99}}, "titel": "no keyword",
    }));
    let args = [
        PROMPT,
        "--schema",
        text(&schema),
        "--temperature",
        "1",
        "--seed",
    ];
    for seed in ["1", "2", "3"] {
        let found = model.generate(&[&args[..], &[seed]].concat());
        let object: Value = serde_json::from_str(found["text"].as_str().unwrap()).unwrap();
        assert!(object["ok"].is_boolean(), "{object}");
        assert!(
            (10..=99).contains(&object["n"].as_u64().unwrap()),
            "{object}"
        );
        assert_eq!(found["stop"], "the model", "{found}");
    }
    let output = model.piped(&["--schema", text(&schema), "-n", "3"], b"Once");
    assert!(stderr(&output).contains("#/titel"), "{}", stderr(&output));

    let found = model.generate(&[PROMPT, "--regex", "[ab]{3}-[0-9]{2}"]);
    let found = found["text"].as_str().unwrap();
    assert!(found.len() == 6 && found.as_bytes()[3] == b'-', "{found}");
    let lark = model.at("grammar.lark");
    std::fs::write(&lark, "start: \"yes\" | \"no\"").unwrap();
    let found = model.generate(&[PROMPT, "--grammar", text(&lark)]);
    assert!(found["text"] == "yes" || found["text"] == "no", "{found}");

    write(json!({"type": "array", "uniqueItems": true}));
    for (args, word) in [
        (&["--schema", text(&schema)][..], "uniqueItems"),
        (&["--regex", "a("], "--regex"),
        (
            &["--regex", "a", "--grammar", text(&lark)],
            "cannot be used with",
        ),
    ] {
        let error = refused(2, &[&["generate", &model.path(), PROMPT], args].concat());
        assert!(error.contains(word), "{error}");
    }
    let absent = [
        "generate",
        &model.path(),
        PROMPT,
        "--schema",
        "no-such-file",
    ];
    assert!(refused(3, &absent).contains("no-such-file"));
}

#[test]
fn a_conversation_samples_as_the_checkpoint_says() {
    let model = Model::with(json!({
        "eos_token_id": 1, "do_sample": true, "temperature": 0.9, "top_p": 0.95,
        "no_repeat_ngram_size": 3, "max_length": 96,
    }));
    let run = |args: &[&str]| {
        let output = sterna(&[&["generate", &model.path(), PROMPT, "-n", "12"], args].concat());
        assert!(output.status.success(), "{}", stderr(&output));
        (
            String::from_utf8(output.stdout.clone()).unwrap(),
            stderr(&output),
        )
    };
    let (greedy, said) = run(&["--temperature", "0"]);
    // A text is continued with the most probable tokens.
    let (plain, _) = run(&[]);
    assert_eq!(plain, greedy);
    assert!(!said.contains("generation_config"), "{said}");
    // A conversation is sampled, and flags win.
    let (most_probable, said) = run(&["--chat", "--temperature", "0"]);
    assert!(!said.contains("top-p"), "{said}");
    let explicit = [
        "--chat",
        "--temperature",
        "0.9",
        "--top-p",
        "0.95",
        "--seed",
        "5",
    ];
    let (sampled, said) = run(&["--chat", "--seed", "5"]);
    assert_ne!(sampled, most_probable);
    assert_eq!(sampled, run(&explicit).0);
    for part in [
        "temperature 0.9, top-p 0.95",
        "generation_config.json",
        "no_repeat_ngram_size",
    ] {
        assert!(said.contains(part), "{part} in {said}");
    }
}

#[test]
fn an_answer_longer_than_the_context_is_cut_with_a_word() {
    let model = Model::new();
    let args = [
        "generate",
        &model.path(),
        PROMPT,
        "--context",
        "16",
        "-n",
        "99",
        "--json",
    ];
    let output = sterna(&args);
    let said = stderr(&output);
    assert!(output.status.success(), "{said}");
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    let tokens =
        found["prompt_tokens"].as_u64().unwrap() + found["generated_tokens"].as_u64().unwrap();
    assert!(tokens <= 17, "{found}");
    assert!(
        said.contains("--max-tokens 99") && said.contains("a context of 16 tokens"),
        "{said}"
    );
}

#[test]
fn no_token_has_no_speed() {
    let model = Model::new();
    let output = sterna(&["generate", &model.path(), PROMPT, "-n", "0"]);
    assert!(!stderr(&output).contains("tokens/s"), "{}", stderr(&output));
    let none = model.generate(&[PROMPT, "-n", "0"]);
    assert_eq!(none["generated_tokens"], 0);
    assert!(
        none["prompt_tokens_per_second"].is_null() && none["decode_tokens_per_second"].is_null()
    );
    let one = model.generate(&[PROMPT, "-n", "1"]);
    assert!(one["prompt_tokens_per_second"].as_f64().unwrap() > 0.0);
    assert!(one["decode_tokens_per_second"].is_null());
}

#[test]
fn sampling_out_of_range_is_an_error_of_usage() {
    let model = Model::new();
    for (flag, value) in [
        ("--temperature", "-1"),
        ("--temperature", "NaN"),
        ("--top-p", "1.5"),
        ("--min-p", "-0.1"),
        ("--repetition-penalty", "0"),
    ] {
        let said = refused(2, &["generate", &model.path(), PROMPT, flag, value]);
        assert!(said.contains("expected"), "{said}");
    }
}

#[test]
fn quiet_prints_the_text_alone_and_verbose_what_was_chosen() {
    let model = Model::new();
    let run = |flag: &str| sterna(&["generate", &model.path(), PROMPT, "-n", "4", flag]);
    let (quiet, verbose) = (run("--quiet"), run("-v"));
    assert_eq!(stderr(&quiet), "");
    assert_eq!(quiet.stdout, verbose.stdout);
    for part in ["family llama", "kernels ", "threads", "tokens/s"] {
        assert!(
            stderr(&verbose).contains(part),
            "{part} in {}",
            stderr(&verbose)
        );
    }
    // Errors are not quiet.
    let error = refused(3, &["generate", "no-such-model.sterna", "--quiet"]);
    assert_eq!(error.lines().count(), 1, "{error}");
}

#[test]
fn verbs_of_other_programs_get_a_hint() {
    for (verb, hint) in [
        ("run", "sterna generate"),
        ("list", "sterna models"),
        ("eval", "sterna validate"),
        ("server", "sterna serve"),
        ("quantize", "sterna convert"),
    ] {
        let output = sterna(&[verb]);
        assert_eq!(output.status.code(), Some(2));
        let said = stderr(&output);
        assert!(said.contains(verb) && said.contains("hint: "), "{said}");
        assert!(said.contains(hint), "{said}");
    }
}
