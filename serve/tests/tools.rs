//! Calls of tools in chat, with models of random weights: nothing but the rule makes a call valid.
#![cfg(feature = "grammar")]

#[path = "../../runtime/tests/random_model/mod.rs"]
mod random_model;
mod support;
#[path = "../../grammar/tests/support/mod.rs"]
mod tokenizers;
mod tool_models;

use serde_json::{Value, json};
use support::{Test, over};
use tool_models::{CALL, END_OF_CALL, EOS, Kind, PYTHON, function, schema, start};

const CHAT: &str = "/v1/chat/completions";

/// Two tools of a few tokens.
fn tools() -> Value {
    json!([
        function("look", &schema()),
        function("look_up", &json!({"type": "object"}))
    ])
}

fn ask(fields: Value) -> Value {
    let body = json!({"messages": [{"role": "user", "content": "Hi"}], "tools": tools(),
        "temperature": 1, "seed": 5, "max_tokens": 300});
    over(body, &fields)
}

fn named(name: &str) -> Value {
    json!({"type": "function", "function": {"name": name}})
}

/// Ten schemas of different kinds.
fn schemas() -> Vec<Value> {
    let closed = |properties: Value, required: Value| {
        json!({"type": "object", "properties": properties, "required": required,
            "additionalProperties": false})
    };
    vec![
        closed(
            json!({"city": {"enum": ["Paris", "Zürich", "{\"}"]}}),
            json!(["city"]),
        ),
        closed(
            json!({"n": {"type": "integer", "minimum": -5, "maximum": 50}}),
            json!(["n"]),
        ),
        closed(
            json!({"x": {"type": "number", "minimum": 0, "maximum": 1}}),
            json!([]),
        ),
        closed(
            json!({"s": {"type": "string", "maxLength": 6}}),
            json!(["s"]),
        ),
        closed(
            json!({"l": {"type": "array", "items": {"type": "boolean"}, "maxItems": 3}}),
            json!(["l"]),
        ),
        closed(
            json!({"a": schema(), "b": {"type": ["null", "boolean"]}}),
            json!(["a", "b"]),
        ),
        json!({"$defs": {"p": schema()}, "type": "object", "additionalProperties": false,
            "properties": {"p": {"$ref": "#/$defs/p"}, "q": {"$ref": "#/$defs/p"}},
            "required": ["p"]}),
        closed(
            json!({"v": {"anyOf": [{"const": 3}, {"type": "string", "pattern": "^[ab]{2}$"}]}}),
            json!(["v"]),
        ),
        closed(
            json!({"d": {"type": "string", "format": "date"}}),
            json!(["d"]),
        ),
        json!({"type": "object", "properties": {}}),
    ]
}

/// The calls of a message, with their arguments as values.
fn calls(message: &Value) -> Vec<(String, Value)> {
    let call = |call: &Value| {
        assert_eq!(call["type"], "function");
        let id = call["id"].as_str().unwrap();
        assert!(id.len() == 29 && id.starts_with("call_"), "{id}");
        let function = &call["function"];
        let arguments = serde_json::from_str(function["arguments"].as_str().unwrap()).unwrap();
        (function["name"].as_str().unwrap().to_owned(), arguments)
    };
    let calls = message["tool_calls"].as_array();
    calls.into_iter().flatten().map(call).collect()
}

