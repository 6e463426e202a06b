//! Edges of requests that clients of other servers rely on: what changes nothing, what is the same
//! as something else, and what is refused.

mod support;

use serde_json::{Value, json};
use support::{COMPLETIONS, Test, limits, over, served, short};

const CHAT: &str = "/v1/chat/completions";

/// A continuation that is drawn, unless the fields say otherwise.
fn text(test: &Test, fields: &Value) -> Value {
    let body = json!({"prompt": "Once Mia", "max_tokens": 12, "temperature": 1, "top_p": 1,
        "seed": 4});
    test.json(COMPLETIONS, &over(body, fields))["choices"].clone()
}

#[test]
fn settings_that_change_nothing_and_that_mean_the_most_probable_token() {
    let test = Test::start();
    let drawn = text(&test, &json!({}));
    for same in [
        json!({"top_k": 0}),
        json!({"top_k": -1}),
        json!({"top_p": 1}),
        json!({"top_p": 1.0}),
        json!({"min_p": 0}),
        json!({"repetition_penalty": 1}),
        json!({"repeat_penalty": 1.0}),
        json!({"frequency_penalty": 0, "presence_penalty": 0}),
        json!({"logit_bias": {}}),
        json!({"stop": []}),
        json!({"stop": ["never there"]}),
        json!({"stop_token_ids": []}),
        json!({"n": 1}),
        json!({"seed": 4.0}),
        json!({"cache_prompt": false}),
        json!({"max_tokens": null, "max_completion_tokens": 12}),
        json!({"max_tokens": 90, "max_completion_tokens": 12}),
        json!({"max_tokens": 12, "max_completion_tokens": 90}),
        json!({"max_tokens": null, "n_predict": 12}),
        json!({"best_of": 1, "suffix": "", "user": "me"}),
    ] {
        assert_eq!(text(&test, &same), drawn, "{same}");
    }
    let best = text(&test, &json!({"temperature": 0}));
    assert_ne!(best, drawn);
    for same in [
        json!({"top_k": 1}),
        json!({"top_p": 1e-6}),
        json!({"min_p": 1}),
        json!({"temperature": 1e-40}),
        json!({"temperature": 0, "seed": 99}),
        json!({"temperature": 0, "top_k": 5, "top_p": 0.5}),
    ] {
        assert_eq!(text(&test, &same), best, "{same}");
    }
    let three = text(&test, &json!({"temperature": 0, "n": 3}));
    for index in 0..3 {
        assert_eq!(three[index]["text"], best[0]["text"]);
    }
}

#[test]
fn a_seed_decides_and_nothing_else_of_the_server_does() {
    let test = Test::start();
    let mut small = limits();
    (small.parallel, small.pages) = (1, 4);
    small.step = Some(std::time::Duration::from_millis(1));
    let other = Test::with(|_| {}, vec![served("another", small)]);
    let mut texts = std::collections::BTreeSet::new();
    for seed in [0, 1, 2, i64::MAX, i64::MIN] {
        let first = text(&test, &json!({"seed": seed}));
        texts.insert(first[0]["text"].as_str().unwrap().to_owned());
        assert_eq!(text(&test, &json!({"seed": seed})), first);
        assert_eq!(text(&other, &json!({"seed": seed})), first);
    }
    assert_eq!(texts.len(), 5);
    for seed in [
        json!(9_223_372_036_854_775_808_u64),
        json!(1e19),
        json!("1"),
    ] {
        let error = test.error(COMPLETIONS, &over(short(), &json!({"seed": seed})), 400);
        assert_eq!(error["param"], "seed");
    }
}

