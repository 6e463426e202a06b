//! A model's shape and constants, read from and written to Hugging Face `config.json`.
//!
//! The reader refuses every setting that the runtime would compute wrongly: unknown families, other
//! activations, biases, unknown rope scalings, and sliding windows in families without them. If a
//! field that affects results is absent, that is an error. A default is used only where the model
//! class of every published checkpoint agrees on it.

mod positions;
#[cfg(test)]
mod tests;

use half::{bf16, f16};
use serde_json::{Map, Value, json};

use crate::family::{Activation, DefaultHeadDim, Family};
use crate::rope::Rope;
use crate::{Error, Result, json};

/// The description of a decoder, without its weights. Field names are those of config.json.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// The entry of [`crate::family::FAMILIES`].
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
    /// Longest context used in training, in tokens.
    pub max_position_embeddings: usize,
    /// Epsilon that every RMSNorm adds to the mean square.
    pub rms_norm_eps: f32,
    /// Epsilon of the RMSNorms with their own gains before the linear layers, if the model has
    /// them: `rms_norm_eps` of a `quantization_config` with `use_rms_norm`.
    pub linear_norm_eps: Option<f32>,
    /// Rotary positions of the layers without a window.
    pub rope: Rope,
    /// Layers with a sliding window, if the model has any.
    pub sliding: Option<Sliding>,
    /// Attention scores are divided by the square root of this: `head_dim` in most families.
    pub query_pre_attn_scalar: f32,
    /// Factor of the embeddings: 1 in most families, √hidden_size in others. It is rounded to
    /// `torch_dtype`, as in transformers.
    pub embedding_multiplier: f32,
    /// Whether head and embedding are the same tensor.
    pub tie_word_embeddings: bool,
    /// First token of every sequence.
    pub bos_token_id: Option<u32>,
    /// Tokens that end a sequence.
    pub eos_token_id: Vec<u32>,
}

/// Layers in which a token attends only to the last `window` positions.
#[derive(Debug, Clone, PartialEq)]
pub struct Sliding {
    /// Number of positions that a token attends to, including its own.
    pub window: usize,
    /// Rotary positions of these layers, without scaling.
    pub rope: Rope,
    /// For each layer, whether it has the window: (num_hidden_layers).
    pub layers: Vec<bool>,
}

/// How a checkpoint stores linear layers, from `quantization_config` or from `weight_bits` with
/// `input_bits`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Storage {
    /// Packed U8 bytes; weight = trit × `weight_scale`.
    PackedMultiply,
    /// Packed U8 bytes; weight = trit / `weight_scale`.
    PackedDivide,
    /// Master weights, ternarized with absmean when they are loaded.
    Online,
    /// No declaration in config.json. The stored weights may be products trit × scale; only the
    /// values can show it.
    Products,
}

