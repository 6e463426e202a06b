//! The folder of a run: its recipe elsewhere, its texts later, other recipes, and steps that cannot
//! fit in memory.

mod program;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use program::{refused, text};

const RECIPE: &str = "
    [model]
    family = 'bitnet'
    hidden_size = 32
    intermediate_size = 48
    num_hidden_layers = 1
    num_attention_heads = 2
    [data]
    text = ['texts/a.txt']
    vocab_size = 270
    [train]
    steps = 2
    batch = 2
    context = 16
    learning_rate = 1e-3
    warmup = 1
    checkpoint_every = 1
    sample_tokens = 0
";

/// A folder with a recipe and its text.
struct Project(tempfile::TempDir);

impl Project {
    fn new() -> Project {
        let project = Project(tempfile::tempdir().unwrap());
        for folder in ["texts", "elsewhere"] {
            std::fs::create_dir(project.at(folder)).unwrap();
        }
        project.write("texts/a.txt", &"The cat sat on the mat. ".repeat(60));
        project.write("r.toml", RECIPE);
        project
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, content: &str) {
        std::fs::write(self.at(name), content).unwrap();
    }

    /// Runs `sterna train` in a folder of the project.
    fn train(&self, folder: &str, args: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sterna"));
        let command = command.current_dir(self.at(folder)).arg("train").args(args);
        command.output().unwrap()
    }

    /// What a training that succeeds says.
    fn trained(&self, folder: &str, args: &[&str]) -> String {
        let output = self.train(folder, args);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{args:?}: {said}");
        said
    }

    /// Why a training with other arguments is refused.
    fn refused(&self, more: &[&str]) -> String {
        let (recipe, run) = (self.at("r.toml"), self.at("run"));
        let args = ["train", "--config", text(&recipe), "--out", text(&run)];
        refused(3, &[&args[..], more].concat())
    }
}

fn model(run: &Path) -> Vec<u8> {
    std::fs::read(run.join("model/model.safetensors")).unwrap()
}

#[test]
fn the_recipe_of_a_run_means_the_same_in_every_folder() {
    let project = Project::new();
    project.trained(".", &["--config", "r.toml", "--out", "run"]);
    let recipe = project.at("run/recipe.toml");
    let (recipe, again) = (text(&recipe), project.at("again"));
    project.trained("elsewhere", &["--config", recipe, "--out", text(&again)]);
    project.trained("run", &["--config", "recipe.toml", "--out", "../third"]);
    assert!(model(&project.at("run")) == model(&again));
    assert!(model(&project.at("third")) == model(&again));
    // The same run goes on, be it named by its own recipe or by the first one.
    let (run, steps) = (project.at("run"), ["--set", "train.schedule='constant'"]);
    let on = project.trained("elsewhere", &["--config", recipe, "--out", text(&run)]);
    assert!(on.contains("going on from step 2"), "{on}");
    let message = project.refused(&steps);
    assert!(
        message.contains("`train.schedule` was \"linear\""),
        "{message}"
    );
    // A flag names a text relative to the working folder, and a hub's name is not a path.
    let shown = ["--config", "../r.toml", "--text", "b.txt", "--print-config"];
    let output = project.train("texts", &shown);
    let shown = String::from_utf8_lossy(&output.stdout).into_owned();
    let expected = format!("text = [\"{}\"]", project.at("texts/b.txt").display());
    assert!(shown.contains(&expected), "{shown}");
}

#[test]
fn another_recipe_is_refused_with_the_keys_that_differ() {
    let project = Project::new();
    project.trained(".", &["--config", "r.toml", "--out", "run"]);
    let set = |assignment| ["--set", assignment];
    let more = [
        set("train.batch=3"),
        set("train.clip=2.5"),
        set("data.separator='#'"),
    ]
    .concat();
    let message = project.refused(&more);
    for part in [
        "another recipe: `data.separator` was absent and is \"#\"",
        "`train.batch` was 2 and is 3, `train.clip` was 1.0 and is 2.5;",
    ] {
        assert!(message.contains(part), "{message}");
    }
    project.write("elsewhere/a.txt", &"The dog ran in the fog. ".repeat(60));
    let other = project.at("elsewhere/a.txt");
    let message = project.refused(&["--text", text(&other)]);
    let there = project.at("texts/a.txt");
    let paths = format!(
        "`data.text` was [\"{}\"] and is [\"{}\"]; the contents of {} are not those",
        there.display(),
        other.display(),
        other.display()
    );
    assert!(message.contains(&paths), "{message}");
}

