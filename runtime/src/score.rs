//! How probable a token is to a model.

use crate::sampler::log_sum_exp;

/// How probable a token is to the model, before penalties, temperature and filters.
#[derive(Debug, Clone, PartialEq)]
pub struct Score {
    /// Natural logarithm of its probability.
    pub logprob: f64,
    /// 1 if it is the most probable token, 2 for the next one. Of equals, lower ids come first.
    pub rank: usize,
    /// The most probable tokens and the logarithms of their probabilities, best first.
    pub top: Vec<(u32, f64)>,
}

impl Score {
    /// The score of a token, beside the `top` most probable ones, from all logits (vocab_size).
    ///
    /// # Panics
    /// If the token has no logit.
    pub fn of(logits: &[f32], id: u32, top: usize) -> Score {
        let sum = log_sum_exp(logits);
        let logprob = |id: u32| f64::from(logits[id as usize]) - sum;
        let order = |a: &u32, b: &u32| {
            let (x, y) = (logits[*a as usize], logits[*b as usize]);
            y.total_cmp(&x).then(a.cmp(b))
        };
        let mut best: Vec<u32> = Vec::new();
        if top > 0 {
            best.extend(0..logits.len() as u32);
            let top = top.min(best.len());
            if top < best.len() {
                best.select_nth_unstable_by(top, order);
            }
            best.truncate(top);
            best.sort_unstable_by(order);
        }
        let is_better = |other: &u32| order(other, &id).is_lt();
        Score {
            logprob: logprob(id),
            rank: 1 + (0..logits.len() as u32).filter(is_better).count(),
            top: best.into_iter().map(|id| (id, logprob(id))).collect(),
        }
    }
}