impl Config {
    /// Value in `layer_types`: the layer attends to all earlier positions.
    pub const FULL: &str = "full_attention";
    /// Value in `layer_types`: the layer has a sliding window.
    pub const SLIDING: &str = "sliding_attention";
    /// Upper limit of the number of layers. It bounds the memory that a hostile config can
    /// allocate.
    pub const MOST_LAYERS: usize = 10_000;

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
        let num_hidden_layers = keys.size("num_hidden_layers")?;
        let query_pre_attn_scalar = match family.query_pre_attn_scalar {
            true => keys.positive_single("query_pre_attn_scalar")?,
            false => head_dim as f32,
        };
        let config = Config {
            family,
            hidden_size,
            intermediate_size: keys.size("intermediate_size")?,
            num_hidden_layers,
            num_attention_heads,
            num_key_value_heads,
            head_dim,
            vocab_size: keys.size("vocab_size")?,
            max_position_embeddings: keys.size("max_position_embeddings")?,
            rms_norm_eps: keys.positive_single("rms_norm_eps")?,
            linear_norm_eps: linear_norm_eps(&keys)?,
            rope: positions::rope(&keys, family)?,
            sliding: positions::sliding(&keys, family, num_hidden_layers)?,
            query_pre_attn_scalar,
            embedding_multiplier: embedding_multiplier(&keys, family, hidden_size)?,
            tie_word_embeddings: keys.boolean("tie_word_embeddings")?,
            bos_token_id: keys.ids("bos_token_id")?.first().copied(),
            eos_token_id: keys.ids("eos_token_id")?,
        };
        config.check()?;
        Ok(config)
    }

    /// Number of positions that a token attends to in a layer, including its own. None without a
    /// window.
    pub fn window(&self, layer: usize) -> Option<usize> {
        let sliding = self.sliding.as_ref().filter(|s| s.layers[layer]);
        sliding.map(|s| s.window)
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
        if self.num_hidden_layers > Config::MOST_LAYERS {
            return bad(
                "num_hidden_layers",
                format!("at most {}", Config::MOST_LAYERS),
                self.num_hidden_layers,
            );
        }
        Ok(())
    }

    /// The config.json of a checkpoint with master weights, in the form that transformers loads:
    /// linear layers are ternarized at load and activations quantized to int8.
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
            "torch_dtype": self.torch_dtype(),
            "use_cache": true,
            "vocab_size": self.vocab_size,
        });
        json[self.family.activation_key] = self.family.activation.name().into();
        if let Some(scaling) = positions::scaling_json(&self.rope.scaling) {
            json["rope_scaling"] = scaling;
        }
        if let Some(eps) = self.linear_norm_eps {
            json["quantization_config"]["use_rms_norm"] = true.into();
            json["quantization_config"]["rms_norm_eps"] = shortest(eps).into();
        }
        if self.family.query_pre_attn_scalar {
            json["query_pre_attn_scalar"] = whole(self.query_pre_attn_scalar);
        }
        if self.family.local_rope_theta.is_some() {
            json["layer_types"] = (0..self.num_hidden_layers)
                .map(|layer| match self.window(layer) {
                    Some(_) => Config::SLIDING,
                    None => Config::FULL,
                })
                .collect();
        }
        if let Some(sliding) = &self.sliding {
            json["sliding_window"] = sliding.window.into();
            json["rope_local_base_freq"] = sliding.rope.theta.into();
        }
        json
    }

    /// Weight type that gives the stored rounding of the embedding multiplier.
    fn torch_dtype(&self) -> &'static str {
        let rounded = |dtype: &str| multiplier(self.family, self.hidden_size, dtype);
        let is_it = |dtype: &&str| rounded(dtype) == Some(self.embedding_multiplier);
        let found = DTYPES.into_iter().find(is_it);
        found.expect("the multiplier was rounded to one of them")
    }

    /// How the linear layers of a Hugging Face checkpoint with this config.json are stored.
    pub fn storage(json: &Value) -> Result<Storage> {
        let Some(quantization) = Keys(json).get("quantization_config") else {
            // The models of 1bitLLM declare their storage with these two keys.
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
    let key = family.activation_key;
    let act = keys.text(key)?.ok_or(Error::MissingKey(key))?;
    if Activation::from_name(act) != Some(family.activation) {
        return Err(unsupported(
            &format!("`{key}` {act} in the {} family", family.name),
            &format!("it is defined with {}", family.activation.name()),
        ));
    }
    for key in [
        "attention_bias",
        "mlp_bias",
        "use_sliding_window",
        "use_bidirectional_attention",
        "attn_logit_softcapping",
        "final_logit_softcapping",
    ] {
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
    let full = |v: &Value| v.as_str() == Some(Config::FULL);
    match keys.get("layer_types") {
        _ if family.local_rope_theta.is_some() => Ok(()),
        Some(Value::Array(types)) if types.iter().all(full) => Ok(()),
        None => Ok(()),
        Some(_) => Err(unsupported(
            &format!(
                "`layer_types` other than {} in the {} family",
                Config::FULL,
                family.name
            ),
            "",
        )),
    }
}

fn linear_norm_eps(keys: &Keys) -> Result<Option<f32>> {
    let Some(quantization) = keys.get("quantization_config") else {
        return Ok(None);
    };
    let quantization = Keys(quantization);
    if quantization.get("use_rms_norm").is_none() || !quantization.boolean("use_rms_norm")? {
        return Ok(None);
    }
    // The default is that of transformers' BitNetQuantConfig.
    match quantization.get("rms_norm_eps") {
        Some(_) => Ok(Some(quantization.positive_single("rms_norm_eps")?)),
        None => Ok(Some(1e-6)),
    }
}

/// Weight types that transformers computes with. They decide how the embedding multiplier is
/// rounded.
const DTYPES: [&str; 3] = ["float32", "bfloat16", "float16"];

fn embedding_multiplier(keys: &Keys, family: &Family, hidden_size: usize) -> Result<f32> {
    let dtype = match keys.text("dtype")? {
        None => keys.text("torch_dtype")?.unwrap_or("float32"),
        Some(dtype) => dtype,
    };
    multiplier(family, hidden_size, dtype)
        .ok_or_else(|| bad("torch_dtype", "float32, bfloat16 or float16", &json!(dtype)))
}

/// Returns the embedding multiplier, or None if the rounding depends on an unknown type.
fn multiplier(family: &Family, hidden_size: usize, dtype: &str) -> Option<f32> {
    let root = (hidden_size as f32).sqrt();
    match dtype {
        _ if !family.scales_embeddings => Some(1.0),
        "float32" => Some(root),
        "bfloat16" => Some(bf16::from_f32(root).to_f32()),
        "float16" => Some(f16::from_f32(root).to_f32()),
        _ => None,
    }
}

/// Requires that exactly the head stays in full precision, since all readers of Sterna assume this.
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

/// Converts to a JSON integer if the value is one.
fn whole(x: f32) -> Value {
    match x.fract() == 0.0 && x < LARGEST as f32 {
        true => json!(x as u64),
        false => json!(shortest(x)),
    }
}

/// The f64 with the same shortest decimal form as the f32, so that JSON shows 1e-5 as 1e-5.
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

/// Typed access to the keys of a JSON object. Null counts as absent.
struct Keys<'a>(&'a Value);

/// Upper limit of every size. It keeps the sizes of tensors and files from overflowing.
const LARGEST: usize = 1 << 22;

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

    /// A positive number that stays finite and nonzero in f32.
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

    /// Zero or more token ids: the JSON value is an id, a list of ids, or absent.
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
