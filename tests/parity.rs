//! Packed files against transformers: logits, hidden states, greedy text.

mod fixtures;

use std::path::Path;

use safetensors::SafeTensors;
use serde_json::{Value, json};
use sterna_convert::{HeadType, convert};
use sterna_runtime::{Kernels, KvType, Logits, Message, Model, Options, Part};
use sterna_ternary::{Activations, Packing};

fn pack(case: &Path, packing: Packing, out: &Path) -> sterna_convert::Result<()> {
    let options = sterna_convert::PackedOptions {
        packing: packing.into(),
        head: HeadType::Lossless,
        activations: None,
        allow_missing: false,
    };
    convert(case, out, &options, &mut |_, _| {}).map(|_| ())
}

fn open(path: &Path, kernels: &'static Kernels, threads: usize) -> Model {
    let options = Options {
        threads: Some(threads),
        kernels: Some(kernels),
        kv_type: KvType::F32,
        ..Options::default()
    };
    Model::open(path, options).unwrap()
}

/// Logits of all positions, the prompt passed in pieces of `piece` tokens.
fn logits(model: &Model, ids: &[u32], piece: usize) -> Vec<f32> {
    let mut cache = model.new_cache(ids.len()).unwrap();
    let pieces = ids.chunks(piece);
    pieces
        .flat_map(|ids| model.forward(&mut cache, ids, Logits::All).unwrap())
        .collect()
}

fn greedy(model: &Model, prompt: &[u32], count: usize) -> Vec<u32> {
    let mut cache = model.new_cache(prompt.len() + count).unwrap();
    let mut next = prompt.to_vec();
    (0..count)
        .map(|_| {
            let logits = model.forward(&mut cache, &next, Logits::Last).unwrap();
            next = vec![sterna_runtime::sampler::greedy(&logits)];
            next[0]
        })
        .collect()
}

fn floats(reference: &SafeTensors, name: &str) -> Vec<f32> {
    let data = reference.tensor(name).unwrap();
    data.data()
        .chunks_exact(4)
        .map(|b| f32::from_le_bytes(b.try_into().unwrap()))
        .collect()
}

fn ids(reference: &SafeTensors, name: &str) -> Vec<u32> {
    let data = reference.tensor(name).unwrap();
    data.data()
        .chunks_exact(8)
        .map(|b| i64::from_le_bytes(b.try_into().unwrap()) as u32)
        .collect()
}

/// Mean |Δ| over the standard deviation of the expected logits.
fn relative_error(ours: &[f32], expected: &[f32]) -> f64 {
    let n = expected.len() as f64;
    let mean = expected.iter().map(|x| f64::from(*x)).sum::<f64>() / n;
    let variance = expected
        .iter()
        .map(|x| (f64::from(*x) - mean).powi(2))
        .sum::<f64>()
        / n;
    let off = ours
        .iter()
        .zip(expected)
        .map(|(a, b)| f64::from((a - b).abs()))
        .sum::<f64>()
        / n;
    off / variance.sqrt()
}

/// Mean Kullback-Leibler divergence of ours from the expected distributions, nats.
fn divergence(ours: &[f32], expected: &[f32], vocabulary: usize) -> f64 {
    let log_softmax = |row: &[f32]| -> Vec<f64> {
        let max = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let sum: f64 = row.iter().map(|x| f64::from(x - max).exp()).sum();
        row.iter().map(|x| f64::from(x - max) - sum.ln()).collect()
    };
    let rows = ours
        .chunks_exact(vocabulary)
        .zip(expected.chunks_exact(vocabulary));
    let kl = rows.map(|(ours, expected)| {
        let (q, p) = (log_softmax(ours), log_softmax(expected));
        p.iter()
            .zip(&q)
            .map(|(p, q)| p.exp() * (p - q))
            .sum::<f64>()
    });
    kl.sum::<f64>() / (expected.len() / vocabulary) as f64
}

