//! Steps of several batches, steps with blended quantization, and skipped steps.

use serde_json::json;
use sterna_datasets::rows as flags;
use sterna_ternary::Config;
use sterna_train::Spikes;
use sterna_train::optimizer::{Method, Moments, Optimizer};
use sterna_train::run::sample;
use sterna_train::run::statistics::Statistics;
use sterna_train::{LossReduction, Model, Precision, Trainer};

const CONTEXT: usize = 64;
const VOCABULARY: usize = 50;

fn trainer() -> Trainer {
    let config = Config::from_json(&json!({
        "architectures": ["BitNetForCausalLM"], "model_type": "bitnet", "hidden_act": "relu2",
        "hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 2,
        "num_attention_heads": 2, "num_key_value_heads": 2, "vocab_size": VOCABULARY,
        "max_position_embeddings": CONTEXT,
        "rms_norm_eps": 1e-5, "rope_theta": 100.0, "tie_word_embeddings": true,
    }));
    let model = Model::new(config.unwrap(), Precision::Ternary, CONTEXT, 0.1, 1).unwrap();
    let optimizer = Optimizer {
        method: Method::AdamW,
        betas: (0.9, 0.95),
        eps: 1e-8,
        weight_decay: 0.0,
    };
    Trainer::new(model, optimizer, 1.0)
}

fn rows(sequences: usize) -> Vec<u32> {
    let ids = 0..(sequences * (CONTEXT + 1)) as u32;
    ids.map(|i| (i * i * 11 + i / 7) % VOCABULARY as u32)
        .collect()
}

#[test]
fn accumulated_batches_give_the_gradients_of_one_large_batch() {
    let mut trainer = trainer();
    let difference = |a: &[f32], b: &[f32]| {
        let norm = |x: f64| x.sqrt();
        let square = |x: f32| f64::from(x) * f64::from(x);
        let apart: f64 = a.iter().zip(b).map(|(a, b)| square(a - b)).sum();
        norm(apart) / norm(b.iter().map(|b| square(*b)).sum())
    };
    // 32 sequences of 64 are 4 shards of 8: the same tree, cut at another height.
    let (loss, whole) = trainer.gradients(&rows(32), CONTEXT).unwrap();
    for parts in [2, 4] {
        trainer.accumulate = parts;
        let (same, gradients) = trainer.gradients(&rows(32), CONTEXT).unwrap();
        assert!(same == loss && gradients == whole, "{parts} parts");
    }
    // 16 parts are smaller than a shard and 6 do not halve: other trees, the same sum.
    for (parts, sequences) in [(16, 32), (6, 12), (3, 9)] {
        trainer.accumulate = 1;
        let (loss, whole) = trainer.gradients(&rows(sequences), CONTEXT).unwrap();
        trainer.accumulate = parts;
        let (same, gradients) = trainer.gradients(&rows(sequences), CONTEXT).unwrap();
        assert!((same - loss).abs() < 1e-5, "{parts} parts: {same} {loss}");
        assert!(difference(&gradients, &whole) < 1e-5, "{parts} parts");
    }
}

#[test]
fn quantization_blends_in_from_full_precision() {
    let mut trainer = trainer();
    let mut loss = |lambda| {
        trainer.model.lambda = lambda;
        trainer.gradients(&rows(4), CONTEXT).unwrap().0
    };
    let (full, near_full, near_ternary, ternary) =
        (loss(0.0), loss(1e-6), loss(1.0 - 1e-6), loss(1.0));
    assert!((full - near_full).abs() < 1e-4 && (ternary - near_ternary).abs() < 1e-3);
    assert!((full - ternary).abs() > 1e-3, "{full} {ternary}");
    trainer.model.lambda = 0.0;
    let evaluated = trainer.evaluate(&rows(4), CONTEXT).unwrap();
    assert!(
        (evaluated - ternary).abs() < 1e-5,
        "evaluation is ternary: {evaluated} {ternary}"
    );
}

#[test]
fn a_spike_changes_nothing_but_the_step() {
    let mut trainer = trainer();
    trainer.spikes = Spikes::new(3.0, 4);
    for _ in 0..6 {
        assert!(!trainer.step(&rows(4), CONTEXT, 1e-3).unwrap().is_skipped);
    }
    let state = |trainer: &Trainer| {
        let Moments { first, second } = trainer.moments.clone();
        let moments = [first, second].map(|of| of.into_values().unwrap());
        (trainer.parameters().unwrap(), moments)
    };
    let before = state(&trainer);
    trainer
        .spikes
        .losses
        .iter_mut()
        .for_each(|loss| *loss = 1.0);
    assert!(trainer.step(&rows(4), CONTEXT, 1e-3).unwrap().is_skipped);
    assert!(before == state(&trainer));
    assert_eq!(trainer.step, 7);
}

