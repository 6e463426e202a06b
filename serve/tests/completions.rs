//! `/v1/completions` and `/v1/embeddings`: prompts of all kinds, echo, scores, vectors.

mod support;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use support::{Test, over};

const COMPLETIONS: &str = "/v1/completions";

fn tokens(test: &Test, text: &str) -> Vec<u32> {
    let reply = test.json("/tokenize", &json!({"prompt": text}));
    serde_json::from_value(reply["tokens"].clone()).unwrap()
}

#[test]
fn texts_ids_and_lists_of_both_give_the_same_answers() {
    let test = Test::start();
    let texts = ["Once Mia sat in the barn.", "Once Tom"];
    let ids = texts.map(|text| tokens(&test, text));
    let ask = |prompt: Value| {
        let body = json!({"prompt": prompt, "max_tokens": 6, "temperature": 1, "seed": 5});
        test.json(COMPLETIONS, &body)
    };
    let one = texts.map(|text| ask(json!(text))["choices"][0].clone());
    assert_ne!(one[0]["text"], one[1]["text"]);
    for (ids, expected) in ids.iter().zip(&one) {
        assert_eq!(ask(json!(ids))["choices"], json!([expected]));
    }
    for list in [json!(texts), json!(ids)] {
        let body = ask(list);
        for (i, expected) in one.iter().enumerate() {
            let mut choice = body["choices"][i].clone();
            assert_eq!(choice["index"], i);
            choice["index"] = 0.into();
            assert_eq!(choice, *expected);
        }
        assert_eq!(body["usage"]["prompt_tokens"], ids[0].len() + ids[1].len());
    }
    // A list that is longer than what is computed together.
    let many = ask(json!(vec![texts[1]; 20]));
    let choices = many["choices"].as_array().unwrap();
    assert_eq!(choices.len(), 20);
    assert!(
        choices
            .iter()
            .all(|choice| choice["text"] == one[1]["text"])
    );
}

#[test]
fn several_answers_to_several_prompts_are_ordered() {
    let test = Test::start();
    let body = json!({"prompt": ["Once Mia", "Once Tom"], "n": 2, "max_tokens": 5, "seed": 1});
    let reply = test.json(COMPLETIONS, &body);
    let indices = reply["choices"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| c["index"].as_u64().unwrap());
    assert_eq!(indices.collect::<Vec<_>>(), [0, 1, 2, 3]);
    let tom = test.json(
        COMPLETIONS,
        &json!({"prompt": "Once Tom", "n": 2, "max_tokens": 5, "seed": 1}),
    );
    for i in 0..2 {
        assert_eq!(reply["choices"][2 + i]["text"], tom["choices"][i]["text"]);
    }
}

#[test]
fn echo_has_an_entry_for_each_token() {
    let test = Test::start();
    let text = "Once Mia sat in the barn. É";
    let ids = tokens(&test, text);
    for max_tokens in [0, 1, 4] {
        let body = json!({"prompt": [ids], "max_tokens": max_tokens, "logprobs": 1, "echo": true,
            "temperature": 0, "ignore_eos": true});
        let reply = test.json(COMPLETIONS, &body);
        let choice = &reply["choices"][0];
        let scores = &choice["logprobs"];
        let list = |name: &str| scores[name].as_array().unwrap();
        for name in ["tokens", "token_logprobs", "top_logprobs", "text_offset"] {
            assert_eq!(list(name).len(), ids.len() + max_tokens, "{name}: {scores}");
        }
        assert!(list("token_logprobs")[0].is_null() && list("top_logprobs")[0].is_null());
        let shown = choice["text"].as_str().unwrap();
        assert!(shown.starts_with(text), "{shown}");
        let characters: Vec<char> = shown.chars().collect();
        for (i, (token, at)) in list("tokens")
            .iter()
            .zip(list("text_offset"))
            .enumerate()
            .skip(1)
        {
            let (token, at) = (token.as_str().unwrap(), at.as_u64().unwrap() as usize);
            let score = list("token_logprobs")[i].as_f64().unwrap();
            let top = list("top_logprobs")[i].as_object().unwrap();
            assert_eq!(top[token].as_f64(), Some(score));
            assert!((1..=2).contains(&top.len()) && score <= 0.0, "{top:?}");
            if !token.starts_with("bytes:") {
                let end = at + token.chars().count();
                assert_eq!(characters[at..end].iter().collect::<String>(), token);
            }
            if i >= ids.len() {
                let best = top.values().map(|v| v.as_f64().unwrap()).reduce(f64::max);
                assert_eq!(
                    best,
                    Some(score),
                    "an answer without temperature is the best one"
                );
            }
        }
        assert_eq!(reply["usage"]["completion_tokens"], max_tokens);
    }
}

