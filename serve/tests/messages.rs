//! `/v1/messages`: Anthropic's API, its streams and its errors.

mod support;

use serde_json::{Value, json};
use support::{Test, named_events, over};

const MESSAGES: &str = "/v1/messages";

fn hello() -> Value {
    json!({"model": "stories", "messages": [{"role": "user", "content": "Once Mia sat"}],
        "max_tokens": 12, "temperature": 0})
}

fn with(fields: Value) -> Value {
    over(hello(), &fields)
}

/// The answer of chat to the same question.
fn chat(test: &Test, fields: Value) -> Value {
    test.json("/v1/chat/completions", &with(fields))
}

#[test]
fn an_answer_is_that_of_chat() {
    let test = Test::start();
    let message = test.json(MESSAGES, &hello());
    let chat = chat(&test, json!({}));
    assert!(message["id"].as_str().unwrap().starts_with("msg_"));
    assert_eq!(message["type"], "message");
    assert_eq!(message["role"], "assistant");
    assert_eq!(message["model"], "stories");
    let text = &chat["choices"][0]["message"]["content"];
    assert_eq!(message["content"], json!([{"type": "text", "text": text}]));
    assert_eq!(message["stop_reason"], "max_tokens");
    assert_eq!(message["stop_sequence"], Value::Null);
    let fingerprint = &message["sterna"]["system_fingerprint"];
    assert_eq!(*fingerprint, chat["system_fingerprint"]);
    let usage = &message["usage"];
    assert_eq!(usage["output_tokens"], chat["usage"]["completion_tokens"]);
    let parts = [
        "input_tokens",
        "cache_read_input_tokens",
        "cache_creation_input_tokens",
    ];
    let input: u64 = parts.iter().map(|part| usage[part].as_u64().unwrap()).sum();
    assert_eq!(input, chat["usage"]["prompt_tokens"].as_u64().unwrap());
}

#[test]
fn the_system_prompt_is_a_string_or_blocks() {
    let test = Test::start();
    let question = json!({"role": "user", "content": "Once Mia sat"});
    let asked = |system: Value| test.json(MESSAGES, &with(json!({"system": system})));
    let said = |text: &str| {
        let messages = json!([{"role": "system", "content": text}, question]);
        let chat = chat(&test, json!({"messages": messages}));
        chat["choices"][0]["message"]["content"].clone()
    };
    let text = asked(json!("Be brief."))["content"][0]["text"].clone();
    assert_eq!(text, said("Be brief."));
    let blocks = json!([{"type": "text", "text": "Be brief.",
        "cache_control": {"type": "ephemeral"}}, {"type": "text", "text": "Be kind."}]);
    assert_eq!(
        asked(blocks)["content"][0]["text"],
        said("Be brief.\nBe kind.")
    );
    let none = asked(json!(""));
    assert_eq!(none["content"], test.json(MESSAGES, &hello())["content"]);
}

#[test]
fn a_stream_has_its_events_in_order_and_the_same_text() {
    let test = Test::start();
    let whole = test.json(MESSAGES, &hello());
    let reply = test.post(MESSAGES, &with(json!({"stream": true})));
    assert_eq!(reply.header("content-type"), Some("text/event-stream"));
    let events = named_events(&reply.body);
    let names: Vec<&str> = events.iter().map(|(name, _)| name.as_str()).collect();
    let (first, rest) = names.split_at(3);
    assert_eq!(first, ["message_start", "content_block_start", "ping"]);
    let (deltas, last) = rest.split_at(rest.len() - 3);
    assert!(!deltas.is_empty() && deltas.iter().all(|name| *name == "content_block_delta"));
    assert_eq!(
        last,
        ["content_block_stop", "message_delta", "message_stop"]
    );
    let start = &events[0].1["message"];
    assert_eq!(start["content"], json!([]));
    assert_eq!(start["stop_reason"], Value::Null);
    assert_eq!(start["usage"]["output_tokens"], 0);
    let texts = events
        .iter()
        .map(|(_, event)| event["delta"]["text"].as_str());
    let text: String = texts.flatten().collect();
    assert_eq!(whole["content"][0]["text"], text);
    let (_, delta) = &events[events.len() - 2];
    assert_eq!(delta["delta"]["stop_reason"], whole["stop_reason"]);
    assert_eq!(
        delta["usage"]["output_tokens"],
        whole["usage"]["output_tokens"]
    );
}

#[test]
fn the_stop_sequence_that_ended_an_answer_is_named() {
    let test = Test::start();
    let text = test.json(MESSAGES, &hello())["content"][0]["text"].clone();
    let text = text.as_str().unwrap();
    let words: Vec<&str> = text.split_whitespace().collect();
    let (second, third) = (words[1], words[2]);
    let stops = json!({"stop_sequences": ["never there", third, second]});
    for stream in [false, true] {
        let mut body = with(stops.clone());
        body["stream"] = stream.into();
        let end = match stream {
            false => test.json(MESSAGES, &body),
            true => {
                let events = named_events(&test.post(MESSAGES, &body).body);
                events[events.len() - 2].1["delta"].clone()
            }
        };
        assert_eq!(end["stop_reason"], "stop_sequence");
        assert_eq!(end["stop_sequence"], second);
    }
}

