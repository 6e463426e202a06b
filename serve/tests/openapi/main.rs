//! `/openapi.json` against live answers: every operation is asked, and what it answers is what the
//! document says.

#[path = "../../../runtime/tests/random_model/mod.rs"]
mod random_model;
mod schema;
#[path = "../support/mod.rs"]
mod support;
#[path = "../../../grammar/tests/support/mod.rs"]
mod tokenizers;
#[path = "../tool_models/mod.rs"]
mod tool_models;

use std::collections::BTreeSet;
use std::io::Write;

use schema::Schemas;
use serde_json::{Value, json};
use sterna_serve::http::Settings;
use support::{Reply, Test, limits, served};

/// Requests with a body that are answered, at least one for each operation.
fn requests() -> Vec<(&'static str, Value)> {
    let messages = json!([{"role": "user", "content": "Once Mia sat"}]);
    let parts = json!([{"role": "user", "content": [{"type": "text", "text": "Once"}]}]);
    let items = json!([{"type": "message", "role": "user",
        "content": [{"type": "input_text", "text": "Once"}]}]);
    let scores = json!(["message.output_text.logprobs"]);
    vec![
        ("/tokenize", json!({"prompt": "Once é"})),
        (
            "/tokenize",
            json!({"content": "Once é", "with_pieces": true}),
        ),
        (
            "/tokenize",
            json!({"messages": messages, "return_token_strs": true}),
        ),
        ("/detokenize", json!({"tokens": [5, 6]})),
        ("/apply-template", json!({"messages": messages})),
        (
            "/v1/chat/completions",
            json!({"messages": messages, "max_tokens": 3}),
        ),
        (
            "/v1/chat/completions",
            json!({"messages": parts, "max_tokens": 3, "logprobs": true,
            "top_logprobs": 2, "return_token_ids": true, "n": 2, "stop": ["x"], "seed": 3,
            "prompt_logprobs": 1}),
        ),
        (
            "/v1/completions",
            json!({"prompt": "Once", "max_tokens": 3}),
        ),
        (
            "/v1/completions",
            json!({"prompt": [[5, 6], [7]], "max_tokens": 3, "logprobs": 2,
            "echo": true, "return_token_ids": true, "prompt_logprobs": 1}),
        ),
        ("/v1/embeddings", json!({"input": "Once"})),
        (
            "/v1/embeddings",
            json!({"input": ["Once", "Mia"], "encoding_format": "base64"}),
        ),
        (
            "/v1/responses",
            json!({"input": "Once Mia sat", "max_output_tokens": 3}),
        ),
        (
            "/v1/responses",
            json!({"input": items, "instructions": "Be brief.", "include": scores,
            "max_output_tokens": 3, "metadata": {"a": "b"}, "temperature": 0.7}),
        ),
        ("/v1/responses/input_tokens", json!({"input": "Once"})),
        (
            "/v1/messages",
            json!({"messages": messages, "max_tokens": 3}),
        ),
        (
            "/v1/messages",
            json!({"messages": parts, "max_tokens": 3, "stop_sequences": ["x"],
            "system": [{"type": "text", "text": "Be brief."}]}),
        ),
        ("/v1/messages/count_tokens", json!({"messages": messages})),
        ("/api/show", json!({"model": "stories"})),
        (
            "/api/chat",
            json!({"messages": messages, "stream": false, "logprobs": true,
            "options": {"num_predict": 3, "temperature": 0.5}}),
        ),
        ("/api/chat", json!({"stream": false})),
        (
            "/api/generate",
            json!({"prompt": "Once", "stream": false,
            "options": {"num_predict": 3}}),
        ),
        ("/api/embed", json!({"input": ["Once", "Mia"]})),
    ]
}

fn document(test: &Test) -> Value {
    let reply = test.get("/openapi.json");
    assert_eq!(reply.status, 200);
    assert_eq!(reply.header("content-type"), Some("application/json"));
    reply.json()
}

