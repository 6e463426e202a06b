//! Ollama's API: what it tells about models, its answers and its errors.

mod support;

use serde_json::{Value, json};
use support::{Reply, Test, over};

fn hello() -> Value {
    json!({"model": "stories:latest", "messages": [{"role": "user", "content": "Once Mia sat"}],
        "options": {"num_predict": 12, "temperature": 0}, "stream": false})
}

fn with(body: Value, fields: Value) -> Value {
    over(body, &fields)
}

/// The answer of chat to the same question.
fn chat(test: &Test) -> Value {
    let body = json!({"messages": [{"role": "user", "content": "Once Mia sat"}], "max_tokens": 12,
        "temperature": 0, "logprobs": true, "top_logprobs": 1});
    test.json("/v1/chat/completions", &body)
}

fn lines(reply: &Reply) -> Vec<Value> {
    assert_eq!(reply.status, 200, "{}", reply.body);
    assert_eq!(reply.header("content-type"), Some("application/x-ndjson"));
    assert!(reply.body.ends_with('\n'));
    let lines = reply.body.lines();
    lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[test]
fn models_are_listed_and_shown() {
    let test = Test::start();
    let version = test.get("/api/version").json();
    let numbers = version["version"].as_str().unwrap().split('.');
    let numbers: Vec<u32> = numbers.map(|part| part.parse().unwrap()).collect();
    // VS Code wants 0.6.4 at least.
    assert!(numbers.len() == 3 && numbers >= vec![0, 6, 4], "{version}");
    let models = test.get("/v1/models").json();
    let tags = test.get("/api/tags").json();
    let tag = &tags["models"][0];
    assert_eq!(tag["name"], "stories");
    assert_eq!(tag["size"], models["data"][0]["meta"]["size"]);
    assert_eq!(tag["digest"].as_str().unwrap().len(), 64);
    let ps = test.get("/api/ps").json();
    assert_eq!(ps["models"][0]["digest"], tag["digest"]);
    assert_eq!(
        ps["models"][0]["context_length"],
        models["data"][0]["max_model_len"]
    );
    for name in ["model", "name"] {
        let show = test.json("/api/show", &json!({name: "stories"}));
        assert_eq!(show["capabilities"], json!(["completion"]));
        let info = &show["model_info"];
        let family = info["general.architecture"].as_str().unwrap();
        let context = &info[format!("{family}.context_length")];
        assert_eq!(*context, models["data"][0]["max_model_len"]);
        assert_eq!(
            info["general.parameter_count"],
            models["data"][0]["meta"]["n_params"]
        );
        assert_eq!(show["details"], tag["details"]);
        let reply = test.post("/api/show", &json!({name: "other"}));
        error(&reply, 404, "other");
    }
}

/// An error in the one form that all errors of this API have.
fn error(reply: &Reply, status: u16, says: &str) {
    assert_eq!(reply.status, status, "{}", reply.body);
    let error = reply.json();
    let message = error["error"].as_str().unwrap_or_else(|| panic!("{error}"));
    assert!(message.contains(says), "{message}");
    assert_eq!(error, json!({"error": message}));
}

#[test]
fn answers_are_those_of_chat() {
    let test = Test::start();
    let chat = chat(&test);
    let choice = &chat["choices"][0];
    let answer = test.json("/api/chat", &hello());
    assert_eq!(answer["model"], "stories");
    assert_eq!(answer["message"]["role"], "assistant");
    assert_eq!(answer["message"]["content"], choice["message"]["content"]);
    assert_eq!(answer["done"], true);
    assert_eq!(answer["done_reason"], "length");
    assert_eq!(answer["prompt_eval_count"], chat["usage"]["prompt_tokens"]);
    assert_eq!(answer["eval_count"], chat["usage"]["completion_tokens"]);
    let nanos = |name: &str| answer[name].as_u64().unwrap();
    let parts = nanos("prompt_eval_duration") + nanos("eval_duration");
    assert!(parts > 0 && parts == nanos("total_duration"));
    assert!(answer.get("logprobs").is_none());
    let scored = json!({"logprobs": true, "top_logprobs": 1});
    let scored = test.json("/api/chat", &with(hello(), scored));
    assert_eq!(scored["logprobs"], choice["logprobs"]["content"]);

    let body = json!({"prompt": "Once Mia sat", "stream": false,
        "options": {"num_predict": 12, "temperature": 0}});
    let answer = test.json("/api/generate", &body);
    assert_eq!(answer["response"], choice["message"]["content"]);
    let raw = test.json("/api/generate", &with(body.clone(), json!({"raw": true})));
    let completion = json!({"prompt": "Once Mia sat", "max_tokens": 12, "temperature": 0});
    let completion = test.json("/v1/completions", &completion);
    assert_eq!(raw["response"], completion["choices"][0]["text"]);
    let asked = test.json("/api/generate", &with(body, json!({"system": "Be brief."})));
    let messages = json!([{"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Once Mia sat"}]);
    let told = test.json("/api/chat", &with(hello(), json!({"messages": messages})));
    assert_eq!(asked["response"], told["message"]["content"]);
}

#[test]
fn answers_are_streamed_by_lines_unless_told() {
    let test = Test::start();
    let whole = test.json("/api/chat", &hello());
    let mut body = hello();
    body.as_object_mut().unwrap().remove("stream");
    let found = lines(&test.post("/api/chat", &body));
    let (last, parts) = found.split_last().unwrap();
    let texts = parts
        .iter()
        .map(|part| part["message"]["content"].as_str().unwrap());
    assert_eq!(whole["message"]["content"], texts.collect::<String>());
    assert!(parts.len() > 1 && parts.iter().all(|part| part["done"] == false));
    assert_eq!(last["done"], true);
    assert_eq!(last["message"]["content"], "");
    assert_eq!(last["done_reason"], whole["done_reason"]);
    assert_eq!(last["eval_count"], whole["eval_count"]);

    let body = json!({"prompt": "Once", "options": {"num_predict": 3}});
    let found = lines(&test.post("/api/generate", &body));
    assert!(found.iter().all(|part| part["response"].is_string()));
}

#[test]
fn an_empty_request_asks_whether_the_model_is_there() {
    let test = Test::start();
    for (path, body) in [
        ("/api/chat", json!({"messages": [], "stream": false})),
        ("/api/chat", json!({"stream": false, "keep_alive": "5m"})),
        (
            "/api/generate",
            json!({"model": "stories", "stream": false}),
        ),
    ] {
        let answer = test.json(path, &body);
        assert_eq!(answer["done_reason"], "load", "{answer}");
        assert_eq!(answer["done"], true);
        assert_eq!(answer["eval_count"], 0);
    }
    let found = lines(&test.post("/api/generate", &json!({"prompt": ""})));
    assert_eq!(found.len(), 1);
    assert_eq!(found[0]["done_reason"], "load");
}

#[test]
fn options_have_their_effect_and_seeds_repeat_answers() {
    let test = Test::start();
    let ask = |options: Value| test.json("/api/chat", &with(hello(), json!({"options": options})));
    let first = ask(json!({"temperature": 1.5, "num_predict": 12}));
    let seed = first["sterna"]["seed"].as_i64().unwrap();
    let again = ask(json!({"temperature": 1.5, "num_predict": 12, "seed": seed}));
    assert_eq!(first["message"], again["message"]);
    let drawn = ask(json!({"num_predict": 1, "seed": -1}));
    assert!(drawn["sterna"]["seed"].as_i64().unwrap() >= 0);
    let text = test.json("/api/chat", &hello())["message"]["content"].clone();
    let word = text.as_str().unwrap().split_whitespace().nth(1).unwrap();
    let stopped = ask(json!({"temperature": 0, "num_predict": 12, "stop": [word]}));
    assert_eq!(stopped["done_reason"], "stop");
    assert!(
        !stopped["message"]["content"]
            .as_str()
            .unwrap()
            .contains(word)
    );
    let reply = test.post(
        "/api/chat",
        &with(
            hello(),
            json!({"keep_alive": 60,
        "options": {"num_ctx": 4096, "num_predict": 2, "num_thread": 4}}),
        ),
    );
    assert_eq!(reply.status, 200);
    assert_eq!(
        reply.header("x-sterna-ignored"),
        Some("keep_alive,num_ctx,num_thread")
    );
}

#[test]
fn vectors_are_those_of_embeddings() {
    let test = Test::start();
    let input = json!({"input": ["Once", "Mia sat"]});
    let embeddings = test.json("/v1/embeddings", &input);
    let answer = test.json("/api/embed", &with(input, json!({"truncate": true})));
    for index in 0..2 {
        let expected = &embeddings["data"][index]["embedding"];
        assert_eq!(answer["embeddings"][index], *expected);
    }
    assert_eq!(
        answer["prompt_eval_count"],
        embeddings["usage"]["prompt_tokens"]
    );
    let one = test.json("/api/embed", &json!({"input": "Once"}));
    assert_eq!(one["embeddings"].as_array().unwrap().len(), 1);
}

#[test]
fn errors_have_ollamas_shape() {
    let test = Test::start();
    let chat = |fields: Value| test.post("/api/chat", &with(hello(), fields));
    let image = json!([{"role": "user", "content": "x", "images": ["aGk="]}]);
    error(&chat(json!({"model": "other"})), 404, "other");
    error(&chat(json!({"messages": image})), 400, "messages[0].images");
    error(&chat(json!({"messages": 3})), 400, "messages is 3");
    error(
        &chat(json!({"messages": [{"role": "king"}]})),
        400,
        "messages[0].role",
    );
    error(&chat(json!({"format": "xml"})), 400, "format is \"xml\"");
    error(&chat(json!({"tools": [{}]})), 400, "tools");
    error(&chat(json!({"think": true})), 400, "think");
    error(&chat(json!({"options": 3})), 400, "options is 3");
    error(
        &chat(json!({"options": {"temperature": -1}})),
        400,
        "options.temperature is -1",
    );
    error(
        &chat(json!({"options": {"num_predict": 0}})),
        400,
        "options.num_predict is 0",
    );
    error(
        &chat(json!({"options": {"num_predict": "x"}})),
        400,
        "num_predict is \"x\"",
    );
    error(&chat(json!({"options": {"mirostat": 2}})), 400, "mirostat");
    let generate = |fields: Value| {
        let body = with(
            json!({"prompt": "Once", "options": {"num_predict": 1}}),
            fields,
        );
        test.post("/api/generate", &body)
    };
    error(
        &generate(json!({"template": "{{ .Prompt }}"})),
        400,
        "template",
    );
    error(&generate(json!({"suffix": "end"})), 400, "suffix");
    error(&generate(json!({"images": ["aGk="]})), 400, "images");
    error(&generate(json!({"context": [1, 2]})), 400, "context");
    error(
        &generate(json!({"raw": true, "system": "x"})),
        400,
        "system",
    );
    error(
        &generate(json!({"prompt": "Once ".repeat(9000)})),
        400,
        "tokens",
    );
    for path in ["/api/pull", "/api/push", "/api/create", "/api/copy"] {
        error(
            &test.post(path, &json!({"model": "x"})),
            501,
            "does not change its models",
        );
    }
    let deleted = test.request("DELETE", "/api/delete", &[], "{\"model\": \"stories\"}");
    error(&deleted, 501, "does not change its models");
    let reply = test.get("/api/delete");
    error(&reply, 405, "GET");
    assert_eq!(reply.header("allow"), Some("DELETE"));
    error(&test.get("/api/unknown"), 404, "/api/unknown");
}

#[test]
fn a_model_without_a_template_continues_texts() {
    let model = support::served_as("plain", support::plain_model(), support::limits());
    let test = Test::with(|_| {}, vec![model]);
    let body = json!({"prompt": "Once Mia sat", "stream": false,
        "options": {"num_predict": 8, "temperature": 0}});
    let answer = test.json("/api/generate", &body);
    let completion = json!({"prompt": "Once Mia sat", "max_tokens": 8, "temperature": 0});
    let completion = test.json("/v1/completions", &completion);
    assert_eq!(answer["response"], completion["choices"][0]["text"]);
    let asked = test.post("/api/generate", &with(body, json!({"system": "Be brief."})));
    error(&asked, 400, "no chat template");
}
