//! GGUF files that lie: an error that says where, or a model, never a panic, in little time and
//! memory.

mod checkpoint;
mod gguf_file;
mod hostile_input;

use std::fs;

use gguf_file::lies::LIES;
use gguf_file::{File, Tensor};
use hostile_input::{Place, complaint, mutate, read, turns, watched};
use sterna_convert::{Error, GgufOptions, GgufType, HeadType, open, write_gguf};
use sterna_ternary::Output;

const NAME: &str = "model.gguf";

fn read_bytes(place: &Place, bytes: &[u8]) -> Result<(), Error> {
    let path = place.write(NAME, bytes);
    watched(NAME, bytes.len(), || read(&path))
}

#[test]
fn every_lie_is_named() {
    let place = Place::new();
    read_bytes(&place, &File::good().bytes()).unwrap();
    let mut v2 = File::good();
    v2.version = 2;
    read_bytes(&place, &v2.bytes()).unwrap();
    assert!(LIES.len() >= 60, "{}", LIES.len());
    let mut wrong = Vec::new();
    for (name, lie, parts) in LIES {
        let mut file = File::good();
        lie(&mut file);
        let result = read_bytes(&place, &file.bytes());
        wrong.extend(complaint(name, result, &[*parts, &[NAME]].concat()));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn truncation_at_every_byte_is_an_error() {
    let place = Place::new();
    let bytes = File::good().bytes();
    for cut in 0..bytes.len() {
        let error = read_bytes(&place, &bytes[..cut]).expect_err("a file that was cut off");
        assert!(error.to_string().contains(NAME), "{cut}: {error}");
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
    read_bytes(&place, &file.bytes()).unwrap();
    let path = place.path(NAME);
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
        let out = place.path("out");
        let options = GgufOptions {
            weights,
            head,
            pre: None,
            lossy: false,
            allow_missing: true,
        };
        let source = open(folder.path(), true).unwrap();
        let to = Output::new(&out).unwrap();
        write_gguf(&*source, &to, &options, &mut |_, _| {}).unwrap();
        files.push(fs::read(&out).unwrap());
    }
    files
}

#[test]
fn a_hundred_thousand_mutations_never_panic() {
    const ALL: usize = 100_000;
    let seeds = seeds();
    let refused = turns(ALL, |i, place, random| {
        // The small files are cheap, so they take most of the turns.
        let turn = i / 2;
        let seed = match turn % 20 {
            0 => 2 + turn / 20 % (seeds.len() - 2),
            _ => turn % 2,
        };
        let mut bytes = seeds[seed].clone();
        mutate(&mut bytes, random);
        read_bytes(place, &bytes).is_err()
    });
    assert!(refused > ALL / 2, "{refused}");
}
