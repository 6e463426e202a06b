//! Calls of tools over a small vocabulary with every token drawn at random, and texts that a rule
//! must allow or refuse.

mod support;

use serde_json::{Value, json};
use sterna_grammar::{Calls, Error, Grammars};
use sterna_runtime::calls::{CallSyntax, Part, Place};
use sterna_runtime::{Allowed, Constraint, Tokenizer};
use sterna_ternary::random::SplitMix64;
use support::tokenizer_with;

const SPECIALS: [&str; 5] = ["<s>", "</s>", "<call>", "</call>", "<|python_tag|>"];
/// Words that lie across the ends of fixed texts and of JSON.
const WORDS: [&str; 14] = [
    "<tool_call>",
    "</tool_call>",
    "\n{\"",
    "\": {",
    " {\"",
    "}}\n",
    "}\n</",
    "{\"name\": \"",
    "_call>\n",
    " <tool",
    "true",
    "}}",
    "call>",
    "l>\n{\"name",
];

fn text(text: &str) -> Part {
    Part::Text(text.to_owned())
}

/// As Hermes and Qwen write calls.
fn tagged() -> CallSyntax {
    CallSyntax {
        open: vec![text("<tool_call>\n{\"name\": \"")],
        middle: vec![text("\", \"arguments\": ")],
        separator: Some(vec![text("}\n</tool_call>\n<tool_call>\n{\"name\": \"")]),
        close: vec![text("}\n</tool_call>")],
        takes_text: false,
    }
}

/// The same with special tokens.
fn special() -> CallSyntax {
    let (open, close) = (Part::Special(2), Part::Special(3));
    CallSyntax {
        open: vec![open.clone(), text("\n{\"name\": \"")],
        middle: vec![text("\", \"arguments\": ")],
        separator: Some(vec![
            text("}\n"),
            close.clone(),
            text("\n"),
            open,
            text("\n{\"name\": \""),
        ]),
        close: vec![text("}\n"), close],
        takes_text: false,
    }
}

/// As Llama 3 writes calls.
fn bare() -> CallSyntax {
    CallSyntax {
        open: vec![text("{\"name\": \"")],
        middle: vec![text("\", \"parameters\": ")],
        separator: None,
        close: vec![text("}")],
        takes_text: false,
    }
}

fn tools() -> Vec<(String, Value)> {
    let closed = |properties: Value, required: Value| {
        json!({"type": "object", "properties": properties, "required": required,
            "additionalProperties": false})
    };
    vec![
        (
            "a".into(),
            closed(json!({"b": {"type": "boolean"}}), json!(["b"])),
        ),
        (
            "ab".into(),
            closed(json!({"n": {"enum": [1, "}\n</tool_call>"]}}), json!([])),
        ),
        ("a-b".into(), closed(json!({}), json!([]))),
    ]
}

struct Test {
    grammars: Grammars,
    tokenizer: Tokenizer,
    vocab_size: usize,
}

impl Test {
    fn new() -> Test {
        let (tokenizer, vocab_size) = tokenizer_with(&SPECIALS, &WORDS);
        let grammars = Grammars::new(&tokenizer, vocab_size).unwrap();
        Test {
            grammars,
            tokenizer,
            vocab_size,
        }
    }

    fn rule(&self, syntax: &CallSyntax, place: Place, are_several: bool) -> Box<dyn Constraint> {
        let tools = tools();
        let calls = Calls {
            syntax,
            tools: &tools,
            place: &place,
            are_several,
        };
        self.grammars.calls(calls).unwrap()
    }

    fn allowed(&self, rule: &mut dyn Constraint) -> Allowed {
        let mut allowed = Allowed::none(self.vocab_size);
        rule.allow(&mut allowed).unwrap();
        allowed
    }

    /// A text with every token drawn, special tokens by their names.
    fn draw(&self, mut rule: Box<dyn Constraint>, random: &mut SplitMix64) -> Option<String> {
        let mut bytes = Vec::new();
        for _ in 0..300 {
            if rule.is_complete() {
                return Some(String::from_utf8(bytes).unwrap());
            }
            let ids: Vec<u32> = self.allowed(&mut *rule).ids().collect();
            let id = ids[random.next() as usize % ids.len()];
            rule.accept(id).unwrap();
            if id == 1 {
                return Some(String::from_utf8(bytes).unwrap());
            }
            bytes.extend(self.tokenizer.bytes(id));
        }
        None
    }

