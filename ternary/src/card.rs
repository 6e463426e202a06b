//! The model card: README.md of a Hugging Face folder, with the metadata block that the Hub reads.
//!
//! A card states only what is known. It never invents a licence, a language or a base model. The
//! values of the block are written as JSON, which is valid YAML: `serde_json` does the escaping and
//! no YAML crate is needed. Format: <https://huggingface.co/docs/hub/model-cards>.

use std::io;
use std::path::Path;

use serde_json::Value;

use crate::{Config, durable, layout};

/// File name of the card.
pub const README: &str = "README.md";
/// Last line of a card that Sterna may replace. A card without this line belongs to the user.
const MARK: &str = "<!-- Written by sterna. Remove this line to keep your own changes. -->\n";

/// The facts that a card states.
#[derive(Debug, Clone, Default)]
pub struct Card {
    /// The heading.
    pub title: String,
    /// `org/name` of the model that training started from.
    pub base_model: Option<String>,
    /// The identifier of a licence, like `apache-2.0`.
    pub license: Option<String>,
    /// Codes of languages, like `en`.
    pub languages: Vec<String>,
    /// `org/name` of the Hub datasets that the model was trained on.
    pub datasets: Vec<String>,
    /// Whether linear layers are ternary and config.json declares it to transformers.
    pub is_quantized: bool,
    /// Description and origin of the model, as paragraphs of Markdown.
    pub about: String,
    /// Keys and values of the training recipe.
    pub recipe: Vec<(String, String)>,
    /// Names and SHA-256 checksums of the data files.
    pub data: Vec<(String, String)>,
    /// Held-out loss in nats per token, and the number of steps after which it was measured.
    pub held_out_loss: Option<(f64, u64)>,
}

impl Card {
    /// Writes the card into a folder. A README.md that Sterna did not write is left unchanged.
    ///
    /// # Errors
    /// If the file cannot be read or written.
    pub fn write(&self, folder: &Path, config: &Config) -> io::Result<()> {
        let path = folder.join(README);
        match std::fs::read_to_string(&path) {
            Ok(text) if !text.ends_with(MARK) => return Ok(()),
            // Sterna writes UTF-8 only, so this file is not ours.
            Err(e) if e.kind() == io::ErrorKind::InvalidData => return Ok(()),
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        durable::write(&path, |w| {
            io::Write::write_all(w, self.text(config).as_bytes())
        })
    }

    /// The text of the whole file.
    pub fn text(&self, config: &Config) -> String {
        let title = plain(&self.title);
        let mut text = format!("---\n{}---\n\n# {title}\n\n", self.metadata());
        let parameters: usize = layout::weights(config)
            .iter()
            .map(|w| w.rows.max(1) * w.columns)
            .sum();
        text += &format!(
            "{}\n\n- family: {}, architecture `{}`\n- parameters: {parameters}\n\
             - layers: {}, hidden size: {}, context: {} tokens\n",
            self.about.trim(),
            config.family.name,
            config.family.architecture,
            config.num_hidden_layers,
            config.hidden_size,
            config.max_position_embeddings,
        );
        if let Some((loss, steps)) = self.held_out_loss {
            text += &format!("- held-out loss: {loss:.4} nats per token after {steps} steps\n");
        }
        text += &self.how_to_run();
        text += &table("Recipe", ["key", "value"], &self.recipe);
        text += &table("Data", ["file", "SHA-256"], &self.data);
        text + "\n" + MARK
    }

    /// The lines between `---`.
    fn metadata(&self) -> String {
        let strings =
            |values: &[String]| values.iter().map(|value| text(value)).collect::<Vec<_>>();
        let list = |values: &[String]| format!("[{}]", strings(values).join(", "));
        let mut tags = vec!["ternary".to_owned(), "sterna".to_owned()];
        if self.is_quantized {
            tags.insert(1, "bitnet".to_owned());
        }
        let mut lines = vec![("library_name", text("transformers"))];
        lines.extend(self.license.iter().map(|value| ("license", text(value))));
        lines.extend(
            self.base_model
                .iter()
                .map(|value| ("base_model", text(value))),
        );
        for (key, values) in [("language", &self.languages), ("datasets", &self.datasets)] {
            lines.extend((!values.is_empty()).then(|| (key, list(values))));
        }
        lines.push(("pipeline_tag", text("text-generation")));
        lines.push(("tags", list(&tags)));
        let line = |(key, value): (&str, String)| format!("{key}: {value}\n");
        lines.into_iter().map(line).collect()
    }

    fn how_to_run(&self) -> String {
        let (packages, note) = match self.is_quantized {
            true => (
                "transformers torch accelerate",
                "transformers needs `accelerate` to load the quantization of BitNet.\n\n",
            ),
            false => ("transformers torch", ""),
        };
        format!(
            "\n## How to run it\n\nWith [Sterna]({}), on a CPU, by the name of this repository \
             or the path of the folder:\n\n\
             ```sh\nsterna generate NAME --prompt \"Once\"\n```\n\n\
             With transformers, after `pip install {packages}`:\n\n\
             ```python\nfrom transformers import AutoModelForCausalLM, AutoTokenizer\n\n\
             name = \".\"  # this folder, or the name of the repository\n\
             tokenizer = AutoTokenizer.from_pretrained(name)\n\
             model = AutoModelForCausalLM.from_pretrained(name)\n\
             inputs = tokenizer(\"Once\", return_tensors=\"pt\")\n\
             print(tokenizer.decode(model.generate(**inputs, max_new_tokens=32)[0]))\n```\n\n\
             {note}",
            env!("CARGO_PKG_REPOSITORY")
        )
    }
}

/// Returns `org/name` if the path is inside a snapshot of the Hub cache. `kind` is `models` or
/// `datasets`.
pub fn hub_name(path: &Path, kind: &str) -> Option<String> {
    let parts: Vec<&str> = path.iter().filter_map(|part| part.to_str()).collect();
    let folder = parts.windows(2).find(|pair| pair[1] == "snapshots")?[0];
    let name = folder.strip_prefix(kind)?.strip_prefix("--")?;
    name.contains("--").then(|| name.replacen("--", "/", 1))
}

/// Quotes a string for YAML: as JSON, with the characters that YAML accepts only as escapes
/// escaped.
fn text(value: &str) -> String {
    let json = Value::from(value).to_string();
    let escape = |c: char| match c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}')
    {
        true => format!("\\u{:04x}", c as u32),
        false => c.to_string(),
    };
    json.chars().map(escape).collect()
}

