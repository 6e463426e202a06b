//! GGUF in and out: every family and type, with the trits, scales and files that went in.

mod checkpoint;
#[path = "../../tests/fixtures/mod.rs"]
mod fixtures;

use std::fs;
use std::path::Path;

use checkpoint::{Checkpoint, OPTIONS, Storage, byte_level, tokenizer};
use safetensors::Dtype;
use serde_json::{Value, json};
use sterna_convert::{
    ConversionReport, Error, GgufOptions, GgufType, HeadType, PackedOptions, convert, open, verify,
    write_gguf, write_huggingface,
};
use sterna_ternary::layout;
use sterna_ternary::{Activations, Output, OutputFolder, Packing};

fn gguf(weights: GgufType) -> GgufOptions {
    GgufOptions {
        weights,
        head: HeadType::Lossless,
        pre: None,
        lossy: false,
        allow_missing: false,
    }
}

fn write(source: &Path, out: &Path, options: &GgufOptions) -> Result<ConversionReport, Error> {
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

fn pack(source: &Path, out: &Path) {
    convert(source, out, &OPTIONS, &mut |_, _| {}).unwrap();
}

fn check_equal(a: &Path, b: &Path) {
    let found = verify(a, b, &mut |_, _| {}).unwrap();
    assert!(
        found.is_equal(),
        "{} {}: {found:?}",
        a.display(),
        b.display()
    );
    assert!(found.weights > 0 && found.matrices.iter().all(|m| m.plus > 0 && m.minus > 0));
}

const FAMILIES: [(&str, &str, &str); 5] = [
    ("bitnet", "BitNetForCausalLM", "relu2"),
    ("llama", "LlamaForCausalLM", "silu"),
    ("qwen3", "Qwen3ForCausalLM", "silu"),
    ("llama", "BitnetForCausalLM", "silu"),
    ("gemma3_text", "Gemma3ForCausalLM", "gelu_pytorch_tanh"),
];

/// The folder of a checkpoint whose widths fit every type.
fn checkpoint(family: usize, storage: Storage, tied: bool) -> tempfile::TempDir {
    folder_of(&model(family, storage, tied))
}

fn folder_of(checkpoint: &Checkpoint) -> tempfile::TempDir {
    let folder = checkpoint.folder();
    let tokenizer = tokenizer(byte_level()).to_string();
    fs::write(folder.path().join("tokenizer.json"), tokenizer).unwrap();
    folder
}

fn model(family: usize, storage: Storage, tied: bool) -> Checkpoint {
    Checkpoint::from_config(config(family, storage, tied), storage, Dtype::BF16)
}

fn config(family: usize, storage: Storage, tied: bool) -> Value {
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

#[test]
fn every_family_and_type_there_and_back() {
    let out = tempfile::tempdir().unwrap();
    for (family, weights) in (0..FAMILIES.len()).flat_map(|f| GgufType::ALL.map(|w| (f, w))) {
        for tied in [false, true] {
            let folder = checkpoint(family, Storage::Multiply, tied);
            let [packed, file, back] = ["packed", "gguf", "back"].map(|name| out.path().join(name));
            let report = write(folder.path(), &file, &gguf(weights)).unwrap();
            assert_eq!(report.packing, weights.name());
            assert_eq!(report.scale_rounding, 0.0);
            pack(folder.path(), &packed);
            pack(&file, &back);
            // The same bytes: trits, scales, tables, norms and all embedded files.
            assert_eq!(fs::read(&packed).unwrap(), fs::read(&back).unwrap());
            check_equal(folder.path(), &file);
            check_equal(&file, &packed);
            let second = out.path().join("second");
            write(&packed, &second, &gguf(weights)).unwrap();
            check_equal(&second, folder.path());
        }
    }
}

#[test]
fn scales_that_f16_does_not_hold() {
    let folder = checkpoint(1, Storage::Divide, false);
    let out = folder.path().join("out.gguf");
    for weights in GgufType::ALL {
        let refused = write(folder.path(), &out, &gguf(weights));
        if [GgufType::I2S, GgufType::Iq2Bn].contains(&weights) {
            refused.unwrap();
            continue;
        }
        let error = refused.unwrap_err().to_string();
        for part in ["q_proj", "which would become", "off by", "--lossy"] {
            assert!(error.contains(part), "{error}");
        }
        let rounds = GgufOptions {
            lossy: true,
            ..gguf(weights)
        };
        let report = write(folder.path(), &out, &rounds).unwrap();
        assert!(report.scale_rounding > 0.0 && report.scale_rounding < 4.9e-4);
        let found = verify(folder.path(), &out, &mut |_, _| {}).unwrap();
        assert!(found.differ == 0 && found.scales_differ > 0 && !found.is_equal());
    }
}

#[test]
fn every_writer_meets_odd_widths() {
    for width in [63, 64, 100, 128, 130, 192, 250, 320] {
        let mut config = checkpoint::config(Storage::Multiply, true);
        config["hidden_size"] = width.into();
        config["intermediate_size"] = width.into();
        config["num_attention_heads"] = 1.into();
        config["head_dim"] = 256.into();
        let checkpoint = Checkpoint::from_config(config, Storage::Multiply, Dtype::BF16);
        let folder = folder_of(&checkpoint);
        let out = folder.path().join("out");
        for packing in [Packing::I2, Packing::T5] {
            let options = PackedOptions {
                packing: packing.into(),
                ..OPTIONS
            };
            convert(folder.path(), &out, &options, &mut |_, _| {}).unwrap();
            check_equal(folder.path(), &out);
        }
        for weights in GgufType::ALL {
            let block = match weights {
                GgufType::Q2_0 | GgufType::Iq2Bn => 64,
                GgufType::I2S | GgufType::Q2_0G128 => 128,
                GgufType::Tq1_0 | GgufType::Tq2_0 => 256,
            };
            let _ = fs::remove_file(&out);
            let made = write(folder.path(), &out, &gguf(weights));
            match width % block {
                0 => {
                    made.unwrap();
                    check_equal(folder.path(), &out);
                }
                _ => {
                    let error = made.unwrap_err().to_string();
                    let says = error.contains(&format!("multiple of {block}"));
                    assert!(says && error.contains(&width.to_string()), "{error}");
                    assert!(!out.exists());
                }
            }
        }
        let source = open(folder.path(), false).unwrap();
        let out = folder.path().join("folder");
        match write_huggingface(&*source, &OutputFolder::new(&out).unwrap(), &mut |_, _| {}) {
            Ok(_) => check_equal(folder.path(), &out),
            Err(error) => {
                assert!(width % 4 != 0 && error.to_string().contains("multiple of four"));
                assert!(!out.exists());
            }
        }
    }
}

#[test]
fn widths_that_are_no_blocks_are_refused() {
    let mut config = checkpoint::config(Storage::Multiply, true);
    config["hidden_size"] = 64.into();
    config["intermediate_size"] = 192.into();
    config["head_dim"] = 64.into();
    let checkpoint = Checkpoint::from_config(config, Storage::Multiply, Dtype::BF16);
    let folder = folder_of(&checkpoint);
    let out = folder.path().join("out.gguf");
    for weights in GgufType::ALL {
        let result = write(folder.path(), &out, &gguf(weights));
        match weights {
            GgufType::Q2_0 | GgufType::Iq2Bn => drop(result.unwrap()),
            _ => assert!(result.unwrap_err().to_string().contains("multiple of")),
        }
    }
    for head in [HeadType::Q6, HeadType::Q4] {
        let options = GgufOptions {
            head,
            ..gguf(GgufType::Q2_0)
        };
        let error = write(folder.path(), &out, &options)
            .unwrap_err()
            .to_string();
        for part in ["q6 with a multiple of 256", "64 columns", "--head q8"] {
            assert!(error.contains(part), "{error}");
        }
    }
}

#[test]
fn heads_in_every_type() {
    use HeadType::{F16, Lossless, Q6, Q8};
    for (tied, head) in [false, true]
        .into_iter()
        .flat_map(|t| [F16, Q8, Q6, Lossless].map(|h| (t, h)))
    {
        let folder = checkpoint(0, Storage::Online, tied);
        let out = folder.path().join("out.gguf");
        let options = GgufOptions {
            head,
            ..gguf(GgufType::I2S)
        };
        let report = write(folder.path(), &out, &options).unwrap();
        let dtypes: Vec<_> = report.tables.iter().map(|t| t.dtype).collect();
        let expected = match head {
            Q8 => "q8_0",
            Q6 => "q6_k",
            _ => "f16",
        };
        assert_eq!(dtypes.last(), Some(&expected));
        assert_eq!(dtypes[0], if tied { expected } else { "f16" });
        // A table in a coarser type equals the other one after rounding, so it does not differ.
        check_equal(folder.path(), &out);
    }
}

#[test]
fn a_q6_head_does_not_overflow() {
    let mut checkpoint = model(0, Storage::Multiply, true);
    let options = GgufOptions {
        head: HeadType::Q6,
        ..gguf(GgufType::I2S)
    };
    for (value, fits) in [(-134_217_728.0, false), (133_169_152.0, true)] {
        checkpoint.set(layout::EMBEDDING, 42, value);
        let folder = folder_of(&checkpoint);
        let written = write(folder.path(), &folder.path().join("out"), &options);
        if fits {
            written.unwrap();
            continue;
        }
        let error = written.unwrap_err().to_string();
        for part in [
            layout::EMBEDDING,
            "value 42",
            "-134217730",
            "below 134217728",
        ] {
            assert!(error.contains(part), "{error}");
        }
    }
}

/// Encoding them again would give other blocks, as the second file has a block that the encoder
/// would not choose.
#[test]
fn blocks_of_a_q6_head_are_copied() {
    let folder = checkpoint(1, Storage::Multiply, false);
    let [a, b] = ["a.gguf", "b.gguf"].map(|name| folder.path().join(name));
    let options = |weights| GgufOptions {
        head: HeadType::Q6,
        ..gguf(weights)
    };
    let head = |path: &Path| {
        let source = open(path, false).unwrap();
        let weights = layout::weights(source.config());
        let head = weights.iter().find(|w| w.name == layout::HEAD).unwrap();
        let blocks = source.blocks(head, 0, head.rows).unwrap().unwrap();
        (blocks, source.precision(head))
    };
    write(folder.path(), &a, &options(GgufType::Tq2_0)).unwrap();
    let first = head(&a).0[..210].to_vec();
    let mut bytes = fs::read(&a).unwrap();
    let at = bytes.windows(210).position(|w| w == first).unwrap();
    bytes[at + 192..][..16].fill(1); // the multipliers
    fs::write(&a, bytes).unwrap();
    assert_ne!(head(&a).0[..210], first);

    let report = write(&a, &b, &options(GgufType::I2S)).unwrap();
    assert_eq!(report.tables[1].max_error, 0.0);
    assert_eq!(head(&a), head(&b));
    assert_eq!(head(&b).1.name(), "q6_k");
    check_equal(&a, &b);
}

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
        (2, true, GgufType::I2S, &[]),
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

#[test]
fn a_packed_file_in_another_packing_keeps_its_codes() {
    let folder = checkpoint(1, Storage::Online, false);
    for head in [HeadType::Q8, HeadType::Q6, HeadType::Q4] {
        let [a, b, c] = ["a", "b", "c"].map(|name| folder.path().join(name));
        let t5 = PackedOptions {
            packing: Packing::T5.into(),
            head,
            ..OPTIONS
        };
        let i2 = PackedOptions { head, ..OPTIONS };
        convert(folder.path(), &a, &t5, &mut |_, _| {}).unwrap();
        let report = convert(&a, &b, &i2, &mut |_, _| {}).unwrap();
        assert_eq!(
            (report.tables[1].dtype, report.tables[1].max_error),
            (head.name(), 0.0)
        );
        convert(&b, &c, &t5, &mut |_, _| {}).unwrap();
        assert_eq!(fs::read(&a).unwrap(), fs::read(&c).unwrap());
        check_equal(&a, &b);
    }
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
fn the_same_source_gives_the_same_bytes() {
    let folder = checkpoint(1, Storage::Online, true);
    let [a, b] = ["a", "b"].map(|name| folder.path().join(name));
    let first = write(folder.path(), &a, &gguf(GgufType::I2S)).unwrap();
    let second = write(folder.path(), &b, &gguf(GgufType::I2S)).unwrap();
    assert_eq!(first.sha256, second.sha256);
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
        write(folder.path(), &out, &gguf(GgufType::I2S)),
        Err(Error::MissingFile { .. })
    ));
    let options = GgufOptions {
        allow_missing: true,
        ..gguf(GgufType::I2S)
    };
    let report = write(folder.path(), &out, &options).unwrap();
    assert_eq!(report.warnings.len(), 3);
    assert!(matches!(open(&out, false), Err(Error::MissingFile { .. })));
    assert_eq!(open(&out, true).unwrap().warnings().len(), 3);
}

#[test]
fn a_hugging_face_folder_from_anything() {
    let out = tempfile::tempdir().unwrap();
    for (storage, name) in [
        (Storage::Multiply, "hf, scales multiply"),
        (Storage::Divide, "hf, scales divide"),
        (Storage::Online, "hf, scales multiply"),
    ] {
        for tied in [false, true] {
            let folder = checkpoint(1, storage, tied);
            let [packed, file] = ["packed", "file.gguf"].map(|name| folder.path().join(name));
            pack(folder.path(), &packed);
            write(folder.path(), &file, &gguf(GgufType::I2S)).unwrap();
            for (i, source) in [folder.path(), &packed, &file].into_iter().enumerate() {
                let made = out.path().join(format!("{storage:?}{tied}{i}"));
                let source = open(source, false).unwrap();
                let report =
                    write_huggingface(&*source, &OutputFolder::new(&made).unwrap(), &mut |_, _| {})
                        .unwrap();
                assert_eq!(report.packing, name);
                assert_eq!(
                    (report.differ, report.scales_differ, report.values_differ),
                    (0, 0, 0)
                );
                check_equal(folder.path(), &made);
                let config = fs::read_to_string(made.join("config.json")).unwrap();
                let config: Value = serde_json::from_str(&config).unwrap();
                let class = &config["quantization_config"]["linear_class"];
                assert_eq!(class.is_null(), storage == Storage::Divide);
                // Only scales that were not bf16 in the checkpoint need more.
                let is_wide = config["torch_dtype"] == "float32";
                assert_eq!(is_wide, storage == Storage::Online);
                let twice = OutputFolder::new(&made).unwrap_err();
                assert!(twice.to_string().contains("exists"), "{twice}");
            }
        }
    }
    assert_eq!(
        fs::read_dir(out.path()).unwrap().count(),
        18,
        "nothing else is left"
    );
}

#[test]
fn checkpoints_of_another_implementation() {
    let out = tempfile::tempdir().unwrap();
    let mut written = 0;
    for folder in fixtures::cases("checkpoints") {
        let Ok(source) = open(&folder, false) else {
            continue; // tests/fixtures.rs says which, and why
        };
        for weights in GgufType::ALL {
            let file = out.path().join("model.gguf");
            let options = GgufOptions {
                lossy: true,
                ..gguf(weights)
            };
            let report = match write(&folder, &file, &options) {
                Err(e) if e.to_string().contains("multiple of") => continue,
                Err(e) if e.to_string().contains("one scale for the matrix") => continue,
                report => report.unwrap(),
            };
            written += 1;
            let found = verify(&folder, &file, &mut |_, _| {}).unwrap();
            assert_eq!((found.differ, found.values_differ), (0, 0));
            assert!(found.scales_differ == 0 || report.scale_rounding > 0.0);
            assert_eq!(open(&file, false).unwrap().files(), source.files());
            let [a, b] = ["a", "b"].map(|name| out.path().join(name));
            let i2 = PackedOptions {
                packing: Packing::I2.into(), // the one that holds every kind of scales
                ..OPTIONS
            };
            convert(&folder, &a, &i2, &mut |_, _| {}).unwrap();
            convert(&file, &b, &i2, &mut |_, _| {}).unwrap();
            let found = verify(&a, &b, &mut |_, _| {}).unwrap();
            assert_eq!((found.differ, found.values_differ), (0, 0));
        }
    }
    assert!(written >= 5, "{written}");
}
