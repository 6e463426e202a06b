//! AdamW and Muon over flat arenas, with decoupled weight decay on the matrices of linear layers only.
//!
//! AdamW: Loshchilov and Hutter, "Decoupled Weight Decay Regularization", 2019. Muon: Jordan et al. 2024; it
//! replaces the momentum of a matrix by the nearest orthogonal matrix, scaled so that the same learning
//! rates fit as for AdamW (Liu et al., "Muon is Scalable for LLM Training", 2025). Norms, embedding and head
//! are always AdamW's and are not decayed. On a device other than the CPU both are tensor operations (`plain`).

mod fused;
mod plain;
mod settings;

pub use settings::{Method, Moments, Optimizer, Update};

use crate::arena::Arena;
use crate::{Model, Result};

impl Optimizer {
    /// Updates all weights from `gradients`.
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