/// A part of the document, or what it refers to.
fn resolved<'d>(document: &'d Value, part: &'d Value) -> &'d Value {
    part.get("$ref")
        .map_or(part, |name| Schemas(document).target(name))
}

/// The schema of a reply, as the operation describes it.
fn described<'d>(document: &'d Value, operation: &'d Value, reply: &Reply) -> &'d Value {
    let response = operation["responses"].get(reply.status.to_string());
    let response = response.unwrap_or_else(|| panic!("{} is not described", reply.status));
    let response = resolved(document, response);
    for (name, header) in response["headers"].as_object().unwrap() {
        let header = resolved(document, header);
        let found = reply.header(&name.to_lowercase());
        let Some(text) = found else {
            assert!(header["required"] != true, "{name} is not in {reply:?}");
            continue;
        };
        let value = match header["schema"]["type"] == "integer" {
            true => text.parse::<u64>().unwrap().into(),
            false => Value::from(text),
        };
        let checked = Schemas(document).check(&header["schema"], &value);
        assert_eq!(checked, Ok(()), "{name}");
    }
    let media = reply
        .header("content-type")
        .unwrap()
        .split(';')
        .next()
        .unwrap();
    let content = &response["content"];
    let content = content
        .get(media)
        .unwrap_or_else(|| panic!("{media} is not in {content}"));
    &content["schema"]
}

fn check(document: &Value, operation: &Value, reply: &Reply) {
    let schema = described(document, operation, reply);
    let media = reply.header("content-type").unwrap();
    let values = match media {
        "application/json" => vec![reply.json()],
        "text/event-stream" => events(&reply.body),
        _ => vec![reply.body.clone().into()],
    };
    for value in values {
        let checked = Schemas(document).check(schema, &value);
        assert_eq!(checked, Ok(()), "{} {value}", operation["operationId"]);
    }
}

/// The events of a stream as objects of their fields.
fn events(text: &str) -> Vec<Value> {
    let events = text.strip_suffix("\n\n").unwrap().split("\n\n");
    let field = |line: &str| {
        let (name, value) = line.split_once(": ").unwrap();
        (name.to_owned(), Value::from(value))
    };
    events
        .map(|event| event.lines().map(field).collect())
        .collect()
}

#[test]
fn the_document_has_the_form_of_openapi() {
    let test = Test::start();
    let document = document(&test);
    assert_eq!(document["openapi"], "3.1.0");
    assert_eq!(document["info"]["version"], env!("CARGO_PKG_VERSION"));
    let ids = document["paths"].as_object().unwrap().values().map(|item| {
        let (method, operation) = item.as_object().unwrap().iter().next().unwrap();
        assert!(["get", "post", "delete"].contains(&method.as_str()));
        operation["operationId"].as_str().unwrap()
    });
    assert_eq!(
        ids.collect::<BTreeSet<_>>().len(),
        document["paths"].as_object().unwrap().len()
    );
}

#[test]
fn every_operation_answers_what_the_document_says() {
    let page = support::local_page();
    let with_page = |settings: &mut Settings| settings.local = Some(page);
    let test = Test::with(with_page, vec![served("stories", limits())]);
    let document = document(&test);
    let mut asked = BTreeSet::new();
    for (path, body) in requests() {
        let operation = &document["paths"][path]["post"];
        let schema = &operation["requestBody"]["content"]["application/json"]["schema"];
        assert_eq!(
            Schemas(&document).check(schema, &body),
            Ok(()),
            "{path} {body}"
        );
        let reply = test.post(path, &body);
        assert_eq!(reply.status, 200, "{path} {body}: {}", reply.body);
        check(&document, operation, &reply);
        let content = operation["responses"]["200"]["content"]
            .as_object()
            .unwrap();
        if content.len() == 2 {
            let mut body = body;
            body["stream"] = true.into();
            check(&document, operation, &test.post(path, &body));
        }
        asked.insert(("post".to_owned(), path.to_owned()));
    }
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let place = path.replace("{name}", "stories");
            match method.as_str() {
                "get" if operation["responses"].get("308").is_some() => {
                    assert_eq!(test.get(&place).status, 308, "{path}");
                }
                "get" => {
                    let reply = test.get(&place);
                    assert_eq!(reply.status, 200, "{path}");
                    check(&document, operation, &reply);
                }
                _ if operation.get("requestBody").is_none() => {
                    let reply = test.request(&method.to_uppercase(), path, &[], "{}");
                    assert_eq!(reply.status, 501, "{path}");
                    check(&document, operation, &reply);
                }
                _ => assert!(asked.contains(&(method.clone(), path.clone())), "{path}"),
            }
        }
    }
}

