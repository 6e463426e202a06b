//! Rules over small vocabularies, against all texts that they allow, and with every token drawn at
//! random: nothing but the mask makes an answer valid.

mod support;

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sterna_grammar::{Error, Grammars, KEPT, LONGEST, Rule, unknown_keywords};
use sterna_runtime::{Constraint, Tokenizer};
use sterna_ternary::random::SplitMix64;
use support::{WORDS, allowed, random_text, tokenizer};

fn grammars(words: &[&str]) -> (Grammars, Tokenizer, usize) {
    let (tokenizer, vocab_size) = tokenizer(words);
    let grammars = Grammars::new(&tokenizer, vocab_size).unwrap();
    (grammars, tokenizer, vocab_size)
}

#[test]
fn masks_are_those_of_brute_force() {
    let (grammars, tokenizer, vocab_size) = grammars(&WORDS);
    let mut random = SplitMix64(5);
    let letters = ["a", "b", "c", "é", "1", "2", " "];
    let mut compared = 0;
    for _ in 0..60 {
        // A rule that allows some texts and no others.
        let mut text = || -> String {
            let length = 1 + random.next() as usize % 5;
            (0..length)
                .map(|_| letters[random.next() as usize % letters.len()])
                .collect()
        };
        let texts: Vec<String> = (0..6).map(|_| text()).collect();
        let mut constraint = grammars.compile(&Rule::Regex(texts.join("|"))).unwrap();
        let mut prefix = Vec::new();
        while !constraint.is_complete() {
            there_and_back(&mut *constraint, &mut random, vocab_size);
            let found = allowed(&mut *constraint, vocab_size);
            let begins = |bytes: &[u8]| texts.iter().any(|t| t.as_bytes().starts_with(bytes));
            for id in 0..vocab_size as u32 {
                let expected = match tokenizer.eos().contains(&id) {
                    true => texts.iter().any(|t| t.as_bytes() == prefix),
                    false if tokenizer.is_special(id) => false,
                    false => begins(&[&prefix, tokenizer.bytes(id)].concat()),
                };
                assert_eq!(found.contains(id), expected, "{texts:?} {prefix:?} {id}");
                compared += 1;
            }
            let ids: Vec<u32> = found
                .ids()
                .filter(|id| !tokenizer.eos().contains(id))
                .collect();
            let Some(id) = ids.get(random.next() as usize % ids.len().max(1)) else {
                break;
            };
            constraint.accept(*id).unwrap();
            prefix.extend(tokenizer.bytes(*id));
        }
        assert!(
            texts.iter().any(|t| t.as_bytes() == prefix),
            "{texts:?} {prefix:?}"
        );
    }
    assert!(compared > 30_000, "{compared}");
}

/// Follows a few tokens and takes them back.
fn there_and_back(constraint: &mut dyn Constraint, random: &mut SplitMix64, vocab_size: usize) {
    let most = random.next() % 4;
    let mut accepted = 0;
    while accepted < most && !constraint.is_complete() {
        constraint.forced();
        let ids: Vec<u32> = allowed(constraint, vocab_size).ids().collect();
        let id = ids[random.next() as usize % ids.len()];
        constraint.accept(id).unwrap();
        accepted += 1;
    }
    assert!(constraint.rollback(accepted as usize).unwrap());
}

#[test]
fn what_has_no_choice_is_forced() {
    let (grammars, tokenizer, vocab_size) = grammars(&WORDS);
    let schema = json!({"type": "object", "properties": {"abc": {"enum": ["b1", "b2"]}},
        "required": ["abc"], "additionalProperties": false});
    let mut constraint = grammars.compile(&Rule::JsonSchema(schema)).unwrap();
    let (mut text, mut forced) = (Vec::new(), Vec::new());
    while !constraint.is_complete() {
        let guesses = constraint.forced();
        for id in guesses {
            assert!(allowed(&mut *constraint, vocab_size).contains(id));
            constraint.accept(id).unwrap();
            forced.extend(tokenizer.bytes(id));
            text.extend(tokenizer.bytes(id));
        }
        if constraint.is_complete() {
            break;
        }
        let first = allowed(&mut *constraint, vocab_size).ids().next().unwrap();
        constraint.accept(first).unwrap();
        text.extend(tokenizer.bytes(first));
    }
    let text = String::from_utf8(text).unwrap();
    assert!(text.contains("\"abc\""), "{text}");
    assert!(forced.len() >= 4, "{:?}", String::from_utf8_lossy(&forced));
    // Rules whose lexemes end where another text begins are not taken back.
    let lark = "start: t \"!\"\nt[stop=\"x\"]: /[a-z]*/".to_owned();
    let mut constraint = grammars.compile(&Rule::Lark(lark)).unwrap();
    assert!(!constraint.rollback(0).unwrap());
}

