//! A conversion preserves the model, for every storage, type, packing and head.

mod checkpoint;

use std::fs;

use checkpoint::{Checkpoint, OPTIONS, Storage, convert, pack, store, table_values, unpack};
use safetensors::Dtype;
use serde_json::json;
use sterna_convert::{HeadType, HuggingFace, PackedOptions, write_packed};
use sterna_ternary::layout::{EMBEDDING, HEAD};
use sterna_ternary::table::CodedRow;
use sterna_ternary::{PackedFile, Packing};

const FLOATS: [Dtype; 3] = [Dtype::F32, Dtype::F16, Dtype::BF16];
const CODED: [HeadType; 3] = [HeadType::Q8, HeadType::Q6, HeadType::Q4];

#[test]
fn every_storage_type_and_packing() {
    for storage in Storage::ALL {
        for dtype in FLOATS {
            for (shards, tied) in [(1, true), (1, false), (3, true), (4, false)] {
                let mut checkpoint = Checkpoint::new(storage, dtype, tied);
                checkpoint.shards = shards;
                for packing in Packing::ALL {
                    let packing = packing.into();
                    let options = PackedOptions { packing, ..OPTIONS };
                    let (report, packed, _folder) = checkpoint.convert(&options).unwrap();
                    checkpoint.check(&packed);
                    let weights: usize = checkpoint.matrices.values().map(|m| m.0.len()).sum();
                    assert_eq!(report.weights, weights as u64);
                    assert_eq!(report.scales, 14);
                    let (source, embedding, head) = match dtype {
                        Dtype::F32 => ("F32", "f32", "f32_planes"),
                        Dtype::F16 => ("F16", "f16", "f16_planes"),
                        _ => ("BF16", "f16", "f16_planes"), // f16 holds these small values exactly
                    };
                    for (i, table) in report.tables.iter().enumerate() {
                        let dtype = match tied || i == 1 {
                            true => head,
                            false => embedding,
                        };
                        assert_eq!((table.source_dtype, table.dtype), (source, dtype));
                        assert_eq!((table.mean_error, table.max_error), (0.0, 0.0));
                    }
                    assert_eq!(report.tables.len(), if tied { 1 } else { 2 });
                }
            }
        }
    }
}

#[test]
fn the_report_describes_the_file() {
    let checkpoint = Checkpoint::new(Storage::Divide, Dtype::BF16, true);
    let (report, packed, folder) = checkpoint.convert(&OPTIONS).unwrap();
    let bytes = fs::read(packed.path()).unwrap();
    assert_eq!(report.bytes_out, bytes.len() as u64);
    let source = fs::metadata(folder.path().join("model.safetensors")).unwrap();
    assert_eq!(report.bytes_in, source.len());
    assert_eq!(report.sha256, sterna_ternary::sha256::of(&bytes));
    for matrix in &report.matrices {
        let (trits, scale) = &checkpoint.matrices[&matrix.name];
        let count = |t| trits.iter().filter(|x| **x == t).count() as u64;
        assert_eq!(
            (matrix.minus, matrix.zero, matrix.plus),
            (count(-1), count(0), count(1))
        );
        assert_eq!((matrix.scale, matrix.stored_scale), (*scale, "divide"));
    }
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["matrices"].as_array().unwrap().len(), 14);
    assert_eq!(json["packing"], "i2");
}

#[test]
fn conversion_is_deterministic_and_replaces_an_older_result() {
    let folder = Checkpoint::new(Storage::Online, Dtype::F32, false).folder();
    let (first, out) = convert(folder.path(), &OPTIONS).unwrap();
    let bytes = fs::read(&out).unwrap();
    fs::write(&out, "an older result").unwrap();
    let (second, _) = convert(folder.path(), &OPTIONS).unwrap();
    assert_eq!(first, second);
    assert_eq!(bytes, fs::read(&out).unwrap());
}

