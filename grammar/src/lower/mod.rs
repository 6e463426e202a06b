//! A JSON schema in the keywords that the parser enforces.
//!
//! The parser knows 27 keywords. The others are said with these where that is exact: `not` by De
//! Morgan's rules, `oneOf` as `anyOf` of branches that exclude each other, `if` as the choice
//! between `then` and what holds without it, `dependencies` as the choice between an absent key
//! and what it needs. References of all kinds become places in one list of definitions. What
//! cannot be said so is an error with its place.

mod bounds;
mod cost;
mod disjoint;
mod formats;
mod negation;
mod objects;
mod pattern;
mod place;
mod references;

use disjoint::kinds_of;

use std::collections::HashMap;

use serde_json::{Map, Number, Value, json};

use crate::Error;
use formats::Format;
pub(crate) use formats::format;
pub(crate) use place::{Place, escaped};
use references::References;
pub(crate) use references::{draft, is_alone};

/// Most schemas in the result: repeated branches of `oneOf`, `not` and `if` count.
const PARTS: usize = 10_000;
/// Most values of `enum` in all.
const VALUES: usize = 10_000;
/// Types of JSON.
const TYPES: [&str; 7] = [
    "null", "boolean", "integer", "number", "string", "array", "object",
];
/// The largest integer up to which every one is an f64.
const EXACT: i128 = 1 << 53;

/// The schema at a place of a schema.
///
/// # Errors
/// [`Error::Schema`]: what cannot be enforced exactly, with its place.
pub(crate) fn lower(whole: &Value, place: &str) -> Result<Value, Error> {
    with_targets(whole, place).map(|(lowered, _)| lowered)
}

/// [`lower`], and the places that references name.
pub(crate) fn with_targets(whole: &Value, place: &str) -> Result<(Value, Vec<String>), Error> {
    let root = Place::of("#");
    if let Some(name) = whole.get("$schema").and_then(Value::as_str)
        && ["draft-00", "draft-01", "draft-02", "draft-03"]
            .iter()
            .any(|old| name.contains(old))
    {
        return Err(root.key("$schema").refuse(format!(
            "{name:?} is an old draft; write the schema in draft 4 or a later one"
        )));
    }
    let mut lowering = Lowering {
        references: References::of(whole)?,
        draft: draft(whole),
        targets: Vec::new(),
        numbers: HashMap::new(),
        parts: 0,
        values: 0,
        steps: disjoint::ALL_STEPS,
        has_integers_only: false,
    };
    let start = whole.pointer(&place[1..]).unwrap_or(whole);
    lowering.target(place.to_owned(), start);
    let mut definitions = Map::new();
    while let Some((pointer, target)) = lowering.targets.get(definitions.len()).cloned() {
        let lowered = lowering.schema(&Place::of(&pointer), target)?;
        definitions.insert(definitions.len().to_string(), lowered);
    }
    cost::check(&definitions).map_err(|why| Place::of(place).refuse(why))?;
    bounds::check(&definitions).map_err(|(name, why)| {
        let target = name
            .parse()
            .ok()
            .and_then(|i: usize| lowering.targets.get(i));
        Place::of(target.map_or(place, |(pointer, _)| pointer)).refuse(why)
    })?;
    let mut lowered = Map::new();
    lowered.insert("$ref".into(), "#/$defs/0".into());
    lowered.insert("$defs".into(), definitions.into());
    let targets = lowering.targets.into_iter().map(|(pointer, _)| pointer);
    Ok((lowered.into(), targets.collect()))
}

struct Lowering<'s> {
    references: References<'s>,
    draft: Option<u32>,
    /// What is referred to, with its place, in the order of its number.
    targets: Vec<(String, &'s Value)>,
    numbers: HashMap<String, usize>,
    /// Schemas and values of `enum` that were written.
    parts: usize,
    values: usize,
    /// Steps that are left to compare branches of `oneOf`.
    steps: usize,
    /// Whether numbers are integers where a negation is written.
    has_integers_only: bool,
}

