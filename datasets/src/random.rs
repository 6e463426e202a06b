//! Counted randomness: uniform draws that add up their own entropy, a hash, and a permutation.
//!
//! [`Draws`] is a ChaCha8 stream whose key *is* the address of a document, so document `n` costs
//! the same whether or not documents 0 to n−1 were made. Every draw is exactly uniform and adds
//! `ln(choices)` to a sum; when distinct draws give distinct text, that sum is −log p(text). The
//! crate `rand` is not used for the draws, because its sampling may change with its version: a seed
//! must give the same text for ever.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use sterna_ternary::random;
pub(crate) use sterna_ternary::random::mix as mix64;

/// A stream of uniform draws and the entropy, in nats, of those made so far.
pub(crate) struct Draws {
    rng: ChaCha8Rng,
    entropy: f64,
}

impl Draws {
    /// The stream at an address; two addresses that differ anywhere give independent streams.
    pub fn new(domain: u64, seed: u64, index: u64, split: u64) -> Self {
        let mut key = [0; 32];
        for (bytes, word) in key.chunks_exact_mut(8).zip([domain, seed, index, split]) {
            bytes.copy_from_slice(&word.to_le_bytes());
        }
        Self {
            rng: ChaCha8Rng::from_seed(key),
            entropy: 0.0,
        }
    }

    /// Uniform in `0..choices`, which must not be 0; adds `ln(choices)` to the entropy.
    pub fn below(&mut self, choices: usize) -> usize {
        self.add_entropy(choices);
        self.uncounted(choices)
    }

    /// Uniform in `0..choices`, not counted: for rejection sampling, where the caller counts the
    /// accepted set.
    pub fn uncounted(&mut self, choices: usize) -> usize {
        let n = choices as u64;
        let unbiased = u64::MAX - u64::MAX % n; // a multiple of n: the values above it are redrawn
        loop {
            let x = self.rng.next_u64();
            if x < unbiased {
                return (x % n) as usize;
            }
        }
    }

    /// Counts one draw among `choices` equally likely ones.
    pub fn add_entropy(&mut self, choices: usize) {
        self.entropy += libm::log(choices as f64);
    }

    /// One item of a non-empty list.
    pub fn pick<T: Copy>(&mut self, items: &[T]) -> T {
        items[self.below(items.len())]
    }

    /// Takes one item out of a non-empty list, so that it is not drawn again.
    pub fn take<T>(&mut self, items: &mut Vec<T>) -> T {
        items.swap_remove(self.below(items.len()))
    }

    /// Uniform in [0, 1), not counted.
    pub fn unit(&mut self) -> f64 {
        random::unit(self.rng.next_u64())
    }

    pub fn entropy(&self) -> f64 {
        self.entropy
    }
}

/// A keyed bijection of `0..len`: a six-round Feistel network over the next even number of bits,
/// walked until it lands inside (fewer than four tries on average). No table, any order of queries.
pub(crate) fn permute(index: u64, len: u64, key: u64) -> u64 {
    debug_assert!(index < len);
    let half = (64 - (len - 1).leading_zeros()).div_ceil(2).max(1);
    let mask = (1 << half) - 1;
    let mut x = index;
    loop {
        let (mut left, mut right) = (x >> half, x & mask);
        for round in 0..6 {
            let mixed = mix64(key ^ mix64(right ^ (round << 48)));
            (left, right) = (right, left ^ (mixed & mask));
        }
        x = (left << half) | right;
        if x < len {
            return x;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_depend_on_every_word_of_the_address_and_on_nothing_else() {
        let first = |a, b, c, d| Draws::new(a, b, c, d).rng.next_u64();
        assert_eq!(first(1, 2, 3, 4), first(1, 2, 3, 4));
        let mut seen: Vec<u64> = [
            (1, 2, 3, 4),
            (0, 2, 3, 4),
            (1, 0, 3, 4),
            (1, 2, 0, 4),
            (1, 2, 3, 0),
            (4, 3, 2, 1),
        ]
        .map(|(a, b, c, d)| first(a, b, c, d))
        .to_vec();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), 6);
    }

    #[test]
    fn draws_are_uniform_and_count_their_entropy() {
        let mut draws = Draws::new(0, 0, 0, 0);
        let mut counts = [0; 7];
        for _ in 0..70_000 {
            counts[draws.below(7)] += 1;
        }
        assert!(
            counts.iter().all(|&n| (9_600..10_400).contains(&n)),
            "{counts:?}"
        );
        assert!((draws.entropy() - 70_000.0 * 7f64.ln()).abs() < 1e-6);
        assert!(
            (0..1000)
                .map(|_| draws.unit())
                .all(|u| (0.0..1.0).contains(&u))
        );
    }

    #[test]
    fn permute_is_a_bijection_at_every_length() {
        for len in (1..70).chain([255, 256, 257, 1000, 4097]) {
            for key in [0, 1, u64::MAX] {
                let mut image: Vec<u64> = (0..len).map(|i| permute(i, len, key)).collect();
                image.sort_unstable();
                assert!(image.into_iter().eq(0..len), "length {len}, key {key}");
            }
        }
    }

    #[test]
    fn permute_shuffles_and_depends_on_the_key() {
        let order = |key| (0..1000).map(|i| permute(i, 1000, key)).collect::<Vec<_>>();
        let (a, b) = (order(1), order(2));
        let same = |x: &[u64], y: &[u64]| x.iter().zip(y).filter(|(p, q)| p == q).count();
        assert!(same(&a, &b) < 10);
        assert!(same(&a, &(0..1000).collect::<Vec<_>>()) < 10);
        let neighbours = a.windows(2).filter(|w| w[0].abs_diff(w[1]) == 1).count();
        assert!(neighbours < 10, "{neighbours} neighbours stayed together");
    }
}