#[test]
fn random_texts_keep_to_their_schema() {
    let (grammars, tokenizer, vocab_size) = grammars(&WORDS);
    type Check = fn(&Value) -> bool;
    let schemas: [(Value, Check); 6] = [
        (
            json!({"type": "object", "properties": {"a": {"type": "boolean"},
                "b": {"enum": ["x", 1, null]}}, "required": ["a", "b"],
                "additionalProperties": false}),
            |v| {
                let keys: Vec<&String> = v.as_object().unwrap().keys().collect();
                let is_listed = [json!("x"), json!(1), json!(null)].contains(&v["b"]);
                keys == ["a", "b"] && v["a"].is_boolean() && is_listed
            },
        ),
        (
            json!({"type": "array", "items": {"type": "integer", "minimum": -3, "maximum": 12},
                "minItems": 2, "maxItems": 4}),
            |v| {
                let items = v.as_array().unwrap();
                let is_fine = |i: &Value| i.as_f64().is_some_and(|i| (-3.0..=12.0).contains(&i));
                (2..=4).contains(&items.len()) && items.iter().all(is_fine)
            },
        ),
        (
            json!({"type": "string", "minLength": 2, "maxLength": 3}),
            |v| (2..=3).contains(&v.as_str().unwrap().chars().count()),
        ),
        (
            json!({"type": "string", "pattern": "^(ab|c)+$", "maxLength": 6}),
            |v| {
                v.as_str()
                    .unwrap()
                    .replace("ab", "")
                    .chars()
                    .all(|c| c == 'c')
            },
        ),
        (
            json!({"anyOf": [{"const": {"k": [1, 2]}}, {"type": "null"}]}),
            |v| *v == json!({"k": [1, 2]}) || v.is_null(),
        ),
        (
            json!({"$defs": {"tree": {"type": "object", "properties": {
                "left": {"anyOf": [{"$ref": "#/$defs/tree"}, {"type": "null"}]}},
                "required": ["left"], "additionalProperties": false}},
                "$ref": "#/$defs/tree"}),
            |v| {
                let mut here = v;
                while here.as_object().is_some_and(|o| o.len() == 1) {
                    here = &here["left"];
                }
                here.is_null()
            },
        ),
    ];
    for (schema, check) in schemas {
        let constraint = grammars.compile(&Rule::JsonSchema(schema.clone())).unwrap();
        let mut random = SplitMix64(1);
        let mut finished = 0;
        for _ in 0..60 {
            let begun = constraint.clone();
            let Some(text) = random_text(begun, &tokenizer, vocab_size, &mut random, 400) else {
                continue;
            };
            let value: Value =
                serde_json::from_str(&text).unwrap_or_else(|e| panic!("{text}: {e}"));
            assert!(check(&value), "{schema}: {text}");
            finished += 1;
        }
        assert!(finished >= 20, "{schema}: {finished} texts ended");
    }
}

#[test]
fn objects_and_grammars_are_followed() {
    let (grammars, tokenizer, vocab_size) = grammars(&WORDS);
    let lark = "start: \"a\" (\"b\" | \"c\")+ \"!\"".to_owned();
    let rules = [Rule::Lark(lark), Rule::Regex("a[bc]+!".into())];
    let mut random = SplitMix64(3);
    for rule in rules {
        let constraint = grammars.compile(&rule).unwrap();
        for _ in 0..40 {
            let begun = constraint.clone();
            let text = random_text(begun, &tokenizer, vocab_size, &mut random, 200).unwrap();
            let middle = text
                .strip_prefix('a')
                .and_then(|t| t.strip_suffix('!'))
                .unwrap();
            assert!(
                !middle.is_empty() && middle.chars().all(|c| "bc".contains(c)),
                "{text}"
            );
        }
    }
    let object = grammars.compile(&Rule::JsonObject).unwrap();
    let mut first = object.clone();
    let found = allowed(&mut *first, vocab_size);
    let starts: Vec<&[u8]> = found.ids().map(|id| tokenizer.bytes(id)).collect();
    assert!(starts.iter().all(|bytes| bytes[0] == b'{'), "{starts:?}");
}

#[test]
fn copies_go_their_own_ways() {
    let (grammars, tokenizer, vocab_size) = grammars(&WORDS);
    let mut one = grammars.compile(&Rule::Regex("ab|ac".into())).unwrap();
    let id = |text: &str| (0..vocab_size as u32).find(|id| tokenizer.bytes(*id) == text.as_bytes());
    one.accept(id("a").unwrap()).unwrap();
    let mut other = one.clone();
    one.accept(id("b").unwrap()).unwrap();
    assert!(one.is_complete() && !other.is_complete());
    let found: Vec<u32> = allowed(&mut *other, vocab_size).ids().collect();
    assert_eq!(found, [id("b").unwrap(), id("c").unwrap()]);
    // What is not allowed is refused, too.
    other.accept(id("12").unwrap()).unwrap_err();
}

