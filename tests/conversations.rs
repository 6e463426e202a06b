//! Models that are trained from scratch on conversations: the exported files, and chats with them.

mod program;

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use program::{refused, stdout, text};
use serde_json::{Value, json};
use sterna_datasets::Template;
use sterna_runtime::{Message, Model, Options};

/// How the models are trained.
const TRAIN: &str = "[train]
    steps = 20
    batch = 2
    context = 256
    learning_rate = 3e-3
    warmup = 2";

/// A model that learns small talk in a few steps; generated conversations are in `talk.jsonl`.
fn folder(data: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    let args = ["data", "generate", "--mix", "chat", "-n", "300"];
    write("talk.jsonl", &stdout(&args));
    let recipe = format!(
        "[model]
        family = 'bitnet'
        hidden_size = 32
        intermediate_size = 64
        num_hidden_layers = 2
        num_attention_heads = 2
        initializer_range = 0.1
        [data]
        {data}
        vocab_size = 400
        held_out = 0.1
        {TRAIN}"
    );
    write("r.toml", &recipe);
    folder
}

fn train(folder: &Path) {
    let (recipe, out) = (folder.join("r.toml"), folder.join("run"));
    let args = ["train", "--config", text(&recipe), "--out", text(&out)];
    stdout(&args);
    let (model, packed) = (out.join("model"), folder.join("model.sterna"));
    stdout(&["convert", text(&model), "--out", text(&packed)]);
}

fn read(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// Checks that the run's model has a template, and ends answers with the special token `end`.
fn check_export(folder: &Path, template: &str, end: &str) {
    let model = folder.join("run/model");
    let exported = std::fs::read_to_string(model.join("chat_template.jinja")).unwrap();
    assert_eq!(exported, template);
    let tokenizer = read(&model.join("tokenizer.json"));
    let mut added = tokenizer["added_tokens"].as_array().unwrap().iter();
    let found = added.find(|token| token["content"] == end).unwrap();
    assert_eq!(found["special"], true);
    // A text may end with the token of texts as well.
    let ends = json!([1, found["id"]]);
    for name in ["config.json", "generation_config.json"] {
        assert_eq!(read(&model.join(name))["eos_token_id"], ends, "{name}");
    }
}

/// The answers of `sterna chat` to the lines of a pipe.
fn answers(folder: &Path, lines: &str) -> Vec<Value> {
    let packed = folder.join("model.sterna");
    let mut child = Command::new(env!("CARGO_BIN_EXE_sterna"))
        .args(["chat", text(&packed), "--json", "--max-tokens", "12"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(lines.as_bytes()).unwrap();
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    let lines = String::from_utf8(output.stdout).unwrap();
    lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[test]
fn files_of_conversations_make_a_model_that_can_be_talked_to() {
    let folder = folder("chat = ['talk.jsonl']");
    let folder = folder.path();
    train(folder);
    check_export(
        folder,
        &Template::named("chatml").unwrap().source,
        "<|im_end|>",
    );

    let model = Model::open(&folder.join("model.sterna"), Options::default()).unwrap();
    let tokenizer = model.tokenizer().unwrap();
    let messages = [
        Message::new("user", "Hi"),
        Message::new("assistant", "Hello!"),
    ];
    let written = model
        .chat_template()
        .unwrap()
        .render(&messages, true)
        .unwrap();
    assert_eq!(
        written,
        "<|begin_of_text|><|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHello!<|im_end|>\n\
         <|im_start|>assistant\n"
    );
    let ids = tokenizer.encode(&written, false).unwrap();
    let end = tokenizer.token_to_id("<|im_end|>").unwrap();
    assert_eq!(ids.iter().filter(|id| **id == end).count(), 2);
    assert!(tokenizer.eos().contains(&end));

    let found = answers(folder, "Hello!\nWhat is 1+2?\n");
    assert_eq!(found.len(), 2);
    for answer in found {
        assert!(!answer["text"].as_str().unwrap().contains("<|"), "{answer}");
    }
}

#[test]
fn tasks_of_a_mix_are_written_by_a_template_from_a_file() {
    let template = "{{ bos_token }}{% for m in messages %}<{{ m.role }}>{{ m.content }}<end>\
        {% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}";
    let data = "mix = 'chat=0.5,stories=0.5'
        documents = 200
        template = 'mine.jinja'
        special_tokens = ['<user>', '<assistant>', '<end>']";
    let folder = folder(data);
    let folder = folder.path();
    std::fs::write(folder.join("mine.jinja"), template).unwrap();
    train(folder);
    check_export(folder, template, "<end>");
    assert_eq!(answers(folder, "Hello!\n").len(), 1);
}

#[test]
fn a_model_of_texts_learns_conversations_later() {
    let folder = folder("mix = 'stories'\ndocuments = 200\ntemplate = 'chatml'");
    let folder = folder.path();
    train(folder);
    let template = &Template::named("chatml").unwrap().source;
    check_export(folder, template, "<|im_end|>");

    std::fs::rename(folder.join("run"), folder.join("base")).unwrap();
    let recipe = format!(
        "[model]
        from = 'base/model'
        [data]
        chat = ['talk.jsonl']
        held_out = 0.1
        {TRAIN}"
    );
    std::fs::write(folder.join("r.toml"), recipe).unwrap();
    train(folder);
    check_export(folder, template, "<|im_end|>");
    let texts = ["base", "run"].map(|run| {
        let file = folder.join(run).join("model/tokenizer.json");
        std::fs::read(file).unwrap()
    });
    assert_eq!(texts[0], texts[1]);
    assert_eq!(answers(folder, "Hello!\n").len(), 1);
}

#[test]
fn templates_that_cannot_serve_are_refused_by_name() {
    let check = |data: &str, code, expected: &str| {
        let folder = folder(data);
        let template = "{% for m in messages %}{{ m.role }}: {{ m.content }}.{% endfor %}\
            {% if add_generation_prompt %}assistant: {% endif %}";
        std::fs::write(folder.path().join("plain.jinja"), template).unwrap();
        let (recipe, out) = (folder.path().join("r.toml"), folder.path().join("run"));
        let args = ["train", "--config", text(&recipe), "--out", text(&out)];
        let message = refused(code, &args);
        assert!(message.contains(expected), "{message}");
    };
    check(
        "chat = ['talk.jsonl']\ntemplate = 'llama9'",
        3,
        "expected one of chatml",
    );
    check(
        "chat = ['talk.jsonl']\ntemplate = 'plain.jinja'",
        3,
        "an answer is followed by \".\", expected a special token",
    );
    check(
        "chat = ['talk.jsonl']\nspecial_tokens = ['<x>']",
        3,
        "`special_tokens` needs a `template`",
    );
}
