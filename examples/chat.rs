//! A conversation: each line of standard input is a message, and the model answers it.
//!
//! cargo run --release --example chat -- chat-model.sterna

use std::io::Write;
use std::path::Path;

use sterna_runtime::{Generation, Message, Model, Options, Settings};

fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().collect();
    let [_, path] = &args[..] else {
        anyhow::bail!("usage: chat MODEL.sterna");
    };
    let model = Model::open(Path::new(path), Options::default())?;
    let tokenizer = model.tokenizer()?;
    let template = model.chat_template()?; // the one that the checkpoint came with
    let mut cache = model.new_cache(model.config().max_position_embeddings.min(2048))?;

    let mut messages = Vec::new();
    for line in std::io::stdin().lines() {
        messages.push(Message::new("user", &line?));
        // The template renders the whole conversation, up to where the assistant speaks next.
        let text = template.render(&messages, true)?;
        let ids = tokenizer.encode(&text, false)?;

        // `resume` keeps the part that the cache holds already: a turn costs its own tokens only.
        let settings = Settings {
            max_tokens: Some(200),
            ..Settings::default()
        };
        let mut generation = Generation::resume(&model, &tokenizer, &mut cache, &ids, settings)?;
        let mut answer = String::new();
        for piece in generation.by_ref() {
            let piece = piece?;
            print!("{piece}");
            std::io::stdout().flush()?;
            answer += &piece;
        }
        println!();
        let summary = generation.summary();
        eprintln!(
            "({} tokens computed, {} kept from before)",
            summary.prompt_tokens, summary.cached_tokens
        );
        messages.push(Message::new("assistant", &answer));
    }
    Ok(())
}
