//! How a checkpoint spells the names of its tensors, and what they tell about the model.

use serde_json::{Value, json};
use sterna_ternary::layout::{self, EMBEDDING};

use crate::read::safetensors::SafetensorsFiles;

/// Spelling of tensor names in a checkpoint that differs from [`layout`], which follows
/// transformers.
#[derive(Debug, Clone, Copy)]
pub(super) struct Spelling {
    /// Whether the names of the body start with [`PREFIX`].
    has_prefix: bool,
    /// Suffix of the names of norms before linear layers.
    linear_norm: &'static str,
}

const PREFIX: &str = "model.";
const LINEAR_NORM: &str = ".norm.weight";

impl Spelling {
    pub(super) fn of(weights: &SafetensorsFiles) -> Spelling {
        let is_linear_norm = |name: &str| {
            let linear = name.strip_suffix(LINEAR_NORM);
            linear.is_some_and(|linear| linear.ends_with("_proj"))
        };
        let bare = EMBEDDING
            .strip_prefix(PREFIX)
            .and_then(|name| weights.find(name));
        Spelling {
            has_prefix: weights.find(EMBEDDING).is_some() || bare.is_none(),
            linear_norm: match weights.names().any(is_linear_norm) {
                true => LINEAR_NORM,
                false => layout::LINEAR_NORM,
            },
        }
    }

    /// Whether the checkpoint has a norm before every linear layer under another name than
    /// [`layout`]'s, which config.json does not describe then.
    pub(super) fn has_undeclared_norms(self) -> bool {
        self.linear_norm == LINEAR_NORM
    }

    /// The name in the checkpoint.
    pub(super) fn name(self, name: &str) -> String {
        let name = match self.has_prefix {
            true => name,
            false => name.strip_prefix(PREFIX).unwrap_or(name),
        };
        match name.strip_suffix(layout::LINEAR_NORM) {
            Some(linear) => format!("{linear}{}", self.linear_norm),
            None => name.to_owned(),
        }
    }
}

/// The `quantization_config` of master weights.
pub(super) fn masters() -> Value {
    json!({
        "linear_class": "autobitlinear",
        "modules_to_not_convert": ["lm_head"],
        "quant_method": "bitnet",
        "quantization_mode": "online",
    })
}

/// Declares in config.json what tensors named `<linear>.norm.weight` show: a norm before every
/// linear layer. Without another declaration, the layers are master weights. Returns a warning for
/// the user.
pub(super) fn declare_linear_norms(json: &mut Value) -> String {
    let eps = json["rms_norm_eps"].clone();
    let quantization = &mut json["quantization_config"];
    if quantization.is_null() {
        *quantization = masters();
    }
    // A value that is not an object is refused later, with the config.
    if quantization.is_object() && quantization["use_rms_norm"].is_null() {
        quantization["use_rms_norm"] = true.into();
        quantization["rms_norm_eps"] = eps;
    }
    format!(
        "every linear layer has a norm before it (tensors `<linear>{LINEAR_NORM}`) that \
         config.json does not describe; it is assumed to be an RMSNorm with an epsilon of {}, and \
         weights without a scale are assumed to be masters",
        quantization["rms_norm_eps"]
    )
}