/// Escapes a value for Markdown: one line, without characters that form tables or open HTML.
fn plain(value: &str) -> String {
    let line = value.split_whitespace().collect::<Vec<_>>().join(" ");
    line.replace('\\', "\\\\")
        .replace('|', "\\|")
        .replace('<', "&lt;")
}

fn table(title: &str, head: [&str; 2], rows: &[(String, String)]) -> String {
    if rows.is_empty() {
        return String::new();
    }
    let rows = rows
        .iter()
        .map(|(a, b)| format!("| {} | {} |\n", plain(a), plain(b)));
    let rows: String = rows.collect();
    format!(
        "\n## {title}\n\n| {} | {} |\n|---|---|\n{rows}",
        head[0], head[1]
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn config() -> Config {
        Config::from_json(&json!({
            "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu",
            "hidden_size": 8, "intermediate_size": 6, "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "vocab_size": 5, "max_position_embeddings": 64, "rms_norm_eps": 1e-5, "rope_theta": 1e4,
            "tie_word_embeddings": false,
        }))
        .unwrap()
    }

    /// Parses the metadata block with an independent YAML parser.
    fn metadata(card: &Card) -> Value {
        let text = card.text(&config());
        let block = text.strip_prefix("---\n").unwrap().split("---\n").next();
        serde_yaml_ng::from_str(block.unwrap()).unwrap()
    }

    #[test]
    fn the_block_says_what_is_known_and_nothing_else() {
        let least = metadata(&Card::default());
        let expected = json!({
            "library_name": "transformers", "pipeline_tag": "text-generation",
            "tags": ["ternary", "sterna"],
        });
        assert_eq!(least, expected);
        let most = Card {
            base_model: Some("org/base".into()),
            license: Some("apache-2.0".into()),
            languages: vec!["en".into(), "no".into()],
            datasets: vec!["org/a".into()],
            is_quantized: true,
            ..Card::default()
        };
        let found = metadata(&most);
        assert_eq!(found["language"], json!(["en", "no"]), "`no` is not false");
        assert_eq!(found["datasets"], json!(["org/a"]));
        assert_eq!(
            (&found["base_model"], &found["license"]),
            (&json!("org/base"), &json!("apache-2.0"))
        );
        assert_eq!(found["tags"], json!(["ternary", "bitnet", "sterna"]));
    }

    #[test]
    fn every_value_survives_the_block() {
        for hostile in [
            "a\nlicense: mit",
            "---",
            "\"}], x: [",
            "yes",
            "1e3",
            "null",
            "# no",
            "\u{1}\u{7f}\u{85}\u{2028}é😀",
            "tab\there",
            "'",
            "\\",
            "",
        ] {
            let card = Card {
                base_model: Some(hostile.into()),
                languages: vec![hostile.into()],
                ..Card::default()
            };
            let found = metadata(&card);
            assert_eq!(found["base_model"], json!(hostile));
            assert_eq!(found["language"], json!([hostile]));
            assert_eq!(found.get("license"), None);
        }
    }

    #[test]
    fn the_body_has_recipe_data_and_loss() {
        let card = Card {
            title: "a|b <script>".into(),
            about: "A test.".into(),
            recipe: vec![("train.steps".into(), "3".into())],
            data: vec![("a.txt".into(), "00ff".into())],
            held_out_loss: Some((1.25, 3)),
            is_quantized: true,
            ..Card::default()
        };
        let text = card.text(&config());
        for part in [
            "\n# a\\|b &lt;script>\n\nA test.\n",
            "- parameters: 504\n",
            "- held-out loss: 1.2500 nats per token after 3 steps\n",
            "| train.steps | 3 |\n",
            "| a.txt | 00ff |\n",
            "pip install transformers torch accelerate",
            "sterna generate NAME",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }

    #[test]
    fn a_card_is_replaced_and_the_text_of_a_user_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let read = || std::fs::read_to_string(folder.path().join(README)).unwrap();
        let write = |title: &str| {
            let card = Card {
                title: title.into(),
                ..Card::default()
            };
            card.write(folder.path(), &config()).unwrap();
        };
        write("first");
        write("second");
        assert!(read().contains("# second"));
        let own = read().replace(MARK, "");
        std::fs::write(folder.path().join(README), &own).unwrap();
        write("third");
        assert_eq!(read(), own);
    }

    #[test]
    fn names_are_read_from_the_cache_of_the_hub() {
        let path = Path::new("/c/hub/datasets--org--my-set/snapshots/0123/data/a.jsonl");
        assert_eq!(hub_name(path, "datasets").as_deref(), Some("org/my-set"));
        assert_eq!(hub_name(path, "models"), None);
        assert_eq!(hub_name(Path::new("a/snapshots/b"), "datasets"), None);
    }
}
