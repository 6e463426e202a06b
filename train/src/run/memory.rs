//! The memory of a training step, estimated before anything is allocated.
//!
//! The peak is at the beginning of the backward pass: every shard that is computed at this time
//! holds its activations and the first gradients of activations. The terms here follow the
//! operations of [`crate::ops`], tensor by tensor. For fifteen recipes of 1 to 31 million
//! parameters, from 49 MB to 1.19 GB, the estimate was 3 to 15 % above the largest memory of the
//! process.

use sterna_ternary::family::FAMILIES;
use sterna_ternary::layout;
use sterna_ternary::{system, units};

use super::opened::Run;
use crate::ops::logits_tokens;
use crate::ranks::tree;
use crate::recipe::{ModelRecipe, Recipe};
use crate::{ActivationStorage, Error, Place, Precision, Result};

/// Bytes of the program with its libraries, and of data that are read.
const PROGRAM: f64 = 20e6;
/// A step that needs more than this share of the memory may be killed.
const SAFE: f64 = 0.8;
/// What the allocator takes for activations, as a multiple of their bytes.
const ALLOCATOR: f64 = 1.08;
/// Bytes of an f32.
const F32: f64 = 4.0;

/// Refuses a recipe whose steps do not fit in the memory that this process can have, and returns a
/// warning about one that nearly fills it. On a GPU only the memory of the CPU is compared, with
/// the weights.
///
/// # Errors
/// [`Error::Memory`].
pub(super) fn check(run: &Run, place: &Place) -> Result<Option<String>> {
    match Limit::of_system() {
        Some(limit) => of_step(run, place).check(limit, run.recipe()),
        None => Ok(None),
    }
}

/// The estimate for a step.
pub(super) fn of_step(run: &Run, place: &Place) -> Needed {
    let threads = rayon::current_num_threads();
    let mut needed = Needed::new(run.recipe(), threads, place.ranks.size());
    if let Some((teacher, _)) = run.teacher() {
        let weights = layout::weights(&teacher.config);
        let weights = weights.iter().map(|w| w.rows as f64 * w.columns as f64);
        needed.state += F32 * weights.sum::<f64>();
        let hidden = needed.tokens * teacher.config.hidden_size as f64;
        needed.activations += F32 * (hidden + needed.logits);
    }
    if !place.device.is_cpu() {
        needed.activations = 0.0;
    }
    needed
}

/// The memory of a step at its peak.
#[derive(Debug)]
pub(super) struct Needed {
    parameters: f64,
    /// Bytes of weights, moments, gradients and trits, and of the program.
    state: f64,
    /// Tokens that are computed at the same time.
    tokens: f64,
    /// Logits that exist at the same time.
    logits: f64,
    /// Bytes of their activations and of the batch.
    activations: f64,
}

impl Needed {
    fn new(recipe: &Recipe, threads: usize, ranks: usize) -> Needed {
        let (m, train) = (&recipe.model, &recipe.train);
        let vocabulary = recipe.data.vocab_size as f64;
        let widths = Widths::of(m);
        let linear = layers(m) * widths.linear();
        let tables = if m.tie_word_embeddings { 1.0 } else { 2.0 };
        let head = vocabulary * widths.hidden;
        let parameters = tables * head + linear;
        let quantized = Quantized::of(recipe);
        // As `Trainer::tree` divides a step: parts in turn, the shards of a part in parallel.
        let (batch, context) = (train.batch as f64, train.context as f64);
        let shards = tree::shards(train.batch, train.context);
        let of_rank = shards.div_ceil(ranks);
        let together = of_rank.min(threads) as f64;
        let of_shard = (batch / shards as f64).ceil() * context;
        let tokens = together * of_shard;
        let chunk = logits_tokens(recipe.data.vocab_size.max(1));
        let logits = together * of_shard.min(chunk as f64) * vocabulary;
        // A thread adds the gradients of its shards in pairs, so the sum of each level of its tree
        // waits for the other half; so do the parts of a step.
        let levels = |n: f64| n.max(1.0).log2().ceil();
        let waiting = levels(of_rank as f64 / together) + 1.0;
        let gradients = together * waiting + levels(train.accumulate as f64);
        let per_token = match train.activations {
            ActivationStorage::Keep => layers(m) * widths.kept(quantized),
            ActivationStorage::Recompute => layers(m) * widths.hidden + widths.kept(quantized),
        };
        // The embedded tokens, the input of the head and its gradient; then those of the last
        // layer.
        let per_token = per_token + 3.0 * widths.hidden + widths.backward();
        let ids = 2.0 * batch * train.accumulate as f64 * (context + 1.0);
        Needed {
            parameters,
            // Weight and two moments.
            state: PROGRAM + F32 * parameters * (3.0 + gradients) + linear * quantized.weight(),
            tokens,
            logits,
            // Each shard has the gradient of the head apart, and packs the head for its products.
            activations: ALLOCATOR
                * F32
                * (tokens * per_token + logits + together * 2.0 * head + ids),
        }
    }