#[test]
fn sizes_beyond_one_chunk_and_one_thread() {
    let mut config = checkpoint::config(Storage::Online, false);
    config["hidden_size"] = 1030.into();
    config["intermediate_size"] = 777.into();
    config["vocab_size"] = 2100.into();
    config["num_hidden_layers"] = 1.into();
    for storage in [Storage::Online, Storage::Multiply] {
        config["quantization_config"] =
            checkpoint::config(storage, false)["quantization_config"].clone();
        let checkpoint = Checkpoint::from_config(config.clone(), storage, Dtype::F32);
        let (_, packed, _folder) = checkpoint.convert(&OPTIONS).unwrap();
        checkpoint.check(&packed);
        for head in CODED {
            let options = PackedOptions {
                head,
                packing: Packing::T5.into(),
                ..OPTIONS
            };
            let (_, packed, _folder) = checkpoint.convert(&options).unwrap();
            check_codes(&packed, HEAD, &checkpoint);
        }
    }
}

#[test]
fn the_worked_example_of_the_published_packing() {
    // One packed row of two columns: 0x86 0x19 is [[1, 0], [0, 1], [-1, 0], [1, -1]].
    let trits = [1, 0, 0, 1, -1, 0, 1, -1];
    assert_eq!(pack(&trits, 4, 2), [0x86, 0x19]);
    // 32 trits as 8 rows of 4.
    let formula: Vec<i8> = (0..32).map(|i| ((i * i + i / 5) % 3) as i8 - 1).collect();
    assert_eq!(pack(&formula, 8, 4), [88, 21, 1, 144, 41, 18, 33, 98]);
    let mut config = checkpoint::config(Storage::Multiply, true);
    config["hidden_size"] = 4.into();
    config["num_attention_heads"] = 4.into();
    let mut checkpoint = Checkpoint::from_config(config, Storage::Multiply, Dtype::BF16);
    let name = "model.layers.1.self_attn.q_proj.weight"; // [8, 4]
    checkpoint.tensors.get_mut(name).unwrap().bytes = vec![88, 21, 1, 144, 41, 18, 33, 98];
    checkpoint.set(&format!("{name}_scale"), 0, 1.21875);
    let (_, packed, _folder) = checkpoint.convert(&OPTIONS).unwrap();
    assert_eq!(unpack(&packed, name), formula);
    assert_eq!(*packed.matrix(name).scales.to_f32(), [1.21875]);
}

#[test]
fn a_table_takes_the_narrowest_exact_type() {
    let mut checkpoint = Checkpoint::new(Storage::Divide, Dtype::BF16, false);
    let (tensor, values) = store(Dtype::BF16, &[11, 10], &[-0.0; 110]);
    checkpoint.tensors.insert(HEAD.into(), tensor);
    checkpoint.values.insert(HEAD.into(), values);
    checkpoint.set(EMBEDDING, 5, 1e30);
    checkpoint.values.get_mut(EMBEDDING).unwrap()[5] = half::bf16::from_f32(1e30).to_f32();
    let (report, packed, _folder) = checkpoint.convert(&OPTIONS).unwrap();
    checkpoint.check(&packed);
    assert_eq!(
        [report.tables[0].dtype, report.tables[1].dtype],
        ["bf16", "f16"]
    );
    let zero = table_values(packed.head().values, 10)[0];
    assert!(zero.is_sign_negative());
}

#[test]
fn an_f16_head_rounds_and_says_so() {
    let checkpoint = Checkpoint::new(Storage::Online, Dtype::F32, false);
    let options = PackedOptions {
        head: HeadType::F16,
        ..OPTIONS
    };
    let (report, packed, _folder) = checkpoint.convert(&options).unwrap();
    for (table, name) in [(packed.embedding(), EMBEDDING), (packed.head(), HEAD)] {
        let values = &checkpoint.values[name];
        let found = table_values(table.values, 10);
        assert_eq!(found, store(Dtype::F16, &[110], values).1);
        check_error(&report.tables, name, &found, values);
    }
    assert!(
        report
            .tables
            .iter()
            .all(|t| t.dtype == "f16" && t.max_error > 0.0)
    );
}

