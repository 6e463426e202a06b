//! Every fused operation compared with the same operation in plain candle, forward and backward;
//! and every parameter of every family gets a gradient.

mod compare;

use std::sync::Arc;

use candle_core::{Tensor, Var};
use serde_json::json;
use sterna_ternary::{Activation, Config, Family, Scaling, family::FAMILIES};
use sterna_train::model;
use sterna_train::ops::{
    self, AttentionShape, Distillation, Gradients, Input, Linear, RopeTable, Student, UNSCORED,
    reference,
};
use sterna_train::optimizer::{Method, Optimizer};
use sterna_train::{ActivationStorage, Model, Precision, Trainer};

use compare::{compare, random};

#[test]
fn linear_layers() {
    for (tokens, rows, columns) in [(1, 1, 1), (7, 5, 33), (64, 48, 128), (70, 21, 300)] {
        let (x, w) = (random(&[tokens, columns], 1), random(&[rows, columns], 2));
        for scaling in Scaling::ALL {
            for lambda in [0.0, 0.3, 1.0] {
                let mode = Linear::blended(&w, scaling, lambda).unwrap();
                let input = Input::new(x.as_tensor().clone(), lambda).unwrap();
                let fused = ops::linear(&input, &w, &mode).unwrap();
                let plain = reference::linear(&x, &w, scaling, lambda).unwrap();
                let name = format!("linear of {columns} columns, {scaling:?}, λ {lambda}");
                compare(&name, &[&x, &w], &fused, &plain);
            }
        }
    }
}

#[test]
fn norms_gates_and_embeddings() {
    for (rows, width) in [(1, 3), (5, 7), (9, 130)] {
        let (x, gain) = (random(&[rows, width], 3), random(&[width], 4));
        let fused = ops::rms_norm(&x, &gain, 1e-5).unwrap();
        compare(
            "rms-norm",
            &[&x, &gain],
            &fused,
            &reference::rms_norm(&x, &gain, 1e-5).unwrap(),
        );
        let up = random(&[rows, width], 5);
        for activation in Activation::ALL {
            let fused = ops::gate(&x, &up, activation).unwrap();
            compare(
                "gate",
                &[&x, &up],
                &fused,
                &reference::gate(&x, &up, activation).unwrap(),
            );
        }
        let ids: Vec<u32> = (0..20).map(|i| i * 7 % rows as u32).collect();
        let fused = ops::embedding(&x, &ids).unwrap();
        compare(
            "embedding",
            &[&x],
            &fused,
            &reference::embedding(&x, &ids).unwrap(),
        );
    }
    assert!(ops::embedding(&random(&[3, 2], 1), &[3]).is_err());
}

#[test]
fn attention_with_grouped_heads_over_several_blocks_and_sequences() {
    for (sequences, context, heads, kv_heads, head_dim) in [
        (1, 1, 1, 1, 2),
        (2, 5, 4, 2, 8),
        (3, 64, 2, 2, 16),
        (2, 150, 6, 1, 10),
    ] {
        let shape = AttentionShape {
            context,
            heads,
            kv_heads,
            head_dim,
        };
        let scaling = sterna_ternary::rope::RopeScaling::None;
        let (cos, sin) = sterna_ternary::rope::Rope {
            theta: 100.0,
            scaling,
        }
        .table(head_dim, context);
        let rope = Arc::new(RopeTable { cos, sin });
        let tokens = sequences * context;
        let q = random(&[tokens, heads * head_dim], 6);
        let k = random(&[tokens, kv_heads * head_dim], 7);
        let v = random(&[tokens, kv_heads * head_dim], 8);
        // Documents of 1, 2, 3, ... tokens and again, from the start of each sequence.
        let mut starts = Vec::new();
        for position in 0..context as u32 {
            let is_start = (1..)
                .map(|i| i * (i + 1) / 2)
                .take_while(|s| *s <= position % 210);
            starts.push(position - position % 210 + is_start.last().unwrap_or(0));
        }
        let documents = Arc::new(starts.repeat(sequences));
        for starts in [None, Some(&documents)] {
            let fused = ops::attention(&q, &k, &v, shape, &rope, starts).unwrap();
            let plain = reference::attention(&q, &k, &v, shape, &rope, starts).unwrap();
            // One position attends to itself alone, so queries and keys get no gradient to compare.
            let inputs: &[&Var] = if context == 1 { &[&v] } else { &[&q, &k, &v] };
            compare("attention", inputs, &fused, &plain);
        }
    }
}

