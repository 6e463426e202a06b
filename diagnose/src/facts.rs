//! The facts about a model, as one JSON object: shapes, sizes, trits, tokenizer and chat template.
//! `sterna inspect --json` prints the object unchanged, so its keys are an interface.

mod text;

use std::path::Path;

use serde_json::{Value, json};
use sterna_convert::{Gguf, GgufHints, Source};
use sterna_runtime::{ChatTemplate, KvCache, KvType, Tokenizer};
use sterna_ternary::layout::{self, EMBEDDING, HEAD, Role, Weight};
use sterna_ternary::{PackedFile, config::Sliding, file::Values};

use crate::Result;
use crate::template::format_of;
use crate::trits::{self, TritCounts};

pub use text::describe;

/// Checkpoints whose linear layers have more bytes than this are counted on request only.
const QUICK: u64 = 2 << 30;

/// Collects the facts. With `verify` every byte is read, and damage is an error instead of a
/// remark. `context` is the number of tokens for which the memory is computed; `None` means the
/// model's own limit.
pub fn of(path: &Path, source: &dyn Source, verify: bool, context: Option<usize>) -> Result<Value> {
    let packed = match path.is_file() && !sterna_convert::is_gguf(path)? {
        true => Some(PackedFile::open(path)?),
        false => None,
    };
    let config = source.config();
    let mut facts = of_config(path, source);
    let mut remarks = Vec::new();
    if let Some(file) = packed.as_ref().filter(|_| verify) {
        file.verify()?;
    }
    let linear = stored_bytes(source, &trits::linear(config));
    if source.is_dense() {
        facts["linear_types"] = packed.as_ref().map_or(Value::Null, linear_types);
    } else if let Some(file) = &packed {
        set_counts(&mut facts, &trits::of_file(file)?, &mut remarks);
    } else if verify || linear <= QUICK {
        let counts = count(source, verify, &mut remarks)?;
        set_counts(&mut facts, &counts, &mut remarks);
    }
    look_at_values(source, &mut remarks);
    facts["packing"] = packing(path, source, packed.as_ref())?;
    set_tables(&mut facts, source, packed.as_ref());
    set_tokenizer(&mut facts, path, source);
    facts["memory"] = packed.map_or(Value::Null, |file| memory(&file, context));
    facts["remarks"] = remarks.into();
    Ok(facts)
}

/// The facts that follow from config and sizes. The keys that need more are null.
fn of_config(path: &Path, source: &dyn Source) -> Value {
    let c = source.config();
    let size = |weights: &[Weight]| weights.iter().map(|w| w.rows * w.columns).sum::<usize>();
    let parameters = size(&layout::weights(c));
    let linear = trits::linear(c);
    let bytes = source.bytes();
    let bits = |bytes: u64, values: usize| 8.0 * bytes as f64 / values as f64;
    let windowed = |sliding: &Sliding| sliding.layers.iter().filter(|is| **is).count();
    let files = source.files().iter().map(|(name, _)| name.as_str());
    json!({
        "path": path,
        "bytes": bytes,
        "family": c.family.name,
        "architecture": c.family.architecture,
        "parameters": parameters,
        "ternary_weights": if source.is_dense() { 0 } else { size(&linear) },
        "linear_weights": size(&linear),
        "packing": null,
        "bits_per_ternary_weight": bits(stored_bytes(source, &linear), size(&linear)),
        "bits_per_head_weight": null,
        "activations": source.inputs_rounded_to(),
        "bits_per_parameter": bits(bytes, parameters),
        "embedding": null,
        "head": null,
        "tied": c.tie_word_embeddings,
        "hidden_size": c.hidden_size,
        "intermediate_size": c.intermediate_size,
        "num_hidden_layers": c.num_hidden_layers,
        "num_attention_heads": c.num_attention_heads,
        "num_key_value_heads": c.num_key_value_heads,
        "head_dim": c.head_dim,
        "vocab_size": c.vocab_size,
        "max_position_embeddings": c.max_position_embeddings,
        "rope_theta": c.rope.theta,
        "sliding_window": c.sliding.as_ref().map(|s| s.window),
        "windowed_layers": c.sliding.as_ref().map_or(0, windowed),
        "norms_before_linear_layers": c.linear_norm_eps.is_some(),
        "hidden_act": c.family.activation.name(),
        "files": files.collect::<Vec<_>>(),
        "tokenizer": null,
        "chat_template": null,
        "eos": null,
        "linear_types": null,
        "zeros": null,
        "layers": null,
        "matrices": null,
    })
}