    /// Bytes of all.
    pub(super) fn bytes(&self) -> f64 {
        self.state + self.activations
    }

    fn check(&self, limit: Limit, recipe: &Recipe) -> Result<Option<String>> {
        let needed = self.bytes();
        if needed <= SAFE * limit.most.min(limit.free) {
            return Ok(None);
        }
        let bytes = |n: f64| units::bytes(n as u64);
        let train = &recipe.train;
        let advice = match self.state > self.activations {
            true => "make the model smaller: `num_hidden_layers`, `hidden_size`, `vocab_size`",
            false if train.activations == ActivationStorage::Keep => {
                "lower `batch` or `context`, raise `accumulate` instead of `batch`, or set \
                 activations = \"recompute\""
            }
            false => "lower `batch` or `context`, or raise `accumulate` instead of `batch`",
        };
        let (about, have) = (bytes(needed), bytes(limit.most));
        if needed <= limit.most {
            let free = bytes(limit.free);
            return Ok(Some(format!(
                "a step of this recipe needs about {about} of memory, and this process can have \
                 {have}, of which {free} are free; the system may kill it; {advice}"
            )));
        }
        Err(Error::Memory(format!(
            "a step of this recipe needs about {about} of memory, and this process can have \
             {have}: {} for the program, weights, moments and gradients of {} parameters, {} for a \
             batch of {} × {} sequences of {} tokens, of which {} are computed at the same time; \
             {advice}",
            bytes(self.state),
            count(self.parameters),
            bytes(self.activations),
            train.batch,
            train.accumulate,
            train.context,
            count(self.tokens),
        )))
    }
}

fn layers(m: &ModelRecipe) -> f64 {
    m.num_hidden_layers as f64
}

/// In what form linear layers have weights and inputs beside their f32.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Quantized {
    No,
    /// Trits in codes for both directions, and int8.
    Ternary,
    /// A blend of both, as f32.
    Blended,
}

impl Quantized {
    fn of(recipe: &Recipe) -> Quantized {
        let train = &recipe.train;
        match (train.precision, train.ternary_ramp) {
            (Precision::Full, _) => Quantized::No,
            (Precision::Ternary, 0) => Quantized::Ternary,
            (Precision::Ternary, _) => Quantized::Blended,
        }
    }

    /// Bytes of a weight.
    fn weight(self) -> f64 {
        match self {
            Quantized::No => 0.0,
            Quantized::Ternary => 0.5,
            Quantized::Blended => 4.0,
        }
    }

    /// Bytes of an input, as a part of an f32.
    fn input(self) -> f64 {
        match self {
            Quantized::No => 0.0,
            Quantized::Ternary => 0.25,
            Quantized::Blended => 1.0,
        }
    }
}

/// Values of a token: in the residual stream, in the feed-forward network, of all queries and of
/// all keys.
#[derive(Debug, Clone, Copy)]
struct Widths {
    hidden: f64,
    intermediate: f64,
    q: f64,
    kv: f64,
    heads: f64,
    /// Values of the norms that only some families have.
    norms: f64,
}

