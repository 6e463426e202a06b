//! Where the time of a training step goes: real steps on random tokens, with timers around the
//! parts.

use std::time::Instant;

use serde_json::{Value, json};

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

/// The most operations and bytes per second of a machine.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limits {
    /// Operations of int8.
    pub int8: f64,
    /// Operations of f32.
    pub float: f64,
    /// Bytes of memory that are read.
    pub memory: f64,
}

impl Limits {
    fn of(&self, limit: Limit) -> f64 {
        match limit {
            Limit::Int8 => self.int8,
            Limit::Float => self.float,
            Limit::Memory => self.memory,
        }
    }
}

impl Profile {
    /// A table of the parts with their shares of these limits.
    pub fn describe(&self, limits: &Limits) -> String {
        let titles = ["part", "ms", "share", "work", "rate", "of limit"];
        let mut text = row(titles.map(String::from));
        let mut line = |name: &str, seconds: f64, rates: [String; 3]| {
            let (ms, share) = (1e3 * seconds, 100.0 * seconds / self.seconds);
            let [work, rate, of_limit] = rates;
            let (ms, share) = (format!("{ms:.1}"), format!("{share:.1} %"));
            text += &row([name.into(), ms, share, work, rate, of_limit]);
        };
        for PartTime {
            part,
            seconds,
            work,
        } in &self.parts
        {
            let rates = part.limit().map(|limit| {
                let (unit, rate) = (unit(limit), work / seconds);
                [
                    format!("{:.2} {unit}", work / 1e9),
                    format!("{:.1} {unit}/s", rate / 1e9),
                    format!("{:.0} %", 100.0 * rate / limits.of(limit)),
                ]
            });
            line(part.name(), *seconds, rates.unwrap_or_default());
        }
        line(REST, self.rest(), Default::default());
        line("step", self.seconds, Default::default());
        text + &format!(
            "{:.0} tokens/s, the fastest of {TIMED_STEPS} steps on {} threads\n\
             limits: int8 {:.0} GOP/s, f32 {:.0} GFLOP/s, reading memory {:.1} GB/s",
            self.tokens as f64 / self.seconds,
            self.threads,
            limits.int8 / 1e9,
            limits.float / 1e9,
            limits.memory / 1e9,
        )
    }

    /// The parts and their shares of these limits.
    pub fn json(&self, limits: &Limits) -> Value {
        let part = |part: &PartTime| {
            let rate = part.work / part.seconds;
            let limit = part.part.limit();
            json!({"part": part.part.name(), "seconds": part.seconds,
                "share": part.seconds / self.seconds,
                "work": limit.map(|_| part.work), "unit": limit.map(unit),
                "rate": limit.map(|_| rate),
                "share_of_limit": limit.map(|limit| rate / limits.of(limit))})
        };
        let mut parts: Vec<_> = self.parts.iter().map(part).collect();
        parts.push(
            json!({"part": REST, "seconds": self.rest(), "share": self.rest() / self.seconds}),
        );
        json!({"seconds": self.seconds, "tokens_per_second": self.tokens as f64 / self.seconds,
            "threads": self.threads, "parts": parts,
            "limits": {"int8": limits.int8, "f32": limits.float, "memory": limits.memory}})
    }
}

fn row([part, ms, share, work, rate, of_limit]: [String; 6]) -> String {
    let row = format!("{part:<32}{ms:>9}{share:>8}{work:>14}{rate:>15}{of_limit:>10}");
    format!("{}\n", row.trim_end())
}

/// The name of what no part counts.
const REST: &str = "waiting and the rest";

fn unit(limit: Limit) -> &'static str {
    match limit {
        Limit::Int8 => "GOP",
        Limit::Float => "GFLOP",
        Limit::Memory => "GB",
    }
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
