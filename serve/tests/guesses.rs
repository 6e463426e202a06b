//! Guesses of next tokens: they are counted, and answers stay the same.

mod support;

use serde_json::{Value, json};
use sterna_serve::engine::{Guesses, Limits};
use support::{COMPLETIONS, Test, limits, over, served};

fn with(guesses: Guesses) -> Test {
    let limits = Limits {
        guesses,
        ..limits()
    };
    Test::with(|_| {}, vec![served("stories", limits)])
}

/// Right and wrong guesses of a reply.
fn guessed(reply: &Value) -> (u64, u64) {
    let details = &reply["usage"]["completion_tokens_details"];
    let count = |name: &str| details[name].as_u64().unwrap();
    (
        count("accepted_prediction_tokens"),
        count("rejected_prediction_tokens"),
    )
}

fn body() -> Value {
    json!({"prompt": "Once Mia sat in the barn. Once Mia", "max_tokens": 60, "seed": 3,
        "temperature": 0.8, "logprobs": 2})
}

#[test]
fn answers_with_and_without_guesses_are_the_same() {
    let (plain, guessing) = (with(Guesses::No), with(Guesses::All));
    let mut right = 0;
    for (path, body) in [
        (COMPLETIONS, body()),
        (
            COMPLETIONS,
            over(body(), &json!({"temperature": 0, "n": 3})),
        ),
        (
            COMPLETIONS,
            over(body(), &json!({"stop": ["e"], "echo": true})),
        ),
        (
            "/v1/chat/completions",
            json!({"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 30, "seed": 1}),
        ),
    ] {
        let expected = plain.json(path, &body);
        assert_eq!(guessed(&expected), (0, 0));
        // The second time, the tree has what followed.
        for _ in 0..2 {
            let reply = guessing.json(path, &body);
            assert_eq!(reply["choices"], expected["choices"], "{body}");
            right += guessed(&reply).0;
        }
    }
    assert!(right > 100, "{right}");
    let metrics = guessing.get("/metrics").body;
    let label = "model_name=\"stories\",position=\"0\"";
    let line = format!("sterna_accepted_tokens_total{{{label}}} ");
    let first = metrics
        .lines()
        .find_map(|at| at.strip_prefix(&line))
        .unwrap();
    assert!(first.parse::<u64>().unwrap() > 10, "{first}");
    assert!(metrics.contains("vllm:spec_decode_num_accepted_tokens_total{"));
}

#[test]
fn a_prediction_is_guessed_from_its_beginning() {
    let test = with(Guesses::All);
    let reads_nothing = over(body(), &json!({"cache_prompt": false, "logprobs": null}));
    let first = test.json(COMPLETIONS, &reads_nothing);
    let text = first["choices"][0]["text"].as_str().unwrap();
    // Another engine, so that nothing but the prediction has this answer.
    let parts = json!([{"type": "text", "text": text}]);
    for content in [json!(text), parts] {
        let test = with(Guesses::All);
        let prediction = json!({"prediction": {"type": "content", "content": content}});
        let reply = test.json(COMPLETIONS, &over(reads_nothing.clone(), &prediction));
        assert_eq!(reply["choices"], first["choices"]);
        let (right, wrong) = guessed(&reply);
        assert!(right > 40 && wrong < 10, "{right} {wrong}");
    }
    for wrong in [
        json!("a text"),
        json!({"content": "a"}),
        json!({"type": "content"}),
        json!({"type": "content", "content": [{"type": "image_url"}]}),
        json!({"type": "content", "content": 3}),
    ] {
        let error = test.error(
            COMPLETIONS,
            &over(body(), &json!({"prediction": wrong})),
            400,
        );
        assert_eq!(error["param"], "prediction", "{wrong}");
    }
}
