//! One measurement of the speed of several models, in rounds that visit each of them.

use std::path::Path;
use std::time::Instant;

use serde::{Deserialize, Serialize};
use sterna_runtime::{KvCache, Logits, Model, Options, Part, sampler};

use super::bench::{self, Measurement};
use super::work::{Bound, Generation, Head, Test};
use crate::Result;
use crate::judge::Subject;
use crate::statistics::quantile;

/// What is measured.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SpeedPlan {
    /// Tokens of the prompt.
    pub prompt: usize,
    /// Tokens that are generated.
    pub generate: usize,
    /// Numbers of threads; the last one is that of the figures that name none.
    pub threads: Vec<usize>,
    /// Numbers of sequences that are computed together.
    pub batches: Vec<usize>,
    /// Rounds that count.
    pub repetitions: usize,
}

impl SpeedPlan {
    /// As `sterna bench` measures, or shorter where a model takes `most` tokens.
    pub fn within(
        most: usize,
        threads: Vec<usize>,
        batches: Vec<usize>,
        repetitions: usize,
    ) -> SpeedPlan {
        SpeedPlan {
            prompt: 128.min(most / 2),
            generate: 64.min(most / 2),
            threads,
            batches,
            repetitions,
        }
    }
}

/// How fast a model is.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Speed {
    /// Per number of threads.
    pub by_threads: Vec<WithThreads>,
    /// Sequences, and tokens per second of all of them together.
    pub by_batch: Vec<(usize, f64)>,
    /// Median seconds from a prompt of [`SpeedPlan::prompt`] tokens to the first token.
    pub first_token_seconds: f64,
    /// Seconds of a token: half, 90 and 99 of 100 take less.
    pub token_seconds: (f64, f64, f64),
}

/// Medians of `sterna bench` with a number of threads.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct WithThreads {
    /// Number of threads.
    pub threads: usize,
    /// Speed of the prompt.
    pub prompt: Rate,
    /// Speed of generation.
    pub generate: Rate,
    /// The most memory in use: file, cache and working memory.
    pub peak_bytes: Option<u64>,
    /// Joules of a generated token, where the machine counts energy.
    pub joules_per_token: Option<f64>,
}

/// Tokens per second.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Rate {
    /// The median.
    pub tokens_per_second: f64,
    /// The smallest and the largest of all rounds.
    pub range: (f64, f64),
    /// The median as a share of what the machine could do, where that was measured.
    pub limit_fraction: Option<f64>,
    /// What limits it: memory, a cache or arithmetic.
    pub limit: String,
}

impl Speed {
    /// With the most threads of the plan.
    pub fn main(&self) -> Option<&WithThreads> {
        self.by_threads.last()
    }
}

/// Speeds, and where energy was read, or why not.
pub type Measured = (Vec<Speed>, String);

/// Called with the number of tests done and in all, before each token. Returns whether to go on.
pub type OnTest<'a> = dyn FnMut(usize, usize) -> bool + 'a;

/// Measures all models; `None` where `seen` said not to go on.
///
/// # Errors
/// Those of [`bench::measure`].
pub fn measure(
    subjects: &[Subject],
    plan: &SpeedPlan,
    options: Options,
    seen: &mut OnTest,
) -> Result<Option<Measured>> {
    let paths: Vec<&Path> = subjects.iter().map(|s| s.path.as_path()).collect();
    let generation = Generation {
        tokens: plan.generate,
        sequences: 1,
        head: Head::Screened,
    };
    let benchmark = bench::Benchmark {
        tests: vec![Test::Prompt(plan.prompt), Test::Generate(generation)],
        threads: plan.threads.clone(),
        depth: 0,
        repetitions: plan.repetitions,
        kernels: options.kernels,
        kv_type: options.kv_type,
        memory: options.memory,
    };
    let rounds = plan.repetitions + 1;
    let more = rounds * subjects.len();
    let tests = 2 * plan.threads.len() * more;
    let of_bench = bench::measure(&paths, &benchmark, &mut |done, _| seen(done, tests + more))?;
    let Some(report) = of_bench else {
        return Ok(None);
    };
    let mut waits: Vec<Waits> = subjects.iter().map(|_| Waits::new(plan)).collect();
    for round in 0..rounds {
        for (i, (subject, waits)) in subjects.iter().zip(&mut waits).enumerate() {
            let done = tests + round * subjects.len() + i;
            let goes_on = &mut || seen(done, tests + more);
            if !waits.measure(&subject.model, plan, round > 0, goes_on)? {
                return Ok(None);
            }
        }
    }
    let speed = |(i, waits): (usize, Waits)| {
        let of_model = report.results.iter().filter(|r| r.model == i);
        waits.speed(by_threads(&of_model.collect::<Vec<_>>()), plan)
    };
    let energy = report.energy.unwrap_or_else(|why| format!("n/a: {why}"));
    let speeds = waits.into_iter().enumerate().map(speed).collect();
    Ok(Some((speeds, energy)))
}

