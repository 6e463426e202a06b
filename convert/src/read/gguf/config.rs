//! Converts GGUF metadata to a config, and refuses settings that a config cannot express.

use serde_json::{Value, json};
use sterna_ternary::Config;
use sterna_ternary::rope::RopeScaling;

use super::metadata::Metadata;
use crate::gguf::names::Architecture;
use crate::{Error, Result};

/// Facts about the model that come from its tensors, because metadata lacks them or is unreliable.
pub(crate) struct Facts {
    pub vocab_size: u64,
    pub is_tied: bool,
    /// Factors of the rotary frequencies, as in Llama 3.
    pub rope_factors: Option<Vec<f32>>,
    /// Whether the model has norms before linear layers.
    pub has_linear_norms: bool,
}

/// Key of the number of positions that a token attends to in layers with a window.
const SLIDING_WINDOW: &str = "attention.sliding_window";

/// Settings that change the computation and that no supported family has.
const NOT_COMPUTED: [&str; 8] = [
    "attention.scale",
    "attn_logit_softcapping",
    "final_logit_softcapping",
    "logit_scale",
    "residual_scale",
    "embedding_scale",
    "expert_count",
    "rope.scaling.attn_factor",
];

/// Reads the config. `given` is the config.json that Sterna's writer embeds.
pub(crate) fn read(
    metadata: &Metadata,
    architecture: &Architecture,
    facts: &Facts,
    given: Option<&Value>,
    warnings: &mut Vec<String>,
) -> Result<Config> {
    let keys = Keys {
        metadata,
        prefix: architecture.name,
    };
    for name in NOT_COMPUTED {
        keys.refuse_unless_neutral(name)?;
    }
    if architecture.family().local_rope_theta.is_none() {
        keys.refuse_unless_neutral(SLIDING_WINDOW)?;
    }
    let error = |source| Error::Config {
        path: metadata.path.clone(),
        source,
    };
    let mut json = keys.json(architecture, facts, warnings)?;
    if let Some(factors) = &facts.rope_factors {
        let base = Config::from_json(&json).map_err(error)?;
        json["rope_scaling"] = llama3(metadata, &base, factors, given)?;
    }
    let config = Config::from_json(&json).map_err(error)?;
    warnings.extend(keys.other_pooling()?);
    let Some(given) = given else {
        return Ok(config);
    };
    // The embedded config.json has more detail (all end tokens, numbers in f64). It must agree with
    // the metadata.
    let given = Config::from_json(given).map_err(error)?;
    let same = Config {
        max_position_embeddings: config.max_position_embeddings,
        bos_token_id: config.bos_token_id,
        eos_token_id: config.eos_token_id.clone(),
        rope: config.rope,
        sliding: config.sliding.clone(),
        embedding_multiplier: config.embedding_multiplier, // other programs do not round it
        ..given.clone()
    };
    if same == config && same_rotations(&given, &config) {
        return Ok(given);
    }
    let expected = "what the other keys and the tensors say";
    Err(metadata.bad(crate::gguf::CONFIG, expected, "another model"))
}

/// Whether windows are equal, and base frequencies are equal in f32, the type in metadata.
fn same_rotations(a: &Config, b: &Config) -> bool {
    let local = |c: &Config| c.sliding.as_ref().map(|s| s.rope.theta as f32);
    let windows =
        |c: &Config| -> Vec<_> { (0..c.num_hidden_layers).map(|i| c.window(i)).collect() };
    a.rope.theta as f32 == b.rope.theta as f32 && local(a) == local(b) && windows(a) == windows(b)
}

/// The divisor, under the root, of attention scores that other programs assume for an architecture
/// without this key.
pub(crate) fn query_pre_attn_scalar(
    layers: u64,
    hidden_size: u64,
    heads: u64,
    head_dim: u64,
) -> u64 {
    /// Number of layers of Gemma 3 27B.
    const LAYERS_27B: u64 = 62;
    match layers {
        LAYERS_27B => hidden_size / heads,
        _ => head_dim,
    }
}

/// Default distance between layers without a window.
pub(crate) const USUAL_PATTERN: usize = 6;
/// Default base frequency of layers with a window.
pub(crate) const USUAL_LOCAL_THETA: f64 = 10_000.0;