    /// Whether a rule allows a text, byte by byte, and its end. Special tokens are in brackets.
    fn allows(&self, mut rule: Box<dyn Constraint>, text: &str) -> bool {
        let mut rest = text;
        while !rest.is_empty() {
            let name = SPECIALS.iter().position(|name| rest.starts_with(name));
            let ids: Vec<u32> = match name {
                Some(id) => {
                    rest = &rest[SPECIALS[id].len()..];
                    vec![id as u32]
                }
                None => {
                    let length = rest.chars().next().unwrap().len_utf8();
                    let bytes = rest[..length].bytes();
                    let ids = bytes.map(|byte| SPECIALS.len() as u32 + u32::from(byte));
                    rest = &rest[length..];
                    ids.collect()
                }
            };
            for id in ids {
                if rule.is_complete() || !self.allowed(&mut *rule).contains(id) {
                    return false;
                }
                rule.accept(id).unwrap();
            }
        }
        rule.is_complete() || self.allowed(&mut *rule).contains(1)
    }
}

/// The calls of a text: what is left must be fixed.
fn calls(syntax: &CallSyntax, text: &str) -> Vec<(String, Value)> {
    let written = |parts: &[Part]| -> String {
        let part = |part: &Part| match part {
            Part::Text(text) => text.clone(),
            Part::Special(id) => SPECIALS[*id as usize].to_owned(),
        };
        parts.iter().map(part).collect()
    };
    let (middle, close) = (written(&syntax.middle), written(&syntax.close));
    let mut rest = text
        .strip_prefix(&written(&syntax.open))
        .unwrap()
        .to_owned();
    let mut found = Vec::new();
    loop {
        let (name, after) = rest.split_once(&middle).unwrap();
        let mut values = serde_json::Deserializer::from_str(after).into_iter::<Value>();
        let value = values.next().unwrap().unwrap();
        found.push((name.to_owned(), value));
        let after = &after[values.byte_offset()..];
        if after == close {
            return found;
        }
        let separator = written(syntax.separator.as_ref().unwrap());
        rest = after
            .strip_prefix(&separator)
            .unwrap_or_else(|| panic!("{text}"))
            .to_owned();
    }
}

#[test]
fn drawn_calls_are_whole() {
    let test = Test::new();
    let mut random = SplitMix64(3);
    for syntax in [tagged(), special(), bare(), CallSyntax::plain()] {
        let (mut ended, mut several) = (0, 0);
        for are_several in [false, true] {
            for _ in 0..40 {
                let rule = test.rule(&syntax, Place::First, are_several);
                let Some(text) = test.draw(rule, &mut random) else {
                    continue;
                };
                let found = calls(&syntax, &text);
                for (name, value) in &found {
                    assert!(tools().iter().any(|(known, _)| known == name), "{text}");
                    match name.as_str() {
                        "a" => assert!(value["b"].is_boolean(), "{text}"),
                        "a-b" => assert_eq!(*value, json!({}), "{text}"),
                        _ => assert!(value.as_object().unwrap().len() < 2, "{text}"),
                    }
                }
                assert!(are_several || found.len() == 1, "{text}");
                ended += 1;
                several += usize::from(found.len() > 1);
            }
        }
        assert!(ended > 60, "{ended} {syntax:?}");
        assert_eq!(several > 0, syntax.separator.is_some(), "{syntax:?}");
    }
}

#[test]
fn text_is_free_until_a_call() {
    let test = Test::new();
    let call = "{\"name\": \"a\", \"arguments\": {\"b\": true}}";
    let tag = || Place::Tag(text("<tool_call>"));
    let token = || Place::Tag(Part::Special(2));
    let start = || Place::Start(vec![4]);
    let (tagged, special, bare) = (tagged(), special(), bare());
    for (syntax, place, text, is_fine) in [
        (&tagged, tag(), "".into(), true),
        (&tagged, tag(), "é <tool_cal {\"name".into(), true),
        (&tagged, tag(), "<tool_call> is a tag".into(), false),
        (
            &tagged,
            tag(),
            format!("<tool_call>\n{call}\n</tool_call>"),
            true,
        ),
        (
            &tagged,
            tag(),
            format!("I\n<<tool_call>\n{call}\n</tool_call>"),
            true,
        ),
        (
            &tagged,
            tag(),
            format!("<tool_call>\n{call}\n</tool_call> I"),
            false,
        ),
        (&tagged, tag(), format!("<tool_call>\n{call}"), false),
        (&tagged, tag(), "<call>".into(), false),
        (&special, token(), "<tool_call> I".into(), true),
        (
            &special,
            token(),
            format!("I <call>\n{call}\n</call>"),
            true,
        ),
        (&special, token(), format!("<call>\n{call}\n</call>"), true),
        (&special, token(), "<call>I".into(), false),
        (&special, token(), "</call>".into(), false),
        (&bare, start(), "".into(), true),
        (&bare, start(), "{\"nam\": 1}".into(), true),
        (&bare, start(), "I {\"name\": \"a\"".into(), true),
        (&bare, start(), "{\"name\": \"x".into(), false),
        (
            &bare,
            start(),
            call.replace("arguments", "parameters"),
            true,
        ),
        (
            &bare,
            start(),
            format!("<|python_tag|>{}", call.replace("arguments", "parameters")),
            true,
        ),
        (&bare, start(), "<|python_tag|>I".into(), false),
        (&bare, start(), "I<|python_tag|>".into(), false),
    ] {
        let rule = test.rule(syntax, place, true);
        assert_eq!(test.allows(rule, &text), is_fine, "{text:?}");
    }
}

