//! What the engine has done, in numbers that only grow, and the distributions of times.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use sterna_runtime::draft::MOST;

/// A number that only grows, or one that is set.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds to it.
    pub fn add(&self, more: usize) {
        self.0.fetch_add(more as u64, Ordering::Relaxed);
    }

    /// Replaces it.
    pub fn set(&self, value: usize) {
        self.0.store(value as u64, Ordering::Relaxed);
    }

    /// Its value.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Upper bounds of the buckets of [`Histogram`], in seconds.
pub const BOUNDS: [f64; 16] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0,
];

/// A distribution of times.
#[derive(Debug, Default)]
pub struct Histogram {
    /// Times up to each bound and above the one before; the last bucket has no bound.
    buckets: [AtomicU64; BOUNDS.len() + 1],
    /// Microseconds.
    sum: AtomicU64,
}

impl Histogram {
    /// Adds a time.
    pub fn observe(&self, time: Duration) {
        let seconds = time.as_secs_f64();
        let bucket = BOUNDS.iter().position(|bound| seconds <= *bound);
        self.buckets[bucket.unwrap_or(BOUNDS.len())].fetch_add(1, Ordering::Relaxed);
        let micros = time.as_micros().try_into().unwrap_or(u64::MAX);
        self.sum.fetch_add(micros, Ordering::Relaxed);
    }

    /// How many times were at most as long as each bound; the last number counts all.
    pub fn cumulative(&self) -> [u64; BOUNDS.len() + 1] {
        let mut total = 0;
        std::array::from_fn(|i| {
            total += self.buckets[i].load(Ordering::Relaxed);
            total
        })
    }

    /// The sum of all times, in seconds.
    pub fn sum(&self) -> f64 {
        self.sum.load(Ordering::Relaxed) as f64 / 1e6
    }
}

/// The numbers of one engine.
#[derive(Debug, Default)]
pub struct Metrics {
    /// Passes over the weights.
    pub steps: Counter,
    /// Tokens of prompts that were computed.
    pub prompt_tokens: Counter,
    /// Tokens of prompts that were found in a cache.
    pub cached_tokens: Counter,
    /// Tokens of answers.
    pub generated_tokens: Counter,
    /// Steps of answers with guesses.
    pub drafts: Counter,
    /// Answers that went on without the draft model, because it failed.
    pub draft_errors: Counter,
    /// Tokens that were guessed and computed.
    pub drafted_tokens: Counter,
    /// Those of them that became tokens of answers, by their place in the guess.
    pub accepted_tokens: [Counter; MOST],
    /// Answers that ended.
    pub finished: Counter,
    /// Requests whose client was gone before they ended.
    pub cancelled: Counter,
    /// Requests that failed.
    pub failed: Counter,
    /// Answers that gave up their memory and were computed again.
    pub preemptions: Counter,
    /// Pages that the prefix tree gave up.
    pub evictions: Counter,
    /// Pages in use, the tree's included.
    pub pages: Counter,
    /// Pages in the prefix tree, those that sequences share included.
    pub tree_pages: Counter,
    /// Times of steps.
    pub step: Histogram,
    /// Times from the arrival of a request to its first step.
    pub queue: Histogram,
    /// Times from the arrival of a request to its first token.
    pub first_token: Histogram,
    /// Times between tokens of an answer.
    pub next_token: Histogram,
    /// Times of whole requests.
    pub request: Histogram,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_fall_into_buckets() {
        let histogram = Histogram::default();
        for millis in [1, 2, 1000, 400_000] {
            histogram.observe(Duration::from_millis(millis));
        }
        let cumulative = histogram.cumulative();
        assert_eq!(cumulative[0], 1); // up to 1 ms
        assert_eq!(cumulative[1], 2); // up to 2.5 ms
        assert_eq!(cumulative[9], 3); // up to 1 s
        assert_eq!(cumulative[15..], [3, 4]);
        assert_eq!(histogram.sum(), 401.003);
    }
}
