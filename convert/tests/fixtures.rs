//! Checkpoints that another implementation wrote are converted, in every packing.

mod checkpoint;
#[path = "../../tests/fixtures/mod.rs"]
mod fixtures;

use checkpoint::{OPTIONS, table_values, unpack};
use sterna_convert::{PackedOptions, convert};
use sterna_ternary::layout::{self, Role};
use sterna_ternary::{PackedFile, Packing};

/// Models that cannot be packed, and the text of the refusal.
const REFUSED: [(&str, Packing, &str); 2] = [
    ("llama-shards", Packing::T5, "pack the model as i2"),
    ("qwen3-group128", Packing::T5, "pack the model as i2"),
];

#[test]
fn every_fixture_is_converted() {
    let out = tempfile::tempdir().unwrap();
    let mut refused = 0;
    for folder in fixtures::cases("checkpoints") {
        let case = folder.file_name().unwrap().to_str().unwrap().to_owned();
        let files = Packing::ALL.map(|packing| {
            let options = PackedOptions {
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
                    refused += 1;
                    None
                }
            }
        });
        if let [Some(a), Some(b)] = files {
            check_equal(&a, &b);
        }
    }
    assert_eq!(refused, REFUSED.len());
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