#[test]
fn scores_of_a_prompt_have_vllms_form_too() {
    let test = Test::start();
    let text = "Once Mia sat in";
    let ids = tokens(&test, text);
    let echoed = test.json(
        COMPLETIONS,
        &json!({"prompt": text, "echo": true, "logprobs": 0, "max_tokens": 1,
        "prompt_logprobs": 3}),
    );
    let echoed = &echoed["choices"][0];
    let top = echoed["logprobs"]["top_logprobs"][1].as_object().unwrap();
    assert_eq!(top.len(), 1, "logprobs says how many there are");
    let chat = json!({"messages": [{"role": "user", "content": text}], "max_tokens": 1,
        "prompt_logprobs": 3});
    let chat = test.json("/v1/chat/completions", &chat);
    assert_eq!(chat["prompt_logprobs"], echoed["prompt_logprobs"]);
    for most in [0, 1, 3] {
        let body = json!({"prompt": [text, "Tom"], "prompt_logprobs": most, "max_tokens": 1,
            "n": 2, "seed": 1});
        let choices = &test.json(COMPLETIONS, &body)["choices"];
        assert_eq!(choices[0]["prompt_logprobs"], choices[1]["prompt_logprobs"]);
        let other = choices[2]["prompt_logprobs"].as_array().unwrap();
        assert_eq!(other.len(), tokens(&test, "Tom").len());
        let scores = choices[0]["prompt_logprobs"].as_array().unwrap();
        assert_eq!(scores.len(), ids.len());
        assert!(scores[0].is_null());
        for (i, score) in scores.iter().enumerate().skip(1) {
            let own = &score[ids[i].to_string()];
            assert_eq!(own["logprob"], echoed["logprobs"]["token_logprobs"][i]);
            assert_eq!(own["decoded_token"], echoed["logprobs"]["tokens"][i]);
            let rank = own["rank"].as_u64().unwrap() as usize;
            let entries = score.as_object().unwrap();
            assert_eq!(entries.len(), most + usize::from(rank > most), "{score}");
            for other in entries.values() {
                let is_before = other["rank"].as_u64() < own["rank"].as_u64();
                assert_eq!(
                    is_before,
                    other["logprob"].as_f64() > own["logprob"].as_f64()
                );
            }
        }
    }
    for (fields, says) in [
        (json!({"prompt_logprobs": 21}), "0 to 20"),
        (json!({"prompt_logprobs": -1}), "0 to 20"),
        (json!({"prompt_logprobs": 0, "stream": true}), "stream"),
    ] {
        let body = over(json!({"prompt": text, "max_tokens": 1}), &fields);
        let error = test.error(COMPLETIONS, &body, 400);
        assert_eq!(error["param"], "prompt_logprobs");
        assert!(error["message"].as_str().unwrap().contains(says), "{error}");
    }
}

