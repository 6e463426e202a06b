//! What a schema says beside what the parser checks: places of errors, and keywords without effect.

use serde_json::{Map, Value};

use crate::Error;
use crate::lower::{draft, escaped, format, is_alone};

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
const BY_KEY: [&str; 6] = [
    "$defs",
    "definitions",
    "dependencies",
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
    "writeOnly",
];
/// Keywords that say nothing about what is valid.
const ANNOTATIONS: [&str; 20] = [
    "$anchor",
    "$comment",
    "$defs",
    "$dynamicAnchor",
    "$id",
    "$recursiveAnchor",
    "$schema",
    "$vocabulary",
    "contentEncoding",
    "contentMediaType",
    "contentSchema",
    "default",
    "definitions",
    "deprecated",
    "description",
    "examples",
    "id",
    "readOnly",
    "title",
    "writeOnly",
];
/// Keywords of others that would change what is valid.
const FOREIGN: [&str; 2] = ["nullable", "x-guidance"];

/// Whether a keyword of JSON Schema says what is valid.
pub(crate) fn asserts(keyword: &str) -> bool {
    is_known(keyword) && !ANNOTATIONS.contains(&keyword)
}

fn is_known(keyword: &str) -> bool {
    [&ONE[..], &LIST, &BY_KEY, &OTHERS, &FOREIGN]
        .iter()
        .any(|list| list.contains(&keyword))
}

/// The keywords of a schema that have no effect, as JSON pointers: those that JSON Schema does not
/// have, formats that it does not have, and what stands beside `$ref` in the drafts 4 to 7.
pub fn unknown_keywords(schema: &Value) -> Vec<String> {
    let mut unknown = Vec::new();
    let draft = draft(schema);
    walk(schema, &mut |pointer, keywords| {
        let is_alone = is_alone(keywords, draft);
        for (keyword, value) in keywords {
            let has_effect = match (keyword.as_str(), value) {
                ("format", Value::String(name)) => format(name).is_some(),
                (keyword, _) => is_known(keyword),
            };
            let is_beside = is_alone && keyword != "$ref" && asserts(keyword);
            if !has_effect || is_beside {
                unknown.push(format!("{pointer}/{}", escaped(keyword)));
            }
        }
    });
    unknown
}

/// The place and the error of the deepest part that fails by itself; `fails` says how.
pub(crate) fn smallest(
    schema: &Value,
    error: Error,
    fails: impl Fn(&str) -> Option<Error>,
) -> Error {
    let (mut best, mut why) = ("#".to_owned(), error);
    'deeper: loop {
        let here = schema.pointer(&best[1..]).unwrap_or(schema);
        for (pointer, _) in children(here) {
            let place = format!("{best}{pointer}");
            if let Some(error) = fails(&place) {
                (best, why) = (place, error);
                continue 'deeper;
            }
        }
        return why;
    }
}

/// Calls `visit` with the place and the keywords of each part of a schema.
pub(crate) fn walk(schema: &Value, visit: &mut impl FnMut(&str, &Map<String, Value>)) {
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
