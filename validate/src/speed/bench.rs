//! How fast a model runs here, and how close that is to what the machine can do.
//!
//! [`measure`] times prompts and generation through [`Model::forward`], as any user calls it.
//! Everything is interleaved: a round measures the limits of the machine and then every model with
//! every number of threads, so that a noisy neighbour disturbs all of them alike. The first round
//! warms up and is dropped; the others give the median, the smallest and the largest speed.
//! [`Work`] is the work that a test cannot avoid, [`MachineLimits`] tell how fast the machine could
//! do it, and their ratio is the share of the physical limit that was reached.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Instant;

use sterna_runtime::threads::Pool;
use sterna_runtime::{Kernels, KvCache, KvType, Logits, Model, Options, Part, Sampling, sampler};
use sterna_ternary::{LinearType, Memory};

use super::energy::Energy;
use super::limits::{MachineLimits, Meter};
use super::memory;
use super::spread::Spread;
use super::work::{Bound, Generation, Head, Test, Work};
use crate::Result;

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
}

impl Benchmark {
    /// The lengths of its prompts, each once.
    pub fn prompt_lengths(&self) -> BTreeSet<usize> {
        let tests = self.tests.iter();
        tests
            .filter_map(|test| match test {
                Test::Prompt(n) => Some(*n),
                Test::Generate(_) => None,
            })
            .collect()
    }
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
    /// Tokens per second at the limit of the machine, where it was measured.
    pub limit: Option<f64>,
    /// Which limit that is.
    pub bound: Bound,
}

impl Measurement {
    /// Tokens per second.
    pub fn speed(&self) -> Spread {
        Spread::of(&self.speeds)
    }

    /// Median speed as a share of the limit.
    pub fn limit_fraction(&self) -> Option<f64> {
        Some(self.speed().median / self.limit?)
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
/// model's context; those of [`Meter::new`].
pub fn measure(
    paths: &[&Path],
    plan: &Benchmark,
    progress: &mut dyn FnMut(usize, usize) -> bool,
) -> Result<Option<Results>> {
    let kernels = plan.kernels.unwrap_or_else(Kernels::best);
    let energy = Energy::open();
    let start = memory::resident();
    let mut subjects: Vec<Subject> = Vec::new();
    for (model, path) in paths.iter().enumerate() {
        for threads in &plan.threads {
            subjects.push(Subject::open(model, path, *threads, plan)?);
        }
    }
    let pools = plan.threads.iter().map(|n| Pool::new(Some(*n)));
    let pools = pools.collect::<sterna_runtime::Result<Vec<Pool>>>()?;
    let mut limits: Vec<MachineLimits> = plan
        .threads
        .iter()
        .map(|n| MachineLimits::none(*n))
        .collect();
    let total = (plan.repetitions + 1) * subjects.len() * plan.tests.len();
    let mut done = 0;
    for round in 0..=plan.repetitions {
        // The buffer of the meter is large: it lives no longer than its measurement.
        let meter = Meter::new(&pools)?;
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
                // Other models keep their pages: only what this one added counts.
                let added = memory::peak().map(|peak| peak.saturating_sub(before));
                subject.peak = added.map(|added| start + subject.opened + added);
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
    /// As many as the test with the most sequences has; all with the same tokens at first.
    caches: Vec<KvCache>,
    /// Bytes that opening the model put into memory.
    opened: u64,
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
        let before = memory::resident();
        let model = Model::open(path, options)?;
        let opened = memory::resident().zip(before);
        let longest = plan.tests.iter().map(|t| t.positions()).max().unwrap_or(1);
        Ok(Subject {
            caches: vec![model.new_cache(plan.depth + longest)?],
            index,
            model,
            opened: opened.map_or(0, |(after, before)| after.saturating_sub(before)),
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
        let test = plan.tests[i];
        self.fill_caches(test.sequences(), plan.depth)?;
        let (model, caches) = (&self.model, &mut self.caches[..test.sequences()]);
        let ids: Vec<u32> = (1..=test.tokens()).map(|i| token(model, i)).collect();
        let joules = energy.and_then(Energy::joules);
        let head_bytes = model.head_bytes_read();
        // Only calls of the model are between here and `seconds`.
        let start = Instant::now();
        let is_done = match test {
            Test::Prompt(_) => {
                model.forward(&mut caches[0], &ids, Logits::Last)?;
                true
            }
            Test::Generate(generation) => generate(model, caches, generation, &ids, goes_on)?,
        };
        let seconds = start.elapsed().as_secs_f64();
        self.head_bytes[i] = model.head_bytes_read() - head_bytes;
        if counts && is_done {
            let tokens = test.tokens() as f64;
            self.speeds[i].push(tokens / seconds);
            let used = energy
                .zip(joules)
                .and_then(|(energy, before)| energy.since(before));
            self.joules[i].extend(used.map(|joules| joules / tokens));
        }
        Ok(is_done)
    }

    /// Leaves `depth` tokens in each of `count` caches. They stay there from round to round.
    fn fill_caches(&mut self, count: usize, depth: usize) -> Result<()> {
        let first = &mut self.caches[0];
        if first.len() < depth {
            let ids: Vec<u32> = (first.len()..depth)
                .map(|i| token(&self.model, i))
                .collect();
            self.model.forward(first, &ids, Logits::Last)?;
        }
        first.truncate(depth);
        while self.caches.len() < count {
            self.caches.push(self.caches[0].clone());
        }
        self.caches.iter_mut().for_each(|c| c.truncate(depth));
        Ok(())
    }

    fn results(self, plan: &Benchmark, limits: &[MachineLimits]) -> Vec<Measurement> {
        let kv_bytes = self.caches[0].bytes() / self.caches[0].capacity();
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
                limit: seconds.map(|seconds| test.tokens() as f64 / seconds),
                bound,
            }
        };
        tests.map(measurement).collect()
    }
}

/// Token `i` of an endless text without repetitions nearby.
fn token(model: &Model, i: usize) -> u32 {
    (i * 7919 % model.config().vocab_size) as u32
}

/// Generates tokens greedily, first[s] being the first token of sequence s; false where `goes_on`
/// said no.
fn generate(
    model: &Model,
    caches: &mut [KvCache],
    generation: Generation,
    first: &[u32],
    goes_on: &mut dyn FnMut() -> bool,
) -> Result<bool> {
    let screen = match generation.head {
        Head::Screened => Sampling::default().screen(&[]),
        Head::Full => None,
    };
    let logits = match screen.as_slice() {
        [] => Logits::Last,
        screens => Logits::Screened(screens),
    };
    let mut next = first[..generation.sequences].to_vec();
    for _ in 0..generation.tokens {
        if !goes_on() {
            return Ok(false);
        }
        let parts = caches.iter_mut().zip(next.chunks(1));
        let parts = parts.map(|(cache, ids)| Part { cache, ids, logits });
        let found = model.forward_many(&mut parts.collect::<Vec<Part>>())?;
        let rows = found.chunks_exact(model.config().vocab_size);
        next = rows.map(sampler::greedy).collect();
    }
    Ok(true)
}