#[test]
fn what_ended_an_answer_stays_in_it_if_it_is_asked_for() {
    let test = Test::start();
    let body = |fields: Value| {
        let body = json!({"prompt": "Once Mia", "max_tokens": 12, "temperature": 0,
            "return_token_ids": true});
        over(body, &fields)
    };
    let choice = |fields| test.json(COMPLETIONS, &body(fields))["choices"][0].clone();
    let whole = choice(json!({}));
    let text = whole["text"].as_str().unwrap();
    let stop: String = text.chars().skip(5).take(3).collect();
    let at = text.find(&stop).unwrap();
    let without = choice(json!({"stop": stop}));
    let fields = json!({"stop": stop, "include_stop_str_in_output": true, "logprobs": 0});
    let with = choice(fields.clone());
    assert_eq!(without["text"], text[..at]);
    assert_eq!(with["text"], text[..at + stop.len()]);
    assert_eq!(
        (&with["finish_reason"], &without["finish_reason"]),
        (&json!("stop"), &json!("stop"))
    );
    // The tokens are those of the text, the last of which may go on.
    let count = |choice: &Value| choice["token_ids"].as_array().unwrap().len();
    assert!(count(&with) > count(&without));
    let tokens: Vec<&str> = with["logprobs"]["tokens"]
        .as_array()
        .unwrap()
        .iter()
        .map(|token| token.as_str().unwrap())
        .collect();
    assert!(
        tokens.concat().starts_with(with["text"].as_str().unwrap()),
        "{tokens:?}"
    );
    let mut streamed = body(fields);
    streamed["stream"] = true.into();
    let events = test.events(COMPLETIONS, &streamed);
    let parts = events
        .iter()
        .map(|event| event["choices"][0]["text"].as_str().unwrap());
    assert_eq!(parts.collect::<String>(), with["text"]);
    // A token that ends an answer stays if it has a text.
    let id = &whole["token_ids"][4];
    let fields = json!({"stop_token_ids": [id], "include_stop_str_in_output": true});
    let with = choice(fields);
    let ids = with["token_ids"].as_array().unwrap();
    assert_eq!(
        ids.iter().position(|other| other == id),
        Some(ids.len() - 1)
    );
    assert_eq!(whole["token_ids"].as_array().unwrap()[..ids.len()], ids[..]);
    let shown = with["text"].as_str().unwrap();
    let without = choice(json!({"stop_token_ids": [id]}));
    let before = without["text"].as_str().unwrap();
    assert!(text.starts_with(shown) && shown.starts_with(before) && shown > before);
    let end = choice(json!({"logit_bias": {"1": 100}, "include_stop_str_in_output": true}));
    assert_eq!(end["text"], "");
}

#[test]
fn the_token_that_ends_an_answer_is_scored() {
    let test = Test::start();
    // The end of a text is forced at once.
    let body = json!({"prompt": "Once", "max_tokens": 1, "logprobs": 1, "echo": true,
        "logit_bias": {"1": 100}});
    let reply = test.json(COMPLETIONS, &body);
    let choice = &reply["choices"][0];
    assert_eq!(choice["finish_reason"], "stop");
    assert_eq!(choice["text"], "Once");
    let prompt = reply["usage"]["prompt_tokens"].as_u64().unwrap() as usize;
    let scores = choice["logprobs"]["token_logprobs"].as_array().unwrap();
    assert_eq!(scores.len(), prompt + 1);
    assert_eq!(choice["logprobs"]["tokens"][prompt], "<|end_of_text|>");
    // The bias does not change what is scored.
    let other = test.json(
        COMPLETIONS,
        &json!({"prompt": "Once", "max_tokens": 0, "logprobs": 1,
        "echo": true}),
    );
    assert_eq!(
        other["choices"][0]["logprobs"]["token_logprobs"]
            .as_array()
            .unwrap()[..],
        scores[..prompt]
    );
}

#[test]
fn streams_are_the_whole_answer_in_parts() {
    let test = Test::start();
    for fields in [
        json!({}),
        json!({"echo": true}),
        json!({"echo": true, "logprobs": 2, "n": 2}),
        json!({"logprobs": 0, "prompt": ["Once Mia", "Tom was"]}),
        json!({"max_tokens": 0, "echo": true, "logprobs": 1}),
    ] {
        let mut body = json!({"prompt": "Once Mia", "max_tokens": 9, "seed": 2});
        for (name, value) in fields.as_object().unwrap() {
            body[name] = value.clone();
        }
        let whole = test.json(COMPLETIONS, &body);
        body["stream"] = true.into();
        let events = test.events(COMPLETIONS, &body);
        for choice in whole["choices"].as_array().unwrap() {
            let parts = events.iter().map(|event| &event["choices"][0]);
            let parts: Vec<&Value> = parts
                .filter(|part| part["index"] == choice["index"])
                .collect();
            let text: String = parts
                .iter()
                .map(|part| part["text"].as_str().unwrap())
                .collect();
            assert_eq!(choice["text"], text, "{body}");
            let end = parts.last().unwrap();
            assert_eq!(choice["finish_reason"], end["finish_reason"]);
            assert_eq!(
                parts
                    .iter()
                    .filter(|p| !p["finish_reason"].is_null())
                    .count(),
                1
            );
            for name in ["tokens", "token_logprobs", "top_logprobs", "text_offset"] {
                let lists = parts
                    .iter()
                    .filter_map(|part| part["logprobs"][name].as_array());
                let joined: Vec<&Value> = lists.flatten().collect();
                let expected = choice["logprobs"][name].as_array();
                let expected = expected.map_or(Vec::new(), |list| list.iter().collect());
                assert_eq!(joined, expected, "{name}: {body}");
            }
        }
    }
}

