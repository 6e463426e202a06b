//! Checkpoints of every family whose widths fit every type, and GGUF files written from them.

use std::fs;
use std::path::Path;

use safetensors::Dtype;
use serde_json::{Value, json};
use sterna_convert::{
    ConversionReport, Error, GgufOptions, GgufType, HeadType, convert, open, verify, write_gguf,
};
use sterna_ternary::Output;

use super::checkpoint::{self, Checkpoint, OPTIONS, Storage, byte_level, tokenizer};

pub fn gguf(weights: GgufType) -> GgufOptions {
    GgufOptions {
        weights,
        head: HeadType::Lossless,
        pre: None,
        lossy: false,
        allow_missing: false,
    }
}

pub fn write(source: &Path, out: &Path, options: &GgufOptions) -> Result<ConversionReport, Error> {
    let (mut last, mut total) = (0, 0);
    let source = open(source, options.allow_missing)?;
    let report = write_gguf(&*source, &Output::new(out)?, options, &mut |done, all| {
        assert!(done > last && done <= all);
        (last, total) = (done, all);
    })?;
    assert_eq!(last, total, "the progress ends at its total");
    assert_eq!(
        (report.differ, report.scales_differ, report.values_differ),
        (0, 0, 0)
    );
    assert_eq!(report.bytes_out, out.metadata().unwrap().len());
    Ok(report)
}

pub fn pack(source: &Path, out: &Path) {
    convert(source, out, &OPTIONS, &mut |_, _| {}).unwrap();
}

pub fn check_equal(a: &Path, b: &Path) {
    let found = verify(a, b, &mut |_, _| {}).unwrap();
    assert!(
        found.is_equal(),
        "{} {}: {found:?}",
        a.display(),
        b.display()
    );
    assert!(found.weights > 0 && found.matrices.iter().all(|m| m.plus > 0 && m.minus > 0));
}

pub const FAMILIES: [(&str, &str, &str); 5] = [
    ("bitnet", "BitNetForCausalLM", "relu2"),
    ("llama", "LlamaForCausalLM", "silu"),
    ("qwen3", "Qwen3ForCausalLM", "silu"),
    ("llama", "BitnetForCausalLM", "silu"),
    ("gemma3_text", "Gemma3ForCausalLM", "gelu_pytorch_tanh"),
];

/// The folder of a checkpoint whose widths fit every type.
pub fn checkpoint(family: usize, storage: Storage, tied: bool) -> tempfile::TempDir {
    folder_of(&model(family, storage, tied))
}

pub fn folder_of(checkpoint: &Checkpoint) -> tempfile::TempDir {
    let folder = checkpoint.folder();
    let tokenizer = tokenizer(byte_level()).to_string();
    fs::write(folder.path().join("tokenizer.json"), tokenizer).unwrap();
    folder
}

pub fn model(family: usize, storage: Storage, tied: bool) -> Checkpoint {
    Checkpoint::from_config(config(family, storage, tied), storage, Dtype::BF16)
}

pub fn config(family: usize, storage: Storage, tied: bool) -> Value {
    let (model_type, class, act) = FAMILIES[family];
    let mut config = checkpoint::config(storage, tied);
    for (key, value) in [
        ("model_type", json!(model_type)),
        ("architectures", json!([class])),
        ("hidden_act", json!(act)),
        ("hidden_size", json!(256)),
        ("intermediate_size", json!(512)),
        ("num_attention_heads", json!(8)),
        ("num_key_value_heads", json!(2)),
        ("head_dim", json!(64)),
    ] {
        config[key] = value;
    }
    if family == 1 && tied {
        config["rope_scaling"] = json!({
            "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
            "high_freq_factor": 4.0, "original_max_position_embeddings": 64,
        });
    }
    if family == 2 && tied {
        config["rope_scaling"] = json!({"rope_type": "yarn", "factor": 4.0,
            "original_max_position_embeddings": 16});
    }
    if family == 4 {
        config["hidden_activation"] = json!(act);
        config["query_pre_attn_scalar"] = json!(64);
        config["sliding_window"] = json!(32);
        config["layer_types"] = match tied {
            true => json!(["sliding_attention", "full_attention"]),
            false => json!(["full_attention", "full_attention"]),
        };
        config["rope_local_base_freq"] = json!(if tied { 1e4 } else { 5e3 });
    }
    if family == 4 || family == 2 && !tied {
        config["quantization_config"]["use_rms_norm"] = json!(true);
        config["quantization_config"]["rms_norm_eps"] = json!(1e-5);
    }
    config
}
