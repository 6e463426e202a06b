//! The keywords of objects.

use std::collections::HashSet;

use serde_json::{Map, Value, json};

use super::pattern::{literal, translated};
use super::place::Place;
use super::{Lowering, Out, count, expected, list, of_parts};
use crate::Error;

/// Most optional properties of which one at least must be there.
const CHOICES: usize = 32;
/// Most properties of an object. The parser's time grows with the square.
const PROPERTIES: usize = 700;
/// Most patterns of names.
const PATTERNS: usize = 32;
/// Most references that are followed inside of each other.
const FOLLOWED: usize = 16;

impl<'s> Lowering<'s> {
    pub(super) fn object(
        &mut self,
        at: &Place,
        keyword: &str,
        value: &'s Value,
        beside: &'s Map<String, Value>,
        out: &mut Out,
    ) -> Result<(), Error> {
        match keyword {
            "properties" => {
                let mut lowered = Map::new();
                let properties = members(at, value)?;
                most(at, properties.len(), PROPERTIES)?;
                for (key, part) in properties {
                    lowered.insert(key.clone(), self.schema(&at.key(key), part)?);
                }
                out.set(keyword, lowered.into());
            }
            "patternProperties" => {
                let patterns = members(at, value)?;
                most(at, patterns.len(), PATTERNS)?;
                let mut lowered: Vec<(Vec<String>, Value)> = Vec::new();
                for (pattern, part) in patterns {
                    let at = at.key(pattern);
                    let pattern = translated(pattern).map_err(|why| at.refuse(why))?;
                    let part = self.schema(&at, part)?;
                    // The parser refuses different patterns that match the same names.
                    match lowered.iter_mut().find(|(_, other)| *other == part) {
                        Some((same, _)) => same.push(pattern),
                        None => lowered.push((vec![pattern], part)),
                    }
                }
                let joined = lowered
                    .into_iter()
                    .map(|(patterns, part)| match &patterns[..] {
                        [one] => (one.clone(), part),
                        all => (format!("(?:{})", all.join(")|(?:")), part),
                    });
                let mut lowered = Map::new();
                for (pattern, part) in joined {
                    if lowered.insert(pattern, part).is_some() {
                        return Err(at.refuse(
                            "two patterns are the same with different schemas; write one of them",
                        ));
                    }
                }
                out.set(keyword, lowered.into());
            }
            "additionalProperties" => out.set(keyword, self.schema(at, value)?),
            "required" => {
                let names = value
                    .as_array()
                    .filter(|names| names.iter().all(Value::is_string));
                match (names, value) {
                    (Some(names), _) if names.len() > PROPERTIES => {
                        most(at, names.len(), PROPERTIES)?;
                    }
                    (Some(names), _) => out.set(keyword, names.clone().into()),
                    (None, Value::Bool(_)) => {
                        return Err(at.refuse(format!(
                            "{value} is of draft 3; list the names of required properties in \
                             the schema of the object"
                        )));
                    }
                    (None, _) => return Err(expected(at, value, "a list of names")),
                }
            }
            "maxProperties" => {
                let most = count(at, value)?;
                let declared = beside.get("properties").and_then(Value::as_object);
                let declared = declared.map_or(0, Map::len) as u64;
                if !is_closed(beside) || declared > most {
                    out.set(keyword, most.into());
                }
            }
            "minProperties" => self.at_least(at, count(at, value)?, beside, out)?,
            "propertyNames" => self.names(at, value, FOLLOWED, out)?,
            "dependencies" | "dependentRequired" | "dependentSchemas" => {
                for (key, needed) in members(at, value)? {
                    let at = at.key(key);
                    let needed = match needed {
                        Value::Array(names) if names.iter().all(Value::is_string) => {
                            json!({"required": names})
                        }
                        // Draft 3 had a name alone.
                        Value::String(name) => json!({"required": [name]}),
                        _ if keyword == "dependentRequired" => {
                            return Err(expected(&at, needed, "a list of names"));
                        }
                        schema => self.schema(&at, schema)?,
                    };
                    let present = json!({"type": "object", "required": [key]});
                    let absent = json!({"properties": {key: false}});
                    let needs = of_parts("allOf", vec![present, needed]);
                    out.all(of_parts("anyOf", vec![absent, needs]));
                }
            }
            // Without branches, all properties that are not named here are additional ones.
            _ if *value == json!(true) => {}
            _ => {
                let branches = [
                    "allOf",
                    "anyOf",
                    "oneOf",
                    "not",
                    "if",
                    "$ref",
                    "dependentSchemas",
                ];
                if branches.iter().any(|keyword| beside.contains_key(*keyword)) {
                    return Err(at.refuse(
                        "unevaluatedProperties cannot be enforced beside $ref, allOf, anyOf, \
                         oneOf or if; use additionalProperties",
                    ));
                }
                if !beside.contains_key("additionalProperties") {
                    out.set("additionalProperties", self.schema(at, value)?);
                }
            }
        }
        Ok(())
    }

