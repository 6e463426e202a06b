//! How fast a model runs here, and how close that is to what the machine can do.
//!
//! [`measure`] times prompts and generation through [`Model::forward`], as any user calls it.
//! Everything is interleaved: a round measures the limits of the machine and then every model with
//! every number of threads, so that a noisy neighbour disturbs all of them alike. The first round
//! warms up and is dropped; the others give the median, the smallest and the largest speed.
//! [`Work`] is the work that a test cannot avoid, [`MachineLimits`] tell how fast the machine could
//! do it, and their ratio is the share of the physical limit that was reached.

use std::path::Path;
use std::time::Instant;

use sterna_runtime::threads::Pool;
use sterna_runtime::{Kernels, KvCache, KvType, Logits, Model, Options, Result, Sampling, sampler};
use sterna_ternary::{LinearType, Memory};

use super::energy::Energy;
use super::limits::{MachineLimits, Meter};
use super::memory;
use super::spread::Spread;
use super::work::{Bound, Test, Work};

/// What [`measure`] runs.
#[derive(Debug, Clone)]
pub struct Benchmark {
    /// Tests of every model with every number of threads.
    pub tests: Vec<Test>,
    /// Numbers of threads.
    pub threads: Vec<usize>,
    /// Tokens in the cache before each test.
    pub depth: usize,
    /// Rounds that count.
    pub repetitions: usize,
    /// Inner loops; by default the fastest.
    pub kernels: Option<&'static Kernels>,
    /// Element type of the KV cache.
    pub kv_type: KvType,
    /// How the files get into memory.
    pub memory: Memory,
    /// Whether generation computes every logit, also those that cannot be the largest.
    pub full_head: bool,
}

/// All results of [`measure`].
#[derive(Debug)]
pub struct Results {
    /// Per number of threads of the plan: the best that any round found.
    pub limits: Vec<MachineLimits>,
    /// Where energy was read, or why it was not.
    pub energy: std::result::Result<String, String>,
    /// Per model, number of threads and test, in this order.
    pub results: Vec<Measurement>,
}

/// One test of one model with one number of threads.
#[derive(Debug, Clone)]
pub struct Measurement {
    /// Index of the model.
    pub model: usize,
    /// How its linear layers are packed.
    pub packing: LinearType,
    /// What was timed.
    pub test: Test,
    /// Number of threads.
    pub threads: usize,
    /// Tokens per second of each round.
    pub speeds: Vec<f64>,
    /// Joules per token of each round; empty without a counter.
    pub joules: Vec<f64>,
    /// Largest resident memory of this model with this number of threads: mapped file, cache and
    /// working memory.
    pub peak_bytes: Option<u64>,
    /// The least work that the test takes.
    pub work: Work,
    /// Tokens per second at the limit of the machine.
    pub limit: f64,
    /// Which limit that is.
    pub bound: Bound,
}

impl Measurement {
    /// Tokens per second.
    pub fn speed(&self) -> Spread {
        Spread::of(&self.speeds)
    }

    /// Median speed as a share of the limit.
    pub fn limit_fraction(&self) -> f64 {
        self.speed().median / self.limit
    }

    /// Median joules per token.
    pub fn joules_per_token(&self) -> Option<f64> {
        (!self.joules.is_empty()).then(|| Spread::of(&self.joules).median)
    }

    /// How many times as fast as `other` this was, round by round.
    pub fn ratio(&self, other: &Measurement) -> Spread {
        let pairs = self.speeds.iter().zip(&other.speeds);
        Spread::of(&pairs.map(|(a, b)| a / b).collect::<Vec<_>>())
    }
}

/// Runs the plan on packed files. `progress` is called with (done, total), counted in tests, also
/// between the tokens of one, and says whether to go on; `None` where it said no.
///
/// # Errors
/// Those of [`Model::open`] and [`Model::forward`]; a depth and a test that together exceed the
/// model's context.
pub fn measure(
    paths: &[&Path],
    plan: &Benchmark,
    progress: &mut dyn FnMut(usize, usize) -> bool,
) -> Result<Option<Results>> {
    let kernels = plan.kernels.unwrap_or_else(Kernels::best);
    let energy = Energy::open();
    let start = memory::resident();
    let mut subjects = Vec::new();
    for (model, path) in paths.iter().enumerate() {
        for threads in &plan.threads {
            subjects.push(Subject::open(model, path, *threads, plan)?);
        }
    }
    let pools = plan.threads.iter().map(|n| Pool::new(Some(*n)));
    let pools = pools.collect::<Result<Vec<Pool>>>()?;
    let mut limits: Vec<MachineLimits> = plan
        .threads
        .iter()
        .map(|n| MachineLimits::none(*n))
        .collect();
    let total = (plan.repetitions + 1) * subjects.len() * plan.tests.len();
    let mut done = 0;
    for round in 0..=plan.repetitions {
        // The buffer of the meter is large: it lives no longer than its measurement.
        let meter = Meter::new();
        for (best, pool) in limits.iter_mut().zip(&pools) {
            *best = best.or_better(&meter.measure(pool, kernels));
        }
        drop(meter);
        for subject in &mut subjects {
            let before = (round == 0).then(memory::reset_peak).flatten();
            for i in 0..plan.tests.len() {
                let goes_on = &mut || progress(done, total);
                if !subject.run(i, plan, energy.as_ref().ok(), round > 0, goes_on)? {
                    return Ok(None);
                }
                done += 1;
            }
            if let (Some(before), Some(start)) = (before, start) {
                // Models that ran before keep their pages: only what this one added counts.
                subject.peak = memory::peak().map(|peak| peak.saturating_sub(before) + start);
            }
        }
    }
    let results = subjects
        .into_iter()
        .flat_map(|subject| subject.results(plan, &limits));
    progress(total, total);
    Ok(Some(Results {
        results: results.collect(),
        limits,
        energy: energy.map(|e| e.source().to_owned()),
    }))
}

