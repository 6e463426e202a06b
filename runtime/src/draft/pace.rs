//! What passes of a few tokens cost, and so which guesses are worth their computation.
//!
//! A pass that gives `b` answers a token each takes T(b); with `m` guesses it takes about T(b + m),
//! and gives b + Σ p tokens, where p are the probabilities of the guesses. The number of guesses
//! is the one with the most tokens a second. T is remembered for each number of tokens. One that
//! was not seen for a while is taken to be cheap: so it is tried once, and then known. The machine
//! may have been busy during the first tries, so they are forgotten sooner than later ones.

/// Most tokens of a pass whose time is remembered.
const SIZES: usize = 64;
/// Weight of a new measurement.
const NEW: f64 = 0.25;
/// Passes after which a time is not known any more, if it was measured once; each measurement more
/// doubles them.
const YOUNG: u64 = 16;
/// Most passes after which a time is not known any more.
const OLD: u64 = 256;
/// What a token is taken to cost beside the first one where nothing is known.
const CHEAP: f64 = 0.15;
/// Most tokens of a pass beyond the largest one that is known, or half as many more if that is
/// more: a try is never expensive.
const FARTHER: usize = 4;
/// How much faster guesses must make a pass.
const GAIN: f64 = 1.03;

/// The times of passes.
#[derive(Debug, Clone)]
pub struct Pace {
    /// The time of a pass of this many tokens.
    times: [Time; SIZES + 1],
    passes: u64,
    /// Whether guesses are computed whatever they cost.
    is_eager: bool,
}

/// The time of passes of some number of tokens.
#[derive(Debug, Clone, Copy, Default)]
struct Time {
    seconds: f64,
    /// In which pass it was last measured.
    at: u64,
    /// How often it was measured.
    count: u32,
}

impl Time {
    fn is_known(&self, passes: u64) -> bool {
        let doublings = self.count.saturating_sub(1).min(OLD.ilog2());
        self.count > 0 && passes - self.at <= OLD.min(YOUNG << doublings)
    }
}

impl Default for Pace {
    fn default() -> Pace {
        Pace::new()
    }
}

impl Pace {
    /// Nothing is known.
    pub fn new() -> Pace {
        Pace {
            times: [Time::default(); SIZES + 1],
            passes: 0,
            is_eager: false,
        }
    }

    /// Computes every guess, whatever it costs: to test what guesses do.
    pub fn eager() -> Pace {
        Pace {
            is_eager: true,
            ..Pace::new()
        }
    }

    /// Learns that a pass of `tokens` tokens took `seconds`.
    pub fn learn(&mut self, tokens: usize, seconds: f64) {
        self.passes += 1;
        let Some(time) = self.times.get_mut(tokens) else {
            return;
        };
        time.seconds = match time.is_known(self.passes) {
            true => time.seconds + NEW * (seconds - time.seconds),
            false => seconds,
        };
        time.at = self.passes;
        time.count = time.count.saturating_add(1);
    }

    /// How many of these guesses to compute beside `answers` tokens. `probabilities` are those of
    /// the guesses of all answers, the largest first; `each` is the seconds that a guess took.
    pub fn choose(&self, answers: usize, probabilities: &[f32], each: f64) -> usize {
        if self.is_eager {
            return probabilities.len();
        }
        let Some(alone) = self.known(answers) else {
            return 0;
        };
        let (mut time, mut tokens) = (alone, answers as f64);
        let mut best = (GAIN * tokens / time, 0);
        let known = (answers..=SIZES).rev().find(|n| self.known(*n).is_some());
        let known = known.unwrap_or(answers);
        let farthest = SIZES.min(known + FARTHER.max(known / 2));
        for (i, probability) in probabilities.iter().enumerate() {
            let size = answers + i + 1;
            if size > farthest {
                break;
            }
            // No pass is faster than one of fewer tokens.
            time = match self.known(size) {
                Some(known) => known.max(time),
                None => self.between(size, time, alone / answers as f64),
            };
            tokens += f64::from(*probability);
            let speed = tokens / (time + each * (i + 1) as f64);
            if speed > best.0 {
                best = (speed, i + 1);
            }
        }
        best.1
    }

    fn known(&self, tokens: usize) -> Option<f64> {
        let time = self.times.get(tokens)?;
        time.is_known(self.passes).then_some(time.seconds)
    }

    /// The time of a pass of `size` tokens, from that of one token fewer and from the next larger
    /// one that is known; `one` is the time of a token alone.
    fn between(&self, size: usize, before: f64, one: f64) -> f64 {
        let larger = (size + 1..=SIZES).find_map(|n| Some((n, self.known(n)?)));
        before
            + match larger {
                Some((n, time)) => (time - before).max(0.0) / (n - size + 1) as f64,
                None => CHEAP * one,
            }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guesses_are_computed_where_they_pay() {
        let mut pace = Pace::new();
        assert_eq!(pace.choose(1, &[0.9; 4], 0.0), 0);
        pace.learn(1, 0.040);
        // Nothing else is known: it is tried.
        assert_eq!(pace.choose(1, &[0.9, 0.8, 0.05, 0.04], 0.0), 2);
        pace.learn(2, 0.060);
        pace.learn(3, 0.080);
        pace.learn(4, 0.100);
        // Each token costs half of the first.
        assert_eq!(pace.choose(1, &[0.4, 0.3, 0.2], 0.0), 0);
        assert_eq!(pace.choose(1, &[0.9, 0.8, 0.7], 0.0), 3);
        assert_eq!(pace.choose(1, &[0.9, 0.8, 0.3], 0.0), 2);
        // Many guesses are tried a few at a time.
        assert_eq!(pace.choose(1, &[1.0; 16], 0.0), 7);
        // A pass that is known to take longer lets half as many more be tried.
        pace.learn(12, 0.150);
        assert_eq!(pace.choose(1, &[1.0; 32], 0.0), 17);
        // Beside two answers, too.
        assert_eq!(pace.choose(2, &[0.9, 0.8], 0.0), 2);
        // A guess that takes long to make must be surer.
        assert_eq!(pace.choose(1, &[0.9, 0.8, 0.7], 0.03), 0);
    }

    /// How often a guess that is right in half of the cases is computed in some passes, where a
    /// pass with it takes `seconds` of the number of tries before.
    fn tries(passes: u64, seconds: impl Fn(usize) -> f64) -> usize {
        let mut pace = Pace::new();
        pace.learn(1, 0.04);
        let mut tries = 0;
        for _ in 0..passes {
            let guesses = pace.choose(1, &[0.5], 0.0);
            let time = if guesses == 0 { 0.04 } else { seconds(tries) };
            tries += guesses;
            pace.learn(1 + guesses, time);
        }
        tries
    }

    #[test]
    fn what_was_expensive_is_tried_again_seldom() {
        let tries = tries(10 * OLD, |_| 0.08);
        assert!((8..=14).contains(&tries), "{tries}");
    }

    #[test]
    fn a_first_try_on_a_busy_machine_is_soon_forgotten() {
        let tries = tries(100, |tries| if tries == 0 { 0.4 } else { 0.045 });
        assert!(tries >= 80, "{tries}");
    }
}
