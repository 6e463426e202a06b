//! The quantization-aware trainer: full-precision master weights whose forward pass is ternary.
//!
//! candle holds the tensors and their graph; the operations that cost time are our own ([`ops`]). A
//! [`Recipe`] says what to train, [`Trainer`] takes steps, [`train`] is the loop, [`checkpoint`] saves and
//! resumes, [`export`] writes a Hugging Face folder.
#![deny(unsafe_code)]


mod error;

pub mod model;
pub mod ops;
pub mod optimizer;


pub mod schedule;
mod trainer;

pub use error::{Error, Result};
pub use model::{Model, Precision};


pub use trainer::{Step, Trainer};
