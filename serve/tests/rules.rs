//! Answers that keep to a rule, on all routes that generate.
#![cfg(feature = "grammar")]

mod support;

use serde_json::{Value, json};
use support::{Test, limits, over, served};

const CHAT: &str = "/v1/chat/completions";
const COMPLETIONS: &str = "/v1/completions";

/// An object of a few tokens.
fn schema() -> Value {
    json!({"type": "object", "required": ["ok"], "additionalProperties": false,
        "properties": {"ok": {"type": "boolean"}}})
}

fn messages() -> Value {
    json!([{"role": "user", "content": "Once Mia"}])
}

/// The text of a stream of chat.
fn streamed(test: &Test, body: &Value) -> String {
    let events = test.events(CHAT, &over(body.clone(), &json!({"stream": true})));
    let parts = events
        .iter()
        .filter_map(|event| event["choices"][0]["delta"]["content"].as_str());
    parts.collect()
}

#[track_caller]
fn keeps(text: &Value) {
    let object: Value = serde_json::from_str(text.as_str().unwrap()).unwrap();
    assert!(
        object.as_object().unwrap().len() == 1 && object["ok"].is_boolean(),
        "{text}"
    );
}

#[test]
fn every_api_has_its_field() {
    let test = Test::start();
    let named = json!({"type": "json_schema", "json_schema": {"name": "n", "schema": schema()}});
    let flat = json!({"type": "json_schema", "name": "n", "schema": schema()});
    let warm = json!({"temperature": 1, "seed": 4});
    for fields in [
        json!({"response_format": named}),
        json!({"structured_outputs": {"json": schema()}}),
        json!({"guided_json": schema().to_string()}),
        json!({"json_schema": schema()}),
    ] {
        let chat = over(over(json!({"messages": messages()}), &fields), &warm);
        let reply = test.json(CHAT, &chat);
        let choice = &reply["choices"][0];
        keeps(&choice["message"]["content"]);
        assert_eq!(choice["finish_reason"], "stop");
        assert_eq!(
            streamed(&test, &chat),
            choice["message"]["content"].as_str().unwrap()
        );
        let text = over(over(json!({"prompt": "Once"}), &fields), &warm);
        keeps(&test.json(COMPLETIONS, &text)["choices"][0]["text"]);
    }
    let body = json!({"input": "Once Mia", "text": {"format": flat}, "max_output_tokens": 100});
    let reply = test.json("/v1/responses", &body);
    keeps(&reply["output"][0]["content"][0]["text"]);
    assert_eq!(reply["text"]["format"], flat);
    let body = json!({"messages": messages(), "output_config": {"format": flat},
        "max_tokens": 100});
    keeps(&test.json("/v1/messages", &body)["content"][0]["text"]);
    for (path, own) in [
        ("/api/chat", json!({"messages": messages()})),
        ("/api/generate", json!({"prompt": "Once Mia"})),
    ] {
        let body = over(own, &json!({"format": schema(), "stream": false}));
        let reply = test.json(path, &body);
        keeps(if path == "/api/chat" {
            &reply["message"]["content"]
        } else {
            &reply["response"]
        });
    }
}

#[test]
fn texts_are_of_the_form_that_was_asked_for() {
    let test = Test::start();
    let ask = |fields: Value| {
        let body = json!({"prompt": "Once", "temperature": 1, "seed": 2, "max_tokens": 100});
        let reply = test.json(COMPLETIONS, &over(body, &fields));
        reply["choices"][0]["text"].as_str().unwrap().to_owned()
    };
    let choices = json!(["yes (1.5*2)", "no|yes", "é\n"]);
    let text = ask(json!({"guided_choice": choices}));
    assert!(choices.as_array().unwrap().contains(&json!(text)), "{text}");
    let text = ask(json!({"regex": "[ab]{4}"}));
    assert!(
        text.len() == 4 && text.chars().all(|c| "ab".contains(c)),
        "{text}"
    );
    let text = ask(json!({"grammar": "start: \"a\" | \"bc\""}));
    assert!(text == "a" || text == "bc", "{text}");
    // A text that is cut leaves a beginning. (Two tokens can be a whole object.)
    let body =
        json!({"prompt": "Once", "max_tokens": 1, "response_format": {"type": "json_object"}});
    let choice = test.json(COMPLETIONS, &body)["choices"][0].clone();
    assert!(
        choice["text"].as_str().unwrap().starts_with('{'),
        "{choice}"
    );
    assert_eq!(choice["finish_reason"], "length");
}