#[test]
fn an_answer_ends_where_it_is_told_to() {
    let test = Test::start();
    let whole = text(&test, &json!({"temperature": 0}));
    let whole = whole[0]["text"].as_str().unwrap();
    let second = whole.char_indices().nth(1).unwrap().0;
    for (fields, expected, reason) in [
        // Also at its first character, and where two of them begin.
        (json!({"stop": whole[..second]}), "", "stop"),
        (json!({"stop": [whole, &whole[..second]]}), "", "stop"),
        (json!({"stop": ["é", "日本", "\n\n\n"]}), whole, "length"),
        (json!({"logit_bias": {"1": 100}}), "", "stop"),
        (
            json!({"stop": "<|end_of_text|>", "logit_bias": {"1": 100}}),
            "",
            "stop",
        ),
        (json!({"max_tokens": 0}), "", "length"),
    ] {
        for stream in [false, true] {
            let body = json!({"prompt": "Once Mia", "max_tokens": 12, "temperature": 0,
                "stream": stream});
            let body = over(body, &fields);
            let (found, end) = match stream {
                false => {
                    let choice = test.json(COMPLETIONS, &body)["choices"][0].clone();
                    (choice["text"].as_str().unwrap().to_owned(), choice)
                }
                true => {
                    let events = test.events(COMPLETIONS, &body);
                    let parts = events
                        .iter()
                        .map(|event| event["choices"][0]["text"].as_str());
                    let last = events.last().unwrap()["choices"][0].clone();
                    (parts.map(Option::unwrap).collect(), last)
                }
            };
            assert_eq!(found, expected, "{body}");
            assert_eq!(end["finish_reason"], reason, "{body}");
        }
    }
    // A token that ends texts is one like others where it is ignored.
    let fields = json!({"logit_bias": {"1": 100}, "ignore_eos": true, "return_token_ids": true});
    let choice = &text(&test, &over(fields, &json!({"max_tokens": 3})))[0];
    assert_eq!(choice["token_ids"], json!([1, 1, 1]));
    assert_eq!(
        (&choice["text"], &choice["finish_reason"]),
        (&json!(""), &json!("length"))
    );
}

#[test]
fn counts_of_a_stream_come_when_they_are_asked_for() {
    let test = Test::start();
    let messages = json!({"messages": [{"role": "user", "content": "Once"}], "max_tokens": 3});
    for (path, body) in [(CHAT, &messages), (COMPLETIONS, &short())] {
        let usage = test.json(path, body)["usage"].clone();
        for (options, has_usage) in [
            (json!(null), false),
            (json!({}), false),
            (json!({"include_usage": null}), false),
            (
                json!({"include_usage": false, "continuous_usage_stats": true}),
                false,
            ),
            (json!({"include_usage": true}), true),
        ] {
            let fields = json!({"stream": true, "stream_options": options});
            let events = test.events(path, &over(body.clone(), &fields));
            let (last, rest) = events.split_last().unwrap();
            assert!(
                rest.iter()
                    .all(|event| event.get("usage").is_some() == has_usage)
            );
            let ids: std::collections::BTreeSet<String> =
                events.iter().map(|event| event["id"].to_string()).collect();
            assert_eq!(ids.len(), 1);
            if has_usage {
                assert_eq!(last["choices"], json!([]));
                let counts = ["prompt_tokens", "completion_tokens", "total_tokens"];
                assert!(counts.iter().all(|name| last["usage"][name] == usage[name]));
            }
            let names = ["model", "created", "object", "system_fingerprint"];
            assert!(
                events
                    .iter()
                    .all(|event| names.iter().all(|name| !event[name].is_null()))
            );
        }
        for options in [json!("yes"), json!([]), json!({"include_usage": 1})] {
            let fields = json!({"stream": true, "stream_options": options});
            let error = test.error(path, &over(body.clone(), &fields), 400);
            let param = error["param"].as_str().unwrap();
            assert!(
                ["stream_options", "include_usage"].contains(&param),
                "{error}"
            );
        }
    }
}

#[test]
fn messages_may_have_what_clients_add_to_them() {
    let test = Test::start();
    let text = |messages: Value| {
        let reply = test.json("/apply-template", &json!({"messages": messages}));
        reply["prompt"].as_str().unwrap().to_owned()
    };
    let part = |text: &str| json!({"type": "text", "text": text});
    let plain = text(json!([{"role": "user", "content": "Once\nMia"}]));
    for same in [
        json!([{"role": "user", "content": [part("Once\nMia")]}]),
        json!([{"role": "user", "content": [part("Once"), part("Mia")]}]),
        json!([{"role": "user", "content": [{"type": "input_text", "text": "Once\nMia",
            "cache_control": {"type": "ephemeral"}}]}]),
        json!([{"role": "user", "content": "Once\nMia", "name": "me", "refusal": null,
            "tool_calls": null, "audio": null, "annotations": [], "reasoning_content": null}]),
    ] {
        assert_eq!(text(same.clone()), plain, "{same}");
    }
    let said = |role: &str| {
        text(json!([{"role": role, "content": "Hi"},
        {"role": "user", "content": "Once"}]))
    };
    assert_eq!(said("developer"), said("system"));
    assert!(said("user").ends_with("HiOnce"));
    text(json!([{"role": "user", "content": ""}]));
    text(json!([{"role": "user", "content": []}]));
    text(json!([{"role": "user", "content": "naïve 日本 🐟 \u{0}\u{7f}\r\n"}]));
}