/// The message that a stream builds up, and why it ended.
fn streamed(test: &Test, body: &Value) -> (Value, Value) {
    let events = test.events(CHAT, &over(body.clone(), &json!({"stream": true})));
    let mut message = json!({"role": "assistant", "content": null, "refusal": null});
    let mut reason = Value::Null;
    for event in &events {
        let choice = &event["choices"][0];
        if let Some(text) = choice["delta"]["content"].as_str() {
            let before = message["content"].as_str().unwrap_or_default();
            message["content"] = format!("{before}{text}").into();
        }
        for part in choice["delta"]["tool_calls"]
            .as_array()
            .into_iter()
            .flatten()
        {
            let index = part["index"].as_u64().unwrap() as usize;
            let calls = &mut message["tool_calls"];
            match part.get("id") {
                Some(_) => {
                    // Only the first part has these, and no arguments.
                    assert_eq!(calls.as_array().map_or(0, Vec::len), index, "{event}");
                    assert_eq!(part["function"]["arguments"], "", "{event}");
                    assert_eq!(part["type"], "function");
                    let mut call = part.clone();
                    call.as_object_mut().unwrap().shift_remove("index");
                    match calls.as_array_mut() {
                        Some(calls) => calls.push(call),
                        None => *calls = json!([call]),
                    }
                }
                None => {
                    let members: Vec<_> = part["function"].as_object().unwrap().keys().collect();
                    assert_eq!(members, ["arguments"], "{event}");
                    let text = part["function"]["arguments"].as_str().unwrap();
                    assert!(!text.is_empty(), "{event}");
                    let before = calls[index]["function"]["arguments"].as_str().unwrap();
                    calls[index]["function"]["arguments"] = format!("{before}{text}").into();
                }
            }
        }
        if !choice["finish_reason"].is_null() {
            reason = choice["finish_reason"].clone();
        }
    }
    assert_eq!(
        events[0]["choices"][0]["delta"],
        json!({"role": "assistant", "content": null})
    );
    (message, reason)
}

/// The answer, which is the same as a stream.
fn answer(test: &Test, body: &Value) -> Value {
    let choice = test.json(CHAT, body)["choices"][0].take();
    let (mut message, reason) = streamed(test, body);
    if message["content"].is_null() && choice["message"]["content"] == "" {
        message["content"] = "".into();
    }
    assert_eq!(message, choice["message"]);
    assert_eq!(reason, choice["finish_reason"]);
    choice
}

#[test]
fn a_hundred_forced_calls_are_valid() {
    for (kind, seeds) in [
        (Kind::Tagged, 4),
        (Kind::Special, 2),
        (Kind::Bare, 2),
        (Kind::Plain, 2),
    ] {
        let test = start(kind);
        for (index, schema) in schemas().iter().enumerate() {
            let name = format!("tool-{index}");
            let other = function("other", &json!({}));
            let validator = jsonschema::options().should_validate_formats(true);
            let validator = validator.build(schema).unwrap();
            for seed in 0..seeds {
                let body = ask(
                    json!({"tools": [other, function(&name, schema)], "seed": seed,
                    "tool_choice": named(&name)}),
                );
                let choice = test.json(CHAT, &body)["choices"][0].take();
                assert_eq!(choice["finish_reason"], "tool_calls", "{choice}");
                assert_eq!(choice["message"]["content"], Value::Null, "{choice}");
                let found = calls(&choice["message"]);
                assert_eq!(found.len(), 1);
                assert_eq!(found[0].0, name);
                assert!(validator.is_valid(&found[0].1), "{schema} {choice}");
                if index == 9 {
                    assert_eq!(found[0].1, json!({}), "it has no parameters");
                }
            }
        }
    }
}

#[test]
fn streams_build_up_the_same_calls() {
    for kind in [Kind::Tagged, Kind::Special, Kind::Bare, Kind::Plain] {
        let test = start(kind);
        let mut most = 0;
        for seed in 0..8 {
            // An end is made less probable than another call.
            let bias = json!({EOS: -4});
            let body = ask(json!({"tool_choice": "required", "seed": seed, "logit_bias": bias}));
            let choice = answer(&test, &body);
            let calls = choice["message"]["tool_calls"].as_array().unwrap();
            let ids: std::collections::HashSet<&str> = calls
                .iter()
                .map(|call| call["id"].as_str().unwrap())
                .collect();
            assert_eq!(ids.len(), calls.len());
            most = most.max(calls.len());
            // Ids follow from the request.
            assert_eq!(test.json(CHAT, &body)["choices"][0], choice);
            let one = answer(&test, &over(body, &json!({"parallel_tool_calls": false})));
            assert_eq!(one["message"]["tool_calls"].as_array().unwrap().len(), 1);
        }
        match kind {
            // Its template writes one call at a time.
            Kind::Bare => assert_eq!(most, 1),
            _ => assert!(most > 1, "{kind:?}"),
        }
    }
}

