//! Calls of tools in the forms of Anthropic, of responses and of ollama.
#![cfg(feature = "grammar")]

#[path = "../../runtime/tests/random_model/mod.rs"]
mod random_model;
mod support;
#[path = "../../grammar/tests/support/mod.rs"]
mod tokenizers;
mod tool_models;

use serde_json::{Value, json};
use support::{named_events, over};
use tool_models::{CALL, EOS, Kind, function, schema, start};

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
    let biased = json!({"logit_bias": {CALL: 100}, "seed": 1, "temperature": 30,
        "tool_choice": choice});
    for (body, kinds) in [
        (forced, vec!["tool_use"]),
        (ask(biased), vec!["text", "tool_use"]),
    ] {
        let whole = test.json("/v1/messages", &body);
        let found: Vec<&Value> = whole["content"]
            .as_array()
            .unwrap()
            .iter()
            .map(|block| &block["type"])
            .collect();
        assert_eq!(found, kinds, "{whole}");
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
    let any = json!({"tools": [], "tool_choice": {"type": "any"}});
    let error = test.post("/v1/messages", &ask(any));
    assert!(
        error.status == 400 && !error.body.contains("required"),
        "{}",
        error.body
    );
    let counted = test.json("/v1/messages/count_tokens", &ask(json!({})));
    let mut failed = ask(json!({}));
    failed["messages"][2]["content"][0]["is_error"] = true.into();
    let failed = test.json("/v1/messages/count_tokens", &failed);
    assert!(failed["input_tokens"].as_u64() > counted["input_tokens"].as_u64());
    let without = ask(json!({"tool_choice": {"type": "none"}}));
    let without = test.json("/v1/messages/count_tokens", &without);
    assert!(counted["input_tokens"].as_u64() > without["input_tokens"].as_u64());
}

/// A schema of objects that are nested deeper than readers of JSON go.
fn deep() -> Value {
    let mut defs = json!({"a130": {"type": "boolean"}});
    for depth in 0..130 {
        let next = format!("#/$defs/a{}", depth + 1);
        defs[format!("a{depth}")] =
            json!({"type": "array", "items": {"$ref": next}, "minItems": 1, "maxItems": 1});
    }
    json!({"type": "object", "properties": {"x": {"$ref": "#/$defs/a0"}}, "required": ["x"],
        "additionalProperties": false, "$defs": defs})
}

#[test]
fn arguments_that_cannot_be_read_are_an_error() {
    let test = start(Kind::Special);
    let body = json!({"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 400,
        "temperature": 1, "seed": 1, "tools": [{"name": "look", "input_schema": deep()}],
        "tool_choice": {"type": "tool", "name": "look"}});
    let says = "the arguments of the call of look cannot be read";
    let reply = test.post("/v1/messages", &body);
    assert!(
        reply.status == 500 && reply.body.contains(says),
        "{}",
        reply.body
    );
    let reply = test.post("/v1/messages", &over(body, &json!({"stream": true})));
    let (name, event) = named_events(&reply.body).pop().unwrap();
    assert!(
        name == "error" && event.to_string().contains(says),
        "{event}"
    );
    assert!(!reply.body.contains("message_delta"), "{}", reply.body);
}

#[test]
fn an_empty_answer_has_an_empty_block() {
    let test = start(Kind::Special);
    let body = json!({"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 9,
        "tools": [{"name": "look", "input_schema": schema()}], "logit_bias": {EOS: 100}});
    let whole = test.json("/v1/messages", &body);
    assert_eq!(whole["content"], json!([{"type": "text", "text": ""}]));
    let reply = test.post("/v1/messages", &over(body, &json!({"stream": true})));
    let names = named_events(&reply.body).into_iter().map(|(name, _)| name);
    let names: Vec<String> = names.filter(|name| name.starts_with("content")).collect();
    assert_eq!(names, ["content_block_start", "content_block_stop"]);
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
    let mut mixed = 0;
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
        let kinds: Vec<&str> = items
            .iter()
            .map(|item| item["type"].as_str().unwrap())
            .collect();
        mixed += usize::from(kinds.starts_with(&["message", "function_call"]));
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
    assert!(mixed > 0);
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
