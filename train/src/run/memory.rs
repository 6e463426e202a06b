//! Whether a step can fit in memory, before anything is allocated.
//!
//! What is computed here is a lower bound: weights, moments and gradients exactly, of the
//! activations only the largest tensors. So a recipe that is refused cannot run, and one that is not
//! refused may still need more; `sterna train --plan` measures it.

use sterna_ternary::units;

use super::opened::Run;
use crate::ranks::tree;
use crate::recipe::{ModelRecipe, Recipe};
use crate::{ActivationStorage, Error, Place, Precision, Result};

/// No machine has more memory. This is the limit where the system does not report one.
const MOST: f64 = (1u64 << 46) as f64;

/// Refuses a recipe whose steps cannot fit in the memory that this process can have. On a GPU only
/// the memory of the CPU is compared, with the weights.
///
/// # Errors
/// [`Error::Memory`].
pub(super) fn check(run: &Run, place: &Place) -> Result<()> {
    let threads = rayon::current_num_threads();
    let mut needed = Needed::new(run.recipe(), threads, place.ranks.size());
    if !place.device.is_cpu() {
        needed.activations = 0.0;
    }
    needed.check(limit().unwrap_or(MOST), run.recipe())
}

/// A lower bound of the memory of a step.
#[derive(Debug)]
struct Needed {
    parameters: f64,
    /// Bytes of weights, moments and gradients.
    state: f64,
    /// Tokens that are computed at the same time.
    tokens: f64,
    /// Bytes of their activations and of the batch.
    activations: f64,
}

impl Needed {
    fn new(recipe: &Recipe, threads: usize, ranks: usize) -> Needed {
        let (m, train) = (&recipe.model, &recipe.train);
        let parameters = parameters(m, recipe.data.vocab_size as f64);
        // As `Trainer::tree` divides a step: parts in turn, the shards of a part in parallel.
        let (batch, context) = (train.batch as f64, train.context as f64);
        let shards = tree::shards(train.batch, train.context);
        let together = shards.div_ceil(ranks).min(threads) as f64;
        let tokens = together * (batch / shards as f64).floor().max(1.0) * context;
        let per_token = match train.activations {
            ActivationStorage::Keep => layers(m) * values_of_layer(m, train.precision),
            ActivationStorage::Recompute => {
                layers(m) * m.hidden_size as f64 + values_of_layer(m, train.precision)
            }
        };
        let batch = batch * train.accumulate as f64 * (context + 1.0);
        Needed {
            parameters,
            // Weight, two moments, and a gradient for each shard that is computed.
            state: 4.0 * parameters * (3.0 + together),
            tokens,
            // Ids and targets are u32 for the whole batch.
            activations: 4.0 * (tokens * per_token + 2.0 * batch),
        }
    }

    fn check(&self, limit: f64, recipe: &Recipe) -> Result<()> {
        let Needed {
            parameters,
            state,
            tokens,
            activations,
        } = self;
        if state + activations <= limit {
            return Ok(());
        }
        let bytes = |n: f64| units::bytes(n as u64);
        let train = &recipe.train;
        let advice = match state > activations {
            true => "make the model smaller: `num_hidden_layers`, `hidden_size`, `vocab_size`",
            false if train.activations == ActivationStorage::Keep => {
                "lower `batch` or `context`, raise `accumulate` instead of `batch`, or set \
                 activations = \"recompute\""
            }
            false => "lower `batch` or `context`, or raise `accumulate` instead of `batch`",
        };
        Err(Error::Memory(format!(
            "a step of this recipe needs at least {} of memory, and this process can have {}: {} \
             for weights, moments and gradients of {} parameters, {} for a batch of {} × {} \
             sequences of {} tokens, of which {} are computed at the same time; {advice}",
            bytes(state + activations),
            bytes(limit),
            bytes(*state),
            count(*parameters),
            bytes(*activations),
            train.batch,
            train.accumulate,
            train.context,
            count(*tokens),
        )))
    }
}

fn layers(m: &ModelRecipe) -> f64 {
    m.num_hidden_layers as f64
}

/// Widths of the residual stream, of the feed-forward network, of all queries and of all keys.
fn widths(m: &ModelRecipe) -> [f64; 4] {
    let heads = m.num_attention_heads;
    let head_dim = m.head_dim.unwrap_or(m.hidden_size / heads.max(1)) as f64;
    let kv_heads = m.num_key_value_heads.unwrap_or(heads) as f64;
    let (hidden, intermediate) = (m.hidden_size as f64, m.intermediate_size as f64);
    [
        hidden,
        intermediate,
        heads as f64 * head_dim,
        kv_heads * head_dim,
    ]
}

/// Values of embedding, head and linear layers; norms are left out.
fn parameters(m: &ModelRecipe, vocabulary: f64) -> f64 {
    let [hidden, intermediate, q, kv] = widths(m);
    let tables = if m.tie_word_embeddings { 1.0 } else { 2.0 };
    let layer = hidden * (2.0 * q + 2.0 * kv + 3.0 * intermediate);
    tables * vocabulary * hidden + layers(m) * layer
}

/// Values of f32 that the backward pass of a layer needs for each token: the inputs of norms and of
/// linear layers, queries, keys, values, gate and up.
fn values_of_layer(m: &ModelRecipe, precision: Precision) -> f64 {
    let [hidden, intermediate, q, kv] = widths(m);
    // int8 inputs of the linear layers are kept beside their f32.
    let rounded = match precision {
        Precision::Ternary => (2.0 * hidden + q + intermediate) / 4.0,
        Precision::Full => 0.0,
    };
    4.0 * hidden + 2.0 * q + 2.0 * kv + 3.0 * intermediate + rounded
}

/// `12.3 M` of a number of parameters or tokens.
fn count(n: f64) -> String {
    match n {
        n if n < 1e4 => format!("{n:.0}"),
        n if n < 1e9 => format!("{:.2} M", n / 1e6),
        n => format!("{:.2e}", n),
    }
}

/// Bytes of memory that this process can have: those of the machine, or fewer in a control group;
/// none if the system does not report them.
fn limit() -> Option<f64> {
    let machine = kilobytes(&std::fs::read_to_string("/proc/meminfo").ok()?)?;
    let groups = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let limits = groups.lines().flat_map(limits_of_group);
    Some(limits.fold(machine, f64::min))
}

/// `MemTotal` in bytes.
fn kilobytes(meminfo: &str) -> Option<f64> {
    let line = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"));
    let kilobytes: f64 = line?.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(1024.0 * kilobytes)
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
            let message = needed.check(24e9, &recipe).err().map(|e| e.to_string());
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

    #[test]
    fn machines_and_groups_report_their_memory() {
        assert_eq!(
            kilobytes("MemTotal:       2 kB\nMemFree: 1 kB\n"),
            Some(2048.0)
        );
        assert_eq!(kilobytes("MemFree: 1 kB"), None);
        assert!(limits_of_group("3:cpu:/").is_empty() && limits_of_group("").is_empty());
        if cfg!(target_os = "linux") {
            assert!(limit().unwrap() > 1e6);
        }
    }
}
