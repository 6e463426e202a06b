//! `/v1/responses`: its object, its events and what it refuses.

mod support;

use serde_json::{Value, json};
use support::{Test, named_events, over};

const RESPONSES: &str = "/v1/responses";

fn hello() -> Value {
    json!({"model": "stories", "input": "Once Mia sat", "max_output_tokens": 12, "temperature": 0})
}

fn with(fields: Value) -> Value {
    over(hello(), &fields)
}

fn text(response: &Value) -> &str {
    response["output"][0]["content"][0]["text"]
        .as_str()
        .unwrap()
}

/// The text of chat for these messages.
fn chat(test: &Test, messages: Value) -> String {
    let body = json!({"messages": messages, "max_tokens": 12, "temperature": 0});
    let answer = test.json("/v1/chat/completions", &body);
    answer["choices"][0]["message"]["content"]
        .as_str()
        .unwrap()
        .to_owned()
}

#[test]
fn an_answer_is_that_of_chat() {
    let test = Test::start();
    let response = test.json(
        RESPONSES,
        &with(json!({"metadata": {"a": "b"}, "store": true})),
    );
    let question = json!([{"role": "user", "content": "Once Mia sat"}]);
    assert_eq!(text(&response), chat(&test, question));
    assert!(response["id"].as_str().unwrap().starts_with("resp_"));
    assert_eq!(response["object"], "response");
    assert_eq!(response["store"], false);
    assert_eq!(response["previous_response_id"], Value::Null);
    assert_eq!(response["metadata"], json!({"a": "b"}));
    assert_eq!(response["temperature"], 0.0);
    assert_eq!(response["max_output_tokens"], 12);
    // It ended because there was no room for more.
    assert_eq!(response["status"], "incomplete");
    assert_eq!(
        response["incomplete_details"],
        json!({"reason": "max_output_tokens"})
    );
    assert_eq!(response["output"].as_array().unwrap().len(), 1);
    let usage = &response["usage"];
    let sum = usage["input_tokens"].as_u64().unwrap() + usage["output_tokens"].as_u64().unwrap();
    assert_eq!(usage["total_tokens"], sum);
    let seed = response["sterna"]["seed"].as_i64().unwrap();
    let again = test.json(RESPONSES, &with(json!({"seed": seed})));
    assert_eq!(text(&again), text(&response));
}

#[test]
fn input_and_instructions_are_a_conversation() {
    let test = Test::start();
    let input = json!([
        {"role": "developer", "content": "Be brief."},
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Once"}]},
        {"type": "message", "id": "msg_1", "status": "completed", "role": "assistant",
            "content": [{"type": "output_text", "text": "Mia sat", "annotations": []}]},
        {"role": "user", "content": "down"},
    ]);
    let response = test.json(
        RESPONSES,
        &with(json!({"input": input, "instructions": "Be kind."})),
    );
    let messages = json!([
        {"role": "system", "content": "Be kind."},
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Once"},
        {"role": "assistant", "content": "Mia sat"},
        {"role": "user", "content": "down"},
    ]);
    assert_eq!(text(&response), chat(&test, messages));
    assert_eq!(response["instructions"], "Be kind.");
    let count = test.json(
        "/v1/responses/input_tokens",
        &json!({"input": "Once Mia sat"}),
    );
    assert_eq!(count["object"], "response.input_tokens");
    let usage = test.json(RESPONSES, &hello())["usage"].clone();
    assert_eq!(count["input_tokens"], usage["input_tokens"]);
}

#[test]
fn a_stream_has_its_events_in_order() {
    let test = Test::start();
    let whole = test.json(RESPONSES, &hello());
    let reply = test.post(RESPONSES, &with(json!({"stream": true})));
    assert_eq!(reply.header("content-type"), Some("text/event-stream"));
    let events = named_events(&reply.body);
    for (number, (name, event)) in events.iter().enumerate() {
        assert_eq!(event["type"], *name);
        assert_eq!(event["sequence_number"], number);
    }
    let names: Vec<&str> = events.iter().map(|(name, _)| name.as_str()).collect();
    let (first, rest) = names.split_at(4);
    let created = [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
    ];
    assert_eq!(first, created);
    let (deltas, last) = rest.split_at(rest.len() - 4);
    assert!(!deltas.is_empty());
    assert!(
        deltas
            .iter()
            .all(|name| *name == "response.output_text.delta")
    );
    let done = [
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.incomplete",
    ];
    assert_eq!(last, done);

    let deltas = events
        .iter()
        .filter_map(|(_, event)| event["delta"].as_str());
    assert_eq!(deltas.collect::<String>(), text(&whole));
    let [text_done, part_done, item_done, last] = &events[events.len() - 4..] else {
        unreachable!()
    };
    assert_eq!(text_done.1["text"], text(&whole));
    assert_eq!(part_done.1["part"], whole["output"][0]["content"][0]);
    let response = &last.1["response"];
    assert_eq!(item_done.1["item"], response["output"][0]);
    assert_eq!(text(response), text(&whole));
    let id = &events[0].1["response"]["id"];
    assert_eq!(response["id"], *id);
    let item = &response["output"][0]["id"];
    assert!(
        events[3..events.len() - 2]
            .iter()
            .all(|(_, event)| event["item_id"] == *item)
    );
}