impl<'s> Lowering<'s> {
    /// The reference to a schema.
    fn target(&mut self, pointer: String, schema: &'s Value) -> String {
        let next = self.targets.len();
        let number = *self.numbers.entry(pointer.clone()).or_insert(next);
        if number == next {
            self.targets.push((pointer, schema));
        }
        format!("#/$defs/{number}")
    }

    fn count(&mut self, at: &Place) -> Result<(), Error> {
        self.parts += 1;
        match self.parts > PARTS {
            true => Err(at.refuse(format!(
                "the schema has more than {PARTS} parts, with repetitions; split it"
            ))),
            false => Ok(()),
        }
    }

    /// A schema in the parser's keywords.
    fn schema(&mut self, at: &Place, schema: &'s Value) -> Result<Value, Error> {
        self.count(at)?;
        let keywords = match schema {
            Value::Bool(_) => return Ok(schema.clone()),
            Value::Object(keywords) => keywords,
            other => {
                let other = brief(other);
                return Err(at.refuse(format!(
                    "{other}: expected a schema, which is an object, true or false"
                )));
            }
        };
        if is_alone(keywords, self.draft) {
            let at = at.key("$ref");
            let (pointer, target) = self.references.find(&at, &keywords["$ref"])?;
            return Ok(match target {
                Value::Bool(_) => target.clone(),
                _ => json!({"$ref": self.target(pointer, target)}),
            });
        }
        let mut out = Out::default();
        for (keyword, value) in keywords {
            self.keyword(&at.key(keyword), keyword, value, keywords, &mut out)?;
        }
        bounds::check_own(&out.keywords).map_err(|why| at.refuse(why))?;
        // The parser applies these to what was before them.
        let (mut keywords, mut last) = (Map::new(), Map::new());
        for (keyword, value) in out.keywords {
            let is_last = ["allOf", "anyOf", "$ref", "enum", "const"].contains(&keyword.as_str());
            match is_last {
                true => last.insert(keyword, value),
                false => keywords.insert(keyword, value),
            };
        }
        keywords.extend(last);
        Ok(Value::Object(keywords))
    }