fn stored_bytes(source: &dyn Source, weights: &[Weight]) -> u64 {
    weights.iter().map(|w| source.stored_bytes(w)).sum()
}

/// How many linear layers of a baseline are held in each type.
fn linear_types(file: &PackedFile) -> Value {
    let mut types = serde_json::Map::new();
    for weight in trits::linear(&file.config) {
        let name = file.dense(&weight.name).values.name();
        let count = types.get(name).and_then(Value::as_u64).unwrap_or(0);
        types.insert(name.to_owned(), (count + 1).into());
    }
    types.into()
}

/// How the weights of linear layers are stored. In a checkpoint the first of them decides.
fn packing(path: &Path, source: &dyn Source, packed: Option<&PackedFile>) -> Result<Value> {
    use sterna_convert::StoredScale::{Divide, Masters, Multiply, Products};
    let Some(first) = trits::linear(source.config()).into_iter().next() else {
        return Ok("none".into());
    };
    if let Some(file) = packed {
        return Ok(file.packing.name().into());
    }
    if path.is_file() {
        let gguf = Gguf::open(path, &GgufHints::default(), true)?;
        return Ok(format!("GGUF, {}", gguf.type_name(&first)).into());
    }
    Ok(match source.linear(&first)?.stored {
        Masters => "masters",
        Products(_) => "products of trits and scales",
        Multiply(_) => "2 bits, scales to multiply by",
        Divide(_) => "2 bits, scales to divide by",
    }
    .into())
}

fn count(
    source: &dyn Source,
    verify: bool,
    remarks: &mut Vec<String>,
) -> sterna_convert::Result<Vec<TritCounts>> {
    let mut counts = Vec::new();
    for weight in trits::linear(source.config()) {
        match trits::of_layer(source, weight) {
            Ok(count) => counts.push(count),
            Err(error) if verify => return Err(error),
            Err(error) => remarks.push(error.to_string()),
        }
    }
    Ok(counts)
}

/// Trits and scales of all matrices, of each layer, and in sum.
fn set_counts(facts: &mut Value, counts: &[TritCounts], remarks: &mut Vec<String>) {
    for c in counts {
        let name = &c.weight.name;
        if c.zero == c.all() {
            remarks.push(format!("{name}: every weight is zero"));
        } else if c.zero_rows > 0 {
            remarks.push(format!(
                "{name}: {} rows of {} are zero",
                c.zero_rows, c.weight.rows
            ));
        }
        if !c.scale.is_finite() {
            remarks.push(format!("{name}: the scale is {}", c.scale));
        }
    }
    facts["matrices"] = counts.iter().map(TritCounts::json).collect();
    facts["zeros"] = zeros(counts).into();
    let layers = facts["num_hidden_layers"].as_u64().unwrap_or(0);
    let of_layer = |i: u64| -> Vec<TritCounts> {
        let prefix = format!("model.layers.{i}.");
        let own = counts.iter().filter(|c| c.weight.name.starts_with(&prefix));
        own.cloned().collect()
    };
    facts["layers"] = (0..layers)
        .map(|i| {
            let counts = of_layer(i);
            let scales = counts.iter().map(|c| c.scale);
            let least = scales.clone().fold(f32::INFINITY, f32::min);
            let most = scales.fold(0f32, f32::max);
            json!({
                "layer": i, "zeros": zeros(&counts),
                "least_scale": least, "largest_scale": most,
            })
        })
        .collect();
}

fn zeros(counts: &[TritCounts]) -> f64 {
    let sum = |f: fn(&TritCounts) -> u64| counts.iter().map(f).sum::<u64>() as f64;
    sum(|c| c.zero) / sum(TritCounts::all)
}

/// Remarks on norms and tables of zeros, or with NaN or infinities.
fn look_at_values(source: &dyn Source, remarks: &mut Vec<String>) {
    for weight in layout::weights(source.config()) {
        let is_zero = match weight.role {
            Role::Linear => continue,
            Role::Norm => source.vector(&weight).map(|v| v.iter().all(|x| *x == 0.0)),
            Role::Table => is_zero_table(source, &weight),
        };
        match is_zero {
            Ok(true) => remarks.push(format!("{}: every value is zero", weight.name)),
            Ok(false) => {}
            Err(error) => remarks.push(error.to_string()),
        }
    }
}

