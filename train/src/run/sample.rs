//! A short text by the model in training, with the trainer's own forward pass.
//!
//! Each token computes the whole text again, which is fast enough for a short sample. `sterna
//! generate` is the fast way.

use crate::{Model, Result};

/// The `count` tokens that follow `prompt` when the most likely token is chosen each time, by the
/// model as it will be exported. There are fewer if one of `ends` is chosen or the context is full.
pub fn greedy(
    model: &Model,
    prompt: &[u32],
    count: usize,
    context: usize,
    ends: &[u32],
) -> Result<Vec<u32>> {
    let prepared = model.prepare_blended(1.0)?;
    let mut ids = prompt.to_vec();
    while ids.len() < (prompt.len() + count).min(context) {
        let logits = model.logits(&prepared, &ids)?;
        let best = (0..logits.len())
            .rev()
            .max_by(|a, b| logits[*a].total_cmp(&logits[*b]));
        let best = best.expect("a vocabulary has tokens") as u32;
        if ends.contains(&best) {
            break;
        }
        ids.push(best);
    }
    Ok(ids.split_off(prompt.len()))
}
