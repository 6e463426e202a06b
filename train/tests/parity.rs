//! The training runs of PyTorch and transformers, reproduced.

#[path = "../../tests/fixtures/mod.rs"]
mod fixtures;

use std::collections::HashMap;
use std::path::Path;

use candle_core::{Device, Tensor};
use serde_json::Value;
use sterna_ternary::{Config, layout};
use sterna_train::optimizer::{Method, Optimizer};
use sterna_train::{Model, Precision, Trainer};

struct Case {
    config: Config,
    expected: Value,
    init: HashMap<String, Tensor>,
    gradients: HashMap<String, Tensor>,
    batches: Vec<Vec<u32>>,
    context: usize,
}

fn load(path: &Path) -> Case {
    let json = |name| -> Value {
        serde_json::from_slice(&std::fs::read(path.join(name)).unwrap()).unwrap()
    };
    let tensors = |name| candle_core::safetensors::load(path.join(name), &Device::Cpu).unwrap();
    let ids = &tensors("batches.safetensors")["ids"];
    let (_, _, row) = ids.dims3().unwrap();
    let batches = ids.flatten_from(1).unwrap().to_vec2::<i32>().unwrap();
    Case {
        config: Config::from_json(&json("config.json")).unwrap(),
        expected: json("expected.json"),
        init: tensors("init.safetensors"),
        gradients: tensors("grads.safetensors"),
        batches: batches
            .into_iter()
            .map(|b| b.into_iter().map(|id| id as u32).collect())
            .collect(),
        context: row - 1,
    }
}

fn trainer(case: &Case, precision: Precision, reference: bool) -> Trainer {
    let values = layout::weights(&case.config)
        .iter()
        .map(|w| {
            case.init[&w.name]
                .flatten_all()
                .unwrap()
                .to_vec1::<f32>()
                .unwrap()
        })
        .collect();
    let model = Model::from_values(
        case.config.clone(),
        precision,
        case.context,
        values,
        &Device::Cpu,
    );
    let model = model.unwrap();
    let model = if reference {
        model.with_reference_operations()
    } else {
        model
    };
    let o = &case.expected["optimizer"];
    let number = |v: &Value| v.as_f64().unwrap();
    let optimizer = Optimizer {
        method: Method::AdamW,
        betas: (number(&o["betas"][0]), number(&o["betas"][1])),
        eps: number(&o["eps"]),
        weight_decay: number(&o["weight_decay"]),
    };
    Trainer::new(model, optimizer, number(&o["clip_grad_norm"]))
}

/// Norm of the difference over the norm, per tensor; returns the largest.
fn compare_gradients(case: &Case, trainer: &Trainer) -> f64 {
    let (_, flat) = trainer.gradients(&case.batches[0], case.context).unwrap();
    let mut offset = 0;
    let mut worst = 0f64;
    for (weight, var) in trainer.model.parameters() {
        let expected: Vec<f32> = case.gradients[&weight.name]
            .flatten_all()
            .unwrap()
            .to_vec1()
            .unwrap();
        let ours = &flat[offset..offset + var.elem_count()];
        offset += var.elem_count();
        let square = |x: f64| x * x;
        let difference: f64 = ours
            .iter()
            .zip(&expected)
            .map(|(a, b)| square(f64::from(a - b)))
            .sum();
        let norm: f64 = expected.iter().map(|b| square(f64::from(*b))).sum();
        worst = worst.max((difference / norm).sqrt());
    }
    worst
}

#[test]
fn losses_and_gradients_are_those_of_pytorch() {
    for path in fixtures::cases("train-parity") {
        let case = load(&path);
        for (precision, mode) in [
            (Precision::Full, "full_precision"),
            (Precision::Ternary, "ternary"),
        ] {
            let expected = &case.expected[mode];
            let rate = case.expected["optimizer"]["lr"].as_f64().unwrap();
            // The distance of a float64 run from the float32 one shows the effect of single flipped
            // roundings. It varies from step to step, so its largest value bounds all ten.
            let drift = (0..10).map(|i| expected["float64_drift"][i].as_f64().unwrap());
            let bound = f64::max(1e-4, 10.0 * drift.fold(0.0, f64::max));
            for reference in [false, true] {
                let mut trainer = trainer(&case, precision, reference);
                if precision == Precision::Ternary {
                    let worst = compare_gradients(&case, &trainer);
                    println!("{} {mode}: gradients differ by {worst:.1e}", path.display());
                    assert!(worst < 2e-2);
                }
                for (i, batch) in case.batches.iter().enumerate().take(10) {
                    let step = trainer.step(batch, case.context, rate).unwrap();
                    let error = (step.loss - expected["loss"][i].as_f64().unwrap()).abs();
                    println!("{mode} step {i}: loss {:.6}, {error:.1e} off", step.loss);
                    assert!(
                        error <= if i == 0 { 1e-4 } else { bound },
                        "{}",
                        path.display()
                    );
                }
            }
        }
    }
}
