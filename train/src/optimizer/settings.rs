//! What both ways to update weights share: constants, moments and the formulas of step sizes.

use serde::{Deserialize, Serialize};
use sterna_ternary::layout::{Role, Weight};

use crate::arena::Arena;

/// How the matrices of linear layers are updated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Method {
    /// Like all other parameters.
    AdamW,
    /// By orthogonalized momentum.
    Muon,
}

/// An optimizer and its constants.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Optimizer {
    /// How the matrices of linear layers are updated.
    pub method: Method,
    /// Decay rates of AdamW's two moments; the momentum of Muon is 0.95.
    pub betas: (f64, f64),
    /// Added to the root of the second moment.
    pub eps: f64,
    /// Share of a matrix that is taken away per step and unit of learning rate.
    pub weight_decay: f64,
}

/// First and second moments of every parameter; the first update brings them where the gradients are.
#[derive(Debug, Clone)]
pub struct Moments {
    /// Mean of the gradients; the momentum of a matrix that Muon updates.
    pub first: Arena,
    /// Mean of their squares; stays zero under Muon.
    pub second: Arena,
}

impl Moments {
    /// Zeros for a model.
    pub fn new(parameters: usize) -> Moments {
        Moments {
            first: Arena::Values(vec![0.0; parameters]),
            second: Arena::Values(vec![0.0; parameters]),
        }
    }
}

/// Momentum of Muon.
pub(super) const MOMENTUM: f32 = 0.95;
/// Root mean square that Muon's updates share with AdamW's.
const UPDATE_RMS: f64 = 0.2;

/// What one update of all weights depends on beside gradients and moments.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Update {
    /// What the gradients are multiplied with.
    pub clip: f32,
    /// The learning rate.
    pub rate: f64,
    /// Updates before this one.
    pub step: u64,
}

impl Optimizer {
    pub(super) fn is_muons(&self, weight: &Weight) -> bool {
        (self.method, weight.role) == (Method::Muon, Role::Linear)
    }

    /// What decay leaves of a weight.
    pub(super) fn keep(&self, weight: &Weight, rate: f64) -> f32 {
        match weight.role {
            Role::Linear => (1.0 - rate * self.weight_decay) as f32,
            _ => 1.0,
        }
    }

    /// Constants of AdamW.
    pub(super) fn constants(&self, update: Update) -> AdamW {
        let correction = |beta: f64| 1.0 - libm::pow(beta, (update.step + 1) as f64);
        AdamW {
            betas: (self.betas.0 as f32, self.betas.1 as f32),
            step_size: (update.rate / correction(self.betas.0)) as f32,
            root_correction: correction(self.betas.1).sqrt() as f32,
            eps: self.eps as f32,
        }
    }
}

/// One step of AdamW: w ← keep · w - step_size · m / (√v / root_correction + eps).
pub(super) struct AdamW {
    pub betas: (f32, f32),
    /// The rate over the bias correction of the first moment.
    pub step_size: f32,
    /// Root of the bias correction of the second moment.
    pub root_correction: f32,
    pub eps: f32,
}

/// What an orthogonal matrix is multiplied with, so that its root mean square is that of AdamW's updates.
pub(super) fn muon_step_size(rate: f64, rows: usize, columns: usize) -> f32 {
    (rate * UPDATE_RMS * (rows.max(columns) as f64).sqrt()) as f32
}

/// a · X + (b · G + c · G²) · X with G = X Xᵀ is one step of the Newton-Schulz iteration.
pub(super) const NEWTON_SCHULZ: (f32, f32, f32) = (3.4445, -4.775, 2.0315);
/// Its steps.
pub(super) const NEWTON_SCHULZ_STEPS: usize = 5;
/// Added to the norm that a matrix is divided by first, so that one of zeros stays what it is.
pub(super) const NORM_EPS: f32 = 1e-7;