#[test]
fn a_last_message_of_the_assistant_is_continued() {
    let test = Test::start();
    let messages = json!([{"role": "user", "content": "Once"},
        {"role": "assistant", "content": "Mia sat"}]);
    let message = test.json(MESSAGES, &with(json!({"messages": messages})));
    let chat = chat(&test, json!({"messages": messages}));
    assert_eq!(
        message["content"][0]["text"],
        chat["choices"][0]["message"]["content"]
    );
}

#[test]
fn a_seed_is_returned_and_repeats_the_answer() {
    let test = Test::start();
    let first = test.json(MESSAGES, &with(json!({"temperature": 1.5})));
    let seed = first["sterna"]["seed"].as_i64().unwrap();
    let again = test.json(MESSAGES, &with(json!({"temperature": 1.5, "seed": seed})));
    assert_eq!(first["content"], again["content"]);
}

#[test]
fn tokens_are_counted_without_an_answer() {
    let test = Test::start();
    let count = |body: &Value| test.json("/v1/messages/count_tokens", body);
    let chat = chat(&test, json!({}));
    let mut body = hello();
    body.as_object_mut().unwrap().remove("max_tokens");
    assert_eq!(
        count(&body),
        json!({"input_tokens": chat["usage"]["prompt_tokens"]})
    );
    // Also those of a conversation that does not fit.
    let long = "Once Mia sat. ".repeat(300);
    let body = json!({"messages": [{"role": "user", "content": long}]});
    assert!(count(&body)["input_tokens"].as_u64().unwrap() > 1000);
}

#[test]
fn errors_have_anthropics_shape() {
    let test = Test::start();
    let message = json!([{"role": "king", "content": "x"}]);
    let image = json!([{"role": "user", "content": [{"type": "image", "source": {}}]}]);
    for (fields, says) in [
        (json!({"max_tokens": null}), "max_tokens is missing"),
        (json!({"max_tokens": 0}), "max_tokens is 0"),
        (json!({"messages": []}), "messages is []"),
        (json!({"messages": message}), "messages[0].role is \"king\""),
        (
            json!({"messages": image}),
            "messages[0].content[0] is of type image",
        ),
        (json!({"system": 3}), "system is 3"),
        (json!({"system": [{"type": "image"}]}), "system.content[0]"),
        (json!({"stop_sequences": "x"}), "stop_sequences is \"x\""),
        (json!({"stop_sequences": [""]}), "stop_sequences is \"\""),
        (json!({"temperature": "hot"}), "temperature is \"hot\""),
        (
            json!({"tools": [{"name": "f"}]}),
            "tools leaves it to the model",
        ),
        (
            json!({"thinking": {"type": "enabled", "budget_tokens": 1024}}),
            "thinking is not",
        ),
        (
            json!({"output_config": {"format": {"type": "json_schema"}}}),
            "output_config.format.json_schema.schema is absent",
        ),
        (json!({"stream": 1}), "stream is 1"),
    ] {
        let reply = test.post(MESSAGES, &with(fields.clone()));
        let error = anthropic(&reply, 400, "invalid_request_error");
        assert!(error.starts_with(says), "{fields}: {error}");
    }
    let reply = test.post(MESSAGES, &with(json!({"model": "other"})));
    anthropic(&reply, 404, "not_found_error");
    anthropic(&test.get(MESSAGES), 405, "invalid_request_error");
    let reply = test.request("POST", MESSAGES, &["content-type: text/plain"], "{}");
    anthropic(&reply, 415, "invalid_request_error");
    let reply = test.request("GET", MESSAGES, &["host: evil.example"], "");
    anthropic(&reply, 403, "permission_error");
    let none = json!({"tools": [], "tool_choice": {"type": "auto"}, "metadata": {"user_id": "u"},
        "thinking": {"type": "disabled"}});
    let reply = test.post(MESSAGES, &with(none));
    assert_eq!(reply.status, 200, "{}", reply.body);
    assert_eq!(reply.header("x-sterna-ignored"), Some("metadata"));
}

/// The message of an error in the one form that all errors of this API have.
fn anthropic(reply: &support::Reply, status: u16, kind: &str) -> String {
    assert_eq!(reply.status, status, "{}", reply.body);
    let error = reply.json();
    let message = error["error"]["message"].as_str().unwrap();
    let expected = json!({"type": "error", "error": {"type": kind, "message": message}});
    assert_eq!(error, expected);
    message.to_owned()
}

#[test]
fn a_key_is_taken_from_its_header() {
    let keys = sterna_serve::http::Keys::parse("a-long-key").unwrap();
    let models = vec![support::served("stories", support::limits())];
    let test = Test::with(|settings| settings.keys = keys, models);
    let json = "content-type: application/json";
    let post = |headers: &[&str]| test.request("POST", MESSAGES, headers, &hello().to_string());
    assert_eq!(post(&[json, "x-api-key: a-long-key"]).status, 200);
    anthropic(
        &post(&[json, "x-api-key: another-key"]),
        401,
        "authentication_error",
    );
    anthropic(&post(&[json]), 401, "authentication_error");
}
