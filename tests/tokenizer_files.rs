//! Checkpoints whose files name tokens that tokenizer.json or the embedding lacks, and templates
//! that cannot be used: what `convert`, `generate`, `inspect` and `doctor` say.

mod program;

use std::path::PathBuf;

use program::{fixture, json, refused, sterna, text};
use serde_json::{Value, json};

/// A copy of a model with 300 tokens.
struct Model {
    folder: tempfile::TempDir,
}

impl Model {
    fn new() -> Model {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("source")).unwrap();
        let model = Model { folder };
        for entry in fixture("trained/llama").read_dir().unwrap() {
            let entry = entry.unwrap();
            std::fs::copy(entry.path(), model.at(entry.file_name().to_str().unwrap())).unwrap();
        }
        model
    }

    /// A file of the checkpoint.
    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join("source").join(name)
    }

    fn edit(self, name: &str, edit: impl FnOnce(&mut Value)) -> Model {
        let bytes = std::fs::read(self.at(name)).unwrap_or(b"{}".to_vec());
        let mut file = serde_json::from_slice(&bytes).unwrap();
        edit(&mut file);
        std::fs::write(self.at(name), file.to_string()).unwrap();
        self
    }

    /// Takes the last `count` tokens out of the vocabulary.
    fn without(self, count: usize) -> Model {
        self.edit("tokenizer.json", |file| {
            let vocab = file["model"]["vocab"].as_object_mut().unwrap();
            let most = vocab.len() - count;
            vocab.retain(|_, id| id.as_u64().unwrap() < most as u64);
            let merges = file["model"]["merges"].as_array_mut().unwrap();
            merges.truncate(merges.len() - count);
        })
    }

    fn source(&self) -> String {
        text(&self.folder.path().join("source")).to_owned()
    }

    fn packed(&self) -> String {
        text(&self.folder.path().join("model.sterna")).to_owned()
    }

    /// Converts the model and returns the warnings.
    fn convert(&self) -> String {
        let output = sterna(&["convert", &self.source(), "--out", &self.packed()]);
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{stderr}");
        stderr
    }

    fn prompt_ids(&self, prompt: &str) -> Value {
        let args = [
            "generate",
            &self.packed(),
            "-p",
            prompt,
            "-n",
            "1",
            "--json",
        ];
        json(&args)["prompt_ids"].take()
    }
}

#[test]
fn tokens_of_other_files_are_tokens() {
    let check = |model: Model| {
        let warnings = model.convert();
        assert!(
            warnings.contains("<|im_start|> (296), <|im_end|> (297)"),
            "{warnings}"
        );
        let ids = model.prompt_ids("<|im_start|>a<|im_end|>");
        let ids: Vec<u64> = serde_json::from_value(ids).unwrap();
        let first = ids.iter().position(|id| *id == 296).unwrap();
        assert_eq!((ids[first + 2], ids.len()), (297, first + 3), "{ids:?}");
    };
    let tokens = ["<|im_start|>", "<|im_end|>"];
    let room = || Model::new().without(4);
    check(room().edit("tokenizer_config.json", |file| {
        file["additional_special_tokens"] = json!(tokens);
    }));
    check(room().edit("added_tokens.json", |file| {
        *file = json!({"<|im_start|>": 296, "<|im_end|>": 297});
    }));
    check(room().edit("special_tokens_map.json", |file| {
        file["additional_special_tokens"] = json!(tokens);
    }));
    check(room().edit("tokenizer_config.json", |file| {
        let token = |content: &str| {
            json!({"content": content, "special": true,
            "lstrip": false, "rstrip": false, "single_word": false, "normalized": false})
        };
        file["added_tokens_decoder"] = json!({"296": token(tokens[0]), "297": token(tokens[1])});
    }));
}

#[test]
fn a_folder_whose_files_disagree_is_written_with_one_meaning() {
    let token = |lstrip: bool| {
        json!({"content": "<x>", "special": true, "lstrip": lstrip, "rstrip": false,
            "single_word": false, "normalized": false})
    };
    let model = || Model::new().without(4);
    let map = |file: &mut Value| {
        *file = json!({"eos_token": "<d>", "additional_special_tokens": ["<c>"]});
    };
    for model in [
        model().edit("tokenizer_config.json", |file| {
            file["added_tokens_decoder"] = json!({"5": token(false), "296": token(true)});
        }),
        model()
            .edit("tokenizer_config.json", |file| {
                file["eos_token"] = "<a>".into();
                file["additional_special_tokens"] = json!(["<b>", "<c>"]);
            })
            .edit("special_tokens_map.json", map),
    ] {
        let [first, second] = ["first", "second"].map(|name| model.folder.path().join(name));
        let convert = |from: &str, to: &std::path::Path| {
            let output = sterna(&["convert", from, "--to", "hf", "--out", text(to)]);
            let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(output.status.success(), "{stderr}");
            stderr
        };
        let warnings = convert(&model.source(), &first);
        assert!(warnings.contains("tokenizer: "), "{warnings}");
        let warnings = convert(text(&first), &second);
        assert!(!warnings.contains("tokenizer: "), "{warnings}");
        for name in ["tokenizer.json", "tokenizer_config.json"] {
            let [first, second] = [&first, &second].map(|f| std::fs::read(f.join(name)).unwrap());
            assert_eq!(first, second, "{name}");
        }
    }
}

#[test]
fn an_added_token_without_a_row_is_told_and_refused_in_texts_alone() {
    let model = Model::new().edit("tokenizer_config.json", |file| {
        file["pad_token"] = "<pad>".into();
    });
    let warnings = model.convert();
    let told = r#"token "<pad>" has id 300, but the embedding has 300 rows"#;
    assert!(warnings.contains(told), "{warnings}");
    assert!(model.prompt_ids("Once").is_array());
    let args = ["generate", &model.packed(), "-p", "a<pad>", "-n", "1"];
    let message = refused(1, &args);
    assert!(message.contains("\"<pad>\" with id 300"), "{message}");
    let output = sterna(&["doctor", &model.source(), "--json"]);
    let report = String::from_utf8_lossy(&output.stdout);
    assert!(report.contains("text with <pad> is refused"), "{report}");
    assert!(!report.contains("there is no tokenizer"), "{report}");
}

#[test]
fn a_vocabulary_beyond_the_embedding_is_refused() {
    let model = Model::new().edit("tokenizer.json", |file| {
        file["model"]["vocab"]["more"] = 300.into();
    });
    let args = ["convert", &model.source(), "--out", &model.packed()];
    let message = refused(3, &args);
    assert!(
        message.contains(r#"token "more" has id 300, expected ids below 300"#),
        "{message}"
    );
}

#[test]
fn a_template_that_cannot_be_used_is_told_at_once() {
    let check = |template: &str, expected: &str| {
        let model = Model::new();
        std::fs::write(model.at("chat_template.jinja"), template).unwrap();
        let warnings = model.convert();
        let all = [
            expected,
            "chat_template.jinja",
            "chats with this model will fail",
        ];
        assert!(all.iter().all(|part| warnings.contains(part)), "{warnings}");
        let facts = json(&["inspect", &model.source(), "--json"]);
        let why = facts["chat_template"]["error"].as_str().unwrap();
        assert!(why.contains(expected), "{why}");
    };
    check(
        "{% if messages %}\n{{ 1 + }}{% endif %}",
        "line 2, column 8: expected a value",
    );
    check("{{ messages | nofilter }}", "nofilter");
    check("a\n{{ messages[0].meta.name }}", ":2");
}
