//! The programs in `examples/`, run on small models, and what they print.
//!
//! Cargo builds examples with the tests of a package, unless one test is chosen by its name: then
//! `cargo build --examples` builds them.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Runs an example with this standard input and returns what it prints.
fn example(name: &str, args: &[&str], input: &str) -> String {
    // Tests lie in target/debug/deps, examples in target/debug/examples.
    let test = std::env::current_exe().unwrap();
    let folder = test.ancestors().nth(2).unwrap().join("examples");
    let path = folder.join(format!("{name}{}", std::env::consts::EXE_SUFFIX));
    let mut command = Command::new(&path);
    let command = command.args(args).stdin(Stdio::piped());
    let command = command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|e| {
        let path = path.display();
        panic!("{path}: {e}; run `cargo build --examples` first")
    });
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(input.as_bytes()).unwrap();
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name} {args:?}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

/// A fixture of the repository, packed.
fn packed(name: &str) -> (tempfile::TempDir, String) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.sterna");
    let options = sterna_convert::PackedOptions::default();
    sterna_convert::convert(&root.join(name), &path, &options, &mut |_, _| {}).unwrap();
    let path = text(&path);
    (folder, path)
}

fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

fn write(folder: &Path, name: &str, content: &str) -> String {
    let path: PathBuf = folder.join(name);
    std::fs::write(&path, content).unwrap();
    text(&path)
}

#[test]
fn generate_continues_the_prompt_and_does_so_again() {
    let (_folder, model) = packed("trained/bitnet");
    let story = example("generate", &[&model, "Once Mia"], "");
    assert!(story.trim_end().len() > 20, "{story}");
    assert_eq!(example("generate", &[&model, "Once Mia"], ""), story);
}

#[test]
fn chat_answers_each_line() {
    let (_folder, model) = packed("checkpoints/bitnet-packed-bf16-scales");
    let answers = example("chat", &[&model], "hello\nand again\n");
    assert!(answers.lines().count() >= 2, "{answers}");
}

#[test]
fn batch_gives_the_same_bits() {
    let (_folder, model) = packed("trained/llama");
    let prompts = ["Once Mia", "Once Tom sat in the barn.", "Once Ivy"];
    let printed = example("batch", &[&[&*model][..], &prompts].concat(), "");
    let lines: Vec<&str> = printed.lines().collect();
    let (last, continued) = lines.split_last().unwrap();
    assert!(
        last.starts_with("all logits have the same bits; "),
        "{last}"
    );
    for (line, prompt) in continued.iter().zip(prompts) {
        assert!(line.starts_with(prompt) && line.len() > prompt.len());
    }
}

#[test]
#[cfg(feature = "grammar")]
fn json_keeps_to_the_schema() {
    let (folder, model) = packed("trained/bitnet");
    let schema = r#"{"type": "object", "properties": {"name": {"enum": ["Mia", "Tom"]},
        "age": {"type": "integer", "minimum": 1, "maximum": 9}}, "required": ["name", "age"],
        "additionalProperties": false}"#;
    let schema = write(folder.path(), "schema.json", schema);
    let printed = example("json", &[&model, "Once Mia", &schema], "");
    let value: serde_json::Value = serde_json::from_str(&printed).unwrap();
    assert!(
        ["Mia", "Tom"].contains(&value["name"].as_str().unwrap()),
        "{printed}"
    );
    assert!(
        (1..=9).contains(&value["age"].as_i64().unwrap()),
        "{printed}"
    );
    assert_eq!(value.as_object().unwrap().len(), 2, "{printed}");
}

#[test]
fn logits_never_uses_the_letter() {
    let (_folder, model) = packed("trained/bitnet");
    let printed = example("logits", &[&model, "Once Mia", "e"], "");
    let continuation = |start: &str| {
        let (_, text) = printed.split_once(start).unwrap();
        let text = text.split_once("Once Mia").unwrap().1;
        text.lines().next().unwrap().to_owned()
    };
    assert!(continuation("any token:").contains('e'), "{printed}");
    let without = continuation("never with 'e':");
    assert!(without.len() > 10 && !without.contains('e'), "{printed}");
}

#[test]
fn embed_finds_the_line_itself() {
    let (folder, model) = packed("checkpoints/qwen3-embedding");
    let lines = "the tern\n\nover water it flies\nten small models\nand home\n";
    let file = write(folder.path(), "lines.txt", lines);
    let found = example("embed", &[&model, &file, "ten small models"], "");
    let found: Vec<&str> = found.lines().collect();
    assert_eq!(found.len(), 3);
    assert_eq!(found[0], "1.000  ten small models");
}

#[test]
fn score_prefers_the_story() {
    let (folder, model) = packed("trained/llama");
    let stories = sterna_validate::Text::stories(4).documents;
    let file = write(folder.path(), "stories.txt", &stories.join("\n\n"));
    let answers = [" sat in the barn.", " zqx kvw jjq."];
    let args = [&[&*model, &file, "Once Tom"][..], &answers].concat();
    let printed = example("score", &args, "");
    let lines: Vec<&str> = printed.lines().collect();
    let perplexity = lines[0].split(' ').nth(1).unwrap();
    let perplexity: f64 = perplexity.parse().unwrap();
    assert!((1.0..10.0).contains(&perplexity), "{printed}");
    let likelihood = |line: &str| line.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap();
    assert!(likelihood(lines[1]) > likelihood(lines[2]), "{printed}");
}

#[test]
fn convert_proves_what_it_wrote() {
    let folder = tempfile::tempdir().unwrap();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/trained/bitnet");
    let out = text(&folder.path().join("model.sterna"));
    let printed = example("convert", &[&text(&source), &out], "");
    assert!(printed.contains("model.layers.0.self_attn.q_proj.weight"));
    assert!(printed.contains(" weights, 0 differ"), "{printed}");
    assert!(printed.ends_with("compared again: 0 differ\n"), "{printed}");
    assert!(Path::new(&out).exists());
}

#[test]
fn train_stops_when_the_loss_is_low_enough() {
    let folder = tempfile::tempdir().unwrap();
    let recipe = "
        [model]
        family = 'bitnet'
        hidden_size = 32
        intermediate_size = 48
        num_hidden_layers = 2
        num_attention_heads = 2
        [data]
        mix = 'addition2=1'
        documents = 400
        vocab_size = 300
        [train]
        steps = 500
        batch = 4
        context = 32
        learning_rate = 1e-2
        warmup = 5
        evaluate_every = 500
        checkpoint_every = 500
    ";
    let recipe = write(folder.path(), "recipe.toml", recipe);
    let run = text(&folder.path().join("run"));
    let printed = example("train", &[&recipe, &run, "4.0", "12+34="], "");
    let steps = printed.lines().filter(|line| line.starts_with("step "));
    let losses: Vec<f64> = steps
        .map(|line| line.rsplit_once(' ').unwrap().1.parse().unwrap())
        .collect();
    let (last, before) = losses.split_last().unwrap();
    assert!(*last < 4.0 && before.iter().all(|loss| *loss >= 4.0));
    assert!(losses.len() < 500 && !before.is_empty());
    assert!(printed.contains(" weights, 0 differ"), "{printed}");
    assert!(printed.contains("\n12+34="), "{printed}");
}