#[test]
fn messages_that_are_none_are_refused_by_place() {
    let test = Test::start();
    let user = json!({"role": "user", "content": "Once"});
    for (messages, param) in [
        (json!("Once"), "messages"),
        (json!(user), "messages"),
        (json!([123]), "messages[0]"),
        (json!([null]), "messages[0]"),
        (json!([[]]), "messages[0]"),
        (json!([{}]), "messages[0].role"),
        (json!([user, {}]), "messages[1].role"),
        (json!([{"role": 123, "content": "x"}]), "messages[0].role"),
        (
            json!([{"role": "king", "content": "x"}]),
            "messages[0].role",
        ),
        (json!([{"content": "x"}]), "messages[0].role"),
        (
            json!([{"role": "user", "content": null}]),
            "messages[0].content",
        ),
        (
            json!([{"role": "system", "content": 123}]),
            "messages[0].content",
        ),
        (
            json!([{"role": "user", "content": {"text": "x"}}]),
            "messages[0].content",
        ),
        (
            json!([user, {"role": "user", "content": ["x"]}]),
            "messages[1].content[0]",
        ),
        (
            json!([{"role": "user", "content": [{"text": "x"}]}]),
            "messages[0].content[0]",
        ),
        (
            json!([{"role": "user", "content": [{"type": "text"}]}]),
            "messages[0].content[0].text",
        ),
        (
            json!([{"role": "user", "content": [{"type": "image_url"}]}]),
            "messages[0].content[0]",
        ),
        (
            json!([{"role": "user", "content": [{"type": "input_audio"}]}]),
            "messages[0].content[0]",
        ),
    ] {
        for path in [CHAT, "/apply-template", "/tokenize"] {
            let error = test.error(path, &json!({"messages": messages}), 400);
            assert_eq!(error["param"], param, "{path} {messages}: {error}");
        }
    }
    for (fields, param) in [
        (
            json!({"continue_final_message": true}),
            "continue_final_message",
        ),
        (json!({"add_generation_prompt": 1}), "add_generation_prompt"),
        (
            json!({"chat_template_kwargs": {"bos_token": "x"}}),
            "chat_template_kwargs",
        ),
        (
            json!({"chat_template_kwargs": {"a": "x".repeat(20_000)}}),
            "chat_template_kwargs",
        ),
        (json!({"chat_template_kwargs": []}), "chat_template_kwargs"),
        (json!({"reasoning_effort": 3}), "reasoning_effort"),
    ] {
        let error = test.error(CHAT, &over(json!({"messages": [user]}), &fields), 400);
        assert_eq!(error["param"], param, "{fields}: {error}");
    }
}

#[test]
fn bodies_that_are_not_objects_are_refused_on_every_route() {
    let test = Test::start();
    for path in [
        CHAT,
        COMPLETIONS,
        "/v1/embeddings",
        "/v1/responses",
        "/v1/responses/input_tokens",
        "/tokenize",
        "/detokenize",
        "/apply-template",
    ] {
        for body in [
            "", "null", "3", "\"Once\"", "[]", "[{}]", "true", "{}{}", "{'a': 1}", "{",
        ] {
            let reply = test.post_text(path, body);
            assert_eq!(reply.status, 400, "{path} {body}");
            assert_eq!(reply.error()["code"], "invalid_json", "{path} {body}");
        }
    }
}

