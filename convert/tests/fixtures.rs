//! Checkpoints that another implementation made, where they are at hand.

mod checkpoint;

use std::path::{Path, PathBuf};

use checkpoint::{OPTIONS, table_values, unpack};
use sterna_convert::{Options, convert};
use sterna_ternary::layout::{self, Role};
use sterna_ternary::{PackedFile, Packing};

/// What cannot be packed, and what the refusal says.
const REFUSED: [(&str, Packing, &str); 1] =
    [("qwen3-group128", Packing::T5, "pack the model as i2")];

fn checkpoints() -> Option<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/fixtures");
    let root = std::env::var_os("STERNA_FIXTURES").map_or(beside, PathBuf::from);
    let checkpoints = root.join("checkpoints");
    checkpoints.is_dir().then_some(checkpoints)
}

#[test]
fn every_fixture_is_converted() {
    let Some(checkpoints) = checkpoints() else {
        println!("skipped: no fixtures; set STERNA_FIXTURES to their folder");
        return;
    };
    let out = tempfile::tempdir().unwrap();
    let mut converted = 0;
    for entry in std::fs::read_dir(checkpoints).unwrap() {
        let folder = entry.unwrap().path();
        let case = folder.file_name().unwrap().to_str().unwrap().to_owned();
        let files = Packing::ALL.map(|packing| {
            let options = Options {
                packing: packing.into(),
                ..OPTIONS
            };
            let path = out.path().join(format!("{case}.{}", packing.name()));
            let result = convert(&folder, &path, &options, &mut |_, _| {});
            match REFUSED.iter().find(|r| (r.0, r.1) == (&*case, packing)) {
                None => {
                    result.unwrap_or_else(|e| panic!("{case}: {e}"));
                    Some(PackedFile::open(&path).unwrap())
                }
                Some((_, _, reason)) => {
                    let error = result.unwrap_err().to_string();
                    assert!(error.contains(reason), "{error}");
                    println!("{error}");
                    None
                }
            }
        });
        converted += files.iter().flatten().count();
        if let [Some(a), Some(b)] = files {
            check_equal(&a, &b);
        }
    }
    assert!(converted >= 19);
}

/// Two packings hold the same model.
fn check_equal(a: &PackedFile, b: &PackedFile) {
    a.verify().unwrap();
    b.verify().unwrap();
    for weight in layout::weights(&a.config) {
        match weight.role {
            Role::Linear => {
                assert_eq!(unpack(a, &weight.name), unpack(b, &weight.name));
                assert_eq!(a.matrix(&weight.name).scales, b.matrix(&weight.name).scales);
            }
            Role::Norm => assert_eq!(a.vector(&weight.name), b.vector(&weight.name)),
            Role::Table => {
                let [a, b] = [a, b].map(|f| table_values(f.head().values, weight.columns));
                assert_eq!(a, b);
            }
        }
    }
}
