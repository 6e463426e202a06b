//! Is a model good enough, and what is gained?
//!
//! Everything here asks the runtime for logits and turns them into figures with errors.
#![forbid(unsafe_code)]

mod error;
pub mod tasks;

pub use error::{Error, Result};
