//! GGUF in and out: every family and type, with the trits, scales and files that went in.

mod checkpoint;
#[path = "../../tests/fixtures/mod.rs"]
mod fixtures;
mod gguf_written;

use std::fs;
use std::path::Path;

use checkpoint::{Checkpoint, OPTIONS, Storage};
use gguf_written::{FAMILIES, check_equal, checkpoint, folder_of, gguf, model, pack, write};
use safetensors::Dtype;
use serde_json::Value;
use sterna_convert::{
    GgufOptions, GgufType, HeadType, PackedOptions, convert, open, verify, write_huggingface,
};
use sterna_ternary::{OutputFolder, Packing, layout};

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

#[test]
fn the_same_source_gives_the_same_bytes() {
    let folder = checkpoint(1, Storage::Online, true);
    let [a, b] = ["a", "b"].map(|name| folder.path().join(name));
    let first = write(folder.path(), &a, &gguf(GgufType::I2S)).unwrap();
    let second = write(folder.path(), &b, &gguf(GgufType::I2S)).unwrap();
    assert_eq!(first.sha256, second.sha256);
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