#[test]
fn texts_that_changed_are_told_and_texts_that_moved_are_the_same() {
    let project = Project::new();
    let args = ["--config", "r.toml", "--out", "run"];
    let said = project.trained(".", &args);
    assert!(!said.contains("changed"), "{said}");
    let before = model(&project.at("run"));
    std::fs::copy(project.at("texts/a.txt"), project.at("elsewhere/a.txt")).unwrap();
    let moved = project.at("elsewhere/a.txt");
    let said = project.trained(".", &[&args[..], &["--text", text(&moved)]].concat());
    assert!(said.contains("going on from step 2"), "{said}");
    assert!(!said.contains("changed"), "{said}");
    let recipe = std::fs::read_to_string(project.at("run/recipe.toml")).unwrap();
    assert!(recipe.contains(text(&moved)), "{recipe}");
    // From now on this file is that of the run.
    project.write("elsewhere/a.txt", "Other text.");
    let said = project.trained(".", &["--config", "run/recipe.toml", "--out", "run"]);
    let told = format!("{} had 1440 bytes and has 11", moved.display());
    assert!(
        said.contains("the data changed since this run began"),
        "{said}"
    );
    assert!(said.contains(&told) && said.contains("--from"), "{said}");
    std::fs::remove_file(&moved).unwrap();
    let said = project.trained(".", &["--config", "run/recipe.toml", "--out", "run"]);
    assert!(
        said.contains(&format!("{} is not there", moved.display())),
        "{said}"
    );
    assert!(before == model(&project.at("run")));
}

#[test]
fn a_folder_without_a_step_belongs_to_no_recipe() {
    let project = Project::new();
    project.write("texts/a.txt", "Too short.");
    let message = project.refused(&[]);
    assert!(!project.at("run/checkpoints").exists(), "{message}");
    project.write("texts/a.txt", &"The cat sat on the mat. ".repeat(60));
    let args = ["--config", "r.toml", "--out", "run", "--set"];
    project.trained(".", &[&args[..], &["train.batch=3"]].concat());
    // Nor does one whose checkpoints were removed.
    std::fs::remove_dir_all(project.at("run/checkpoints")).unwrap();
    project.trained(".", &[&args[..], &["train.batch=2"]].concat());
    let recipe = std::fs::read_to_string(project.at("run/recipe.toml")).unwrap();
    assert!(recipe.contains("batch = 2\n"), "{recipe}");
    let metrics = std::fs::read_to_string(project.at("run/metrics.jsonl")).unwrap();
    assert_eq!(metrics.matches("\"loss\"").count(), 2, "{metrics}");
}

#[test]
fn a_step_that_cannot_fit_in_memory_is_refused_with_numbers() {
    let project = Project::new();
    let check = |key: &str, value: &str, expected: &str| {
        let assignment = format!("{key}={value}");
        for instead in [None, Some("--plan"), Some("--profile")] {
            let set = ["--set", &assignment].into_iter();
            let message = project.refused(&set.chain(instead).collect::<Vec<_>>());
            assert!(message.contains("this process can have"), "{message}");
            assert!(message.contains(expected), "{message}");
        }
    };
    let huge = "1000000000000";
    check("train.batch", huge, &format!("a batch of {huge}"));
    check("train.accumulate", huge, &format!("a batch of 2 × {huge}"));
    check(
        "train.context",
        huge,
        &format!("sequences of {huge} tokens"),
    );
    check("model.num_hidden_layers", huge, "`num_hidden_layers`");
    check("model.hidden_size", "4000000000", "`hidden_size`");
    check("data.vocab_size", huge, "3.20e13 parameters");
    assert!(!project.at("run").exists());
}
