//! The bounds of an engine.

use std::time::Duration;

/// What bounds the engine.
#[derive(Debug, Clone, PartialEq)]
pub struct Limits {
    /// Most answers that are computed at the same time.
    pub parallel: usize,
    /// Time of a step that prompts may fill; by default twice that of a token, as it is measured.
    pub step: Option<Duration>,
    /// Pages of keys and values; each holds [`sterna_runtime::KvPage::TOKENS`] positions. One more
    /// than the longest request needs, at least.
    pub pages: usize,
    /// Most answers that wait.
    pub queue: usize,
    /// Most tokens of prompts that wait.
    pub queue_tokens: usize,
    /// Longest time until a request is begun.
    pub queue_timeout: Duration,
    /// Longest time of a request.
    pub timeout: Duration,
    /// Share of the machine for each key, by index; all are above 0.
    pub weights: Vec<f64>,
    /// Which guesses of next tokens are computed.
    pub guesses: Guesses,
}

/// Which guesses of next tokens are computed. Answers do not depend on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Guesses {
    /// None.
    No,
    /// Those that make answers faster.
    #[default]
    Worth,
    /// All: to test what they do.
    All,
}

/// Bounds that no engine can have.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum BadLimits {
    /// A number that must not be 0.
    #[error("{0} is 0, expected at least 1")]
    Zero(&'static str),
    /// Shares that are not those of the keys.
    #[error("--key-weights has {found} numbers, expected one above 0 for each of {keys} keys")]
    Weights {
        /// Numbers that are given.
        found: usize,
        /// Numbers of keys.
        keys: usize,
    },
}

impl Limits {
    /// The usual bounds, with equal shares for this number of keys; without keys all clients are
    /// one.
    pub fn usual(pages: usize, keys: usize) -> Limits {
        Limits {
            parallel: 32,
            step: None,
            pages,
            queue: 256,
            queue_tokens: 131_072,
            queue_timeout: Duration::from_secs(120),
            timeout: Duration::from_secs(3600),
            weights: vec![1.0; keys.max(1)],
            guesses: Guesses::Worth,
        }
    }

    /// Refuses bounds under which nothing is ever computed.
    ///
    /// # Errors
    /// [`BadLimits`], which names the option of `sterna serve`.
    pub fn check(&self, keys: usize) -> Result<(), BadLimits> {
        let counts = [
            ("--parallel", self.parallel),
            ("--queue", self.queue),
            ("--queue-tokens", self.queue_tokens),
        ];
        if let Some((name, _)) = counts.iter().find(|(_, count)| *count == 0) {
            return Err(BadLimits::Zero(name));
        }
        let (found, keys) = (self.weights.len(), keys.max(1));
        let is_fine = |weight: &f64| *weight > 0.0 && weight.is_finite();
        match found == keys && self.weights.iter().all(is_fine) {
            true => Ok(()),
            false => Err(BadLimits::Weights { found, keys }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_that_let_nothing_through_are_refused() {
        for keys in [0, 1, 3] {
            assert_eq!(Limits::usual(9, keys).check(keys), Ok(()));
        }
        for name in ["--parallel", "--queue", "--queue-tokens"] {
            let mut limits = Limits::usual(9, 1);
            match name {
                "--parallel" => limits.parallel = 0,
                "--queue" => limits.queue = 0,
                _ => limits.queue_tokens = 0,
            }
            assert_eq!(limits.check(1), Err(BadLimits::Zero(name)));
        }
        let usual = Limits::usual(9, 2);
        for weights in [
            &[1.0][..],
            &[1.0, 0.0],
            &[1.0, -1.0],
            &[1.0, f64::NAN],
            &[1.0; 3],
        ] {
            let limits = Limits {
                weights: weights.to_vec(),
                ..usual.clone()
            };
            let found = weights.len();
            assert_eq!(limits.check(2), Err(BadLimits::Weights { found, keys: 2 }));
        }
    }
}
