//! Learning rate, weight decay and quantization as pure functions of the step.
//!
//! Each shape begins with a linear warm-up. The two stages are those of BitNet b1.58 and TriLM: the
//! rate falls linearly to zero at the end of the run, in the second stage along a lower line.
//! Weight decay ends where the second stage begins. Sources: "The Era of 1-bit LLMs: Training Tips,
//! Code and FAQ", Microsoft 2024 (1.5e-3, then 1e-3 from the middle on, for 700M parameters);
//! Kaushal et al., "Spectra", 2024. The decay of `wsd` is from Hägele et al., "Scaling Laws and
//! Compute-Optimal Training Beyond Fixed Training Durations", 2024.

use serde::{Deserialize, Serialize};

/// How the learning rate changes from its peak to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RateShape {
    /// Stays at the peak.
    Constant,
    /// Falls linearly to zero after `decay_from`.
    Linear,
    /// Falls along half a cosine to zero after `decay_from`.
    Cosine,
    /// Warm-up, stable, decay: falls with 1 - √x to zero after `decay_from`.
    Wsd,
    /// Falls linearly to zero from the start, and after `decay_from` along the line of the second
    /// peak.
    TwoStage,
}

impl RateShape {
    /// Share of the run after which the rate falls, or the second stage begins, if a recipe does
    /// not set it.
    pub fn decay_from(self) -> f64 {
        match self {
            RateShape::Constant => 1.0,
            RateShape::Linear | RateShape::TwoStage => 0.5,
            RateShape::Cosine => 0.0,
            RateShape::Wsd => 0.8,
        }
    }

    /// Share of the run after which weights no longer decay, if a recipe does not set it.
    pub fn weight_decay_until(self) -> f64 {
        match self {
            RateShape::TwoStage => 0.5,
            _ => 1.0,
        }
    }
}

/// The values that change from step to step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Schedule {
    /// Shape of the learning rate after the warm-up.
    pub shape: RateShape,
    /// The highest rate.
    pub peak: f64,
    /// Peak of the second stage.
    pub second_peak: f64,
    /// Steps of linear rise from zero.
    pub warmup: u64,
    /// Share of the run after which the rate falls, or the second stage begins, 0 to 1.
    pub decay_from: f64,
    /// Steps of the whole run.
    pub steps: u64,
    /// Weight decay before `weight_decay_until`; 0 after it.
    pub weight_decay: f64,
    /// Share of the run after which weights no longer decay, 0 to 1.
    pub weight_decay_until: f64,
    /// Steps in full precision before the ternary ones.
    pub ternary_from: u64,
    /// Steps over which λ rises from 0 to 1.
    pub ternary_ramp: u64,
}

impl Schedule {
    /// The rate of the step with this index, counted from 0.
    pub fn rate(&self, step: u64) -> f64 {
        if step < self.warmup {
            return self.peak * (step + 1) as f64 / self.warmup as f64;
        }
        let fallen = self.progress(step, self.decay_from);
        match self.shape {
            RateShape::Constant => self.peak,
            RateShape::Linear => self.peak * (1.0 - fallen),
            RateShape::Cosine => self.peak * 0.5 * (1.0 + libm::cos(std::f64::consts::PI * fallen)),
            RateShape::Wsd => self.peak * (1.0 - fallen.sqrt()),
            RateShape::TwoStage => {
                let is_second = step as f64 >= self.decay_from * self.steps as f64;
                let peak = if is_second {
                    self.second_peak
                } else {
                    self.peak
                };
                peak * (1.0 - self.progress(step, 0.0))
            }
        }
    }

    /// The weight decay of the step with this index.
    pub fn weight_decay(&self, step: u64) -> f64 {
        if (step as f64) < self.weight_decay_until * self.steps as f64 {
            self.weight_decay
        } else {
            0.0
        }
    }

    /// λ of the step with this index: layers multiply by (1 - λ) · W + λ · Q(W), and activations
    /// are blended alike.
    pub fn lambda(&self, step: u64) -> f32 {
        if step < self.ternary_from {
            return 0.0;
        }
        let risen = (step - self.ternary_from + 1) as f64 / self.ternary_ramp.max(1) as f64;
        risen.min(1.0) as f32
    }

    /// How far the run is between this share of it and its end, 0 to 1.
    fn progress(&self, step: u64, from: f64) -> f64 {
        let start = from * self.steps as f64;
        let left = (self.steps as f64 - start).max(1.0);
        ((step as f64 - start) / left).clamp(0.0, 1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(shape: RateShape) -> Schedule {
        Schedule {
            shape,
            peak: 1.0,
            second_peak: 0.5,
            warmup: 10,
            decay_from: 0.5,
            steps: 100,
            weight_decay: 0.1,
            weight_decay_until: 0.5,
            ternary_from: 20,
            ternary_ramp: 10,
        }
    }

    #[test]
    fn every_shape_warms_up_and_has_its_values() {
        let check = |shape, expected: [f64; 4]| {
            let schedule = schedule(shape);
            assert_eq!((schedule.rate(0), schedule.rate(9)), (0.1, 1.0));
            for (step, expected) in [20, 49, 50, 75].into_iter().zip(expected) {
                let rate = schedule.rate(step);
                assert!((rate - expected).abs() < 1e-12, "{shape:?} {step}: {rate}");
            }
        };
        check(RateShape::Constant, [1.0, 1.0, 1.0, 1.0]);
        check(RateShape::Linear, [1.0, 1.0, 1.0, 0.5]);
        check(RateShape::Cosine, [1.0, 1.0, 1.0, 0.5]);
        check(RateShape::Wsd, [1.0, 1.0, 1.0, 1.0 - 0.5f64.sqrt()]);
        check(RateShape::TwoStage, [0.8, 0.51, 0.25, 0.125]);
    }

    #[test]
    fn weights_decay_in_the_first_half_and_quantization_ramps_up() {
        let schedule = schedule(RateShape::TwoStage);
        assert_eq!(
            (schedule.weight_decay(49), schedule.weight_decay(50)),
            (0.1, 0.0)
        );
        let lambdas = [19, 20, 24, 29, 99].map(|step| schedule.lambda(step));
        assert_eq!(lambdas, [0.0, 0.1, 0.5, 1.0, 1.0]);
        let at_once = Schedule {
            ternary_from: 0,
            ternary_ramp: 0,
            ..schedule
        };
        assert_eq!(at_once.lambda(0), 1.0);
    }
}
