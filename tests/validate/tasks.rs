//! Accuracy tasks of `sterna validate`.

use std::path::Path;

use serde_json::Value;

use super::program::{self, json, text};
use super::{RECIPE, copied, with_scales};

#[test]
fn tasks_are_solved_and_compared_item_by_item() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("report");
    let model = copied("trained/bitnet");
    let [copy, damaged] = ["copy", "damaged"].map(|name| folder.path().join(name));
    with_scales(&model, 0, 1.0, &copy);
    with_scales(&model, 0, 20.0, &damaged);
    let mut args = vec![
        "validate",
        text(&model),
        text(&copy),
        text(&damaged),
        "--out",
        text(&out),
        "--json",
    ];
    args.extend([
        "--tasks",
        "stories",
        "--limit",
        "60",
        "--tokens",
        "500",
        "--no-speed",
    ]);
    args.extend(["--gate", "stories:acc>=0"]);
    let report = json(&args);
    let exam = |model: usize| &report["models"][model]["tasks"][0];
    assert_eq!(exam(0)["scores"], exam(1)["scores"]);
    assert_eq!(exam(1)["beside_first"]["p"], 1.0);
    assert!(
        exam(2)["beside_first"]["only_first"].as_u64() > Some(0),
        "{}",
        exam(2)
    );
    assert_eq!(exam(2)["scores"][0]["items"], 60);
    let answer = report["answer"][1].as_str().unwrap();
    assert!(
        answer.contains(" of 60 items of `stories` right, against "),
        "{answer}"
    );
    assert_eq!(
        (&exam(0)["layout"], &exam(0)["items"]),
        (&"generated".into(), &60.into())
    );
    let page = std::fs::read_to_string(out.join("report.html")).unwrap();
    assert!(page.contains("<h3>The first item of <code>stories</code></h3>\n<pre>"));
    // Answers that were kept are not computed again, except for a torn line.
    let entries = std::fs::read_dir(out.join("state"))
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let answers: Vec<_> = entries
        .filter(|path| path.extension().unwrap() == "outcomes")
        .collect();
    let before = std::fs::read(&answers[0]).unwrap();
    std::fs::write(&answers[0], &before[..before.len() - 3]).unwrap();
    assert_eq!(json(&args)["models"], report["models"]);
    assert!(std::fs::read(&answers[0]).unwrap() == before);
}

/// A question and its answer as GSM8K has them.
fn gsm8k(question: &str, number: &str) -> Value {
    serde_json::json!({"question": question, "answer": format!("So it is.\n#### {number}")})
}

fn write_lines(path: &Path, records: &[Value]) {
    let lines: Vec<String> = records.iter().map(|r| format!("{r}\n")).collect();
    std::fs::write(path, lines.concat()).unwrap();
}

#[test]
fn answers_that_a_model_learned_by_heart_match_strictly() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let learned = [("How many?", "1,234"), ("Why?", "-5")];
    let document = |i: usize| {
        let (question, number) = learned[i % 2];
        let record = gsm8k(question, number);
        let answer = record["answer"].as_str().unwrap();
        serde_json::json!({"text": format!("Question: {question}\nAnswer: {answer}")})
    };
    write_lines(
        &path("text.jsonl"),
        &(0..4000).map(document).collect::<Vec<_>>(),
    );
    let recipe = RECIPE
        .replace(
            "held_out = 0.2",
            &format!("text = ['{}']", text(&path("text.jsonl"))),
        )
        .replace("steps = 6", "steps = 150")
        .replace("_every = 3", "_every = 150");
    std::fs::write(path("r.toml"), recipe).unwrap();
    program::stdout(&[
        "train",
        "--config",
        text(&path("r.toml")),
        "--out",
        text(&path("run")),
    ]);
    // The second is the answer of the model in other digits, the third is another number.
    let items = [
        gsm8k("How many?", "1,234"),
        gsm8k("How many?", "1234"),
        gsm8k("Why?", "5"),
    ];
    write_lines(&path("items.jsonl"), &items);
    let (run, task) = (path("run"), format!("gsm8k={}", text(&path("items.jsonl"))));
    let args = ["validate", text(&run), "--tasks", &task, "--fewshot", "0"];
    let report = json(&[&args[..], &["--tokens", "500", "--no-speed", "--json"]].concat());
    let scores = report["models"][0]["tasks"][0]["scores"]
        .as_array()
        .unwrap();
    let strict = scores
        .iter()
        .find(|s| s["metric"] == "exact_match,strict-match");
    let value = strict.unwrap()["value"].as_f64().unwrap();
    assert!((value - 2.0 / 3.0).abs() < 1e-12, "{scores:?}");
}