#[test]
fn an_answer_that_ends_by_itself_is_completed() {
    let test = Test::start();
    let whole = test.json(RESPONSES, &hello());
    let word = text(&whole).split_whitespace().nth(1).unwrap().to_owned();
    let response = test.json(RESPONSES, &with(json!({"stop": word})));
    assert_eq!(response["status"], "completed");
    assert_eq!(response["incomplete_details"], Value::Null);
    assert!(response["completed_at"].is_u64());
    assert!(!text(&response).contains(&word));
    let events = named_events(
        &test
            .post(RESPONSES, &with(json!({"stop": word, "stream": true})))
            .body,
    );
    assert_eq!(events.last().unwrap().0, "response.completed");
}

#[test]
fn scores_of_tokens_are_those_of_chat() {
    let test = Test::start();
    let body = json!({"messages": [{"role": "user", "content": "Once Mia sat"}], "max_tokens": 12,
        "temperature": 0, "logprobs": true, "top_logprobs": 2});
    let chat = test.json("/v1/chat/completions", &body);
    let fields = json!({"include": ["message.output_text.logprobs"], "top_logprobs": 2});
    let response = test.json(RESPONSES, &with(fields));
    let logprobs = &response["output"][0]["content"][0]["logprobs"];
    assert_eq!(*logprobs, chat["choices"][0]["logprobs"]["content"]);
    let plain = test.json(RESPONSES, &hello());
    assert_eq!(plain["output"][0]["content"][0]["logprobs"], json!([]));
}

#[test]
fn what_is_not_stored_or_done_is_refused_by_name() {
    let test = Test::start();
    let image = json!([{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}]);
    let call = json!([{"type": "item_reference", "id": "msg_1"}]);
    for (fields, param) in [
        (
            json!({"previous_response_id": "resp_1"}),
            "previous_response_id",
        ),
        (json!({"conversation": "conv_1"}), "conversation"),
        (json!({"background": true}), "background"),
        (json!({"prompt": {"id": "pmpt_1"}}), "prompt"),
        (json!({"tools": [{"type": "web_search"}]}), "tools[0].type"),
        (json!({"input": image}), "input[0].content[0]"),
        (json!({"input": call}), "input[0]"),
    ] {
        let error = test.error(RESPONSES, &with(fields), 400);
        assert_eq!(error["code"], "unsupported_parameter");
        assert_eq!(error["param"], param);
    }
    for (fields, param) in [
        (json!({"input": null}), "input"),
        (json!({"input": []}), "input"),
        (json!({"input": 3}), "input"),
        (
            json!({"input": [{"role": "tool", "content": "x"}]}),
            "input[0].role",
        ),
        (
            json!({"input": [{"role": "user", "content": 3}]}),
            "input[0].content",
        ),
        (json!({"input": [{"type": 3}]}), "input[0].type"),
        (json!({"instructions": 3}), "instructions"),
        (json!({"max_output_tokens": 0}), "max_output_tokens"),
        (json!({"max_output_tokens": -1}), "max_output_tokens"),
        (json!({"include": ["everything"]}), "include"),
        (json!({"reasoning": {"effort": 3}}), "reasoning.effort"),
        (json!({"top_logprobs": 21}), "top_logprobs"),
        (json!({"metadata": 3}), "metadata"),
    ] {
        let error = test.error(RESPONSES, &with(fields), 400);
        assert_eq!(error["code"], "invalid_value");
        assert_eq!(error["param"], param);
    }
    let error = test.error(
        RESPONSES,
        &with(json!({"input": "Once ".repeat(9000)})),
        400,
    );
    assert_eq!(error["code"], "context_length_exceeded");
    assert_eq!(error["param"], "input");
}
