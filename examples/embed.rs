//! Search in a file: the lines whose meaning is nearest to a question.
//!
//! cargo run --release --example embed -- embedding-model.sterna lines.txt "Where do terns nest?"

use std::path::Path;

use sterna_runtime::{Logits, Model, Options, Part, Result};

fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().collect();
    let [_, path, file, question] = &args[..] else {
        anyhow::bail!("usage: embed MODEL.sterna FILE QUESTION");
    };
    let model = Model::open(Path::new(path), Options::default())?;
    let text = std::fs::read_to_string(file)?;
    let lines: Vec<&str> = text
        .lines()
        .filter(|line| !line.trim().is_empty())
        .collect();

    let question = &vectors(&model, &[question])?[0];
    let mut found = Vec::new();
    for lines in lines.chunks(32) {
        for (line, vector) in lines.iter().zip(vectors(&model, lines)?) {
            // Vectors have length one, so their product is the cosine of the angle between them.
            let cosine: f32 = vector.iter().zip(question).map(|(a, b)| a * b).sum();
            found.push((cosine, *line));
        }
    }
    found.sort_by(|a, b| b.0.total_cmp(&a.0));
    for (cosine, line) in found.iter().take(3) {
        println!("{cosine:.3}  {line}");
    }
    Ok(())
}

/// One vector of length one per text: the hidden state of its last token, after the last norm.
fn vectors(model: &Model, texts: &[&str]) -> Result<Vec<Vec<f32>>> {
    let tokenizer = model.tokenizer()?;
    let ids = texts.iter().map(|text| tokenizer.encode(text, true));
    let ids = ids.collect::<Result<Vec<_>>>()?;
    let caches = ids.iter().map(|ids| model.new_cache(ids.len()));
    let mut caches = caches.collect::<Result<Vec<_>>>()?;

    // All texts go through the layers together; each vector is the one that the text gets alone.
    let logits = Logits::Last;
    let parts = caches
        .iter_mut()
        .zip(&ids)
        .map(|(cache, ids)| Part { cache, ids, logits });
    let hidden = model.hidden_many(&mut parts.collect::<Vec<_>>())?; // (texts, hidden_size)
    let vectors = hidden
        .chunks_exact(model.config().hidden_size)
        .map(|vector| {
            let length = vector.iter().map(|x| x * x).sum::<f32>().sqrt();
            vector.iter().map(|x| x / length).collect()
        });
    Ok(vectors.collect())
}