#[test]
fn wrong_prompts_are_refused_by_place() {
    let test = Test::start();
    for (prompt, param) in [
        (json!(null), "prompt"),
        (json!([]), "prompt"),
        (json!(3), "prompt"),
        (json!({}), "prompt"),
        (json!([[]]), "prompt[0]"),
        (json!(["Once", 3]), "prompt[1]"),
        (json!([[1], [300]]), "prompt[1][0]"),
        (json!([1, -1]), "prompt[1]"),
        (json!([1, "x"]), "prompt[1]"),
        (json!([1.5]), "prompt[0]"),
        (json!(vec!["Once"; 257]), "prompt"),
        (json!(vec![5; 97]), "prompt"),
        (json!([vec![5; 97]]), "prompt[0]"),
    ] {
        let error = test.error(COMPLETIONS, &json!({"prompt": prompt}), 400);
        assert_eq!(error["param"], param, "{prompt}: {error}");
    }
    for (field, value) in [
        ("logprobs", json!(21)),
        ("logprobs", json!(true)),
        ("logprobs", json!(-1)),
        ("suffix", json!("x")),
        ("best_of", json!(2)),
        ("echo", json!(1)),
    ] {
        let error = test.error(COMPLETIONS, &json!({"prompt": "Once", field: value}), 400);
        assert_eq!(error["param"], field);
    }
    let empty = json!({"prompt": "", "add_special_tokens": false});
    assert_eq!(test.error(COMPLETIONS, &empty, 400)["param"], "prompt");
    // A prompt that fills the context has room for one token.
    let full = json!({"prompt": vec![5; 96], "max_tokens": 5, "ignore_eos": true});
    assert_eq!(
        test.json(COMPLETIONS, &full)["usage"]["completion_tokens"],
        1
    );
}

#[test]
fn vectors_have_length_one_and_two_encodings() {
    let test = Test::start();
    let texts = ["Once Mia sat in the barn.", "Tom was in the park."];
    let reply = test.json("/v1/embeddings", &json!({"input": texts}));
    assert_eq!(reply["object"], "list");
    let vector = |reply: &Value, i: usize| -> Vec<f32> {
        serde_json::from_value(reply["data"][i]["embedding"].clone()).unwrap()
    };
    for i in 0..2 {
        assert_eq!(reply["data"][i]["index"], i);
        assert_eq!(reply["data"][i]["object"], "embedding");
        let found = vector(&reply, i);
        assert_eq!(found.len(), 64);
        let length: f32 = found.iter().map(|x| x * x).sum();
        assert!((length - 1.0).abs() < 1e-5, "{length}");
    }
    let counts = &reply["usage"];
    assert_eq!(counts["prompt_tokens"], counts["total_tokens"]);
    let encoded = test.json(
        "/v1/embeddings",
        &json!({"input": tokens(&test, texts[1]), "encoding_format": "base64", "dimensions": 64}),
    );
    let bytes = STANDARD
        .decode(encoded["data"][0]["embedding"].as_str().unwrap())
        .unwrap();
    let numbers: Vec<f32> = bytes
        .chunks(4)
        .map(|four| f32::from_le_bytes(four.try_into().unwrap()))
        .collect();
    assert_eq!(numbers, vector(&reply, 1));
    for (body, param) in [
        (json!({"input": "x", "dimensions": 32}), "dimensions"),
        (
            json!({"input": "x", "encoding_format": "hex"}),
            "encoding_format",
        ),
        (
            json!({"input": ["x", ""], "add_special_tokens": false}),
            "input[1]",
        ),
        (json!({}), "input"),
    ] {
        assert_eq!(test.error("/v1/embeddings", &body, 400)["param"], param);
    }
}
