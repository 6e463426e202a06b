//! How long a step takes, learned from the steps before.
//!
//! A step of `b` answers and `p` tokens of prompts takes about T(b) + c · p: the weights are read
//! once, and each token costs arithmetic. T is remembered for each number of answers. c is two
//! numbers, as a token costs less among many: without VNNI, half as much. All follow the machine
//! with a moving average, so a wrong first guess is soon gone.

use std::time::Duration;

/// Most answers whose time is remembered on its own.
const SIZES: usize = 64;
/// Weight of a new measurement.
const NEW: f64 = 0.2;
/// Shortest step that prompts may fill.
const SHORTEST: Duration = Duration::from_millis(80);
/// Fewest tokens of prompts whose time says something about c.
const ENOUGH: usize = 4;
/// Fewest tokens that are many.
const MANY: usize = 32;

/// What was learned, in seconds.
#[derive(Debug, Clone)]
pub struct Speed {
    /// T(b) where it is known, at index b.
    answers: [Option<f64>; SIZES],
    /// c among few tokens and among many; none before the first prompt.
    prompt_token: [Option<f64>; 2],
}

impl Speed {
    /// Nothing is known.
    pub fn new() -> Speed {
        Speed {
            answers: [None; SIZES],
            prompt_token: [None; 2],
        }
    }

    /// Learns from a step.
    pub fn learn(&mut self, answers: usize, prompt_tokens: usize, took: Duration) {
        let took = took.as_secs_f64();
        if prompt_tokens == 0 {
            average(&mut self.answers[answers.min(SIZES - 1)], took);
        } else if prompt_tokens >= ENOUGH {
            let rest = (took - self.answers(answers)).max(0.0);
            let c = &mut self.prompt_token[usize::from(prompt_tokens >= MANY)];
            average(c, rest / prompt_tokens as f64);
        }
    }

    /// Seconds of a step with these answers alone: as measured, or in proportion to the nearest
    /// number that was; 0 if nothing is known.
    fn answers(&self, answers: usize) -> f64 {
        if answers == 0 {
            return 0.0;
        }
        let known = |n: usize| self.answers[n].map(|time| (n, time));
        let at = answers.min(SIZES - 1);
        let below = (1..=at).rev().find_map(known);
        let nearest = below.or_else(|| (at..SIZES).find_map(known));
        nearest.map_or(0.0, |(n, time)| time * (answers as f64 / n as f64).max(1.0))
    }

    /// Time that a token of a prompt takes among many; zero if it is not known.
    pub fn prompt_token(&self) -> Duration {
        let [few, many] = self.prompt_token;
        Duration::from_secs_f64(many.or(few).unwrap_or(0.0))
    }

    /// Time of a step that costs the answers in it little patience: twice that of one token, and at
    /// least [`SHORTEST`].
    pub fn step(&self) -> Duration {
        let one = self.answers[1].unwrap_or(0.0);
        SHORTEST.max(Duration::from_secs_f64(2.0 * one))
    }

    /// Tokens of prompts that fit into a step of this length beside these answers.
    pub fn room(&self, step: Duration, answers: usize) -> usize {
        let left = step.as_secs_f64() - self.answers(answers);
        let tokens = |c: Option<f64>| match c {
            Some(time) if time > 0.0 => (left / time).max(0.0) as usize,
            _ => usize::MAX,
        };
        let [few, many] = self.prompt_token;
        match tokens(many.or(few)) {
            room if room >= MANY => room,
            _ => tokens(few.or(many)).min(MANY - 1),
        }
    }
}

fn average(value: &mut Option<f64>, new: f64) {
    *value = Some(match *value {
        Some(old) => old + NEW * (new - old),
        None => new,
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn room_is_what_the_answers_leave() {
        let mut speed = Speed::new();
        assert_eq!(speed.room(100 * MS, 3), usize::MAX);
        speed.learn(1, 0, 20 * MS);
        speed.learn(4, 0, 40 * MS);
        speed.learn(1, 10, 120 * MS);
        assert_eq!(speed.prompt_token(), 10 * MS);
        assert_eq!(speed.room(100 * MS, 0), 10);
        assert_eq!(speed.room(101 * MS, 1), 8);
        // Three answers are known from one, eight from four.
        assert_eq!(speed.room(101 * MS, 3), 4);
        assert_eq!(speed.room(101 * MS, 8), 2);
        assert_eq!(speed.room(30 * MS, 4), 0);
    }

    #[test]
    fn many_tokens_cost_less_each() {
        let mut speed = Speed::new();
        speed.learn(0, 10, 200 * MS);
        // Nothing is known of many: as if they cost the same.
        assert_eq!(speed.room(1000 * MS, 0), 50);
        speed.learn(0, 100, 1000 * MS);
        assert_eq!(speed.room(1000 * MS, 0), 100);
        assert_eq!(speed.room(330 * MS, 0), 33);
        // Too few to be many.
        assert_eq!(speed.room(310 * MS, 0), 15);
        assert_eq!(speed.prompt_token(), 10 * MS);
    }

    #[test]
    fn a_change_of_the_machine_is_followed() {
        let mut speed = Speed::new();
        speed.learn(1, 0, 20 * MS);
        assert_eq!(speed.step(), 80 * MS);
        (0..30).for_each(|_| speed.learn(1, 0, 60 * MS));
        assert!(speed.step() > 115 * MS && speed.step() <= 120 * MS);
        assert!((speed.answers(1) - 0.06).abs() < 1e-3);
        // A few tokens of a prompt say nothing about their cost.
        speed.learn(1, 1, 500 * MS);
        assert_eq!(speed.prompt_token(), Duration::ZERO);
    }
}
