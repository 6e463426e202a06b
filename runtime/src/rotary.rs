//! Angles of rotary positions: one set for all layers, or two if layers with a window have their
//! own.

use sterna_ternary::Config;
use sterna_ternary::rope::Rope;

/// The factors of a position: angle = position · factor.
#[derive(Debug)]
pub(crate) struct Frequencies {
    rope: Rope,
    inverse: Vec<f32>, // (head_dim / 2), empty if no layer has them
}

/// Angles of the tokens of a batch.
#[derive(Debug, Default)]
pub(crate) struct Angles {
    pub cos: Vec<f32>, // (n, head_dim / 2)
    pub sin: Vec<f32>, // (n, head_dim / 2)
}

impl Frequencies {
    /// Those of layers without a window, and those of layers with one.
    pub fn of(config: &Config) -> [Frequencies; 2] {
        let local = config.sliding.as_ref().map(|sliding| sliding.rope);
        let inverse = |rope: Rope| rope.inverse_frequencies(config.head_dim);
        [
            Frequencies {
                rope: config.rope,
                inverse: inverse(config.rope),
            },
            Frequencies {
                rope: local.unwrap_or(config.rope),
                inverse: local.map(inverse).unwrap_or_default(),
            },
        ]
    }
}

impl Angles {
    /// Computes the angles of some positions.
    pub fn fill(&mut self, frequencies: &Frequencies, positions: impl Iterator<Item = usize>) {
        self.cos.clear();
        self.sin.clear();
        for position in positions {
            for inverse in &frequencies.inverse {
                let (cos, sin) = frequencies.rope.cos_sin(*inverse, position);
                self.cos.push(cos);
                self.sin.push(sin);
            }
        }
    }
}
