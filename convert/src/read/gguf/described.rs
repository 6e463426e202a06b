//! The description of the model in a file: its architecture, its embedded config, and facts that
//! only the tensors show.

use std::collections::HashMap;

use serde_json::Value;
use sterna_ternary::config::Storage;
use sterna_ternary::layout::{self, HEAD};
use sterna_ternary::{Activations, Config, Family};

use super::config;
use super::container::Container;
use crate::Result;
use crate::gguf::names::{self, Architecture};
use crate::gguf::types::{self, Type};
use crate::gguf::{CONFIG, floats};

pub(crate) fn architecture(container: &Container) -> Result<&'static Architecture> {
    const KEY: &str = "general.architecture";
    const SPLIT: &str = "split.count";
    let metadata = &container.metadata;
    if let Some(key) = metadata
        .pairs
        .keys()
        .filter(|k| k.starts_with("prism.hadamard"))
        .min()
    {
        let expected = "weights as they are";
        return Err(metadata.bad(key, expected, "weights in a rotated basis"));
    }
    if let Some(parts) = metadata.unsigned(SPLIT)?.filter(|n| *n > 1) {
        let found = format!("one of {parts} parts");
        return Err(metadata.bad(
            SPLIT,
            "a whole file, as llama-gguf-split --merge makes it",
            found,
        ));
    }
    let name = metadata.text(KEY)?;
    name.and_then(Architecture::find).ok_or_else(|| {
        let expected = format!("one of {}", Architecture::known());
        metadata.bad(KEY, expected, name.unwrap_or("nothing"))
    })
}

/// Collects the facts that the tensors show.
pub(crate) fn facts(
    container: &Container,
    types: &HashMap<u32, &'static Type>,
    family: &Family,
    is_untied: bool,
    warnings: &mut Vec<String>,
) -> Result<config::Facts> {
    let find = |name: &str| container.tensors.get(name);
    let embedding = find(&names::of(family, layout::EMBEDDING));
    let head = find(&names::of(family, HEAD));
    let is_tied = match (embedding, head) {
        (Some(_), Some(_)) if is_untied => false,
        (Some(a), Some(b)) if a.type_id == b.type_id && a.dimensions == b.dimensions => {
            let bytes = types[&a.type_id].bytes(a).unwrap_or(0) as usize;
            let same = container.map(a, 0, bytes)?[..] == container.map(b, 0, bytes)?[..];
            if same {
                warnings.push("output.weight repeats token_embd.weight and was left out".into());
            }
            same
        }
        (_, head) => head.is_none(),
    };
    let rope_factors = match find(names::ROPE_FACTORS) {
        Some(info) if info.type_id == types::F32.id => {
            let bytes = types::F32.bytes(info).unwrap_or(0) as usize;
            let mut factors = vec![0.0; bytes / 4];
            floats::decode_f32(&container.map(info, 0, bytes)?, &mut factors);
            Some(factors)
        }
        Some(_) => Some(Vec::new()), // refused as unknown factors
        None => None,
    };
    Ok(config::Facts {
        vocab_size: embedding.map_or(0, |e| e.elements() / e.columns()),
        is_tied,
        rope_factors,
        has_linear_norms: find(names::FIRST_LINEAR_NORM).is_some(),
    })
}

pub(crate) fn embedded_config(container: &Container) -> Result<Option<Value>> {
    let Some(text) = container.metadata.text(CONFIG)? else {
        return Ok(None);
    };
    let json = serde_json::from_str(text).ok().filter(Value::is_object);
    let bad = || {
        container
            .metadata
            .bad(CONFIG, "a JSON object", "other text")
    };
    json.map(Some).ok_or_else(bad)
}

/// The config.json of a model with packed trits. If the model was trained without quantized
/// activations, it has no `quantization_config`, because that implies int8 activations.
pub(crate) fn packed_config(config: &Config, is_weights_only: bool) -> Value {
    let mut json = config.to_json();
    json["quantization_config"]["quantization_mode"] = "offline".into();
    if let Some(json) = json.as_object_mut().filter(|_| is_weights_only) {
        json.remove("quantization_config");
    }
    json
}

/// Whether a matrix has a type that is used only for models trained without quantized activations.
pub(crate) fn is_weights_only(container: &Container, types: &HashMap<u32, &'static Type>) -> bool {
    const TYPES: [&str; 4] = ["Q2_0", "Q2_0 in groups of 128", "PQ2_0", "PTQ1_0"];
    let is_matrix = |name: &str| name.starts_with("blk.");
    let mut tensors = container.tensors.values().filter(|t| is_matrix(&t.name));
    tensors.any(|t| TYPES.contains(&types[&t.type_id].name))
}

/// The rounding of activations in config.json: 16 bits if it declares none.
pub(crate) fn activations(config_json: &[u8]) -> Activations {
    let json: Value = serde_json::from_slice(config_json).unwrap_or_default();
    match Config::storage(&json) {
        Ok(Storage::Products) => Activations::Int16,
        _ => Activations::Int8,
    }
}