#[test]
fn what_would_change_an_answer_is_refused() {
    let test = Test::start();
    let message = json!({"messages": [{"role": "user", "content": "Once"}]});
    for fields in [
        json!({"tools": [{"type": "function", "function": {"name": "f"}}]}),
        json!({"functions": [{"name": "f"}]}),
        json!({"allowed_token_ids": [5]}),
        json!({"bad_words": ["a"]}),
        json!({"logits_processors": ["a"]}),
        json!({"min_tokens": 5}),
        json!({"use_beam_search": true}),
        json!({"length_penalty": 2}),
        json!({"truncate_prompt_tokens": 4}),
        json!({"skip_special_tokens": false}),
        json!({"samplers": ["top_k"]}),
        json!({"mirostat": 2}),
        json!({"dry_multiplier": 0.8}),
        json!({"xtc_probability": 0.5}),
        json!({"dynatemp_range": 0.5}),
        json!({"typical_p": 0.5}),
        json!({"n_probs": 10}),
        json!({"lora": [{"id": 0, "scale": 1}]}),
        json!({"modalities": ["text", "audio"]}),
        json!({"prompt_embeds": "AAAA"}),
        json!({"thinking_token_budget": 10}),
        json!({"chat_template": "{{ messages }}"}),
    ] {
        let (name, _) = fields.as_object().unwrap().iter().next().unwrap();
        for (path, body) in [(CHAT, &message), (COMPLETIONS, &short())] {
            for stream in [false, true] {
                let body = over(over(body.clone(), &fields), &json!({"stream": stream}));
                let error = test.error(path, &body, 400);
                assert_eq!(error["param"], *name, "{error}");
                assert_eq!(error["code"], "unsupported_parameter");
            }
        }
    }
}

#[test]
fn prompts_have_their_tokens_with_and_without_special_ones() {
    let test = Test::start();
    let count = |body: Value| test.json("/tokenize", &body)["count"].as_u64().unwrap();
    for prompt in ["", " ", "Once", "naïve 日本 🐟", "\n\n"] {
        let with = count(json!({"prompt": prompt}));
        let without = count(json!({"prompt": prompt, "add_special_tokens": false}));
        assert_eq!(with, without + 1, "{prompt:?}");
        assert_eq!(count(json!({"content": prompt})), without);
        assert_eq!(count(json!({"content": prompt, "add_special": true})), with);
        let body = json!({"prompt": prompt, "max_tokens": 1});
        assert_eq!(
            test.json(COMPLETIONS, &body)["usage"]["prompt_tokens"],
            with
        );
        let tokens = &test.json("/tokenize", &json!({"content": prompt}))["tokens"];
        let back = test.json("/detokenize", &json!({"tokens": tokens}));
        assert_eq!(back["content"], prompt);
    }
    // Lists may hold texts and ids, and every one of them counts.
    let body = json!({"prompt": ["Once", [5, 6, 7]], "max_tokens": 1, "return_token_ids": true});
    let reply = test.json(COMPLETIONS, &body);
    assert_eq!(reply["choices"][1]["prompt_token_ids"], json!([5, 6, 7]));
    let once = count(json!({"prompt": "Once"}));
    assert_eq!(reply["usage"]["prompt_tokens"], once + 3);
    let chat = json!({"messages": [{"role": "user", "content": "Once"}], "max_tokens": 1});
    let tokens = count(chat.clone());
    assert_eq!(test.json(CHAT, &chat)["usage"]["prompt_tokens"], tokens);
    for (path, body, param) in [
        ("/tokenize", json!({"prompt": 3}), "prompt"),
        (
            "/tokenize",
            json!({"prompt": "a", "content": "b"}),
            "prompt",
        ),
        (
            "/tokenize",
            json!({"prompt": "a", "messages": []}),
            "prompt",
        ),
        (
            "/tokenize",
            json!({"prompt": "a", "add_generation_prompt": "yes"}),
            "add_generation_prompt",
        ),
        (
            "/tokenize",
            json!({"content": "a", "reasoning_effort": [1]}),
            "reasoning_effort",
        ),
        (
            "/tokenize",
            json!({"prompt": "a", "with_pieces": "yes"}),
            "with_pieces",
        ),
        ("/detokenize", json!({"tokens": "a"}), "tokens"),
        ("/detokenize", json!({"tokens": [1.5]}), "tokens[0]"),
        ("/detokenize", json!({"tokens": [5, null]}), "tokens[1]"),
    ] {
        assert_eq!(test.error(path, &body, 400)["param"], param, "{body}");
    }
    assert_eq!(
        test.json("/detokenize", &json!({"tokens": []}))["content"],
        ""
    );
}

