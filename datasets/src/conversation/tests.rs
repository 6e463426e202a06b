use serde_json::json;

use super::*;

fn conversation(record: Value) -> Result<Conversation, String> {
    read(&record.to_string(), None).remove(0)
}

fn read(lines: &str, layout: Option<Layout>) -> Vec<Result<Conversation, String>> {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("a.jsonl"), lines).unwrap();
    let found = conversations(&[folder.path().to_owned()], layout).unwrap();
    found.map(|c| c.map_err(|e| e.to_string())).collect()
}

/// Roles and texts; a text that is read only is in brackets.
fn said(record: Value) -> Vec<(String, String)> {
    let messages = conversation(record).unwrap().messages.into_iter();
    let pair = |m: Message| {
        let text = m.content().to_owned();
        let text = match m.is_learned {
            true => text,
            false => format!("({text})"),
        };
        (m.role().to_owned(), text)
    };
    messages.map(pair).collect()
}

#[test]
fn every_layout_says_the_same() {
    let hi = json!({"role": "user", "content": "Hi"});
    let yo = json!({"role": "assistant", "content": "Yo"});
    let parts = |text: &str| json!([{"type": "text", "text": text}]);
    let records = [
        json!({"messages": [hi, yo]}),
        json!({"messages": json!([hi, yo]).to_string()}),
        json!({"messages": null, "conversation": [hi, yo]}),
        json!({"conversations": [hi, yo]}),
        json!({"conversations": [
            {"from": "human", "value": "Hi"},
            {"from": "gpt", "value": "Yo"},
        ]}),
        json!({"dialogue": [{"from": "User", "value": "Hi"}, {"from": "chatgpt", "value": "Yo"}]}),
        json!({"messages": [hi, {"role": "bot", "content": "Yo"}]}),
        json!({"messages": [
            {"role": "user", "content": parts("Hi")},
            {"role": "assistant", "content": parts("Yo"), "tool_calls": null},
        ]}),
        json!({"instruction": "Hi", "input": "", "output": "Yo"}),
        json!({"instruction": "Hi", "context": " ", "response": "Yo"}),
        json!({"question": "Hi", "answer": "Yo"}),
        json!({"system_prompt": "", "question": "Hi", "response": "Yo"}),
        json!({"messages": null, "instruction": null, "prompt": "Hi", "response": "Yo"}),
    ];
    let expected = [("user", "Hi"), ("assistant", "Yo")].map(|(r, c)| (r.into(), c.into()));
    for record in records {
        assert_eq!(said(record.clone()), expected, "{record}");
    }
}

#[test]
fn prompts_of_completions_and_of_chosen_answers_are_read_only() {
    let hi = json!({"role": "user", "content": "Hi"});
    let yo = json!({"role": "assistant", "content": "Yo"});
    let ok = json!({"role": "user", "content": "Ok?"});
    let [yes, no] = ["Yes", "No"].map(|text| json!({"role": "assistant", "content": text}));
    let short = [("user", "(Hi)"), ("assistant", "Yo")];
    let long = [
        ("user", "(Hi)"),
        ("assistant", "(Yo)"),
        ("user", "(Ok?)"),
        ("assistant", "Yes"),
    ];
    for (record, expected) in [
        (json!({"prompt": "Hi", "completion": "Yo"}), &short[..]),
        (json!({"prompt": [hi], "completion": [yo]}), &short),
        (json!({"prompt": [hi, yo, ok], "completion": [yes]}), &long),
        (
            json!({"prompt": "Hi", "chosen": "Yo", "rejected": "No"}),
            &short,
        ),
        (
            json!({"question": "Hi", "chosen": "Yo", "rejected": "No"}),
            &short,
        ),
        (
            json!({"prompt": [hi], "chosen": [yo], "rejected": [no]}),
            &short,
        ),
        (json!({"chosen": [hi, yo], "rejected": [hi, no]}), &short),
        (
            json!({"conversations": [{"from": "human", "value": "Hi"}],
                "chosen": {"from": "gpt", "value": "Yo"},
                "rejected": {"from": "gpt", "value": "No"}}),
            &short,
        ),
        (
            json!({"prompt": "Hi", "chosen": [hi, yo], "rejected": [hi, no]}),
            &short,
        ),
        (
            json!({"prompt": "Ok?", "chosen": [hi, yo, ok, yes], "rejected": [hi, yo, ok, no]}),
            &long,
        ),
    ] {
        let expected: Vec<_> = expected
            .iter()
            .map(|(r, c)| (r.to_string(), c.to_string()))
            .collect();
        assert_eq!(said(record.clone()), expected, "{record}");
    }
}

