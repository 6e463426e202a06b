//! The learning-rate range test: one short run per rate, all from the same weights and over the
//! same batches.
//!
//! Smith, "Cyclical Learning Rates for Training Neural Networks", 2017, raises the rate within one
//! run. Separate runs cost more but compare fairly, since a rate that is too high does not affect
//! the rates after it.

use super::data::Data;
use super::memory;
use super::opened::Run;
use crate::{Error, Place, Result};

/// The result of one rate.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Trial {
    /// The rate.
    pub rate: f64,
    /// Mean loss of the last quarter of the steps, nats per token; none if the run diverged.
    pub loss: Option<f64>,
}

/// Rates from `low` to `high` with equal ratios.
pub fn rates(low: f64, high: f64, count: usize) -> Vec<f64> {
    let factor = libm::pow(high / low, 1.0 / (count.max(2) - 1) as f64);
    (0..count.max(1))
        .map(|i| low * libm::pow(factor, i as f64))
        .collect()
}

/// Trains `steps` steps at one rate from the weights of the recipe's seed. The first quarter of the
/// steps is a warm-up.
///
/// # Errors
/// Those of making a trainer and of its steps; divergence is a result.
pub fn trial(run: &Run, data: &Data, rate: f64, steps: u64) -> Result<Trial> {
    memory::check(run, &Place::default())?;
    let tokenizer = &data.tokenizer;
    let config = run.config(tokenizer.vocab_size(), tokenizer.bos_id(), &[])?;
    let mut trainer = run.fresh(config, &Place::default())?;
    let (warmup, mut losses) = ((steps / 4).max(1), Vec::new());
    for step in 0..steps {
        let rate = rate * ((step + 1) as f64 / warmup as f64).min(1.0);
        match trainer.step(
            &data.loader.batch(step).ids,
            run.recipe().train.context,
            rate,
        ) {
            Ok(step) => losses.push(step.loss),
            Err(Error::Diverged { .. }) => return Ok(Trial { rate, loss: None }),
            Err(error) => return Err(error),
        }
    }
    let last = &losses[losses.len() - (losses.len() / 4).max(1)..];
    let loss = last.iter().sum::<f64>() / last.len() as f64;
    Ok(Trial {
        rate,
        loss: Some(loss),
    })
}

/// The rate with the lowest loss; none if all diverged.
pub fn best(trials: &[Trial]) -> Option<Trial> {
    let finite = trials.iter().filter(|trial| trial.loss.is_some());
    let loss = |trial: &Trial| trial.loss.unwrap_or(f64::INFINITY);
    finite.copied().min_by(|a, b| loss(a).total_cmp(&loss(b)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_equal_factors_apart_and_the_best_did_not_diverge() {
        let rates = rates(1e-4, 1e-2, 5);
        for (rate, expected) in rates
            .iter()
            .zip([1e-4, 10f64.powf(-3.5), 1e-3, 10f64.powf(-2.5)])
        {
            assert!((rate / expected - 1.0).abs() < 1e-9, "{rate}");
        }
        let trials = [Some(3.0), Some(2.5), None].map(|loss| Trial { rate: 1.0, loss });
        assert_eq!(best(&trials), Some(trials[1]));
        assert_eq!(best(&trials[2..]), None);
    }
}
