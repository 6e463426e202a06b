//! Tokens per second and peak memory of training steps.
//!
//! `cargo bench -p sterna-train --bench step -- SHAPE MODE`; both arguments are optional. The mode
//! `candle` is the same model on plain candle operations, as one graph on all threads of candle.
//! The other modes divide a step over the threads of this crate, and candle's threads would compete
//! with them. candle reads its number of threads from the environment, and peak memory is that of a
//! process, so each measurement runs in a process of its own.

use std::process::{Command, ExitCode};
use std::time::Instant;

use serde_json::json;
use sterna_ternary::Config;
use sterna_train::optimizer::{Method, Optimizer};
use sterna_train::{ActivationStorage, Model, Precision, Trainer};

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

fn tokens_per_second(config: &Config, mode: &str, batch: usize, context: usize) -> f64 {
    let precision = match mode {
        "full" => Precision::Full,
        _ => Precision::Ternary,
    };
    let mut model = Model::new(config.clone(), precision, context, 0.02, 1).expect("it fits");
    if mode == "candle" {
        model = model.with_reference_operations();
    }
    let optimizer = Optimizer {
        method: Method::AdamW,
        betas: (0.9, 0.95),
        eps: 1e-8,
        weight_decay: 0.1,
    };
    let mut trainer = Trainer::new(model, optimizer, 1.0);
    if mode == "recompute" {
        trainer.activations = ActivationStorage::Recompute;
    }
    let vocabulary = config.vocab_size as u32;
    let rows: Vec<u32> = (0..(batch * (context + 1)) as u32)
        .map(|i| i * 7919 % vocabulary)
        .collect();
    let mut seconds: Vec<f64> = (0..6)
        .map(|_| {
            let start = Instant::now();
            let step = trainer.step(&rows, context, 1e-3);
            step.expect("the step succeeds");
            start.elapsed().as_secs_f64()
        })
        .skip(1)
        .collect();
    seconds.sort_by(f64::total_cmp);
    (batch * context) as f64 / seconds[seconds.len() / 2]
}

/// The largest memory of this process so far in MiB, if the system reports it.
fn peak_mebibytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    Some(line.split_whitespace().nth(1)?.parse::<u64>().ok()? / 1024)
}

fn main() -> ExitCode {
    let shapes = [
        ("0.9M", config(128, 4, 4, 384, 512), 8, 128),
        ("5.2M", config(256, 6, 4, 768, 512), 16, 256),
        ("31M", config(512, 8, 8, 1536, 8192), 8, 512),
    ];
    let args: Vec<String> = std::env::args()
        .skip(1)
        .filter(|arg| !arg.starts_with("--"))
        .collect();
    let is_wanted = |i: usize, name: &str| args.get(i).is_none_or(|arg| arg == name);
    for (name, config, batch, context) in &shapes {
        for mode in ["ternary", "recompute", "full", "candle"] {
            if !is_wanted(0, name) || !is_wanted(1, mode) {
                continue;
            }
            if !std::env::args().any(|arg| arg == MEASURING) {
                if !measure_apart(name, mode) {
                    return ExitCode::FAILURE;
                }
                continue;
            }
            let speed = tokens_per_second(config, mode, *batch, *context);
            let peak = peak_mebibytes().map_or("n/a".into(), |peak| format!("{peak} MiB"));
            println!("{name} {mode}: {speed:.0} tokens/s, peak {peak}");
        }
    }
    ExitCode::SUCCESS
}

/// The argument that marks a process that measures.
const MEASURING: &str = "--measuring";

/// Runs one measurement in a new process with the environment for candle, and returns whether it
/// succeeded.
fn measure_apart(name: &str, mode: &str) -> bool {
    let program = std::env::current_exe().expect("a running program has a path");
    let mut command = Command::new(program);
    command.args([name, mode, MEASURING]);
    match mode {
        "candle" => command.env_remove("CANDLE_NUM_THREADS"),
        _ => command.env("CANDLE_NUM_THREADS", "1"),
    };
    let status = command.status();
    status.expect("this program starts again").success()
}