/// Whether every value is zero. Reads the whole table, because readers refuse values that are not
/// finite.
fn is_zero_table(source: &dyn Source, weight: &Weight) -> sterna_convert::Result<bool> {
    let rows = ((1 << 22) / weight.columns).clamp(1, weight.rows);
    let mut values = vec![0.0; rows * weight.columns];
    let mut is_zero = true;
    for first in (0..weight.rows).step_by(rows) {
        let count = rows.min(weight.rows - first);
        let part = &mut values[..count * weight.columns];
        source.rows(weight, first, part)?;
        is_zero &= part.iter().all(|x| *x == 0.0);
    }
    Ok(is_zero)
}

/// Types and widths of embedding and head.
fn set_tables(facts: &mut Value, source: &dyn Source, packed: Option<&PackedFile>) {
    let config = source.config();
    let head = if config.tie_word_embeddings {
        EMBEDDING
    } else {
        HEAD
    };
    let weights = layout::weights(config);
    for (key, name) in [("embedding", EMBEDDING), ("head", head)] {
        let Some(weight) = weights.iter().find(|w| w.name == name) else {
            continue;
        };
        facts[key] = match packed {
            Some(file) if key == "head" => type_name(&file.head().values).into(),
            Some(file) => type_name(&file.embedding().values).into(),
            None => source.dtype(weight).name().to_lowercase().into(),
        };
        if key == "head" {
            let bits = 8.0 * source.stored_bytes(weight) as f64;
            facts["bits_per_head_weight"] = (bits / (weight.rows * weight.columns) as f64).into();
        }
    }
}

fn type_name(values: &Values) -> &'static str {
    match values {
        Values::F32(_) => "f32",
        Values::F16(_) => "f16",
        Values::Bf16(_) => "bf16",
        Values::Trits(_) => "ternary",
        Values::Codes(codes) => ["q4", "q6", "q8"][codes.planes - 1],
    }
}

/// Tokenizer, chat template, and the tokens that end a text. The key `error` says why one of them
/// cannot be used.
fn set_tokenizer(facts: &mut Value, path: &Path, source: &dyn Source) {
    let file = |name: &str| {
        let found = source.files().iter().find(|(n, _)| n == name);
        found.map(|(_, bytes)| bytes.as_slice())
    };
    if let Some(bytes) = file("tokenizer.json") {
        let json: Value = serde_json::from_slice(bytes).unwrap_or_default();
        facts["tokenizer"] = json!({
            "type": json["model"]["type"],
            "tokens": null,
            "split_rule": sterna_convert::split_rule(&json["pre_tokenizer"]),
            "tokenizer.ggml.pre": pre(path),
        });
        match Tokenizer::of_files(source.config(), file) {
            Err(error) => facts["tokenizer"]["error"] = error.to_string().into(),
            Ok(tokenizer) => {
                facts["tokenizer"]["tokens"] = tokenizer.len().into();
                facts["eos"] = ends(&tokenizer);
            }
        }
    }
    facts["chat_template"] = match ChatTemplate::of_files(file) {
        Ok(template) => {
            let lines = template.original().lines();
            let first = lines.map(str::trim).find(|line| !line.is_empty());
            json!({"format": format_of(template.original()), "first_line": first})
        }
        Err(sterna_runtime::Error::NoChatTemplate) => Value::Null,
        Err(error) => json!({"error": error.to_string()}),
    };
}

/// The value of `tokenizer.ggml.pre`, if the model is a GGUF file.
fn pre(path: &Path) -> Option<String> {
    let is_gguf = path.is_file() && sterna_convert::is_gguf(path).unwrap_or(false);
    let gguf = is_gguf.then(|| Gguf::open(path, &GgufHints::default(), true).ok())??;
    gguf.text("tokenizer.ggml.pre").map(str::to_owned)
}

fn ends(tokenizer: &Tokenizer) -> Value {
    let ends = tokenizer.eos().iter();
    ends.map(|id| json!({"id": id, "token": tokenizer.token(*id).map(|(name, _)| name)}))
        .collect()
}

/// Bytes that generation needs with `context` tokens: the weights of the packed file, and the cache
/// in each of its types.
fn memory(file: &PackedFile, context: Option<usize>) -> Value {
    let context = context.unwrap_or(file.config.max_position_embeddings);
    let cache = |kv_type| KvCache::bytes_for(&file.config, kv_type, context);
    json!({
        "context": context,
        "weights": file.len(),
        "cache": {
            "f32": cache(KvType::F32), "f16": cache(KvType::F16), "q8": cache(KvType::Q8),
        },
    })
}
