//! From the likelihoods of an item's requests to its part of each figure.

use std::collections::BTreeMap;

use super::likelihood::Likelihood;
use super::sample::Query;
use super::score::{ItemOutcome, PERPLEXITY};

/// The figures of an item whose requests have been scored.
pub(super) fn outcome(item: usize, query: &Query, found: &[Likelihood]) -> ItemOutcome {
    let logs: Vec<f64> = found.iter().map(|likelihood| likelihood.log).collect();
    let flag = |is_right: bool| f64::from(u8::from(is_right));
    let mut metrics = BTreeMap::new();
    match query {
        Query::Choices {
            choices,
            gold,
            normalized,
        } => {
            metrics.insert("acc".to_owned(), flag(best(&logs) == *gold));
            if *normalized {
                let lengths = choices.iter().map(|choice| choice.chars().count() as f64);
                let logs: Vec<f64> = logs.iter().zip(lengths).map(|(log, n)| log / n).collect();
                metrics.insert("acc_norm".to_owned(), flag(best(&logs) == *gold));
            }
        }
        Query::Contexts { gold, .. } => {
            metrics.insert("acc".to_owned(), flag(best(&logs) == *gold));
        }
        Query::Truths { is_true, .. } => {
            metrics.insert("acc".to_owned(), share(&logs, is_true));
        }
        Query::Continuation { .. } | Query::Completion { .. } | Query::Generation { .. } => {
            if !matches!(query, Query::Completion { .. }) {
                metrics.insert(PERPLEXITY.to_owned(), logs.iter().sum());
            }
            let is_greedy = found.iter().all(|found| found.is_greedy);
            metrics.insert("acc".to_owned(), flag(is_greedy));
        }
    }
    ItemOutcome {
        item,
        log_likelihoods: logs,
        text: None,
        metrics,
    }
}

/// The share of the probability of all choices that the true ones have. The likeliest has 1 before
/// the division, so none of them all is lost to 0.
fn share(logs: &[f64], is_true: &[bool]) -> f64 {
    let most = logs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let parts = || logs.iter().map(|log| (log - most).exp());
    let of_true = parts().zip(is_true).filter(|(_, is_true)| **is_true);
    of_true.map(|(part, _)| part).sum::<f64>() / parts().sum::<f64>()
}

/// The first of the largest.
fn best(values: &[f64]) -> usize {
    let better = |best: usize, i: usize| if values[i] > values[best] { i } else { best };
    (0..values.len()).fold(0, better)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values by `process_results_mc2` of lm-evaluation-harness.
    #[test]
    fn the_share_of_true_choices_is_that_of_their_probability() {
        let check = |logs: &[f64], is_true: &[bool], expected: f64| {
            let found = share(logs, is_true);
            assert!((found - expected).abs() < 1e-12, "{logs:?}: {found}");
        };
        check(
            &[-3.5, -2.0, -4.25],
            &[true, false, true],
            0.24728800769576875,
        );
        check(&[-10.0, -11.5], &[false, true], 0.18242552380635632);
        check(&[-1.0; 4], &[true, true, true, false], 0.75);
        // All probabilities are 0 in float64, and there is a share.
        check(&[-1010.0, -1011.5], &[false, true], 0.18242552380635632);
    }
}
