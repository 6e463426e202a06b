//! A sampler of your own: text without a letter. The prompt is computed once and continued twice.
//!
//! cargo run --release --example logits -- model.sterna "Once Mia" e

use std::path::Path;

use sterna_runtime::{KvCache, Logits, Model, Options, Tokenizer};

const TOKENS: usize = 24;

fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().collect();
    let [_, path, prompt, letter] = &args[..] else {
        anyhow::bail!("usage: logits MODEL.sterna PROMPT LETTER");
    };
    let model = Model::open(Path::new(path), Options::default())?;
    let tokenizer = model.tokenizer()?;
    let prompt_ids = tokenizer.encode(prompt, true)?;
    let mut cache = model.new_cache(prompt_ids.len() + TOKENS)?;
    let first = model.forward(&mut cache, &prompt_ids, Logits::Last)?; // (vocab_size)

    // Which tokens a sampler may choose. Decoding each id once shows what it spells.
    let spells = |id| tokenizer.decode(&[id]);
    let ids = 0..model.config().vocab_size as u32;
    let all = vec![true; ids.len()];
    let without = ids.map(|id| Ok(!spells(id)?.contains(letter.as_str())));
    let without = without.collect::<anyhow::Result<Vec<bool>>>()?;

    let text = complete(&model, &tokenizer, &mut cache, first.clone(), &all)?;
    println!("any token:      {prompt}{text}");
    // The cache goes back to the end of the prompt, which is not computed again.
    cache.truncate(prompt_ids.len());
    let text = complete(&model, &tokenizer, &mut cache, first, &without)?;
    println!("never with '{letter}': {prompt}{text}");
    Ok(())
}

/// Continues with the most probable token that is allowed, up to `TOKENS` of them.
fn complete(
    model: &Model,
    tokenizer: &Tokenizer,
    cache: &mut KvCache,
    mut logits: Vec<f32>, // (vocab_size), of the last token in the cache
    allowed: &[bool],
) -> anyhow::Result<String> {
    let mut tokens = Vec::new();
    while tokens.len() < TOKENS {
        let candidates = (0..).zip(&logits).filter(|(id, _)| allowed[*id as usize]);
        let best = candidates.max_by(|a, b| a.1.total_cmp(b.1));
        let (best, _) = best.ok_or_else(|| anyhow::anyhow!("no token is allowed"))?;
        if tokenizer.eos().contains(&best) {
            break;
        }
        tokens.push(best);
        logits = model.forward(cache, &[best], Logits::Last)?;
    }
    Ok(tokenizer.decode(&tokens)?)
}
