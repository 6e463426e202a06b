//! Training on conversations with the chat template of a checkpoint.

use std::path::Path;

use serde_json::{Value, json};

use super::program::{refused, stdout, sterna, text};
use super::{start, train};

/// Conversations in the three layouts of data sets. Every answer is "Yes!"; one conversation is
/// longer than the context.
fn conversations(folder: &Path) {
    let mut lines: Vec<String> = (0..90)
        .map(|i| match i % 3 {
            0 => json!({"messages": [{"role": "user", "content": format!("{i}?")},
                    {"role": "assistant", "content": "Yes!"}]}),
            1 => json!({"conversations": [{"from": "human", "value": format!("{i}?")},
                    {"from": "gpt", "value": "Yes!"}, {"from": "human", "value": "And?"},
                    {"from": "gpt", "value": "Yes!"}]}),
            _ => json!({"prompt": format!("{i}?"), "completion": "Yes!"}),
        })
        .map(|line| line.to_string())
        .collect();
    lines.push(json!({"prompt": "?".repeat(500), "completion": "Yes!"}).to_string());
    std::fs::write(folder.join("chat.jsonl"), lines.join("\n")).unwrap();
}

const CHAT: &str = "
    [model]
    from = 'base'
    [data]
    chat = ['chat.jsonl']
    held_out = 0.2
    [train]
    steps = 60
    batch = 2
    accumulate = 2
    context = 96
    loss = 'sum'
    learning_rate = 4e-3
    warmup = 4
    checkpoint_every = 20
    evaluate_every = 30
    sample_tokens = 8
";

#[test]
fn a_fine_tuned_model_answers_as_it_was_taught_and_resumes_to_the_same_bytes() {
    let folder = start(CHAT);
    conversations(folder.path());
    let path = |name: &str| folder.path().join(name);
    let (recipe, run) = (path("r.toml"), path("run"));
    let args = ["train", "--config", text(&recipe), "--out", text(&run)];
    let output = sterna(&args);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(
        said.contains("1 longer than the context were cut"),
        "{said}"
    );
    let read = |name: &str| std::fs::read_to_string(run.join(name)).unwrap();
    let lines = |key: &str| -> Vec<Value> {
        let metrics = read("metrics.jsonl");
        let lines = metrics.lines().map(|l| serde_json::from_str(l).unwrap());
        lines.filter(|l: &Value| l.get(key).is_some()).collect()
    };
    let losses = lines("loss");
    let loss = |i: usize| losses[i]["loss"].as_f64().unwrap();
    assert!(loss(0) > 3.0 && loss(59) < 0.2, "{} {}", loss(0), loss(59));
    // The sample continues where the first answer begins.
    let sample = &lines("sample")[1]["sample"];
    assert!(
        sample[0].as_str().unwrap().ends_with("[assistant]"),
        "{sample}"
    );
    assert_eq!(sample[1], "Yes!");

    let packed = path("model.sterna");
    stdout(&["convert", text(&run.join("model")), "--out", text(&packed)]);
    let args = ["generate", text(&packed), "--chat", "--prompt", "77?"];
    assert_eq!(stdout(&[&args[..], &["-n", "12"]].concat()).trim(), "Yes!");

    // The files that kill -9 leaves after the second checkpoint.
    let names = ["metrics.jsonl", "model/model.safetensors"];
    let bytes = || names.map(|name| std::fs::read(run.join(name)).unwrap());
    let whole = bytes();
    std::fs::remove_file(run.join("checkpoints/step-00000060.safetensors")).unwrap();
    std::fs::remove_dir_all(run.join("model")).unwrap();
    train(folder.path(), "run", &["--threads", "1"]);
    assert!(whole == bytes());
}

#[test]
fn the_token_that_ends_an_answer_is_learned_from_the_template() {
    let folder = start(CHAT);
    conversations(folder.path());
    let path = |name: &str| folder.path().join(name);
    let read = |path: &Path| -> Value {
        serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
    };
    // The files name token 1; turns end with token 0.
    let template = std::fs::read_to_string(path("base/chat_template.jinja")).unwrap();
    let template = template.replace("eos_token", "bos_token");
    std::fs::write(path("base/chat_template.jinja"), template).unwrap();
    let converted = path("converted");
    let args = [
        "convert",
        text(&path("base")),
        "--to",
        "hf",
        "--out",
        text(&converted),
    ]
    .map(str::to_owned);
    let output = sterna(&args.each_ref().map(String::as_str));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        said.contains("ends an answer with <|begin_of_text|> (0)"),
        "{said}"
    );
    let ends = |folder: &Path, file: &str| read(&folder.join(file))["eos_token_id"].clone();
    assert_eq!(ends(&converted, "generation_config.json"), json!([1, 0]));

    train(folder.path(), "run", &[]);
    let model = path("run/model");
    for file in ["config.json", "generation_config.json"] {
        assert_eq!(ends(&model, file), json!([1, 0]), "{file}");
    }
    let packed = path("model.sterna");
    stdout(&["convert", text(&model), "--out", text(&packed)]);
    let args = [
        "generate",
        text(&packed),
        "--chat",
        "--prompt",
        "77?",
        "--json",
    ];
    let found: Value = serde_json::from_str(&stdout(&[&args[..], &["-n", "12"]].concat())).unwrap();
    assert_eq!(
        (&found["text"], &found["stop"]),
        (&json!("Yes!"), &json!("the model"))
    );
}

