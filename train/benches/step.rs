//! Tokens per second of one training step: ternary, full precision, and ternary on plain candle operations.
//!
//! `cargo bench -p sterna-train --bench step`, with CANDLE_NUM_THREADS=1 for the fused operations, which
//! divide the work themselves.

use std::time::Instant;

use serde_json::json;
use sterna_ternary::Config;
use sterna_train::optimizer::{Method, Optimizer};
use sterna_train::{Model, Precision, Trainer};

fn config(hidden: usize, layers: usize, heads: usize, ffn: usize, vocabulary: usize) -> Config {
    let json = json!({
        "architectures": ["BitNetForCausalLM"], "model_type": "bitnet", "hidden_act": "relu2",
        "hidden_size": hidden, "intermediate_size": ffn, "num_hidden_layers": layers,
        "num_attention_heads": heads, "num_key_value_heads": heads, "vocab_size": vocabulary,
        "max_position_embeddings": 512, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
        "tie_word_embeddings": true,
    });
    Config::from_json(&json).expect("the shape is valid")
}

fn tokens_per_second(
    config: &Config,
    precision: Precision,
    reference: bool,
    batch: usize,
    context: usize,
) -> f64 {
    let model = Model::new(config.clone(), precision, context, 0.02, 1).expect("the model fits");
    let model = if reference {
        model.with_reference_operations()
    } else {
        model
    };
    let optimizer = Optimizer {
        method: Method::AdamW,
        betas: (0.9, 0.95),
        eps: 1e-8,
        weight_decay: 0.1,
    };
    let mut trainer = Trainer::new(model, optimizer, 1.0);
    let vocabulary = config.vocab_size as u32;
    let rows: Vec<u32> = (0..(batch * (context + 1)) as u32)
        .map(|i| i * 7919 % vocabulary)
        .collect();
    let mut seconds: Vec<f64> = (0..6)
        .map(|_| {
            let start = Instant::now();
            trainer
                .step(&rows, context, 1e-3)
                .expect("the step succeeds");
            start.elapsed().as_secs_f64()
        })
        .skip(1)
        .collect();
    seconds.sort_by(f64::total_cmp);
    (batch * context) as f64 / seconds[seconds.len() / 2]
}

fn main() {
    let shapes = [
        ("0.9M", config(128, 4, 4, 384, 512), 8, 128),
        ("5.2M", config(256, 6, 4, 768, 512), 16, 256),
        ("31M", config(512, 8, 8, 1536, 8192), 8, 512),
    ];
    let wanted = std::env::args().nth(1).unwrap_or_default();
    println!("model  tokens/s: ternary  full  ternary on plain candle");
    for (name, config, batch, context) in &shapes {
        if !wanted.starts_with("--") && !name.contains(&wanted) {
            continue;
        }
        let run = |precision, reference| {
            tokens_per_second(config, precision, reference, *batch, *context)
        };
        let (ternary, full) = (run(Precision::Ternary, false), run(Precision::Full, false));
        println!(
            "{name}  {ternary:.0}  {full:.0}  {:.0}",
            run(Precision::Ternary, true)
        );
    }
}
