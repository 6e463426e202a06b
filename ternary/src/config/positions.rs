//! Positions in config.json: rotary embeddings with their scalings, and layers with a sliding
//! window.

use serde_json::{Value, json};

use super::{Keys, Sliding, bad, unsupported};
use crate::family::Family;
use crate::rope::{self, Rope, RopeScaling};
use crate::{Config, Error, Result};

const FULL: &str = Config::FULL;
const SLIDING: &str = Config::SLIDING;

/// Reads which layers have a window, from `layer_types` or, in older files, from the distance
/// between full-attention layers.
pub(super) fn sliding(
    keys: &Keys,
    family: &Family,
    num_hidden_layers: usize,
) -> Result<Option<Sliding>> {
    let Some(default_theta) = family.local_rope_theta else {
        return Ok(None);
    };
    let layers: Vec<bool> = match keys.get("layer_types") {
        Some(types) => layer_types(types, num_hidden_layers)?,
        None => {
            let old = keys.get("_sliding_window_pattern").is_some();
            let key = ["sliding_window_pattern", "_sliding_window_pattern"][usize::from(old)];
            let pattern = keys.get(key).ok_or(Error::MissingKey("layer_types"));
            let pattern = pattern.and_then(|_| keys.size(key))?;
            (1..=num_hidden_layers)
                .map(|n| !n.is_multiple_of(pattern))
                .collect()
        }
    };
    if !layers.contains(&true) {
        return Ok(None);
    }
    Ok(Some(Sliding {
        window: keys.size("sliding_window")?,
        rope: local_rope(keys, default_theta)?,
        layers,
    }))
}

/// For each layer, whether it has a window.
fn layer_types(types: &Value, num_hidden_layers: usize) -> Result<Vec<bool>> {
    let is_sliding = |kind: &Value| match kind.as_str() {
        Some(SLIDING) => Some(true),
        Some(FULL) => Some(false),
        _ => None,
    };
    let layers: Option<Vec<bool>> = types
        .as_array()
        .and_then(|types| types.iter().map(is_sliding).collect());
    let layers = layers.filter(|layers| layers.len() == num_hidden_layers);
    layers.ok_or_else(|| {
        let expected = format!("{SLIDING} or {FULL} for each of {num_hidden_layers} layers");
        bad("layer_types", &expected, types)
    })
}

/// Rotary positions of layers with a window, from `rope_local_base_freq` or, in newer files, from
/// `rope_parameters`.
fn local_rope(keys: &Keys, default_theta: f64) -> Result<Rope> {
    let nothing = Value::Null;
    let parameters = keys.get("rope_parameters").unwrap_or(&nothing);
    let settings = Keys(Keys(parameters).get(SLIDING).unwrap_or(&nothing));
    if let Some(kind) = settings.text("rope_type")?.filter(|k| *k != "default") {
        let what = format!("rope scaling {kind} in layers with a sliding window");
        return Err(unsupported(&what, "expected default"));
    }
    let theta = match (settings.get("rope_theta"), keys.get("rope_local_base_freq")) {
        (Some(_), _) => settings.positive("rope_theta")?,
        (None, Some(_)) => keys.positive("rope_local_base_freq")?,
        (None, None) => default_theta,
    };
    Ok(Rope {
        theta,
        scaling: RopeScaling::None,
    })
}

/// Reads both forms: `rope_theta` with `rope_scaling`, and `rope_parameters`, which holds both.
/// Families with several kinds of layers have one entry per kind.
pub(super) fn rope(keys: &Keys, family: &Family) -> Result<Rope> {
    let nothing = Value::Null;
    let parameters = keys.get("rope_parameters").unwrap_or(&nothing);
    let parameters = match family.local_rope_theta {
        Some(_) => Keys(parameters).get(FULL).unwrap_or(&nothing),
        None => parameters,
    };
    let theta = match Keys(parameters).get("rope_theta") {
        Some(_) => Keys(parameters).positive("rope_theta")?,
        None => keys.positive("rope_theta")?,
    };
    let settings = if parameters.is_object() {
        parameters
    } else {
        keys.get("rope_scaling").unwrap_or(&nothing)
    };
    let scaling = Keys(settings);
    let kind = scaling
        .text("rope_type")?
        .or(scaling.text("type")?)
        .unwrap_or("default");
    let scaling = match kind {
        "default" => RopeScaling::None,
        "linear" => RopeScaling::Linear {
            factor: scaling.positive("factor")?,
        },
        "llama3" => RopeScaling::Llama3 {
            factor: scaling.positive("factor")?,
            low_freq_factor: scaling.positive("low_freq_factor")?,
            high_freq_factor: scaling.positive("high_freq_factor")?,
            original_max_position_embeddings: scaling
                .positive("original_max_position_embeddings")?,
        },
        "yarn" => yarn(&scaling, theta)?,
        kind => {
            let hint = "known: default, linear, llama3, yarn";
            return Err(unsupported(&format!("rope scaling {kind}"), hint));
        }
    };
    Ok(Rope { theta, scaling })
}

fn yarn(scaling: &Keys, theta: f64) -> Result<RopeScaling> {
    for key in ["mscale", "mscale_all_dim"] {
        if scaling.get(key).is_some() {
            return Err(unsupported(&format!("`{key}` in the rope scaling"), ""));
        }
    }
    if scaling.get("truncate") == Some(&Value::Bool(false)) {
        let what = "`truncate` false in the rope scaling";
        return Err(unsupported(what, ""));
    }
    if theta <= 1.0 {
        return Err(bad("rope_theta", "a number above 1", &json!(theta)));
    }
    let or = |key, default| match scaling.get(key) {
        Some(_) => scaling.positive(key),
        None => Ok(default),
    };
    let factor = scaling.positive("factor")?;
    Ok(RopeScaling::Yarn {
        factor,
        beta_fast: or("beta_fast", 32.0)?,
        beta_slow: or("beta_slow", 1.0)?,
        attention_factor: or("attention_factor", rope::yarn_attention_factor(factor))?,
        original_max_position_embeddings: scaling.positive("original_max_position_embeddings")?,
    })
}

pub(super) fn scaling_json(scaling: &RopeScaling) -> Option<Value> {
    match *scaling {
        RopeScaling::None => None,
        RopeScaling::Linear { factor } => Some(json!({ "rope_type": "linear", "factor": factor })),
        RopeScaling::Llama3 {
            factor,
            low_freq_factor,
            high_freq_factor,
            original_max_position_embeddings,
        } => Some(json!({
            "rope_type": "llama3",
            "factor": factor,
            "low_freq_factor": low_freq_factor,
            "high_freq_factor": high_freq_factor,
            "original_max_position_embeddings": original_max_position_embeddings as u64,
        })),
        RopeScaling::Yarn {
            factor,
            beta_fast,
            beta_slow,
            attention_factor,
            original_max_position_embeddings,
        } => Some(json!({
            "rope_type": "yarn",
            "factor": factor,
            "beta_fast": beta_fast,
            "beta_slow": beta_slow,
            "attention_factor": attention_factor,
            "original_max_position_embeddings": original_max_position_embeddings as u64,
        })),
    }
}