    /// Adds what one keyword says. Those without effect add nothing.
    fn keyword(
        &mut self,
        at: &Place,
        keyword: &str,
        value: &'s Value,
        beside: &'s Map<String, Value>,
        out: &mut Out,
    ) -> Result<(), Error> {
        match keyword {
            "type" => plain_numbers(types(at, value)?, beside, out),
            "const" => out.set(keyword, exact(at, value)?),
            "enum" => {
                let values = list(at, value)?;
                self.values += values.len();
                if self.values > VALUES {
                    return Err(at.refuse(format!(
                        "the lists of enum have more than {VALUES} values; write fewer, or a \
                         pattern"
                    )));
                }
                let values = values.iter().enumerate();
                let values = values.map(|(i, value)| exact(&at.item(i), value));
                out.set(keyword, values.collect::<Result<Vec<_>, _>>()?.into());
            }
            "$ref" | "$dynamicRef" | "$recursiveRef" => {
                if keyword != "$ref" && !self.references.has_one_id() {
                    return Err(at.refuse(format!(
                        "{keyword} in a schema with several ids cannot be enforced; use $ref"
                    )));
                }
                let (pointer, target) = self.references.find(at, value)?;
                if target.is_boolean() {
                    out.all(target.clone());
                    return Ok(());
                }
                let reference = json!(self.target(pointer, target));
                match out.keywords.contains_key("$ref") {
                    true => out.all(json!({"$ref": reference})),
                    false => out.set("$ref", reference),
                }
            }
            "allOf" => {
                for part in self.schemas(at, value)? {
                    out.all(part);
                }
            }
            "anyOf" => {
                let branches = self.schemas(at, value)?;
                out.any(branches);
            }
            "oneOf" => {
                let branches = self.one_of(at, value, beside)?;
                out.any(branches);
            }
            "not" => {
                let not = self.not_among(at, value, kinds_of(beside.get("type")))?;
                out.all(not);
            }
            "if" => self.choice(at, value, beside, out)?,
            "items" if value.is_array() => {
                let items = self.schemas(at, value)?;
                out.set("prefixItems", items.into());
                if !beside.contains_key("additionalItems") {
                    out.set("items", json!(true));
                }
            }
            "prefixItems" => {
                if self.draft.is_some() {
                    let why = "prefixItems is of draft 2020-12; remove the older $schema";
                    return Err(at.refuse(why));
                }
                let items = self.schemas(at, value)?;
                out.set(keyword, items.into());
            }
            "items" => out.set(keyword, self.schema(at, value)?),
            "additionalItems" if beside.get("items").is_some_and(Value::is_array) => {
                out.set("items", self.schema(at, value)?);
            }
            "properties"
            | "patternProperties"
            | "additionalProperties"
            | "required"
            | "minProperties"
            | "maxProperties"
            | "propertyNames"
            | "dependencies"
            | "dependentRequired"
            | "dependentSchemas"
            | "unevaluatedProperties" => {
                self.object(at, keyword, value, beside, out)?;
            }
            "minItems" | "maxItems" | "minLength" | "maxLength" => {
                out.set(keyword, count(at, value)?.into());
            }
            "minimum" | "maximum" | "exclusiveMinimum" | "exclusiveMaximum" => {
                // In draft 4 a flag says that a bound is left out.
                let keyword = match keyword {
                    "minimum" if beside.get("exclusiveMinimum") == Some(&json!(true)) => {
                        "exclusiveMinimum"
                    }
                    "maximum" if beside.get("exclusiveMaximum") == Some(&json!(true)) => {
                        "exclusiveMaximum"
                    }
                    keyword => keyword,
                };
                if let Some(bound) = bound(at, keyword, value)? {
                    out.set(keyword, bound);
                }
            }
            "multipleOf" => match value.as_f64() {
                Some(factor) if factor > 0.0 => out.set(keyword, value.clone()),
                _ => return Err(expected(at, value, "a number above 0")),
            },
            "pattern" => {
                let Some(pattern) = value.as_str() else {
                    return Err(expected(at, value, "a regular expression"));
                };
                let pattern = pattern::translated(pattern);
                let pattern = pattern.map_err(|why| at.refuse(why))?;
                out.set(keyword, pattern.into());
            }
            "format" => match value.as_str().map(format) {
                None => return Err(expected(at, value, "a string")),
                Some(None) => {}
                Some(Some(Format::Known(name))) => out.set(keyword, name.into()),
                Some(Some(Format::Patterns(all))) => {
                    for regex in all {
                        out.all(json!({"pattern": format!("^(?:{regex})$")}));
                    }
                }
                Some(Some(Format::Refused)) => {
                    return Err(at.refuse(format!(
                        "the format {value} cannot be enforced; leave it out"
                    )));
                }
            },
            "uniqueItems" => match (value, beside.get("maxItems").and_then(Value::as_u64)) {
                (Value::Bool(false), _) | (Value::Bool(true), Some(0 | 1)) => {}
                (Value::Bool(true), _) => {
                    return Err(at.refuse("uniqueItems cannot be enforced; leave it out"));
                }
                _ => return Err(expected(at, value, "true or false")),
            },
            // Before 2019-09, minContains has no meaning.
            "contains" => match beside.get("minContains").and_then(Value::as_u64) {
                Some(0) if self.draft.is_none() && !beside.contains_key("maxContains") => {}
                _ => {
                    return Err(at.refuse(
                        "contains cannot be enforced; say with prefixItems what the first are",
                    ));
                }
            },
            "unevaluatedItems" if *value != json!(true) => {
                return Err(
                    at.refuse("unevaluatedItems cannot be enforced; use items, or items: false")
                );
            }
            "nullable" if *value == json!(true) => {
                return Err(at.refuse(
                    "nullable is not of JSON Schema, and it would change what is valid; \
                     add \"null\" to the type",
                ));
            }
            "x-guidance" => {
                return Err(at.refuse(
                    "x-guidance is not of JSON Schema, and it would change what is valid; \
                     leave it out",
                ));
            }
            _ => {}
        }
        Ok(())
    }

