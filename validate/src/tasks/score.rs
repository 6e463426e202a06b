//! Figures of a task with their errors, and the comparison of two models on the same items.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::error::{Error, Result};
use super::random::Random;
use crate::statistics::{Estimate, TokenBlock};

/// The result of one item.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ItemOutcome {
    /// The number of the item in its task.
    pub item: usize,
    /// Natural logarithms of the probability of each continuation; none where text was written.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub log_likelihoods: Vec<f64>,
    /// What was written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// The item's part of each figure: from 0 to 1, and for `perplexity` a log-likelihood.
    pub metrics: BTreeMap<String, f64>,
}

/// A figure over all items.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Score {
    /// `acc`, `acc_norm`, `exact_match`, `exact_match,FILTER` or `perplexity`.
    pub metric: String,
    /// A share of the items; for `perplexity` exp(−mean log-likelihood).
    pub value: f64,
    /// Its standard error; none for a single item.
    pub stderr: Option<f64>,
    /// How many items there are.
    pub items: usize,
}

/// The metric whose mean is not the figure.
pub(super) const PERPLEXITY: &str = "perplexity";

/// Bootstrap samples, as lm-evaluation-harness draws them: in parts, each with its number as seed.
const BOOTSTRAP_PARTS: u32 = 100;
const BOOTSTRAP_PART: usize = 1000;

/// Numbers that a bootstrap draws at most; of more items there are fewer samples.
const BOOTSTRAP_DRAWS: usize = 600_000_000;

/// The figures of outcomes, by the names of metrics.
///
/// Shares have the standard error of a mean, with n − 1; perplexity that of a bootstrap with fixed
/// seeds, so that the same outcomes give the same digits.
pub fn scores(outcomes: &[ItemOutcome]) -> Vec<Score> {
    let mut columns: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for outcome in outcomes {
        for (metric, value) in &outcome.metrics {
            columns.entry(metric).or_default().push(*value);
        }
    }
    let score = |(metric, values): (&str, Vec<f64>)| {
        let (value, stderr) = match metric {
            PERPLEXITY => (perplexity(mean(&values)), bootstrap(&values)),
            _ => (
                mean(&values),
                deviation(&values) / (values.len() as f64).sqrt(),
            ),
        };
        Score {
            metric: metric.to_owned(),
            value,
            stderr: (values.len() > 1).then_some(stderr),
            items: values.len(),
        }
    };
    columns.into_iter().map(score).collect()
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// The standard deviation of a sample.
fn deviation(values: &[f64]) -> f64 {
    let mean = mean(values);
    let squares: f64 = values.iter().map(|x| (x - mean).powi(2)).sum();
    (squares / (values.len() as f64 - 1.0)).sqrt()
}

fn perplexity(mean: f64) -> f64 {
    (-mean).exp()
}

/// The standard error of a perplexity by drawing as many items, with repetition, many times.
fn bootstrap(values: &[f64]) -> f64 {
    let n = values.len();
    let samples = BOOTSTRAP_PARTS as usize * BOOTSTRAP_PART;
    let parts = match samples.saturating_mul(n) {
        draws if draws <= BOOTSTRAP_DRAWS => BOOTSTRAP_PARTS,
        _ => (BOOTSTRAP_DRAWS / BOOTSTRAP_PART / n).max(2) as u32,
    };
    let drawn = |seed| {
        let mut random = Random::new(seed);
        let sample = move |_| {
            let draw = |_| values[(random.unit() * n as f64) as usize];
            perplexity((0..n).map(draw).sum::<f64>() / n as f64)
        };
        (0..BOOTSTRAP_PART).map(sample)
    };
    deviation(&(0..parts).flat_map(drawn).collect::<Vec<_>>())
}

/// Two models on the same items.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum PairedTest {
    /// Items are right or wrong.
    Right(McNemar),
    /// Items are right in part.
    Share(MeanDifference),
}

/// Items that are right or wrong: McNemar's exact test.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct McNemar {
    /// Items that both have right.
    pub both: usize,
    /// Items that only the first has right.
    pub only_first: usize,
    /// Items that only the second has right.
    pub only_second: usize,
    /// Items that neither has right.
    pub neither: usize,
    /// How probable it is that two equally good models differ at least this much: two-sided
    /// binomial test of the items that one of them has right.
    pub p: f64,
}

/// Items that are right in part: a paired t test.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct MeanDifference {
    /// The second minus the first, in the mean over items.
    pub difference: f64,
    /// Its two-sided p-value; `None` for a single item.
    pub p: Option<f64>,
}

impl PairedTest {
    /// How probable such a difference is by chance.
    pub fn p(&self) -> Option<f64> {
        match self {
            Self::Right(test) => Some(test.p),
            Self::Share(test) => test.p,
        }
    }

    /// Whether every item is equal.
    pub fn is_same(&self) -> bool {
        match self {
            Self::Right(test) => (test.only_first, test.only_second) == (0, 0),
            Self::Share(test) => test.difference == 0.0 && test.p == Some(1.0),
        }
    }
}

