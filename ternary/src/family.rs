//! Model families as rows of data: what distinguishes one decoder body from another.
//!
//! All families share the Llama skeleton: embedding, then per layer pre-norm attention with grouped heads
//! and rotary positions and a pre-norm gated feed-forward network, then a final norm and a head. A row says
//! where a family deviates from Llama. To add a family, add a row.

/// The function of the gate in `act(gate(x)) * up(x)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// x · sigmoid(x), `silu` in configs.
    Silu,
    /// max(x, 0)², `relu2` in configs. It exceeds f16 quickly: compute it in f32.
    Relu2,
    /// x / 2 · (1 + tanh(√(2/π) · (x + 0.044715 x³))), `gelu_pytorch_tanh` in configs.
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

/// One model family.
#[derive(Debug, PartialEq)]
pub struct Family {
    /// Our name for the family.
    pub name: &'static str,
    /// `model_type` in config.json.
    pub model_type: &'static str,
    /// The entry of `architectures` in config.json.
    pub architecture: &'static str,
    /// The entry of `architectures` where a checkpoint was saved without a head, as embedding models are.
    pub headless_architecture: &'static str,
    /// The activation that the family is defined with; a config that says otherwise is refused.
    pub activation: Activation,
    /// The key of config.json that names the activation.
    pub activation_key: &'static str,
    /// Name below `self_attn.` of an RMSNorm over the concatenated heads, before `o_proj`.
    pub attn_sub_norm: Option<&'static str>,
    /// Name below `mlp.` of an RMSNorm over the gated product, before `down_proj`.
    pub ffn_sub_norm: Option<&'static str>,
    /// Whether each query and key head passes an RMSNorm (`q_norm`, `k_norm`) before the rotation.
    pub qk_norm: bool,
    /// Name of an RMSNorm over the output of `o_proj`.
    pub attn_post_norm: Option<&'static str>,
    /// Name of the RMSNorm before `gate_proj` and `up_proj`.
    pub ffn_norm: &'static str,
    /// Name of an RMSNorm over the output of `down_proj`.
    pub ffn_post_norm: Option<&'static str>,
    /// What checkpoints of the family leave out of the gains of its norms: gain = stored + this.
    pub norm_offset: f32,
    /// Whether embeddings are multiplied by √hidden_size.
    pub scales_embeddings: bool,
    /// Whether attention scores are divided by the root of `query_pre_attn_scalar` and not of `head_dim`.
    pub query_pre_attn_scalar: bool,
    /// The base frequency of layers with a sliding window where config.json does not say; none if the family has
    /// no such layers.
    pub local_rope_theta: Option<f64>,
    /// What the model class assumes where config.json has no `head_dim`.
    pub default_head_dim: DefaultHeadDim,
    /// Whether a missing `num_key_value_heads` means one per attention head.
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
    /// The family with these names in config.json.
    pub fn find(model_type: &str, architecture: &str) -> Option<&'static Family> {
        let is_class =
            |f: &Family| [f.architecture, f.headless_architecture].contains(&architecture);
        FAMILIES
            .iter()
            .find(|f| f.model_type == model_type && is_class(f))
    }

    /// The family of this name.
    pub fn from_name(name: &str) -> Option<&'static Family> {
        FAMILIES.iter().find(|f| f.name == name)
    }

    /// The family that differs from this one in having both sub-norms; itself if it has them, none if there is none.
    pub fn with_sub_norms(&self) -> Option<&'static Family> {
        let is_like = |f: &&Family| f.activation == self.activation && f.qk_norm == self.qk_norm;
        let has_both = |f: &&Family| f.attn_sub_norm.is_some() && f.ffn_sub_norm.is_some();
        FAMILIES.iter().filter(is_like).find(has_both)
    }

    /// The names of all families, for error messages.
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