    /// The schemas of a list.
    fn schemas(&mut self, at: &Place, value: &'s Value) -> Result<Vec<Value>, Error> {
        let parts = list(at, value)?.iter().enumerate();
        parts
            .map(|(i, part)| self.schema(&at.item(i), part))
            .collect()
    }

    /// `if`: either it and `then` hold, or its negation and `else`.
    fn choice(
        &mut self,
        at: &Place,
        condition: &'s Value,
        beside: &'s Map<String, Value>,
        out: &mut Out,
    ) -> Result<(), Error> {
        let Some(above) = at
            .above()
            .filter(|_| beside.contains_key("then") || beside.contains_key("else"))
        else {
            return Ok(());
        };
        let mut branches = Vec::new();
        for (keyword, holds) in [("then", true), ("else", false)] {
            let mut parts = vec![match holds {
                true => self.schema(at, condition)?,
                false => self.not_among(at, condition, kinds_of(beside.get("type")))?,
            }];
            if let Some(then) = beside.get(keyword) {
                parts.push(self.schema(&above.key(keyword), then)?);
            }
            branches.push(of_parts("allOf", parts));
        }
        out.any(branches);
        Ok(())
    }
}

/// The keywords of a schema while they are written.
#[derive(Default)]
struct Out {
    keywords: Map<String, Value>,
}

impl Out {
    fn set(&mut self, keyword: &str, value: Value) {
        self.keywords.insert(keyword.to_owned(), value);
    }

    /// A schema that holds too.
    fn all(&mut self, schema: Value) {
        if schema == json!(true) {
            return;
        }
        let all = self.keywords.entry("allOf").or_insert_with(|| json!([]));
        if let Value::Array(parts) = all {
            parts.push(schema);
        }
    }

    /// One of these holds.
    fn any(&mut self, mut branches: Vec<Value>) {
        match (branches.len(), self.keywords.contains_key("anyOf")) {
            (1, _) => self.all(branches.remove(0)),
            (_, false) => self.set("anyOf", branches.into()),
            (_, true) => self.all(of_parts("anyOf", branches)),
        }
    }
}

/// A schema with one keyword that has a list of schemas. (The macro `json` would copy them.)
fn of_parts(keyword: &str, parts: Vec<Value>) -> Value {
    Value::Object(Map::from_iter([(keyword.to_owned(), parts.into())]))
}

/// The names of types.
fn types(at: &Place, value: &Value) -> Result<Vec<Value>, Error> {
    let names = match value {
        Value::Array(names) if !names.is_empty() => names.clone(),
        other => vec![other.clone()],
    };
    for name in &names {
        if !name.as_str().is_some_and(|name| TYPES.contains(&name)) {
            let known = TYPES.join(", ");
            return Err(expected(at, name, &format!("one of {known}")));
        }
    }
    Ok(names)
}

/// Writes the types. Numbers without bounds become those from 0 on and those below, which the
/// parser writes without an exponent and without -0: many programs cannot read 1e999, nor -0 as an
/// integer.
fn plain_numbers(types: Vec<Value>, beside: &Map<String, Value>, out: &mut Out) {
    const BOUNDS: [&str; 7] = [
        "minimum",
        "maximum",
        "exclusiveMinimum",
        "exclusiveMaximum",
        "multipleOf",
        "const",
        "enum",
    ];
    let is_bounded = BOUNDS.iter().any(|keyword| beside.contains_key(*keyword));
    let has = |name: &str| types.iter().any(|other| other == name);
    let below = match (has("number"), has("integer")) {
        _ if is_bounded => None,
        (true, _) => Some(json!({"type": "number", "exclusiveMaximum": 0})),
        (false, true) => Some(json!({"type": "integer", "maximum": -1})),
        (false, false) => None,
    };
    if let Some(below) = below {
        let above = json!({"type": below["type"], "minimum": 0});
        let mut branches = vec![above, below];
        let is_other = |name: &&Value| *name != "number" && *name != "integer";
        let others: Vec<Value> = types.iter().filter(is_other).cloned().collect();
        if !others.is_empty() {
            branches.push(json!({"type": others}));
        }
        out.any(branches);
    }
    out.set("type", types.into());
}