    /// At least this number of properties.
    ///
    /// Free names can be the same name twice, so only one of them can be asked for.
    fn at_least(
        &mut self,
        at: &Place,
        least: u64,
        beside: &'s Map<String, Value>,
        out: &mut Out,
    ) -> Result<(), Error> {
        let no_names = Vec::new();
        let required = beside.get("required").and_then(Value::as_array);
        let required = required.unwrap_or(&no_names);
        let names: HashSet<&str> = required.iter().filter_map(Value::as_str).collect();
        let more = least.saturating_sub(names.len() as u64);
        let declared = beside.get("properties").and_then(Value::as_object);
        let optional: Vec<&String> = declared
            .into_iter()
            .flat_map(Map::keys)
            .filter(|name| !names.contains(name.as_str()))
            .collect();
        match more {
            0 => {}
            1 if optional.is_empty() => out.set("minProperties", least.into()),
            1 if optional.len() <= CHOICES => {
                let named = optional.iter().map(|name| json!({"required": [name]}));
                let mut choices: Vec<Value> = named.collect();
                if !is_closed(beside) {
                    let absent: Map<String, Value> = optional
                        .iter()
                        .map(|name| ((*name).clone(), json!(false)))
                        .collect();
                    choices.push(json!({"properties": absent, "minProperties": least}));
                }
                let other = json!({"type": ["null", "boolean", "number", "string", "array"]});
                let object = json!({"type": "object", "anyOf": choices});
                match beside.get("type") == Some(&json!("object")) {
                    true => out.all(object),
                    false => out.all(json!({"anyOf": [other, object]})),
                }
            }
            _ => {
                return Err(at.refuse(format!(
                    "{least} cannot be enforced; expected at most one more than the names in \
                     required"
                )));
            }
        }
        Ok(())
    }

    /// The names of all properties.
    fn names(
        &mut self,
        at: &Place,
        value: &'s Value,
        left: usize,
        out: &mut Out,
    ) -> Result<(), Error> {
        let keywords = match value {
            Value::Bool(true) => return Ok(()),
            Value::Bool(false) => {
                out.all(json!({"maxProperties": 0}));
                return Ok(());
            }
            value => members(at, value)?,
        };
        let mut pattern = None;
        for (keyword, value) in keywords {
            let at = at.key(keyword);
            let one = match keyword.as_str() {
                "pattern" => {
                    let regex = value.as_str();
                    let regex =
                        regex.ok_or_else(|| expected(&at, value, "a regular expression"))?;
                    translated(regex).map_err(|why| at.refuse(why))?
                }
                "enum" => alternatives(list(&at, value)?),
                "const" => alternatives(std::slice::from_ref(value)),
                "minLength" => format!(r"^[\s\S]{{{},}}$", count(&at, value)?),
                "maxLength" => format!(r"^[\s\S]{{0,{}}}$", count(&at, value)?),
                "not" => {
                    let values = value.get("enum").and_then(Value::as_array);
                    let values = values.map(Vec::as_slice);
                    let values = values.or(value.get("const").map(std::slice::from_ref));
                    let is_alone = value.as_object().is_some_and(|not| not.len() == 1);
                    let Some(values) = values.filter(|_| is_alone) else {
                        return Err(at.refuse("only not with enum or const can be enforced here"));
                    };
                    let words: Vec<&str> = values.iter().filter_map(Value::as_str).collect();
                    super::pattern::others(&words).map_err(|why| at.refuse(why))?
                }
                "$ref" => {
                    let (pointer, target) = self.references.find(&at, value)?;
                    let Some(left) = left.checked_sub(1) else {
                        return Err(at.refuse("it refers to itself; expected a schema of names"));
                    };
                    self.names(&Place::of(&pointer), target, left, out)?;
                    continue;
                }
                "type" if *value == json!("string") => continue,
                "title" | "description" | "$comment" | "examples" => continue,
                _ => {
                    return Err(at.refuse(format!(
                        "{keyword} of names cannot be enforced; use pattern or enum"
                    )));
                }
            };
            if pattern.replace(one).is_some() {
                return Err(at.refuse(
                    "two keywords for names cannot be enforced; say them with one pattern",
                ));
            }
        }
        if let Some(pattern) = pattern {
            out.all(json!({"patternProperties": {pattern: true}, "additionalProperties": false}));
        }
        Ok(())
    }
}

/// Whether an object has declared properties only.
fn is_closed(keywords: &Map<String, Value>) -> bool {
    keywords.get("additionalProperties") == Some(&json!(false))
        && !keywords.contains_key("patternProperties")
}

/// Refuses too many members.
fn most(at: &Place, found: usize, most: usize) -> Result<(), Error> {
    match found > most {
        true => Err(at.refuse(format!("it has {found} members, expected at most {most}"))),
        false => Ok(()),
    }
}

/// The members of an object.
fn members<'v>(at: &Place, value: &'v Value) -> Result<&'v Map<String, Value>, Error> {
    value
        .as_object()
        .ok_or_else(|| expected(at, value, "an object"))
}

/// A pattern of the strings among some values.
fn alternatives(values: &[Value]) -> String {
    let texts = values.iter().filter_map(Value::as_str);
    let texts: Vec<String> = texts
        .map(|text| text.chars().map(literal).collect())
        .collect();
    match texts.is_empty() {
        // A class of no character.
        true => r"[^\s\S]".into(),
        false => format!("^(?:{})$", texts.join("|")),
    }
}
