//! Is a model good enough, and what does it gain?
//!
//! Everything here gets logits from the runtime and turns them into figures with errors.
//! [`windows`] says which tokens of a [`text`] are predicted from which others, [`pass`] predicts
//! them with several models at once, [`accuracy`] computes perplexity and divergence from the
//! predictions, and [`store`] keeps them. [`speed`] measures time and memory. [`report`] presents
//! everything to people, and a [`gate`] decides for scripts.
#![forbid(unsafe_code)]
#![deny(missing_docs)]

pub mod accuracy;
mod error;
pub mod exam;
pub mod gate;
pub mod judge;
pub mod pass;
pub mod plot;
pub mod report;
pub mod speed;
pub mod statistics;
pub mod store;
pub mod tasks;
pub mod text;
pub mod windows;

pub use error::{Error, Result};
pub use gate::Gate;
pub use judge::{Judgment, Subject, Task, judge};
pub use report::Report;
pub use text::Text;
pub use windows::{Convention, Window};