#[test]
fn what_was_recognized_and_what_is_not_learned_is_said() {
    let folder = start(CHAT);
    let path = |name: &str| folder.path().join(name);
    let answer = |more: Value| {
        let mut answer = json!({"role": "assistant", "content": "Yes!"});
        let fields = answer.as_object_mut().unwrap();
        fields.extend(more.as_object().unwrap().clone());
        answer
    };
    let user = json!({"role": "user", "content": "q?"});
    let mut lines = vec![json!({"messages": [user, answer(json!({}))]}).to_string(); 30];
    lines[2] = json!({"id": 7, "conversations": [{"from": "human", "value": "a?"},
        {"from": "bing", "value": "B!"}]})
    .to_string();
    lines[3] = json!({"messages": [user, answer(json!({"weight": 0})), user, answer(json!({}))]})
        .to_string();
    lines[4] = json!({"messages": [user, answer(json!({"thinking": "hm"}))]}).to_string();
    lines[5] = json!({"messages": [user, {"role": "assistant", "content": null, "calls": 1},
        user, answer(json!({}))]})
    .to_string();
    lines[6] = json!({"messages": [user]}).to_string();
    lines[7] = json!({"prompt": "q?", "completion": "Bad!", "label": false}).to_string();
    lines[8] = lines[0].replace("}]}", "}], \"score\": NaN}");
    let chat = path("said.jsonl");
    std::fs::write(&chat, lines.join("\n")).unwrap();
    let (recipe, run) = (path("r.toml"), path("run"));
    let args = [
        "train",
        "--config",
        text(&recipe),
        "--out",
        text(&run),
        "--chat",
        text(&chat),
    ];
    let args = [&args[..], &["--steps", "1", "--set", "train.warmup=0"]].concat();
    let output = sterna(&args);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    for expected in [
        "27 of layout messages",
        "warning: 1 records say that their answers are not wanted",
        "warning: 1 records have NaN or Infinity",
        "1 of layout sharegpt (a list of `from` and `value`)",
        "bing is assistant (1 messages), human is user (1 messages)",
        "not read (with the number of records): `id` (1)",
        "the number of conversations): `calls` (1), `thinking` (1)",
        "1 answers are read and not learned, as their records say",
        "1 answers are read and not learned, because the chat template writes nothing of them",
        "warning: 1 of 30 records cannot be used and were left out:",
        "said.jsonl, line 7: there is no message of the assistant",
        "[user]q?<|end_of_text|>[assistant]⟦Yes!<|end_of_text|>⟧",
    ] {
        assert!(said.contains(expected), "{expected}: {said}");
    }
    std::fs::remove_dir_all(&run).unwrap();
    let message = refused(3, &[&args[..], &["--strict"]].concat());
    assert!(
        message.contains("said.jsonl, line 7: there is no message"),
        "{message}"
    );
    let bad = lines[6].clone();
    lines[7..10].fill(bad);
    std::fs::write(&chat, lines.join("\n")).unwrap();
    let message = refused(3, &args);
    assert!(
        message.contains("4 of 30 records cannot be used"),
        "{message}"
    );
    let forced = [&args[..], &["--chat-format", "sharegpt"]].concat();
    let message = refused(3, &forced);
    assert!(
        message.contains("29 of 30 records cannot be used"),
        "{message}"
    );
}

#[test]
fn conversations_need_a_template_and_answers() {
    let folder = start(CHAT);
    conversations(folder.path());
    let path = |name: &str| folder.path().join(name);
    let (recipe, out) = (path("r.toml"), path("run"));
    let args = ["train", "--config", text(&recipe), "--out", text(&out)];
    let with = |more: &[&str]| refused(3, &[&args[..], more].concat());
    let message = with(&["--set", "train.context=8"]);
    assert!(message.contains("lengthen the context"), "{message}");
    let bad = path("bad.jsonl");
    std::fs::write(
        &bad,
        "{\"messages\": [{\"role\": \"user\", \"content\": \"Hi\"}]}",
    )
    .unwrap();
    let message = with(&["--chat", text(&bad)]);
    assert!(
        message.contains("bad.jsonl, line 1: there is no message of the assistant"),
        "{message}"
    );
    std::fs::remove_file(path("base/chat_template.jinja")).unwrap();
    let message = with(&[]);
    assert!(
        message.contains("base") && message.contains("no chat template"),
        "{message}"
    );
    std::fs::write(&recipe, CHAT.replace("from = 'base'", "family = 'llama'")).unwrap();
    let message = with(&[]);
    assert!(message.contains("needs `hidden_size`"), "{message}");
}
