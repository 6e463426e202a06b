//! The checks, one row each. To add one, write a function in the file of its subject and a row
//! here.

use super::finding::Finding;
use super::patient::Patient;
use super::trials::Trials;
use super::{both_ways, tokens, weights};
use crate::Result;

/// A known failure mode.
pub struct Check {
    pub name: &'static str,
    /// Whether the model has it.
    pub run: CheckFunction,
    /// Whether the trials are useless when this check is broken.
    pub precedes_trials: bool,
    /// What to do about it.
    pub fix: &'static str,
}

/// The function of a check, by what it looks at.
#[derive(Clone, Copy)]
pub enum CheckFunction {
    /// The unchanged model.
    Model(fn(&Patient) -> Result<Finding>),
    /// The model and its trials.
    Trials(fn(&Patient, &Trials) -> Result<Finding>),
}

pub static CHECKS: [Check; 16] = [
    Check {
        name: "declaration",
        run: CheckFunction::Model(weights::declaration),
        precedes_trials: false,
        fix: "put the `quantization_config` of the original checkpoint back into config.json; \
              tools that load and save a model often drop it",
    },
    Check {
        name: "values",
        run: CheckFunction::Model(weights::values),
        precedes_trials: true,
        fix: "download the checkpoint again; if it is your own, go back to one from before the \
              training diverged",
    },
    Check {
        name: "zeros",
        run: CheckFunction::Model(weights::zeros),
        precedes_trials: true,
        fix: "compare the size and checksum of the file with the published ones and download it \
              again; if it is your own, check the exporter, which lost the tensor",
    },
    Check {
        name: "double quantization",
        run: CheckFunction::Trials(weights::double_quantization),
        precedes_trials: false,
        fix: "ternarize master weights once: convert the packed or the master checkpoint itself, \
              not one that was unpacked from it. Weights that are already trit times scale must \
              not have `quantization_mode` online",
    },
    Check {
        name: "tied head",
        run: CheckFunction::Model(weights::tied_head),
        precedes_trials: false,
        fix: "set `tie_word_embeddings` in config.json to false if the checkpoint has an \
              lm_head.weight, and to true if it has none",
    },
    Check {
        name: "sub-norms",
        run: CheckFunction::Model(weights::sub_norms),
        precedes_trials: false,
        fix: "give config.json the `architectures`, `model_type` and `hidden_act` of the trained \
              model. With attn_sub_norm and ffn_sub_norm it is BitNetForCausalLM (bitnet, relu2); \
              with inner_attn_ln and ffn_layernorm it is BitnetForCausalLM (llama, silu); with \
              neither it is LlamaForCausalLM. A GGUF file with *_sub_norm has arch bitnet-b1.58, \
              bitnet-25 or bitnet",
    },
    Check {
        name: "rope theta",
        run: CheckFunction::Model(weights::rope_theta),
        precedes_trials: false,
        fix: "take `rope_theta` from the config.json of the model that this one was trained from; \
              in GGUF the key is ARCH.rope.freq_base",
    },
    Check {
        name: "logits",
        run: CheckFunction::Model(both_ways::logits),
        precedes_trials: false,
        fix: "see the other findings; if there are none, run with `--kv f32`, and convert the \
              original checkpoint again",
    },
    Check {
        name: "prediction",
        run: CheckFunction::Trials(both_ways::prediction),
        precedes_trials: false,
        fix: "if the model was trained, see the other findings; if all of them are fine, the \
              weights are not those of this config and tokenizer: get all files from one revision",
    },
    Check {
        name: "scale direction",
        run: CheckFunction::Trials(both_ways::scale_direction),
        precedes_trials: false,
        fix: "`linear_class` in `quantization_config` decides: bitlinear, or no value, divides by \
              weight_scale; autobitlinear multiplies. Set the value that the checkpoint was \
              exported with, and convert it again",
    },
    Check {
        name: "activation",
        run: CheckFunction::Trials(both_ways::activation),
        precedes_trials: false,
        fix: "set the activation of the training: relu2 belongs to BitNetForCausalLM with \
              `model_type` bitnet (GGUF arch bitnet-b1.58 or bitnet-25), silu to \
              BitnetForCausalLM with `model_type` llama (GGUF arch bitnet) and to LlamaForCausalLM",
    },
    Check {
        name: "q and k order",
        run: CheckFunction::Trials(both_ways::rotated_rows),
        precedes_trials: false,
        fix: "export again from the original checkpoint: GGUF files of arch llama have \
              interleaved rows of q and k; GGUF files of bitnet and qwen3 and all Hugging Face \
              folders do not",
    },
    Check {
        name: "split rule",
        run: CheckFunction::Model(tokens::split_rule),
        precedes_trials: false,
        fix: "for GGUF, write tokenizer.ggml.pre again (`sterna convert --to i2_s --pre NAME` \
              from the original folder); for a folder, take tokenizer.json from the model that \
              this one was trained from",
    },
    Check {
        name: "vocabulary size",
        run: CheckFunction::Model(tokens::vocabulary),
        precedes_trials: false,
        fix: "take tokenizer.json and config.json from the revision of the weights: `vocab_size` \
              is the number of rows of the embedding, and every token has an id below it",
    },
    Check {
        name: "chat template",
        run: CheckFunction::Model(tokens::template),
        precedes_trials: false,
        fix: "take chat_template.jinja or `chat_template` in tokenizer_config.json from the \
              model's own repository",
    },
    Check {
        name: "end of turn",
        run: CheckFunction::Model(tokens::end_of_turn),
        precedes_trials: false,
        fix: "add the id to `eos_token_id` in generation_config.json",
    },
];