#[test]
fn a_coded_head_is_the_encoder_s() {
    for (tied, head) in [true, false]
        .into_iter()
        .flat_map(|t| CODED.map(|h| (t, h)))
    {
        let mut checkpoint = Checkpoint::new(Storage::Multiply, Dtype::F32, tied);
        let name = if tied { EMBEDDING } else { HEAD };
        for i in 0..10 {
            checkpoint.set(name, i, 0.0); // a row of zeros
            checkpoint.values.get_mut(name).unwrap()[i] = 0.0;
        }
        let options = PackedOptions { head, ..OPTIONS };
        let (report, packed, _folder) = checkpoint.convert(&options).unwrap();
        assert_eq!(packed.head_type.name(), head.name());
        check_codes(&packed, name, &checkpoint);
        let found = table_values(packed.head().values, 10);
        check_error(&report.tables, name, &found, &checkpoint.values[name]);
        if !tied {
            let embedding = table_values(packed.embedding().values, 10);
            assert_eq!(embedding, checkpoint.values[EMBEDDING]);
        }
    }
}

fn check_codes(packed: &PackedFile, name: &str, checkpoint: &Checkpoint) {
    let head = packed.head();
    let expected: Vec<f32> = checkpoint.values[name]
        .chunks_exact(head.columns)
        .flat_map(|row| {
            let mut values = vec![f32::NAN; row.len()];
            CodedRow::encode(row, packed.head_type.planes()).decode(&mut values);
            values
        })
        .collect();
    assert_eq!(table_values(head.values, head.columns), expected);
}

fn check_error(tables: &[sterna_convert::TableReport], name: &str, found: &[f32], values: &[f32]) {
    let table = tables.iter().find(|t| t.name == name).unwrap();
    let errors = found.iter().zip(values).map(|(a, b)| (a - b).abs());
    assert_eq!(table.max_error, errors.clone().fold(0.0, f32::max));
    let mean = errors.map(f64::from).sum::<f64>() / values.len() as f64;
    assert!(
        (table.mean_error - mean).abs() <= 1e-12,
        "{} {mean}",
        table.mean_error
    );
}

#[test]
fn files_travel_unchanged() {
    let checkpoint = Checkpoint::new(Storage::Divide, Dtype::F16, true);
    let (report, packed, folder) = checkpoint.convert(&OPTIONS).unwrap();
    for name in sterna_ternary::file::FILES {
        let bytes = fs::read(folder.path().join(name)).unwrap();
        assert_eq!(packed.file(name), Some(&bytes[..]), "{name}");
    }
    assert!(report.warnings.is_empty());
}

#[test]
fn a_missing_tie_is_filled_in_from_the_tensors() {
    for tied in [true, false] {
        for value in [None, Some(serde_json::Value::Null)] {
            let mut checkpoint = Checkpoint::new(Storage::Divide, Dtype::F16, tied);
            let config = checkpoint.config.as_object_mut().unwrap();
            config.remove("tie_word_embeddings");
            config.extend(value.map(|v| ("tie_word_embeddings".to_owned(), v)));
            let (_, packed, _folder) = checkpoint.convert(&OPTIONS).unwrap();
            checkpoint.check(&packed);
            assert_eq!(packed.config.tie_word_embeddings, tied);
            let json: serde_json::Value =
                serde_json::from_slice(packed.file("config.json").unwrap()).unwrap();
            assert_eq!(json["tie_word_embeddings"], tied);
        }
    }
}

#[test]
fn harmless_surplus_is_ignored() {
    let mut checkpoint = Checkpoint::new(Storage::Online, Dtype::F16, true);
    checkpoint.add("model.layers.0.self_attn.rotary_emb.inv_freq", &[1]);
    let embedding = checkpoint.tensors[EMBEDDING].clone();
    checkpoint.tensors.insert(HEAD.into(), embedding);
    let (_, packed, _folder) = checkpoint.convert(&OPTIONS).unwrap();
    checkpoint.check(&packed);
}

