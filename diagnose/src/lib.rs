//! What is in a ternary model, and what is wrong with it.
//!
//! [`facts::of`] collects the facts in config, tensors and other files of a model: shapes, sizes,
//! counts of trits, tokenizer and chat template. [`doctor::examine`] looks for known failure modes,
//! each a check with a verdict and a fix: it runs the model on built-in texts, first unchanged,
//! then with typical mistakes undone.
//!
//! Both take a packed file, a Hugging Face folder or a GGUF file. The crate prints nothing: it
//! reports progress to a callback.
//!
//! ```no_run
//! use std::path::Path;
//!
//! let (model, scratch) = (Path::new("model.gguf"), Path::new("an-empty-folder"));
//! let report = sterna_diagnose::doctor::examine(model, scratch, &mut |_progress| {})?;
//! println!("{} broken, {} suspect", report.broken, report.suspect);
//! for line in report.checks {
//!     println!("{}: {}", line.check, line.why);
//! }
//! # Ok::<(), sterna_diagnose::Error>(())
//! ```
#![forbid(unsafe_code)]

pub mod doctor;
mod error;
pub mod facts;
pub mod template;
pub mod trits;

pub use error::{Error, Result};
