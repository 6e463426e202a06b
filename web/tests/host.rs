//! What the page gets is what the runtime computes, and damaged files are refused with words.

use std::path::Path;
use std::sync::OnceLock;

use serde_json::{Value, json};
use sterna_convert::PackedOptions;
use sterna_runtime::{Generation, Logits, Message, Model, Options, Sampling, Settings};
use sterna_web::{Error, Host};

const TEMPLATE: &str = "{{ bos_token }}{% for m in messages %}{{ m.content }}{% endfor %}";

/// The model of `tests/fixtures/trained/llama`, packed, with a chat template.
fn file() -> &'static [u8] {
    static FILE: OnceLock<Vec<u8>> = OnceLock::new();
    FILE.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let source = folder.path().join("source");
        std::fs::create_dir(&source).unwrap();
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        for entry in root
            .join("../tests/fixtures/trained/llama")
            .read_dir()
            .unwrap()
        {
            let entry = entry.unwrap();
            std::fs::copy(entry.path(), source.join(entry.file_name())).unwrap();
        }
        std::fs::write(source.join("chat_template.jinja"), TEMPLATE).unwrap();
        let path = folder.path().join("model.sterna");
        let options = PackedOptions::default();
        sterna_convert::convert(&source, &path, &options, &mut |_, _| {}).unwrap();
        std::fs::read(path).unwrap()
    })
}

/// The same on disk, opened by the runtime.
fn native() -> Model {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.sterna");
    std::fs::write(&path, file()).unwrap();
    Model::open(&path, Options::default()).unwrap()
}

/// Opens bytes that come in parts.
fn open(bytes: &[u8], sha256: Option<&str>) -> Result<(Host, Value), Error> {
    let mut host = Host::default();
    for part in (0..bytes.len()).step_by(10_000) {
        let end = bytes.len().min(part + 10_000);
        // The length is not known before the end.
        host.room(end)?[part..end].copy_from_slice(&bytes[part..end]);
        host.arrived(end);
    }
    let call = json!({"name": "stories", "bytes": bytes.len(), "sha256": sha256});
    let facts = host.open(&call.to_string())?;
    Ok((host, facts))
}

fn message(host: &mut Host, fields: Value) -> (String, Vec<Value>) {
    let mut request = json!({"messages": [{"role": "user", "content": "Once Mia"}]});
    for (name, value) in fields.as_object().unwrap() {
        request[name] = value.clone();
    }
    host.begin(&request.to_string()).unwrap();
    let (mut text, mut events) = (String::new(), Vec::new());
    loop {
        let (event, is_last) = host.step().unwrap();
        let content = &event["choices"][0]["delta"]["content"];
        text += content.as_str().unwrap_or_default();
        events.push(event);
        if is_last {
            return (text, events);
        }
    }
}

#[test]
fn texts_of_seeds_are_those_of_the_runtime() {
    let (mut host, facts) = open(file(), None).unwrap();
    let model = native();
    assert_eq!(facts["fingerprint"], model.fingerprint());
    assert_eq!(facts["sha256"], sterna_ternary::sha256::of(file()));
    let tokenizer = model.tokenizer().unwrap();
    let template = model.chat_template().unwrap();
    let text = template
        .render(&[Message::new("user", "Once Mia")], true)
        .unwrap();
    let prompt = tokenizer.encode(&text, false).unwrap();
    for seed in 0..5 {
        let mut cache = model.new_cache(96).unwrap();
        let settings = Settings {
            max_tokens: Some(20),
            sampling: Sampling {
                seed,
                ..model.default_sampling().unwrap()
            },
            ..Settings::default()
        };
        let generation = Generation::new(&model, &tokenizer, &mut cache, &prompt, settings);
        let expected: String = generation.unwrap().map(Result::unwrap).collect();
        assert!(expected.len() > 10, "{expected:?}");
        let (found, events) = message(&mut host, json!({"seed": seed, "max_tokens": 20}));
        assert_eq!(found, expected);
        let last = events.last().unwrap();
        assert_eq!(last["usage"]["prompt_tokens"], prompt.len());
        // With scores all logits are computed; the text is the same.
        let scored = json!({"seed": seed, "max_tokens": 20, "top_logprobs": 3});
        let (found, events) = message(&mut host, scored);
        assert_eq!(found, expected);
        let scores = events.iter().flat_map(|event| {
            let content = &event["choices"][0]["logprobs"]["content"];
            content.as_array().unwrap().clone()
        });
        let bytes = scores.flat_map(|token| token["bytes"].as_array().unwrap().clone());
        let bytes: Vec<u8> = bytes.map(|byte| byte.as_u64().unwrap() as u8).collect();
        assert_eq!(
            String::from_utf8(bytes).unwrap().trim_start(),
            expected.trim_start()
        );
    }
    let mut cache = model.new_cache(96).unwrap();
    let expected = model.forward(&mut cache, &prompt, Logits::Last).unwrap();
    let found = host.logits(&json!({"ids": prompt}).to_string()).unwrap();
    assert!(
        found
            .iter()
            .zip(&expected)
            .all(|(a, b)| a.to_bits() == b.to_bits())
    );
}

