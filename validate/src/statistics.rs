//! Means with errors that hold for text, where tokens are not independent of their neighbours.
//! `statrs` has the t distribution; the ratio estimator over blocks, which it lacks, is written
//! here.
//!
//! Tokens are grouped into blocks (documents, or parts of one), and blocks are assumed to be
//! independent. A mean over tokens is a ratio of two sums over blocks, R = Σ xᵢ / Σ nᵢ, with the
//! standard error of the ratio estimator, √(B / (B − 1) · Σ (xᵢ − R nᵢ)²) / Σ nᵢ for B blocks
//! (Cochran, Sampling Techniques, 6.4). Two models are compared on the differences of their losses,
//! block by block, so text that is hard for both does not count.

use serde::{Deserialize, Serialize};
use statrs::distribution::{ContinuousCDF, StudentsT};

/// A mean and its standard error.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    /// The mean.
    pub mean: f64,
    /// Its standard error; `None` for fewer than two blocks.
    pub error: Option<f64>,
    /// Number of blocks.
    pub blocks: usize,
}

/// A sum over a block of tokens.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct TokenBlock {
    /// Sum of the values.
    pub sum: f64,
    /// How many there are.
    pub count: usize,
}

impl Estimate {
    /// The mean over all tokens, with the error of the ratio estimator.
    pub fn of(blocks: &[TokenBlock]) -> Estimate {
        let sum: f64 = blocks.iter().map(|b| b.sum).sum();
        let count = blocks.iter().map(|b| b.count).sum::<usize>() as f64;
        let (mean, n) = (sum / count, blocks.len() as f64);
        let squares = blocks
            .iter()
            .map(|b| (b.sum - mean * b.count as f64).powi(2));
        let error = (n * squares.sum::<f64>() / (n - 1.0)).sqrt() / count;
        Estimate {
            mean,
            error: (blocks.len() > 1).then_some(error),
            blocks: blocks.len(),
        }
    }

    /// The same in another unit.
    pub fn times(self, factor: f64) -> Estimate {
        Estimate {
            mean: self.mean * factor,
            error: self.error.map(|error| error * factor.abs()),
            ..self
        }
    }

    /// Two-sided p-value for the hypothesis that the true mean is 0, by Student's t. It is 1 where
    /// every block is 0, and `None` without an error.
    pub fn p_value(&self) -> Option<f64> {
        let error = self.error?;
        Some(match (self.mean, error) {
            (0.0, 0.0) => 1.0,
            (_, 0.0) => 0.0,
            (mean, error) => 2.0 * self.student()?.sf(mean.abs() / error),
        })
    }

    /// The 95 % confidence interval, by Student's t. `None` without an error.
    pub fn range(&self) -> Option<(f64, f64)> {
        let width = self.student()?.inverse_cdf(0.975) * self.error?;
        Some((self.mean - width, self.mean + width))
    }

    fn student(&self) -> Option<StudentsT> {
        StudentsT::new(0.0, 1.0, self.blocks as f64 - 1.0).ok()
    }
}

/// The quantile `share` of sorted values, with linear interpolation as in numpy. NaN for no values.
pub fn quantile(sorted: &[f64], share: f64) -> f64 {
    let Some(last) = sorted.len().checked_sub(1) else {
        return f64::NAN;
    };
    let at = share * last as f64;
    let (below, part) = (at.floor() as usize, at.fract());
    let above = (below + 1).min(last);
    sorted[below] + part * (sorted[above] - sorted[below])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_blocks_have_the_error_of_their_means() {
        let blocks = [2.0, 4.0, 6.0, 8.0].map(|sum| TokenBlock { sum, count: 2 });
        let found = Estimate::of(&blocks);
        assert_eq!(found.mean, 2.5);
        // numpy: std([1, 2, 3, 4], ddof=1) / sqrt(4)
        assert!((found.error.unwrap() - 0.6454972243679028).abs() < 1e-12);
        assert_eq!(Estimate::of(&blocks[..1]).error, None);
    }

    #[test]
    fn a_block_counts_by_its_tokens() {
        let blocks = [(1.0, 1), (1.0, 3)].map(|(sum, count)| TokenBlock { sum, count });
        let found = Estimate::of(&blocks);
        assert_eq!(found.mean, 0.5);
        // sqrt(2 / 1 * (0.5^2 + 0.5^2)) / 4
        assert!((found.error.unwrap() - 0.25).abs() < 1e-12);
    }

    #[test]
    fn probabilities_and_ranges_are_those_of_student() {
        let estimate = |mean, error, blocks| Estimate {
            mean,
            error: Some(error),
            blocks,
        };
        // scipy: 2 * t.sf(mean / error, blocks - 1)
        for (t, blocks, expected) in [
            (12.706204736174694, 2, 0.05),
            (-3.0, 10, 0.014956363910414222),
            (10.0, 30, 6.599862576433525e-11),
            (1.959963984540054, 1_000_000_000, 0.05),
        ] {
            let p = estimate(t / 2.0, 0.5, blocks).p_value().unwrap();
            assert!((p / expected - 1.0).abs() < 1e-6, "{t} {blocks}: {p}");
        }
        assert_eq!(estimate(0.0, 0.0, 5).p_value(), Some(1.0));
        assert_eq!(estimate(0.1, 0.0, 5).p_value(), Some(0.0));
        // scipy: t.ppf(0.975, 4)
        let (low, high) = estimate(1.0, 2.0, 5).range().unwrap();
        assert!(
            (high - 1.0 - 2.0 * 2.7764451051977934).abs() < 1e-6,
            "{high}"
        );
        assert!((low + high - 2.0).abs() < 1e-12);
        let single = Estimate::of(&[TokenBlock { sum: 1.0, count: 1 }]);
        assert_eq!((single.p_value(), single.range()), (None, None));
    }

    #[test]
    fn quantiles_are_those_of_numpy() {
        let values = [1.0, 2.0, 4.0, 8.0];
        for (share, expected) in [(0.0, 1.0), (0.5, 3.0), (0.9, 6.8), (1.0, 8.0)] {
            assert!((quantile(&values, share) - expected).abs() < 1e-12);
        }
        assert!(quantile(&[], 0.5).is_nan());
    }
}
