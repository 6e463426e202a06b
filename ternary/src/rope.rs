//! Rotary position embeddings: inverse frequencies with the scalings of published checkpoints.
//!
//! Angles are f32 products, as in transformers. Sine and cosine come from `libm`, so that they are
//! the same on every machine. The rotation is rotate-half: dimension i pairs with i + head_dim / 2.

use std::f64::consts::PI;

/// Scaling of the frequencies for contexts longer than in pre-training.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum RopeScaling {
    /// Unscaled frequencies.
    None,
    /// All frequencies divided by `factor`.
    Linear {
        /// Factor by which the context is longer.
        factor: f64,
    },
    /// Llama 3: long wavelengths divided by `factor`, short ones unchanged, a smooth transition
    /// between.
    Llama3 {
        /// Factor by which the context is longer.
        factor: f64,
        /// Wavelengths above original length / this are divided.
        low_freq_factor: f64,
        /// Wavelengths below original length / this are unchanged.
        high_freq_factor: f64,
        /// Context length of pre-training, in tokens.
        original_max_position_embeddings: f64,
    },
    /// YaRN: dimensions that turn fewer than `beta_slow` times in the original context are divided
    /// by `factor`; those that turn more than `beta_fast` times are unchanged; linear between.
    /// Cosines and sines are multiplied by `attention_factor`.
    Yarn {
        /// Factor by which the context is longer.
        factor: f64,
        /// Number of turns above which a dimension is unchanged.
        beta_fast: f64,
        /// Number of turns below which a dimension is divided.
        beta_slow: f64,
        /// Factor of cosines and sines.
        attention_factor: f64,
        /// Context length of pre-training, in tokens.
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
        let unscaled = self.unscaled(head_dim).enumerate();
        let scaled = unscaled.map(|(i, f)| self.scaled(i, f, head_dim) as f32);
        scaled.collect()
    }

    /// The divisors that the scaling applies to each of the head_dim / 2 angles.
    pub fn factors(&self, head_dim: usize) -> Vec<f32> {
        let unscaled = self.unscaled(head_dim).enumerate();
        unscaled
            .map(|(i, f)| (f / self.scaled(i, f, head_dim)) as f32)
            .collect()
    }

    /// The factor of cosines and sines.
    pub fn amplitude(&self) -> f32 {
        match self.scaling {
            RopeScaling::Yarn {
                attention_factor, ..
            } => attention_factor as f32,
            _ => 1.0,
        }
    }

    fn unscaled(&self, head_dim: usize) -> impl Iterator<Item = f64> {
        let exponent = move |i| (2 * i) as f64 / head_dim as f64;
        (0..head_dim / 2).map(move |i| 1.0 / libm::pow(self.theta, exponent(i)))
    }

    /// (cos, sin), each (positions, head_dim / 2), for positions `0..positions`.
    pub fn table(&self, head_dim: usize, positions: usize) -> (Vec<f32>, Vec<f32>) {
        let frequencies = self.inverse_frequencies(head_dim);
        (0..positions)
            .flat_map(|p| frequencies.iter().map(move |f| self.cos_sin(*f, p)))
            .unzip()
    }

    /// (cos, sin) for one of [`Rope::inverse_frequencies`] at a position, times
    /// [`Rope::amplitude`].
    pub fn cos_sin(&self, inverse_frequency: f32, position: usize) -> (f32, f32) {
        let angle = f64::from(position as f32 * inverse_frequency);
        let (cos, sin) = (libm::cos(angle) as f32, libm::sin(angle) as f32);
        (cos * self.amplitude(), sin * self.amplitude())
    }

    /// Frequency `i` of head_dim / 2, scaled.
    fn scaled(&self, i: usize, frequency: f64, head_dim: usize) -> f64 {
        match self.scaling {
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
            RopeScaling::Yarn {
                factor,
                beta_fast,
                beta_slow,
                original_max_position_embeddings: original,
                ..
            } => {
                let width = head_dim as f64;
                // The (fractional) dimension that turns `turns` times in the original context.
                let dimension = |turns: f64| {
                    width * libm::log(original / (turns * 2.0 * PI)) / (2.0 * libm::log(self.theta))
                };
                let low = dimension(beta_fast).floor().max(0.0);
                let high = dimension(beta_slow).ceil().min(width - 1.0);
                let span = if low == high { 0.001 } else { high - low };
                let slow = ((i as f64 - low) / span).clamp(0.0, 1.0);
                slow * frequency / factor + (1.0 - slow) * frequency
            }
        }
    }
}

/// YaRN's default factor of cosines and sines.
pub fn yarn_attention_factor(factor: f64) -> f64 {
    0.1 * libm::log(factor.max(1.0)) + 1.0
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
        let theta = 10000.0;
        let scaled = |frequency| Rope { theta, scaling }.scaled(0, frequency, 2);
        assert_eq!(scaled(1.0), 1.0);
        assert_eq!(scaled(0.01), 0.01 / 8.0);
        let between = scaled(0.2);
        assert!(between > 0.2 / 8.0 && between < 0.2);
    }

    fn yarn(theta: f64, scaling: RopeScaling, amplitude: f32, expected: [f32; 8]) {
        let rope = Rope { theta, scaling };
        assert_eq!(rope.amplitude(), amplitude);
        for (found, expected) in rope.inverse_frequencies(16).into_iter().zip(expected) {
            assert!((found / expected - 1.0).abs() < 1e-6, "{found} {expected}");
        }
        let (cos, sin) = rope.table(16, 2);
        assert_eq!((cos[0], sin[0]), (amplitude, 0.0));
    }

    /// Expected values from transformers.
    #[test]
    fn yarn_stretches_dimensions_that_turn_slowly() {
        let scaling = RopeScaling::Yarn {
            factor: 4.0,
            beta_fast: 32.0,
            beta_slow: 1.0,
            attention_factor: yarn_attention_factor(4.0),
            original_max_position_embeddings: 16384.0,
        };
        let expected = [
            1.0,
            0.17782794,
            0.03162278,
            0.00421756,
            0.0005,
            4.4456985e-5,
            7.905694e-6,
            1.4058534e-6,
        ];
        yarn(1e6, scaling, 1.1386294, expected);
        let scaling = RopeScaling::Yarn {
            factor: 8.0,
            beta_fast: 4.0,
            beta_slow: 0.5,
            attention_factor: 1.5,
            original_max_position_embeddings: 32.0,
        };
        let expected = [
            1.0,
            0.22399466,
            0.041666664,
            0.0039528473,
            0.00125,
            0.00039528473,
            0.000125,
            3.9528473e-5,
        ];
        yarn(1e4, scaling, 1.5, expected);
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
