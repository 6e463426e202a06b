//! The server around the routes: hosts, keys, limits, malformed requests, status, drain.

mod support;

use std::io::{Read, Write};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use sterna_serve::http::{BadServer, Keys, Server, Settings};
use support::{Reply, Test, head, limits, served};

const COMPLETIONS: &str = "/v1/completions";

fn short() -> Value {
    json!({"prompt": "Once Mia", "max_tokens": 3, "temperature": 0})
}

fn with_keys(settings: &mut Settings) {
    settings.keys = Keys::parse("the-first-key\nthe-second-key").unwrap();
}

fn two_keys() -> sterna_serve::engine::Limits {
    sterna_serve::engine::Limits {
        weights: vec![1.0, 2.0],
        ..limits()
    }
}

#[test]
fn keys_are_needed_where_they_are_set() {
    let test = Test::with(with_keys, vec![served("stories", two_keys())]);
    let ask = |headers: &[&str]| {
        let headers = [&["content-type: application/json"], headers].concat();
        test.request("POST", COMPLETIONS, &headers, &short().to_string())
    };
    for wrong in [
        &[][..],
        &["authorization: Bearer the-first-ke"],
        &["authorization: the-first-key"],
        &["authorization: Basic the-first-key"],
        &["x-api-key: other-key"],
        &["authorization: Bearer "],
    ] {
        let reply = ask(wrong);
        assert_eq!(reply.status, 401, "{wrong:?}");
        assert_eq!(reply.header("www-authenticate"), Some("Bearer"));
        assert_eq!(reply.error()["code"], "invalid_api_key");
        assert!(!reply.body.contains("the-first"));
    }
    for right in [
        "authorization: Bearer the-first-key",
        "authorization: bearer the-second-key",
        "x-api-key: the-second-key",
    ] {
        assert_eq!(ask(&[right]).status, 200, "{right}");
    }
    for open in [
        "/health",
        "/ready",
        "/version",
        "/metrics",
        "/tokenizer_info",
        "/",
    ] {
        assert_eq!(test.get(open).status, 200, "{open}");
    }
    for keyed in [
        "/v1/models",
        "/props",
        "/slots",
        "/server_info",
        "/model_info",
    ] {
        assert_eq!(test.get(keyed).status, 401, "{keyed}");
    }
    // A key makes the host harmless.
    assert_eq!(
        test.request("GET", "/health", &["host: evil.example"], "")
            .status,
        200
    );
}

#[test]
fn an_open_address_needs_a_key_or_a_word() {
    let mut settings = Settings::new("0.0.0.0:0".parse().unwrap());
    assert!(matches!(Server::start(settings), Err(BadServer::Open(_))));
    settings = Settings::new("0.0.0.0:0".parse().unwrap());
    settings.is_open = true;
    Server::start(settings).unwrap();
    settings = Settings::new("0.0.0.0:0".parse().unwrap());
    with_keys(&mut settings);
    Server::start(settings).unwrap();
}

#[test]
fn other_hosts_and_origins_are_refused() {
    let test = Test::start();
    for host in [
        "evil.example",
        "evil.example:80",
        "localhost.evil.example",
        "10.0.0.1",
        "",
    ] {
        let reply = test.request("GET", "/v1/models", &[&format!("host: {host}")], "");
        assert_eq!(reply.status, 403, "{host}");
        assert_eq!(reply.error()["code"], "host_not_allowed");
    }
    let none = test.raw(b"GET /v1/models HTTP/1.0\r\n\r\n");
    assert_eq!(none.status, 403);
    let reply = test.request("GET", "/v1/models", &["origin: https://page.example"], "");
    assert_eq!(reply.header("access-control-allow-origin"), None);

    let origin = "https://page.example";
    let listed = Test::with(
        |s| s.origins = vec![origin.into()],
        vec![served("stories", limits())],
    );
    let reply = listed.request("GET", "/v1/models", &["origin: https://page.example"], "");
    assert_eq!(reply.header("access-control-allow-origin"), Some(origin));
    assert_eq!(reply.header("access-control-allow-credentials"), None);
    let reply = listed.request(
        "GET",
        "/v1/models",
        &["origin: https://page.example.evil"],
        "",
    );
    assert_eq!(reply.header("access-control-allow-origin"), None);
    assert_eq!(reply.header("vary"), Some("origin"));
    let asks = [
        "origin: https://page.example",
        "access-control-request-method: POST",
    ];
    let reply = listed.request("OPTIONS", COMPLETIONS, &asks, "");
    assert_eq!(reply.status, 204);
    assert!(
        reply
            .header("access-control-allow-headers")
            .unwrap()
            .contains("authorization")
    );
}

