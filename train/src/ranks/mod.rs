//! Several processes that take the steps of one, and where each of them computes.

mod collective;
#[cfg(feature = "mpi")]
pub mod mpi;
#[cfg(feature = "nccl")]
mod nccl;
mod place;
pub(crate) mod tree;

pub use collective::{Collective, Ranks, Reduction, Solo};
pub use place::{Place, Processor};
