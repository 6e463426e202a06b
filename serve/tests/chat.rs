//! `/v1/chat/completions`: shapes, streams, fields and errors.

mod support;

use serde_json::{Value, json};
use support::{Test, over};

const CHAT: &str = "/v1/chat/completions";

fn hello() -> Value {
    json!({"model": "stories", "messages": [{"role": "user", "content": "Once Mia sat"}],
        "max_tokens": 12, "temperature": 0})
}

fn with(fields: Value) -> Value {
    over(hello(), &fields)
}

#[test]
fn an_answer_has_what_clients_require() {
    let test = Test::start();
    let reply = test.post(CHAT, &hello());
    assert_eq!(reply.header("content-type"), Some("application/json"));
    assert!(
        reply
            .header("x-request-id")
            .is_some_and(|id| id.len() == 24)
    );
    let body = reply.json();
    assert!(
        body["id"].as_str().unwrap().starts_with("chatcmpl-"),
        "{body}"
    );
    assert_eq!(body["object"], "chat.completion");
    assert!(body["created"].as_u64().unwrap() > 1_700_000_000);
    assert_eq!(body["model"], "stories");
    let fingerprint = body["system_fingerprint"].as_str().unwrap();
    assert!(
        fingerprint.len() == 15 && fingerprint.starts_with("st-"),
        "{fingerprint}"
    );
    let choice = &body["choices"][0];
    assert_eq!(choice["index"], 0);
    assert_eq!(choice["message"]["role"], "assistant");
    assert!(!choice["message"]["content"].as_str().unwrap().is_empty());
    assert_eq!(choice["message"]["refusal"], Value::Null);
    assert_eq!(choice["logprobs"], Value::Null);
    assert!(choice["finish_reason"] == "length" || choice["finish_reason"] == "stop");
    let usage = &body["usage"];
    let sum =
        usage["prompt_tokens"].as_u64().unwrap() + usage["completion_tokens"].as_u64().unwrap();
    assert_eq!(usage["total_tokens"], sum);
    assert_eq!(usage["prompt_tokens_details"]["cached_tokens"], 0);
    assert!(body["sterna"]["seed"].is_i64());
}

#[test]
fn a_stream_has_its_events_in_order_and_the_same_text() {
    let test = Test::start();
    let whole = test.json(CHAT, &with(json!({"n": 2, "seed": 3, "temperature": 1})));
    let body = with(json!({"n": 2, "seed": 3, "temperature": 1, "stream": true,
        "stream_options": {"include_usage": true}}));
    let events = test.events(CHAT, &body);
    let id = &events[0]["id"];
    let mut texts = [String::new(), String::new()];
    let mut ends = [Value::Null, Value::Null];
    for (i, event) in events.iter().enumerate() {
        assert_eq!(&event["id"], id);
        assert_eq!(event["object"], "chat.completion.chunk");
        let is_last = i == events.len() - 1;
        assert_eq!(event["usage"].is_null(), !is_last);
        assert!(event.as_object().unwrap().contains_key("usage"));
        if is_last {
            assert_eq!(event["choices"], json!([]));
            continue;
        }
        let choice = &event["choices"][0];
        let index = choice["index"].as_u64().unwrap() as usize;
        assert!(ends[index].is_null(), "{index} goes on after its end");
        let delta = &choice["delta"];
        match i {
            0 | 1 => assert_eq!(*delta, json!({"role": "assistant", "content": ""})),
            _ => assert!(delta.get("role").is_none()),
        }
        texts[index] += delta["content"].as_str().unwrap_or_default();
        ends[index] = choice["finish_reason"].clone();
        if !ends[index].is_null() {
            assert_eq!(*delta, json!({}));
        }
    }
    for index in 0..2 {
        let choice = &whole["choices"][index];
        assert_eq!(choice["message"]["content"], texts[index]);
        assert_eq!(choice["finish_reason"], ends[index]);
    }
    let usage = &events.last().unwrap()["usage"];
    assert_eq!(
        usage["completion_tokens"],
        whole["usage"]["completion_tokens"]
    );

    // Without being asked for, no event has counts.
    let events = test.events(CHAT, &with(json!({"stream": true})));
    for event in events {
        assert!(
            event.get("usage").is_none() && event["choices"] != json!([]),
            "{event}"
        );
    }
}

