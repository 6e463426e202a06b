//! Continue a text, and print each piece when it is known.
//!
//! cargo run --release --example generate -- model.sterna "Once Mia"

use std::io::Write;
use std::path::Path;

use sterna_runtime::{Generation, Model, Options, Sampling, Settings};

fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().collect();
    let [_, path, prompt] = &args[..] else {
        anyhow::bail!("usage: generate MODEL.sterna PROMPT");
    };
    // The file is mapped, so opening it is fast, and programs that run the same model share it.
    let model = Model::open(Path::new(path), Options::default())?;
    let tokenizer = model.tokenizer()?;
    let prompt = tokenizer.encode(prompt, true)?;

    // The cache holds keys and values of the prompt and of what follows.
    let max_tokens = 40;
    let mut cache = model.new_cache(prompt.len() + max_tokens)?;
    let settings = Settings {
        max_tokens: Some(max_tokens),
        sampling: Sampling {
            temperature: 0.7,
            top_p: 0.95,
            seed: 1, // the same seed gives the same text on every machine
            ..Sampling::default()
        },
        ..Settings::default()
    };
    let mut generation = Generation::new(&model, &tokenizer, &mut cache, &prompt, settings)?;
    for piece in generation.by_ref() {
        print!("{}", piece?);
        std::io::stdout().flush()?;
    }
    println!();

    let summary = generation.summary();
    let speed = summary.generated_tokens as f64 / summary.generated_time.as_secs_f64();
    eprintln!("{} tokens, {speed:.0} tokens/s", summary.generated_tokens);
    Ok(())
}