/// A value of `const` or `enum`, with numbers that the parser writes exactly.
fn exact(at: &Place, value: &Value) -> Result<Value, Error> {
    match value {
        Value::Number(number) => {
            let is_exact = match number.as_i128() {
                Some(whole) => whole.abs() < EXACT,
                None => number.as_f64().is_some_and(|f| f.abs() < EXACT as f64),
            };
            match is_exact {
                true => Ok(value.clone()),
                false => Err(at.refuse(format!(
                    "{number} cannot be enforced exactly; expected a number below 2^53"
                ))),
            }
        }
        Value::Array(values) => {
            let values = values.iter().enumerate();
            let values = values.map(|(i, value)| exact(&at.item(i), value));
            Ok(values.collect::<Result<Vec<_>, _>>()?.into())
        }
        Value::Object(members) => {
            for (key, value) in members {
                exact(&at.key(key), value)?;
            }
            Ok(value.clone())
        }
        _ => Ok(value.clone()),
    }
}

/// A list with at least one item.
fn list<'v>(at: &Place, value: &'v Value) -> Result<&'v Vec<Value>, Error> {
    let list = value.as_array().filter(|list| !list.is_empty());
    list.ok_or_else(|| expected(at, value, "a list with at least one item"))
}

/// A number of characters, items or properties.
fn count(at: &Place, value: &Value) -> Result<u64, Error> {
    let whole = value.as_u64().or_else(|| {
        let number = value.as_f64().filter(|f| f.fract() == 0.0 && *f >= 0.0)?;
        Some(number as u64)
    });
    whole
        .filter(|count| *count <= u64::from(u32::MAX))
        .ok_or_else(|| expected(at, value, "a whole number from 0 to 4294967295"))
}

/// A bound of numbers as an f64 that is not outside of it. The flags of draft 4 are none.
fn bound(at: &Place, keyword: &str, value: &Value) -> Result<Option<Value>, Error> {
    let is_exclusive = keyword.starts_with("exclusive");
    let bound = match value {
        Value::Bool(_) if is_exclusive => return Ok(None),
        Value::Number(number) => number,
        _ => return Err(expected(at, value, "a number")),
    };
    let is_minimum = keyword.ends_with("inimum");
    let near = bound.as_f64().unwrap_or(f64::NAN);
    if is_exclusive && near.abs() >= EXACT as f64 {
        return Err(at.refuse(format!(
            "{value} cannot be left out exactly; expected a number below 2^53"
        )));
    }
    let inside = match bound.as_i128() {
        Some(whole) if is_minimum && (near as i128) < whole => near.next_up(),
        Some(whole) if !is_minimum && (near as i128) > whole => near.next_down(),
        _ => near,
    };
    // The parser holds integers in 64 bits.
    let is_beyond = match is_minimum {
        true => inside > i64::MAX as f64 / 2.0,
        false => inside < i64::MIN as f64 / 2.0,
    };
    match Number::from_f64(inside) {
        _ if is_beyond => Err(at.refuse(format!(
            "{value} cannot be enforced; expected a number up to 4e18"
        ))),
        _ if inside == near => Ok(Some(value.clone())),
        Some(inside) => Ok(Some(inside.into())),
        None => Err(expected(at, value, "a number")),
    }
}

/// A value that is not what its keyword expects.
fn expected(at: &Place, value: &Value, expected: &str) -> Error {
    at.refuse(format!("{}: expected {expected}", brief(value)))
}

/// A value on one line, cut if it is long.
fn brief(value: &Value) -> String {
    const LONGEST: usize = 60;
    let text = value.to_string();
    match text.char_indices().nth(LONGEST) {
        None => text,
        Some((end, _)) => format!("{}…", &text[..end]),
    }
}
