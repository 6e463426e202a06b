//! Tokens per second and peak memory of training steps.
//!
//! `cargo bench -p sterna-train --bench step -- SHAPE MODE`; both arguments are optional. The mode
//! `candle` is the same model on plain candle operations, as one graph on all threads of candle.
//! The other modes divide a step over the threads of this crate, and candle's threads would compete
//! with them. candle reads its number of threads from the environment, and peak memory is that of a
//! process, so each measurement runs in a process of its own.
//!
//! `… -- race PYTHON [SHAPE]` measures the two larger shapes in turns with PyTorch, eager and
//! compiled, by `step.py`, and prints the ratios. PYTHON is an interpreter that has torch.

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
    Some(sterna_ternary::system::process_memory()?.peak >> 20)
}

/// A name, a model, the sequences of a step, and the tokens of each.
type Shape = (&'static str, Config, usize, usize);

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
    if let [first, python, rest @ ..] = &args[..]
        && first == "race"
    {
        let is_wanted = |name: &str| rest.first().is_none_or(|arg| arg == name);
        let wanted: Vec<&Shape> = shapes[1..].iter().filter(|s| is_wanted(s.0)).collect();
        assert!(!wanted.is_empty(), "{rest:?}: expected 5.2M or 31M");
        wanted.into_iter().for_each(|shape| race(shape, python));
        return ExitCode::SUCCESS;
    }
    let is_race = args.first().is_some_and(|arg| arg == "race");
    assert!(!is_race, "race: expected the path of a Python with torch");
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

/// The command of one measurement in a new process, with the environment for candle.
fn alone(name: &str, mode: &str) -> Command {
    let program = std::env::current_exe().expect("a running program has a path");
    let mut command = Command::new(program);
    command.args([name, mode, MEASURING]);
    match mode {
        "candle" => command.env_remove("CANDLE_NUM_THREADS"),
        _ => command.env("CANDLE_NUM_THREADS", "1"),
    };
    command
}

/// Runs one measurement, and returns whether it succeeded.
fn measure_apart(name: &str, mode: &str) -> bool {
    let status = alone(name, mode).status();
    status.expect("this program starts again").success()
}

/// Rounds of a race.
const ROUNDS: usize = 3;

/// Measures a shape in turns with PyTorch and prints medians in tokens per second, and how many
/// times as fast this crate is, the median of the rounds.
fn race((name, config, batch, context): &Shape, python: &str) {
    let mut rounds = Vec::new();
    for _ in 0..ROUNDS {
        let ours = output(&mut alone(name, "ternary"));
        let ours = ours.split_whitespace().nth(2).expect("it prints its speed");
        let theirs = ["eager", "compiled"].map(|mode| {
            let threads = std::thread::available_parallelism().map_or(1, usize::from);
            let script = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/step.py");
            let mut command = Command::new(python);
            command.args([script, mode, "--steps", "3"]);
            for (flag, value) in [
                ("--hidden", config.hidden_size),
                ("--layers", config.num_hidden_layers),
                ("--heads", config.num_attention_heads),
                ("--ffn", config.intermediate_size),
                ("--vocabulary", config.vocab_size),
                ("--batch", *batch),
                ("--context", *context),
                ("--threads", threads),
            ] {
                command.args([flag, &value.to_string()]);
            }
            let printed = output(&mut command);
            let seconds = printed
                .split_whitespace()
                .next()
                .expect("it prints its time");
            (batch * context) as f64 / seconds.parse::<f64>().expect("seconds are a number")
        });
        let ours: f64 = ours.parse().expect("a speed is a number");
        println!(
            "{name}: ours {ours:.0}, PyTorch {:.0} and {:.0}",
            theirs[0], theirs[1]
        );
        rounds.push([ours, theirs[0], theirs[1]]);
    }
    let median = |of: &dyn Fn(&[f64; 3]) -> f64| {
        let mut values: Vec<f64> = rounds.iter().map(of).collect();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    println!(
        "{name}: {:.0} tokens/s; PyTorch eager {:.0}, ratio {:.2}; compiled {:.0}, ratio {:.2}",
        median(&|speeds| speeds[0]),
        median(&|speeds| speeds[1]),
        median(&|speeds| speeds[0] / speeds[1]),
        median(&|speeds| speeds[2]),
        median(&|speeds| speeds[0] / speeds[2]),
    );
}

/// What a program prints; its messages go to those of this one.
fn output(command: &mut Command) -> String {
    let output = command.stderr(std::process::Stdio::inherit()).output();
    let output = output.expect("the program starts");
    assert!(output.status.success(), "{command:?} failed");
    String::from_utf8(output.stdout).expect("programs print text")
}