/// A model with a number of threads, and what was measured of it.
struct Subject {
    index: usize,
    model: Model,
    cache: KvCache,
    peak: Option<u64>,
    /// Per test.
    speeds: Vec<Vec<f64>>,
    joules: Vec<Vec<f64>>,
    /// Bytes of the head that the last round read.
    head_bytes: Vec<usize>,
}

impl Subject {
    fn open(index: usize, path: &Path, threads: usize, plan: &Benchmark) -> Result<Subject> {
        let options = Options {
            threads: Some(threads),
            kernels: plan.kernels,
            kv_type: plan.kv_type,
            memory: plan.memory,
        };
        let model = Model::open(path, options)?;
        let longest = plan.tests.iter().map(|t| t.tokens()).max().unwrap_or(1);
        Ok(Subject {
            cache: model.new_cache(plan.depth + longest)?,
            index,
            model,
            peak: None,
            speeds: vec![Vec::new(); plan.tests.len()],
            joules: vec![Vec::new(); plan.tests.len()],
            head_bytes: vec![0; plan.tests.len()],
        })
    }

    /// Runs a test once; false where `goes_on`, which is asked before each call of the model, said
    /// no.
    fn run(
        &mut self,
        i: usize,
        plan: &Benchmark,
        energy: Option<&Energy>,
        counts: bool,
        goes_on: &mut dyn FnMut() -> bool,
    ) -> Result<bool> {
        if !goes_on() {
            return Ok(false);
        }
        let (model, cache) = (&self.model, &mut self.cache);
        let vocab_size = model.config().vocab_size;
        let id = |i: usize| (i * 7919 % vocab_size) as u32;
        // The tokens before the test stay in the cache from round to round.
        if cache.len() < plan.depth {
            let ids: Vec<u32> = (cache.len()..plan.depth).map(id).collect();
            model.forward(cache, &ids, Logits::Last)?;
        }
        cache.truncate(plan.depth);
        let tokens = plan.tests[i].tokens();
        let ids: Vec<u32> = (1..=tokens).map(id).collect();
        let joules = energy.and_then(Energy::joules);
        let head_bytes = model.head_bytes_read();
        let screen = Sampling::default().screen(&[]);
        let screen = screen.filter(|_| !plan.full_head);
        let logits = screen.as_ref().map_or(Logits::Last, Logits::Screened);
        let forward = |cache: &mut KvCache, ids: &[u32]| model.forward(cache, ids, logits);
        // Only calls of the model are between here and `seconds`.
        let start = Instant::now();
        match plan.tests[i] {
            Test::Prompt(_) => drop(forward(cache, &ids)?),
            Test::Generate(n) => {
                let mut next = ids[0];
                for _ in 0..n {
                    if !goes_on() {
                        return Ok(false);
                    }
                    next = sampler::greedy(&forward(cache, &[next])?);
                }
            }
        }
        let seconds = start.elapsed().as_secs_f64();
        self.head_bytes[i] = model.head_bytes_read() - head_bytes;
        if counts {
            self.speeds[i].push(tokens as f64 / seconds);
            let used = energy
                .zip(joules)
                .and_then(|(energy, before)| energy.since(before));
            self.joules[i].extend(used.map(|joules| joules / tokens as f64));
        }
        Ok(true)
    }

    fn results(self, plan: &Benchmark, limits: &[MachineLimits]) -> Vec<Measurement> {
        let kv_bytes = self.cache.bytes() / self.cache.capacity();
        let threads = self.model.threads();
        let limits = limits.iter().find(|l| l.threads == threads);
        let limits = limits.expect("every number of threads was measured");
        let tests = plan
            .tests
            .iter()
            .zip(self.speeds.into_iter().zip(self.joules))
            .zip(self.head_bytes);
        let measurement = |((test, (speeds, joules)), head_bytes): ((&Test, _), _)| {
            let work = Work::of(self.model.file(), *test, plan.depth, kv_bytes, head_bytes);
            let (seconds, bound) = work.seconds(limits);
            Measurement {
                model: self.index,
                packing: self.model.file().packing,
                test: *test,
                threads,
                speeds,
                joules,
                peak_bytes: self.peak,
                work,
                limit: test.tokens() as f64 / seconds,
                bound,
            }
        };
        tests.map(measurement).collect()
    }
}
