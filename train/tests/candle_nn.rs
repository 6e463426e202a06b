//! Layers, loss and optimizer compared with those of candle-nn that carry gradients, an independent
//! implementation.

mod compare;

use std::sync::Arc;

use candle_core::{D, Device, Tensor, Var};
use candle_nn::optim::{AdamW, Optimizer as _, ParamsAdamW};
use candle_nn::{Embedding, Module, loss, ops as nn, rotary_emb};
use serde_json::json;
use sterna_ternary::layout::Role;
use sterna_ternary::rope::{Rope, RopeScaling};
use sterna_ternary::{Activation, Config};
use sterna_train::ops::{self, AttentionShape, Gradients, RopeTable, reference};
use sterna_train::optimizer::{Method, Moments, Optimizer, Update};
use sterna_train::{Arena, Model, Precision};

use compare::{compare, difference, random};

#[test]
fn norms_gates_and_embeddings() {
    let (x, up, gain) = (
        random(&[9, 130], 1),
        random(&[9, 130], 2),
        random(&[130], 3),
    );
    let theirs = nn::rms_norm_slow(&x, &gain, 1e-5).unwrap();
    for ours in [
        ops::rms_norm(&x, &gain, 1e-5),
        reference::rms_norm(&x, &gain, 1e-5),
    ] {
        compare("rms-norm", &[&x, &gain], &ours.unwrap(), &theirs);
    }
    let both = Tensor::cat(&[x.as_tensor(), up.as_tensor()], 1).unwrap();
    let theirs = nn::swiglu(&both).unwrap();
    for ours in [ops::gate, reference::gate] {
        let ours = ours(&x, &up, Activation::Silu).unwrap();
        compare("gate", &[&x, &up], &ours, &theirs);
    }
    let ids = [3, 0, 8, 3, 3];
    let tensor = Tensor::new(&ids, &Device::Cpu).unwrap();
    let theirs = Embedding::new(x.as_tensor().clone(), 130)
        .forward(&tensor)
        .unwrap();
    for ours in [ops::embedding(&x, &ids), reference::embedding(&x, &ids)] {
        compare("embedding", &[&x], &ours.unwrap(), &theirs);
    }
}

/// Causal attention with rotated queries and keys, (tokens, heads · head_dim), from the parts of
/// candle-nn.
fn attention(q: &Tensor, k: &Tensor, v: &Tensor, s: AttentionShape, rope: &RopeTable) -> Tensor {
    let split = |x: &Tensor, heads| {
        let x = x.reshape(((), s.context, heads, s.head_dim)).unwrap();
        x.transpose(1, 2).unwrap().contiguous().unwrap()
    };
    let half = (s.context, s.head_dim / 2);
    let table = |values: &[f32]| Tensor::from_slice(values, half, &Device::Cpu).unwrap();
    let (cos, sin) = (table(&rope.cos), table(&rope.sin));
    let rotated = |x, heads| rotary_emb::rope_slow(&split(x, heads), &cos, &sin).unwrap();
    // Heads that share a key and value are neighbours.
    let head_of = (0..s.heads as u32).map(|head| head / (s.heads / s.kv_heads) as u32);
    let head_of = Tensor::from_iter(head_of, &Device::Cpu).unwrap();
    let repeated = |x: Tensor| x.index_select(&head_of, 1).unwrap();
    let (q, k) = (rotated(q, s.heads), repeated(rotated(k, s.kv_heads)));
    let v = repeated(split(v, s.kv_heads));

    let scores = q.matmul(&k.t().unwrap()).unwrap();
    let scores = (scores / (s.head_dim as f64).sqrt()).unwrap();
    let mask = (0..s.context).flat_map(|query| {
        (0..s.context).map(move |key| if key <= query { 0.0 } else { f32::NEG_INFINITY })
    });
    let mask = Tensor::from_iter(mask, &Device::Cpu).unwrap();
    let mask = mask.reshape((s.context, s.context)).unwrap();
    let scores = scores.broadcast_add(&mask).unwrap();
    let out = nn::softmax(&scores, D::Minus1).unwrap().matmul(&v).unwrap();
    let out = out.transpose(1, 2).unwrap().contiguous().unwrap();
    out.reshape(((), s.heads * s.head_dim)).unwrap()
}

