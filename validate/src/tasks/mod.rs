//! Accuracy on tasks, item by item the figures of lm-evaluation-harness 0.4.
//!
//! A [`AccuracyTask`] is read from local files: records in the [`TaskLayout`] of a known data set,
//! or of a task file in TOML that says how to read them (`configs/tasks/capitals.toml` is one); or
//! it is one of the [generated](sterna_datasets::generate) ones, which need no file.
//! [`AccuracyTask::score`] gives an
//! [`ItemOutcome`] per item as it is known, so that work can be shown, kept and gone on with;
//! [`scores`] makes figures with errors of outcomes, [`compare`] says whether two models differ.
//!
//! | a task asks | figure |
//! |---|---|
//! | which choice is likeliest after the text | `acc`; `acc_norm`: log-likelihood per character |
//! | how probable the true choices are together (TruthfulQA) | `acc`: their share |
//! | after which text the continuation is likeliest (WinoGrande) | `acc` |
//! | how likely the continuation is | `perplexity` of the whole, `acc`: is every token the likeliest |
//! | what the model generates | `exact_match`, one for each filter |

mod definition;
mod draw;
mod error;
mod generation;
mod layout;
mod likelihood;
mod load;
mod outcome;
mod prompts;
mod python;
mod random;
mod sample;
mod score;
mod splits;
mod summary;

pub use error::{Error, Result};
pub use layout::TaskLayout;
pub use load::{AccuracyTask, TaskOptions};
pub use sample::{Item, Request};
pub use score::{ItemOutcome, McNemar, MeanDifference, PairedTest, Score, compare, scores};
pub use summary::TaskSummary;
