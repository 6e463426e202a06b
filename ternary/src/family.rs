//! Model families as data: the differences between decoder architectures.
//!
//! All families share the Llama skeleton: embedding; per layer, pre-norm attention with grouped
//! heads and rotary positions, then a pre-norm gated feed-forward network; final norm; head. An
//! entry of the table states where a family deviates from Llama. To add a family, add an entry.

/// The gate function `act` in `act(gate(x)) * up(x)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// x · sigmoid(x); `silu` in config.json.
    Silu,
    /// max(x, 0)²; `relu2` in config.json. It can exceed the range of f16: compute it in f32.
    Relu2,
    /// x / 2 · (1 + tanh(√(2/π) · (x + 0.044715 x³))); `gelu_pytorch_tanh` in config.json.
    GeluTanh,
}

impl Activation {
    /// Every activation.
    pub const ALL: [Activation; 3] = [Activation::Silu, Activation::Relu2, Activation::GeluTanh];

    /// The name in config.json.
    pub fn name(self) -> &'static str {
        match self {
            Activation::Silu => "silu",
            Activation::Relu2 => "relu2",
            Activation::GeluTanh => "gelu_pytorch_tanh",
        }
    }

    /// The activation with this name in config.json.
    pub fn from_name(name: &str) -> Option<Activation> {
        Activation::ALL.into_iter().find(|a| a.name() == name)
    }
}

/// A model family.
#[derive(Debug, PartialEq)]
pub struct Family {
    /// Sterna's name for the family.
    pub name: &'static str,
    /// `model_type` in config.json.
    pub model_type: &'static str,
    /// The entry of `architectures` in config.json.
    pub architecture: &'static str,
    /// The entry of `architectures` for checkpoints saved without a head, such as embedding models.
    pub headless_architecture: &'static str,
    /// The family's activation. A config with another one is refused.
    pub activation: Activation,
    /// The key of config.json that names the activation.
    pub activation_key: &'static str,
    /// Name, below `self_attn.`, of an RMSNorm over the concatenated heads before `o_proj`.
    pub attn_sub_norm: Option<&'static str>,
    /// Name, below `mlp.`, of an RMSNorm over the gated product before `down_proj`.
    pub ffn_sub_norm: Option<&'static str>,
    /// Whether an RMSNorm (`q_norm`, `k_norm`) is applied to each query and key head before the
    /// rotation.
    pub qk_norm: bool,
    /// Name of an RMSNorm over the output of `o_proj`.
    pub attn_post_norm: Option<&'static str>,
    /// Name of the RMSNorm before `gate_proj` and `up_proj`.
    pub ffn_norm: &'static str,
    /// Name of an RMSNorm over the output of `down_proj`.
    pub ffn_post_norm: Option<&'static str>,
    /// Constant that checkpoints of the family subtract from norm gains: gain = stored value +
    /// this.
    pub norm_offset: f32,
    /// Whether embeddings are multiplied by √hidden_size.
    pub scales_embeddings: bool,
    /// Whether attention scores are divided by √query_pre_attn_scalar instead of √head_dim.
    pub query_pre_attn_scalar: bool,
    /// Default base frequency of layers with a sliding window. None if the family has no such
    /// layers.
    pub local_rope_theta: Option<f64>,
    /// Default of the model class where config.json has no `head_dim`.
    pub default_head_dim: DefaultHeadDim,
    /// Whether a missing `num_key_value_heads` means one key and value head per query head.
    pub kv_heads_default_to_heads: bool,
}

/// See [`Family::default_head_dim`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DefaultHeadDim {
    /// `hidden_size / num_attention_heads`.
    HiddenOverHeads,
    /// A fixed number.
    Fixed(usize),
}

