//! The negation of a schema: one of its keywords does not hold.

use serde_json::{Map, Value, json};

use super::disjoint::FRACTIONS;
use super::place::Place;
use super::references::is_alone;
use super::{Lowering, bound, count, exact, list, of_parts, pattern, types};
use crate::Error;

/// Most references that are followed inside of each other.
const FOLLOWED: usize = 16;
/// Types without a part in common.
const KINDS: [&str; 6] = ["null", "boolean", "number", "string", "array", "object"];

impl<'s> Lowering<'s> {
    /// What is not valid by a schema, among values of some types.
    pub(super) fn not_among(
        &mut self,
        at: &Place,
        schema: &'s Value,
        kinds: u8,
    ) -> Result<Value, Error> {
        self.has_integers_only = kinds & FRACTIONS == 0;
        let not = self.not(at, schema, 0);
        self.has_integers_only = false;
        not
    }

    /// What is not valid by a schema, exactly.
    pub(super) fn not(
        &mut self,
        at: &Place,
        schema: &'s Value,
        followed: usize,
    ) -> Result<Value, Error> {
        self.count(at)?;
        let keywords = match schema {
            Value::Bool(all) => return Ok(json!(!all)),
            Value::Object(keywords) => keywords,
            other => return Err(super::expected(at, other, "a schema")),
        };
        if followed > FOLLOWED {
            return Err(at.refuse("not of a schema that refers to itself cannot be enforced"));
        }
        let is_alone = is_alone(keywords, self.draft);
        let mut any = Vec::new();
        for (keyword, value) in keywords {
            if !is_alone || keyword == "$ref" {
                self.not_keyword(at, keyword, value, keywords, followed, &mut any)?;
            }
        }
        any.retain(|schema| *schema != json!(false));
        Ok(match any.len() {
            0 => json!(false),
            1 => any.remove(0),
            _ => of_parts("anyOf", any),
        })
    }

    /// The ways in which one keyword does not hold.
    fn not_keyword(
        &mut self,
        above: &Place,
        keyword: &str,
        value: &'s Value,
        beside: &'s Map<String, Value>,
        followed: usize,
        any: &mut Vec<Value>,
    ) -> Result<(), Error> {
        let at = &above.key(keyword);
        let of = |kind: &str, keyword: &str, value: Value| json!({"type": kind, keyword: value});
        match keyword {
            "type" => {
                let types = types(at, value)?;
                let has = |name: &str| types.iter().any(|other| other == name);
                if has("integer") && !has("number") && !self.has_integers_only {
                    return Err(at.refuse(
                        "not of the type integer cannot be enforced; name the types that may be",
                    ));
                }
                let is_among = |name: &str| has(name) || name == "number" && has("integer");
                let others: Vec<&str> = KINDS.into_iter().filter(|name| !is_among(name)).collect();
                any.push(match others.is_empty() {
                    true => json!(false),
                    false => json!({"type": others}),
                });
            }
            "const" => not_values(at, std::slice::from_ref(value), any)?,
            "enum" => not_values(at, list(at, value)?, any)?,
            "required" => {
                for name in value.as_array().into_iter().flatten() {
                    let Some(name) = name.as_str() else {
                        return Err(super::expected(at, name, "a name"));
                    };
                    any.push(of("object", "properties", json!({name: false})));
                }
            }
            "properties" => {
                let around = std::mem::take(&mut self.has_integers_only);
                for (key, part) in value.as_object().into_iter().flatten() {
                    let not = self.not(&at.key(key), part, followed)?;
                    if not != json!(false) {
                        any.push(json!({"type": "object", "required": [key],
                            "properties": {key: not}}));
                    }
                }
                self.has_integers_only = around;
            }
            "allOf" => {
                for (i, part) in list(at, value)?.iter().enumerate() {
                    any.push(self.not(&at.item(i), part, followed)?);
                }
            }
            "anyOf" => {
                let parts = list(at, value)?.iter().enumerate();
                let parts = parts.map(|(i, part)| self.not(&at.item(i), part, followed));
                any.push(of_parts("allOf", parts.collect::<Result<_, _>>()?));
            }
            "not" => {
                let around = std::mem::take(&mut self.has_integers_only);
                any.push(self.schema(at, value)?);
                self.has_integers_only = around;
            }
            "$ref" => {
                let (pointer, target) = self.references.find(at, value)?;
                any.push(self.not(&Place::of(&pointer), target, followed + 1)?);
            }
            "minLength" | "minItems" | "minProperties" => match (count(at, value)?, keyword) {
                (0, _) => {}
                (n, "minLength") => any.push(of("string", "maxLength", json!(n - 1))),
                (n, "minItems") => any.push(of("array", "maxItems", json!(n - 1))),
                (n, _) => any.push(of("object", "maxProperties", json!(n - 1))),
            },
            "maxLength" => any.push(of("string", "minLength", json!(count(at, value)? + 1))),
            "maxItems" => any.push(of("array", "minItems", json!(count(at, value)? + 1))),
            "minimum" | "maximum" if !beside.contains_key(flag(keyword)) => {
                let opposite = match keyword {
                    "minimum" => "exclusiveMaximum",
                    _ => "exclusiveMinimum",
                };
                if let Some(bound) = bound(at, opposite, value)? {
                    any.push(of("number", opposite, bound));
                }
            }
            "exclusiveMinimum" | "exclusiveMaximum" if value.is_number() => {
                let opposite = match keyword {
                    "exclusiveMinimum" => "maximum",
                    _ => "minimum",
                };
                if let Some(bound) = bound(at, opposite, value)? {
                    any.push(of("number", opposite, bound));
                }
            }
            // These hold for everything.
            "items"
            | "additionalProperties"
            | "additionalItems"
            | "uniqueItems"
            | "propertyNames"
            | "unevaluatedItems"
            | "unevaluatedProperties"
                if *value == json!(keyword != "uniqueItems") => {}
            "format"
                if value
                    .as_str()
                    .is_some_and(|name| super::format(name).is_none()) => {}
            _ if !crate::schema::asserts(keyword) => {}
            "then" | "else" if !beside.contains_key("if") => {}
            _ => {
                return Err(at.refuse(format!(
                    "the negation of {keyword} cannot be enforced, which not, if or oneOf needs \
                     here; say what is valid"
                )));
            }
        }
        Ok(())
    }
}

