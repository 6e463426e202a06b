//! Continue many prompts in one pass over the weights: faster, and with the same bits.
//!
//! cargo run --release --example batch -- model.sterna "Once Mia" "Once Tom" "12+34="

use std::path::Path;
use std::time::Instant;

use sterna_runtime::sampler::greedy;
use sterna_runtime::{Logits, Model, Options, Part, Result};

const TOKENS: usize = 16;

fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().collect();
    let [_, path, prompts @ ..] = &args[..] else {
        anyhow::bail!("usage: batch MODEL.sterna PROMPT...");
    };
    let model = Model::open(Path::new(path), Options::default())?;
    let tokenizer = model.tokenizer()?;
    let ids = prompts.iter().map(|prompt| tokenizer.encode(prompt, true));
    let ids = ids.collect::<Result<Vec<_>>>()?;
    let start = Instant::now();
    let mut alone = Vec::new();
    for ids in &ids {
        alone.extend(continue_all(&model, std::slice::from_ref(ids))?);
    }
    let time_alone = start.elapsed();
    let start = Instant::now();
    let together = continue_all(&model, &ids)?;
    let time_together = start.elapsed();

    for (prompt, (tokens, _)) in prompts.iter().zip(&together) {
        println!("{prompt}{}", tokenizer.decode(tokens)?);
    }
    assert!(alone == together, "a logit depends on the other prompts");
    let speed_up = time_alone.as_secs_f64() / time_together.as_secs_f64();
    println!("all logits have the same bits; {speed_up:.1} times as fast together");
    Ok(())
}

/// The most probable continuation of each prompt, and the bits of all logits on the way.
fn continue_all(model: &Model, prompts: &[Vec<u32>]) -> Result<Vec<(Vec<u32>, Vec<u32>)>> {
    let caches = prompts.iter().map(|p| model.new_cache(p.len() + TOKENS));
    let mut caches = caches.collect::<Result<Vec<_>>>()?;
    let mut next = prompts.to_vec(); // what each sequence gets in the next pass
    let mut results = vec![(Vec::new(), Vec::new()); prompts.len()];
    for _ in 0..TOKENS {
        let parts = caches.iter_mut().zip(&next);
        let logits = Logits::Last;
        let parts = parts.map(|(cache, ids)| Part { cache, ids, logits });
        let logits = model.forward_many(&mut parts.collect::<Vec<_>>())?;
        let logits = logits.chunks_exact(model.config().vocab_size); // one row per prompt
        for ((logits, next), (tokens, bits)) in logits.zip(&mut next).zip(&mut results) {
            *next = vec![greedy(logits)];
            tokens.extend(&*next);
            bits.extend(logits.iter().map(|x| x.to_bits()));
        }
    }
    Ok(results)
}
