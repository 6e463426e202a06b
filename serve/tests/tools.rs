//! Calls of tools on all routes of conversations, with models of random weights: nothing but the
//! rule makes a call valid.
#![cfg(feature = "grammar")]

#[path = "../../runtime/tests/random_model/mod.rs"]
mod random_model;
mod support;
#[path = "../../grammar/tests/support/mod.rs"]
mod tokenizers;
mod tool_models;

use serde_json::{Value, json};
use support::{Test, limits, named_events, over, served_as};
use tool_models::{CALL, END_OF_CALL, EOS, Kind, PYTHON, model};

const CHAT: &str = "/v1/chat/completions";

fn start(kind: Kind) -> Test {
    let limits = sterna_serve::engine::Limits {
        pages: 256,
        ..limits()
    };
    Test::with(|_| {}, vec![served_as("m", model(kind), limits)])
}

fn function(name: &str, parameters: &Value) -> Value {
    json!({"type": "function", "function": {"name": name, "description": "A tool.",
        "parameters": parameters}})
}

/// An object of a few tokens.
fn schema() -> Value {
    json!({"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"],
        "additionalProperties": false})
}

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
        let bias = |value: f64| json!({"logit_bias": {first: value}, "tools": tools, "parallel_tool_calls": false});
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
    let call = "assistant: {\"name\": \"look\", \"arguments\": {\"ok\":true}}</s>\ntool: red\n";
    assert!(plain.contains(call), "{plain}");
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
fn anthropic_has_blocks() {
    let test = start(Kind::Special);
    let tool = json!({"name": "look", "description": "A tool.", "input_schema": schema()});
    let call = json!({"type": "tool_use", "id": "toolu_1", "name": "look", "input": {"ok": true}});
    let result = json!({"type": "tool_result", "tool_use_id": "toolu_1",
        "content": [{"type": "text", "text": "red"}]});
    let messages = json!([
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": [{"type": "text", "text": "See."}, call]},
        {"role": "user", "content": [result, {"type": "text", "text": "Go on."}]},
    ]);
    let body = json!({"messages": messages, "tools": [tool], "max_tokens": 300, "temperature": 1,
        "seed": 3});
    let ask = |fields: Value| over(body.clone(), &fields);
    let forced = ask(json!({"tool_choice": {"type": "tool", "name": "look"}}));
    let reply = test.json("/v1/messages", &forced);
    assert_eq!(reply["stop_reason"], "tool_use", "{reply}");
    let block = &reply["content"][0];
    assert_eq!(block["type"], "tool_use");
    assert!(block["id"].as_str().unwrap().starts_with("toolu_"));
    assert!(
        block["name"] == "look" && block["input"]["ok"].is_boolean(),
        "{block}"
    );
    // The stream has the same blocks, here after some text.
    let choice = json!({"type": "auto", "disable_parallel_tool_use": true});
    let biased = json!({"logit_bias": {CALL: 100}, "seed": 1, "temperature": 30, "stop_sequences": ["zzzz"],
        "tool_choice": choice});
    for body in [forced, ask(biased)] {
        let whole = test.json("/v1/messages", &body);
        let reply = test.post("/v1/messages", &over(body, &json!({"stream": true})));
        assert_eq!(reply.status, 200, "{}", reply.body);
        let (mut blocks, mut json) = (Vec::new(), String::new());
        for (name, event) in named_events(&reply.body) {
            match name.as_str() {
                "content_block_start" => {
                    assert_eq!(event["index"], blocks.len());
                    blocks.push(event["content_block"].clone());
                }
                "content_block_delta" => {
                    assert_eq!(event["index"], blocks.len() - 1);
                    let last = blocks.last_mut().unwrap();
                    match event["delta"]["text"].as_str() {
                        Some(text) => {
                            last["text"] = (last["text"].as_str().unwrap().to_owned() + text).into()
                        }
                        None => json += event["delta"]["partial_json"].as_str().unwrap(),
                    }
                }
                "content_block_stop" if !json.is_empty() => {
                    let input = serde_json::from_str(&std::mem::take(&mut json)).unwrap();
                    blocks.last_mut().unwrap()["input"] = input;
                }
                "message_delta" => {
                    assert_eq!(event["delta"]["stop_reason"], whole["stop_reason"]);
                }
                _ => {}
            }
        }
        assert_eq!(Value::Array(blocks), whole["content"]);
    }
    for (fields, says) in [
        (
            json!({"tool_choice": {"type": "tool", "name": "x"}}),
            "tool_choice.name is \"x\"",
        ),
        (
            json!({"tool_choice": {"type": "all"}}),
            "tool_choice.type is \"all\"",
        ),
        (
            json!({"tools": [{"name": "a b"}]}),
            "tools[0].name is \"a b\"",
        ),
        (
            json!({"tools": [{"name": "a", "input_schema": {"nullable": true}}]}),
            "tools[0].input_schema: ",
        ),
        (
            json!({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}),
            "tools[0].type is \"web_search_20250305\"",
        ),
    ] {
        let reply = test.post("/v1/messages", &ask(fields));
        assert_eq!(reply.status, 400);
        let message = reply.json()["error"]["message"].clone();
        assert!(message.as_str().unwrap().starts_with(says), "{message}");
    }
    let counted = test.json("/v1/messages/count_tokens", &ask(json!({})));
    let without = ask(json!({"tool_choice": {"type": "none"}}));
    let without = test.json("/v1/messages/count_tokens", &without);
    assert!(counted["input_tokens"].as_u64() > without["input_tokens"].as_u64());
}