/// Requests whose answers are calls.
#[cfg(feature = "grammar")]
fn requests_with_tools() -> Vec<(&'static str, Value)> {
    let schema = json!({"type": "object", "properties": {"ok": {"type": "boolean"}},
        "required": ["ok"], "additionalProperties": false});
    let function = json!({"name": "look", "description": "A tool.", "parameters": schema});
    let messages = json!([{"role": "user", "content": "Hi"}]);
    let call = json!({"id": "1", "type": "function",
        "function": {"name": "look", "arguments": "{}"}});
    let turns = json!([messages[0], {"role": "assistant", "content": null, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "1", "content": "red"}]);
    let named = json!({"type": "function", "function": {"name": "look"}});
    let mut flat = function.clone();
    flat["type"] = "function".into();
    let items = json!([{"role": "user", "content": "Hi"},
        {"type": "function_call", "call_id": "1", "name": "look", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "1", "output": "red"}]);
    let blocks = json!([messages[0],
        {"role": "assistant", "content": [
            {"type": "tool_use", "id": "1", "name": "look", "input": {}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "1"}]}]);
    let tools = json!([{"type": "function", "function": function}]);
    vec![
        (
            "/v1/chat/completions",
            json!({"messages": turns, "tools": tools, "tool_choice": named}),
        ),
        (
            "/v1/responses",
            json!({"input": items, "tools": [flat],
            "tool_choice": {"type": "function", "name": "look"}}),
        ),
        (
            "/v1/messages",
            json!({"messages": blocks, "max_tokens": 400,
            "tools": [{"name": "look", "input_schema": schema}], "tool_choice": {"type": "any"}}),
        ),
        (
            "/api/chat",
            json!({"messages": turns.as_array().unwrap()[..1], "tools": tools, "stream": false,
            "options": {"num_predict": 200}}),
        ),
        (
            "/apply-template",
            json!({"messages": turns, "tools": tools, "tool_choice": "none"}),
        ),
    ]
}

#[test]
#[cfg(feature = "grammar")]
fn calls_are_what_the_document_says() {
    let model = tool_models::model(tool_models::Kind::Special);
    let served = support::served_as("m", model, support::limits());
    let test = Test::with(|_| {}, vec![served]);
    let document = document(&test);
    for (path, body) in requests_with_tools() {
        let operation = &document["paths"][path]["post"];
        let schema = &operation["requestBody"]["content"]["application/json"]["schema"];
        let checked = Schemas(&document).check(schema, &body);
        assert_eq!(checked, Ok(()), "{path} {body}");
        let reply = test.post(path, &body);
        assert_eq!(reply.status, 200, "{path} {body}: {}", reply.body);
        if !path.starts_with("/a") {
            assert!(reply.body.contains("\"look\""), "{}", reply.body);
        }
        check(&document, operation, &reply);
    }
}

