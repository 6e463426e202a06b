//! Translation between GGUF and Hugging Face: tensor names, architectures, and the row order of q
//! and k.

use sterna_ternary::layout::{self, EMBEDDING, FINAL_NORM, HEAD};
use sterna_ternary::{Config, Family};

/// A value of `general.architecture` and the family that it denotes.
#[derive(Debug, PartialEq)]
pub(crate) struct Architecture {
    pub name: &'static str,
    pub model_type: &'static str,
    /// The entry of `architectures` in config.json.
    pub class: &'static str,
    /// Whether the rows of q and k are ordered for rotating neighbours instead of halves.
    pub permuted: bool,
    /// The tokenizer's split rule if the file does not name one.
    pub pre: &'static str,
    /// Whether bitnet.cpp supports norms before linear layers in this architecture.
    pub linear_norms: bool,
}

/// All architectures. The writer takes the first one of a family.
pub(crate) static ARCHITECTURES: [Architecture; 6] = [
    Architecture {
        name: "bitnet-b1.58",
        model_type: "bitnet",
        class: "BitNetForCausalLM",
        permuted: false,
        pre: "llama-bpe",
        linear_norms: false,
    },
    Architecture {
        name: "bitnet-25",
        model_type: "bitnet",
        class: "BitNetForCausalLM",
        permuted: false,
        pre: "llama-bpe",
        linear_norms: false,
    },
    Architecture {
        // The models of 1bitLLM: the same tensors as the architecture above, with another
        // activation.
        name: "bitnet",
        model_type: "llama",
        class: "BitnetForCausalLM",
        permuted: false,
        pre: "default",
        linear_norms: false,
    },
    Architecture {
        name: "llama",
        model_type: "llama",
        class: "LlamaForCausalLM",
        permuted: true,
        pre: "default",
        linear_norms: false,
    },
    Architecture {
        name: "qwen3",
        model_type: "qwen3",
        class: "Qwen3ForCausalLM",
        permuted: false,
        pre: "qwen2",
        linear_norms: true,
    },
    Architecture {
        name: "gemma3",
        model_type: "gemma3_text",
        class: "Gemma3ForCausalLM",
        permuted: false,
        pre: "default",
        linear_norms: true,
    },
];

impl Architecture {
    pub fn find(name: &str) -> Option<&'static Architecture> {
        ARCHITECTURES.iter().find(|a| a.name == name)
    }

    pub fn of(config: &Config) -> Option<&'static Architecture> {
        let family = config.family;
        ARCHITECTURES
            .iter()
            .find(|a| a.model_type == family.model_type && a.class == family.architecture)
    }

    pub fn family(&self) -> &'static Family {
        Family::find(self.model_type, self.class).expect("every architecture has a family")
    }

    pub fn known() -> String {
        ARCHITECTURES.each_ref().map(|a| a.name).join(", ")
    }
}

/// Name parts below `model.layers.N.` and below `blk.N.`. Other norms have different names in each
/// family.
const PARTS: [(&str, &str); 10] = [
    ("input_layernorm", "attn_norm"),
    ("self_attn.q_proj", "attn_q"),
    ("self_attn.k_proj", "attn_k"),
    ("self_attn.v_proj", "attn_v"),
    ("self_attn.q_norm", "attn_q_norm"),
    ("self_attn.k_norm", "attn_k_norm"),
    ("self_attn.o_proj", "attn_output"),
    ("mlp.gate_proj", "ffn_gate"),
    ("mlp.up_proj", "ffn_up"),
    ("mlp.down_proj", "ffn_down"),
];

/// The rotary frequency factors of Llama 3.
pub(crate) const ROPE_FACTORS: &str = "rope_freqs.weight";

/// The norm before the first linear layer. A file that has it has a norm before every linear layer.
pub(crate) const FIRST_LINEAR_NORM: &str = "blk.0.attn_q_norm_in.weight";

/// The GGUF name of a tensor of [`sterna_ternary::layout::weights`].
pub(crate) fn of(family: &Family, weight: &str) -> String {
    if let Some(linear) = weight.strip_suffix(layout::LINEAR_NORM) {
        let linear = of(family, &format!("{linear}.weight"));
        return linear.replace(".weight", "_norm_in.weight");
    }
    let whole = match weight {
        EMBEDDING => "token_embd.weight",
        FINAL_NORM => "output_norm.weight",
        HEAD => "output.weight",
        _ => {
            let (layer, part) = layer_and_part(weight);
            let known = PARTS.iter().find(|(name, _)| *name == part);
            let name = match known {
                Some((_, name)) => name,
                None if part == family.ffn_norm => "ffn_norm",
                None if Some(part) == family.attn_post_norm => "post_attention_norm",
                None if Some(part) == family.ffn_post_norm => "post_ffw_norm",
                None if part.starts_with("self_attn") => "attn_sub_norm",
                None => "ffn_sub_norm",
            };
            return format!("blk.{layer}.{name}.weight");
        }
    };
    whole.into()
}