#[test]
fn an_answer_stops_continues_and_is_given_up() {
    let (mut host, _) = open(file(), None).unwrap();
    let greedy = json!({"temperature": 0, "max_tokens": 24});
    let (whole, events) = message(&mut host, greedy.clone());
    assert_eq!(
        events.last().unwrap()["choices"][0]["finish_reason"],
        "length"
    );
    let word = whole.split_whitespace().nth(3).unwrap();
    let (cut, events) = message(&mut host, json!({"temperature": 0, "stop": [word]}));
    assert_eq!(
        events.last().unwrap()["choices"][0]["finish_reason"],
        "stop"
    );
    assert!(
        whole.starts_with(&cut) && !cut.contains(word),
        "{whole} {cut}"
    );
    // A space at the end would be another token than the one of the next word.
    let cut = cut.trim_end();
    let both = json!({
        "messages": [{"role": "user", "content": "Once Mia"}, {"role": "assistant", "content": cut}],
        "continue_final_message": true, "temperature": 0, "max_tokens": 4,
    });
    let (rest, _) = message(&mut host, both);
    assert!(
        whole[cut.len()..].starts_with(&rest) && !rest.is_empty(),
        "{whole} {cut} {rest}"
    );
    // Another answer begins before the first one has ended.
    host.begin(&json!({"prompt": "Once", "seed": 3}).to_string())
        .unwrap();
    host.step().unwrap();
    assert_eq!(message(&mut host, greedy).0, whole);
}

#[test]
fn calls_are_refused_with_words() {
    let (mut host, facts) = open(file(), None).unwrap();
    let context = facts["context"].as_u64().unwrap() as usize;
    let long = "Mia sat. ".repeat(context);
    for (request, code, says) in [
        (
            json!({"prompt": long}),
            "context_length_exceeded",
            "the context holds",
        ),
        (json!({}), "call", "either messages or a prompt"),
        (
            json!({"prompt": "x", "temperature": -1}),
            "refused",
            "temperature",
        ),
        (json!({"prompt": "x", "top_q": 1}), "call", "top_q"),
        (json!({"prompt": "x", "seed": "a"}), "call", "expected i64"),
    ] {
        let error = host.begin(&request.to_string()).unwrap_err().json();
        assert_eq!(error["code"], code, "{error}");
        assert!(error["message"].as_str().unwrap().contains(says), "{error}");
    }
    assert!(host.step().is_err());
    assert!(host.room(1).is_err() && host.logits("{\"ids\": []}").is_err());
    assert!(host.logits("{\"ids\": [999999]}").is_err());
    assert!(Host::default().begin("{\"prompt\": \"x\"}").is_err());
    let error = Host::default().room(usize::MAX / 4).unwrap_err();
    assert_eq!(error.json()["code"], "memory");
}

#[test]
fn files_that_are_not_whole_models_are_refused_with_words() {
    let refused = |bytes: &[u8], sum: Option<&str>, says: &str| {
        let error = open(bytes, sum).map(|_| ()).unwrap_err().json();
        let message = error["message"].as_str().unwrap();
        assert!(
            message.contains("stories") && message.contains(says),
            "{says}: {message}"
        );
    };
    refused(b"", None, "shorter than 8 bytes");
    refused(&[0; 100], None, "not a Sterna packed file");
    refused(b"GGUF\x03\0\0\0\0\0\0\0\0\0\0\0", None, "GGUF");
    refused(
        b"<!doctype html><title>404</title>",
        None,
        "not a Sterna packed file",
    );
    let whole = file();
    for len in [7, 100, whole.len() / 2, whole.len() - 1] {
        refused(&whole[..len], None, "");
    }
    refused(&[whole, &[0]].concat(), None, "bytes, the header describes");
    let other = "0".repeat(64);
    refused(whole, Some(&other), "sha256");
    // A flipped bit is found wherever it is.
    for at in (0..whole.len()).step_by(whole.len() / 200) {
        let mut bytes = whole.to_vec();
        bytes[at] ^= 1 << (at % 8);
        let error = open(&bytes, None).map(|_| ()).unwrap_err().json();
        assert_eq!(error["code"], "bad_file", "byte {at}: {error}");
    }
    assert!(open(whole, Some(&sterna_ternary::sha256::of(whole))).is_ok());
}