#[test]
fn errors_are_what_the_document_says() {
    let keys = sterna_serve::http::Keys::parse("a-long-key").unwrap();
    let models = vec![support::served("stories", support::limits())];
    let page = support::local_page();
    let close = |settings: &mut Settings| {
        settings.keys = keys;
        settings.local = Some(page);
    };
    let closed = Test::with(close, models);
    let test = Test::start();
    let loading = Test::loading(|settings| settings.local = Some(support::local_page()));
    let document = document(&test);
    let mut too_large_ones = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        let (method, operation) = item.as_object().unwrap().iter().next().unwrap();
        let (verb, place) = (method.to_uppercase(), path.replace("{name}", "stories"));
        let reply = closed.request(&verb, &place, &["content-type: application/json"], "{}");
        if operation["responses"].get("308").is_some() {
            assert_eq!(reply.status, 308, "{path}");
            continue;
        }
        match operation["security"] == json!([]) {
            true => assert_eq!(reply.status, 200, "{path}"),
            false => assert_eq!(reply.status, 401, "{path}"),
        }
        check(&document, operation, &reply);
        if operation.get("requestBody").is_some() {
            for body in ["{\"model\": 3}", "[]", "{\"model\": \"other\"}"] {
                let reply = test.post_text(path, body);
                assert!([400, 404].contains(&reply.status), "{path} {body}");
                check(&document, operation, &reply);
            }
            let reply = test.request("POST", path, &[], "{}");
            assert_eq!(reply.status, 415, "{path}");
            check(&document, operation, &reply);
            let too_large = ["content-type: application/json", "content-length: 10000000"];
            let mut stream = test.connect();
            let head = support::head("POST", path, &too_large, "");
            stream.write_all(head.as_bytes()).unwrap();
            too_large_ones.push((path, operation, stream));
        }
        for (header, status) in [("host: other", 403), (&long_header(), 431)] {
            let reply = test.request(&verb, &place, &[header], "");
            assert_eq!(reply.status, status, "{path}");
            check(&document, operation, &reply);
        }
        let loading = loading.request(&verb, &place, &["content-type: application/json"], "{}");
        check(&document, operation, &loading);
        let is_described = operation["responses"].get("503").is_some();
        let is_always = loading.status == 200 || loading.status == 501;
        assert!(
            is_described != is_always || path.ends_with("/health"),
            "{path}"
        );
    }
    // Each connection stays open for a while, as the body may be under way.
    for (path, operation, mut stream) in too_large_ones {
        let reply = Reply::read(&mut stream);
        assert_eq!(reply.status, 413, "{path}");
        check(&document, operation, &reply);
    }
}

/// A head that is too large.
fn long_header() -> String {
    format!("x: {}", "x".repeat(33 << 10))
}

#[test]
fn the_check_of_schemas_finds_what_is_wrong() {
    let document = json!({"s": {"type": "object", "required": ["a"], "properties": {
        "a": {"type": ["integer", "null"], "minimum": 1}, "b": {"$ref": "#/t"}}},
        "t": {"type": "array", "items": {"anyOf": [{"const": "x"}, {"enum": [1, 2]}]},
            "maxItems": 2},
        "u": {"allOf": [{"$ref": "#/v"}], "properties": {"c": {"minLength": 2}}},
        "v": {"properties": {"a": {"type": "null"}}},
        "m": {"type": "object", "additionalProperties": {"type": "number"}}});
    let check = |name: &str, value: Value| Schemas(&document).check(&document[name], &value);
    assert_eq!(check("s", json!({"a": 1, "b": ["x", 2]})), Ok(()));
    assert_eq!(check("u", json!({"a": null, "c": "ab"})), Ok(()));
    assert_eq!(check("m", json!({"any": 1.5})), Ok(()));
    for (name, value, says) in [
        ("s", json!([]), "type"),
        ("s", json!({}), "required"),
        ("s", json!({"a": 0}), "minimum"),
        ("s", json!({"a": 1.5}), "type"),
        ("s", json!({"a": 1, "z": 2}), "/z is not described"),
        ("s", json!({"a": 1, "b": ["y"]}), "/b/0"),
        ("s", json!({"a": 1, "b": [1, 1, 1]}), "maxItems"),
        ("u", json!({"a": null, "c": "a"}), "minLength"),
        ("u", json!({"a": 1}), "/a"),
        ("m", json!({"any": "x"}), "/any"),
    ] {
        let error = check(name, value.clone()).unwrap_err();
        assert!(error.contains(says), "{value}: {error}");
    }
}