#[test]
fn answers_of_a_request_have_calls_of_their_own() {
    let test = start(Kind::Tagged);
    let body = ask(json!({"tool_choice": named("look"), "n": 3}));
    let reply = test.json(CHAT, &body);
    let id = |index: usize| &reply["choices"][index]["message"]["tool_calls"][0]["id"];
    assert!(
        id(0) != id(1) && id(1) != id(2) && id(0) != id(2),
        "{reply}"
    );
    let one = test.json(CHAT, &over(body.clone(), &json!({"n": 1})));
    assert_eq!(one["choices"][0], reply["choices"][0]);
    let other = test.json(CHAT, &over(body, &json!({"n": 1, "seed": 6})));
    let found = &other["choices"][0]["message"]["tool_calls"][0]["id"];
    assert_ne!(found, id(0));
}

#[test]
fn a_cut_call_is_there_as_far_as_it_goes() {
    let test = start(Kind::Tagged);
    let whole = answer(&test, &ask(json!({"tool_choice": named("look")})));
    let whole = whole["message"]["tool_calls"][0]["function"]["arguments"].clone();
    let whole = whole.as_str().unwrap();
    let mut seen = 0;
    for limit in [1, 3, 20, 30, 40, 50] {
        let body = ask(json!({"tool_choice": named("look"), "max_tokens": limit}));
        let choice = answer(&test, &body);
        if choice["finish_reason"] == "length" {
            seen += 1;
            let part = &choice["message"]["tool_calls"][0]["function"]["arguments"];
            assert!(
                part.is_null() || whole.starts_with(part.as_str().unwrap()),
                "{choice}"
            );
        }
    }
    assert!(seen > 2);
}

#[test]
fn the_model_may_choose() {
    for (kind, first) in [
        (Kind::Special, CALL),
        (Kind::Bare, PYTHON),
        (Kind::Tagged, "261"),
    ] {
        let test = start(kind);
        let schema = json!({"type": "object", "properties": {"ok": {"type": "boolean"}},
            "required": ["ok"], "additionalProperties": false});
        let tools = json!([function("look", &schema)]);
        let bias = |value: f64| {
            let one = json!({"tools": tools, "parallel_tool_calls": false});
            over(one, &json!({"logit_bias": {first: value}}))
        };
        // A model that does not begin a call answers in text.
        let body = ask(over(bias(-100.0), &json!({"max_tokens": 40})));
        let choice = answer(&test, &body);
        assert!(choice["message"].get("tool_calls").is_none(), "{choice}");
        assert!(
            !choice["message"]["content"].as_str().unwrap().is_empty(),
            "{choice}"
        );
        assert_ne!(choice["finish_reason"], "tool_calls");
        // One that begins a call ends it.
        let choice = answer(&test, &ask(bias(100.0)));
        assert_eq!(calls(&choice["message"]).len(), 1, "{choice}");
        assert_eq!(choice["message"]["content"], Value::Null, "{choice}");
        assert_eq!(choice["finish_reason"], "tool_calls");
        if kind == Kind::Bare {
            continue;
        }
        // One that begins a call after some text has both.
        let mut both = 0;
        for seed in 0..24 {
            // So hot that most tokens are equally probable, and a call comes soon.
            let fields = json!({"seed": seed, "temperature": 30});
            let choice = answer(&test, &ask(over(bias(100.0), &fields)));
            let message = &choice["message"];
            let Some(text) = message["content"].as_str().filter(|text| !text.is_empty()) else {
                continue;
            };
            for tag in ["<call>", "<tool_call>"] {
                assert!(!text.contains(tag), "{choice}");
            }
            if !calls_or_cut(message).is_empty() {
                assert_eq!(text, text.trim_end(), "{choice}");
                both += 1;
            }
        }
        assert!(both > 2, "{kind:?} {both}");
    }
}

fn calls_or_cut(message: &Value) -> &[Value] {
    message["tool_calls"].as_array().map_or(&[], Vec::as_slice)
}

