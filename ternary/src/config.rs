//! A model's shape and constants, read from and written to Hugging Face `config.json`.
//!
//! Reading refuses what the runtime would compute wrongly: an unknown family, another activation, biases,
//! sliding windows, unknown rope scalings. A field that decides about results and is absent is an error and
//! not a class default, unless the model class of every published checkpoint agrees on it.

use serde_json::{Map, Value, json};

use crate::family::{Activation, DefaultHeadDim, Family};
use crate::rope::{self, Rope, RopeScaling};
use crate::{Error, Result, json};

/// Everything about a decoder but its weights. Field names are those of config.json.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// The row of [`crate::family::FAMILIES`].
    pub family: &'static Family,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width of the feed-forward network.
    pub intermediate_size: usize,
    /// Number of decoder layers.
    pub num_hidden_layers: usize,
    /// Query heads.
    pub num_attention_heads: usize,
    /// Key and value heads; divides `num_attention_heads`.
    pub num_key_value_heads: usize,
    /// Width of one head, even.
    pub head_dim: usize,
    /// Rows of the embedding and of the head.
    pub vocab_size: usize,
    /// Longest context of training.
    pub max_position_embeddings: usize,
    /// Added to the mean square in every RMSNorm.
    pub rms_norm_eps: f32,
    /// Rotary positions.
    pub rope: Rope,
    /// Whether the head is the embedding.
    pub tie_word_embeddings: bool,
    /// First token of every sequence.
    pub bos_token_id: Option<u32>,
    /// Tokens that end a sequence.
    pub eos_token_id: Vec<u32>,
}

/// How the linear layers are stored, as `quantization_config` says, or `weight_bits` with `input_bits`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Storage {
    /// Packed uint8 planes; the weight is trit × `weight_scale`.
    PackedMultiply,
    /// Packed uint8 planes; the weight is trit / `weight_scale`.
    PackedDivide,
    /// Master weights, ternarized at load with absmean.
    Online,
    /// Products of trits and scales, and nothing that says so: the weights themselves must show it.
    Products,
}

