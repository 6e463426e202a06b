//! Conversations on the command line, with a small trained model that got a chat template.

mod program;
#[cfg(target_os = "linux")]
#[path = "chat/terminal.rs"]
mod terminal;

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::LazyLock;

use program::text;
use serde_json::{Value, json};

const RECIPE: &str = "
    [model]
    family = 'llama'
    hidden_size = 32
    intermediate_size = 48
    num_hidden_layers = 2
    num_attention_heads = 2
    [data]
    mix = 'stories=1'
    documents = 200
    vocab_size = 300
    [train]
    steps = 4
    batch = 2
    context = 128
    learning_rate = 4e-3
    warmup = 2
    evaluate_every = 4
    checkpoint_every = 4
";

/// A template that neither trims answers nor merges tokens with them.
const TEMPLATE: &str = "{{ bos_token }}{% for m in messages %}[{{ m.role }}|{{ m.content }}]
{% endfor %}{% if add_generation_prompt %}[assistant|{% endif %}";

fn sterna(args: &[&str], input: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_sterna"))
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // A program that ends early does not read its input.
    let _ = stdin.write_all(input.as_bytes());
    drop(stdin);
    child.wait_with_output().unwrap()
}

fn stdout(args: &[&str], input: &str) -> String {
    let output = sterna(args, input);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "sterna {args:?}: {stderr}");
    String::from_utf8(output.stdout).unwrap()
}

