//! Schemas of every keyword: what is written by them is valid, what is valid can be written, and
//! what is not valid cannot. The crate `jsonschema` is the judge.

mod support;

use serde_json::Value;
use sterna_grammar::{Grammars, Rule};
use sterna_runtime::{Constraint, Tokenizer};
use sterna_ternary::random::SplitMix64;
use support::{WORDS, allowed, random_text, tokenizer};

/// A schema, values that are valid by it, and values that are not, one per line.
const SCHEMAS: &str = include_str!("schemas.jsonl");

/// Whether a text keeps to a rule from its beginning to its end.
fn keeps(mut rule: Box<dyn Constraint>, tokenizer: &Tokenizer, size: usize, text: &str) -> bool {
    for id in tokenizer.encode(text, false).unwrap() {
        if rule.is_complete() || rule.accept(id).is_err() {
            return false;
        }
    }
    let ends = |id: &u32| allowed(&mut *rule.clone(), size).contains(*id);
    rule.is_complete() || tokenizer.eos().iter().any(ends)
}

/// What is wrong with a case, and the number of texts that were written by its schema.
fn check(grammars: &Grammars, tokenizer: &Tokenizer, size: usize, case: &Value) -> (String, usize) {
    let schema = &case["schema"];
    let judge = jsonschema::options().should_validate_formats(true);
    let judge = match judge.build(schema) {
        Ok(judge) => judge,
        Err(error) => return (format!("the judge: {error}\n"), 0),
    };
    let rule = match grammars.compile(&Rule::JsonSchema(schema.clone())) {
        Ok(rule) => rule,
        Err(error) => return (format!("{error}\n"), 0),
    };
    let mut wrong = String::new();
    for (list, is_valid) in [("valid", true), ("invalid", false)] {
        for value in case[list].as_array().unwrap() {
            let text = value.to_string();
            if judge.is_valid(value) != is_valid {
                wrong += &format!("by the judge {text} is not {list}\n");
            }
            if keeps(rule.clone(), tokenizer, size, &text) != is_valid {
                wrong += &format!("{text} is not {list}\n");
            }
        }
    }
    let mut random = SplitMix64(schema.to_string().len() as u64);
    let mut finished = 0;
    for _ in 0..24 {
        let Some(text) = random_text(rule.clone(), tokenizer, size, &mut random, 300) else {
            continue;
        };
        finished += 1;
        match serde_json::from_str::<Value>(&text) {
            Ok(value) if judge.is_valid(&value) => {}
            // Free values have numbers like 1e999, which is JSON.
            Err(error) if error.to_string().starts_with("number out of range") => {}
            Ok(_) => wrong += &format!("{text} was written\n"),
            Err(error) => wrong += &format!("{text} was written: {error}\n"),
        }
    }
    if finished < 4 {
        wrong += &format!("{finished} texts ended\n");
    }
    (wrong, finished)
}

#[test]
fn texts_are_valid_and_valid_texts_can_be_written() {
    let (tokenizer, size) = tokenizer(&WORDS);
    let grammars = Grammars::new(&tokenizer, size).unwrap();
    let (mut schemas, mut written, mut wrong) = (0, 0, String::new());
    for line in SCHEMAS.lines() {
        let case: Value = serde_json::from_str(line).unwrap();
        let (why, finished) = check(&grammars, &tokenizer, size, &case);
        if !why.is_empty() {
            wrong += &format!("{}:\n{why}", case["schema"]);
        }
        (schemas, written) = (schemas + 1, written + finished);
    }
    assert!(wrong.is_empty(), "{wrong}");
    assert!(schemas > 100 && written > 1500, "{schemas} {written}");
}

#[test]
fn a_name_that_is_required_twice_counts_once() {
    let (tokenizer, size) = tokenizer(&WORDS);
    let grammars = Grammars::new(&tokenizer, size).unwrap();
    let schema = serde_json::json!({"type": "object", "properties": {"a": true, "b": true},
        "required": ["a", "a"], "minProperties": 2, "additionalProperties": false});
    let rule = grammars.compile(&Rule::JsonSchema(schema)).unwrap();
    for (text, is_fine) in [(r#"{"a":1,"b":2}"#, true), (r#"{"a":1}"#, false)] {
        assert_eq!(
            keeps(rule.clone(), &tokenizer, size, text),
            is_fine,
            "{text}"
        );
    }
}

#[test]
fn another_spelling_of_a_key_does_not_escape_its_schema() {
    let (tokenizer, size) = tokenizer(&WORDS);
    let grammars = Grammars::new(&tokenizer, size).unwrap();
    let schema = serde_json::json!({"type": "object", "properties": {"a": {"type": "integer"}}});
    let rule = grammars.compile(&Rule::JsonSchema(schema)).unwrap();
    for (text, is_fine) in [
        (r#"{"a":1}"#, true),
        (r#"{"b":"x"}"#, true),
        (r#"{"a":"x"}"#, false),
        (r#"{"\u0061":"x"}"#, false),
    ] {
        assert_eq!(
            keeps(rule.clone(), &tokenizer, size, text),
            is_fine,
            "{text}"
        );
    }
}
