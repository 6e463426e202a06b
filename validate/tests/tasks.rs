//! Tasks, item by item as lm-evaluation-harness scores them with transformers (`tasks/README.md`).

use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;
use sterna_convert::HeadType;
use sterna_runtime::{KvType, Model, Tokenizer};
use sterna_ternary::Packing;
use sterna_validate::tasks::{
    self, AccuracyTask, Error, ItemOutcome, TaskOptions, compare, scores,
};

/// What lm-evaluation-harness made of a task.
#[derive(Deserialize)]
struct Expected {
    task: String,
    model: String,
    data: String,
    shots: usize,
    fewshot_from: Option<String>,
    first_context: String,
    metrics: serde_json::Map<String, Value>,
    items: Vec<Value>,
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tasks")
}

fn items(name: &str) -> String {
    folder()
        .join(format!("{name}.jsonl"))
        .to_str()
        .unwrap()
        .to_owned()
}

fn expected() -> Vec<Expected> {
    let text = std::fs::read_to_string(folder().join("expected.jsonl")).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// A fixture of the repository, packed.
fn model(name: &str) -> (tempfile::TempDir, Model, Tokenizer) {
    let out = tempfile::tempdir().unwrap();
    let path = out.path().join("model.sterna");
    let checkpoint = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../tests/fixtures")
        .join(name);
    let options = sterna_convert::PackedOptions {
        packing: Packing::I2.into(),
        head: HeadType::Lossless,
        activations: None,
        allow_missing: false,
    };
    sterna_convert::convert(&checkpoint, &path, &options, &mut |_, _| {}).unwrap();
    let options = sterna_runtime::Options {
        threads: Some(1),
        kv_type: KvType::F32,
        ..Default::default()
    };
    let model = Model::open(&path, options).unwrap();
    let tokenizer = model.tokenizer().unwrap();
    (out, model, tokenizer)
}

fn score(
    task: &AccuracyTask,
    model: &Model,
    tokenizer: &Tokenizer,
    from: usize,
) -> Vec<ItemOutcome> {
    let mut outcomes = Vec::new();
    task.score(model, tokenizer, from, &mut |outcome| {
        outcomes.push(outcome);
        true
    })
    .unwrap();
    outcomes
}

/// Runs of lm-evaluation-harness with one model, and ours beside them.
fn check_runs(name: &str) {
    let (_folder, model, tokenizer) = model(name);
    for run in expected()
        .into_iter()
        .filter(|run| name.ends_with(&run.model))
    {
        let data = match run.data.as_str() {
            data @ ("sums" | "mmlu_pro") => {
                let file = folder().join(format!("{data}.toml"));
                file.to_str().unwrap().to_owned()
            }
            // One file for two tasks, which are named.
            "truthfulqa" => format!("{}={}", &run.task[..14], items("truthfulqa")),
            data => items(data),
        };
        let options = TaskOptions {
            fewshot: Some(run.shots),
            fewshot_from: run.fewshot_from.as_deref().map(|from| items(from).into()),
            ..TaskOptions::default()
        };
        let task = AccuracyTask::load(&data, &options).unwrap();
        assert_eq!(
            task.item(0).requests[0].context,
            run.first_context,
            "{}",
            run.task
        );
        let outcomes = score(&task, &model, &tokenizer, 0);
        check_items(&run, &outcomes);
        check_metrics(&run, &outcomes);
    }
}

fn check_items(run: &Expected, outcomes: &[ItemOutcome]) {
    assert_eq!(outcomes.len(), run.items.len());
    let mut differences = Vec::new();
    for (outcome, expected) in outcomes.iter().zip(&run.items) {
        let place = format!("{}, item {}", run.task, outcome.item);
        let text = expected.get("text").and_then(Value::as_str);
        assert_eq!(outcome.text.as_deref(), text, "{place}");
        let likelihoods = expected.get("log_likelihoods").and_then(Value::as_array);
        let likelihoods: Vec<_> = likelihoods.into_iter().flatten().collect();
        assert_eq!(outcome.log_likelihoods.len(), likelihoods.len(), "{place}");
        for (found, expected) in outcome.log_likelihoods.iter().zip(likelihoods) {
            let expected = expected.as_f64().unwrap();
            let difference = (found - expected).abs();
            let allowed = 0.02 + 2e-3 * expected.abs();
            assert!(
                difference < allowed,
                "{place}: {found}, expected {expected}"
            );
            differences.push(difference / expected.abs());
        }
        for (metric, found) in &outcome.metrics {
            match (metric.as_str(), run.data.as_str()) {
                ("perplexity", _) => {}
                // A share of probabilities moves with them.
                ("acc", "truthfulqa") => {
                    let off = (found - expected[metric].as_f64().unwrap()).abs();
                    assert!(off < 0.02, "{place}: {found}, expected {expected}");
                }
                _ => assert_eq!(Some(*found), expected[metric].as_f64(), "{place}, {metric}"),
            }
        }
    }
    // Where no activation is on a rounding boundary, there is no difference but that of float32.
    let same = differences.iter().filter(|difference| **difference < 1e-5);
    assert!(
        run.model != "llama" || same.count() * 4 >= differences.len() * 3,
        "{}",
        run.task
    );
}

fn check_metrics(run: &Expected, outcomes: &[ItemOutcome]) {
    for score in scores(outcomes) {
        let (metric, filter) = score
            .metric
            .split_once(',')
            .unwrap_or((&score.metric, "none"));
        let check = |key: String, found: f64| {
            // Without training perplexity is a number of 68 digits, and rounding decides most of
            // them.
            let Some(expected) = run.metrics.get(&key).and_then(Value::as_f64) else {
                assert!(run.task == "lambada" && metric == "perplexity", "{key}");
                return;
            };
            let tolerance = match (metric, run.task.starts_with("truthfulqa_mc2")) {
                ("perplexity", _) => 1e-3,
                (_, true) => 1e-2,
                (_, false) => 1e-12,
            };
            let message = format!("{}, {key}: {found}, expected {expected}", run.task);
            assert!(
                (found - expected).abs() <= tolerance * expected.abs(),
                "{message}"
            );
        };
        check(format!("{metric},{filter}"), score.value);
        check(format!("{metric}_stderr,{filter}"), score.stderr.unwrap());
    }
}

#[test]
fn random_weights_score_as_in_lm_eval() {
    check_runs("checkpoints/qwen3-packed");
}

#[test]
fn a_trained_model_scores_as_in_lm_eval() {
    check_runs("trained/llama");
}

#[test]
fn results_do_not_depend_on_the_batch_or_the_start() {
    let (_folder, model, tokenizer) = model("trained/llama");
    for data in ["arc_easy", "winogrande", "mmlu", "stories"] {
        let task = |batch| {
            let options = TaskOptions {
                fewshot: Some(1),
                batch: Some(batch),
                ..TaskOptions::default()
            };
            AccuracyTask::load(&items(data), &options).unwrap()
        };
        let alone = score(&task(1), &model, &tokenizer, 0);
        assert_eq!(score(&task(7), &model, &tokenizer, 0), alone, "{data}");
        assert_eq!(
            score(&task(3), &model, &tokenizer, 11),
            alone[11..],
            "{data}"
        );
        let mut stopped = Vec::new();
        let some = &mut |outcome| {
            stopped.push(outcome);
            stopped.len() < 5
        };
        task(7).score(&model, &tokenizer, 0, some).unwrap();
        assert_eq!(stopped, alone[..5], "{data}");
        let kept = serde_json::to_string(&alone).unwrap();
        assert_eq!(
            serde_json::from_str::<Vec<ItemOutcome>>(&kept).unwrap(),
            alone
        );
        assert_eq!(compare(&alone, &alone, "acc").unwrap().p(), Some(1.0));
    }
}

#[test]
fn parquet_gives_the_items_of_jsonl() {
    let options = TaskOptions::default();
    let [a, b] = ["piqa.jsonl", "piqa.parquet"].map(|name| {
        let path = folder().join(name);
        AccuracyTask::load(path.to_str().unwrap(), &options).unwrap()
    });
    assert_eq!((a.len(), b.len()), (40, 40));
    assert!((0..40).all(|i| a.item(i) == b.item(i)));
}

#[test]
fn generated_tasks_need_no_file_and_a_trained_model_solves_them() {
    let (_folder, model, tokenizer) = model("trained/llama");
    let options = TaskOptions {
        limit: Some(20),
        ..TaskOptions::default()
    };
    let task = AccuracyTask::load("stories", &options).unwrap();
    let found = scores(&score(&task, &model, &tokenizer, 0));
    let [acc, perplexity] = &found[..] else {
        panic!("two metrics: {found:?}");
    };
    // It knows how answers look and guesses which of ten is right: 10 would be chance among those.
    assert!(
        perplexity.value < 11.0 && perplexity.stderr.is_some(),
        "{found:?}"
    );
    assert!(acc.value >= 0.2 && acc.items == 20, "{found:?}");
    for task in ["addition2", "recall", "facts", "copy"] {
        assert_eq!(AccuracyTask::load(task, &options).unwrap().len(), 20);
    }
    // Answers in conversations follow a template, not a text.
    let error = AccuracyTask::load("chat", &options).unwrap_err();
    assert!(matches!(error, Error::Conversations { .. }), "{error}");
}

#[test]
fn a_folder_of_splits_is_scored_by_one_and_shown_the_other() {
    let data = tempfile::tempdir().unwrap();
    let copy = |from: &str, to: &str| std::fs::copy(items(from), data.path().join(to)).unwrap();
    copy("mmlu", "test-00000-of-00001.jsonl");
    copy("mmlu_dev", "dev-00000-of-00001.jsonl");
    let load = |fewshot| {
        let options = TaskOptions {
            fewshot: Some(fewshot),
            ..TaskOptions::default()
        };
        AccuracyTask::load(data.path().to_str().unwrap(), &options)
    };
    let item = load(2).unwrap().item(0);
    let run = expected()
        .into_iter()
        .find(|run| run.task == "mmlu_2shot")
        .unwrap();
    assert_eq!(item.requests[0].context, run.first_context);
    assert!(matches!(
        load(6),
        Err(Error::TooFewExamples {
            found: 5,
            expected: 6,
            ..
        })
    ));
}

#[test]
fn a_summary_says_how_a_task_asks() {
    let load = |name: &str, fewshot| {
        let options = TaskOptions {
            fewshot: Some(fewshot),
            ..TaskOptions::default()
        };
        AccuracyTask::load(name, &options).unwrap().summary()
    };
    let found = load(&items("sciq"), 2);
    assert_eq!(
        (found.layout.as_str(), found.items, found.examples),
        ("sciq", 20, 2)
    );
    assert_eq!(found.metrics, ["acc", "acc_norm"]);
    assert_eq!(found.first.len(), 4);
    assert!(found.first[0].context.ends_with("\nAnswer:"));
    let notes = |name: &str, fewshot| load(name, fewshot).notes.join(", ");
    assert_eq!(
        notes(&items("blimp"), 3),
        "examples are not added: lm-evaluation-harness adds none to this task"
    );
    assert!(notes(&items("mmlu_pro"), 0).contains("takes 5 by default"));
    let named = format!("gsm8k={}", items("asdiv"));
    assert!(notes(&named, 5).contains("fields that are not read: body, "));
}

#[test]
fn tasks_of_one_file_are_told_apart() {
    let data = items("truthfulqa");
    let load = |names: &[String]| AccuracyTask::load_all(names, &TaskOptions::default());
    let both = ["truthfulqa_mc1", "truthfulqa_mc2"].map(|layout| format!("{layout}={data}"));
    let tasks = load(&both).unwrap();
    let names: Vec<&str> = tasks.iter().map(AccuracyTask::name).collect();
    assert_eq!(names, ["truthfulqa_mc1", "truthfulqa_mc2"]);
    assert_ne!(tasks[0].sha256(), tasks[1].sha256());
    let twice = load(&[items("sciq"), items("sciq")]).unwrap_err();
    assert!(matches!(twice, Error::SameName { .. }), "{twice}");
}

#[test]
fn another_right_answer_is_another_task() {
    let folder = tempfile::tempdir().unwrap();
    let hash = |label: &str| {
        let path = folder.path().join("items.jsonl");
        let record =
            format!("{{\"goal\": \"a\", \"sol1\": \"b\", \"sol2\": \"c\", \"label\": {label}}}");
        std::fs::write(&path, record).unwrap();
        let task = AccuracyTask::load(path.to_str().unwrap(), &TaskOptions::default());
        task.unwrap().sha256()
    };
    assert_ne!(hash("0"), hash("1"));
    assert_eq!(hash("0"), hash("0"));
}

#[test]
fn each_layout_scores_the_split_that_has_labels() {
    let data = tempfile::tempdir().unwrap();
    let copy = |from: &str, to: &str| std::fs::copy(items(from), data.path().join(to)).unwrap();
    copy("commonsense_qa", "validation-00000-of-00001.jsonl");
    copy("commonsense_qa_train", "train-00000-of-00001.jsonl");
    let hidden = std::fs::read_to_string(items("commonsense_qa")).unwrap();
    let hidden = hidden.lines().map(|line| {
        let mut record: Value = serde_json::from_str(line).unwrap();
        record["answerKey"] = "".into();
        format!("{record}\n")
    });
    let hidden: String = hidden.collect();
    std::fs::write(data.path().join("test-00000-of-00001.jsonl"), hidden).unwrap();
    let options = TaskOptions {
        fewshot: Some(2),
        ..TaskOptions::default()
    };
    let task = AccuracyTask::load(data.path().to_str().unwrap(), &options).unwrap();
    let run = expected()
        .into_iter()
        .find(|run| run.task == "commonsense_qa_2shot")
        .unwrap();
    assert_eq!(task.item(0).requests[0].context, run.first_context);
}

#[test]
fn a_text_that_is_longer_than_the_context_is_refused_before_any_work() {
    let task = AccuracyTask::load(&items("mmlu_pro"), &TaskOptions::default()).unwrap();
    let refused = task.check_room(2048).unwrap_err().to_string();
    assert!(
        refused.contains("2048 tokens") && refused.contains("max_tokens"),
        "{refused}"
    );
    assert!(task.check_room(2049).is_ok());
    let scored = AccuracyTask::load(&items("sciq"), &TaskOptions::default()).unwrap();
    assert!(scored.check_room(1).is_ok());
}

#[test]
fn the_example_of_a_task_file_is_a_task() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs/tasks/capitals.toml");
    let task = AccuracyTask::load(path.to_str().unwrap(), &TaskOptions::default()).unwrap();
    let item = task.item(0);
    assert_eq!(item.requests.len(), 4);
    let context = &item.requests[0].context;
    assert!(
        context.starts_with("Question: What is the capital of "),
        "{context}"
    );
    assert_eq!(
        context.matches("Answer:").count(),
        3,
        "two examples: {context}"
    );
    let (_folder, model, tokenizer) = model("trained/llama");
    let outcomes = score(&task, &model, &tokenizer, 0);
    assert_eq!(scores(&outcomes).len(), 2);
}

