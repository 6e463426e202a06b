//! The two ways to update agree, and the directions of Muon are orthogonal.

use candle_core::{Device, Tensor};
use serde_json::json;
use sterna_ternary::Config;

use super::fused::orthogonalize;
use super::*;
use crate::Precision;

fn model() -> Model {
    let config = Config::from_json(&json!({
        "architectures": ["BitNetForCausalLM"], "model_type": "bitnet", "hidden_act": "relu2",
        "hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 2,
        "num_attention_heads": 2, "num_key_value_heads": 1, "vocab_size": 30,
        "max_position_embeddings": 16,
        "rms_norm_eps": 1e-5, "rope_theta": 100.0, "tie_word_embeddings": true,
    }));
    Model::new(config.unwrap(), Precision::Ternary, 16, 0.1, 1).unwrap()
}

fn weights(model: &Model) -> Vec<f32> {
    let values = model
        .parameters()
        .map(|(_, var)| crate::model::values_of(var).unwrap());
    values.flatten().collect()
}

fn furthest(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    let apart = a.iter().zip(b).map(|(a, b)| (a - b).abs());
    apart.fold(0.0, f32::max)
}

#[test]
fn tensors_are_updated_like_vectors() {
    for method in [Method::AdamW, Method::Muon] {
        let optimizer = Optimizer {
            method,
            betas: (0.9, 0.95),
            eps: 1e-8,
            weight_decay: 0.1,
        };
        let (fused, plain) = (model(), model());
        let count = fused.parameter_count();
        let (mut of_fused, mut of_plain) = (Moments::new(count), Moments::new(count));
        for step in 0..6 {
            let gradient = |i: usize| ((i + 31 * step as usize) as f32 * 0.7).sin() * 0.1;
            let gradients: Vec<f32> = (0..count).map(gradient).collect();
            let tensor = Tensor::from_slice(&gradients, count, &Device::Cpu).unwrap();
            for (model, moments, gradients) in [
                (&fused, &mut of_fused, Arena::Values(gradients.into())),
                (&plain, &mut of_plain, Arena::Tensor(tensor)),
            ] {
                let update = Update {
                    clip: 0.5,
                    rate: 1e-2,
                    step,
                };
                let updated = optimizer.update(model, moments, &gradients, update);
                updated.unwrap();
            }
        }
        let (changed, same) = (weights(&fused), weights(&plain));
        assert!(furthest(&changed, &weights(&model())) > 1e-2, "{method:?}");
        let apart = furthest(&changed, &same);
        assert!(apart < 1e-6, "{method:?}: {apart}");
        for (a, b) in [
            (of_fused.first, of_plain.first),
            (of_fused.second, of_plain.second),
        ] {
            assert!(matches!((&a, &b), (Arena::Values(_), Arena::Tensor(_))));
            assert!(furthest(&a.values().unwrap(), &b.values().unwrap()) < 1e-6);
        }
    }
}

/// Squares of the singular values of x (rows, columns): the eigenvalues of its Gram matrix, by
/// rotations of Jacobi.
fn squared_singular_values(x: &[f32], rows: usize, columns: usize) -> Vec<f64> {
    let n = rows.min(columns);
    let at = |i: usize, k: usize| match rows <= columns {
        true => f64::from(x[i * columns + k]),
        false => f64::from(x[k * columns + i]),
    };
    let dot = |i: usize, j: usize| (0..rows.max(columns)).map(|k| at(i, k) * at(j, k)).sum();
    let mut gram: Vec<Vec<f64>> = (0..n)
        .map(|i| (0..n).map(|j| dot(i, j)).collect())
        .collect();
    for _ in 0..30 {
        for p in 0..n {
            for q in p + 1..n {
                let angle = 0.5 * (2.0 * gram[p][q]).atan2(gram[q][q] - gram[p][p]);
                let (s, c) = angle.sin_cos();
                for row in &mut gram {
                    (row[p], row[q]) = (c * row[p] - s * row[q], s * row[p] + c * row[q]);
                }
                let (head, tail) = gram.split_at_mut(q);
                for (a, b) in head[p].iter_mut().zip(&mut tail[0]) {
                    (*a, *b) = (c * *a - s * *b, s * *a + c * *b);
                }
            }
        }
    }
    (0..n).map(|i| gram[i][i]).collect()
}

#[test]
fn orthogonalized_matrices_have_singular_values_near_one() {
    for (rows, columns) in [(8, 8), (5, 20), (20, 5), (1, 7)] {
        let mut random = 1u32;
        let mut next = || {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (random >> 8) as f32 / (1 << 23) as f32 - 1.0
        };
        let mut x: Vec<f32> = (0..rows * columns).map(|_| next()).collect();
        let tensor = Tensor::from_slice(&x, (rows, columns), &Device::Cpu).unwrap();
        let before = squared_singular_values(&x, rows, columns);
        let total: f64 = before.iter().sum();
        let square: f64 = x.iter().map(|x| f64::from(x * x)).sum();
        assert!((total - square).abs() < 1e-6 * square, "{total} {square}");

        orthogonalize(&mut x, rows, columns);
        // The iteration moves values above 0.01 of the norm into this band, and does not settle
        // within it.
        for square in squared_singular_values(&x, rows, columns) {
            let value = square.sqrt();
            assert!(
                (0.65..1.25).contains(&value),
                "{rows} x {columns}: {value} of {before:?}"
            );
        }
        let same = plain::orthogonalize(&tensor).unwrap();
        let same = same.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert!(furthest(&x, &same) < 1e-5);
    }
}