/// The frequency factors of a config with scaling, for [`crate::gguf::names::ROPE_FACTORS`].
pub(crate) fn rope_factors(config: &Config) -> Option<Vec<f32>> {
    match config.rope.scaling {
        RopeScaling::Llama3 { .. } => Some(config.rope.factors(config.head_dim)),
        _ => None,
    }
}

/// Finds the settings that give these frequency factors: those of the embedded config, or of Llama
/// 3.1 and 3.2.
fn llama3(
    metadata: &Metadata,
    base: &Config,
    factors: &[f32],
    given: Option<&Value>,
) -> Result<Value> {
    let largest = factors.iter().copied().fold(1.0, f32::max);
    let published = json!({
        "rope_type": "llama3", "factor": f64::from(largest), "low_freq_factor": 1.0,
        "high_freq_factor": 4.0, "original_max_position_embeddings": 8192,
    });
    let given = given.and_then(|json| json.get("rope_scaling").or(json.get("rope_parameters")));
    for settings in given.into_iter().chain([&published]) {
        let mut json = base.to_json();
        json["rope_scaling"] = settings.clone();
        let Ok(config) = Config::from_json(&json) else {
            continue;
        };
        let expected = rope_factors(&config).unwrap_or_default();
        let is_close = |(a, b): (&f32, &f32)| (a - b).abs() <= 1e-4 * b.abs();
        if expected.len() == factors.len() && expected.iter().zip(factors).all(is_close) {
            return Ok(settings.clone());
        }
    }
    Err(Error::Gguf {
        path: metadata.path.clone(),
        part: format!("tensor {}", crate::gguf::names::ROPE_FACTORS),
        expected: "the frequency factors of Llama 3.1".into(),
        found: "others".into(),
        advice: "convert the Hugging Face checkpoint of this model",
    })
}

/// Keys with the prefix of the architecture.
struct Keys<'a> {
    metadata: &'a Metadata,
    prefix: &'a str,
}

