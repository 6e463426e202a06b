//! A check of values against the part of JSON Schema that the server's description uses. A keyword
//! that it does not know fails, so that nothing of a schema is passed over. Objects have no other
//! members than the described ones unless `additionalProperties` says so.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

/// Schemas with the document that their references are in.
#[derive(Clone, Copy)]
pub struct Schemas<'d>(pub &'d Value);

impl<'d> Schemas<'d> {
    /// What is wrong with a value, and where.
    pub fn check(self, schema: &'d Value, value: &Value) -> Result<(), String> {
        self.check_at("", schema, value)
    }

    fn check_at(self, at: &str, schema: &'d Value, value: &Value) -> Result<(), String> {
        let schema = schema.as_object().expect("a schema is an object");
        let mut members = BTreeMap::new();
        self.properties(schema, &mut members);
        for (keyword, expected) in schema {
            let is_met = match keyword.as_str() {
                "$ref" => return self.check_at(at, self.target(expected), value),
                "type" => names(expected).any(|name| is_of(name, value)),
                "const" => value == expected,
                "enum" => expected.as_array().unwrap().contains(value),
                "anyOf" => {
                    let any = expected.as_array().unwrap();
                    any.iter().any(|one| self.check_at(at, one, value).is_ok())
                }
                "minimum" => value
                    .as_f64()
                    .is_none_or(|x| x >= expected.as_f64().unwrap()),
                "exclusiveMinimum" => value
                    .as_f64()
                    .is_none_or(|x| x > expected.as_f64().unwrap()),
                "maximum" => value
                    .as_f64()
                    .is_none_or(|x| x <= expected.as_f64().unwrap()),
                "minItems" => length(value).is_none_or(|n| n >= expected.as_u64().unwrap()),
                "maxItems" => length(value).is_none_or(|n| n <= expected.as_u64().unwrap()),
                "minLength" => characters(value).is_none_or(|n| n >= expected.as_u64().unwrap()),
                "maxLength" => characters(value).is_none_or(|n| n <= expected.as_u64().unwrap()),
                "required" => names(expected).all(|name| value.get(name).is_some()),
                "items" => {
                    for (index, item) in value.as_array().into_iter().flatten().enumerate() {
                        self.check_at(&format!("{at}/{index}"), expected, item)?;
                    }
                    true
                }
                // Their members are those of this object.
                "allOf" | "properties" => true,
                "additionalProperties" => true,
                "description" | "default" => true,
                _ => panic!("the check does not know {keyword}"),
            };
            if !is_met {
                return Err(format!("{at}: {value} is not of {keyword} {expected}"));
            }
        }
        self.check_members(at, schema, &members, value)
    }

    fn check_members(
        self,
        at: &str,
        schema: &'d Map<String, Value>,
        members: &BTreeMap<&str, &'d Value>,
        value: &Value,
    ) -> Result<(), String> {
        // One of them describes the members.
        if schema.contains_key("anyOf") {
            return Ok(());
        }
        let rest = schema.get("additionalProperties");
        for (name, member) in value.as_object().into_iter().flatten() {
            let at = format!("{at}/{name}");
            match (members.get(name.as_str()), rest) {
                (Some(known), _) => self.check_at(&at, known, member)?,
                (None, Some(Value::Bool(true))) => {}
                (None, Some(schema)) => self.check_at(&at, schema, member)?,
                (None, None) => return Err(format!("{at} is not described")),
            }
        }
        Ok(())
    }

    /// Collects the properties of an object and of the schemas that it consists of.
    fn properties(self, schema: &'d Map<String, Value>, found: &mut BTreeMap<&'d str, &'d Value>) {
        let own = schema.get("properties").and_then(Value::as_object);
        found.extend(
            own.into_iter()
                .flatten()
                .map(|(name, schema)| (name.as_str(), schema)),
        );
        for part in schema
            .get("allOf")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
        {
            let part = part.get("$ref").map_or(part, |name| self.target(name));
            let part = part.as_object().unwrap();
            assert!(
                !part.contains_key("required"),
                "the check does not know it in allOf"
            );
            self.properties(part, found);
        }
    }

    /// What a reference is to.
    pub fn target(self, name: &Value) -> &'d Value {
        let pointer = name
            .as_str()
            .and_then(|name| name.strip_prefix('#'))
            .unwrap();
        self.0
            .pointer(pointer)
            .unwrap_or_else(|| panic!("{pointer} is not there"))
    }
}

/// A string, or the strings of a list.
fn names(value: &Value) -> impl Iterator<Item = &str> {
    let list = match value {
        Value::Array(list) => list,
        one => std::slice::from_ref(one),
    };
    list.iter().map(|name| name.as_str().unwrap())
}

fn is_of(name: &str, value: &Value) -> bool {
    match name {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        _ => panic!("{name} is not a type"),
    }
}

fn length(value: &Value) -> Option<u64> {
    value.as_array().map(|list| list.len() as u64)
}

fn characters(value: &Value) -> Option<u64> {
    value.as_str().map(|text| text.chars().count() as u64)
}
