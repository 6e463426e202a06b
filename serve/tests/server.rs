//! The server around the routes: statuses, malformed requests, limits, load, drain.

mod support;

use std::io::{Read, Write};

use serde_json::json;
use support::{COMPLETIONS, Reply, Test, head, limits, served, short, two_keys, with_keys};

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
