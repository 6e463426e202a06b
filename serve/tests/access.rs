//! Who is answered: keys, hosts, origins.

mod support;

use sterna_serve::http::{BadServer, Server, Settings};
use support::{COMPLETIONS, Test, limits, served, short, two_keys, with_keys};

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

/// What the clients of OpenAI and Anthropic for JavaScript send from a page.
#[test]
fn clients_in_a_page_may_send_their_headers() {
    let page = "https://page.example";
    let change = |settings: &mut Settings| {
        with_keys(settings);
        settings.origins = vec![page.into()];
    };
    let test = Test::with(change, vec![served("stories", two_keys())]);
    let origin = format!("origin: {page}");
    let stainless = [
        "x-stainless-arch",
        "x-stainless-async",
        "x-stainless-helper-method",
        "x-stainless-lang",
        "x-stainless-os",
        "x-stainless-package-version",
        "x-stainless-retry-count",
        "x-stainless-runtime",
        "x-stainless-runtime-version",
        "x-stainless-timeout",
    ];
    let openai = [
        "authorization",
        "content-type",
        "openai-organization",
        "openai-project",
        "openai-beta",
        "user-agent",
    ];
    let anthropic = [
        "anthropic-beta",
        "anthropic-dangerous-direct-browser-access",
        "anthropic-version",
        "content-type",
        "x-api-key",
    ];
    for (path, own) in [
        (COMPLETIONS, &openai[..]),
        ("/v1/messages", &anthropic),
        (
            "/v1/models",
            &["x-request-id", "x-session", "idempotency-key"],
        ),
    ] {
        let asked: Vec<&str> = own.iter().chain(&stainless).copied().collect();
        let asks = format!("access-control-request-headers: {}", asked.join(","));
        let method = "access-control-request-method: POST";
        let reply = test.request("OPTIONS", path, &[&origin, method, &asks], "");
        assert_eq!(reply.status, 204, "{path}");
        assert_eq!(reply.header("access-control-allow-origin"), Some(page));
        let allowed = reply.header("access-control-allow-headers").unwrap();
        let allowed: Vec<&str> = allowed.split(", ").collect();
        for name in asked {
            assert!(allowed.contains(&name), "{path}: {name} in {allowed:?}");
        }
    }
    // Other headers are not allowed, and other origins nothing.
    let asks = "access-control-request-headers: Cookie, X-Stainless-OS, x mine, x-other";
    let reply = test.request("OPTIONS", COMPLETIONS, &[&origin, asks], "");
    let allowed = reply.header("access-control-allow-headers").unwrap();
    assert!(allowed.ends_with(", x-stainless-os"), "{allowed}");
    assert!(
        !allowed.contains("cookie") && !allowed.contains("other"),
        "{allowed}"
    );
    let reply = test.request(
        "OPTIONS",
        COMPLETIONS,
        &["origin: https://other.example", asks],
        "",
    );
    assert_eq!(reply.status, 405);
    assert_eq!(reply.header("access-control-allow-headers"), None);
    // A reply says which of its headers the page may read, also where it is an error.
    let key = "authorization: Bearer the-first-key";
    let json = "content-type: application/json";
    let body = r#"{"prompt": "Once", "max_tokens": 1, "user": "me"}"#;
    for (headers, status) in [(&[&*origin, json, key][..], 200), (&[&origin, json], 401)] {
        let reply = test.request("POST", COMPLETIONS, headers, body);
        assert_eq!(reply.status, status);
        assert_eq!(reply.header("x-sterna-ignored").is_some(), status == 200);
        let read = reply.header("access-control-expose-headers").unwrap();
        for name in [
            "retry-after",
            "x-request-id",
            "x-sterna-ignored",
            "x-should-retry",
        ] {
            assert!(read.contains(name), "{name} in {read}");
        }
    }
}
