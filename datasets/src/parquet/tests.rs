//! Files written by pyarrow, and damaged copies of them.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;

use super::Rows;
use crate::{Error, Result};

fn fixture(name: &str) -> PathBuf {
    Path::new(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/fixtures/parquet"
    ))
    .join(name)
}

fn rows(path: &Path) -> Result<Vec<Value>> {
    let mut rows = Rows::open(path)?;
    std::iter::from_fn(|| rows.next_row().transpose()).collect()
}

/// The rows that all the files hold.
fn expected() -> Vec<Value> {
    let text = fs::read_to_string(fixture("rows.jsonl")).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

const WHOLE: [&str; 4] = ["plain", "snappy", "gzip", "zstd"];

#[test]
fn every_codec_and_both_page_versions_give_the_rows() {
    for name in WHOLE {
        let found = rows(&fixture(&format!("{name}.parquet"))).unwrap();
        for (i, (found, expected)) in found.iter().zip(expected()).enumerate() {
            assert_eq!(found.to_string(), expected.to_string(), "{name}, row {i}");
        }
        assert_eq!(found.len(), expected().len(), "{name}");
    }
}

#[test]
fn delta_encodings_give_the_columns_they_hold() {
    for name in ["delta", "prefix"] {
        let found = rows(&fixture(&format!("{name}.parquet"))).unwrap();
        for (found, expected) in found.iter().zip(expected()) {
            assert_eq!(found["text"], expected["text"]);
            assert_eq!(found["number"], expected["number"]);
        }
        assert_eq!(found.len(), expected().len());
    }
}

#[test]
fn another_codec_is_named() {
    let error = rows(&fixture("brotli.parquet")).unwrap_err().to_string();
    assert!(
        error.contains("brotli.parquet, row 1: it is packed with Brotli"),
        "{error}"
    );
}

/// Reads a damaged file to its end: rows or an error, but never a panic or an endless loop.
fn survive(bytes: &[u8]) -> Result<Vec<Value>> {
    let mut rows = Rows::of("damaged.parquet".as_ref(), Arc::new(bytes.to_vec()))?;
    let rows = std::iter::from_fn(|| rows.next_row().transpose());
    rows.take(100).collect()
}

#[test]
fn every_truncation_is_an_error() {
    let bytes = fs::read(fixture("gzip.parquet")).unwrap();
    for length in 0..bytes.len() {
        let outcome = survive(&bytes[..length]);
        assert!(
            matches!(outcome, Err(Error::Parquet { .. })),
            "{length} bytes"
        );
    }
}

#[test]
fn no_changed_byte_panics() {
    let mut refused = 0;
    for name in ["plain", "snappy", "gzip", "zstd", "delta", "prefix"] {
        let bytes = fs::read(fixture(&format!("{name}.parquet"))).unwrap();
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] = [bytes[at] ^ 1, bytes[at] ^ 0x80, 0xff, 0][at % 4];
            refused += usize::from(survive(&damaged).is_err());
        }
    }
    assert!(refused > 1000, "{refused}");
}

#[test]
fn lies_are_named() {
    let check = |bytes: &[u8], expected: &str| {
        let error = survive(bytes).unwrap_err().to_string();
        assert!(
            error.contains("damaged.parquet") && error.contains(expected),
            "{error}"
        );
    };
    let file = |footer: &[u8]| {
        let length = (footer.len() as u32).to_le_bytes();
        [b"PAR1", footer, &length, b"PAR1"].concat()
    };
    check(b"PAR1", "4 bytes, expected at least 12");
    check(b"RIFF........PAR1", "not a Parquet file");
    check(
        b"PAR1\xff\xff\xff\x7fPAR1",
        "its footer claims 2147483647 of 4 bytes",
    );
    check(&file(b"\x00"), "there is no schema");
    // A list of 2⁶³ elements; a struct in a struct, and so on; a schema of groups in groups.
    check(
        &file(&[0x29, 0xfc, 255, 255, 255, 255, 255, 255, 255, 255, 127]),
        "with 0 bytes left",
    );
    check(&file(&[0x1c; 1000]), "structs deep");
    let mut deep = vec![0x29, 0xfc, 200, 1];
    for _ in 0..200 {
        // repetition 0, name "a", one child
        deep.extend([0x35, 0, 0x18, 1, b'a', 0x15, 2, 0]);
    }
    deep.push(0);
    check(&file(&deep), "groups deep");
}