#[test]
fn requests_that_no_route_takes_have_their_status() {
    let test = Test::start();
    let json = ["content-type: application/json"];
    for (method, path, headers, body, status, code) in [
        ("GET", "/v2/models", &json[..], "", 404, "route_not_found"),
        ("POST", "/v1", &json, "{}", 404, "route_not_found"),
        ("GET", COMPLETIONS, &json, "", 405, "method_not_allowed"),
        ("DELETE", "/v1/models", &json, "", 405, "method_not_allowed"),
        ("POST", "/health", &json, "{}", 405, "method_not_allowed"),
        (
            "POST",
            COMPLETIONS,
            &[],
            "{}",
            415,
            "unsupported_media_type",
        ),
        (
            "POST",
            COMPLETIONS,
            &["content-type: text/plain"],
            "{}",
            415,
            "unsupported_media_type",
        ),
        ("POST", COMPLETIONS, &json, "{", 400, "invalid_json"),
        ("POST", COMPLETIONS, &json, "[]", 400, "invalid_json"),
        ("POST", COMPLETIONS, &json, "", 400, "invalid_json"),
        ("GET", "/v1/models/other", &json, "", 404, "model_not_found"),
    ] {
        let reply = test.request(method, path, headers, body);
        assert_eq!(
            reply.status, status,
            "{method} {path} {body}: {}",
            reply.body
        );
        assert_eq!(reply.error()["code"], code, "{method} {path}");
        assert_eq!(reply.header("x-should-retry"), Some("false"));
        assert_eq!(reply.header("allow").is_some(), status == 405);
    }
    let charset = ["content-type: Application/JSON; charset=utf-8"];
    let reply = test.request("POST", COMPLETIONS, &charset, &short().to_string());
    assert_eq!(reply.status, 200);
    let reply = test.request("GET", "/health", &["x-request-id: mine-1"], "");
    assert_eq!(reply.header("x-request-id"), Some("mine-1"));
}