/// Results come as pairs of prompt and generation.
fn by_threads(results: &[&Measurement]) -> Vec<WithThreads> {
    let pair = |pair: &[&Measurement]| WithThreads {
        threads: pair[0].threads,
        prompt: rate(pair[0]),
        generate: rate(pair[1]),
        peak_bytes: pair[1].peak_bytes,
        joules_per_token: pair[1].joules_per_token(),
    };
    results.chunks_exact(2).map(pair).collect()
}

fn rate(measured: &Measurement) -> Rate {
    let speed = measured.speed();
    let limit: Bound = measured.bound;
    Rate {
        tokens_per_second: speed.median,
        range: (speed.min, speed.max),
        limit_fraction: measured.limit_fraction(),
        limit: limit.name().to_owned(),
    }
}

/// Waiting times of one model, in seconds.
struct Waits {
    first: Vec<f64>,
    tokens: Vec<f64>,
    /// Per number of sequences, seconds of a step.
    steps: Vec<Vec<f64>>,
}

/// Steps of several sequences in a round.
const STEPS: usize = 8;

impl Waits {
    fn new(plan: &SpeedPlan) -> Waits {
        Waits {
            first: Vec::new(),
            tokens: Vec::new(),
            steps: vec![Vec::new(); plan.batches.len()],
        }
    }

    /// One round; false where `goes_on`, which is asked before each call of the model, said no.
    fn measure(
        &mut self,
        model: &Model,
        plan: &SpeedPlan,
        counts: bool,
        goes_on: &mut dyn FnMut() -> bool,
    ) -> Result<bool> {
        let vocab_size = model.config().vocab_size;
        let id = |i: usize| (i * 7919 % vocab_size) as u32;
        let prompt: Vec<u32> = (1..=plan.prompt).map(id).collect();
        let mut cache = model.new_cache(plan.prompt + plan.generate)?;
        let mut seconds = Vec::new();
        let mut next = prompt;
        for _ in 0..=plan.generate.saturating_sub(1) {
            if !goes_on() {
                return Ok(false);
            }
            let start = Instant::now();
            let logits = model.forward(&mut cache, &next, Logits::Last)?;
            next = vec![sampler::greedy(&logits)];
            seconds.push(start.elapsed().as_secs_f64());
        }
        if counts {
            self.first.push(seconds[0]);
            self.tokens.extend_from_slice(&seconds[1..]);
        }
        for (batch, steps) in plan.batches.iter().zip(&mut self.steps) {
            let caches = (0..*batch).map(|_| model.new_cache(STEPS));
            let mut caches = caches.collect::<std::result::Result<Vec<KvCache>, _>>()?;
            for step in 0..STEPS {
                if !goes_on() {
                    return Ok(false);
                }
                let ids: Vec<[u32; 1]> = (0..*batch).map(|i| [id(i + step * batch)]).collect();
                let parts = caches.iter_mut().zip(&ids).map(|(cache, ids)| Part {
                    cache,
                    ids,
                    logits: Logits::Last,
                });
                let mut parts: Vec<Part> = parts.collect();
                let start = Instant::now();
                model.forward_many(&mut parts)?;
                if counts {
                    steps.push(start.elapsed().as_secs_f64());
                }
            }
        }
        Ok(true)
    }

    fn speed(mut self, by_threads: Vec<WithThreads>, plan: &SpeedPlan) -> Speed {
        let sorted = |values: &mut Vec<f64>| values.sort_by(f64::total_cmp);
        sorted(&mut self.first);
        sorted(&mut self.tokens);
        self.steps.iter_mut().for_each(sorted);
        let by_batch = plan.batches.iter().zip(&self.steps);
        Speed {
            by_threads,
            by_batch: by_batch
                .map(|(batch, steps)| (*batch, *batch as f64 / quantile(steps, 0.5)))
                .collect(),
            first_token_seconds: quantile(&self.first, 0.5),
            token_seconds: (
                quantile(&self.tokens, 0.5),
                quantile(&self.tokens, 0.9),
                quantile(&self.tokens, 0.99),
            ),
        }
    }
}
