//! Rotary position embeddings: inverse frequencies with the scalings of published checkpoints.
//!
//! Angles are f32 products as in transformers; sine and cosine come from `libm`, so that they are the
//! same on every machine. Rotation is rotate-half: dimension i pairs with i + head_dim / 2.

use std::f64::consts::PI;

/// How the frequencies are stretched for contexts longer than the pre-training one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum RopeScaling {
    /// Frequencies as they are.
    None,
    /// All frequencies divided by `factor`.
    Linear {
        /// How many times longer the context is.
        factor: f64,
    },
    /// Llama 3: long wavelengths divided by `factor`, short ones kept, smooth between.
    Llama3 {
        /// How many times longer the context is.
        factor: f64,
        /// Wavelengths above original / this are divided.
        low_freq_factor: f64,
        /// Wavelengths below original / this are kept.
        high_freq_factor: f64,
        /// Context length of pre-training.
        original_max_position_embeddings: f64,
    },
}

/// Base frequency and scaling.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rope {
    /// `rope_theta`.
    pub theta: f64,
    /// `rope_scaling`.
    pub scaling: RopeScaling,
}

impl Rope {
    /// The head_dim / 2 angles per position, in radians.
    pub fn inverse_frequencies(&self, head_dim: usize) -> Vec<f32> {
        let unscaled = self.unscaled(head_dim);
        unscaled.map(|f| self.scaling.apply(f) as f32).collect()
    }

    /// By how much the scaling divides each of the head_dim / 2 angles.
    pub fn factors(&self, head_dim: usize) -> Vec<f32> {
        let unscaled = self.unscaled(head_dim);
        unscaled
            .map(|f| (f / self.scaling.apply(f)) as f32)
            .collect()
    }

    fn unscaled(&self, head_dim: usize) -> impl Iterator<Item = f64> {
        let exponent = move |i| (2 * i) as f64 / head_dim as f64;
        (0..head_dim / 2).map(move |i| 1.0 / libm::pow(self.theta, exponent(i)))
    }

    /// (cos, sin), each (positions, head_dim / 2), for the positions `0..positions`.
    pub fn table(&self, head_dim: usize, positions: usize) -> (Vec<f32>, Vec<f32>) {
        let frequencies = self.inverse_frequencies(head_dim);
        (0..positions)
            .flat_map(|p| frequencies.iter().map(move |f| cos_sin(*f, p)))
            .unzip()
    }
}

/// (cos, sin) of one of [`Rope::inverse_frequencies`] at a position.
pub fn cos_sin(inverse_frequency: f32, position: usize) -> (f32, f32) {
    let angle = f64::from(position as f32 * inverse_frequency);
    (libm::cos(angle) as f32, libm::sin(angle) as f32)
}

impl RopeScaling {
    fn apply(&self, frequency: f64) -> f64 {
        match *self {
            RopeScaling::None => frequency,
            RopeScaling::Linear { factor } => frequency / factor,
            RopeScaling::Llama3 {
                factor,
                low_freq_factor: low,
                high_freq_factor: high,
                original_max_position_embeddings: original,
            } => {
                let turns = original * frequency / (2.0 * PI);
                if turns < low {
                    frequency / factor
                } else if turns > high {
                    frequency
                } else {
                    let smooth = (turns - low) / (high - low);
                    (1.0 - smooth) * frequency / factor + smooth * frequency
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frequencies_fall_from_one() {
        let rope = Rope {
            theta: 10000.0,
            scaling: RopeScaling::None,
        };
        assert_eq!(rope.inverse_frequencies(4), [1.0, 0.01]);
        let half = Rope {
            scaling: RopeScaling::Linear { factor: 2.0 },
            ..rope
        };
        assert_eq!(half.inverse_frequencies(4), [0.5, 0.005]);
    }

    #[test]
    fn llama3_keeps_short_waves_and_stretches_long_ones() {
        let scaling = RopeScaling::Llama3 {
            factor: 8.0,
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_max_position_embeddings: 64.0,
        };
        assert_eq!(scaling.apply(1.0), 1.0);
        assert_eq!(scaling.apply(0.01), 0.01 / 8.0);
        let between = scaling.apply(0.2);
        assert!(between > 0.2 / 8.0 && between < 0.2);
    }

    #[test]
    fn the_table_starts_at_position_zero() {
        let (cos, sin) = Rope {
            theta: 10000.0,
            scaling: RopeScaling::None,
        }
        .table(4, 2);
        assert_eq!(cos[..2], [1.0, 1.0]);
        assert_eq!(sin[..2], [0.0, 0.0]);
        assert!((sin[2] - 1f32.sin()).abs() < 1e-7);
    }
}