#[test]
fn hostile_rules_end() {
    let (grammars, tokenizer, vocab_size) = grammars(&[]);
    let mut nested = json!({"type": "null"});
    for _ in 0..60 {
        nested = json!({"type": "array", "items": nested, "minItems": 1});
    }
    let strings = |n: usize| -> Vec<Value> { (0..n).map(|i| json!(format!("v{i}"))).collect() };
    let properties =
        |n: usize, of: Value| -> Value { (0..n).map(|i| (format!("p{i}"), of.clone())).collect() };
    let mut deep = json!(null);
    for _ in 0..3000 {
        let mut around = serde_json::Map::new();
        around.insert("items".into(), deep);
        deep = Value::Object(around);
    }
    let chain = |n: usize, last: &str| {
        let rule = |i: usize| format!("r{i}: \"a\" r{}\n", i + 1);
        let rules: String = (0..n).map(rule).collect();
        format!("start: r0\n{rules}r{n}: {last}")
    };
    let choices: Vec<Value> = (0..20)
        .map(|i| json!({"anyOf": [{"required": [format!("a{i}")]}, {"required": ["b"]}]}))
        .collect();
    let long = "k".repeat(100_000);
    let schemas = [
        nested,
        json!({"enum": strings(100_000)}),
        json!({"enum": strings(20_000)}),
        json!({"enum": strings(8_000)}),
        json!({"const": strings(20_000)}),
        json!({"type": "array", "minItems": 1_000_000_000u64}),
        json!({"type": "array", "maxItems": 1_000_000_000u64}),
        json!({"type": "string", "maxLength": 1_000_000_000u64}),
        json!({"type": "string", "pattern": "^(a|b)*a(a|b){40}$", "minLength": 1000}),
        json!({"const": "x".repeat(4 << 20)}),
        json!({"$ref": "#"}),
        json!({"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}},
            "propertyNames": {"$ref": "#/$defs/a"}}),
        json!({"$defs": {"a": {"not": {"$ref": "#/$defs/a"}}}, "$ref": "#/$defs/a"}),
        json!({"properties": properties(10_000, json!({}))}),
        json!({"properties": properties(600, json!({"type": "string"}))}),
        json!({"patternProperties": properties(1000, json!({"type": "string"}))}),
        json!({"required": strings(20_000)}),
        json!({"allOf": choices}),
        json!({"oneOf": choices}),
        json!({"type": "integer", "multipleOf": 4_000_000_007u64}),
        json!({"type": "number", "minimum": -1e308, "maximum": 1e308}),
        json!({"propertyNames": {"not": {"const": "a".repeat(250_000)}}}),
        json!({"oneOf": (0..9000).map(|i| json!({"const": i})).collect::<Vec<_>>()}),
        json!({"$defs": {"e": {"enum": strings(4_000)}, "f": {"enum": strings(4_000)}},
            "oneOf": [{"allOf": vec![json!({"$ref": "#/$defs/e"}); 60]},
                {"allOf": vec![json!({"$ref": "#/$defs/f"}); 60]}]}),
        json!({"properties": {long.as_str(): {"$defs": properties(12_000, json!(true))}}}),
        json!({"properties": {long.as_str(): {"$defs": properties(4000, json!({"$id": "a"}))}}}),
        json!({"$defs": properties(9000, json!({"minLength": 1})), "allOf": [false]}),
    ];
    let regexes = [
        "(a{1000}){1000}".to_owned(),
        "a{1000000}".to_owned(),
        "(((a*)*)*)*b".to_owned(),
        "(a|b)*a(a|b){30}".to_owned(),
        "a?".repeat(2000) + &"a".repeat(2000),
        format!("{}a{}", "(".repeat(10_000), ")".repeat(10_000)),
        "x".repeat(LONGEST + 1),
    ];
    let grammars_of = [
        chain(2000, "\"b\""),
        chain(100_000, "\"b\""),
        "start: e\ne: e \"+\" e | e e | /[0-9]+/ | ".to_owned(),
        "start: a\na: a | b\nb: a | \"\"".to_owned(),
        "start: (((\"x\"{1000}){1000}){1000}){1000}".to_owned(),
        format!("start: {}\"a\"{}", "(".repeat(20_000), ")".repeat(20_000)),
        format!(
            "start: %json {}1{}",
            "{\"items\":".repeat(4000),
            "}".repeat(4000)
        ),
    ];
    let rules = schemas.into_iter().map(Rule::JsonSchema);
    let rules = rules.chain(regexes.into_iter().map(Rule::Regex));
    let rules = rules.chain(grammars_of.into_iter().map(Rule::Lark));
    let (mut accepted, mut refused) = (0, 0);
    for rule in rules {
        let start = Instant::now();
        let compiled = grammars.compile(&rule);
        let took = start.elapsed();
        // Limits of the machine count beside ours, so this is only a guard against what never ends.
        let shown: String = format!("{rule:?}").chars().take(100).collect();
        assert!(took < Duration::from_secs(10), "{shown}: {took:?}");
        match compiled {
            Ok(rule) => {
                accepted += 1;
                let mut random = SplitMix64(1);
                random_text(rule, &tokenizer, vocab_size, &mut random, 100);
            }
            Err(error) => {
                refused += 1;
                let error = error.to_string();
                assert!(
                    !error.contains("panic") && error.len() < 500,
                    "{shown}: {error}"
                );
            }
        }
    }
    assert!(accepted > 10 && refused > 10, "{accepted} {refused}");
    // What is nested too deeply is refused before it is read. The value itself is let go one level
    // at a time, as serde_json would recurse.
    let rule = Rule::JsonSchema(deep);
    let error = grammars.compile(&rule).unwrap_err();
    assert!(error.to_string().contains("levels"), "{error}");
    let Rule::JsonSchema(mut deep) = rule else {
        unreachable!()
    };
    while let Some(inner) = deep.get_mut("items").map(Value::take) {
        deep = inner;
    }
    let error = grammars
        .compile(&Rule::Regex("x".repeat(LONGEST + 1)))
        .unwrap_err();
    assert!(matches!(error, Error::TooLarge { .. }), "{error}");
}

