//! Progress of a conversion, counted in weights.

use sterna_ternary::layout::{Role, Weight};

/// Counts weights for the caller's progress bar.
pub(crate) struct ProgressCounter<'a> {
    done: u64,
    total: u64,
    show: &'a mut dyn FnMut(u64, u64),
}

impl<'a> ProgressCounter<'a> {
    pub fn new(total: u64, show: &'a mut dyn FnMut(u64, u64)) -> ProgressCounter<'a> {
        ProgressCounter {
            done: 0,
            total,
            show,
        }
    }

    pub fn add(&mut self, weights: usize) {
        self.done += weights as u64;
        (self.show)(self.done, self.total);
    }
}

/// Total number of weights: each tensor is planned, written and proved; norms are not planned.
pub(crate) fn total(weights: &[Weight]) -> u64 {
    let passes = |role| if role == Role::Norm { 2 } else { 3 };
    weights
        .iter()
        .map(|w| passes(w.role) * (w.rows * w.columns) as u64)
        .sum()
}
