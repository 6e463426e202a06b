//! Several processes that compute the steps of one, and the device of each.

mod collective;
pub mod launcher;
#[cfg(feature = "mpi")]
pub mod mpi;
#[cfg(feature = "nccl")]
mod nccl;
mod place;
pub(crate) mod tree;

pub use collective::{Collective, Ranks, Reduction, Solo};
pub use place::{Place, Processor};
