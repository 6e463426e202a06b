//! AdamW and Muon over flat arenas, with decoupled weight decay on the matrices of linear layers
//! only.
//!
//! AdamW: Loshchilov and Hutter, "Decoupled Weight Decay Regularization", 2019. Muon: Jordan et al.
//! 2024. It replaces the momentum of a matrix by the nearest orthogonal matrix, scaled so that the
//! learning rates of AdamW fit (Liu et al., "Muon is Scalable for LLM Training", 2025). Norms,
//! embedding and head always use AdamW and do not decay. On devices other than the CPU both are
//! tensor operations (`plain`).
//!
//! The AdamW of candle-nn is not used, because its moments are private and so cannot be saved and
//! resumed, and because it makes a tensor of every intermediate result; it has no Muon. Tests
//! compare the two.

mod fused;
mod plain;
mod settings;

pub use settings::{Method, Moments, Optimizer, Update};

use crate::arena::Arena;
use crate::{Model, Result};

impl Optimizer {
    /// Updates all weights and moments from the gradients, in the memory where these are.
    ///
    /// # Errors
    /// A parameter that is not a contiguous f32 tensor.
    pub fn update(
        &self,
        model: &Model,
        moments: &mut Moments,
        gradients: &Arena,
        update: Update,
    ) -> Result<()> {
        match gradients {
            Arena::Values(gradients) => fused::update(self, model, moments, gradients, update),
            Arena::Tensor(gradients) => plain::update(self, model, moments, gradients, update),
        }
    }
}

#[cfg(test)]
mod tests;