/// Whether the model was trained with quantized activations, as config.json says.
fn is_quantized(model: &Model) -> bool {
    let config: Value = serde_json::from_slice(model.file().file("config.json").unwrap()).unwrap();
    ["quantization_config", "input_bits"]
        .iter()
        .any(|key| !config[key].is_null())
}

fn check_logits(case: &Path, model: &Model, json: &Value) {
    let bytes = std::fs::read(case.join("reference.safetensors")).unwrap();
    let reference = SafeTensors::deserialize(&bytes).unwrap();
    let is_quantized = is_quantized(model);
    let activations = match is_quantized {
        true => Activations::Int8,
        false => Activations::Int16,
    };
    assert_eq!(model.file().activations, activations);
    for (n, drift) in json["float64_vs_float32"].as_object().unwrap() {
        let expected = floats(&reference, &format!("logits.{n}"));
        let ids = ids(&reference, &format!("ids.{n}"));
        let ours = logits(model, &ids, ids.len());
        let error = relative_error(&ours, &expected);
        let kl = divergence(&ours, &expected, model.config().vocab_size);
        // If no rounding differs between float64 and float32, none may differ here. A reference
        // without rounded activations is matched as closely as 16 bits allow.
        let (bound, most_kl) = match drift["mean_abs"].as_f64().unwrap() < 1e-5 {
            true if is_quantized => (1e-3, 1e-3),
            true => (1e-4, 1e-7),
            false => (0.02, 1e-3),
        };
        println!(
            "{} n={n}: error {error:.1e} of {bound:.0e}, KL {kl:.1e}",
            case.display()
        );
        assert!(error <= bound && kl <= most_kl);
    }
}

/// Hidden states of the last norm, of all sequences in one pass.
fn check_hidden(case: &Path, model: &Model, json: &Value) {
    let bytes = std::fs::read(case.join("reference.safetensors")).unwrap();
    let reference = SafeTensors::deserialize(&bytes).unwrap();
    let drifts = json["float64_vs_float32"].as_object().unwrap();
    let sequences: Vec<Vec<u32>> = drifts
        .keys()
        .map(|n| ids(&reference, &format!("ids.{n}")))
        .collect();
    let caches = sequences.iter().map(|ids| model.new_cache(ids.len()));
    let mut caches: Vec<_> = caches.map(|cache| cache.unwrap()).collect();
    let parts = caches.iter_mut().zip(&sequences).map(|(cache, ids)| Part {
        cache,
        ids,
        logits: Logits::All,
    });
    let mut parts: Vec<Part> = parts.collect();
    let hidden = model.hidden_many(&mut parts).unwrap();
    let mut hidden = &hidden[..];
    for ((n, drift), ids) in drifts.iter().zip(&sequences) {
        let expected = floats(&reference, &format!("hidden.{n}"));
        let width = model.config().hidden_size;
        let ours = hidden.split_off(..ids.len() * width).unwrap();
        // If the reference has all layers, the last one is the output of the norm.
        let expected = &expected[expected.len() - ours.len()..];
        // As for logits: only if no rounding differs.
        if drift["mean_abs"].as_f64().unwrap() < 1e-5 && is_quantized(model) {
            let error = relative_error(ours, expected);
            println!("{} hidden {n}: {error:.1e}", case.display());
            assert!(error <= 1e-3, "{} {n}: {error:e}", case.display());
        }
    }
}

/// Vectors of texts, from the last token.
fn check_texts(model: &Model, json: &Value) {
    let tokenizer = model.tokenizer().unwrap();
    for text in json["texts"].as_array().into_iter().flatten() {
        let ids = tokenizer
            .encode(text["text"].as_str().unwrap(), true)
            .unwrap();
        assert_eq!(json!(ids), text["ids"]);
        let mut cache = model.new_cache(ids.len()).unwrap();
        let logits = Logits::Last;
        let mut part = [Part {
            cache: &mut cache,
            ids: &ids,
            logits,
        }];
        let hidden = model.hidden_many(&mut part).unwrap();
        let length = hidden.iter().map(|x| x * x).sum::<f32>().sqrt();
        let expected: Vec<f32> = serde_json::from_value(text["embedding"].clone()).unwrap();
        for (x, expected) in hidden.iter().zip(&expected) {
            assert!(
                (x / length - expected).abs() < 1e-5,
                "{} {expected}",
                x / length
            );
        }
    }
}