/// Malformed requests; each is answered with 4xx or by closing the connection, and the next request
/// is fine.
#[test]
fn malformed_requests_harm_nobody() {
    let test = Test::start();
    let post = |headers: &str, body: &[u8]| {
        let head = format!(
            "POST {COMPLETIONS} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\
             content-type: application/json\r\n{headers}\r\n\r\n"
        );
        [head.as_bytes(), body].concat()
    };
    let with_length = |body: &[u8]| post(&format!("content-length: {}", body.len()), body);
    let mut requests: Vec<Vec<u8>> = [
        &b"\0\0\0\0\r\n\r\n"[..],
        b"GET\r\n\r\n",
        b"GET /\r\n\r\n",
        b"GET / HTTP/9.9\r\nhost: localhost\r\nconnection: close\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost localhost\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\nx: \0\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ]
    .map(<[u8]>::to_vec)
    .into();
    let long = format!(
        "GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\nx: {}\r\n\r\n",
        "x".repeat(40 << 10)
    );
    requests.push(long.into_bytes());
    let path = format!(
        "GET /{} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n",
        "x".repeat(100 << 10)
    );
    requests.push(path.into_bytes());
    let many: String = (0..200).map(|i| format!("x{i}: y\r\n")).collect();
    requests.push(
        format!("GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{many}\r\n")
            .into_bytes(),
    );
    requests.push(post("content-length: -1", b"{}"));
    requests.push(post("content-length: 18446744073709551616", b"{}"));
    requests.push(post("content-length: 2\r\ncontent-length: 3", b"{}"));
    requests.push(post(
        "transfer-encoding: chunked\r\ncontent-length: 2",
        b"{}",
    ));
    requests.push(post("transfer-encoding: gzip", b"{}"));
    requests.push(post("transfer-encoding: chunked", b"zz\r\n{}\r\n0\r\n\r\n"));
    requests.push(post(
        "transfer-encoding: chunked",
        b"ffffffffffffffffff\r\n{}",
    ));
    for body in [
        &b"{\"prompt\": \"\xff\xfe\"}"[..],
        b"{\"prompt\": \"\\ud800\"}",
        b"{\"prompt\": NaN}",
        b"{\"prompt\": \"x\", \"prompt\": \"y\"}",
        b"{\"prompt\": \"x\", \"seed\": 9223372036854775808}",
        b"{\"prompt\": \"x\", \"temperature\": 1e400}",
        b"{\"prompt\": \"x\", \"max_tokens\": 1e30}",
        b"nonsense",
        b"\0",
    ] {
        requests.push(with_length(body));
    }
    requests.push(with_length(
        &[b"{\"prompt\": ".to_vec(), vec![b'['; 100_000]].concat(),
    ));
    requests.push(with_length(
        &[
            b"{\"prompt\": [0".to_vec(),
            b",0".repeat(400_000),
            b"]}".to_vec(),
        ]
        .concat(),
    ));
    for request in &requests {
        let shown = String::from_utf8_lossy(&request[..request.len().min(300)]).into_owned();
        let reply = test.raw(request);
        assert!(
            (400..500).contains(&reply.status) || reply.status == 0,
            "{shown}: {reply:?}"
        );
        if !reply.body.is_empty() && reply.status != 0 {
            reply.error();
        }
        assert_eq!(test.get("/health").status, 200, "{shown}");
    }
    test.json(COMPLETIONS, &short());
}

#[test]
fn bodies_that_are_too_large_are_refused_before_they_are_read() {
    let test = Test::start();
    let said = ["content-type: application/json", "content-length: 50000000"];
    let mut stream = test.connect();
    let mut request = head("POST", COMPLETIONS, &said, "").into_bytes();
    request.extend_from_slice(b"{\"prompt\": ");
    stream.write_all(&request).unwrap();
    let reply = Reply::read(&mut stream);
    assert_eq!(reply.status, 413);
    assert_eq!(reply.error()["code"], "request_too_large");
    // All of it is sent, whatever the server says.
    let body = "x".repeat(50_000_000);
    let reply = test.request(
        "POST",
        COMPLETIONS,
        &["content-type: application/json"],
        &body,
    );
    assert_eq!(reply.status, 413);
    // A body without a length is refused where it is too large.
    let chunk = format!("{:x}\r\n{}\r\n", 1 << 20, "x".repeat(1 << 20));
    let chunked = [
        "content-type: application/json",
        "transfer-encoding: chunked",
    ];
    let request = head("POST", COMPLETIONS, &chunked, "") + &chunk.repeat(10) + "0\r\n\r\n";
    assert_eq!(test.raw(request.as_bytes()).status, 413);
}

#[test]
fn long_texts_are_refused_before_they_are_encoded() {
    let test = Test::start();
    let text = "Once Mia sat. ".repeat(500_000);
    let error = test.error(COMPLETIONS, &json!({"prompt": text}), 400);
    assert_eq!(error["code"], "context_length_exceeded");
    let message = error["message"].as_str().unwrap();
    assert!(
        message.contains("has over ") && message.contains("holds 96"),
        "{message}"
    );
    let content = &text[..2_000_000];
    let chat = json!({"messages": [{"role": "user", "content": content}]});
    let error = test.error("/v1/chat/completions", &chat, 400);
    assert_eq!(error["code"], "context_length_exceeded", "{error}");
    let error = test.error("/tokenize", &json!({"prompt": text}), 400);
    assert!(
        error["message"]
            .as_str()
            .unwrap()
            .contains("expected at most 1048576"),
        "{error}"
    );
    let many = test.json("/tokenize", &json!({"prompt": &text[..200_000]}));
    assert!(many["count"].as_u64().unwrap() > 20_000);
}

#[test]
fn a_body_that_is_not_read_does_not_hide_the_reply() {
    let test = Test::with(with_keys, vec![served("stories", two_keys())]);
    let body = "x".repeat(20_000_000);
    for (path, status) in [(COMPLETIONS, 401), ("/nowhere", 404), ("/health", 405)] {
        let reply = test.post_text(path, &body);
        assert_eq!(reply.status, status, "{path}");
        reply.error();
    }
    // A client that asks first is not told to send.
    let said = [
        "content-type: application/json",
        "content-length: 20000000",
        "expect: 100-continue",
    ];
    let mut stream = test.connect();
    stream
        .write_all(head("POST", COMPLETIONS, &said, "").as_bytes())
        .unwrap();
    let reply = Reply::read(&mut stream);
    assert_eq!(reply.status, 401);
}

#[test]
fn a_connection_takes_several_requests() {
    let test = Test::start();
    let mut stream = test.connect();
    let body = short().to_string();
    let request = format!(
        "POST {COMPLETIONS} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    );
    for _ in 0..2 {
        stream.write_all(request.as_bytes()).unwrap();
    }
    stream
        .write_all(head("GET", "/health", &[], "").as_bytes())
        .unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    assert_eq!(text.matches("HTTP/1.1 200 OK").count(), 3, "{text}");
}

#[test]
fn a_server_without_its_model_says_that_it_is_loading() {
    let test = Test::loading(|_| {});
    assert_eq!(test.get("/health").status, 200);
    for reply in [
        test.get("/ready"),
        test.get("/v1/models"),
        test.post(COMPLETIONS, &short()),
    ] {
        assert_eq!(reply.status, 503);
        assert_eq!(reply.error()["code"], "loading");
        assert_eq!(reply.header("retry-after"), Some("1"));
        assert_eq!(reply.header("x-should-retry"), None);
    }
    test.server.serve(vec![served("stories", limits())]);
    assert_eq!(test.get("/ready").status, 200);
    test.json(COMPLETIONS, &short());
}

#[test]
fn a_drain_ends_when_the_last_answer_is_given() {
    let test = Test::start();
    let drain = test.server.drain();
    let idle = test.connect();
    drain.begin();
    assert_eq!(test.server.wait(), 0);
    drop(idle);
}

#[test]
fn a_full_queue_is_said_at_once() {
    let mut tight = limits();
    (tight.parallel, tight.queue, tight.queue_tokens) = (1, 1, 1000);
    let test = Test::with(|_| {}, vec![served("stories", tight)]);
    // Clients that do not end: one is computed, one waits.
    let long = json!({"prompt": "Once", "n": 8, "ignore_eos": true, "stream": true}).to_string();
    let request = head(
        "POST",
        COMPLETIONS,
        &["content-type: application/json"],
        &long,
    );
    let mut full = None;
    let mut open = Vec::new();
    while full.is_none() {
        let mut stream = test.connect();
        stream.write_all(request.as_bytes()).unwrap();
        let mut first = [0; 12];
        stream.read_exact(&mut first).unwrap();
        match &first {
            b"HTTP/1.1 200" => open.push(stream),
            _ => full = Some(Reply::read_after(&first, &mut stream)),
        }
    }
    let reply = full.unwrap();
    assert_eq!(reply.status, 429);
    assert!(reply.header("retry-after").unwrap().parse::<u64>().unwrap() >= 1);
    assert_eq!(reply.error()["code"], "queue_full");
    // They all are answered.
    for mut stream in open {
        let mut rest = String::new();
        stream.read_to_string(&mut rest).unwrap();
        assert!(rest.contains("data: [DONE]"), "{rest}");
    }
    test.json(COMPLETIONS, &short());
}

#[test]
fn work_ends_when_the_client_leaves() {
    let test = Test::start();
    let count = |name: &str| -> f64 {
        let text = test.get("/metrics").body;
        let line = text
            .lines()
            .find(|line| line.starts_with(name))
            .unwrap()
            .to_owned();
        line.rsplit(' ').next().unwrap().parse().unwrap()
    };
    for stream in [false, true] {
        let before = count("sterna_cancelled_total");
        // It would take until the context is full, eight times.
        let body = json!({"prompt": "Once", "n": 8, "ignore_eos": true, "stream": stream});
        let request = head(
            "POST",
            COMPLETIONS,
            &["content-type: application/json"],
            &body.to_string(),
        );
        let mut left = false;
        while !left {
            let mut connection = test.connect();
            connection.write_all(request.as_bytes()).unwrap();
            drop(connection);
            while count("sterna_requests_open") > 1.0 || count("sterna_requests_running") > 0.0 {}
            left = count("sterna_cancelled_total") > before;
        }
    }
    test.json(COMPLETIONS, &short());
}

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
