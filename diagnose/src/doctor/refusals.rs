//! Refusals of the readers, as findings. A checkpoint that its config describes wrongly cannot be
//! opened, and the refusal tells which known failure mode it is. If the config alone is at fault,
//! it is repaired in memory, so that the other checks can still look at the weights.

use serde_json::{Value, json};
use sterna_convert::Error;
use sterna_ternary::layout::{EMBEDDING, HEAD};
use sterna_ternary::{Family, family::FAMILIES};

/// A kind of refusal.
struct Refusal {
    /// The check that it answers.
    check: &'static str,
    is: fn(&Error) -> bool,
    /// Changes config.json so that the model can be read; false if that is not possible.
    repair: fn(&Error, &mut Value) -> bool,
}

static REFUSALS: [Refusal; 8] = [
    Refusal {
        check: "activation",
        is: |error| unsupported(error).is_some_and(|what| what.starts_with("`hidden_act`")),
        repair: take_activation_of_family,
    },
    Refusal {
        check: "sub-norms",
        is: |error| tensor(error).is_some_and(is_sub_norm),
        repair: take_family_of_norms,
    },
    Refusal {
        check: "tied head",
        is: |error| tensor(error) == Some(HEAD) && !is_shape(error),
        repair: |error, config| {
            config["tie_word_embeddings"] = matches!(error, Error::Tensor { .. }).into();
            true
        },
    },
    Refusal {
        check: "vocabulary size",
        is: |error| {
            let is_table = matches!(tensor(error), Some(EMBEDDING | HEAD));
            matches!(error, Error::Vocabulary { .. }) || is_table && is_shape(error)
        },
        repair: |_, _| false,
    },
    Refusal {
        check: "rope theta",
        is: |error| {
            let source = config_error(error);
            matches!(
                source,
                Some(sterna_ternary::Error::MissingKey("rope_theta"))
            )
        },
        repair: |_, _| false,
    },
    Refusal {
        check: "values",
        is: is_not_finite,
        repair: |_, _| false,
    },
    Refusal {
        check: "scale direction",
        is: |error| matches!(error, Error::Value { tensor, .. } if tensor.ends_with("_scale")),
        repair: |_, _| false,
    },
    Refusal {
        check: "declaration",
        is: |error| {
            let declares = |expected: &str| expected.contains("quantization_config");
            matches!(error, Error::Tensor { expected, .. } if declares(expected))
        },
        repair: |_, config| {
            config["quantization_config"] = json!({
                "quant_method": "bitnet",
                "linear_class": "autobitlinear",
                "quantization_mode": "online",
                "modules_to_not_convert": ["lm_head"],
            });
            true
        },
    },
];

/// The checks that some refusal answers.
#[cfg(test)]
pub fn checks() -> impl Iterator<Item = &'static str> {
    REFUSALS.iter().map(|refusal| refusal.check)
}

/// The check that a refusal answers, if it is one of the known failure modes.
pub fn check(error: &Error) -> Option<&'static str> {
    find(error).map(|refusal| refusal.check)
}

/// Repairs the cause of the refusal in a config.json; false if that is not possible.
pub fn repair(error: &Error, config: &mut Value) -> bool {
    find(error).is_some_and(|refusal| (refusal.repair)(error, config))
}

fn find(error: &Error) -> Option<&'static Refusal> {
    REFUSALS.iter().find(|refusal| (refusal.is)(error))
}

fn config_error(error: &Error) -> Option<&sterna_ternary::Error> {
    match error {
        Error::Config { source, .. } => Some(source),
        _ => None,
    }
}

fn unsupported(error: &Error) -> Option<&str> {
    match config_error(error)? {
        sterna_ternary::Error::Unsupported { what, .. } => Some(what),
        _ => None,
    }
}

/// The tensor that is absent, has another shape, or does not belong to the family.
fn tensor(error: &Error) -> Option<&str> {
    match error {
        Error::Tensor { tensor, .. } | Error::UnknownTensor { tensor, .. } => Some(tensor),
        _ => None,
    }
}

/// Whether the tensor is there and of another shape.
fn is_shape(error: &Error) -> bool {
    matches!(error, Error::Tensor { found, .. } if found != "nothing")
}

fn is_not_finite(error: &Error) -> bool {
    match error {
        Error::Value { value, .. } => !value.is_finite(),
        Error::Packed(sterna_ternary::Error::Value { value, .. }) => !value.is_finite(),
        _ => false,
    }
}

/// Whether a tensor is one of the norms that some families have inside their blocks. Readers of
/// GGUF use the names of bitnet.
fn is_sub_norm(tensor: &str) -> bool {
    sub_norms().any(|(_, norm)| tensor.contains(norm))
}

fn sub_norms() -> impl Iterator<Item = (&'static Family, &'static str)> {
    FAMILIES.iter().flat_map(|family| {
        let norms = [family.attn_sub_norm, family.ffn_sub_norm];
        norms.into_iter().flatten().map(move |norm| (family, norm))
    })
}

fn take_activation_of_family(_: &Error, config: &mut Value) -> bool {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let names = [
        text(&config["model_type"]),
        text(&config["architectures"][0]),
    ];
    match Family::find(&names[0], &names[1]) {
        Some(family) => {
            config["hidden_act"] = family.activation.name().into();
            true
        }
        None => false,
    }
}

/// Sets the family whose norms the checkpoint has, or llama if the norms that the config asks for
/// are absent.
fn take_family_of_norms(error: &Error, config: &mut Value) -> bool {
    let family = match error {
        Error::UnknownTensor { tensor, .. } => sub_norms().find(|(_, norm)| tensor.contains(norm)),
        _ => None,
    };
    let family = family
        .map(|(family, _)| family)
        .or(Family::from_name("llama"));
    let Some(family) = family else { return false };
    config["model_type"] = family.model_type.into();
    config["architectures"] = json!([family.architecture]);
    config["hidden_act"] = family.activation.name().into();
    true
}