fn layer_and_part(weight: &str) -> (&str, &str) {
    let rest = weight.strip_prefix("model.layers.");
    let parts = rest.and_then(|rest| rest.strip_suffix(".weight")?.split_once('.'));
    parts.expect("every other tensor belongs to a layer")
}

/// Number of heads in q and k, the matrices whose rows some architectures reorder. None for other
/// matrices.
pub(crate) fn rotated_heads(config: &Config, weight: &str) -> Option<usize> {
    if weight.ends_with("q_proj.weight") {
        Some(config.num_attention_heads)
    } else if weight.ends_with("k_proj.weight") {
        Some(config.num_key_value_heads)
    } else {
        None
    }
}

/// Reorders rows for rotating neighbours (2j and 2j + 1 of a head) from rows for rotating halves (j
/// and d/2 + j).
pub(crate) fn interleave<T: Copy>(rows: &[T], heads: usize, columns: usize) -> Vec<T> {
    reorder(rows, heads, columns, |row, half| row % 2 * half + row / 2)
}

/// The inverse of [`interleave`].
pub(crate) fn deinterleave<T: Copy>(rows: &[T], heads: usize, columns: usize) -> Vec<T> {
    reorder(rows, heads, columns, |row, half| {
        row % half * 2 + row / half
    })
}

/// Reorders the rows of each head. A head has 2 × `half` rows; `from` maps a new row to the old
/// row.
fn reorder<T: Copy>(
    rows: &[T],
    heads: usize,
    columns: usize,
    from: impl Fn(usize, usize) -> usize,
) -> Vec<T> {
    let width = rows.len() / columns / heads;
    let mut reordered = Vec::with_capacity(rows.len());
    for head in rows.chunks_exact(width * columns) {
        for row in 0..width {
            let from = from(row, width / 2);
            reordered.extend_from_slice(&head[from * columns..][..columns]);
        }
    }
    reordered
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_for_neighbours_and_back() {
        // Two heads of six rows with one column.
        let rows: Vec<i8> = (0..12).collect();
        let neighbours = [0, 3, 1, 4, 2, 5, 6, 9, 7, 10, 8, 11];
        assert_eq!(interleave(&rows, 2, 1), neighbours);
        assert_eq!(deinterleave(&neighbours, 2, 1), rows);
        let wide: Vec<i8> = (0..120).collect();
        assert_eq!(deinterleave(&interleave(&wide, 3, 5), 3, 5), wide);
    }

    #[test]
    fn names_of_every_part() {
        for (family, weight, name) in [
            ("llama", EMBEDDING, "token_embd.weight"),
            ("llama", HEAD, "output.weight"),
            ("llama", FINAL_NORM, "output_norm.weight"),
            (
                "llama",
                "model.layers.12.mlp.down_proj.weight",
                "blk.12.ffn_down.weight",
            ),
            (
                "1bitllm",
                "model.layers.0.self_attn.inner_attn_ln.weight",
                "blk.0.attn_sub_norm.weight",
            ),
            (
                "bitnet",
                "model.layers.0.self_attn.attn_sub_norm.weight",
                "blk.0.attn_sub_norm.weight",
            ),
            (
                "1bitllm",
                "model.layers.3.mlp.ffn_layernorm.weight",
                "blk.3.ffn_sub_norm.weight",
            ),
            (
                "qwen3",
                "model.layers.3.self_attn.q_norm.weight",
                "blk.3.attn_q_norm.weight",
            ),
            (
                "qwen3",
                "model.layers.3.self_attn.q_proj.rms_norm.weight",
                "blk.3.attn_q_norm_in.weight",
            ),
            (
                "gemma3",
                "model.layers.3.self_attn.o_proj.rms_norm.weight",
                "blk.3.attn_output_norm_in.weight",
            ),
            (
                "qwen3",
                "model.layers.3.post_attention_layernorm.weight",
                "blk.3.ffn_norm.weight",
            ),
            (
                "gemma3",
                "model.layers.3.post_attention_layernorm.weight",
                "blk.3.post_attention_norm.weight",
            ),
            (
                "gemma3",
                "model.layers.3.pre_feedforward_layernorm.weight",
                "blk.3.ffn_norm.weight",
            ),
            (
                "gemma3",
                "model.layers.3.post_feedforward_layernorm.weight",
                "blk.3.post_ffw_norm.weight",
            ),
        ] {
            let family = Family::from_name(family).unwrap();
            assert_eq!(of(family, weight), name);
        }
    }
}