impl Config {
    /// Reads a parsed config.json.
    pub fn from_json(json: &Value) -> Result<Config> {
        let keys = Keys(json);
        let family = family(&keys)?;
        refuse_what_is_not_computed(&keys, family)?;
        let hidden_size = keys.size("hidden_size")?;
        let num_attention_heads = keys.size("num_attention_heads")?;
        let num_key_value_heads = match keys.get("num_key_value_heads") {
            None if family.kv_heads_default_to_heads => num_attention_heads,
            _ => keys.size("num_key_value_heads")?,
        };
        let head_dim = match (keys.get("head_dim"), family.default_head_dim) {
            (Some(_), _) => keys.size("head_dim")?,
            (None, DefaultHeadDim::Fixed(n)) => n,
            (None, DefaultHeadDim::HiddenOverHeads) => hidden_size / num_attention_heads,
        };
        let config = Config {
            family,
            hidden_size,
            intermediate_size: keys.size("intermediate_size")?,
            num_hidden_layers: keys.size("num_hidden_layers")?,
            num_attention_heads,
            num_key_value_heads,
            head_dim,
            vocab_size: keys.size("vocab_size")?,
            max_position_embeddings: keys.size("max_position_embeddings")?,
            rms_norm_eps: keys.positive_single("rms_norm_eps")?,
            rope: rope(&keys)?,
            tie_word_embeddings: keys.boolean("tie_word_embeddings")?,
            bos_token_id: keys.ids("bos_token_id")?.first().copied(),
            eos_token_id: keys.ids("eos_token_id")?,
        };
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<()> {
        let bad = |key, expected: String, found: usize| {
            Err(Error::BadKey {
                key,
                expected,
                found: found.to_string(),
            })
        };
        if !self
            .num_attention_heads
            .is_multiple_of(self.num_key_value_heads)
        {
            let expected = format!(
                "a divisor of num_attention_heads {}",
                self.num_attention_heads
            );
            return bad("num_key_value_heads", expected, self.num_key_value_heads);
        }
        if self.head_dim == 0 || !self.head_dim.is_multiple_of(2) {
            return bad(
                "head_dim",
                "an even number above zero".into(),
                self.head_dim,
            );
        }
        if self.num_attention_heads * self.head_dim > LARGEST {
            let expected = format!("at most {LARGEST} / num_attention_heads");
            return bad("head_dim", expected, self.head_dim);
        }
        if self.num_hidden_layers > MOST_LAYERS {
            return bad(
                "num_hidden_layers",
                format!("at most {MOST_LAYERS}"),
                self.num_hidden_layers,
            );
        }
        Ok(())
    }

    /// The config.json of a checkpoint with master weights, as `transformers` loads it: the linear layers
    /// are ternarized online and activations are quantized to int8.
    pub fn to_json(&self) -> Value {
        let ids = |ids: &[u32]| match ids {
            [] => Value::Null,
            [id] => json!(id),
            ids => json!(ids),
        };
        let mut json = json!({
            "architectures": [self.family.architecture],
            "attention_bias": false,
            "attention_dropout": 0.0,
            "bos_token_id": self.bos_token_id,
            "eos_token_id": ids(&self.eos_token_id),
            "head_dim": self.head_dim,
            "hidden_act": self.family.activation.name(),
            "hidden_size": self.hidden_size,
            "initializer_range": 0.02,
            "intermediate_size": self.intermediate_size,
            "max_position_embeddings": self.max_position_embeddings,
            "model_type": self.family.model_type,
            "num_attention_heads": self.num_attention_heads,
            "num_hidden_layers": self.num_hidden_layers,
            "num_key_value_heads": self.num_key_value_heads,
            "quantization_config": {
                "linear_class": "autobitlinear",
                "modules_to_not_convert": ["lm_head"],
                "quant_method": "bitnet",
                "quantization_mode": "online",
            },
            "rms_norm_eps": shortest(self.rms_norm_eps),
            "rope_theta": self.rope.theta,
            "tie_word_embeddings": self.tie_word_embeddings,
            "torch_dtype": "float32",
            "use_cache": true,
            "vocab_size": self.vocab_size,
        });
        if let Some(scaling) = scaling_json(&self.rope.scaling) {
            json["rope_scaling"] = scaling;
        }
        json
    }

    /// How the linear layers of a Hugging Face checkpoint with this config.json are stored.
    pub fn storage(json: &Value) -> Result<Storage> {
        let Some(quantization) = Keys(json).get("quantization_config") else {
            // The models of 1bitLLM.
            let bits = ["weight_bits", "input_bits"].map(|key| Keys(json).get(key));
            return Ok(match bits == [Some(&json!(1)), Some(&json!(8))] {
                true => Storage::Online,
                false => Storage::Products,
            });
        };
        let keys = Keys(quantization);
        let text = |key, default| keys.text(key).map(|text| text.unwrap_or(default));
        let method = text("quant_method", "absent")?;
        if method != "bitnet" {
            return Err(unsupported(
                &format!("`quant_method` {method}"),
                "expected bitnet",
            ));
        }
        if keys.get("use_rms_norm") == Some(&Value::Bool(true)) {
            return Err(unsupported(
                "`use_rms_norm` (a norm before every linear layer)",
                "",
            ));
        }
        refuse_other_exceptions(&keys)?;
        // The defaults are those of transformers' BitNetQuantConfig.
        match (
            text("linear_class", "bitlinear")?,
            text("quantization_mode", "offline")?,
        ) {
            ("bitlinear", _) => Ok(Storage::PackedDivide),
            ("autobitlinear", "offline") => Ok(Storage::PackedMultiply),
            ("autobitlinear", "online") => Ok(Storage::Online),
            (class, mode) => Err(unsupported(
                &format!("`linear_class` {class} with `quantization_mode` {mode}"),
                "expected bitlinear, or autobitlinear with offline or online",
            )),
        }
    }
}

fn family(keys: &Keys) -> Result<&'static Family> {
    let model_type = keys
        .text("model_type")?
        .ok_or(Error::MissingKey("model_type"))?;
    let first = keys
        .get("architectures")
        .and_then(|a| a.get(0))
        .and_then(Value::as_str);
    let architecture = first.ok_or(Error::MissingKey("architectures"))?;
    Family::find(model_type, architecture).ok_or_else(|| {
        unsupported(
            &format!("architecture {architecture} with `model_type` {model_type}"),
            &format!("known families: {}", Family::known()),
        )
    })
}