#[test]
fn several_answers_keep_to_a_rule_each() {
    let test = Test::start();
    let body = json!({"messages": messages(), "response_format": {"type": "json_schema",
        "json_schema": {"schema": schema()}}, "temperature": 1.5, "seed": 9, "n": 4,
        "logprobs": true, "top_logprobs": 2});
    let reply = test.json(CHAT, &body);
    for choice in reply["choices"].as_array().unwrap() {
        keeps(&choice["message"]["content"]);
    }
    // Choice 0 of four is the one alone; scores are those of the model without the rule.
    let one = test.json(CHAT, &over(body, &json!({"n": 1})));
    assert_eq!(one["choices"][0], reply["choices"][0]);
    let first = &one["choices"][0]["logprobs"]["content"][0];
    assert!(first["logprob"].as_f64().unwrap() < 0.0, "{first}");
}

#[test]
fn what_cannot_be_enforced_is_refused() {
    let test = Test::start();
    let of_schema = |schema: Value| {
        json!({"response_format": {"type": "json_schema",
        "json_schema": {"schema": schema}}})
    };
    let place = "response_format.json_schema.schema";
    for (fields, param, says) in [
        (
            of_schema(json!({"properties": {"a": {"type": "array", "uniqueItems": true}}})),
            place,
            "#/properties/a",
        ),
        (
            of_schema(json!({"nullable": true, "type": "null"})),
            place,
            "#/nullable",
        ),
        (json!({"regex": "a("}), "regex", "regular expression"),
        (json!({"grammar": "start: missing"}), "grammar", "missing"),
        (json!({"grammar": "root ::= \"a\""}), "grammar", "GBNF"),
        (
            json!({"regex": "a", "guided_choice": ["a"]}),
            "regex",
            "guided_choice",
        ),
        (
            json!({"regex": "a", "ignore_eos": true}),
            "ignore_eos",
            "an end",
        ),
    ] {
        for stream in [false, true] {
            let body = over(json!({"messages": messages(), "stream": stream}), &fields);
            let error = test.error(CHAT, &body, 400);
            assert_eq!(error["param"], param, "{error}");
            assert!(error["message"].as_str().unwrap().contains(says), "{error}");
        }
    }
    let twice = json!({"input": "Once", "text": {"format": {"type": "json_object"}},
        "response_format": {"type": "json_object"}});
    assert_eq!(
        test.error("/v1/responses", &twice, 400)["param"],
        "text.format"
    );
}

#[test]
fn keywords_without_effect_are_named() {
    let schema = json!({"type": "object", "required": ["a"], "additionalProperties": false,
        "properties": {"a": {"type": "boolean", "foo": 3}}});
    let inner = json!({"type": "json_schema", "json_schema": {"schema": schema}});
    let flat = json!({"type": "json_schema", "name": "n", "schema": schema});
    let requests = [
        (
            CHAT,
            json!({"messages": messages(), "response_format": inner}),
            "response_format.json_schema.schema/properties/a/foo",
        ),
        (
            COMPLETIONS,
            json!({"prompt": "Once", "guided_json": schema, "user": "me"}),
            "user,guided_json/properties/a/foo",
        ),
        (
            "/v1/responses",
            json!({"input": "Once Mia", "text": {"format": flat}}),
            "text.format.schema/properties/a/foo",
        ),
        (
            "/v1/messages",
            json!({"messages": messages(), "output_config": {"format": flat},
                "max_tokens": 50}),
            "output_config.format.schema/properties/a/foo",
        ),
        (
            "/api/chat",
            json!({"messages": messages(), "format": schema, "stream": false}),
            "format.schema/properties/a/foo",
        ),
    ];
    let test = Test::start();
    for (path, body, named) in &requests {
        let reply = test.post(path, body);
        assert_eq!(reply.status, 200, "{path}");
        assert_eq!(reply.header("x-sterna-ignored"), Some(*named), "{path}");
    }
    let models = vec![served("stories", limits())];
    let strict = Test::with(|settings| settings.is_strict = true, models);
    let (path, body, named) = &requests[0];
    let error = strict.error(path, body, 400);
    assert_eq!(error["param"], *named);
}