#[test]
fn a_seed_is_drawn_and_repeats_the_answer() {
    let test = Test::start();
    let first = test.json(CHAT, &with(json!({"temperature": 1.5})));
    let seed = first["sterna"]["seed"].as_i64().unwrap();
    assert!((0..1 << 53).contains(&seed));
    let again = test.json(CHAT, &with(json!({"temperature": 1.5, "seed": seed})));
    assert_eq!(again["choices"], first["choices"]);
    assert_eq!(again["sterna"]["seed"], seed);
    // The first of several answers is the one alone.
    let three = test.json(
        CHAT,
        &with(json!({"temperature": 1.5, "seed": seed, "n": 3})),
    );
    assert_eq!(three["choices"][0], first["choices"][0]);
    assert_eq!(three["choices"].as_array().unwrap().len(), 3);
    assert_ne!(
        three["choices"][1]["message"],
        three["choices"][0]["message"]
    );
    // All of the 64 bits count.
    let negative = test.json(CHAT, &with(json!({"seed": -1})));
    assert_eq!(negative["sterna"]["seed"], -1);
}

#[test]
fn log_probabilities_have_bytes_and_alternatives() {
    let test = Test::start();
    let body = with(json!({"logprobs": true, "top_logprobs": 3, "return_token_ids": true}));
    let whole = test.json(CHAT, &body);
    let choice = &whole["choices"][0];
    let content = choice["logprobs"]["content"].as_array().unwrap();
    let ids = choice["token_ids"].as_array().unwrap();
    assert!(content.len() == ids.len() || content.len() + 1 == ids.len());
    assert!(whole["prompt_token_ids"].as_array().unwrap().len() > 3);
    let mut bytes = Vec::new();
    for entry in content {
        let top = entry["top_logprobs"].as_array().unwrap();
        assert_eq!(top.len(), 3);
        // The answer is the most probable one.
        assert_eq!(top[0]["token"], entry["token"]);
        assert_eq!(top[0]["logprob"], entry["logprob"]);
        let values: Vec<f64> = top.iter().map(|t| t["logprob"].as_f64().unwrap()).collect();
        assert!(
            values.is_sorted_by(|a, b| a >= b) && values[0] <= 0.0,
            "{values:?}"
        );
        bytes.extend(
            entry["bytes"]
                .as_array()
                .unwrap()
                .iter()
                .map(|b| b.as_u64().unwrap() as u8),
        );
    }
    let text = choice["message"]["content"].as_str().unwrap();
    assert_eq!(String::from_utf8_lossy(&bytes), text);

    let mut body = body;
    body["stream"] = true.into();
    let events = test.events(CHAT, &body);
    let parts = events
        .iter()
        .flat_map(|event| event["choices"][0]["logprobs"]["content"].as_array());
    let streamed: Vec<&Value> = parts.flatten().collect();
    assert_eq!(streamed, content.iter().collect::<Vec<_>>());
    let zero = test.json(CHAT, &with(json!({"logprobs": true})));
    let content = &zero["choices"][0]["logprobs"]["content"];
    assert_eq!(content[0]["top_logprobs"], json!([]));
}

#[test]
fn stop_texts_end_an_answer_and_are_never_shown() {
    let test = Test::start();
    let plain = test.json(CHAT, &hello());
    let text = plain["choices"][0]["message"]["content"]
        .as_str()
        .unwrap()
        .to_owned();
    let word = text
        .split_whitespace()
        .nth(1)
        .unwrap_or_else(|| panic!("{text:?}"));
    let body = with(json!({"stop": [word, "never there"]}));
    let stopped = test.json(CHAT, &body);
    let choice = &stopped["choices"][0];
    assert_eq!(choice["finish_reason"], "stop");
    let shown = choice["message"]["content"].as_str().unwrap();
    assert_eq!(shown, &text[..text.find(word).unwrap()]);
    let mut body = body;
    body["stream"] = true.into();
    let events = test.events(CHAT, &body);
    let parts = events
        .iter()
        .filter_map(|event| event["choices"][0]["delta"]["content"].as_str());
    assert_eq!(parts.collect::<String>(), shown);
    let one = test.json(CHAT, &with(json!({"stop": word})));
    assert_eq!(one["choices"], stopped["choices"]);
}

#[test]
fn the_last_answer_is_continued() {
    let test = Test::start();
    let messages = json!([{"role": "user", "content": "Tell."},
        {"role": "assistant", "content": "Once Mia "}]);
    let text = |fields: Value| {
        let mut body = json!({"messages": messages});
        for (name, value) in fields.as_object().unwrap() {
            body[name] = value.clone();
        }
        test.json("/apply-template", &body)["prompt"].clone()
    };
    let start = "<|begin_of_text|>Tell.\n";
    assert_eq!(text(json!({})), format!("{start}assistant: Once Mia "));
    let ended = format!("{start}assistant: Once Mia \nassistant:");
    assert_eq!(text(json!({"continue_final_message": false})), ended);
    assert_eq!(text(json!({"add_generation_prompt": true})), ended);
    let plain = format!("{start}assistant: Once Mia \n");
    assert_eq!(text(json!({"add_generation_prompt": false})), plain);
    let answer = test.json(CHAT, &json!({"messages": messages, "max_tokens": 4}));
    assert_eq!(answer["choices"][0]["message"]["role"], "assistant");
}

