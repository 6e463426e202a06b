//! What a schema says beside what the parser checks: places of errors, and keywords without effect.

use serde_json::{Map, Value, json};

use crate::Error;

/// Keywords whose value is a schema.
const ONE: [&str; 10] = [
    "additionalItems",
    "additionalProperties",
    "contains",
    "else",
    "if",
    "items",
    "not",
    "propertyNames",
    "then",
    "unevaluatedProperties",
];
/// Keywords whose value is a list of schemas.
const LIST: [&str; 5] = ["allOf", "anyOf", "items", "oneOf", "prefixItems"];
/// Keywords whose value has a schema for each key.
const BY_KEY: [&str; 5] = [
    "$defs",
    "definitions",
    "dependentSchemas",
    "patternProperties",
    "properties",
];
/// All other keywords of JSON Schema, of the drafts 4 to 2020-12.
const OTHERS: [&str; 43] = [
    "$anchor",
    "$comment",
    "$dynamicAnchor",
    "$dynamicRef",
    "$id",
    "$recursiveAnchor",
    "$recursiveRef",
    "$ref",
    "$schema",
    "$vocabulary",
    "const",
    "contentEncoding",
    "contentMediaType",
    "contentSchema",
    "default",
    "dependencies",
    "dependentRequired",
    "deprecated",
    "description",
    "enum",
    "examples",
    "exclusiveMaximum",
    "exclusiveMinimum",
    "format",
    "id",
    "maxContains",
    "maxItems",
    "maxLength",
    "maxProperties",
    "maximum",
    "minContains",
    "minItems",
    "minLength",
    "minProperties",
    "minimum",
    "multipleOf",
    "pattern",
    "readOnly",
    "required",
    "title",
    "type",
    "unevaluatedItems",
    "uniqueItems",
];
/// Keywords of others that would change what is valid.
const FOREIGN: [&str; 3] = ["discriminator", "nullable", "x-guidance"];
/// Most parts of a schema that are tried when one fails.
const TRIES: usize = 64;

/// Refuses what the parser would take for something else.
pub(crate) fn check(schema: &Value) -> Result<(), Error> {
    let mut found = Ok(());
    walk(schema, &mut |pointer, keywords| {
        for keyword in FOREIGN {
            if found.is_ok() && keywords.contains_key(keyword) {
                found = Err(Error::Schema {
                    pointer: format!("{pointer}/{keyword}"),
                    why: format!(
                        "{keyword} is not of JSON Schema, and it would change what is valid"
                    ),
                });
            }
        }
        if let Some(Value::String(reference)) = keywords.get("$ref")
            && found.is_ok()
            && !reference.starts_with('#')
        {
            found = Err(Error::Schema {
                pointer: format!("{pointer}/$ref"),
                why: format!("{reference:?}: expected a reference inside of the schema"),
            });
        }
    });
    found
}

/// The keywords of a schema that JSON Schema does not have, as JSON pointers. They have no effect.
pub fn unknown_keywords(schema: &Value) -> Vec<String> {
    let mut unknown = Vec::new();
    walk(schema, &mut |pointer, keywords| {
        let is_known = |keyword: &&String| {
            let keyword = keyword.as_str();
            [&ONE[..], &LIST, &BY_KEY, &OTHERS, &FOREIGN]
                .iter()
                .any(|list| list.contains(&keyword))
        };
        let others = keywords.keys().filter(|keyword| !is_known(keyword));
        unknown.extend(others.map(|keyword| format!("{pointer}/{}", escaped(keyword))));
    });
    unknown
}

/// The place and the error of the deepest part that fails by itself; `fails` says how. A part sees
/// the definitions of the whole schema.
pub(crate) fn smallest(
    schema: &Value,
    why: String,
    fails: impl Fn(&Value) -> Option<String>,
) -> (String, String) {
    let mut best = ("#".to_owned(), why);
    let mut tries = 0;
    loop {
        let here = schema.pointer(&best.0[1..]).unwrap_or(schema);
        let mut next = None;
        for (pointer, part) in children(here) {
            tries += 1;
            if tries > TRIES {
                return best;
            }
            if let Some(why) = fails(&with_definitions(schema, part)) {
                next = Some((format!("{}{pointer}", best.0), why));
                break;
            }
        }
        match next {
            Some(next) => best = next,
            None => return best,
        }
    }
}

/// A part with the definitions that its references name.
fn with_definitions(whole: &Value, part: &Value) -> Value {
    let (Value::Object(part), Value::Object(whole)) = (part, whole) else {
        return part.clone();
    };
    let mut part = part.clone();
    for key in ["$schema", "$defs", "definitions"] {
        if let Some(value) = whole.get(key) {
            part.entry(key).or_insert_with(|| value.clone());
        }
    }
    json!(part)
}

/// Calls `visit` with the place and the keywords of each part of a schema.
fn walk(schema: &Value, visit: &mut impl FnMut(&str, &Map<String, Value>)) {
    let mut open = vec![("#".to_owned(), schema)];
    while let Some((pointer, part)) = open.pop() {
        if let Value::Object(keywords) = part {
            visit(&pointer, keywords);
        }
        let below = children(part).into_iter();
        open.extend(below.map(|(more, part)| (format!("{pointer}{more}"), part)));
    }
}

/// The schemas inside of a schema, with their places.
fn children(schema: &Value) -> Vec<(String, &Value)> {
    let Value::Object(keywords) = schema else {
        return Vec::new();
    };
    let mut found = Vec::new();
    for (keyword, value) in keywords {
        let name = keyword.as_str();
        match value {
            Value::Object(_) if ONE.contains(&name) => found.push((format!("/{name}"), value)),
            Value::Array(parts) if LIST.contains(&name) => {
                let parts = parts.iter().enumerate();
                found.extend(parts.map(|(i, part)| (format!("/{name}/{i}"), part)));
            }
            Value::Object(parts) if BY_KEY.contains(&name) => {
                let parts = parts.iter();
                found.extend(parts.map(|(k, part)| (format!("/{name}/{}", escaped(k)), part)));
            }
            _ => {}
        }
    }
    found
}

/// A key in a JSON pointer.
fn escaped(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}
