//! Where the time of a training step goes: real steps on random tokens, with timers around the
//! parts.

use std::time::Instant;

use super::cost::random_ids;
use super::memory;
use super::opened::Run;
use crate::timers::{Charged, measured};
pub use crate::timers::{Limit, Part};
use crate::{Place, Result};

/// The time of a step and of its parts.
#[derive(Debug, Clone, PartialEq)]
pub struct Profile {
    /// Threads that computed the step.
    pub threads: usize,
    /// Tokens of the step.
    pub tokens: usize,
    /// Seconds of the step.
    pub seconds: f64,
    /// The parts that took time.
    pub parts: Vec<PartTime>,
}

/// What one part of a step took and did.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PartTime {
    /// The part.
    pub part: Part,
    /// The mean over the threads. The sum of all parts is at most the time of the step.
    pub seconds: f64,
    /// Operations or bytes, as [`Part::limit`] says.
    pub work: f64,
}

impl Profile {
    /// Seconds of the step in which threads waited for others or did what no part counts.
    pub fn rest(&self) -> f64 {
        self.seconds - self.parts.iter().map(|of| of.seconds).sum::<f64>()
    }
}

/// Number of timed steps, after one that is not timed.
pub const TIMED_STEPS: usize = 5;

/// Takes a few steps of a recipe on random tokens, and returns the profile of the fastest. Writes
/// nothing. Nothing else may train in this process at the same time, since timers are shared.
///
/// # Errors
/// Those of making a trainer and of its steps.
pub fn measure(run: &Run) -> Result<Profile> {
    memory::check(run, &Place::default())?;
    let train = &run.recipe().train;
    let vocabulary = run.recipe().data.vocab_size;
    let mut trainer = run.fresh(run.config(vocabulary, 0, &[])?, &Place::default())?;
    let ids = random_ids(train, vocabulary);
    trainer.step(&ids, train.context, train.learning_rate)?;
    let mut fastest: Option<Profile> = None;
    for _ in 0..TIMED_STEPS {
        let start = Instant::now();
        let (step, charged) = measured(|| trainer.step(&ids, train.context, train.learning_rate));
        let seconds = start.elapsed().as_secs_f64();
        step?;
        if fastest.as_ref().is_none_or(|best| seconds < best.seconds) {
            let tokens = train.batch * train.accumulate * train.context;
            fastest = Some(profile(seconds, tokens, &charged));
        }
    }
    Ok(fastest.expect("steps were timed"))
}

fn profile(seconds: f64, tokens: usize, charged: &[Charged]) -> Profile {
    let threads = rayon::current_num_threads();
    let took_time = charged.iter().filter(|of| !of.time.is_zero());
    let parts = took_time.map(|of| PartTime {
        part: of.part,
        seconds: of.time.as_secs_f64() / threads as f64,
        work: of.work as f64,
    });
    Profile {
        threads,
        tokens,
        seconds,
        parts: parts.collect(),
    }
}
