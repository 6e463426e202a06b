//! Full-precision models as baselines, stored as plain numbers and as blocks: their logits are
//! those of transformers, and every way to convert them gives the same.

mod program;

use std::path::Path;

use program::{fixture, refused, stdout, text};
use safetensors::SafeTensors;
use sterna_convert::{Error, HeadType, PackedOptions, TableReport, convert, verify};
use sterna_runtime::{Kernels, KvType, Logits, Model};
use sterna_ternary::{Dense, LinearType, Output, PackedFile, Packing};

fn pack(
    source: &Path,
    packing: impl Into<LinearType>,
    out: &Path,
) -> Result<sterna_convert::ConversionReport, Error> {
    let options = PackedOptions {
        packing: packing.into(),
        head: HeadType::Lossless,
        activations: None,
        allow_missing: true,
    };
    convert(source, out, &options, &mut |_, _| {})
}

fn logits(path: &Path, kernels: &'static Kernels, ids: &[u32]) -> Vec<f32> {
    let options = sterna_runtime::Options {
        threads: Some(2),
        kernels: Some(kernels),
        kv_type: KvType::F32,
        ..Default::default()
    };
    let model = Model::open(path, options).unwrap();
    let mut cache = model.new_cache(ids.len()).unwrap();
    model.forward(&mut cache, ids, Logits::All).unwrap()
}

/// Mean |Δ| over the standard deviation of the expected logits.
fn relative_error(ours: &[f32], expected: &[f32]) -> f64 {
    assert_eq!(ours.len(), expected.len());
    let n = expected.len() as f64;
    let mean = expected.iter().map(|x| f64::from(*x)).sum::<f64>() / n;
    let squares = expected.iter().map(|x| (f64::from(*x) - mean).powi(2));
    let deviation = (squares.sum::<f64>() / n).sqrt();
    let pairs = ours.iter().zip(expected);
    pairs.map(|(a, b)| f64::from((a - b).abs())).sum::<f64>() / n / deviation
}

fn floats(reference: &SafeTensors, name: &str) -> Vec<f32> {
    let data = reference.tensor(name).unwrap();
    let numbers = data.data().as_chunks::<4>().0.iter();
    numbers.map(|b| f32::from_le_bytes(*b)).collect()
}

fn ids(reference: &SafeTensors, name: &str) -> Vec<u32> {
    let data = reference.tensor(name).unwrap();
    let numbers = data.data().as_chunks::<8>().0.iter();
    numbers.map(|b| i64::from_le_bytes(*b) as u32).collect()
}

#[test]
fn logits_are_those_of_transformers() {
    let folder = tempfile::tempdir().unwrap();
    for (model, number) in [("llama", "bf16"), ("qwen3", "f32")] {
        let source = fixture("baselines").join(model);
        let bytes = std::fs::read(source.join("reference.safetensors")).unwrap();
        let reference = SafeTensors::deserialize(&bytes).unwrap();
        // With many tokens, an activation may be near a rounding boundary and go the other way.
        for (packing, held, bounds) in [
            (Dense::F16, number, [2e-6; 2]),
            (Dense::Q8_0, "q8_0", [2e-6, 2e-4]),
            (Dense::Q4_0, "q4_0", [2e-6, 2e-4]),
        ] {
            let path = folder.path().join(packing.name());
            let report = pack(&source, packing, &path).unwrap();
            assert_eq!(report.dense.len(), 14);
            // f16 holds some bf16 matrices exactly.
            assert!(report.dense.iter().any(|m| m.dtype == held));
            let is_exact = |m: &TableReport| m.max_error == 0.0;
            assert!(
                report
                    .dense
                    .iter()
                    .all(|m| is_exact(m) == (packing == Dense::F16))
            );
            PackedFile::open(&path).unwrap().verify().unwrap();
            for (n, bound) in [1, 40].into_iter().zip(bounds) {
                let expected = floats(&reference, &format!("{}.{n}", packing.name()));
                let ids = ids(&reference, &format!("ids.{n}"));
                let ours = logits(&path, Kernels::best(), &ids);
                let error = relative_error(&ours, &expected);
                println!("{model} {} {n}: {error:.1e}", packing.name());
                assert!(error < bound, "{model} {packing:?} {n}: {error:e}");
                for table in Kernels::available() {
                    assert!(logits(&path, table, &ids) == ours, "{table:?}");
                }
            }
        }
    }
}