#[test]
fn messages_keep_their_fields_in_order_and_lose_only_nulls() {
    let call = json!([{"id": "7", "function": {"name": "tide", "arguments": {"z": 1, "a": null}}}]);
    let found = conversation(json!({
        "tools": json!([{"type": "function", "function": {"name": "tide"}}]).to_string(),
        "chat_template_kwargs": {"enable_thinking": true},
        "source": "x", "score": null,
        "messages": [
            {"role": "user", "content": "Tide?", "name": "Ann", "tool_calls": null},
            {"role": "assistant", "content": null, "tool_calls": call, "thinking": "hm"},
            {"role": "tool", "content": "low", "tool_call_id": "7"},
            {"role": "assistant", "content": "Low."},
        ],
    }))
    .unwrap();
    let fields: Vec<String> = found
        .messages
        .iter()
        .map(|m| json!(m.fields).to_string())
        .collect();
    assert_eq!(
        fields,
        [
            r#"{"role":"user","content":"Tide?","name":"Ann"}"#.to_owned(),
            format!(r#"{{"role":"assistant","content":null,"tool_calls":{call},"thinking":"hm"}}"#),
            r#"{"role":"tool","content":"low","tool_call_id":"7"}"#.to_owned(),
            r#"{"role":"assistant","content":"Low."}"#.to_owned(),
        ]
    );
    let tool = json!([{"type": "function", "function": {"name": "tide"}}]);
    assert_eq!(
        json!(found.variables),
        json!({"tools": tool, "enable_thinking": true})
    );
    assert_eq!(found.unread, ["source"]);
}

#[test]
fn system_and_history_stand_before_the_question() {
    let found = said(json!({
        "system": "Be brief.", "history": [["a?", "a."]],
        "instruction": "Add", "input": "1 2", "output": "3",
    }));
    let expected = [
        ("system", "Be brief."),
        ("user", "a?"),
        ("assistant", "a."),
        ("user", "Add\n1 2"),
        ("assistant", "3"),
    ];
    assert_eq!(found, expected.map(|(r, c)| (r.to_owned(), c.to_owned())));
    let talk = |first: Value, system: &str| {
        let answer = json!({"role": "assistant", "content": "Yo"});
        conversation(json!({"system": system, "messages": [first, answer]}))
    };
    let system = json!({"role": "system", "content": "A"});
    assert_eq!(talk(system.clone(), "A").unwrap().messages.len(), 2);
    let error = talk(system, "B").unwrap_err();
    assert!(
        error.contains("two different messages of the system"),
        "{error}"
    );
}

#[test]
fn calls_and_results_of_sharegpt_are_those_of_tools() {
    let found = conversation(json!({"conversations": [
        {"from": "human", "value": "Tide?"},
        {"from": "function_call", "value": "{\"name\": \"tide\", \"arguments\": {\"at\": 3}}"},
        {"from": "observation", "value": "low"},
        {"from": "gpt", "value": "Low."},
    ]}))
    .unwrap();
    let call = &found.messages[1].fields["tool_calls"][0]["function"];
    assert_eq!(*call, json!({"name": "tide", "arguments": {"at": 3}}));
    let roles: Vec<&str> = found.messages.iter().map(Message::role).collect();
    assert_eq!(roles, ["user", "assistant", "tool", "assistant"]);
    assert_eq!(
        found.renamed[2],
        ("observation".to_owned(), "tool".to_owned())
    );
}

#[test]
fn answers_that_are_not_wanted_are_marked() {
    let messages = |role: &str, text: &str| json!([{"role": role, "content": text}]);
    let of = |mut record: Value, key: &str, value: Value| {
        record[key] = value;
        conversation(record).map(|found| (found.is_undesirable, found.unread))
    };
    let texts = json!({"prompt": "q", "completion": "a"});
    let lists = json!({"prompt": messages("user", "q"), "completion": messages(ASSISTANT, "a")});
    for record in [texts.clone(), lists] {
        for (value, expected) in [
            (json!(false), true),
            (json!(true), false),
            (json!(0), true),
            (json!("False"), true),
            (json!(1), false),
            (json!(null), false),
        ] {
            let found = of(record.clone(), "label", value.clone()).unwrap();
            assert_eq!(found, (expected, vec![]), "{value}");
        }
    }
    let chat = json!({"messages": [{"role": "user", "content": "q"},
        {"role": "assistant", "content": "a"}]});
    let found = of(chat.clone(), "kto_tag", json!(false)).unwrap();
    assert_eq!(found, (true, vec![]));
    // A label of another kind is a key that is not read.
    let label = vec!["label".to_owned()];
    assert_eq!(
        of(texts, "label", json!("maths")).unwrap(),
        (false, label.clone())
    );
    assert_eq!(of(chat.clone(), "label", json!(0)).unwrap(), (false, label));
    let found = of(chat, "label", json!(false)).unwrap();
    assert_eq!(found, (true, vec![]));
}

#[test]
fn weights_of_messages_say_what_is_learned() {
    for (key, value, is_learned) in [
        ("weight", json!(0), false),
        ("weight", json!(1.0), true),
        ("train", json!(false), false),
        ("trainable", json!(true), true),
        ("loss_mask", json!(0), false),
        ("loss", json!(false), false),
        ("weight", json!(null), true),
    ] {
        let answer = json!({"role": "assistant", "content": "Yo", key: value});
        let found = conversation(json!({"messages": [answer]})).unwrap();
        assert_eq!(found.messages[0].is_learned, is_learned, "{key} {value}");
        assert!(!found.messages[0].fields.contains_key(key));
    }
    let half = json!({"messages": [{"role": "assistant", "content": "Yo", "weight": 0.5}]});
    let error = conversation(half).unwrap_err();
    assert!(
        error.contains("message 1: `weight` is 0.5, expected 0 or 1"),
        "{error}"
    );
}

#[test]
fn a_layout_that_is_named_is_the_one_that_is_read() {
    let line = json!({"prompt": "Hi", "completion": "Yo", "instruction": "A", "output": "B"});
    let with = |layout| read(&line.to_string(), layout).remove(0);
    let found = with(Some(Layout::Alpaca)).unwrap();
    assert_eq!(
        (found.messages[0].content(), found.messages[1].content()),
        ("A", "B")
    );
    assert_eq!(found.unread, ["prompt", "completion"]);
    assert_eq!(with(None).unwrap().layout, Layout::PromptCompletion);
    let error = with(Some(Layout::Messages)).unwrap_err();
    assert!(error.contains("there is no `messages`"), "{error}");
    for layout in Layout::ALL {
        assert_eq!(layout.name().parse(), Ok(layout));
    }
    assert!("chat".parse::<Layout>().unwrap_err().contains("sharegpt"));
}

#[test]
fn errors_name_line_and_reason_and_reading_goes_on() {
    let lines = r#"{"messages": 3}
        {"messages": [{"role": "user"}]}
        {"conversations": [{"from": "human", "value": "Hi"}]}
        {"prompt": "Hi"}
        {"body": "x", "y": 1}
        nothing
        {"messages": []}
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]}
        {"messages": [{"role": "user", "content": null}]}
        {"messages": ["Hi", "Yo"]}
        {"chosen": "Yo", "rejected": "No"}
        {"prompt": "Hi", "completion": "Yo"}"#;
    let found = read(lines, None);
    for (i, expected) in [
        "line 1: `messages` is not a list",
        "line 2: message 1: there is no `content`",
        "line 3: there is no message of the assistant",
        "line 4: there is no `completion`",
        "line 5: the record has none of the known keys, but `body`, `y`",
        "line 6: expected",
        "line 7: there is no message",
        "line 8: message 1: `content` has a part of type \"image_url\"",
        "line 9: message 1: `content` is null, and it has nothing else",
        "line 10: message 1: it is not an object with `role` and `content`",
        "line 11: `chosen` has no message of the user, and there is no `prompt`",
    ]
    .into_iter()
    .enumerate()
    {
        let error = found[i].as_ref().unwrap_err();
        assert!(
            error.contains("a.jsonl") && error.contains(expected),
            "{error}"
        );
    }
    assert!(found[11].is_ok() && found.len() == 12);
}

#[test]
fn records_of_python_are_read_and_marked() {
    let lines = r#"{"score": NaN, "prompt": "Hi", "completion": "Y\ud83d"}
        {"prompt": "Hi", "completion": "Yo"}"#;
    let found = read(lines, None);
    let answer = |i: usize| {
        let conversation = found[i].as_ref().unwrap();
        (conversation.messages[1].content(), conversation.is_repaired)
    };
    assert_eq!((answer(0), answer(1)), (("Y\u{fffd}", true), ("Yo", false)));
}

#[test]
fn files_of_another_kind_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.txt");
    std::fs::write(&path, "Hi").unwrap();
    assert!(matches!(
        conversations(&[path], None),
        Err(Error::NoRecords { .. })
    ));
    let empty = conversations(&[folder.path().to_owned()], None);
    assert!(matches!(empty, Err(Error::NoRecords { .. })));
}
