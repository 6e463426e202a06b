//! Is a model good enough, and what is gained?
//!
//! Everything here asks the runtime for logits and turns them into figures with errors. [`windows`] says which
//! tokens of a [`text`] are predicted from which others, [`pass`] predicts them with several models at once,
//! [`accuracy`] makes perplexity and divergence of it, and [`store`] keeps what was scored.
#![forbid(unsafe_code)]
#![deny(missing_docs)]

pub mod accuracy;
mod error;
pub mod judge;
pub mod pass;
pub mod plot;
pub mod statistics;
pub mod store;
pub mod text;
pub mod windows;

pub use error::{Error, Result};
pub use judge::{Judgment, Subject, Task, judge};
pub use text::Text;
pub use windows::{Convention, Window};
