//! Learning rate and weight decay as pure functions of the step.

use serde::{Deserialize, Serialize};

/// How the learning rate goes from its peak to its end.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Shape {
    /// Stays at the peak.
    Constant,
    /// Falls in a straight line to zero after `decay_from`.
    Linear,
    /// Falls along half a cosine to zero after `decay_from`.
    Cosine,
}

/// The learning rate over a run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Schedule {
    /// Its shape after the warm-up.
    pub shape: Shape,
    /// The highest rate.
    pub peak: f64,
    /// Steps of linear rise from zero.
    pub warmup: u64,
    /// Share of the run after which the rate falls, 0 to 1.
    pub decay_from: f64,
    /// Steps of the whole run.
    pub steps: u64,
}

impl Schedule {
    /// The rate of the step with this index, counted from 0.
    pub fn rate(&self, step: u64) -> f64 {
        if step < self.warmup {
            return self.peak * (step + 1) as f64 / self.warmup as f64;
        }
        let start = self.decay_from * self.steps as f64;
        let left = (self.steps as f64 - start).max(1.0);
        let progress = ((step as f64 - start) / left).clamp(0.0, 1.0);
        self.peak
            * match self.shape {
                Shape::Constant => 1.0,
                Shape::Linear => 1.0 - progress,
                Shape::Cosine => 0.5 * (1.0 + (std::f64::consts::PI * progress).cos()),
            }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rises_holds_and_falls() {
        let schedule = Schedule {
            shape: Shape::Linear,
            peak: 1.0,
            warmup: 10,
            decay_from: 0.5,
            steps: 100,
        };
        assert_eq!(schedule.rate(0), 0.1);
        assert_eq!(schedule.rate(9), 1.0);
        assert_eq!(schedule.rate(50), 1.0);
        assert_eq!(schedule.rate(75), 0.5);
        assert!(schedule.rate(99) > 0.0 && schedule.rate(99) < 0.03);
        let cosine = Schedule {
            shape: Shape::Cosine,
            ..schedule
        };
        assert!((cosine.rate(75) - 0.5).abs() < 1e-12);
        assert_eq!(
            Schedule {
                shape: Shape::Constant,
                ..schedule
            }
            .rate(99),
            1.0
        );
    }
}