#[test]
fn cross_entropy_over_several_chunks() {
    for (tokens, width, vocabulary) in [(1, 3, 2), (1100, 16, 50), (300, 2, 40_000)] {
        let (hidden, head) = (
            random(&[tokens, width], 9),
            random(&[vocabulary, width], 10),
        );
        let mut targets: Vec<u32> = (0..tokens as u32)
            .map(|i| i * 31 % vocabulary as u32)
            .collect();
        let unscored = (targets.iter_mut().skip(1)).step_by(3);
        unscored.for_each(|target| *target = UNSCORED);
        let fused = |gradients, z_loss| {
            ops::cross_entropy(&hidden, &head, &targets, gradients, z_loss).unwrap()
        };
        for z_loss in [0.1, 0.0] {
            let plain = reference::cross_entropy(&hidden, &head, &targets, z_loss).unwrap();
            let fused = fused(Gradients::Wanted, z_loss);
            compare("cross-entropy", &[&hidden, &head], &fused, &plain);
        }
        let (fused, only) = (
            fused(Gradients::Wanted, 0.0),
            fused(Gradients::Unwanted, 0.5),
        );
        assert_eq!(
            only.to_vec1::<f32>().unwrap(),
            fused.to_vec1::<f32>().unwrap()
        );
    }
}

#[test]
fn distillation_over_several_chunks() {
    for (tokens, width, teacher_width, vocabulary) in [(2, 3, 5, 4), (1100, 16, 24, 50)] {
        let (hidden, head) = (random(&[tokens, width], 3), random(&[vocabulary, width], 4));
        let theirs = [tokens, vocabulary].map(|n| random(&[n, teacher_width], 5 + n as u64));
        let theirs = (theirs[0].as_tensor(), theirs[1].as_tensor());
        let mut targets: Vec<u32> = (0..tokens as u32)
            .map(|i| i * 31 % vocabulary as u32)
            .collect();
        let unscored = targets.iter_mut().skip(1).step_by(3);
        unscored.for_each(|target| *target = UNSCORED);
        let student = |z_loss| Student {
            hidden: &hidden,
            head: (&head).into(),
            targets: &targets,
            z_loss,
        };
        for (weight, temperature, z_loss) in [(0.5, 1.0, 0.0), (1.0, 4.0, 0.0), (0.3, 0.5, 0.1)] {
            let settings = Distillation {
                weight,
                temperature,
            };
            let fused = ops::distillation(&student(z_loss), theirs, settings).unwrap();
            let plain = reference::distillation(&student(z_loss), theirs, settings).unwrap();
            compare("distillation", &[&hidden, &head], &fused, &plain);
            if z_loss == 0.0 {
                let loss = || ops::distillation(&student(0.0), theirs, settings).unwrap();
                slope("distillation", &[&hidden, &head], &loss);
            }
        }
        // Who expects what its teacher does has nothing to learn from it.
        let settings = Distillation {
            weight: 1.0,
            temperature: 2.0,
        };
        let same = (hidden.as_tensor(), head.as_tensor());
        let same = ops::distillation(&student(0.0), same, settings).unwrap();
        assert!(same.to_vec1::<f32>().unwrap()[0].abs() < 1e-4, "{same}");
    }
    let (hidden, head, other) = (random(&[3, 4], 1), random(&[5, 4], 2), random(&[6, 4], 2));
    let student = Student {
        hidden: &hidden,
        head: (&head).into(),
        targets: &[1, 2, 3],
        z_loss: 0.0,
    };
    let settings = Distillation {
        weight: 0.5,
        temperature: 1.0,
    };
    let error = ops::distillation(&student, (&hidden, &other), settings).unwrap_err();
    assert!(error.to_string().contains("(3, 6)"), "{error}");
}

/// Compares the gradients of a loss with the change of the loss along them.
fn slope(name: &str, inputs: &[&Var], loss: &dyn Fn() -> Tensor) {
    const STEP: f64 = 1e-2;
    let gradients = loss().backward().unwrap();
    let value = || f64::from(loss().to_vec1::<f32>().unwrap()[0]);
    for (i, input) in inputs.iter().enumerate() {
        let gradient = gradients.get(input).unwrap();
        let square = gradient.sqr().unwrap().sum_all().unwrap();
        let norm = f64::from(square.to_scalar::<f32>().unwrap()).sqrt();
        let before = input.as_tensor().copy().unwrap();
        let at = |step: f64| {
            let moved = gradient.affine(step / norm, 0.0).unwrap();
            input.set(&(&before + moved).unwrap()).unwrap();
            value()
        };
        let found = (at(STEP) - at(-STEP)) / (2.0 * STEP);
        input.set(&before).unwrap();
        let off = (found / norm - 1.0).abs();
        assert!(off < 2e-3, "{name} input {i}: {found} instead of {norm}");
    }
}

