//! The quantization-aware trainer: full-precision master weights whose forward pass is ternary.
//!
//! candle holds the tensors and their graph; the operations that cost time are our own ([`ops`]). A
//! [`Recipe`] says what to train, and [`Draft`] puts one together. A [`Run`] is a recipe with the
//! checkpoints that it names. [`Trainer`] takes steps. [`train`] is the loop: it saves, resumes and
//! ends with a Hugging Face folder.
//!
//! ```no_run
//! use std::path::Path;
//! use sterna_train::{Control, Event, Place, Run};
//!
//! let run = Run::from_scratch(Path::new("configs/quickstart.toml"))?;
//! let observe = |event: Event| {
//!     if let Event::Step { step, of, .. } = event {
//!         println!("step {step}: loss {:.3}", of.loss);
//!     }
//!     Control::Continue
//! };
//! let outcome = sterna_train::train(&run, Path::new("run"), &Place::default(), observe)?;
//! println!("a Hugging Face folder: {}", outcome.model.display());
//! # Ok::<(), sterna_train::Error>(())
//! ```
#![deny(unsafe_code)]

mod arena;
mod backward;
mod card;
mod chat;
mod curves;
mod error;
mod export;
pub mod model;
pub mod ops;
pub mod optimizer;
mod pretrained;
pub mod ranks;
pub mod recipe;
pub mod run;
mod schedule;
mod sequences;
mod spikes;
mod teacher;
mod timers;
mod trainer;

pub use arena::{Arena, Values};
pub use backward::ActivationStorage;
pub use candle_core::Device;
pub use chat::Chat;
pub use curves::{Curves, Feed, curves};
pub use error::{Error, Result};
pub use model::{Model, Precision};
pub use ops::InstructionSet;
pub use pretrained::{Pretrained, ReadWeights};
pub use ranks::{Place, Processor};
pub use recipe::{Draft, Origins, Recipe};
pub use run::{Control, Evaluation, Event, Opened, Outcome, Preparing, Run, export_newest, train};
pub use schedule::{RateShape, Schedule};
pub use sequences::Sequences;
pub use spikes::Spikes;
pub use teacher::Teacher;
pub use trainer::{LossReduction, Step, Trainer};

/// The version of the order of float operations. A run is a function of its recipe and of this
/// number, on every CPU and for any number of threads and ranks; a run that another version began
/// does not go on.
pub const NUMERICS: u64 = 2;

/// Sets the number of threads that training uses. Call it once, before the first step.
///
/// # Errors
/// [`Error::Threads`] for a second call, and where threads cannot be started.
pub fn use_threads(threads: usize) -> Result<()> {
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .build_global();
    pool.map_err(|e| Error::Threads {
        threads,
        why: e.to_string(),
    })
}