#[test]
fn none_is_as_without_tools() {
    let test = start(Kind::Tagged);
    let text = |body: &Value| test.json("/apply-template", body)["prompt"].clone();
    let without = json!({"messages": [{"role": "user", "content": "Hi"}]});
    let none = over(
        without.clone(),
        &json!({"tools": tools(), "tool_choice": "none"}),
    );
    assert_eq!(text(&none), text(&without));
    let auto = over(without.clone(), &json!({"tools": tools()}));
    let shown = text(&auto);
    assert!(shown.as_str().unwrap().contains("look_up"), "{shown}");
    let more = json!({"temperature": 1, "seed": 5, "max_tokens": 30});
    let found = test.json(CHAT, &over(none, &more));
    let expected = test.json(CHAT, &over(without, &more));
    assert_eq!(found["choices"], expected["choices"]);
}

#[test]
fn conversations_hold_calls_and_results() {
    let call = json!({"id": "call_1", "type": "function",
        "function": {"name": "look", "arguments": "{\"ok\": true}"}});
    let messages = json!([
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": null, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": "red"},
    ]);
    let written = |kind: Kind, body: Value| {
        let reply = start(kind).json("/apply-template", &body);
        reply["prompt"].as_str().unwrap().to_owned()
    };
    let tagged = written(
        Kind::Tagged,
        json!({"messages": messages, "tools": tools()}),
    );
    let call = "<tool_call>\n{\"name\": \"look\", \"arguments\": {\"ok\": true}}\n</tool_call></s>";
    assert!(
        tagged.contains(&format!("assistant: {call}\ntool: red of look\n")),
        "{tagged}"
    );
    // A template without a place for tools gets texts.
    let body = json!({"messages": messages, "tools": tools(), "tool_choice": "required"});
    let plain = written(Kind::Plain, body);
    let begin = "<s>system: These functions can be called. Each line describes one of them.\n\
                 {\"name\":\"look\",";
    assert!(plain.starts_with(begin), "{plain}");
    let call = "assistant: {\"name\": \"look\", \"arguments\": {\"ok\":true}}</s>\nuser: ";
    let result = format!("{call}Result of look:\nred\nassistant: ");
    assert!(plain.ends_with(&result), "{plain}");
    // The next text of the user is in the same message.
    let mut more = messages.clone();
    more.as_array_mut()
        .unwrap()
        .push(json!({"role": "user", "content": "And?"}));
    let plain = written(Kind::Plain, json!({"messages": more}));
    assert!(
        plain.ends_with(&format!("{call}Result of look:\nred\n\nAnd?\nassistant: ")),
        "{plain}"
    );
    // Ids are made what the template wants.
    let short = written(
        Kind::ShortIds,
        json!({"messages": messages, "tools": tools()}),
    );
    assert!(short.contains("red of look"), "{short}");
}

#[test]
fn scores_are_those_of_all_tokens() {
    let test = start(Kind::Special);
    let body = ask(json!({"tool_choice": named("look"), "logprobs": true,
        "return_token_ids": true}));
    let choice = test.json(CHAT, &body)["choices"][0].take();
    let scores = choice["logprobs"]["content"].as_array().unwrap();
    assert_eq!(scores[0]["token"], "<call>");
    let events = test.events(CHAT, &over(body, &json!({"stream": true})));
    let all = |pointer: &str| -> Vec<Value> {
        let lists = events
            .iter()
            .filter_map(|event| event.pointer(pointer)?.as_array());
        lists.flatten().cloned().collect()
    };
    assert_eq!(&all("/choices/0/logprobs/content"), scores);
    assert_eq!(
        Value::Array(all("/choices/0/token_ids")),
        choice["token_ids"]
    );
}