impl Keys<'_> {
    fn json(
        &self,
        architecture: &Architecture,
        facts: &Facts,
        warnings: &mut Vec<String>,
    ) -> Result<Value> {
        let family = architecture.family();
        let hidden_size = self.size("embedding_length")?;
        let heads = self.size("attention.head_count")?;
        let head_dim = match self.unsigned("attention.key_length")? {
            Some(n) => n,
            None => hidden_size / heads,
        };
        for key in ["attention.value_length", "rope.dimension_count"] {
            if let Some(n) = self.unsigned(key)?.filter(|n| *n != head_dim) {
                return Err(self.bad(key, format!("{head_dim}, the width of a head"), n));
            }
        }
        // Other programs read a file without a base as 10000, so this is a warning.
        let theta = self.metadata.float(&self.key("rope.freq_base"))?;
        if theta.is_none() {
            warnings.push(format!(
                "there is no {}: 10000 is used, as in other programs",
                self.key("rope.freq_base")
            ));
        }
        let token = |key: &str| {
            self.metadata
                .unsigned(&format!("tokenizer.ggml.{key}_token_id"))
        };
        let epsilon = self
            .metadata
            .float(&self.key("attention.layer_norm_rms_epsilon"))?;
        let layers = self.size("block_count")?;
        // The same keys as in a Hugging Face folder, so that `Config::from_json` checks both.
        let mut json = json!({
            "architectures": [architecture.class],
            "model_type": architecture.model_type,
            "hidden_size": hidden_size,
            "intermediate_size": self.size("feed_forward_length")?,
            "num_hidden_layers": layers,
            "num_attention_heads": heads,
            "num_key_value_heads": self.unsigned("attention.head_count_kv")?.unwrap_or(heads),
            "head_dim": head_dim,
            "vocab_size": facts.vocab_size,
            "max_position_embeddings": self.size("context_length")?,
            "rms_norm_eps": epsilon,
            "rope_theta": theta.unwrap_or(10000.0),
            "rope_scaling": self.rope_scaling()?,
            "tie_word_embeddings": facts.is_tied,
            "bos_token_id": token("bos")?,
            "eos_token_id": token("eos")?,
        });
        json[family.activation_key] = family.activation.name().into();
        // Keys that only some families have.
        if facts.has_linear_norms {
            json["quantization_config"] = json!({"use_rms_norm": true, "rms_norm_eps": epsilon});
        }
        if family.query_pre_attn_scalar {
            let scalar = query_pre_attn_scalar(layers, hidden_size, heads, head_dim);
            json["query_pre_attn_scalar"] = scalar.into();
        }
        if family.local_rope_theta.is_some() {
            self.windows(&mut json, layers)?;
        }
        Ok(json)
    }

    /// Adds the layers with a window: all but every sixth, unless a key gives another distance.
    fn windows(&self, json: &mut Value, layers: u64) -> Result<()> {
        let window = self.unsigned(SLIDING_WINDOW)?.filter(|n| *n > 0);
        let pattern = self.unsigned("attention.sliding_window_pattern")?;
        let pattern = pattern.unwrap_or(USUAL_PATTERN as u64);
        let most = Config::MOST_LAYERS as u64;
        if layers > most {
            return Err(self.bad("block_count", format!("at most {most}"), layers));
        }
        let kind = |layer: u64| match (window, pattern) {
            (Some(_), 0) => Config::SLIDING,
            (Some(_), n) if !(layer + 1).is_multiple_of(n) => Config::SLIDING,
            _ => Config::FULL,
        };
        json["layer_types"] = (0..layers).map(kind).collect();
        json["sliding_window"] = window.into();
        let theta = self.metadata.float(&self.key("rope.freq_base_swa"))?;
        json["rope_local_base_freq"] = theta.unwrap_or(USUAL_LOCAL_THETA).into();
        Ok(())
    }

    fn key(&self, name: &str) -> String {
        format!("{}.{name}", self.prefix)
    }

    fn bad(&self, name: &str, expected: impl Into<String>, found: impl ToString) -> Error {
        self.metadata
            .bad(&self.key(name), expected, found.to_string())
    }

    fn unsigned(&self, name: &str) -> Result<Option<u64>> {
        self.metadata.unsigned(&self.key(name))
    }

    fn size(&self, name: &str) -> Result<u64> {
        let size = self.unsigned(name)?;
        let found = size.map_or("nothing".into(), |n| n.to_string());
        size.filter(|n| *n > 0)
            .ok_or_else(|| self.bad(name, "a number above zero", found))
    }

    /// Reads the rope scaling. A factor of one means no scaling: some exporters always write it.
    fn rope_scaling(&self) -> Result<Value> {
        let factor = match self.metadata.float(&self.key("rope.scaling.factor"))? {
            Some(factor) => Some(factor),
            None => self.metadata.float(&self.key("rope.scale_linear"))?,
        };
        let kind = self.metadata.text(&self.key("rope.scaling.type"))?;
        Ok(match (kind, factor) {
            (Some("none"), _) | (None, None) | (Some("linear") | None, Some(1.0)) => Value::Null,
            (Some("yarn"), factor) => {
                for name in ["ext_factor", "attn_factor", "beta_fast", "beta_slow"] {
                    self.refuse_unless_absent(&format!("rope.scaling.yarn_{name}"))?;
                }
                let original = self.unsigned("rope.scaling.original_context_length")?;
                json!({
                    "rope_type": "yarn",
                    "factor": factor,
                    "original_max_position_embeddings": original,
                })
            }
            (kind, factor) => json!({ "rope_type": kind.unwrap_or("linear"), "factor": factor }),
        })
    }

    /// A warning for an embedding model whose vectors are not those of the last token.
    fn other_pooling(&self) -> Result<Option<String>> {
        /// llama.cpp: 1 is the mean, 2 the first token, 3 the last token.
        const OTHERS: [u64; 2] = [1, 2];
        let pooling = self.unsigned("pooling_type")?;
        let other = pooling.filter(|n| OTHERS.contains(n));
        Ok(other.map(|n| {
            let key = self.key("pooling_type");
            format!(
                "{key} is {n} (1 mean, 2 first token); `sterna embed` takes the last token's vector"
            )
        }))
    }

    fn refuse_unless_absent(&self, name: &str) -> Result<()> {
        match self.metadata.has(&self.key(name)) {
            true => Err(self.bad(name, "no such setting", "one")),
            false => Ok(()),
        }
    }

    fn refuse_unless_neutral(&self, name: &str) -> Result<()> {
        let key = self.key(name);
        if !self.metadata.has(&key) {
            return Ok(());
        }
        let number = match self.metadata.float(&key) {
            Ok(number) => number,
            Err(_) => self.metadata.unsigned(&key)?.map(|n| n as f64),
        };
        match number {
            Some(n) if n != 0.0 && n != 1.0 => Err(self.bad(name, "no such setting", n)),
            _ => Ok(()),
        }
    }
}
