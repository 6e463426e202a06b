//! How fast models run: the tests of [`mod@bench`], and the waiting times that a user notices.
//!
//! Prompt and generation speed, memory, energy and the share of the machine's limit are those of
//! `sterna bench`, per number of threads. Measured here, in rounds that visit every model so that a
//! noisy neighbour disturbs all alike: the time from a prompt to the first token, the time of each
//! token after it, and the tokens per second of several sequences that are computed together. The
//! first round warms up and is dropped.

pub mod bench;
mod chosen;
mod energy;
mod kept;
mod limits;
mod listing;
mod machine;
mod measured;
mod memory;
mod spread;
mod work;

pub use chosen::ChosenTests;
pub use energy::Energy;
pub use kept::measure_once;
pub use limits::{MachineLimits, Meter};
pub use listing::{Listing, Subject};
pub use machine::{CpuCache, KernelTable, Machine};
pub use measured::{Measured, OnTest, Rate, Speed, SpeedPlan, WithThreads, measure};
pub use spread::Spread;
pub use work::{Bound, Generation, Head, Test, Work};
