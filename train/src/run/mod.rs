//! A run: a folder, what is written into it, and the loop that does so.

mod checkpoint;
pub mod data;
mod metrics;
pub mod plan;
mod provenance;
pub mod range_test;
pub mod sample;
pub mod statistics;
pub mod tensorboard;
mod train;

pub use train::{Control, Evaluation, Event, Outcome, export_newest, train};
