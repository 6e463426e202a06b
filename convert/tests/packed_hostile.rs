//! Packed files that lie: an error that says where, or a model, never a panic, in little time and
//! memory.

mod checkpoint;
mod hostile_input;
mod packed_file;
mod safetensors_file;

use std::fs;
use std::path::Path;

use hostile_input::{Place, complaint, mutate, read, turns, watched};
use packed_file::lies::{LIES, Lie};
use packed_file::{File, seal};
use safetensors_file::Folder;
use sterna_convert::{Error, HeadType};
use sterna_ternary::{Dense, LinearType, PackedFile, Packing};

const NAME: &str = "model.sterna";

/// A folder of one layer with spaces after its config.
fn folder(place: &Place) -> std::path::PathBuf {
    let mut folder = Folder::good();
    let mut config = folder.config.to_string().into_bytes();
    config.resize(config.len() + 500, b' ');
    folder.raw_config = Some(config);
    let path = place.path("folder");
    folder.write(&path);
    path
}

fn good(packing: impl Into<LinearType>, head: HeadType) -> File {
    let place = Place::new();
    let folder = folder(&place);
    File::of(&folder, &place.path(NAME), packing, head).unwrap()
}

/// Reads a model as a converter does, and as the runtime and `inspect --verify` do.
fn read_all(path: &Path) -> Result<(), Error> {
    read(path)?;
    Ok(PackedFile::open(path)?.verify()?)
}

