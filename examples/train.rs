//! Train a model until its loss is low enough, pack it and run it.
//!
//! cargo run --release --example train -- configs/quickstart.toml runs/example 1.5 "12+34="

use std::path::Path;

use sterna_runtime::{Generation, Model, Settings};
use sterna_train::{Control, Event, Place, Run};

fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().collect();
    let [_, recipe, folder, enough, prompt] = &args[..] else {
        anyhow::bail!("usage: train RECIPE.toml FOLDER LOSS PROMPT");
    };
    let folder = Path::new(folder);
    let enough: f64 = enough.parse()?; // nats per token
    let run = Run::from_scratch(Path::new(recipe))?;

    // The loop reports events and asks whether to continue. The same call resumes a stopped run.
    let observe = |event: Event| match event {
        Event::Step { step, of, .. } => {
            println!("step {step}: loss {:.3}", of.loss);
            match of.loss < enough {
                true => Control::Stop,
                false => Control::Continue,
            }
        }
        _ => Control::Continue,
    };
    let outcome = sterna_train::train(&run, folder, &Place::default(), observe)?;
    println!("{} after {} steps", outcome.model.display(), outcome.step);

    // `outcome.model` is a Hugging Face folder, which transformers can load too.
    let packed = folder.join("model.sterna");
    let options = sterna_convert::PackedOptions::default();
    let mut progress = |_done, _total| {};
    let report = sterna_convert::convert(&outcome.model, &packed, &options, &mut progress)?;
    println!(
        "packed {} weights, {} differ",
        report.weights, report.differ
    );

    let model = Model::open(&packed, Default::default())?;
    let tokenizer = model.tokenizer()?;
    let ids = tokenizer.encode(prompt, true)?;
    let mut cache = model.new_cache(ids.len() + 16)?;
    let generation = Generation::new(&model, &tokenizer, &mut cache, &ids, Settings::default())?;
    let text = generation.collect::<Result<String, _>>()?;
    println!("{prompt}{text}");
    Ok(())
}
