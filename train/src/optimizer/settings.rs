//! What the fused and the plain update share: constants, moments, and the formulas of step sizes.

use serde::{Deserialize, Serialize};
use sterna_ternary::layout::{Role, Weight};

use crate::arena::{Arena, Values};

/// How the matrices of linear layers are updated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Method {
    /// By AdamW, like all other parameters.
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
    /// Share of a weight that decays per step and unit of learning rate; matrices of linear layers
    /// only.
    pub weight_decay: f64,
}

/// First and second moments of every parameter. The first update moves them to the device of the
/// gradients.
#[derive(Debug, Clone)]
pub struct Moments {
    /// Moving average of the gradients; the momentum of a matrix that Muon updates.
    pub first: Arena,
    /// Moving average of their squares; zero for a matrix that Muon updates.
    pub second: Arena,
}

impl Moments {
    /// Zeros for this number of values.
    pub fn new(parameters: usize) -> Moments {
        Moments {
            first: Arena::Values(Values::zeros(parameters)),
            second: Arena::Values(Values::zeros(parameters)),
        }
    }
}

/// Decay rate of the momentum of Muon.
pub(super) const MOMENTUM: f32 = 0.95;
/// Root mean square of the updates of Muon, which is that of AdamW's updates.
const UPDATE_RMS: f64 = 0.2;

/// The inputs of one update of all weights besides gradients and moments.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Update {
    /// Factor of the gradients.
    pub clip: f32,
    /// The learning rate.
    pub rate: f64,
    /// Number of updates before this one.
    pub step: u64,
}

impl Optimizer {
    /// Whether Muon updates this weight.
    pub(super) fn is_muons(&self, weight: &Weight) -> bool {
        (self.method, weight.role) == (Method::Muon, Role::Linear)
    }

    /// The share of a weight that remains after decay.
    pub(super) fn keep(&self, weight: &Weight, rate: f64) -> f32 {
        match weight.role {
            Role::Linear => (1.0 - rate * self.weight_decay) as f32,
            _ => 1.0,
        }
    }

    /// The constants of AdamW for this update.
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

/// The factor of an orthogonal matrix (rows, columns), for the root mean square of AdamW's updates.
pub(super) fn muon_step_size(rate: f64, rows: usize, columns: usize) -> f32 {
    (rate * UPDATE_RMS * (rows.max(columns) as f64).sqrt()) as f32
}

/// Coefficients a, b, c of one step of the Newton-Schulz iteration: a · X + (b · G + c · G²) · X
/// with G = X Xᵀ.
pub(super) const NEWTON_SCHULZ: (f32, f32, f32) = (3.4445, -4.775, 2.0315);
/// Number of its steps.
pub(super) const NEWTON_SCHULZ_STEPS: usize = 5;
/// Added to the norm that a matrix is divided by first, so that a matrix of zeros stays zero.
pub(super) const NORM_EPS: f32 = 1e-7;
