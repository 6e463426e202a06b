//! The cost of a run, before it starts: parameters, memory, speed and hours.
//!
//! Speed and memory are measured: a few real steps on random tokens are timed on this machine.

use std::time::Instant;

use super::memory;
use super::opened::Run;
use super::preparation::{self, Preparation};
use crate::model::{flops_per_token, linear_parameters};
use crate::ops::{Mat, matmul};
use crate::recipe::TrainRecipe;
use crate::{Place, Result};

/// The cost of a run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RunCost {
    /// Values that are trained.
    pub parameters: usize,
    /// Those in ternary matrices.
    pub ternary_parameters: usize,
    /// Tokens of one step.
    pub step_tokens: usize,
    /// Tokens of the whole run, repeated ones included.
    pub tokens: f64,
    /// Bytes of weights, moments and one gradient. Activations need more.
    pub state_bytes: u64,
    /// Bytes of memory that a step needs at its peak, estimated.
    pub estimated_bytes: u64,
    /// Bytes of memory that this process can have; none if the system does not report them.
    pub limit_bytes: Option<u64>,
    /// The largest memory of this process so far in bytes, after the timed steps; none if the
    /// system does not report it.
    pub peak_bytes: Option<u64>,
    /// Bytes of one checkpoint.
    pub checkpoint_bytes: u64,
    /// Measured in the fastest of the timed steps.
    pub tokens_per_second: f64,
    /// The cost of the data before the first step; none if they are generated.
    pub preparation: Option<Preparation>,
    /// Floating-point operations of these tokens as a share of [`peak_flops`].
    pub share_of_peak: f64,
}

impl RunCost {
    /// Hours of training at the measured speed, without evaluations and checkpoints.
    pub fn hours(&self) -> f64 {
        self.tokens / self.tokens_per_second / 3600.0
    }
}

/// Number of timed steps, after one that is not timed.
const TIMED_STEPS: usize = 2;

/// Times the preparation of a sample of the data, and a few steps of a recipe on random tokens.
/// Writes nothing that stays.
///
/// # Errors
/// Those of preparing data, of making a trainer and of its steps.
pub fn measure(run: &Run) -> Result<RunCost> {
    memory::check(run, &Place::default())?;
    let recipe = run.recipe();
    let (train, vocabulary) = (&recipe.train, recipe.data.vocab_size);
    let config = run.config(vocabulary, 0, &[])?;
    let preparation = preparation::measure(run)?;
    let peak = peak_flops();
    let mut trainer = run.fresh(config.clone(), &Place::default())?;
    let ids = random_ids(train, vocabulary);
    let mut seconds = f64::INFINITY;
    for timed in 0..=TIMED_STEPS {
        let start = Instant::now();
        trainer.step(&ids, train.context, train.learning_rate)?;
        if timed > 0 {
            seconds = seconds.min(start.elapsed().as_secs_f64());
        }
    }
    let parameters = trainer.model.parameter_count();
    let step_tokens = train.batch * train.accumulate * train.context;
    let tokens_per_second = step_tokens as f64 / seconds;
    let ternary_parameters = linear_parameters(&config);
    Ok(RunCost {
        parameters,
        ternary_parameters,
        step_tokens,
        tokens: step_tokens as f64 * train.steps as f64,
        // Four f32 per parameter: weight, two moments and a gradient.
        state_bytes: 16 * parameters as u64,
        estimated_bytes: memory::of_step(run, &Place::default()).bytes() as u64,
        limit_bytes: memory::limit().map(|bytes| bytes as u64),
        peak_bytes: peak_bytes(),
        // Three f32 per parameter, and four trits per byte.
        checkpoint_bytes: (12 * parameters + ternary_parameters / 4) as u64,
        tokens_per_second,
        preparation,
        share_of_peak: tokens_per_second * flops_per_token(&config, train.context) / peak,
    })
}

/// Token ids of one step that look random, (sequences, context + 1).
pub(super) fn random_ids(train: &TrainRecipe, vocabulary: usize) -> Vec<u32> {
    let count = train.batch * train.accumulate * (train.context + 1);
    let id = |i: u64| (i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 33) as u32 % vocabulary as u32;
    (0..count as u64).map(id).collect()
}

/// Multiplications and additions per second of f32 matrix products: all threads at once, each with
/// matrices that fit into its cache.
pub fn peak_flops() -> f64 {
    const SIZE: usize = 384;
    let products = 8;
    let (a, b) = (vec![0.5f32; SIZE * SIZE], vec![0.25f32; SIZE * SIZE]);
    let timed = |_: rayon::BroadcastContext| {
        let mut out = vec![0f32; SIZE * SIZE];
        let mut best = f64::INFINITY;
        for _ in 0..products {
            let start = Instant::now();
            let (a, b) = (Mat::new(&a[..], SIZE, SIZE), Mat::new(&b[..], SIZE, SIZE));
            matmul(Mat::new(&mut out[..], SIZE, SIZE), 0.0, a, b.t());
            best = best.min(start.elapsed().as_secs_f64());
        }
        2.0 * (SIZE * SIZE * SIZE) as f64 / best
    };
    rayon::broadcast(timed).iter().sum()
}

/// The largest memory of this process so far in bytes.
pub(super) fn peak_bytes() -> Option<u64> {
    Some(sterna_ternary::system::process_memory()?.peak)
}