#[test]
fn vectors_are_the_same_alone_and_in_a_list() {
    let test = Test::start();
    let texts = ["Once Mia", "Tom", "Once Mia", "é"];
    let all = test.json(
        "/v1/embeddings",
        &json!({"input": texts, "encoding_format": null}),
    );
    assert_eq!(all["data"].as_array().unwrap().len(), 4);
    let mut tokens = 0;
    for (index, text) in texts.iter().enumerate() {
        let alone = test.json("/v1/embeddings", &json!({"input": text, "user": "me"}));
        assert_eq!(
            all["data"][index]["embedding"],
            alone["data"][0]["embedding"]
        );
        assert_eq!(all["data"][index]["index"], index);
        tokens += alone["usage"]["prompt_tokens"].as_u64().unwrap();
    }
    assert_eq!(all["usage"]["prompt_tokens"], tokens);
    assert_ne!(all["data"][0]["embedding"], all["data"][1]["embedding"]);
    let mixed = test.json("/v1/embeddings", &json!({"input": [[5, 6], "Tom"]}));
    assert_eq!(mixed["data"][1]["embedding"], all["data"][1]["embedding"]);
    for (input, param) in [
        (json!(null), "input"),
        (json!([]), "input"),
        (json!({}), "input"),
        (json!([null]), "input[0]"),
        (json!(["Once", 3]), "input[1]"),
        (json!([5, 300]), "input[1]"),
        (json!("Once ".repeat(200)), "input"),
        (json!(["Once", "Once ".repeat(200)]), "input[1]"),
    ] {
        let error = test.error("/v1/embeddings", &json!({"input": input}), 400);
        assert_eq!(error["param"], param, "{error}");
    }
}

#[test]
fn paths_methods_and_ids_of_requests() {
    let test = Test::start();
    for (method, path, status) in [
        ("GET", "/v1/models?limit=1&after=x", 200),
        ("GET", "/v1/models/stories?x", 200),
        ("GET", "/v1/models/", 404),
        ("GET", "//v1/models", 404),
        ("GET", "/V1/models", 404),
        ("GET", "/v1/models/stories/x", 404),
        ("OPTIONS", "/v1/models", 405),
        ("PUT", COMPLETIONS, 405),
        ("PATCH", "/v1/chat/completions", 405),
        ("TRACE", "/health", 405),
        ("BREW", "/health", 405),
    ] {
        let reply = test.request(method, path, &[], "");
        assert_eq!(reply.status, status, "{method} {path}");
    }
    for path in ["/health", "/v1/models", "/"] {
        let head = test.request("HEAD", path, &[], "");
        assert_eq!((head.status, head.body.as_str()), (200, ""), "{path}");
        let length = head.header("content-length").unwrap().parse::<usize>();
        assert_eq!(length.unwrap(), test.get(path).body.len(), "{path}");
    }
    let long = "x".repeat(129);
    for (id, is_taken) in [
        ("a-1", true),
        (&long[..128], true),
        (&long, false),
        ("a b", false),
    ] {
        let reply = test.request("GET", "/health", &[&format!("x-request-id: {id}")], "");
        assert_eq!(reply.header("x-request-id") == Some(id), is_taken, "{id}");
        assert!(!reply.header("x-request-id").unwrap().is_empty());
    }
    let ids = [0; 3].map(|_| {
        test.get("/health")
            .header("x-request-id")
            .unwrap()
            .to_owned()
    });
    assert!(ids[0] != ids[1] && ids[1] != ids[2]);
}

#[test]
fn counts_of_the_server_are_those_of_the_answers() {
    let test = Test::start();
    let body = json!({"prompt": ["Once Mia sat", "Tom"], "n": 2, "max_tokens": 4,
        "ignore_eos": true});
    let usage = test.json(COMPLETIONS, &body)["usage"].clone();
    test.error(COMPLETIONS, &json!({"prompt": 3}), 400);
    let text = test.get("/metrics").body;
    let count = |name: &str| -> u64 {
        let line = text
            .lines()
            .find(|line| line.starts_with(&format!("{name}{{")));
        line.unwrap().rsplit(' ').next().unwrap().parse().unwrap()
    };
    assert_eq!(usage["completion_tokens"], 16);
    assert_eq!(count("sterna_generation_tokens_total"), 16);
    let computed = count("sterna_prompt_tokens_total") + count("sterna_cached_tokens_total");
    assert_eq!(usage["prompt_tokens"], computed);
    for (code, replies) in [("200", 1), ("400", 1)] {
        let line = format!("sterna_replies_total{{route=\"{COMPLETIONS}\",code=\"{code}\"}}");
        assert!(text.contains(&format!("{line} {replies}\n")), "{text}");
    }
}
