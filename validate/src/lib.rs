//! Is a model good enough, and what does it gain?
//!
//! Everything here gets logits from the runtime and turns them into figures with errors.
//! [`windows`] says which tokens of a [`text`] are predicted from which others, [`pass`] predicts
//! them with several models at once, [`accuracy`] computes perplexity and divergence from the
//! predictions, and [`store`] keeps them. [`generated`] measures what the built-in generators
//! teach.
//! [`speed`] measures time and memory. [`report`] presents everything to people, and a [`gate`]
//! decides for scripts.
//!
//! ```no_run
//! use sterna_runtime::Options;
//! use sterna_validate::{Convention, Passage, Subject, Text, accuracy, judge};
//!
//! // The perplexity of a model, and its distance from a reference.
//! let open = |path: &str| Subject::open(path.as_ref(), path.into(), Options::default());
//! let subjects = [open("reference.sterna")?, open("model.sterna")?];
//! let text = Text::open(&["book.txt".into()], &Default::default())?;
//! let passage = Passage {
//!     text: &text,
//!     convention: Convention::Rolling { context: 512 },
//!     most_tokens: Some(10_000),
//!     state: "state".as_ref(), // an existing folder
//! };
//! if let Some(judgments) = judge(&subjects, &passage, &mut |_done, _total| true)? {
//!     let scored = judgments[1].scored(&passage);
//!     println!("perplexity {:.3}", scored.perplexity().perplexity.mean);
//!     let divergence = scored.divergence(&judgments[0].positions, accuracy::NEGLIGIBLE);
//!     if let Some(divergence) = divergence {
//!         println!("KL divergence {:.5} nats", divergence.kl.mean);
//!     }
//! }
//! # Ok::<(), sterna_validate::Error>(())
//! ```
#![forbid(unsafe_code)]
#![deny(missing_docs)]

pub mod accuracy;
mod error;
pub mod exam;
pub mod gate;
pub mod generated;
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
pub use judge::{Judgment, Passage, Subject, judge};
pub use report::Report;
pub use text::Text;
pub use windows::{Convention, Window};
