//! The gradients of the plain candle operations, the reference for the fused ones, compared with
//! finite differences in f64. Rounding has no slope, so layers and activations are in full
//! precision here.

use std::sync::Arc;

use candle_core::{Device, Tensor, Var};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use sterna_ternary::rope::{Rope, RopeScaling};
use sterna_ternary::{Activation, Scaling};
use sterna_train::ops::{AttentionShape, Distillation, RopeTable, Student, UNSCORED, reference};

fn random(shape: &[usize], seed: u64) -> Tensor {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let values = (0..shape.iter().product()).map(|_| {
        let uniform = f64::from(random.next_u32()) / f64::from(u32::MAX);
        2.0 * uniform - 1.0
    });
    let values: Vec<f64> = values.collect();
    Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
}

fn product(a: &Tensor, b: &Tensor) -> f64 {
    let sum = (a * b).unwrap().sum_all().unwrap();
    sum.to_scalar().unwrap()
}

/// Moves each input along a random direction. The outputs are weighted by random numbers.
fn check(name: &str, shapes: &[&[usize]], of: impl Fn(&[Var]) -> candle_core::Result<Tensor>) {
    const STEP: f64 = 1e-5;
    let inputs = (1..)
        .zip(shapes)
        .map(|(seed, s)| Var::from_tensor(&random(s, seed)).unwrap());
    let inputs: Vec<Var> = inputs.collect();
    let y = of(&inputs).unwrap();
    let weights = random(y.dims(), 99);
    let loss = (&y * &weights).unwrap().sum_all().unwrap();
    let gradients = loss.backward().unwrap();
    for (i, input) in inputs.iter().enumerate() {
        let gradient = gradients.get(input).unwrap();
        let direction = random(input.dims(), 10 + i as u64);
        let before = input.as_tensor().copy().unwrap();
        let at = |step: f64| {
            let moved = direction.affine(step, 0.0).unwrap();
            input.set(&(&before + moved).unwrap()).unwrap();
            product(&of(&inputs).unwrap(), &weights)
        };
        let found = (at(STEP) - at(-STEP)) / (2.0 * STEP);
        input.set(&before).unwrap();
        let size = (product(gradient, gradient) * product(&direction, &direction)).sqrt();
        let off = (found - product(gradient, &direction)).abs() / size;
        assert!(size > 0.0 && off < 1e-6, "{name}, input {i}: {off:e}");
    }
}

#[test]
fn layers_norms_and_gates() {
    check("linear", &[&[5, 12], &[7, 12]], |x| {
        reference::linear(&x[0], &x[1], Scaling::Matrix, 0.0)
    });
    check("rms-norm", &[&[4, 9], &[9]], |x| {
        reference::rms_norm(&x[0], &x[1], 1e-5)
    });
    for activation in Activation::ALL {
        check("gate", &[&[4, 9], &[4, 9]], |x| {
            reference::gate(&x[0], &x[1], activation)
        });
    }
    check("embedding", &[&[3, 5]], |x| {
        reference::embedding(&x[0], &[2, 0, 2, 1])
    });
}

#[test]
fn attention() {
    let shape = AttentionShape {
        context: 6,
        heads: 4,
        kv_heads: 2,
        head_dim: 8,
    };
    let (theta, scaling) = (100.0, RopeScaling::None);
    let (cos, sin) = Rope { theta, scaling }.table(8, 6);
    let rope = RopeTable { cos, sin };
    let documents = Arc::new([0, 0, 2, 2, 2, 5].repeat(2));
    for starts in [None, Some(&documents)] {
        check("attention", &[&[12, 32], &[12, 16], &[12, 16]], |x| {
            reference::attention(&x[0], &x[1], &x[2], shape, &rope, starts)
        });
    }
}

#[test]
fn losses() {
    let targets = [3, UNSCORED, 0, 7, 7];
    check("cross-entropy", &[&[5, 6], &[8, 6]], |x| {
        reference::cross_entropy(&x[0], &x[1], &targets, 0.0)
    });
    let teacher = [random(&[5, 4], 20), random(&[8, 4], 21)];
    for (weight, temperature) in [(0.5, 1.0), (1.0, 4.0)] {
        let settings = Distillation {
            weight,
            temperature,
        };
        check("distillation", &[&[5, 6], &[8, 6]], |x| {
            let student = Student {
                hidden: &x[0],
                head: (&x[1]).into(),
                targets: &targets,
                z_loss: 0.0,
            };
            reference::distillation(&student, (&teacher[0], &teacher[1]), settings)
        });
    }
}