#[test]
fn what_is_wrong_with_a_task_file_is_named() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("data.jsonl"), "{\"q\": \"x\", \"a\": 1}").unwrap();
    let check = |text: &str, expected: &str| {
        let path = folder.path().join("task.toml");
        std::fs::write(&path, text).unwrap();
        let error =
            AccuracyTask::load(path.to_str().unwrap(), &TaskOptions::default()).unwrap_err();
        let error = error.to_string();
        assert!(error.contains(expected), "{text}\n{error}");
        assert!(
            error.contains("task.toml") || error.contains("data.jsonl"),
            "{error}"
        );
    };
    let good = "data = 'data.jsonl'\nkind = 'choice'\ntext = '{{ q }}'\nchoices = ['a', 'b']\nanswer = 'a'\n";
    let with = |from: &str, to: &str| good.replace(from, to);
    check("kind", "expected");
    check(&format!("{good}\ncolour = 1"), "unknown field `colour`");
    check(&with("kind = 'choice'", ""), "either `kind` or `layout`");
    check(
        &with("kind = 'choice'", "layout = 'arc'"),
        "`layout` says what",
    );
    check(
        "layout = 'ark'\ndata = 'data.jsonl'",
        "unknown `layout` \"ark\"",
    );
    check(
        &with("'choice'", "'generation'"),
        "`choices` belong to the kind `choice`",
    );
    check(&with("{{ q }}", "{{ q "), "`text`");
    check(
        &with("{{ q }}", "{{ nothing }}"),
        "data.jsonl, record 1: `text`",
    );
    check(
        &with("answer = 'a'", "answer = 'q'"),
        "expected one of [\"a\", \"b\"]",
    );
    check(
        &with("answer = 'a'", "answer = 'a + 1'"),
        "record 1: `answer` gives 2",
    );
    check(
        &with(
            "{{ q }}",
            "{% for i in range(9999) %}{% for j in range(9999) %}x{% endfor %}{% endfor %}",
        ),
        "fuel",
    );
    check(&with("data = 'data.jsonl'", ""), "there is no `data`");
    check(
        &format!("{good}\n[generation]\nstop = []"),
        "kind `generation`",
    );
    check(
        "data = 'data.jsonl'\nlayout = 'piqa'\n[generation]\nmax_tokens = 3",
        "the layouts gsm8k and mmlu_pro",
    );
    let writes =
        "data = 'data.jsonl'\nkind = 'generation'\ntext = '{{ q }}'\nanswer = 'a'\n[generation]\n";
    check(
        &format!("{writes}stop = []\nignore = ['(']"),
        "is not a regular expression",
    );
    check(
        &format!("{writes}stop = []\nignore = ['a{{9999}}{{9999}}']"),
        "is not a regular expression",
    );
    check(
        &format!("{writes}stop = []\nmax_tokens = 0"),
        "`max_tokens` is 0",
    );
}