#[test]
fn attention_with_rotated_and_grouped_heads() {
    let shape = AttentionShape {
        context: 70,
        heads: 4,
        kv_heads: 2,
        head_dim: 10,
    };
    let rope = Rope {
        theta: 100.0,
        scaling: RopeScaling::None,
    };
    let (cos, sin) = rope.table(shape.head_dim, shape.context);
    let rope = Arc::new(RopeTable { cos, sin });
    let (q, k, v) = (
        random(&[140, 40], 4),
        random(&[140, 20], 5),
        random(&[140, 20], 6),
    );
    let theirs = attention(&q, &k, &v, shape, &rope);
    let inputs = [&q, &k, &v];
    let fused = ops::attention(&q, &k, &v, shape, &rope, None).unwrap();
    compare("attention", &inputs, &fused, &theirs);
    let plain = reference::attention(&q, &k, &v, shape, &rope, None).unwrap();
    compare("plain attention", &inputs, &plain, &theirs);
}

#[test]
fn cross_entropy_is_the_log_likelihood_of_a_log_softmax() {
    let (tokens, vocabulary) = (300, 50);
    let (hidden, head) = (random(&[tokens, 16], 7), random(&[vocabulary, 16], 8));
    let targets = (0..tokens as u32).map(|i| i * 31 % vocabulary as u32);
    let targets: Vec<u32> = targets.collect();
    let logits = hidden.matmul(&head.t().unwrap()).unwrap();
    let right = Tensor::new(&targets[..], &Device::Cpu).unwrap();
    let mean = loss::nll(&nn::log_softmax(&logits, 1).unwrap(), &right).unwrap();
    let theirs = (mean * tokens as f64).unwrap().reshape(1).unwrap();
    let inputs = [&hidden, &head];
    let fused = ops::cross_entropy(&hidden, &head, &targets, Gradients::Wanted, 0.0).unwrap();
    compare("cross-entropy", &inputs, &fused, &theirs);
    let plain = reference::cross_entropy(&hidden, &head, &targets, 0.0).unwrap();
    compare("plain cross-entropy", &inputs, &plain, &theirs);
}

fn model() -> Model {
    let config = Config::from_json(&json!({
        "architectures": ["BitNetForCausalLM"], "model_type": "bitnet", "hidden_act": "relu2",
        "hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 1,
        "num_attention_heads": 2, "num_key_value_heads": 1, "vocab_size": 30,
        "max_position_embeddings": 16,
        "rms_norm_eps": 1e-5, "rope_theta": 100.0, "tie_word_embeddings": true,
    }));
    Model::new(config.unwrap(), Precision::Ternary, 16, 0.1, 1).unwrap()
}

#[test]
fn adamw_moves_weights_as_candle_nn_does() {
    let (rate, betas, eps, weight_decay) = (1e-2, (0.9, 0.95), 1e-8, 0.1);
    let optimizer = Optimizer {
        method: Method::AdamW,
        betas,
        eps,
        weight_decay,
    };
    let (ours, fresh) = (model(), model());
    let mut moments = Moments::new(ours.parameter_count());
    let copy = |var: &Var| Var::from_tensor(&var.as_tensor().copy().unwrap()).unwrap();
    // Only linear layers decay, so each weight has a separate optimizer.
    let theirs = fresh.parameters().map(|(weight, var)| {
        let var = copy(var);
        let is_decayed = weight.role == Role::Linear;
        let params = ParamsAdamW {
            lr: rate,
            beta1: betas.0,
            beta2: betas.1,
            eps,
            weight_decay: if is_decayed { weight_decay } else { 0.0 },
        };
        (AdamW::new(vec![var.clone()], params).unwrap(), var)
    });
    let mut theirs: Vec<(AdamW, Var)> = theirs.collect();

    for step in 0..3 {
        let mut gradients = Vec::new();
        for (i, (adamw, var)) in theirs.iter_mut().enumerate() {
            let gradient = random(var.dims(), 100 * step + i as u64);
            gradients.extend(gradient.flatten_all().unwrap().to_vec1::<f32>().unwrap());
            // The gradient of Σ w · g by w is g.
            let sum = (var.as_tensor() * gradient.as_tensor()).unwrap().sum_all();
            adamw.step(&sum.unwrap().backward().unwrap()).unwrap();
        }
        let update = Update {
            clip: 1.0,
            rate,
            step,
        };
        let gradients = Arena::Values(gradients.into());
        optimizer
            .update(&ours, &mut moments, &gradients, update)
            .unwrap();
        for (((weight, var), (_, theirs)), (_, before)) in
            ours.parameters().zip(&theirs).zip(fresh.parameters())
        {
            let moved = |var: &Var| (var.as_tensor() - before.as_tensor()).unwrap();
            let off = difference(&moved(var), &moved(theirs));
            assert!(off < 1e-4, "{} after step {step}: {off:e}", weight.name);
        }
    }
}
