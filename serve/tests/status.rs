//! What the server says about itself: models, status, metrics, tokens.

mod support;

use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use support::{COMPLETIONS, Test, limits, served, short};

#[test]
fn several_models_have_their_names() {
    let test = Test::with(
        |_| {},
        vec![served("one", limits()), served("org/two", limits())],
    );
    let list = test.get("/v1/models").json();
    let names: Vec<&str> = list["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|m| m["id"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["one", "org/two"]);
    for path in ["/v1/models/org/two", "/v1/models/org%2Ftwo"] {
        let model = test.get(path).json();
        assert_eq!(model["id"], "org/two");
        for (name, value) in [
            ("object", json!("model")),
            ("owned_by", json!("sterna")),
            ("max_model_len", json!(96)),
        ] {
            assert_eq!(model[name], value);
        }
        assert!(model["created"].is_u64() && model["meta"]["n_params"].as_u64().unwrap() > 10_000);
    }
    let mut body = short();
    assert_eq!(test.error(COMPLETIONS, &body, 400)["param"], "model");
    body["model"] = "org/two".into();
    assert_eq!(test.json(COMPLETIONS, &body)["model"], "org/two");
}

#[test]
fn status_routes_have_what_their_readers_expect() {
    let replies = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&replies);
    let test = Test::with(
        move |s| {
            s.on_reply = Some(Box::new(move |reply| {
                seen.lock().unwrap().push(reply.clone())
            }))
        },
        vec![served("stories", limits())],
    );
    test.json(COMPLETIONS, &short());
    let props = test.get("/props").json();
    assert_eq!(props["default_generation_settings"]["n_ctx"], 96);
    assert!(
        props["chat_template"]
            .as_str()
            .unwrap()
            .contains("messages")
    );
    assert_eq!(props["model_path"], "model.sterna");
    assert_eq!(test.get("/slots").json()[0]["total"], 8);
    let info = test.get("/get_server_info").json();
    assert_eq!(info["served_model_name"], "stories");
    let info = test.get("/model_info").json();
    assert_eq!(info["architectures"], json!(["LlamaForCausalLM"]));
    assert_eq!(info["is_generation"], true);
    assert_eq!(
        test.get("/v1/loads?include=core").json()["loads"][0]["num_waiting_reqs"],
        0
    );
    let info = test.get("/tokenizer_info").json();
    assert_eq!(info["eos_token"], "<|end_of_text|>");
    assert!(info["chat_template"].is_string());
    let page = test.get("/");
    assert_eq!(
        page.header("content-type"),
        Some("text/html; charset=utf-8")
    );
    assert!(
        page.header("content-security-policy")
            .unwrap()
            .contains("default-src 'none'")
    );
    let version = test.get("/version").json();
    assert_eq!(version["version"], env!("CARGO_PKG_VERSION"));
    let seen = replies.lock().unwrap();
    let first: &sterna_serve::http::Replied = &seen[0];
    assert_eq!((first.path.as_str(), first.status), (COMPLETIONS, 200));
}

#[test]
fn metrics_are_in_the_text_form() {
    let test = Test::start();
    test.json(COMPLETIONS, &short());
    let reply = test.get("/metrics");
    assert!(
        reply
            .header("content-type")
            .unwrap()
            .starts_with("text/plain; version=0.0.4")
    );
    let mut typed = Vec::new();
    for line in reply.body.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            typed.push(rest.split(' ').next().unwrap().to_owned());
        } else if !line.starts_with('#') {
            let (name, value) = line.rsplit_once(' ').unwrap();
            let name = name.split('{').next().unwrap();
            let is_typed = |of: &String| {
                name.strip_prefix(of.as_str())
                    .is_some_and(|end| ["", "_bucket", "_sum", "_count"].contains(&end))
            };
            assert!(typed.last().is_some_and(is_typed), "{line}");
            value.parse::<f64>().unwrap();
        }
    }
    let unique: std::collections::BTreeSet<&String> = typed.iter().collect();
    assert_eq!(unique.len(), typed.len());
    for expected in [
        "sterna_generation_tokens_total{model_name=\"stories\"} 3",
        "vllm:num_requests_waiting{model_name=\"stories\"} 0",
        "vllm:cache_config_info{model_name=\"stories\",block_size=\"128\",num_gpu_blocks=\"64\"} 1",
        "sterna_replies_total{route=\"/v1/completions\",code=\"200\"} 1",
    ] {
        assert!(
            reply.body.lines().any(|line| line == expected),
            "{expected}: {}",
            reply.body
        );
    }
    let hidden = Test::with(|s| s.has_metrics = false, vec![served("stories", limits())]);
    assert_eq!(hidden.get("/metrics").status, 404);
}

#[test]
fn texts_become_tokens_and_back() {
    let test = Test::start();
    let text = "Once Mia, é";
    let vllm = test.json(
        "/tokenize",
        &json!({"prompt": text, "return_token_strs": true}),
    );
    let llama = test.json("/tokenize", &json!({"content": text}));
    assert_eq!(vllm["count"], vllm["tokens"].as_array().unwrap().len());
    assert_eq!(
        vllm["token_strs"].as_array().unwrap().len(),
        vllm["count"].as_u64().unwrap() as usize
    );
    let pieces = test.json("/tokenize", &json!({"content": text, "with_pieces": true}));
    let mut bytes = Vec::new();
    for token in pieces["tokens"].as_array().unwrap() {
        match &token["piece"] {
            Value::String(text) => bytes.extend_from_slice(text.as_bytes()),
            list => bytes.extend(serde_json::from_value::<Vec<u8>>(list.clone()).unwrap()),
        }
    }
    assert_eq!(String::from_utf8(bytes).unwrap(), text);
    let back = test.json("/detokenize", &json!({"tokens": llama["tokens"]}));
    assert_eq!(
        (&back["content"], &back["prompt"]),
        (&json!(text), &json!(text))
    );
    assert_eq!(
        test.json("/detokenize", &json!({"tokens": [1]}))["prompt"],
        "<|end_of_text|>"
    );
    assert_eq!(
        test.error("/detokenize", &json!({"tokens": [300]}), 400)["param"],
        "tokens[0]"
    );
    assert_eq!(
        test.error("/detokenize", &json!({}), 400)["param"],
        "tokens"
    );
    test.error("/tokenize", &json!({}), 400);
    let chat = json!({"messages": [{"role": "user", "content": "Hi"}]});
    let template = test.json("/apply-template", &chat);
    assert_eq!(template["prompt"], "<|begin_of_text|>Hi");
    assert_eq!(
        test.json("/tokenize", &chat)["tokens"],
        template["token_ids"]
    );
}