fn refuse_what_is_not_computed(keys: &Keys, family: &Family) -> Result<()> {
    let act = keys
        .text("hidden_act")?
        .ok_or(Error::MissingKey("hidden_act"))?;
    if Activation::from_name(act) != Some(family.activation) {
        return Err(unsupported(
            &format!("`hidden_act` {act} in the {} family", family.name),
            &format!("it is defined with {}", family.activation.name()),
        ));
    }
    for key in ["attention_bias", "mlp_bias", "use_sliding_window"] {
        if keys.get(key).is_some_and(|v| *v != Value::Bool(false)) {
            return Err(unsupported(&format!("`{key}`"), ""));
        }
    }
    if keys
        .get("partial_rotary_factor")
        .is_some_and(|v| v.as_f64() != Some(1.0))
    {
        return Err(unsupported("`partial_rotary_factor` other than 1", ""));
    }
    let full = |v: &Value| v.as_str() == Some("full_attention");
    match keys.get("layer_types") {
        Some(Value::Array(types)) if types.iter().all(full) => Ok(()),
        None => Ok(()),
        Some(_) => Err(unsupported("`layer_types` other than full_attention", "")),
    }
}

/// The head, and nothing else, stays in full precision: that is what every reader of this toolkit computes.
fn refuse_other_exceptions(quantization: &Keys) -> Result<()> {
    let Some(list) = quantization.get("modules_to_not_convert") else {
        return Ok(()); // the head, by default
    };
    let names = list.as_array().map_or(&[][..], Vec::as_slice);
    let is_head = |name: &Value| name == "lm_head";
    let is_table = |name: &Value| name == "embed_tokens" || name == "model.embed_tokens";
    if names.iter().any(is_head) && names.iter().all(|n| is_head(n) || is_table(n)) {
        return Ok(());
    }
    Err(unsupported(
        &format!("`modules_to_not_convert` {list}"),
        "expected [\"lm_head\"]: all linear layers ternary but the head",
    ))
}

