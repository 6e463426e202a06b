//! What a schema says beside what the parser checks: places of errors, and keywords without effect.

use std::borrow::Cow;

use serde_json::{Map, Value};

use crate::lower::{Place, draft, escaped, format, is_alone};
use crate::{Error, check_depth};

/// Most keywords without effect that are named.
const NAMED: usize = 64;

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
///
/// After 64 of them, the last text says how many more there are: `# and 3 more`. Call this after
/// [`Grammars::compile`](crate::Grammars::compile), which bounds the size of a schema; one with too
/// many levels, which it refuses, gives none.
pub fn unknown_keywords(schema: &Value) -> Vec<String> {
    let (mut unknown, mut more) = (Vec::new(), 0);
    if check_depth(schema).is_err() {
        return unknown;
    }
    let draft = draft(schema);
    walk(&Place::of("#"), schema, &mut |at, keywords| {
        let is_alone = is_alone(keywords, draft);
        for (keyword, value) in keywords {
            let has_effect = match (keyword.as_str(), value) {
                ("format", Value::String(name)) => format(name).is_some(),
                (keyword, _) => is_known(keyword),
            };
            let is_beside = is_alone && keyword != "$ref" && asserts(keyword);
            match !has_effect || is_beside {
                true if unknown.len() < NAMED => unknown.push(at.key(keyword).pointer()),
                is_unknown => more += usize::from(is_unknown),
            }
        }
    });
    if more > 0 {
        unknown.push(format!("# and {more} more"));
    }
    unknown
}

/// The place and the error of the deepest part that fails by itself; `fails` says how. Definitions
/// that are not among the `targets` of references are not looked at.
pub(crate) fn smallest(
    schema: &Value,
    targets: &[String],
    error: Error,
    fails: impl Fn(&str) -> Option<Error>,
) -> Error {
    let (mut best, mut why) = ("#".to_owned(), error);
    'deeper: loop {
        let here = schema.pointer(&best[1..]).unwrap_or(schema);
        for (keyword, key, _) in children(here) {
            let key = key.map_or(String::new(), |key| format!("/{}", escaped(&key)));
            let place = format!("{best}/{keyword}{key}");
            let is_used = |target: &String| {
                let below = target.strip_prefix(&place);
                below.is_some_and(|below| below.is_empty() || below.starts_with('/'))
            };
            if ["$defs", "definitions"].contains(&keyword) && !targets.iter().any(is_used) {
                continue;
            }
            if let Some(error) = fails(&place) {
                (best, why) = (place, error);
                continue 'deeper;
            }
        }
        return why;
    }
}

/// Calls `visit` with the place and the keywords of each part of a schema.
pub(crate) fn walk(
    at: &Place,
    schema: &Value,
    visit: &mut impl FnMut(&Place, &Map<String, Value>),
) {
    if let Value::Object(keywords) = schema {
        visit(at, keywords);
    }
    for (keyword, key, part) in children(schema) {
        let at = at.key(keyword);
        match &key {
            None => walk(&at, part, visit),
            Some(key) => walk(&at.key(key), part, visit),
        }
    }
}

/// A schema inside of a schema: its keyword, its key below that, and itself.
type Child<'s> = (&'s str, Option<Cow<'s, str>>, &'s Value);

/// The schemas inside of a schema.
fn children(schema: &Value) -> Vec<Child<'_>> {
    let Value::Object(keywords) = schema else {
        return Vec::new();
    };
    let mut found: Vec<Child> = Vec::new();
    for (keyword, value) in keywords {
        let name = keyword.as_str();
        match value {
            Value::Object(_) if ONE.contains(&name) => found.push((name, None, value)),
            Value::Array(parts) if LIST.contains(&name) => {
                let parts = parts.iter().enumerate();
                found.extend(parts.map(|(i, part)| (name, Some(i.to_string().into()), part)));
            }
            Value::Object(parts) if BY_KEY.contains(&name) => {
                let parts = parts.iter();
                found.extend(parts.map(|(key, part)| (name, Some(key.into()), part)));
            }
            _ => {}
        }
    }
    found
}