impl Widths {
    fn of(m: &ModelRecipe) -> Widths {
        let heads = m.num_attention_heads;
        let head_dim = m.head_dim.unwrap_or(m.hidden_size / heads.max(1)) as f64;
        let (q, kv) = (heads, m.num_key_value_heads.unwrap_or(heads));
        let (q, kv) = (q as f64 * head_dim, kv as f64 * head_dim);
        let intermediate = m.intermediate_size as f64;
        let family = FAMILIES.iter().find(|family| family.name == m.family);
        let norms = family.map_or(0.0, |f| {
            let norms = [
                (f.attn_sub_norm.is_some(), q),
                (f.ffn_sub_norm.is_some(), intermediate),
                (f.qk_norm, q + kv),
            ];
            norms
                .iter()
                .filter(|(is, _)| *is)
                .map(|(_, width)| width)
                .sum()
        });
        Widths {
            hidden: m.hidden_size as f64,
            intermediate,
            q,
            kv,
            heads: heads as f64,
            norms,
        }
    }

    /// Weights of the linear layers of a decoder layer.
    fn linear(self) -> f64 {
        self.hidden * (2.0 * self.q + 2.0 * self.kv + 3.0 * self.intermediate)
    }

    /// Values of f32 that the graph of a decoder layer keeps for each token until its backward
    /// pass has ended.
    fn kept(self, quantized: Quantized) -> f64 {
        // Two norms, the outputs of both blocks, and their sums with the stream.
        let stream = 6.0 * self.hidden;
        // Queries and keys, as they are and rotated; values; the output; a log sum for each head.
        let attention = 3.0 * self.q + 3.0 * self.kv + self.heads;
        let feed_forward = 3.0 * self.intermediate;
        let inputs = 2.0 * self.hidden + self.q + self.intermediate;
        stream + attention + feed_forward + self.norms + quantized.input() * inputs
    }

    /// Values of gradients for each token where most of them exist: candle adds the two gradients
    /// of the gate to zeros, beside that of its output.
    fn backward(self) -> f64 {
        6.0 * self.intermediate + 2.0 * self.hidden
    }
}

/// `12.3 M` of a number of parameters or tokens.
fn count(n: f64) -> String {
    match n {
        n if n < 1e4 => format!("{n:.0}"),
        n if n < 1e9 => format!("{:.2} M", n / 1e6),
        n => format!("{:.2e}", n),
    }
}

/// Bytes of memory of this process.
#[derive(Debug, Clone, Copy)]
struct Limit {
    /// The most that it can have: the memory of the machine, or less in a control group.
    most: f64,
    /// What is free in the machine.
    free: f64,
}

impl Limit {
    /// None if the system does not report it.
    fn of_system() -> Option<Limit> {
        let memory = system::machine_memory()?;
        let groups = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let limits = groups.lines().flat_map(limits_of_group);
        Some(Limit {
            most: limits.fold(memory.total as f64, f64::min),
            free: memory.available as f64,
        })
    }
}

/// Bytes of memory that this process can have; none if the system does not report them.
pub(super) fn limit() -> Option<f64> {
    Limit::of_system().map(|limit| limit.most)
}