#[test]
fn every_lie_is_named() {
    let place = Place::new();
    let good = good(Packing::I2, HeadType::F16);
    let path = place.write(NAME, &good.bytes());
    read_all(&path).unwrap();
    assert!(LIES.len() >= 60, "{}", LIES.len());
    let mut wrong = Vec::new();
    for (name, lie, parts) in LIES {
        let mut file = good.clone();
        lie(&mut file);
        let bytes = file.bytes();
        let path = place.write(NAME, &bytes);
        let result = watched(name, bytes.len(), || read_all(&path));
        wrong.extend(complaint(name, result, parts));
        let opened = watched(name, bytes.len(), || PackedFile::open(&path).map(drop));
        if let Err(error) = opened.map_err(Error::Packed) {
            wrong.extend(complaint(name, Err(error), &[NAME]));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn truncation_at_every_byte_is_an_error() {
    let place = Place::new();
    let bytes = good(Packing::T5, HeadType::Q6).bytes();
    for cut in 0..bytes.len() {
        let path = place.write(NAME, &bytes[..cut]);
        let error = read_all(&path).expect_err("a file that was cut off");
        assert!(error.to_string().contains(NAME), "{cut}: {error}");
        // The same with a checksum that fits.
        let mut bytes = bytes[..cut].to_vec();
        seal(&mut bytes);
        place.write(NAME, &bytes);
        read_all(&path).expect_err("a file that was cut off");
    }
}

#[test]
fn a_hundred_thousand_mutations_never_panic() {
    const ALL: usize = 100_000;
    let heads = [
        HeadType::Lossless,
        HeadType::Q8,
        HeadType::Q4,
        HeadType::F16,
    ];
    let ternary = Packing::ALL.map(LinearType::from);
    let packings = ternary.into_iter().chain(Dense::ALL.map(LinearType::from));
    let seeds: Vec<Vec<u8>> = packings
        .flat_map(|packing| heads.map(|head| good(packing, head).bytes()))
        .collect();
    let refused = turns(ALL, |i, place, random| {
        let mut bytes = seeds[i / 2 % seeds.len()].clone();
        mutate(&mut bytes, random);
        if random.next() < 0.9 {
            seal(&mut bytes);
        }
        let path = place.write(NAME, &bytes);
        watched("mutation", bytes.len(), || read_all(&path)).is_err()
    });
    assert!(refused > ALL / 2, "{refused}");
}

#[test]
fn parts_that_lie_behind_right_checksums_never_panic() {
    const ALL: usize = 20_000;
    let good = [HeadType::Q8, HeadType::Lossless].map(|head| good(Packing::I2, head));
    let names = good.each_ref().map(|file| {
        let names = file.header.iter().skip(1);
        let names = names.filter(|(_, entry)| entry["shape"][0] != 0);
        names.map(|(name, _)| name.clone()).collect::<Vec<String>>()
    });
    let refused = turns(ALL, |i, place, random| {
        let mut below = |n: usize| (random.next() * n as f32) as usize;
        let (mut file, names) = (good[i % 2].clone(), &names[i % 2]);
        for _ in 0..1 + below(2) {
            let name = &names[below(names.len())];
            let bytes = file.bytes_of(name);
            let at = below(bytes.len());
            bytes[at] = [0, 1, 0x7f, 0x80, 0xff, b'9', b'"', below(256) as u8][below(8)];
        }
        let bytes = file.bytes();
        let path = place.write(NAME, &bytes);
        watched("mutation", bytes.len(), || read_all(&path)).is_err()
    });
    assert!(refused > ALL / 10, "{refused}");
}

#[test]
fn lies_about_planes_are_named() {
    const HEAD: &str = "model.embed_tokens.weight";
    const EXCEPTIONS: &str = "model.embed_tokens.weight_exceptions";
    const ENDS: &str = "model.embed_tokens.weight_exception_ends";
    const NORMS: &str = "model.embed_tokens.weight_norms";
    const LOW: &str = "model.embed_tokens.weight.low_plane";
    let lies: [Lie; 14] = [
        (
            "version 2",
            |f| f.metadata("version", "2".into()),
            &["version 5"],
        ),
        (
            "version 3",
            |f| f.metadata("version", "3".into()),
            &["version 5"],
        ),
        (
            "version 4",
            |f| f.metadata("version", "4".into()),
            &["packing"],
        ),
        (
            "codes",
            |f| {
                ["embedding", "head"]
                    .map(|key| f.metadata(key, "q8".into()))
                    .into_iter()
                    .collect()
            },
            &["version 5"],
        ),
        (
            "other numbers",
            |f| {
                let table = "bf16_planes";
                ["embedding", "head"]
                    .map(|key| f.metadata(key, table.into()))
                    .into_iter()
                    .collect()
            },
            &["model.embed_tokens"],
        ),
        (
            "no rounding",
            |f| f.metadata("activations", "".into()),
            &["activations"],
        ),
        (
            "more exceptions",
            |f| f.entry(EXCEPTIONS)["shape"][0] = 3.into(),
            &[EXCEPTIONS],
        ),
        (
            "exceptions without end",
            |f| f.entry(EXCEPTIONS)["shape"][0] = u64::MAX.into(),
            &[EXCEPTIONS],
        ),
        (
            "an end too far",
            |f| f.bytes_of(ENDS)[1] = 1,
            &[ENDS, "row 0"],
        ),
        (
            "ends out of order",
            |f| {
                let bytes = f.bytes_of(ENDS);
                let last = bytes.len() - 4;
                bytes[..last].fill(0);
                bytes[0] = 2;
            },
            &[ENDS, "row 1"],
        ),
        ("a norm of NaN", |f| f.number(NORMS, 0, f32::NAN), &[NORMS]),
        ("a negative norm", |f| f.number(NORMS, 3, -1.0), &[NORMS]),
        (
            "a norm that is too small",
            |f| f.number(NORMS, 3, 0.0),
            &[HEAD, "row 0"],
        ),
        (
            "another correction",
            |f| f.bytes_of(LOW)[0] ^= 0x80,
            &[HEAD, "row 0"],
        ),
    ];
    let place = Place::new();
    let mut wrong = Vec::new();
    for (name, lie, parts) in lies {
        let mut file = good(Packing::I2, HeadType::Lossless);
        read_all(&place.write(NAME, &file.bytes())).unwrap();
        lie(&mut file);
        let bytes = file.bytes();
        let path = place.write(NAME, &bytes);
        let result = watched(name, bytes.len(), || read_all(&path));
        wrong.extend(complaint(name, result, parts));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn lies_about_baselines_are_named() {
    const Q: &str = "model.layers.0.self_attn.q_proj.weight";
    let lies: [(Dense, Lie); 9] = [
        (
            Dense::F16,
            (
                "version 2",
                |f| f.metadata("version", "2".into()),
                &["another kind"],
            ),
        ),
        (
            Dense::Q8_0,
            (
                "version 3",
                |f| f.metadata("version", "3".into()),
                &["another kind"],
            ),
        ),
        (
            Dense::Q8_0,
            (
                "other blocks",
                |f| f.metadata("packing", "q4_0".into()),
                &[Q],
            ),
        ),
        (
            Dense::F16,
            (
                "trits",
                |f| f.metadata("packing", "i2".into()),
                &["another kind"],
            ),
        ),
        (
            Dense::F16,
            (
                "no numbers",
                |f| f.entry(Q)["dtype"] = "U8".into(),
                &[Q, "F16"],
            ),
        ),
        (
            Dense::F16,
            (
                "wide numbers",
                |f| f.entry(Q)["dtype"] = "F32".into(),
                &[Q, "F32"],
            ),
        ),
        (
            Dense::F16,
            ("NaN", |f| f.bytes_of(Q)[5] = 0x7e, &[Q, "value 2"]),
        ),
        (
            Dense::Q8_0,
            (
                "scale NaN",
                |f| f.bytes_of(Q)[1] = 0x7e,
                &[Q, "value 0 is NaN"],
            ),
        ),
        (
            Dense::Q4_0,
            (
                "scale inf",
                |f| f.bytes_of(Q)[..2].copy_from_slice(&[0, 0x7c]),
                &[Q],
            ),
        ),
    ];
    let place = Place::new();
    let mut wrong = Vec::new();
    for (packing, (name, lie, parts)) in lies {
        let mut file = good(packing, HeadType::F16);
        read_all(&place.write(NAME, &file.bytes())).unwrap();
        lie(&mut file);
        let bytes = file.bytes();
        let path = place.write(NAME, &bytes);
        wrong.extend(complaint(
            name,
            watched(name, bytes.len(), || read_all(&path)),
            parts,
        ));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[cfg(unix)]
#[test]
fn what_is_no_file_is_not_waited_for() {
    let place = Place::new();
    let path = place.path(NAME);
    for device in ["/dev/zero", "/dev/tty", "/dev"] {
        std::os::unix::fs::symlink(device, &path).unwrap();
        let error = watched(device, 0, || PackedFile::open(&path)).unwrap_err();
        assert!(error.to_string().contains("not a file"), "{error}");
        watched(device, 0, || read(&path)).unwrap_err();
        fs::remove_file(&path).unwrap();
    }
}
