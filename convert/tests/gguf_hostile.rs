//! GGUF files that lie: an error that says where, or a model, never a panic.

mod checkpoint;
mod gguf_file;

use std::fs;
use std::path::Path;

use checkpoint::Random;
use gguf_file::lies::LIES;
use gguf_file::{File, Tensor};
use sterna_convert::{Error, GgufOptions, GgufType, HeadType, open, to_gguf};
use sterna_ternary::layout::{self, Role};

/// Opens a file and reads all of it.
fn read(path: &Path) -> Result<(), Error> {
    let source = open(path, true)?;
    for weight in layout::weights(source.config()) {
        match weight.role {
            Role::Linear => drop(source.linear(&weight)?),
            Role::Norm => drop(source.vector(&weight)?),
            Role::Table => {
                let mut values = vec![0.0; weight.rows * weight.columns];
                source.rows(&weight, 0, &mut values)?;
            }
        }
    }
    Ok(())
}

struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    fn new() -> Place {
        // Memory is faster than a disk, where there is such a place.
        let memory = Path::new("/dev/shm");
        let folder = tempfile::tempdir_in(memory).or_else(|_| tempfile::tempdir());
        Place {
            folder: folder.unwrap(),
        }
    }

    fn read(&self, bytes: &[u8]) -> Result<(), Error> {
        let path = self.folder.path().join("model.gguf");
        fs::write(&path, bytes).unwrap();
        read(&path)
    }
}

#[test]
fn every_lie_is_named() {
    let place = Place::new();
    place.read(&File::good().bytes()).unwrap();
    let mut v2 = File::good();
    v2.version = 2;
    place.read(&v2.bytes()).unwrap();
    assert!(LIES.len() >= 60, "{}", LIES.len());
    let mut wrong = Vec::new();
    for (name, lie, parts) in LIES {
        let mut file = File::good();
        lie(&mut file);
        let error = place
            .read(&file.bytes())
            .err()
            .map_or("nothing".into(), |e| e.to_string());
        let missing = parts.iter().find(|part| !error.contains(**part));
        if missing.is_some() || error.len() > 2000 || !error.contains("model.gguf") {
            wrong.push(format!("{name}: {missing:?} is not in: {error}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn truncation_at_every_byte_is_an_error() {
    let place = Place::new();
    let bytes = File::good().bytes();
    for cut in 0..bytes.len() {
        let error = place
            .read(&bytes[..cut])
            .expect_err("a file that was cut off");
        assert!(error.to_string().contains("model.gguf"), "{cut}: {error}");
    }
}

#[test]
fn a_head_that_repeats_the_embedding_is_a_tied_one() {
    let place = Place::new();
    let mut file = File::good();
    let embedding = file.find("token_embd.weight").clone();
    file.append(Tensor {
        name: "output.weight".into(),
        ..embedding
    });
    place.read(&file.bytes()).unwrap();
    let path = place.folder.path().join("model.gguf");
    let source = open(&path, true).unwrap();
    assert!(source.config().tie_word_embeddings);
    assert!(source.warnings().iter().any(|w| w.contains("repeats")));
}

/// Files of every type, small.
fn seeds() -> Vec<Vec<u8>> {
    let place = Place::new();
    let mut config = checkpoint::config(checkpoint::Storage::Multiply, true);
    config["hidden_size"] = 256.into();
    config["intermediate_size"] = 256.into();
    config["num_attention_heads"] = 1.into();
    config["num_hidden_layers"] = 1.into();
    config["head_dim"] = 256.into();
    config["vocab_size"] = 4.into();
    let storage = checkpoint::Storage::Multiply;
    let checkpoint = checkpoint::Checkpoint::from_config(config, storage, safetensors::Dtype::BF16);
    let folder = checkpoint.folder();
    fs::remove_file(folder.path().join("tokenizer.json")).unwrap();
    let mut files = vec![File::good().bytes(), File::sentence_piece().bytes()];
    for (weights, head) in GgufType::ALL.map(|w| (w, HeadType::Q8)) {
        let out = place.folder.path().join("out");
        let options = GgufOptions {
            weights,
            head,
            pre: None,
            lossy: false,
            allow_missing: true,
        };
        to_gguf(folder.path(), &out, &options, &mut |_, _| {}).unwrap();
        files.push(fs::read(&out).unwrap());
    }
    files
}

/// Overwrites, repeats, removes or swaps some bytes, mostly near the front, where the header lies.
fn mutate(bytes: &mut Vec<u8>, random: &mut Random) {
    let mut below = |n: usize| (random.next() * n as f32) as usize;
    for _ in 0..1 + below(4) {
        let reach = [64, 512, 2048, bytes.len()][below(4)].min(bytes.len());
        let at = below(reach.max(1)).min(bytes.len().saturating_sub(1));
        let len = (1 + below(8)).min(bytes.len() - at);
        match below(6) {
            0 => bytes[at] ^= 1 << below(8),
            1 => bytes[at..at + len].fill([0, 1, 0x7f, 0x80, 0xff][below(5)]),
            2 => drop(bytes.drain(at..at + len)),
            3 => {
                let part = bytes[at..at + len].to_vec();
                bytes.splice(at..at, part);
            }
            4 => {
                let to = below(bytes.len() - len + 1);
                bytes.copy_within(at..at + len, to);
            }
            _ => bytes[at] = below(256) as u8,
        }
        if bytes.is_empty() {
            return;
        }
    }
}

#[test]
fn a_hundred_thousand_mutations_never_panic() {
    const ALL: usize = 100_000;
    let seeds = seeds();
    let threads = 2;
    let run = |thread: usize| {
        let place = Place::new();
        let mut random = Random(thread as u64 + 1);
        let mut refused = 0;
        for i in 0..ALL / threads {
            // The small files are cheap, so they take most of the turns.
            let seed = if i % 20 == 0 {
                2 + i / 20 % (seeds.len() - 2)
            } else {
                i % 2
            };
            let mut bytes = seeds[seed].clone();
            mutate(&mut bytes, &mut random);
            refused += usize::from(place.read(&bytes).is_err());
        }
        refused
    };
    let refused: usize = std::thread::scope(|scope| {
        let run = &run;
        let threads: Vec<_> = (0..threads).map(|t| scope.spawn(move || run(t))).collect();
        threads.into_iter().map(|t| t.join().unwrap()).sum()
    });
    assert!(refused > ALL / 2, "{refused}");
}