#[test]
fn responses_have_items() {
    let test = start(Kind::Tagged);
    let tool = json!({"type": "function", "name": "look", "parameters": schema(), "strict": true});
    let input = json!([
        {"role": "user", "content": "Hi"},
        {"type": "function_call", "call_id": "call_1", "name": "look",
            "arguments": "{\"ok\": true}"},
        {"type": "function_call_output", "call_id": "call_1", "output": "red"},
    ]);
    let body = json!({"input": input, "tools": [tool], "max_output_tokens": 300, "temperature": 1,
        "seed": 3});
    let ask = |fields: Value| over(body.clone(), &fields);
    let forced = ask(json!({"tool_choice": {"type": "function", "name": "look"}}));
    let reply = test.json("/v1/responses", &forced);
    assert_eq!(reply["status"], "completed", "{reply}");
    assert_eq!(reply["tools"], json!([tool]));
    let item = &reply["output"][0];
    assert!(
        item["type"] == "function_call" && item["name"] == "look",
        "{item}"
    );
    assert!(item["call_id"].as_str().unwrap().starts_with("call_"));
    let arguments: Value = serde_json::from_str(item["arguments"].as_str().unwrap()).unwrap();
    assert!(arguments["ok"].is_boolean());
    for (seed, fields) in [
        (3, json!({"tool_choice": "required"})),
        (1, json!({"logit_bias": {"261": 100}, "temperature": 30})),
        (2, json!({"logit_bias": {"261": 100}, "temperature": 30})),
        (
            4,
            json!({"logit_bias": {"261": -100}, "max_output_tokens": 20}),
        ),
    ] {
        let body = ask(over(fields, &json!({"seed": seed})));
        let mut whole = test.json("/v1/responses", &body);
        let reply = test.post("/v1/responses", &over(body, &json!({"stream": true})));
        let events = named_events(&reply.body);
        let mut items: Vec<Value> = Vec::new();
        let mut arguments = String::new();
        for (index, (name, event)) in events.iter().enumerate() {
            assert_eq!(event["sequence_number"], index);
            match name.as_str() {
                "response.output_item.added" => assert_eq!(event["output_index"], items.len()),
                "response.output_item.done" => items.push(event["item"].clone()),
                "response.function_call_arguments.delta" => {
                    assert_eq!(event["output_index"], items.len());
                    arguments += event["delta"].as_str().unwrap();
                }
                "response.function_call_arguments.done" => {
                    assert_eq!(event["arguments"], std::mem::take(&mut arguments));
                }
                _ => {}
            }
        }
        // Ids of messages are drawn.
        for item in items
            .iter_mut()
            .chain(whole["output"].as_array_mut().unwrap())
        {
            if item["type"] == "message" {
                item["id"] = "".into();
            }
        }
        assert_eq!(Value::Array(items), whole["output"]);
    }
    for (fields, param) in [
        (json!({"tools": [{"type": "web_search"}]}), "tools[0].type"),
        (
            json!({"tools": [{"type": "function", "name": ""}]}),
            "tools[0].name",
        ),
        (
            json!({"tools": [{"type": "function", "name": "a", "parameters": {"type": "array"}}]}),
            "tools[0].parameters.type",
        ),
        (
            json!({"tool_choice": {"type": "function", "name": "x"}}),
            "tool_choice.name",
        ),
        (
            json!({"input": [{"type": "function_call", "call_id": "1", "name": "a",
                "arguments": "{"}]}),
            "input[0].arguments",
        ),
        (
            json!({"include": ["message.output_text.logprobs"]}),
            "include",
        ),
    ] {
        let error = test.error("/v1/responses", &ask(fields), 400);
        assert_eq!(error["param"], param, "{error}");
    }
}

#[test]
fn ollama_has_objects() {
    let test = start(Kind::Special);
    let call = json!({"function": {"name": "look", "arguments": {"ok": true}}});
    let messages = json!([
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "tool_name": "look", "content": "red"},
    ]);
    let tools = json!([function("look", &schema())]);
    let biased = |bias: f64| {
        json!({"messages": messages, "tools": tools, "logit_bias": {CALL: bias},
            "options": {"temperature": 1, "seed": 3, "num_predict": 200}})
    };
    // The route has no bias, so seeds are tried until the model calls.
    let mut found = 0;
    for seed in 0..40 {
        let mut body = biased(0.0);
        body.as_object_mut().unwrap().shift_remove("logit_bias");
        body["options"]["seed"] = seed.into();
        let whole = test.json("/api/chat", &over(body.clone(), &json!({"stream": false})));
        let lines = test.post("/api/chat", &body).body;
        let (mut content, mut list) = (String::new(), Vec::new());
        for line in lines.lines() {
            let line: Value = serde_json::from_str(line).unwrap();
            content += line["message"]["content"].as_str().unwrap();
            list.extend(
                line["message"]["tool_calls"]
                    .as_array()
                    .cloned()
                    .unwrap_or_default(),
            );
        }
        let message = &whole["message"];
        assert_eq!(message["content"], content);
        let expected = message["tool_calls"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        assert_eq!(list, expected);
        for (index, call) in list.iter().enumerate() {
            assert_eq!(call["function"]["index"], index);
            assert_eq!(call["function"]["name"], "look");
            assert!(call["function"]["arguments"]["ok"].is_boolean(), "{call}");
            found += 1;
        }
    }
    assert!(found > 0);
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