/// The keyword of draft 4 that makes a bound exclusive.
fn flag(keyword: &str) -> &'static str {
    match keyword {
        "minimum" => "exclusiveMinimum",
        _ => "exclusiveMaximum",
    }
}

/// All values but these.
fn not_values(at: &Place, values: &[Value], any: &mut Vec<Value>) -> Result<(), Error> {
    let (mut words, mut numbers) = (Vec::new(), Vec::new());
    let mut kinds: Vec<&str> = KINDS.to_vec();
    let mut other_boolean = None;
    for value in values {
        exact(at, value)?;
        let kind = match value {
            Value::Null => "null",
            Value::Bool(is) => {
                // Without both there is none.
                other_boolean = match other_boolean {
                    Some(other) if other == Some(*is) => Some(None),
                    Some(other) => Some(other),
                    None => Some(Some(!is)),
                };
                "boolean"
            }
            Value::Number(number) => {
                numbers.extend(number.as_f64());
                "number"
            }
            Value::String(word) => {
                words.push(word.as_str());
                "string"
            }
            Value::Array(_) | Value::Object(_) => {
                return Err(at.refuse(
                    "not of a list or an object as a whole cannot be enforced; \
                     say what is valid",
                ));
            }
        };
        kinds.retain(|other| *other != kind);
    }
    if !kinds.is_empty() {
        any.push(json!({"type": kinds}));
    }
    if let Some(Some(other)) = other_boolean {
        any.push(json!({"const": other}));
    }
    if !words.is_empty() {
        let pattern = pattern::others(&words).map_err(|why| at.refuse(why))?;
        any.push(json!({"type": "string", "pattern": pattern}));
    }
    // The gaps between numbers.
    numbers.sort_by(f64::total_cmp);
    numbers.dedup();
    for i in 0..=numbers.len() {
        let mut gap = json!({"type": "number"});
        if i > 0 {
            gap["exclusiveMinimum"] = json!(numbers[i - 1]);
        }
        if let Some(next) = numbers.get(i) {
            gap["exclusiveMaximum"] = json!(next);
        }
        if !numbers.is_empty() {
            any.push(gap);
        }
    }
    Ok(())
}