#[test]
fn keywords_without_effect_are_named() {
    let schema = json!({"type": "object", "titel": "T", "uniqueItems": true, "properties": {
        "minLenght": {"type": "string", "minLenght": 3}, "a": {"items": [{"x/y": 1}]}},
        "description": "d", "not": {"format": "date"}, "if": {"format": "color"}});
    let found = unknown_keywords(&schema);
    let expected = [
        "#/titel",
        "#/properties/minLenght/minLenght",
        "#/properties/a/items/0/x~1y",
        "#/if/format",
    ];
    assert_eq!(found.len(), expected.len(), "{found:?}");
    assert!(
        expected
            .iter()
            .all(|place| found.contains(&(*place).to_owned())),
        "{found:?}"
    );
}

#[test]
fn of_many_keywords_without_effect_some_are_named() {
    let key = "k".repeat(100_000);
    let wrong = json!({"x": 1});
    let parts: serde_json::Map<_, _> = (0..9000).map(|i| (i.to_string(), wrong.clone())).collect();
    let found = unknown_keywords(&json!({"properties": {key: {"$defs": parts}}}));
    assert_eq!(found.len(), 65);
    assert_eq!(found[64], "# and 8936 more");
}

#[test]
fn the_guilty_part_is_among_those_that_are_used() {
    let (grammars, ..) = grammars(&[]);
    let bad = json!({"type": "string", "pattern": "a$b"});
    let schema = json!({"$defs": {"a": bad, "b": bad}, "items": {"$ref": "#/$defs/b"}});
    let error = grammars.compile(&Rule::JsonSchema(schema)).unwrap_err();
    assert!(error.to_string().contains(" #/$defs/b:"), "{error}");
}

#[test]
fn what_stands_beside_a_reference_counts_since_2019() {
    let mut schema = json!({"definitions": {"a": {"type": "string"}},
        "items": {"$ref": "#/definitions/a", "maxLength": 3, "title": "T"}});
    assert!(unknown_keywords(&schema).is_empty());
    schema["$schema"] = json!("http://json-schema.org/draft-07/schema#");
    assert_eq!(unknown_keywords(&schema), ["#/items/maxLength"]);
}

#[test]
fn rules_are_kept_and_do_not_disturb_each_other() {
    let (grammars, _, vocab_size) = grammars(&WORDS);
    let rule = |i: usize| Rule::Regex(format!("[ab]{{{}}}", i + 2));
    // More rules than are kept, from several threads, in different orders.
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let grammars = &grammars;
            scope.spawn(move || {
                for i in 0..2 * KEPT {
                    let i = (i * (2 * thread + 1)) % (KEPT + 10);
                    let mut compiled = grammars.compile(&rule(i)).unwrap();
                    for _ in 0..i + 2 {
                        assert!(!compiled.is_complete());
                        let id = allowed(&mut *compiled, vocab_size).ids().next().unwrap();
                        compiled.accept(id).unwrap();
                    }
                    assert!(compiled.is_complete());
                }
            });
        }
    });
    // The same text as a rule of another kind is another rule.
    grammars
        .compile(&Rule::Regex("start: \"a\"".into()))
        .unwrap();
    grammars
        .compile(&Rule::Lark("start: \"a\"".into()))
        .unwrap();
}
