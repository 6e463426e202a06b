//! An answer that keeps to a JSON schema, whatever the model knows of JSON.
//!
//! cargo run --release --example json -- model.sterna "The bird: " schema.json

use std::path::Path;

use sterna_grammar::{Grammars, Rule, unknown_keywords};
use sterna_runtime::{Generation, Model, Options, Settings};

fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().collect();
    let [_, path, prompt, schema] = &args[..] else {
        anyhow::bail!("usage: json MODEL.sterna PROMPT SCHEMA.json");
    };
    let model = Model::open(Path::new(path), Options::default())?;
    let tokenizer = model.tokenizer()?;

    // Once for a model. It reads the bytes of every token.
    let grammars = Grammars::new(&tokenizer, model.config().vocab_size)?;
    // What cannot be enforced in full is an error here, with its place in the schema.
    let schema = serde_json::from_str(&std::fs::read_to_string(schema)?)?;
    for place in unknown_keywords(&schema) {
        eprintln!("{place} has no effect");
    }
    let constraint = grammars.compile(&Rule::JsonSchema(schema))?;

    let prompt = tokenizer.encode(prompt, true)?;
    let max_tokens = 80;
    let mut cache = model.new_cache(prompt.len() + max_tokens)?;
    let settings = Settings {
        max_tokens: Some(max_tokens),
        constraint: Some(constraint),
        ..Settings::default()
    };
    let generation = Generation::new(&model, &tokenizer, &mut cache, &prompt, settings)?;
    let text = generation.collect::<Result<String, _>>()?;

    // An answer that ends before max_tokens is whole, so it can be read.
    let value: serde_json::Value = serde_json::from_str(&text)?;
    println!("{value:#}");
    Ok(())
}
