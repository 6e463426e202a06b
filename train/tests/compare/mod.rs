//! Random inputs, and the comparison of two implementations of an operation: values and gradients.

use candle_core::{Device, Tensor, Var};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

/// Sums of four uniform values, seeded.
pub fn random(shape: &[usize], seed: u64) -> Var {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let values = (0..shape.iter().product()).map(|_| {
        (0..4)
            .map(|_| random.next_u32() as f32 / u32::MAX as f32 - 0.5)
            .sum::<f32>()
    });
    let values: Vec<f32> = values.collect();
    Var::from_vec(values, shape, &Device::Cpu).unwrap()
}

/// Norm of the difference over the norm of the second.
pub fn difference(a: &Tensor, b: &Tensor) -> f32 {
    let norm = |x: &Tensor| {
        x.sqr()
            .unwrap()
            .sum_all()
            .unwrap()
            .sqrt()
            .unwrap()
            .to_scalar::<f32>()
            .unwrap()
    };
    norm(&(a - b).unwrap()) / norm(b)
}

/// Compares values and the gradients of all inputs, of a sum with random weights.
pub fn compare(name: &str, inputs: &[&Var], fused: &Tensor, plain: &Tensor) {
    let forward = difference(fused, plain);
    assert!(forward <= 1e-6, "{name} forward: {forward:e}");
    let weights = random(fused.dims(), 99);
    let gradients = |y: &Tensor| {
        (y * weights.as_tensor())
            .unwrap()
            .sum_all()
            .unwrap()
            .backward()
            .unwrap()
    };
    let (fused, plain) = (gradients(fused), gradients(plain));
    for (i, input) in inputs.iter().enumerate() {
        let off = difference(fused.get(input).unwrap(), plain.get(input).unwrap());
        assert!(off <= 1e-5, "{name} gradient of input {i}: {off:e}");
    }
}