/// A body without a head. Only the names of the tensors show the norms before linear layers.
fn embedding_model(family: &str) -> Checkpoint {
    let mut config = checkpoint::config(Storage::Online, true);
    let (model_type, class) = match family {
        "gemma3" => ("gemma3_text", "Gemma3TextModel"),
        _ => ("qwen3", "Qwen3Model"),
    };
    for (key, value) in [
        ("model_type", json!(model_type)),
        ("architectures", json!([class])),
        ("hidden_act", json!("silu")),
        ("hidden_activation", json!("gelu_pytorch_tanh")),
        ("query_pre_attn_scalar", json!(2)),
        ("layer_types", json!(["full_attention", "full_attention"])),
        ("sliding_window", json!(4)),
    ] {
        config[key] = value;
    }
    config["quantization_config"]["use_rms_norm"] = true.into();
    config["quantization_config"]["rms_norm_eps"] = config["rms_norm_eps"].clone();
    let mut made = Checkpoint::from_config(config, Storage::Online, Dtype::BF16);
    made.config
        .as_object_mut()
        .unwrap()
        .remove("quantization_config");
    let tensors = std::mem::take(&mut made.tensors).into_iter();
    let renamed = tensors.map(|(name, tensor)| {
        let name = name.replace("rms_norm.weight", "norm.weight");
        (name.trim_start_matches("model.").to_owned(), tensor)
    });
    made.tensors = renamed.collect();
    made
}

#[test]
fn embedding_models_say_by_names_that_linear_layers_have_norms() {
    let (report, packed, _folder) = embedding_model("qwen3").convert(&OPTIONS).unwrap();
    embedding_model("qwen3").check(&packed);
    assert_eq!(packed.config.linear_norm_eps, Some(1e-5));
    let warnings = report.warnings.join("\n");
    assert!(warnings.contains("norm before it"), "{warnings}");
    // Gains of Gemma lack one, those of linear layers do not.
    let mut gemma = embedding_model("gemma3");
    let (_, packed, _folder) = gemma.convert(&OPTIONS).unwrap();
    for (name, gain) in &mut gemma.values {
        if name.contains("norm") && !name.contains("rms_norm") {
            gain.iter_mut().for_each(|x| *x += 1.0);
        }
    }
    gemma.check(&packed);
    // √10 in bf16, the type of the tensors: config.json does not name one.
    assert_eq!(packed.config.embedding_multiplier, 3.15625);
    for missing in [
        "layers.1.mlp.up_proj.norm.weight",
        "layers.0.self_attn.q_proj.weight",
    ] {
        let mut checkpoint = embedding_model("qwen3");
        checkpoint.tensors.remove(missing).unwrap();
        let error = checkpoint.error().to_string();
        assert!(error.contains(missing), "{error}");
    }
    let mut odd = embedding_model("qwen3");
    odd.config["quantization_config"] = "bitnet".into();
    assert!(odd.error().to_string().contains("quant_method"));
    odd.config["quantization_config"] = json!({"quant_method": "bitnet", "use_rms_norm": false,
        "linear_class": "autobitlinear", "quantization_mode": "online"});
    assert!(odd.error().to_string().contains("proj.norm.weight"));
    let mut mixed = embedding_model("qwen3");
    mixed.add("model.norm.weight", &[10]);
    assert!(mixed.error().to_string().contains("model.norm.weight"));
}

#[test]
fn masters_that_config_json_does_not_declare() {
    let mut checkpoint = Checkpoint::new(Storage::Online, Dtype::BF16, true);
    let keys = checkpoint.config.as_object_mut().unwrap();
    keys.shift_remove("quantization_config").unwrap();
    let folder = checkpoint.folder();
    let source = HuggingFace::open_masters(folder.path(), false).unwrap();
    let out = folder.path().join("out");
    write_packed(
        &source,
        &sterna_ternary::Output::new(&out).unwrap(),
        &OPTIONS,
        &mut |_, _| {},
    )
    .unwrap();
    checkpoint.check(&PackedFile::open(&out).unwrap());
}

#[test]
fn the_size_of_the_vocabulary_is_that_of_the_embedding() {
    let mut checkpoint = Checkpoint::new(Storage::Divide, Dtype::F16, false);
    let said = checkpoint.config["vocab_size"].as_u64().unwrap();
    checkpoint.config["vocab_size"] = json!(said - 1);
    let (report, packed, _folder) = checkpoint.convert(&OPTIONS).unwrap();
    assert_eq!(packed.config.vocab_size as u64, said);
    let warning = format!("has {said} rows");
    assert!(report.warnings.iter().any(|w| w.contains(&warning)));
}