const LLAMA: Family = Family {
    name: "llama",
    model_type: "llama",
    architecture: "LlamaForCausalLM",
    headless_architecture: "LlamaModel",
    activation: Activation::Silu,
    activation_key: "hidden_act",
    attn_sub_norm: None,
    ffn_sub_norm: None,
    qk_norm: false,
    attn_post_norm: None,
    ffn_norm: "post_attention_layernorm",
    ffn_post_norm: None,
    norm_offset: 0.0,
    scales_embeddings: false,
    query_pre_attn_scalar: false,
    local_rope_theta: None,
    default_head_dim: DefaultHeadDim::HiddenOverHeads,
    kv_heads_default_to_heads: true,
};

/// Every family that Sterna knows.
pub static FAMILIES: &[Family] = &[
    Family {
        name: "bitnet",
        model_type: "bitnet",
        architecture: "BitNetForCausalLM",
        headless_architecture: "BitNetModel",
        activation: Activation::Relu2,
        attn_sub_norm: Some("attn_sub_norm"),
        ffn_sub_norm: Some("ffn_sub_norm"),
        kv_heads_default_to_heads: false,
        ..LLAMA
    },
    LLAMA,
    Family {
        name: "1bitllm",
        architecture: "BitnetForCausalLM",
        headless_architecture: "BitnetModel",
        attn_sub_norm: Some("inner_attn_ln"),
        ffn_sub_norm: Some("ffn_layernorm"),
        ..LLAMA
    },
    Family {
        name: "qwen3",
        model_type: "qwen3",
        architecture: "Qwen3ForCausalLM",
        headless_architecture: "Qwen3Model",
        qk_norm: true,
        default_head_dim: DefaultHeadDim::Fixed(128),
        kv_heads_default_to_heads: false,
        ..LLAMA
    },
    Family {
        name: "gemma3",
        model_type: "gemma3_text",
        architecture: "Gemma3ForCausalLM",
        headless_architecture: "Gemma3TextModel",
        activation: Activation::GeluTanh,
        activation_key: "hidden_activation",
        qk_norm: true,
        attn_post_norm: Some("post_attention_layernorm"),
        ffn_norm: "pre_feedforward_layernorm",
        ffn_post_norm: Some("post_feedforward_layernorm"),
        norm_offset: 1.0,
        scales_embeddings: true,
        query_pre_attn_scalar: true,
        local_rope_theta: Some(10_000.0),
        default_head_dim: DefaultHeadDim::Fixed(256),
        kv_heads_default_to_heads: false,
        ..LLAMA
    },
];

impl Family {
    /// Finds the family with these names in config.json.
    pub fn find(model_type: &str, architecture: &str) -> Option<&'static Family> {
        let is_class =
            |f: &Family| [f.architecture, f.headless_architecture].contains(&architecture);
        FAMILIES
            .iter()
            .find(|f| f.model_type == model_type && is_class(f))
    }

    /// Finds the family with this Sterna name.
    pub fn from_name(name: &str) -> Option<&'static Family> {
        FAMILIES.iter().find(|f| f.name == name)
    }

    /// The same family with both sub-norms: itself if it has them, None if no such family exists.
    pub fn with_sub_norms(&self) -> Option<&'static Family> {
        let is_like = |f: &&Family| f.activation == self.activation && f.qk_norm == self.qk_norm;
        let has_both = |f: &&Family| f.attn_sub_norm.is_some() && f.ffn_sub_norm.is_some();
        FAMILIES.iter().filter(is_like).find(has_both)
    }

    /// Lists the names of all families, for error messages.
    pub fn known() -> String {
        let names = FAMILIES
            .iter()
            .map(|f| format!("{} ({})", f.name, f.architecture));
        names.collect::<Vec<_>>().join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sub_norms_are_the_only_difference_of_the_family_that_has_them() {
        for (name, expected) in [
            ("bitnet", Some("bitnet")),
            ("llama", Some("1bitllm")),
            ("1bitllm", Some("1bitllm")),
            ("qwen3", None),
        ] {
            let family = Family::from_name(name).unwrap();
            assert_eq!(family.with_sub_norms().map(|f| f.name), expected, "{name}");
        }
    }
}