/// The limits of a control group and of the groups around it, from its line `id:controllers:path`.
fn limits_of_group(line: &str) -> Vec<f64> {
    let mut parts = line.splitn(3, ':').skip(1);
    let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else {
        return Vec::new();
    };
    let (root, file) = match controllers {
        "" => ("/sys/fs/cgroup", "memory.max"),
        "memory" => ("/sys/fs/cgroup/memory", "memory.limit_in_bytes"),
        _ => return Vec::new(),
    };
    // In a container the path may be that of the host, and only the root is there.
    let folders = std::path::Path::new(path).ancestors();
    let folders = folders.map(|group| format!("{root}{}", group.display()));
    let limits =
        folders.filter_map(|folder| std::fs::read_to_string(format!("{folder}/{file}")).ok());
    limits.filter_map(|text| text.trim().parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::recipe::tests::SMALL;

    #[test]
    fn what_cannot_fit_is_refused_with_numbers() {
        let check = |key: &str, value: &str, expected: &[&str]| {
            let line = |line: &str| match line.trim().split(" =").next() == Some(key) {
                true => format!("{key} = {value}"),
                false => line.to_owned(),
            };
            let text: Vec<String> = SMALL.lines().map(line).collect();
            let recipe = Recipe::parse(&text.join("\n"), Path::new("small.toml")).unwrap();
            let needed = Needed::new(&recipe, 2, 1);
            let limit = Limit {
                most: 24e9,
                free: 24e9,
            };
            let message = needed.check(limit, &recipe).err().map(|e| e.to_string());
            let message = message.unwrap_or_default();
            assert_eq!(message.is_empty(), expected.is_empty(), "{key}: {message}");
            assert!(
                expected.iter().all(|part| message.contains(part)),
                "{key}: {message}"
            );
        };
        let huge = "1000000000000";
        check("batch", "4096", &[]);
        check(
            "batch",
            huge,
            &[
                "can have 24.00 GB",
                &format!("a batch of {huge}"),
                "`batch`",
            ],
        );
        check(
            "context",
            huge,
            &[&format!("sequences of {huge} tokens"), "`context`"],
        );
        check(
            "num_hidden_layers",
            huge,
            &["parameters", "`num_hidden_layers`"],
        );
        check("vocab_size", huge, &["3.20e13 parameters", "`vocab_size`"]);
        check("hidden_size", "4000000000", &["`hidden_size`"]);
    }

    /// The estimate for a preset with other values, on two threads.
    fn estimate(preset: &str, values: &[&str]) -> Needed {
        let path = format!("{}/../configs/{preset}.toml", env!("CARGO_MANIFEST_DIR"));
        let mut table: toml::Table = std::fs::read_to_string(path).unwrap().parse().unwrap();
        for line in values {
            let part = match line.split_once(" = ").unwrap().0 {
                "family" => "model",
                "vocab_size" => "data",
                _ => "train",
            };
            let line: toml::Table = line.parse().unwrap();
            table[part].as_table_mut().unwrap().extend(line);
        }
        let data = table["data"].as_table_mut().unwrap();
        data.insert("mix".into(), "addition2=1".into());
        let recipe = Recipe::parse(&table.to_string(), Path::new("preset.toml")).unwrap();
        Needed::new(&recipe, 2, 1)
    }

    #[test]
    fn estimates_are_near_what_was_measured() {
        // VmHWM of `sterna train --preset … --plan` on two threads, in MB.
        for (preset, values, measured) in [
            ("tiny-1m", &[][..], 121.28),
            ("tiny-1m", &["batch = 1"], 49.43),
            ("tiny-1m", &["batch = 64"], 202.59),
            ("tiny-1m", &["batch = 200"], 497.67),
            ("tiny-1m", &["batch = 4", "context = 1024"], 186.83),
            ("tiny-1m", &["batch = 2", "context = 4096"], 571.75),
            (
                "tiny-1m",
                &["batch = 64", "activations = 'recompute'"],
                122.50,
            ),
            ("tiny-1m", &["batch = 64", "accumulate = 2"], 204.65),
            ("tiny-1m", &["batch = 64", "precision = 'full'"], 186.99),
            ("tiny-1m", &["vocab_size = 8192"], 204.84),
            ("tiny-1m", &["batch = 64", "family = 'llama'"], 187.99),
            ("5m", &["batch = 8"], 394.08),
            ("5m", &["context = 512"], 462.64),
            ("15m", &["batch = 4", "context = 256"], 795.60),
            ("30m", &["batch = 2", "context = 256"], 1190.0),
        ] {
            let estimated = estimate(preset, values).bytes() / 1e6;
            let share = estimated / measured;
            assert!(
                (1.0..1.2).contains(&share),
                "{preset} {values:?}: {estimated} of {measured} MB"
            );
        }
    }

    #[test]
    fn a_step_that_nearly_fills_the_memory_is_warned_of() {
        let check = |most: f64, free: f64| {
            let limit = Limit { most, free };
            let path = Path::new("small.toml");
            estimate("tiny-1m", &[]).check(limit, &Recipe::parse(SMALL, path).unwrap())
        };
        let needed = estimate("tiny-1m", &[]).bytes();
        assert_eq!(check(2.0 * needed, 2.0 * needed).unwrap(), None);
        for (most, free) in [(1.1 * needed, 9e9), (9e9, 0.5 * needed)] {
            let warning = check(most, free).unwrap().unwrap();
            let parts = [needed, most].map(|n| units::bytes(n as u64));
            assert!(parts.iter().all(|part| warning.contains(part)), "{warning}");
        }
        assert!(check(0.9 * needed, 9e9).is_err());
    }

    #[test]
    fn machines_and_groups_report_their_memory() {
        assert!(limits_of_group("3:cpu:/").is_empty() && limits_of_group("").is_empty());
        assert!(limit().unwrap() > 1e6);
    }
}