#[test]
fn ways_ahead_and_back_change_nothing() {
    let test = Test::new();
    let mut random = SplitMix64(11);
    let tag = || Place::Tag(text("<tool_call>"));
    let special_tag = || Place::Tag(Part::Special(2));
    for (syntax, place) in [
        (tagged(), Place::First),
        (tagged(), tag()),
        (special(), special_tag()),
        (bare(), Place::Start(vec![4])),
    ] {
        for _ in 0..30 {
            let mut rule = test.rule(&syntax, place.clone(), true);
            let mut twin = rule.fork();
            for _ in 0..60 {
                if twin.is_complete() {
                    break;
                }
                let mut ahead = 0;
                if rule.rollback(0).unwrap() {
                    let forced = rule.forced();
                    for id in forced.into_iter().chain([u32::MAX, u32::MAX]) {
                        if rule.is_complete() {
                            break;
                        }
                        let allowed: Vec<u32> = test.allowed(&mut *rule).ids().collect();
                        let drawn = allowed[random.next() as usize % allowed.len()];
                        let id = if allowed.contains(&id) { id } else { drawn };
                        rule.accept(id).unwrap();
                        ahead += 1;
                    }
                    rule.rollback(ahead).unwrap();
                }
                let expected = test.allowed(&mut *twin);
                assert_eq!(
                    test.allowed(&mut *rule),
                    expected,
                    "{syntax:?} {place:?} {ahead}"
                );
                let ids: Vec<u32> = expected.ids().collect();
                let id = ids[random.next() as usize % ids.len()];
                rule.accept(id).unwrap();
                twin.accept(id).unwrap();
            }
        }
    }
}

#[test]
fn a_tool_that_cannot_be_enforced_is_named() {
    let test = Test::new();
    let bad = json!({"properties": {"x": {"type": "array", "uniqueItems": true}}});
    let foreign = json!({"properties": {"x": {"nullable": true}}});
    for (schema, place) in [
        (bad, "#/properties/x/uniqueItems"),
        (foreign, "#/properties/x/nullable"),
    ] {
        let mut tools = tools();
        tools[1].1 = schema;
        let calls = Calls {
            syntax: &tagged(),
            tools: &tools,
            place: &Place::First,
            are_several: false,
        };
        let (index, error) = test.grammars.calls(calls).unwrap_err();
        assert_eq!(index, Some(1));
        let Error::Schema { pointer, .. } = error else {
            panic!("{error}");
        };
        assert_eq!(pointer, place);
    }
    // Arguments are an object, whatever the schema allows.
    let schema = json!({"$schema": "http://json-schema.org/draft-07/schema#", "type": "object",
        "$ref": "#/definitions/a", "definitions": {"a": {"type": ["object", "integer"]}}});
    let calls = Calls {
        syntax: &tagged(),
        tools: &[("a".into(), schema)],
        place: &Place::First,
        are_several: false,
    };
    let rule = test.grammars.calls(calls).unwrap();
    let (mut random, mut ended) = (SplitMix64(1), 0);
    for _ in 0..40 {
        if let Some(text) = test.draw(rule.clone(), &mut random) {
            let found = self::calls(&tagged(), &text);
            assert!(found.iter().all(|(_, value)| value.is_object()), "{text}");
            ended += 1;
        }
    }
    assert!(ended > 4, "{ended}");
    // Before anything is read, the size of all tools together is bounded.
    let schema = json!({"description": "x".repeat(100_000)});
    let tools: Vec<_> = (0..3).map(|i| (format!("t{i}"), schema.clone())).collect();
    let calls = Calls {
        syntax: &tagged(),
        tools: &tools,
        place: &Place::First,
        are_several: false,
    };
    let (index, error) = test.grammars.calls(calls).unwrap_err();
    assert!(
        index.is_none() && matches!(error, Error::TooLarge { .. }),
        "{error}"
    );
}
