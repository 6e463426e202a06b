//! Means with errors that hold for text, where a token is not independent of its neighbours.
//!
//! Tokens fall into blocks (documents, or stretches of one), and blocks are taken for independent. A mean over tokens
//! is a ratio of two sums over blocks, R = Σ xᵢ / Σ nᵢ, with the standard error of the ratio estimator,
//! √(B / (B − 1) · Σ (xᵢ − R nᵢ)²) / Σ nᵢ for B blocks (Cochran, Sampling Techniques, 6.4). Two models are compared
//! on the differences of their losses, block by block: what is hard for both does not count.

use serde::{Deserialize, Serialize};

/// A mean and its standard error.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    /// The mean.
    pub mean: f64,
    /// Its standard error; `None` of fewer than two blocks.
    pub error: Option<f64>,
}

/// A sum over a block of tokens.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Block {
    /// Of the values.
    pub sum: f64,
    /// How many there are.
    pub count: usize,
}

impl Estimate {
    /// The mean over all tokens, with the error of the ratio estimator.
    pub fn of(blocks: &[Block]) -> Estimate {
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
        }
    }

    /// Two-sided probability of a mean at least so far from 0 if the truth is 0, by the normal distribution; 1 where
    /// every block is 0. `None` without an error.
    pub fn p_value(&self) -> Option<f64> {
        let error = self.error?;
        Some(match (self.mean, error) {
            (0.0, 0.0) => 1.0,
            (mean, error) => libm::erfc(mean.abs() / error / 2f64.sqrt()),
        })
    }
}

/// The value below which a share of the sorted values lies, linear between neighbours as in numpy; NaN of none.
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
        let blocks = [2.0, 4.0, 6.0, 8.0].map(|sum| Block { sum, count: 2 });
        let found = Estimate::of(&blocks);
        assert_eq!(found.mean, 2.5);
        // numpy: std([1, 2, 3, 4], ddof=1) / sqrt(4)
        assert!((found.error.unwrap() - 0.6454972243679028).abs() < 1e-12);
        assert_eq!(Estimate::of(&blocks[..1]).error, None);
    }

    #[test]
    fn a_block_counts_by_its_tokens() {
        let blocks = [(1.0, 1), (1.0, 3)].map(|(sum, count)| Block { sum, count });
        let found = Estimate::of(&blocks);
        assert_eq!(found.mean, 0.5);
        // sqrt(2 / 1 * (0.5^2 + 0.5^2)) / 4
        assert!((found.error.unwrap() - 0.25).abs() < 1e-12);
    }

    #[test]
    fn probabilities_are_those_of_the_normal_distribution() {
        let p = |mean, error| {
            let error = Some(error);
            Estimate { mean, error }.p_value().unwrap()
        };
        assert!((p(1.959963984540054, 1.0) - 0.05).abs() < 1e-12);
        assert!((p(-3.0, 1.0) - 0.0026997960632601866).abs() < 1e-12);
        assert_eq!(p(0.0, 0.0), 1.0);
        assert_eq!(p(0.1, 0.0), 0.0);
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
