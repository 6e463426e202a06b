//! Files that were cut off, damaged or lost: an error or the same content, never a panic.

mod checkpoint;

use std::fs;

use checkpoint::{Checkpoint, OPTIONS, Storage, convert, shard_name};
use safetensors::Dtype;
use sterna_convert::Error;
use sterna_ternary::{PackedFile, file::FILES};

#[test]
fn truncation_anywhere_is_seen() {
    let folder = Checkpoint::new(Storage::Multiply, Dtype::BF16, true).folder();
    let path = folder.path().join("model.safetensors");
    let bytes = fs::read(&path).unwrap();
    for i in 0..60 {
        let cut = if i < 10 {
            i
        } else {
            (bytes.len() - 1) * i / 59
        };
        fs::write(&path, &bytes[..cut]).unwrap();
        let error = convert(folder.path(), &OPTIONS).unwrap_err();
        assert!(matches!(error, Error::Safetensors { .. }), "{cut}: {error}");
        assert!(error.to_string().contains("model.safetensors"));
    }
    let mut longer = bytes;
    longer.push(0);
    fs::write(&path, longer).unwrap();
    assert!(matches!(
        convert(folder.path(), &OPTIONS),
        Err(Error::Safetensors { .. })
    ));
}

#[test]
fn a_flipped_bit_in_the_header_is_an_error_or_changes_nothing() {
    let checkpoint = Checkpoint::new(Storage::Divide, Dtype::F16, true);
    let folder = checkpoint.folder();
    let path = folder.path().join("model.safetensors");
    let bytes = fs::read(&path).unwrap();
    let header = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let (mut refused, mut unchanged) = (0, 0);
    // Every bit of the first entries, then a spread of bits over the rest.
    for bit in (0..64 * 8).chain((64 * 8..header * 8).step_by(37)) {
        let mut bytes = bytes.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        fs::write(&path, &bytes).unwrap();
        match sterna_convert::convert(
            folder.path(),
            &folder.path().join("out"),
            &OPTIONS,
            &mut |_, _| {},
        ) {
            Err(_) => refused += 1,
            Ok(_) => {
                checkpoint.check(&PackedFile::open(&folder.path().join("out")).unwrap());
                unchanged += 1;
            }
        }
    }
    assert!(refused > 10 * unchanged, "{refused} {unchanged}");
}

#[test]
fn offsets_that_overlap_or_leave_gaps_are_refused() {
    let folder = Checkpoint::new(Storage::Multiply, Dtype::F32, true).folder();
    let path = folder.path().join("model.safetensors");
    let bytes = fs::read(&path).unwrap();
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header: serde_json::Value = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
    for (start, end) in [
        (-4i64, 0i64),
        (4, 0),
        (0, 4),
        (0, -4),
        (-4, -4),
        (4, 4),
        (i64::MAX / 2, i64::MAX / 2),
    ] {
        let mut header = header.clone();
        let offsets = &mut header["model.norm.weight"]["data_offsets"];
        for (i, delta) in [start, end].into_iter().enumerate() {
            offsets[i] = (offsets[i].as_i64().unwrap() + delta).into();
        }
        let text = header.to_string().into_bytes();
        let mut lying = (text.len() as u64).to_le_bytes().to_vec();
        lying.extend(text);
        lying.extend(&bytes[8 + length..]);
        fs::write(&path, lying).unwrap();
        let error = convert(folder.path(), &OPTIONS).unwrap_err();
        assert!(
            matches!(error, Error::Safetensors { .. }),
            "{start} {end}: {error}"
        );
    }
}

#[test]
fn each_file_is_missed() {
    for shards in [1, 3] {
        let mut checkpoint = Checkpoint::new(Storage::Online, Dtype::BF16, false);
        checkpoint.shards = shards;
        let weights = match shards {
            1 => vec!["model.safetensors".to_owned()],
            n => (0..n)
                .map(|i| shard_name(i, n))
                .chain(["model.safetensors.index.json".into()])
                .collect(),
        };
        let files = FILES[..4].iter().map(|f| f.to_string());
        for file in files.chain(weights) {
            let folder = checkpoint.folder();
            fs::remove_file(folder.path().join(&file)).unwrap();
            let error = convert(folder.path(), &OPTIONS).unwrap_err().to_string();
            assert!(error.contains(&file), "{file}: {error}");
        }
    }
}

#[test]
fn broken_configs_and_indexes_are_errors() {
    let mut checkpoint = Checkpoint::new(Storage::Multiply, Dtype::F16, false);
    checkpoint.shards = 2;
    let folder = checkpoint.folder();
    for name in ["config.json", "model.safetensors.index.json"] {
        let path = folder.path().join(name);
        let whole = fs::read(&path).unwrap();
        for cut in (0..whole.len()).step_by(whole.len() / 25) {
            fs::write(&path, &whole[..cut]).unwrap();
            let error = convert(folder.path(), &OPTIONS).unwrap_err().to_string();
            assert!(error.contains(name), "{error}");
        }
        fs::write(&path, whole).unwrap();
    }
    convert(folder.path(), &OPTIONS).unwrap();
}