/// Reads both spellings: `rope_theta` with `rope_scaling`, and `rope_parameters` with both inside.
fn rope(keys: &Keys) -> Result<Rope> {
    let nothing = Value::Null;
    let parameters = keys.get("rope_parameters").unwrap_or(&nothing);
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

fn scaling_json(scaling: &RopeScaling) -> Option<Value> {
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

/// The f64 that prints as the f32 does, so that 1e-5 stays 1e-5 in JSON.
fn shortest(x: f32) -> f64 {
    x.to_string().parse().expect("a printed number parses")
}

fn unsupported(what: &str, hint: &str) -> Error {
    let hint = if hint.is_empty() {
        String::new()
    } else {
        format!("; {hint}")
    };
    Error::Unsupported {
        what: json::shown(what),
        hint,
    }
}

/// Typed access to the keys of a JSON object; null counts as absent.
struct Keys<'a>(&'a Value);

/// Sizes above this are refused, so that no size of a tensor or of a file can overflow.
const LARGEST: usize = 1 << 22;
/// More layers than any model has; bounds what a hostile config can make us allocate.
const MOST_LAYERS: usize = 10_000;

impl<'a> Keys<'a> {
    fn get(&self, key: &str) -> Option<&'a Value> {
        let object: Option<&Map<String, Value>> = self.0.as_object();
        object?.get(key).filter(|v| !v.is_null())
    }

    fn required(&self, key: &'static str) -> Result<&'a Value> {
        self.get(key).ok_or(Error::MissingKey(key))
    }

    fn size(&self, key: &'static str) -> Result<usize> {
        let value = self.required(key)?;
        let size = value.as_u64().and_then(|n| usize::try_from(n).ok());
        let size = size.filter(|n| (1..=LARGEST).contains(n));
        size.ok_or_else(|| bad(key, "an integer from 1 to 4194304", value))
    }

    fn positive(&self, key: &'static str) -> Result<f64> {
        let value = self.required(key)?;
        let number = value.as_f64().filter(|x| x.is_finite() && *x > 0.0);
        number.ok_or_else(|| bad(key, "a number above zero", value))
    }

    /// A number that f32 does not make zero or infinite.
    fn positive_single(&self, key: &'static str) -> Result<f32> {
        let single = self.positive(key)? as f32;
        let is_usable = single.is_finite() && single > 0.0;
        let expected = "a number above zero that f32 holds";
        is_usable
            .then_some(single)
            .ok_or_else(|| bad(key, expected, &self.0[key]))
    }

    fn boolean(&self, key: &'static str) -> Result<bool> {
        let value = self.required(key)?;
        value
            .as_bool()
            .ok_or_else(|| bad(key, "true or false", value))
    }

    fn text(&self, key: &'static str) -> Result<Option<&'a str>> {
        let text = |v: &'a Value| v.as_str().ok_or_else(|| bad(key, "a string", v));
        self.get(key).map(text).transpose()
    }

    /// A token id, a list of them, or none.
    fn ids(&self, key: &'static str) -> Result<Vec<u32>> {
        let Some(value) = self.get(key) else {
            return Ok(Vec::new());
        };
        let list = value
            .as_array()
            .map_or(std::slice::from_ref(value), Vec::as_slice);
        let id = |v: &Value| v.as_u64().and_then(|id| u32::try_from(id).ok());
        let ids: Option<Vec<u32>> = list.iter().map(id).collect();
        ids.ok_or_else(|| bad(key, "a token id or a list of them", value))
    }
}

fn bad(key: &'static str, expected: &str, found: &Value) -> Error {
    Error::BadKey {
        key,
        expected: expected.to_owned(),
        found: json::shown(&found.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bitnet() -> Value {
        json!({
            "architectures": ["BitNetForCausalLM"], "model_type": "bitnet", "hidden_act": "relu2",
            "hidden_size": 2560, "intermediate_size": 6912, "num_hidden_layers": 30,
            "num_attention_heads": 20, "num_key_value_heads": 5, "vocab_size": 128256,
            "max_position_embeddings": 4096, "rms_norm_eps": 1e-5, "rope_theta": 500000.0,
            "tie_word_embeddings": true, "bos_token_id": 128000, "eos_token_id": 128001,
            "quantization_config": {"quant_method": "bitnet", "linear_class": "autobitlinear",
                "quantization_mode": "offline"},
        })
    }

    fn with(key: &str, value: Value) -> Value {
        let mut json = bitnet();
        json[key] = value;
        json
    }

    #[test]
    fn reads_2b4t_and_reads_back_what_it_writes() {
        let config = Config::from_json(&bitnet()).unwrap();
        assert_eq!(
            (config.head_dim, config.eos_token_id.as_slice()),
            (128, &[128001][..])
        );
        assert_eq!(Config::storage(&bitnet()).unwrap(), Storage::PackedMultiply);
        let written = config.to_json();
        assert_eq!(Config::from_json(&written).unwrap(), config);
        assert_eq!(Config::storage(&written).unwrap(), Storage::Online);
        assert_eq!(written["rms_norm_eps"], json!(1e-5));
    }

    #[test]
    fn both_rope_spellings() {
        let old = with(
            "rope_scaling",
            json!({"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
                "high_freq_factor": 4.0, "original_max_position_embeddings": 64}),
        );
        let old = Config::from_json(&old).unwrap();
        let mut new = bitnet();
        new["rope_parameters"] = old.to_json()["rope_scaling"].clone();
        new["rope_parameters"]["rope_theta"] = json!(500000.0);
        new.as_object_mut().unwrap().remove("rope_theta");
        assert_eq!(Config::from_json(&new).unwrap(), old);
        assert_eq!(Config::from_json(&old.to_json()).unwrap(), old);
        let yarn = json!({"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32});
        let yarn = Config::from_json(&with("rope_scaling", yarn)).unwrap();
        assert_eq!(yarn.rope.amplitude(), 1.1386294);
        assert_eq!(Config::from_json(&yarn.to_json()).unwrap(), yarn);
    }

    #[test]
    fn what_is_missing_or_wrong_is_named() {
        for key in bitnet().as_object().unwrap().keys() {
            if ["bos_token_id", "eos_token_id", "quantization_config"].contains(&key.as_str()) {
                continue;
            }
            let mut json = bitnet();
            json.as_object_mut().unwrap().remove(key);
            let error = Config::from_json(&json).unwrap_err().to_string();
            assert!(error.contains(key), "{key}: {error}");
        }
        for (key, value) in [
            ("hidden_size", json!(-1)),
            ("vocab_size", json!("many")),
            ("num_hidden_layers", json!(1u64 << 60)),
            ("num_key_value_heads", json!(7)),
            ("head_dim", json!(3)),
            ("rms_norm_eps", json!(0)),
            ("hidden_act", json!("gelu")),
            ("attention_bias", json!(true)),
            ("use_sliding_window", json!(true)),
            ("partial_rotary_factor", json!(0.5)),
            ("layer_types", json!(["sliding_attention"])),
            ("eos_token_id", json!(["</s>"])),
            ("tie_word_embeddings", json!("yes")),
        ] {
            let error = Config::from_json(&with(key, value))
                .unwrap_err()
                .to_string();
            assert!(error.contains(key), "{key}: {error}");
        }
    }

    #[test]
    fn unknown_things_are_refused_by_name() {
        let check = |json: Value, expected: &str| {
            let error = Config::from_json(&json).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        };
        check(with("model_type", json!("mamba")), "known families: bitnet");
        check(
            with("architectures", json!(["MambaForCausalLM"])),
            "MambaForCausalLM",
        );
        let dynamic = json!({"rope_type": "dynamic", "factor": 2.0});
        check(with("rope_scaling", dynamic), "dynamic");
        let mscale = json!({"rope_type": "yarn", "factor": 2.0, "mscale": 1.0});
        check(with("rope_scaling", mscale), "mscale");
        check(json!([]), "model_type");
    }

    #[test]
    fn storage_is_read_from_the_quantization_config() {
        let check = |quantization: Value, expected: Storage| {
            let json = json!({ "quantization_config": quantization });
            assert_eq!(Config::storage(&json).unwrap(), expected);
        };
        check(json!({"quant_method": "bitnet"}), Storage::PackedDivide);
        let online = json!({"quant_method": "bitnet", "linear_class": "autobitlinear",
            "quantization_mode": "online"});
        check(online, Storage::Online);
        let bits =
            |weight, input| Config::storage(&json!({"weight_bits": weight, "input_bits": input}));
        assert_eq!(bits(1, 8).unwrap(), Storage::Online);
        assert_eq!(bits(2, 8).unwrap(), Storage::Products);
        for refused in [
            json!({"quantization_config": {"quant_method": "gptq"}}),
            json!({"quantization_config": {"quant_method": "bitnet", "use_rms_norm": true}}),
            json!({"quantization_config": {"quant_method": "bitnet", "linear_class": "x"}}),
            json!({"quantization_config": {"quant_method": "bitnet", "modules_to_not_convert": []}}),
            json!({"quantization_config": {"quant_method": "bitnet",
                "modules_to_not_convert": ["lm_head", "model.layers.0.mlp"]}}),
        ] {
            assert!(Config::storage(&refused).is_err(), "{refused}");
        }
    }
}
