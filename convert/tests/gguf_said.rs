//! What a writer of GGUF says: warnings, refusals, and counts of differences.

mod checkpoint;
mod gguf_written;

use std::fs;

use checkpoint::{Checkpoint, OPTIONS, Storage, tokenizer};
use gguf_written::{check_equal, checkpoint, config, folder_of, gguf, pack, write};
use safetensors::Dtype;
use serde_json::{Value, json};
use sterna_convert::{
    Error, GgufOptions, GgufType, PackedOptions, convert, open, verify, write_huggingface,
};
use sterna_ternary::{Activations, OutputFolder};

#[test]
fn what_programs_are_known_to_compute_wrongly_is_said() {
    for (family, tied, weights, expected) in [
        (0, true, GgufType::I2S, &["no product for i2_s"][..]),
        (
            0,
            false,
            GgufType::I2S,
            &["no product for i2_s", "separate head"],
        ),
        (0, false, GgufType::Iq2Bn, &["fewer than 512 columns"]),
        (
            1,
            true,
            GgufType::Iq2Bn,
            &["layers.0.self_attn.q_proj.weight has 256"],
        ),
        (0, true, GgufType::Tq2_0, &["another activation"]),
        (
            0,
            false,
            GgufType::Q2_0,
            &["another activation", "separate head"],
        ),
        (1, false, GgufType::Tq1_0, &[]),
        (1, true, GgufType::I2S, &["aborts on i2_s"]),
        (2, true, GgufType::I2S, &["aborts on i2_s"]),
        (2, true, GgufType::Tq2_0, &[]),
        (4, true, GgufType::I2S, &[]),
        (3, true, GgufType::I2S, &["no product for i2_s"]),
    ] {
        let folder = checkpoint(family, Storage::Multiply, tied);
        let report = write(folder.path(), &folder.path().join("out"), &gguf(weights)).unwrap();
        assert_eq!(
            report.warnings.len(),
            expected.len(),
            "{:?}",
            report.warnings
        );
        for (warning, part) in report.warnings.iter().zip(expected) {
            assert!(warning.contains(part), "{warning}");
        }
    }
    // The least width that ik_llama.cpp accepts.
    let mut config = config(0, Storage::Multiply, true);
    config["hidden_size"] = json!(512);
    let folder = folder_of(&Checkpoint::from_config(
        config,
        Storage::Multiply,
        Dtype::BF16,
    ));
    let out = folder.path().join("out");
    let report = write(folder.path(), &out, &gguf(GgufType::Iq2Bn)).unwrap();
    assert_eq!(report.warnings, Vec::<String>::new());
}

/// No other format says how activations are rounded; programs round them to int8.
#[test]
fn what_activations_of_16_bits_become_elsewhere_is_said() {
    let folder = checkpoint(1, Storage::Multiply, true);
    for (activations, is_said) in [(Activations::Int8, false), (Activations::Int16, true)] {
        let path = |name: &str| folder.path().join(format!("{name}-{}", activations.name()));
        let options = PackedOptions {
            activations: Some(activations),
            ..OPTIONS
        };
        convert(folder.path(), &path("packed"), &options, &mut |_, _| {}).unwrap();
        let source = open(&path("packed"), false).unwrap();
        assert_eq!(source.activations(), activations);
        let hf = write_huggingface(
            &*source,
            &OutputFolder::new(&path("hf")).unwrap(),
            &mut |_, _| {},
        )
        .unwrap();
        let gguf = write(&path("packed"), &path("gguf"), &gguf(GgufType::I2S)).unwrap();
        for report in [hf, gguf] {
            assert_eq!(report.warnings.join("").contains("to int8"), is_said);
        }
    }
}

#[test]
fn what_differs_is_counted() {
    let folder = checkpoint(2, Storage::Multiply, true);
    let packed = folder.path().join("packed");
    pack(folder.path(), &packed);
    let path = folder.path().join("model.safetensors");
    let bytes = fs::read(&path).unwrap();
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header: Value = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
    let q = "model.layers.0.self_attn.q_proj.weight";
    let at = |name: &str| 8 + length + header[name]["data_offsets"][0].as_u64().unwrap() as usize;
    let mut changed = bytes.clone();
    changed[at(q)] = if bytes[at(q)] == 0b01_01_01_01 {
        0
    } else {
        0b01_01_01_01
    };
    changed[at(&format!("{q}_scale")) + 1] ^= 1;
    changed[at("model.norm.weight") + 1] ^= 0x80;
    fs::write(&path, changed).unwrap();
    let found = verify(&packed, folder.path(), &mut |_, _| {}).unwrap();
    assert!((1..=4).contains(&found.differ), "{}", found.differ);
    assert_eq!((found.scales_differ, found.values_differ), (1, 1));
    assert_eq!(found.first.as_deref(), Some(q));
    let other = checkpoint(1, Storage::Multiply, true);
    let error = verify(&packed, other.path(), &mut |_, _| {}).unwrap_err();
    assert!(matches!(error, Error::Shapes { .. }), "{error}");
}

#[test]
fn a_split_rule_that_is_not_known_must_be_named() {
    let folder = checkpoint(1, Storage::Multiply, false);
    let text = tokenizer(json!({"type": "Whitespace"})).to_string();
    fs::write(folder.path().join("tokenizer.json"), text).unwrap();
    let out = folder.path().join("out.gguf");
    let error = write(folder.path(), &out, &gguf(GgufType::I2S)).unwrap_err();
    assert!(error.to_string().contains("--pre"), "{error}");
    let named = GgufOptions {
        pre: Some("falcon3".into()),
        ..gguf(GgufType::I2S)
    };
    write(folder.path(), &out, &named).unwrap();
    check_equal(folder.path(), &out);
}

#[test]
fn without_a_tokenizer_only_on_request() {
    let folder = checkpoint(1, Storage::Multiply, true);
    for name in [
        "tokenizer.json",
        "tokenizer_config.json",
        "generation_config.json",
    ] {
        fs::remove_file(folder.path().join(name)).unwrap();
    }
    let out = folder.path().join("out.gguf");
    assert!(matches!(
        write(folder.path(), &out, &gguf(GgufType::Tq2_0)),
        Err(Error::MissingFile { .. })
    ));
    let options = GgufOptions {
        allow_missing: true,
        ..gguf(GgufType::Tq2_0)
    };
    let report = write(folder.path(), &out, &options).unwrap();
    assert_eq!(report.warnings.len(), 3);
    assert!(matches!(open(&out, false), Err(Error::MissingFile { .. })));
    assert_eq!(open(&out, true).unwrap().warnings().len(), 3);
}