fn check_greedy(model: &Model, json: &Value) {
    for case in json["greedy"].as_object().unwrap().values() {
        let list = |key: &str| -> Vec<u32> {
            case[key]
                .as_array()
                .unwrap()
                .iter()
                .map(|v| v.as_u64().unwrap() as u32)
                .collect()
        };
        let margins = case["margin"].as_array().unwrap();
        let sure = margins
            .iter()
            .take_while(|m| m.as_f64().unwrap() >= 0.15)
            .count();
        let ours = greedy(model, &list("prompt"), sure);
        assert_eq!(ours, list("next")[..sure]);
    }
}

fn check_tokenizer(model: &Model, json: &Value) {
    let tokenizer = model.tokenizer().unwrap();
    for case in json["tokenize"].as_array().unwrap() {
        let text = case["text"].as_str().unwrap();
        let expected: Vec<u32> = serde_json::from_value(case["ids"].clone()).unwrap();
        assert_eq!(tokenizer.encode(text, true).unwrap(), expected, "{text}");
        assert_eq!(tokenizer.decode(&expected).unwrap(), text);
    }
}

/// Checks the text of a chat and its ids.
fn check_chat(model: &Model, json: &Value) {
    let messages: Vec<Message> = serde_json::from_value(json["chat"]["messages"].clone()).unwrap();
    let template = model.chat_template().unwrap();
    let text = template.render(&messages, true).unwrap();
    assert_eq!(text, json["chat"]["text"]);
    let tokenizer = model.tokenizer().unwrap();
    let ids = tokenizer.encode(&text, false).unwrap();
    let eot = tokenizer.token_to_id("<|eot_id|>").unwrap();
    assert_eq!(ids.iter().filter(|id| **id == eot).count(), messages.len());
    assert!(tokenizer.eos().contains(&eot));
    assert_eq!(
        tokenizer.decode(&ids).unwrap(),
        text.replace("<|eot_id|>", "")
    );
}

/// Checks that every packing, table, number of threads and split of the prompt gives the same bits.
fn check_identity(case: &Path, folder: &Path, expected: &[f32], prompt: &[u32]) {
    for packing in Packing::ALL {
        let path = folder.join(packing.name());
        if let Err(error) = pack(case, packing, &path) {
            assert!(
                error.to_string().contains("pack the model as i2"),
                "{error}"
            );
            println!("{}: {error}", case.display());
            continue;
        }
        for kernels in Kernels::available() {
            for threads in [1, 2, 3] {
                let model = open(&path, kernels, threads);
                for piece in [1, 5, prompt.len()] {
                    let same = logits(&model, prompt, piece)
                        .iter()
                        .zip(expected)
                        .all(|(a, b)| a.to_bits() == b.to_bits());
                    let name = (packing.name(), kernels.name, threads, piece);
                    assert!(same, "{}: {name:?}", case.display());
                }
            }
        }
    }
}

#[test]
fn logits_are_those_of_transformers() {
    for case in fixtures::cases("checkpoints") {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.sterna");
        if let Err(error) = pack(&case, Packing::I2, &path) {
            let message = error.to_string();
            println!("{}: refused: {message}", case.display());
            assert!(message.contains("not supported"), "{message}");
            continue;
        }
        let text = std::fs::read(case.join("reference.json")).unwrap();
        let json: Value = serde_json::from_slice(&text).unwrap();
        let model = open(&path, Kernels::available()[0], 1);
        check_logits(&case, &model, &json);
        check_hidden(&case, &model, &json);
        check_texts(&model, &json);
        check_greedy(&model, &json);
        check_tokenizer(&model, &json);
        check_chat(&model, &json);
        let prompt = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8, 9, 7, 9, 3, 2, 3, 8, 4];
        let expected = logits(&model, &prompt, prompt.len());
        check_identity(&case, folder.path(), &expected, &prompt);
    }
}
