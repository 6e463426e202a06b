//! Random numbers of a synthetic model: one SplitMix64 stream per row.

use half::bf16;
use sterna_ternary::random::{SplitMix64, finalize};

#[derive(Debug, Clone, Copy)]
pub(super) struct Seed(pub u64);

/// Number of the 256 byte values that become -1. The same number become +1; the other 108 become 0.
const NON_ZERO: u8 = 74;
/// The step between the values of a table. Their standard deviation is 74 steps, 0.018.
const STEP: f32 = 1.0 / 4096.0;

/// 1 / √(columns · fraction of nonzero trits).
pub(super) fn scale(columns: usize) -> bf16 {
    let variance = columns as f32 * 2.0 * f32::from(NON_ZERO) / 256.0;
    bf16::from_f32(1.0 / variance.sqrt())
}

impl Seed {
    /// Generates one row of a ternary matrix.
    pub fn trits(self, tensor: &str, row: usize, trits: &mut [i8]) {
        let mut stream = self.stream(tensor, row);
        for eight in trits.chunks_mut(8) {
            for (trit, byte) in eight.iter_mut().zip(stream.next().to_le_bytes()) {
                *trit = i8::from(byte < 2 * NON_ZERO) - 2 * i8::from(byte < NON_ZERO);
            }
        }
    }

    /// Generates one row of a table. The values are nearly normal: the centred sum of four uniform
    /// bytes.
    pub fn values(self, tensor: &str, row: usize, values: &mut [f32]) {
        let mut stream = self.stream(tensor, row);
        for two in values.chunks_mut(2) {
            let bytes = stream.next().to_le_bytes();
            for (value, four) in two.iter_mut().zip(bytes.chunks_exact(4)) {
                let sum: i32 = four.iter().map(|b| i32::from(*b)).sum();
                *value = ((sum - 510) / 2) as f32 * STEP; // at most 255 steps: eight bits
            }
        }
    }

    fn stream(self, tensor: &str, row: usize) -> SplitMix64 {
        let name = |hash, byte: &u8| finalize(hash ^ u64::from(*byte));
        let tensor = tensor.as_bytes().iter().fold(finalize(self.0), name);
        SplitMix64(finalize(tensor ^ row as u64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trits_and_values_have_the_documented_distribution() {
        const N: usize = 1 << 16;
        let (mut trits, mut values) = (vec![9; N], vec![9.0; N]);
        Seed(1).trits("a", 0, &mut trits);
        Seed(1).values("a", 0, &mut values);
        let share = |trit| trits.iter().filter(|t| **t == trit).count() as f64 / N as f64;
        for (trit, expected) in [(-1, 0.289), (0, 0.422), (1, 0.289)] {
            assert!(
                (share(trit) - expected).abs() < 0.01,
                "{trit}: {}",
                share(trit)
            );
        }
        let mean = values.iter().sum::<f32>() / N as f32;
        let variance = values.iter().map(|x| x * x).sum::<f32>() / N as f32;
        assert!(mean.abs() < 1e-3 && (variance.sqrt() - 0.018).abs() < 1e-3);
        let exact =
            |x: &f32| bf16::from_f32(*x).to_f32() == *x && half::f16::from_f32(*x).to_f32() == *x;
        assert!(values.iter().all(exact));
    }

    #[test]
    fn seeds_tensors_and_rows_differ() {
        let row = |seed, tensor, row| {
            let mut trits = [0; 64];
            Seed(seed).trits(tensor, row, &mut trits);
            trits
        };
        let first = row(1, "a", 0);
        assert_eq!(first, row(1, "a", 0));
        assert!(
            [row(2, "a", 0), row(1, "b", 0), row(1, "a", 1)]
                .iter()
                .all(|r| *r != first)
        );
    }
}