/// Every family except those that the trainer refuses.
fn trainable() -> impl Iterator<Item = &'static Family> {
    let families: Vec<&Family> = FAMILIES.iter().filter(|f| model::trains(f)).collect();
    assert!(families.len() >= 4);
    families.into_iter()
}

fn config(family: &Family, tied: bool) -> Config {
    Config::from_json(&json!({
        "architectures": [family.architecture], "model_type": family.model_type,
        "hidden_act": family.activation.name(), "hidden_size": 24, "intermediate_size": 40,
        "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 6,
        "vocab_size": 30, "max_position_embeddings": 16, "rms_norm_eps": 1e-5, "rope_theta": 100.0,
        "tie_word_embeddings": tied,
    }))
    .unwrap()
}

#[test]
fn every_parameter_gets_a_gradient_and_moves() {
    let rows: Vec<u32> = (0..4 * 17).map(|i| i * 11 % 30).collect();
    for family in trainable() {
        for (tied, precision) in [(true, Precision::Ternary), (false, Precision::Full)] {
            let model = Model::new(config(family, tied), precision, 16, 0.1, 1).unwrap();
            let optimizer = Optimizer {
                method: Method::AdamW,
                betas: (0.9, 0.95),
                eps: 1e-8,
                weight_decay: 0.0,
            };
            let mut trainer = Trainer::new(model, optimizer, 1.0);
            let (_, gradients) = trainer.gradients(&rows, 16).unwrap();
            let before = trainer.parameters().unwrap();
            trainer.step(&rows, 16, 1e-2).unwrap();
            let after = trainer.parameters().unwrap();
            let mut offset = 0;
            for (i, (weight, var)) in trainer.model.parameters().enumerate() {
                let gradient = &gradients[offset..offset + var.elem_count()];
                offset += var.elem_count();
                let name = (family.name, &weight.name);
                assert!(
                    gradient.iter().any(|g| *g != 0.0),
                    "{name:?} has no gradient"
                );
                assert!(before[i] != after[i], "{name:?} does not move");
            }
        }
    }
}

#[test]
fn recomputed_activations_give_the_same_bits() {
    let rows: Vec<u32> = (0..4 * 17).map(|i| i * 11 % 30).collect();
    for family in trainable() {
        for (tied, precision) in [(true, Precision::Ternary), (false, Precision::Full)] {
            let gradients = |activations| {
                let model = Model::new(config(family, tied), precision, 16, 0.1, 1).unwrap();
                let optimizer = Optimizer {
                    method: Method::AdamW,
                    betas: (0.9, 0.95),
                    eps: 1e-8,
                    weight_decay: 0.0,
                };
                let mut trainer = Trainer::new(model, optimizer, 1.0);
                trainer.activations = activations;
                trainer.gradients(&rows, 16).unwrap()
            };
            let (kept, again) = (
                gradients(ActivationStorage::Keep),
                gradients(ActivationStorage::Recompute),
            );
            assert!(kept == again, "{} {tied}", family.name);
        }
    }
}

#[test]
fn fused_and_plain_models_agree_and_learn() {
    let rows: Vec<u32> = (0..8 * 17).map(|i| i * 11 % 30).collect();
    let methods = [Method::AdamW, Method::Muon];
    for (family, method) in trainable().flat_map(|family| methods.map(|method| (family, method))) {
        let trainer = |plain: bool| {
            let model = Model::new(config(family, true), Precision::Full, 16, 0.1, 1).unwrap();
            let model = if plain {
                model.with_reference_operations()
            } else {
                model
            };
            let optimizer = Optimizer {
                method,
                betas: (0.9, 0.95),
                eps: 1e-8,
                weight_decay: 0.1,
            };
            Trainer::new(model, optimizer, 1.0)
        };
        let (mut fused, mut plain) = (trainer(false), trainer(true));
        let mut losses = Vec::new();
        for _ in 0..20 {
            let (a, b) = (
                fused.step(&rows, 16, 1e-2).unwrap(),
                plain.step(&rows, 16, 1e-2).unwrap(),
            );
            assert!(
                (a.loss - b.loss).abs() < 1e-4,
                "{} {method:?}: {a:?} {b:?}",
                family.name
            );
            losses.push(a.loss);
        }
        let name = family.name;
        assert!(
            losses[19] < 0.5 * losses[0],
            "{name} {method:?}: {losses:?}"
        );
        assert!((fused.evaluate(&rows, 16).unwrap() - losses[19]).abs() < 0.5);
    }
}