#[test]
fn statistics_count_zeros_and_flips_of_every_matrix() {
    let mut trainer = trainer();
    let mut statistics = Statistics::new(&trainer.model).unwrap();
    for _ in 0..5 {
        trainer.step(&rows(4), CONTEXT, 2e-2).unwrap();
    }
    let layers = statistics.look(&trainer).unwrap();
    assert_eq!(layers.len(), 14);
    for layer in &layers {
        let trits = layer.trits.unwrap();
        assert!(layer.gradient_norm > 0.0 && trits.scale > 0.0, "{layer:?}");
        assert!(
            (0.2..0.5).contains(&trits.zeros) && trits.flips > 0.0,
            "{layer:?}"
        );
    }
    let again = statistics.look(&trainer).unwrap();
    assert!(again.iter().all(|layer| layer.trits.unwrap().flips == 0.0));
}

#[test]
fn a_sample_is_the_most_likely_text_and_ends_where_it_must() {
    let mut trainer = trainer();
    let row: Vec<u32> = (0..=CONTEXT as u32).map(|i| 3 + i % 5).collect();
    for _ in 0..60 {
        trainer.step(&row, CONTEXT, 1e-2).unwrap();
    }
    let greedy = |prompt: &[u32], count, end| {
        sample::greedy(&trainer.model, prompt, count, CONTEXT, end).unwrap()
    };
    assert_eq!(greedy(&[3, 4, 5, 6, 7, 3], 6, &[]), [4, 5, 6, 7, 3, 4]);
    assert_eq!(greedy(&[3, 4, 5, 6, 7, 3], 6, &[7]), [4, 5, 6]);
    assert_eq!(greedy(&row[..CONTEXT - 2], 6, &[]).len(), 2);
}

#[test]
fn documents_that_are_hidden_from_each_other_have_losses_of_their_own() {
    const FIRST: u32 = VOCABULARY as u32 - 1;
    let mut trainer = trainer();
    let document = |seed: usize, tokens: usize| {
        let ids = (0..tokens).map(|i| ((i * i + seed * 7 * i) % 31) as u32);
        let mut ids: Vec<u32> = ids.collect();
        ids[0] = FIRST;
        ids
    };
    // In a row of two documents, how much does the loss of both depend on what the other one is?
    let mut interaction = |start| {
        trainer.model.document_start = start;
        let loss = |a, b| {
            let row = [document(a, 30), document(b, CONTEXT + 1 - 30)].concat();
            trainer.gradients(&row, CONTEXT).unwrap().0
        };
        (loss(1, 2) - loss(3, 2) - loss(1, 4) + loss(3, 4)).abs()
    };
    let (apart, together) = (interaction(Some(FIRST)), interaction(None));
    assert!(apart < 1e-6 && together > 1e-4, "{apart:e} {together:e}");
}

/// Two conversations of 30 and 35 tokens, with flags on the tokens that are not learned.
fn conversations() -> [Vec<u32>; 2] {
    [(30, 12), (35, 20)].map(|(tokens, prompt)| {
        let ids = (0..tokens).map(|i| (i * i * 3 + i) % VOCABULARY as u32);
        let mut ids: Vec<u32> = ids.collect();
        ids[..prompt]
            .iter_mut()
            .for_each(|id| *id |= flags::UNSCORED);
        ids[0] |= flags::FIRST;
        ids
    })
}

#[test]
fn conversations_in_a_row_have_the_losses_they_have_alone_over_what_is_learned() {
    let mut trainer = trainer();
    trainer.model.precision = Precision::Full;
    let [a, b] = conversations();
    let alone = |row: &[u32]| trainer.gradients(row, row.len() - 1).unwrap();
    let ((loss_a, of_a), (loss_b, of_b)) = (alone(&a), alone(&b));
    let (loss, gradients) = alone(&[&a[..], &b].concat());
    let (scored_a, scored_b) = (18.0, 15.0);
    let mean = (scored_a * loss_a + scored_b * loss_b) / (scored_a + scored_b);
    assert!((loss / mean - 1.0).abs() < 1e-5, "{loss} {mean}");
    let share = (scored_a / (scored_a + scored_b)) as f32;
    for (i, g) in gradients.iter().enumerate() {
        let expected = share * of_a[i] + (1.0 - share) * of_b[i];
        assert!((g - expected).abs() < 1e-5, "{i}: {g} {expected}");
    }
    // The sum counts each of the 33 the same, over the constant 64.
    trainer.reduction = LossReduction::Sum;
    let (same, sum) = trainer.gradients(&[&a[..], &b].concat(), CONTEXT).unwrap();
    assert_eq!(same, loss);
    let factor = 33.0 / CONTEXT as f32;
    for (sum, mean) in sum.iter().zip(&gradients) {
        assert!((sum - factor * mean).abs() < 1e-6, "{sum} {mean}");
    }
}

#[test]
fn a_row_without_a_scored_token_has_no_loss_and_no_gradient() {
    let row = vec![3 | flags::UNSCORED; CONTEXT + 1];
    let (loss, gradients) = trainer().gradients(&row, CONTEXT).unwrap();
    assert!(loss == 0.0 && gradients.iter().all(|g| *g == 0.0));
}
