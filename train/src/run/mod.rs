//! A run: its folder, the files in it, and the training loop that writes them.

mod build;
mod checkpoint;
pub mod cost;
pub mod data;
mod events;
mod folder;
mod memory;
mod metrics;
mod newest;
mod opened;
pub mod preparation;
pub mod profile;
mod provenance;
pub mod range_test;
pub mod sample;
mod sources;
pub mod statistics;
pub mod tensorboard;
pub mod texts;
mod train;
mod words;

pub use events::{Control, Evaluation, Event, Outcome, Preparing};
pub use newest::export_newest;
pub use opened::{Opened, Run};
pub use train::train;