#[test]
fn what_cannot_be_done_is_refused() {
    let test = start(Kind::Tagged);
    let unique = json!({"type": "object", "properties": {"x": {"type": "array",
        "uniqueItems": true}}});
    let format = json!({"type": "json_object"});
    let continued = json!([{"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "I"}]);
    for (fields, param, says) in [
        (
            json!({"tools": [function("a", &schema()), function("b", &unique)]}),
            "tools[1].function.parameters",
            "#/properties/x",
        ),
        (
            json!({"tools": [function("a b", &schema())]}),
            "tools[0].function.name",
            "letters, digits",
        ),
        (
            json!({"tool_choice": named("other")}),
            "tool_choice.function.name",
            "one of the tools",
        ),
        (
            json!({"tools": [], "tool_choice": "required"}),
            "tool_choice",
            "no tools",
        ),
        (
            json!({"response_format": format, "tool_choice": "required"}),
            "response_format",
            "tool_choice",
        ),
        (
            json!({"response_format": format}),
            "response_format",
            "tool_choice",
        ),
        (json!({"regex": "a"}), "regex", "tool_choice"),
        (json!({"ignore_eos": true}), "ignore_eos", "an end"),
        (
            json!({"functions": [{"name": "a"}]}),
            "functions",
            "send tools instead",
        ),
        (
            json!({"function_call": {"name": "a"}}),
            "function_call",
            "send tools and tool_choice instead",
        ),
        (
            json!({"messages": continued}),
            "continue_final_message",
            "tools may be called",
        ),
    ] {
        for stream in [false, true] {
            let error = test.error(CHAT, &over(ask(json!({"stream": stream})), &fields), 400);
            assert_eq!(error["param"], param, "{error}");
            assert!(error["message"].as_str().unwrap().contains(says), "{error}");
        }
    }
    for stop in ["\n", "arguments", "look_u", "}\n</tool"] {
        let error = test.error(CHAT, &ask(json!({"stop": ["Stop.", stop]})), 400);
        assert_eq!(error["param"], "stop", "{error}");
    }
    test.json(CHAT, &ask(json!({"stop": ["Stop."], "max_tokens": 5})));
    test.json(
        CHAT,
        &ask(json!({"stop": "\n", "tool_choice": "none", "max_tokens": 5})),
    );
    // Keywords without effect are named.
    let odd = over(schema(), &json!({"x-order": 3}));
    let body = ask(json!({"tools": [function("a", &odd)], "max_tokens": 5}));
    let reply = test.post(CHAT, &body);
    let ignored = reply.header("x-sterna-ignored");
    assert_eq!(ignored, Some("tools[0].function.parameters/x-order"));
    // With "none" there is nothing in the way.
    let body = json!({"response_format": format, "tool_choice": "none", "max_tokens": 5});
    test.json(CHAT, &ask(body));
    let body = json!({"prompt": "a", "tools": tools()});
    assert_eq!(test.error("/v1/completions", &body, 400)["param"], "tools");
    // Without a syntax, calls cannot be told from text.
    let plain = start(Kind::Plain);
    let error = plain.error(CHAT, &ask(json!({})), 400);
    assert_eq!(error["param"], "tools");
    let auto = plain.error(CHAT, &ask(json!({"tool_choice": "auto"})), 400);
    assert_eq!(auto["param"], "tool_choice");
    assert_eq!(error["code"], "unsupported_parameter");
    let has_tools = |test: &Test| {
        let card = test.get("/v1/models/m").json();
        let show = test.json("/api/show", &json!({"model": "m"}));
        let lists = [&card["capabilities"], &show["capabilities"]];
        lists.map(|list| list.as_array().unwrap().contains(&json!("tools")))
    };
    assert_eq!(
        [has_tools(&test), has_tools(&plain)],
        [[true, true], [false, false]]
    );
}

#[test]
fn the_same_tokens_without_an_end_go_on() {
    // What stands between two calls begins as what ends the last one.
    let test = start(Kind::Special);
    let body = ask(
        json!({"tool_choice": "required", "logit_bias": {EOS: -100, END_OF_CALL: 1},
        "max_tokens": 120}),
    );
    let choice = answer(&test, &body);
    assert_eq!(choice["finish_reason"], "length");
    assert!(calls_or_cut(&choice["message"]).len() > 1, "{choice}");
}