#[test]
fn fields_without_effect_are_named_in_the_reply() {
    let test = Test::start();
    let body = with(json!({"user": "u", "store": true, "mine": 1, "functions": []}));
    let reply = test.post(CHAT, &body);
    assert_eq!(reply.status, 200);
    assert_eq!(
        reply.header("x-sterna-ignored"),
        Some("user,store,mine,functions")
    );
    assert_eq!(test.post(CHAT, &hello()).header("x-sterna-ignored"), None);
    let options = json!({"include_usage": true, "include_obfuscation": false, "mine": 1});
    let body = with(json!({"stream": true, "stream_options": options}));
    assert_eq!(
        test.post(CHAT, &body).header("x-sterna-ignored"),
        Some("stream_options.include_obfuscation,stream_options.mine")
    );
    let strict = Test::with(
        |settings| settings.is_strict = true,
        vec![support::served("stories", support::limits())],
    );
    let error = strict.error(CHAT, &with(json!({"user": "u", "mine": 1})), 400);
    assert_eq!(error["param"], "mine");
    assert_eq!(error["code"], "unsupported_parameter");
    assert_eq!(
        strict.error(CHAT, &body, 400)["param"],
        "stream_options.mine"
    );
    strict.json(CHAT, &with(json!({"user": "u"})));
}

#[test]
fn wrong_fields_are_refused_by_name() {
    let test = Test::start();
    for (fields, param) in [
        (json!({"temperature": -1}), "temperature"),
        (json!({"temperature": "hot"}), "temperature"),
        (json!({"top_p": 0}), "top_p"),
        (json!({"top_p": 1.5}), "top_p"),
        (json!({"top_k": -2}), "top_k"),
        (json!({"min_p": 2}), "min_p"),
        (json!({"repetition_penalty": 0}), "repetition_penalty"),
        (json!({"frequency_penalty": 3}), "frequency_penalty"),
        (json!({"presence_penalty": -2.5}), "presence_penalty"),
        (json!({"max_tokens": -1}), "max_tokens"),
        (json!({"max_tokens": 0}), "max_tokens"),
        (json!({"max_tokens": 1.5}), "max_tokens"),
        (json!({"max_tokens": 18446744073709551615u64}), "max_tokens"),
        (json!({"n": 0}), "n"),
        (json!({"n": 9}), "n"),
        (json!({"seed": 1.5}), "seed"),
        (json!({"stop": 3}), "stop"),
        (json!({"stop": [""]}), "stop"),
        (json!({"stop": vec!["x"; 17]}), "stop"),
        (json!({"stop": ["x".repeat(257)]}), "stop"),
        (json!({"stop": ["a<|end_of_text|>b"]}), "stop"),
        (json!({"stop_token_ids": [300]}), "stop_token_ids[0]"),
        (json!({"logit_bias": {"5": 101}}), "logit_bias.5"),
        (json!({"logit_bias": {"300": 1}}), "logit_bias"),
        (json!({"logit_bias": {"x": 1}}), "logit_bias"),
        (json!({"logprobs": 3}), "logprobs"),
        (
            json!({"logprobs": true, "top_logprobs": 21}),
            "top_logprobs",
        ),
        (json!({"top_logprobs": 2}), "top_logprobs"),
        (
            json!({"stream_options": {"include_usage": true}}),
            "stream_options",
        ),
        (json!({"stream": "yes"}), "stream"),
        (json!({"messages": []}), "messages"),
        (json!({"messages": null}), "messages"),
        (
            json!({"messages": [{"role": "user"}]}),
            "messages[0].content",
        ),
        (
            json!({"chat_template_kwargs": {"messages": []}}),
            "chat_template_kwargs",
        ),
        (
            json!({"tools": [{"type": "function"}]}),
            "tools[0].function",
        ),
        (
            json!({"response_format": {"type": "sound"}}),
            "response_format.type",
        ),
        (json!({"chat_template": "{{ x }}"}), "chat_template"),
        (json!({"model": 3}), "model"),
    ] {
        for stream in [false, true] {
            let mut body = with(fields.clone());
            if !fields.as_object().unwrap().contains_key("stream") && param != "stream_options" {
                body["stream"] = stream.into();
            }
            let reply = test.post(CHAT, &body);
            assert_eq!(reply.status, 400, "{fields}: {}", reply.body);
            assert_eq!(reply.error()["param"], param, "{fields}: {}", reply.body);
            assert_eq!(reply.error()["type"], "invalid_request_error");
            assert_eq!(reply.header("x-should-retry"), Some("false"));
        }
    }
    // Null is the same as nothing.
    let nulls = with(
        json!({"temperature": null, "stop": null, "n": null, "tool_choice": null,
        "tools": null, "logit_bias": null, "stream": null, "stream_options": null, "user": null}),
    );
    test.json(CHAT, &nulls);
}

