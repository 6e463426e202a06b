//! What the parser spends on a schema, before it does.
//!
//! It multiplies out alternatives: a schema with twenty `anyOf` in `allOf` has a million. For each
//! object its time grows with the square of the number of properties.

use std::collections::HashMap;

use serde_json::{Map, Value};

/// Most microseconds, as estimated.
const MOST: f64 = 60_000.0;
/// The largest multiple that the parser computes without overflow in little time.
const MULTIPLE: f64 = 10_000.0;

/// The largest product of multiples and their powers of ten: the parser has 32 bits for it.
const SCALED: f64 = 4e9;

/// What holds at one place together.
#[derive(Debug, Clone, Copy)]
struct Size {
    alternatives: f64,
    properties: f64,
    /// Characters of regular expressions.
    patterns: f64,
    /// The digits of `multipleOf`, and the power of ten that they are divided by.
    multiple: f64,
    scale: f64,
}

struct Sizes<'s> {
    definitions: &'s Map<String, Value>,
    /// The sizes of definitions; `None` while one is computed.
    known: HashMap<&'s str, Option<Size>>,
}

/// Refuses lowered definitions that the parser would take too long for.
pub(super) fn check(definitions: &Map<String, Value>) -> Result<(), String> {
    let mut sizes = Sizes {
        definitions,
        known: HashMap::new(),
    };
    let mut total = 0.0;
    // Schemas by themselves: those that are not a part of what holds at another place.
    let mut open: Vec<(&Value, bool)> = definitions.values().map(|part| (part, true)).collect();
    while let Some((schema, is_alone)) = open.pop() {
        let Value::Object(keywords) = schema else {
            continue;
        };
        if is_alone {
            let size = sizes.of(schema);
            let n = size.properties;
            let each = n * n / 4.0 + 2.0 * n + size.patterns / 8.0 + 10.0;
            total += size.alternatives * each;
            if total > MOST {
                return Err(
                    "it is too large: its alternatives or its properties are too many; \
                            write fewer of them in one schema"
                        .into(),
                );
            }
            if size.multiple * size.scale > SCALED && size.multiple <= MULTIPLE {
                return Err(
                    "multipleOf cannot be enforced with this many digits after the point; \
                            write fewer"
                        .into(),
                );
            }
            if size.multiple > MULTIPLE {
                return Err(format!(
                    "multipleOf cannot be enforced for {}; expected at most {MULTIPLE}",
                    size.multiple
                ));
            }
        }
        for (keyword, value) in keywords {
            let parts: Vec<&Value> = match (keyword.as_str(), value) {
                ("const" | "enum" | "required" | "type", _) => continue,
                ("properties" | "patternProperties", Value::Object(all)) => all.values().collect(),
                (_, Value::Array(all)) => all.iter().collect(),
                (_, one) => vec![one],
            };
            let is_alone = !["allOf", "anyOf"].contains(&keyword.as_str());
            open.extend(parts.into_iter().map(|part| (part, is_alone)));
        }
    }
    Ok(())
}

impl<'s> Sizes<'s> {
    fn of(&mut self, schema: &'s Value) -> Size {
        let mut size = Size::ONE;
        let Value::Object(keywords) = schema else {
            return size;
        };
        for (keyword, value) in keywords {
            match (keyword.as_str(), value) {
                ("properties", Value::Object(all)) => {
                    size.properties += all.len() as f64;
                    size.patterns += characters(value);
                }
                ("pattern", Value::String(text)) => size.patterns += text.len() as f64,
                ("required", Value::Array(all)) if !keywords.contains_key("properties") => {
                    size.properties += all.len() as f64;
                }
                ("type", Value::Array(types)) => size.alternatives *= types.len() as f64,
                ("multipleOf", factor) => {
                    let (digits, scale) = digits(factor);
                    (size.multiple, size.scale) = (size.multiple * digits, size.scale * scale);
                }
                ("allOf", Value::Array(parts)) => {
                    for part in parts {
                        size = size.and(self.of(part));
                    }
                }
                ("anyOf", Value::Array(branches)) => {
                    let branches = branches.iter().map(|branch| match keywords.len() {
                        1 if branch.get("$ref").is_some() => Size::ONE,
                        _ => self.of(branch),
                    });
                    let all = branches.fold(None, |all: Option<Size>, one| match all {
                        None => Some(one),
                        Some(all) => Some(all.or(one)),
                    });
                    size = size.and(all.unwrap_or(Size::ONE));
                }
                // A reference alone stays one.
                ("$ref", Value::String(name)) if keywords.len() > 1 => {
                    size = size.and(self.target(name));
                }
                _ => {}
            }
        }
        // Without a type, keywords of one type make an alternative of each.
        let is_plain = |keyword: &String| {
            ["anyOf", "allOf", "$ref", "enum", "const"].contains(&keyword.as_str())
        };
        if !keywords.contains_key("type") && !keywords.keys().all(is_plain) {
            size.alternatives *= 3.0;
        }
        if let (1, Some(Value::String(name))) = (keywords.len(), keywords.get("$ref")) {
            let target = self.target(name);
            (size.multiple, size.scale) = (target.multiple, target.scale);
        }
        size
    }

    fn target(&mut self, name: &'s str) -> Size {
        let name = name.trim_start_matches("#/$defs/");
        if let Some(known) = self.known.get(name) {
            return known.unwrap_or(Size::ONE);
        }
        self.known.insert(name, None);
        let size = self
            .definitions
            .get(name)
            .map_or(Size::ONE, |schema| self.of(schema));
        self.known.insert(name, Some(size));
        size
    }
}

impl Size {
    const ONE: Size = Size {
        alternatives: 1.0,
        properties: 0.0,
        patterns: 0.0,
        multiple: 1.0,
        scale: 1.0,
    };

    /// Both hold.
    fn and(self, other: Size) -> Size {
        Size {
            alternatives: self.alternatives * other.alternatives,
            properties: self.properties + other.properties,
            patterns: self.patterns + other.patterns,
            multiple: self.multiple * other.multiple,
            scale: self.scale * other.scale,
        }
    }

    /// One of them holds.
    fn or(self, other: Size) -> Size {
        Size {
            alternatives: self.alternatives + other.alternatives,
            properties: self.properties.max(other.properties),
            patterns: self.patterns.max(other.patterns),
            multiple: self.multiple.max(other.multiple),
            scale: self.scale.max(other.scale),
        }
    }
}

/// Characters of the patterns in a schema, without those that it refers to.
fn characters(schema: &Value) -> f64 {
    let mut found = 0;
    let mut open = vec![schema];
    while let Some(part) = open.pop() {
        match part {
            Value::Object(members) => {
                let pattern = members.get("pattern").and_then(Value::as_str);
                found += pattern.map_or(0, str::len);
                open.extend(members.values());
            }
            Value::Array(items) => open.extend(items),
            _ => {}
        }
    }
    found as f64
}

/// The digits of a number without the point, and the power of ten that they are divided by: 25 and
/// 100 for 0.25. The digits are infinite if they are more than 8 after it.
fn digits(factor: &Value) -> (f64, f64) {
    let (mut digits, mut scale) = (factor.as_f64().unwrap_or(f64::INFINITY), 1.0);
    for _ in 0..=8 {
        if digits.fract() == 0.0 {
            return (digits, scale);
        }
        (digits, scale) = (digits * 10.0, scale * 10.0);
    }
    (f64::INFINITY, 1.0)
}
