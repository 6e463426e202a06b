//! The page that runs models in the browser, and their files for it.

mod support;

use serde_json::Value;
use sterna_serve::http::Settings;
use support::{Test, limits, served, two_keys, with_keys};

fn with_page(settings: &mut Settings) {
    settings.local = Some(support::local_page());
}

#[test]
fn it_is_off_unless_it_is_asked_for() {
    let test = Test::start();
    for path in [
        "/local",
        "/local/",
        "/local/models.json",
        "/local/models/stories.sterna",
    ] {
        let reply = test.get(path);
        assert_eq!(reply.status, 404, "{path}");
        let message = reply.error()["message"].to_string();
        assert!(message.contains("--local"), "{path}: {message}");
    }
}

#[test]
fn the_page_has_a_policy_and_lists_models() {
    let model = served("a story/1", limits());
    let (fingerprint, len) = (model.fingerprint.clone(), model.model.file().len());
    let test = Test::with(with_page, vec![model]);
    let to = test.get("/local");
    assert_eq!((to.status, to.header("location")), (308, Some("local/")));
    for (path, name, media) in [
        ("/local/", "index.html", "text/html; charset=utf-8"),
        (
            "/local/worker.js",
            "worker.js",
            "text/javascript; charset=utf-8",
        ),
        ("/local/sterna.wasm", "sterna.wasm", "application/wasm"),
    ] {
        let reply = test.get(path);
        assert_eq!((reply.status, &*reply.body), (200, name));
        assert_eq!(reply.header("content-type"), Some(media));
        let policy = reply.header("content-security-policy").unwrap();
        assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe-inline"));
    }
    assert_eq!(test.get("/local/other.js").status, 404);
    let list = test.get("/local/models.json").json();
    let expected = serde_json::json!([{
        "name": "a story/1", "address": "models/a%20story%2F1.sterna", "bytes": len,
        "fingerprint": fingerprint,
    }]);
    assert_eq!(list, expected);
}

#[test]
fn a_model_moves_as_it_is() {
    let test = Test::with(with_page, vec![served("stories", limits())]);
    let list: Value = test.get("/local/models.json").json();
    let path = format!("/local/{}", list[0]["address"].as_str().unwrap());
    let reply = test.get(&path);
    assert_eq!(reply.status, 200);
    assert!(reply.bytes == support::model().file().as_bytes());
    let len = reply.bytes.len().to_string();
    assert_eq!(reply.header("content-length"), Some(&*len));
    let head = test.request("HEAD", &path, &[], "");
    assert_eq!(
        (head.header("content-length"), head.bytes.len()),
        (Some(&*len), 0)
    );
    assert_eq!(test.get("/local/models/other.sterna").status, 404);
}

#[test]
fn models_need_a_key_where_keys_are_set_and_the_page_does_not() {
    let settings = |settings: &mut Settings| {
        with_keys(settings);
        with_page(settings);
    };
    let test = Test::with(settings, vec![served("stories", two_keys())]);
    assert_eq!(test.get("/local/").status, 200);
    for path in ["/local/models.json", "/local/models/stories.sterna"] {
        assert_eq!(test.get(path).status, 401, "{path}");
        let key = ["authorization: Bearer the-first-key"];
        assert_eq!(test.request("GET", path, &key, "").status, 200, "{path}");
    }
}