#[test]
fn what_is_no_task_is_refused_with_what_would_be_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("data.jsonl");
    let load = |name: &str| AccuracyTask::load(name, &TaskOptions::default()).unwrap_err();
    std::fs::write(&path, "{\"colour\": 1}").unwrap();
    let unknown = load(path.to_str().unwrap()).to_string();
    assert!(
        unknown.contains("its fields are colour") && unknown.contains("hellaswag"),
        "{unknown}"
    );
    let several = load(&items("truthfulqa")).to_string();
    assert!(
        several.contains("those of truthfulqa_mc1 and truthfulqa_mc2"),
        "{several}"
    );
    // The second record is of another data set; a name says that this is meant.
    let solved = "{\"question\": \"\", \"answer\": \"#### 1\"}";
    let lines = format!("{solved}\n{}\n", solved.replace('}', ", \"level\": 2}"));
    std::fs::write(&path, lines).unwrap();
    let mixed = load(path.to_str().unwrap()).to_string();
    assert!(
        mixed.contains("record 2") && mixed.contains("it does not have level"),
        "{mixed}"
    );
    let named = format!("gsm8k={}", path.display());
    let task = AccuracyTask::load(&named, &TaskOptions::default()).unwrap();
    assert_eq!(task.len(), 2);
    let forced = load(&format!("piqa={}", path.display())).to_string();
    assert!(
        forced.contains("data.jsonl, record 1: there is no `goal`"),
        "{forced}"
    );
    std::fs::write(&path, "").unwrap();
    assert!(matches!(load(path.to_str().unwrap()), Error::Empty { .. }));
    assert!(load("addition7").to_string().contains("addition2"));
    assert!(matches!(
        load("missing.jsonl"),
        tasks::Error::Unknown { .. }
    ));
}
