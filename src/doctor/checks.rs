//! The checks, as rows: to add one, write a function in the file of its subject and a row here.

use super::finding::Finding;
use super::patient::Patient;
use super::{both_ways, tokens, weights};

/// A known failure mode.
pub struct Check {
    pub name: &'static str,
    /// Whether the patient has it.
    pub run: fn(&Patient) -> anyhow::Result<Finding>,
    /// What to do about it.
    pub fix: &'static str,
}

pub static CHECKS: [Check; 16] = [
    Check {
        name: "declaration",
        run: weights::declaration,
        fix: "put the `quantization_config` of the original checkpoint back into config.json; tools that load and save \
              a model often drop it",
    },
    Check {
        name: "values",
        run: weights::values,
        fix: "download the checkpoint again; if it is your own, go back to one from before the training diverged",
    },
    Check {
        name: "zeros",
        run: weights::zeros,
        fix: "compare the size and checksum of the file with the published ones and download it again; if it is your \
              own, look at the exporter, which lost the tensor",
    },
    Check {
        name: "double quantization",
        run: weights::double_quantization,
        fix: "ternarize master weights once: convert the packed or the master checkpoint itself, not one that was \
              unpacked again; weights that are trit times scale already must not be declared `quantization_mode` online",
    },
    Check {
        name: "tied head",
        run: weights::tied_head,
        fix: "make `tie_word_embeddings` in config.json say whether the checkpoint has an lm_head.weight of its own",
    },
    Check {
        name: "sub-norms",
        run: weights::sub_norms,
        fix: "give config.json the `architectures`, `model_type` and `hidden_act` of the model that was trained: with \
              attn_sub_norm and ffn_sub_norm it is BitNetForCausalLM (bitnet, relu2), with inner_attn_ln and \
              ffn_layernorm BitnetForCausalLM (llama, silu), with neither LlamaForCausalLM; a GGUF file with \
              *_sub_norm is of arch bitnet-b1.58, bitnet-25 or bitnet",
    },
    Check {
        name: "rope theta",
        run: weights::rope_theta,
        fix: "take `rope_theta` from the config.json of the model that this one was trained from; in GGUF it is \
              rope.freq_base below the name of the architecture",
    },
    Check {
        name: "logits",
        run: both_ways::logits,
        fix: "see the other findings; if there are none, run with `--kv f32`, and convert the original checkpoint again",
    },
    Check {
        name: "prediction",
        run: both_ways::prediction,
        fix: "if the model was trained, see the other findings; if all of them are fine, the weights are not those of \
              this config and tokenizer: get all files from one revision",
    },
    Check {
        name: "scale direction",
        run: both_ways::scale_direction,
        fix: "`linear_class` in `quantization_config` decides: bitlinear, or none, divides by weight_scale; \
              autobitlinear multiplies. Set what the checkpoint was exported with, and convert again from there",
    },
    Check {
        name: "activation",
        run: both_ways::activation,
        fix: "set the activation that the model was trained with: relu2 belongs to BitNetForCausalLM with `model_type` \
              bitnet (GGUF arch bitnet-b1.58 or bitnet-25), silu to BitnetForCausalLM with `model_type` llama (GGUF \
              arch bitnet) and to LlamaForCausalLM",
    },
    Check {
        name: "q and k order",
        run: both_ways::rotated_rows,
        fix: "export again from the original checkpoint: GGUF files of arch llama have the rows of q and k interleaved, \
              those of bitnet and qwen3 and all Hugging Face folders do not",
    },
    Check {
        name: "split rule",
        run: tokens::split_rule,
        fix: "in GGUF write tokenizer.ggml.pre again (`sterna convert --to i2_s --pre NAME` from the original \
              folder); in a folder take tokenizer.json from the model that this one was trained from",
    },
    Check {
        name: "vocabulary size",
        run: tokens::vocabulary,
        fix: "take tokenizer.json and config.json from the revision of the weights: `vocab_size` is the number of rows \
              of the embedding, and every token has an id below it",
    },
    Check {
        name: "chat template",
        run: tokens::template,
        fix: "take chat_template.jinja or `chat_template` in tokenizer_config.json from the model's own repository",
    },
    Check {
        name: "end of turn",
        run: tokens::end_of_turn,
        fix: "add the id to `eos_token_id` in generation_config.json",
    },
];
