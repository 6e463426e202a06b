//! Models of random weights whose templates write calls in different syntaxes.
#![allow(dead_code)] // each test binary uses a part

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use serde_json::{Value, json};
use sterna_runtime::{Model, Options};
use sterna_ternary::{Packing, TableType};

use crate::random_model::{odd, write};
use crate::support::{Test, limits, served_as};
use crate::tokenizers::tokenizer_json;

/// Special tokens by their ids.
pub const SPECIALS: [&str; 5] = ["<s>", "</s>", "<call>", "</call>", "<|python_tag|>"];
pub const EOS: &str = "1";
pub const CALL: &str = "2";
pub const END_OF_CALL: &str = "3";
pub const PYTHON: &str = "4";
/// Words in which the ends of fixed texts and of JSON meet.
const WORDS: [&str; 8] = [
    "<tool_call>",
    "\n{\"",
    "\": {",
    "}}\n",
    "</tool_call>",
    "_call>\n",
    "true",
    "\", \"",
];

/// A model by its template.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Calls between tags that are texts, as Hermes and Qwen write them.
    Tagged,
    /// The same with special tokens.
    Special,
    /// Calls that are nothing but JSON, one at a time, as Llama 3 writes them.
    Bare,
    /// Special tokens, and ids of nine letters, as Mistral has them.
    ShortIds,
    /// A template that has no place for tools.
    Plain,
}

/// The template of a kind.
fn template(kind: Kind) -> String {
    let (call, between, end) = match kind {
        Kind::Tagged => (
            "<tool_call>\\n{\"name\": \"",
            "\", \"arguments\": ",
            "}\\n</tool_call>",
        ),
        Kind::Special | Kind::ShortIds => {
            ("<call>{\"name\": \"", "\", \"arguments\": ", "}</call>")
        }
        Kind::Bare => ("{\"name\": \"", "\", \"parameters\": ", "}"),
        Kind::Plain => {
            return "{{ bos_token }}{% for m in messages %}{{ m.role + ': ' + m.content }}\
                {% if m.role == 'assistant' %}{{ eos_token }}{% endif %}{{ '\\n' }}{% endfor %}\
                {% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
                .to_owned();
        }
    };
    let single = match kind {
        Kind::Bare => "{% if m.tool_calls | length > 1 %}{{ raise_exception('one') }}{% endif %}",
        _ => "",
    };
    let checked = match kind {
        Kind::ShortIds => "{% if c.id | length != 9 %}{{ raise_exception('not nine') }}{% endif %}",
        _ => "",
    };
    format!(
        "{{{{ bos_token }}}}{{% if tools %}}{{{{ 'tools: ' + tools | tojson + '\\n' }}}}\
         {{% endif %}}{{% for m in messages %}}{{{{ m.role + ': ' }}}}{{% if m.tool_calls %}}\
         {single}{{{{ m.content or '' }}}}{{% for c in m.tool_calls %}}{checked}\
         {{% if not loop.first or m.content %}}{{{{ '\\n' }}}}{{% endif %}}\
         {{{{ '{call}' + c.function.name + '{between}' }}}}\
         {{{{ c.function.arguments | tojson + '{end}' }}}}\
         {{% endfor %}}{{% else %}}{{{{ m.content }}}}{{% endif %}}\
         {{% if m.role == 'tool' %}}{{{{ ' of ' + m.name }}}}{{% endif %}}\
         {{% if m.role == 'assistant' %}}{{{{ eos_token }}}}{{% endif %}}{{{{ '\\n' }}}}\
         {{% endfor %}}{{% if add_generation_prompt %}}{{{{ 'assistant: ' }}}}{{% endif %}}"
    )
}

/// The model of a kind.
pub fn model(kind: Kind) -> Arc<Model> {
    static FILES: OnceLock<(tempfile::TempDir, Vec<PathBuf>)> = OnceLock::new();
    let kinds = [
        Kind::Tagged,
        Kind::Special,
        Kind::Bare,
        Kind::ShortIds,
        Kind::Plain,
    ];
    let (_, paths) = FILES.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let paths = kinds.map(|kind| {
            let (tokenizer, vocab_size) = tokenizer_json(&SPECIALS, &WORDS);
            let mut recipe = odd("bitnet", true, TableType::F16);
            recipe.config["vocab_size"] = vocab_size.into();
            recipe.config["max_position_embeddings"] = 16384.into();
            recipe.config["eos_token_id"] = 1.into();
            let settings = json!({"bos_token": "<s>", "eos_token": "</s>",
                "chat_template": template(kind)});
            recipe.files = vec![
                ("tokenizer.json", tokenizer.to_string().into_bytes()),
                ("tokenizer_config.json", settings.to_string().into_bytes()),
            ];
            write(&recipe, Packing::I2, folder.path(), &format!("{kind:?}")).0
        });
        (folder, paths.to_vec())
    });
    let index = kinds.iter().position(|other| *other == kind).unwrap();
    let options = Options {
        threads: Some(2),
        ..Options::default()
    };
    Arc::new(Model::open(&paths[index], options).unwrap())
}

/// A server with a model of this kind, called `m`.
pub fn start(kind: Kind) -> Test {
    let limits = sterna_serve::engine::Limits {
        pages: 256,
        ..limits()
    };
    Test::with(|_| {}, vec![served_as("m", model(kind), limits)])
}

/// A tool.
pub fn function(name: &str, parameters: &Value) -> Value {
    json!({"type": "function", "function": {"name": name, "description": "A tool.",
        "parameters": parameters}})
}

/// An object of a few tokens.
pub fn schema() -> Value {
    json!({"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"],
        "additionalProperties": false})
}