fn objects(args: &[&str], input: &str) -> Vec<Value> {
    let lines = stdout(args, input);
    lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

struct Models {
    _folder: tempfile::TempDir,
    folder: PathBuf,
    base: PathBuf,
    chat: PathBuf,
}

static MODELS: LazyLock<Models> = LazyLock::new(|| {
    let temporary = tempfile::tempdir().unwrap();
    let at = |name: &str| temporary.path().join(name);
    std::fs::write(at("tiny.toml"), RECIPE).unwrap();
    let out = at("run");
    stdout(
        &[
            "train",
            "--config",
            text(&at("tiny.toml")),
            "--out",
            text(&out),
        ],
        "",
    );
    let folder = out.join("model");
    stdout(&["convert", text(&folder), "--out", text(&at("base"))], "");
    std::fs::write(folder.join("chat_template.jinja"), TEMPLATE).unwrap();
    stdout(&["convert", text(&folder), "--out", text(&at("chat"))], "");
    Models {
        base: at("base"),
        chat: at("chat"),
        folder,
        _folder: temporary,
    }
});

#[test]
fn a_turn_costs_its_own_tokens() {
    let model = text(&MODELS.chat);
    let args = [
        "--temperature",
        "0",
        "--system",
        "Be brief.",
        "-n",
        "6",
        "--json",
    ];
    let args = [&["chat", model][..], &args].concat();
    let turns = objects(&args, "Who are you?\n\nAnd then?\n");
    assert_eq!(turns.len(), 2);
    let number = |turn: usize, key: &str| turns[turn][key].as_u64().unwrap();
    assert_eq!(number(0, "cached_tokens"), 0);
    let first = number(0, "prompt_tokens");
    // The first prompt and the answer are kept, up to where the rendered answer has other tokens.
    let kept = number(1, "cached_tokens");
    assert!(
        kept >= first && kept < first + number(0, "generated_tokens"),
        "{turns:?}"
    );

    // The same conversation with an empty cache gives the same answer, although fewer tokens were
    // computed here.
    let messages = json!([
        {"role": "system", "content": "Be brief."}, {"role": "user", "content": "Who are you?"},
        {"role": "assistant", "content": turns[0]["text"]},
        {"role": "user", "content": "And then?"},
    ]);
    let mut prompt = String::new();
    for m in messages.as_array().unwrap() {
        prompt += &format!(
            "[{}|{}]\n",
            m["role"].as_str().unwrap(),
            m["content"].as_str().unwrap()
        );
    }
    prompt += "[assistant|";
    // The tokenizer adds the token that begins a text, as the template does.
    let whole = objects(
        &["generate", model, "--prompt", &prompt, "-n", "6", "--json"],
        "",
    );
    assert_eq!(whole[0]["ids"], turns[1]["ids"]);
    assert_eq!(number(1, "prompt_tokens") + kept, whole[0]["prompt_tokens"]);
}

#[test]
fn only_answers_go_to_stdout_and_commands_do_what_they_say() {
    let folder = tempfile::tempdir().unwrap();
    let saved = folder.path().join("saved.json");
    let model = text(&MODELS.chat);
    let input = format!(
        "/speed\n/help\nHello\n/speed\n/save {}\n/reset\n/system Be kind.\nHello\n/quit\nHello\n",
        text(&saved)
    );
    let args = ["chat", model, "-n", "5", "--temperature", "0", "--system"];
    let output = sterna(&[&args[..], &["x"]].concat(), &input);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{stderr}");
    for expected in [
        "no answer yet",
        "/reset",
        "prompt tokens at",
        "2 messages",
        "3 messages",
    ] {
        assert_eq!(
            stderr.contains(expected),
            expected != "2 messages",
            "{stderr}"
        );
    }
    let messages: Value = serde_json::from_slice(&std::fs::read(&saved).unwrap()).unwrap();
    let turns = objects(&[&args[..], &["x", "--json"]].concat(), "Hello\n");
    assert_eq!(
        messages,
        json!([
            {"role": "system", "content": "x"}, {"role": "user", "content": "Hello"},
            {"role": "assistant", "content": turns[0]["text"]},
        ])
    );
    let kind = objects(&[&args[..], &["Be kind.", "--json"]].concat(), "Hello\n");
    let [first, second] = [&turns[0], &kind[0]].map(|t| t["text"].as_str().unwrap());
    assert_eq!(
        String::from_utf8(output.stdout).unwrap(),
        format!("{first}\n{second}\n")
    );
}

#[test]
fn one_turn_without_a_conversation() {
    let model = text(&MODELS.chat);
    let one = [
        "generate", model, "--chat", "--prompt", "Hi", "-n", "4", "--json",
    ];
    let turn = &objects(&[&one[..], &["--system", "Be brief."]].concat(), "")[0];
    let spelled = "[system|Be brief.]\n[user|Hi]\n[assistant|";
    let plain = &objects(
        &["generate", model, "--prompt", spelled, "-n", "4", "--json"],
        "",
    )[0];
    assert_eq!(turn["prompt_ids"], plain["prompt_ids"]);
    let chat = objects(
        &["chat", model, "--system", "Be brief.", "-n", "4", "--json"],
        "Hi\n",
    );
    assert_eq!(turn["ids"], chat[0]["ids"]);
    let usage = sterna(&["generate", model, "--system", "x"], "");
    assert_eq!(usage.status.code(), Some(2));
}

#[test]
fn what_cannot_go_on_says_why() {
    let check = |args: &[&str], input: &str, code: i32, expected: &str| {
        let output = sterna(args, input);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {stderr}");
        assert!(stderr.contains(expected), "{args:?}: {stderr}");
    };
    let chat = text(&MODELS.chat);
    check(&["chat", text(&MODELS.base)], "Hi\n", 3, "no chat template");
    check(
        &["chat", chat, "--context", "8"],
        "Hello there\n",
        1,
        "/reset",
    );
    check(&["chat", chat, "--context", "32"], "Hi\n", 0, "is full");
    check(&["chat", chat], "/dance\n", 1, "/help");
    check(&["chat", chat], "/save\n", 1, "name of a file");

    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("hostile");
    for (template, expected) in [
        (
            "{% set x = 'ab' %}{% for i in range(99) %}{% set x = x + x %}{% endfor %}{% for",
            "without its end",
        ),
        (
            "{{ raise_exception('roles must alternate') }}",
            "roles must alternate",
        ),
        (
            "{% for i in range(99999) %}{% for i in range(99999) %}{% endfor %}{% endfor %}",
            "chat_template.jinja",
        ),
    ] {
        let copy = folder.path().join("model");
        std::fs::create_dir_all(&copy).unwrap();
        for entry in std::fs::read_dir(&MODELS.folder).unwrap() {
            let path = entry.unwrap().path();
            std::fs::copy(&path, copy.join(path.file_name().unwrap())).unwrap();
        }
        std::fs::write(copy.join("chat_template.jinja"), template).unwrap();
        stdout(&["convert", text(&copy), "--out", text(&out)], "");
        check(&["chat", text(&out)], "Hi\n", 3, expected);
        check(
            &["generate", text(&out), "--chat", "--prompt", "Hi"],
            "",
            3,
            expected,
        );
        // Without a chat the template is not used.
        check(
            &["generate", text(&out), "--prompt", "Hi", "-n", "1"],
            "",
            0,
            "",
        );
    }
}