/// Products of trits and scales, of which transformers rounds no activation.
#[test]
fn a_ternary_model_is_evaluated_in_full_precision() {
    let folder = tempfile::tempdir().unwrap();
    let source = fixture("checkpoints/llama-shards");
    let bytes = std::fs::read(source.join("reference.safetensors")).unwrap();
    let reference = SafeTensors::deserialize(&bytes).unwrap();
    let [trits, direct, later] = ["i2", "f16", "f16 of i2"].map(|name| folder.path().join(name));
    pack(&source, Packing::I2, &trits).unwrap();
    pack(&source, Dense::F16, &direct).unwrap();
    pack(&trits, Dense::F16, &later).unwrap();
    assert!(verify(&trits, &direct, &mut |_, _| {}).unwrap().is_equal());
    for name in reference
        .names()
        .into_iter()
        .filter(|n| n.starts_with("ids."))
    {
        let ids = ids(&reference, name);
        let expected = floats(&reference, &name.replace("ids", "logits"));
        for path in [&direct, &later] {
            let error = relative_error(&logits(path, Kernels::best(), &ids), &expected);
            assert!(error < 1e-5, "{name} {error:e}");
        }
    }
}

#[test]
fn a_baseline_is_asked_for_and_has_no_trits() {
    let folder = tempfile::tempdir().unwrap();
    let source = fixture("baselines/qwen3");
    let path = |name: &str| folder.path().join(name);
    let error = pack(&source, Packing::I2, &path("i2"))
        .unwrap_err()
        .to_string();
    assert!(error.contains("--packing f16, q8_0 or q4_0"), "{error}");
    assert!(!path("i2").exists());
    for packing in Dense::ALL {
        pack(&source, packing, &path(packing.name())).unwrap();
        let error = pack(&path(packing.name()), Packing::I2, &path("i2")).unwrap_err();
        let error = error.to_string();
        assert!(
            error.contains("expected trits") && error.contains(packing.name()),
            "{error}"
        );
        let found = verify(&source, &path(packing.name()), &mut |_, _| {}).unwrap();
        assert!(found.is_equal(), "{packing:?} {:?}", found.first);
        let file = PackedFile::open(&path(packing.name())).unwrap();
        let error = sterna_convert::repack(&file, Packing::T5, &Output::new(&path("t5")).unwrap())
            .unwrap_err();
        assert!(error.to_string().contains("expected trits"), "{error}");
    }
    let found = verify(&path("q8_0"), &path("q4_0"), &mut |_, _| {}).unwrap();
    assert!(found.differ > 0);
}

#[test]
fn the_command_line_makes_and_shows_baselines() {
    let folder = tempfile::tempdir().unwrap();
    let (source, out) = (fixture("baselines/llama"), folder.path().join("q8"));
    let (source, out) = (text(&source), text(&out));
    let convert = ["convert", source, "--out", out, "--allow-missing"];
    let said = stdout(&[&convert[..], &["--packing", "q8_0"]].concat());
    assert!(
        said.contains("14 linear layers: q8_0 from BF16, mean error"),
        "{said}"
    );
    let shown = stdout(&["inspect", out, "--verify"]);
    for part in [
        "packing      q8_0",
        "14 q8_0",
        "int8, a scale for each 32",
        "none ternary",
    ] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    let same = stdout(&["verify", source, out]);
    assert!(same.contains("numbers, the first bf16 and q8_0"), "{same}");
    let both = [
        &convert[..],
        &["--packing", "q4_0", "--activations", "int8"],
    ]
    .concat();
    assert!(refused(2, &both).contains("leave out --to"));
}