/// Compares two runs of a task by a metric of numbers from 0 to 1.
///
/// # Errors
/// A metric that the outcomes do not have; runs of different items.
pub fn compare(first: &[ItemOutcome], second: &[ItemOutcome], metric: &str) -> Result<PairedTest> {
    let by_item = |outcomes: &[ItemOutcome]| -> Result<BTreeMap<usize, f64>> {
        outcomes
            .iter()
            .map(|outcome| Ok((outcome.item, value(outcome, metric)?)))
            .collect()
    };
    let (first, second) = (by_item(first)?, by_item(second)?);
    if let Some(item) = second.keys().find(|item| !first.contains_key(item)) {
        return Err(Error::Unpaired { item: *item });
    }
    let pair = |(item, a): (&usize, &f64)| {
        let b = second.get(item).ok_or(Error::Unpaired { item: *item })?;
        Ok((*a, *b))
    };
    let pairs: Vec<(f64, f64)> = first.iter().map(pair).collect::<Result<_>>()?;
    let is_whole = |(a, b): &(f64, f64)| a.fract() == 0.0 && b.fract() == 0.0;
    Ok(match pairs.iter().all(is_whole) {
        true => PairedTest::Right(right_or_wrong(&pairs)),
        false => PairedTest::Share(in_part(&pairs)),
    })
}

fn right_or_wrong(pairs: &[(f64, f64)]) -> McNemar {
    let count = |wanted: (f64, f64)| pairs.iter().filter(|pair| **pair == wanted).count();
    let (only_first, only_second) = (count((1.0, 0.0)), count((0.0, 1.0)));
    McNemar {
        both: count((1.0, 1.0)),
        only_first,
        only_second,
        neither: count((0.0, 0.0)),
        p: two_sided(only_first, only_second),
    }
}

fn in_part(pairs: &[(f64, f64)]) -> MeanDifference {
    let block = |(a, b): &(f64, f64)| TokenBlock {
        sum: b - a,
        count: 1,
    };
    let difference = Estimate::of(&pairs.iter().map(block).collect::<Vec<_>>());
    MeanDifference {
        difference: difference.mean,
        p: difference.p_value(),
    }
}

fn value(outcome: &ItemOutcome, metric: &str) -> Result<f64> {
    let value = outcome.metrics.get(metric).filter(|_| metric != PERPLEXITY);
    value.copied().ok_or_else(|| Error::NoMetric {
        metric: metric.to_owned(),
        found: outcome
            .metrics
            .keys()
            .cloned()
            .collect::<Vec<_>>()
            .join(", "),
    })
}

/// 2 · P(X ≤ min(a, b)) for X of a binomial distribution with a + b fair draws, at most 1.
fn two_sided(a: usize, b: usize) -> f64 {
    let n = a + b;
    let mut log = -(n as f64) * std::f64::consts::LN_2; // ln P(X = 0)
    let mut sum = log.exp();
    for i in 0..a.min(b) {
        log += ((n - i) as f64 / (i + 1) as f64).ln();
        sum += log.exp();
    }
    (2.0 * sum).min(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcomes(values: &[u8]) -> Vec<ItemOutcome> {
        let outcome = |(item, value): (usize, &u8)| ItemOutcome {
            item,
            log_likelihoods: Vec::new(),
            text: None,
            metrics: [("acc".to_owned(), f64::from(*value))].into(),
        };
        values.iter().enumerate().map(outcome).collect()
    }

    #[test]
    fn the_error_of_a_share_is_that_of_its_mean() {
        let [score] = &scores(&outcomes(&[1, 0, 0, 1, 1]))[..] else {
            panic!("one metric");
        };
        assert_eq!((score.value, score.items), (0.6, 5));
        assert!((score.stderr.unwrap() - (0.24f64 / 4.0).sqrt()).abs() < 1e-15);
        assert_eq!(scores(&outcomes(&[1]))[0].stderr, None);
    }

    /// Values by scipy.stats.binomtest.
    #[test]
    fn equal_models_are_not_called_different() {
        let check = |a, b, expected: f64| {
            assert!(
                (two_sided(a, b) - expected).abs() < 1e-9 * expected,
                "{a} {b}"
            );
        };
        check(0, 0, 1.0);
        check(3, 3, 1.0);
        check(0, 5, 0.0625);
        check(9, 1, 0.021484375);
        check(40, 15, 0.0010158471941252856);
    }

    #[test]
    fn runs_are_paired_by_their_items() {
        let (a, b) = (outcomes(&[1, 1, 0, 1]), outcomes(&[1, 0, 0, 0]));
        let expected = McNemar {
            both: 1,
            only_first: 2,
            only_second: 0,
            neither: 1,
            p: 0.5,
        };
        assert_eq!(compare(&a, &b, "acc").unwrap(), PairedTest::Right(expected));
        let missing = compare(&a, &b[1..], "acc");
        assert!(matches!(missing, Err(Error::Unpaired { item: 0 })));
        let metric = compare(&a, &b, "acc_norm");
        assert!(matches!(metric, Err(Error::NoMetric { .. })));
    }

    /// p by scipy.stats.ttest_rel.
    #[test]
    fn shares_are_compared_by_their_differences() {
        let shares = |values: [f64; 4]| {
            let mut all = outcomes(&[0; 4]);
            for (outcome, value) in all.iter_mut().zip(values) {
                outcome.metrics.insert("acc".into(), value);
            }
            all
        };
        let a = shares([0.1, 0.5, 0.25, 1.0]);
        let test = compare(&a, &shares([0.2, 0.5, 0.75, 0.9]), "acc").unwrap();
        assert!(!test.is_same());
        let PairedTest::Share(found) = test else {
            panic!("{test:?}");
        };
        assert!((found.difference - 0.125).abs() < 1e-12);
        assert!(
            (found.p.unwrap() - 0.4119434040614361).abs() < 1e-9,
            "{found:?}"
        );
        assert!(compare(&a, &a, "acc").unwrap().is_same());
    }
}