#[test]
fn errors_of_models_templates_and_lengths_have_their_codes() {
    let test = Test::start();
    let error = test.error(CHAT, &with(json!({"model": "gpt-4"})), 404);
    assert_eq!(
        (&error["code"], &error["param"]),
        (&json!("model_not_found"), &json!("model"))
    );
    let tool = json!({"messages": [{"role": "tool", "content": "x"}]});
    let error = test.error(CHAT, &with(tool), 400);
    assert_eq!(error["code"], "template_error");
    assert!(
        error["message"].as_str().unwrap().contains("no tools"),
        "{error}"
    );
    let long = json!({"messages": [{"role": "user", "content": "Once Mia sat. ".repeat(40)}]});
    let tokens = test.json("/apply-template", &long)["count"]
        .as_u64()
        .unwrap();
    let error = test.error(CHAT, &with(long), 400);
    assert_eq!(error["code"], "context_length_exceeded");
    let message = error["message"].as_str().unwrap();
    assert!(
        message.contains(&format!("has {tokens} tokens")),
        "{message}"
    );
    assert!(message.contains("holds 96"), "{message}");
    // A model that may have any name.
    let any = Test::with(
        |settings| settings.any_model = true,
        vec![support::served("stories", support::limits())],
    );
    assert_eq!(
        any.json(CHAT, &with(json!({"model": "gpt-4"})))["model"],
        "stories"
    );
}

#[test]
fn bias_forbids_and_forces_tokens() {
    let test = Test::start();
    let body = json!({"return_token_ids": true, "max_tokens": 3});
    let plain = test.json(CHAT, &with(body.clone()));
    let first = plain["choices"][0]["token_ids"][0].as_u64().unwrap();
    let mut body = body;
    body["logit_bias"] = json!({first.to_string(): -100});
    let forbidden = test.json(CHAT, &with(body.clone()));
    assert_ne!(forbidden["choices"][0]["token_ids"][0], first);
    body["logit_bias"] = json!({"40": 100});
    let forced = test.json(CHAT, &with(body));
    assert_eq!(forced["choices"][0]["token_ids"], json!([40, 40, 40]));
}

#[test]
fn the_answer_fills_the_context_and_no_more() {
    let test = Test::start();
    let body = with(json!({"max_tokens": null, "ignore_eos": true}));
    let whole = test.json(CHAT, &body);
    let prompt = whole["usage"]["prompt_tokens"].as_u64().unwrap();
    assert_eq!(whole["choices"][0]["finish_reason"], "length");
    // The last token is not computed, so it needs no room.
    assert_eq!(whole["usage"]["completion_tokens"], 96 + 1 - prompt);
    let asked = test.json(
        CHAT,
        &with(json!({"max_tokens": 100_000, "ignore_eos": true})),
    );
    assert_eq!(asked["choices"], whole["choices"]);
}

#[test]
fn a_repeated_prompt_is_read_from_the_cache_with_the_same_answer() {
    let test = Test::start();
    let content = "Once Mia sat in the barn. Tom was in the park. ".repeat(2);
    let body = with(json!({"messages": [{"role": "user", "content": content}]}));
    let cold = test.post(CHAT, &body);
    assert_eq!(cold.header("x-sterna-cached-tokens"), Some("0"));
    let warm = test.post(CHAT, &body);
    let cached: u64 = warm
        .header("x-sterna-cached-tokens")
        .unwrap()
        .parse()
        .unwrap();
    let (cold, warm) = (cold.json(), warm.json());
    assert!(cached > 0);
    assert_eq!(
        warm["usage"]["prompt_tokens_details"]["cached_tokens"],
        cached
    );
    assert_eq!(warm["choices"], cold["choices"]);
    let mut body = body;
    body["cache_prompt"] = false.into();
    let unread = test.post(CHAT, &body);
    assert_eq!(unread.header("x-sterna-cached-tokens"), Some("0"));
    assert_eq!(unread.json()["choices"], cold["choices"]);
}
