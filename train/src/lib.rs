//! The quantization-aware trainer: full-precision master weights whose forward pass is ternary.
//!
//! candle holds the tensors and their graph; the operations that cost time are our own ([`ops`]). A
//! [`Recipe`] says what to train and [`Draft`] puts one together, [`Trainer`] takes steps, [`train`] is the loop,
//! [`checkpoint`] saves and resumes, [`export`] writes a Hugging Face folder.
#![deny(unsafe_code)]

pub mod arena;
mod backward;
pub mod checkpoint;
pub mod collective;
pub mod data;
mod draft;
mod error;
pub mod export;
mod metrics;
pub mod model;
#[cfg(feature = "mpi")]
pub mod mpi;
#[cfg(feature = "nccl")]
pub mod nccl;
pub mod ops;
pub mod optimizer;
mod place;
pub mod plan;
mod provenance;
pub mod range_test;
pub mod recipe;
mod run;
pub mod sample;
pub mod schedule;
pub mod spikes;
mod start;
pub mod statistics;
pub mod tcp;
mod teacher;
pub mod tensorboard;
mod trainer;
mod tree;

pub use backward::Activations;
pub use candle_core::Device;
pub use draft::Draft;
pub use error::{Error, Result};
pub use model::{Model, Precision};
pub use place::{Place, Processor};
pub use recipe::Recipe;
pub use run::{Control, Evaluation, Event, Outcome, export_newest, train};
pub use start::{Start, Weights};
pub use teacher::Teacher;
pub use trainer::{LossReduction, Step, Trainer};

/// Lets training use this many threads; to be called once, before the first step.
///
/// # Errors
/// A second call, or threads that cannot be started.
pub fn use_threads(threads: usize) -> Result<()> {
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .build_global();
    pool.map_err(|e| Error::Threads {
        threads,
        why: e.to_string(),
    })
}
