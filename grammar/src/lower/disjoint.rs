//! Branches of `oneOf` that exclude each other.

use serde_json::{Map, Value, json};

use super::place::Place;
use super::references::is_alone;
use super::{Lowering, list, of_parts};
use crate::Error;

/// Steps of one comparison.
const STEPS: usize = 2000;
/// Values of `enum` that are compared in a step.
const COMPARED: usize = 64;
/// Steps of all comparisons.
pub(super) const ALL_STEPS: usize = 2_000_000;
/// Bits of types; the numbers are integers and others.
const KINDS: [(&str, u8); 7] = [
    ("null", 1),
    ("boolean", 2),
    ("integer", 4),
    ("number", 12),
    ("string", 16),
    ("array", 32),
    ("object", 64),
];
const OBJECT: u8 = 64;
/// Numbers that are not integers.
pub(super) const FRACTIONS: u8 = 8;

impl<'s> Lowering<'s> {
    /// The branches of `oneOf`, each without what another one describes too.
    pub(super) fn one_of(
        &mut self,
        at: &Place,
        value: &'s Value,
        beside: &'s Map<String, Value>,
    ) -> Result<Vec<Value>, Error> {
        let branches = list(at, value)?;
        let around = kinds_of(beside.get("type"));
        // What holds in each branch: itself and the negations of others.
        let lowered = self.schemas(at, value)?.into_iter();
        let mut lowered: Vec<Vec<Value>> = lowered.map(|branch| vec![branch]).collect();
        for i in 0..branches.len() {
            for j in i + 1..branches.len() {
                if self.excludes(&branches[i], &branches[j], around) {
                    continue;
                }
                if self.steps == 0 {
                    return Err(at.refuse("it has too many branches to compare; write anyOf"));
                }
                let cannot = |error: Error| match error {
                    Error::Schema { pointer, why } => at.refuse(format!(
                        "branches {i} and {j} can both hold, and that cannot be excluded \
                         ({pointer}: {why}); write anyOf, or branches of different types or with \
                         a property that has another const in each"
                    )),
                    other => other,
                };
                for (one, other) in [(i, j), (j, i)] {
                    let kinds = self.kinds(&branches[one], around);
                    let not = self.not_among(&at.item(other), &branches[other], kinds);
                    lowered[one].push(not.map_err(cannot)?);
                }
            }
        }
        let branch = |mut parts: Vec<Value>| match parts.len() {
            1 => parts.remove(0),
            _ => of_parts("allOf", parts),
        };
        Ok(lowered.into_iter().map(branch).collect())
    }

    /// The types that a schema allows, among these.
    fn kinds(&self, schema: &'s Value, around: u8) -> u8 {
        let parts = self.parts_of(schema);
        parts
            .iter()
            .fold(around, |kinds, part| kinds & kinds_in(part))
    }

    /// Whether nothing is valid by both schemas. `false` if that is not known.
    fn excludes(&mut self, one: &'s Value, other: &'s Value, around: u8) -> bool {
        let most = STEPS.min(self.steps);
        let mut steps = most;
        let excludes = self.is_disjoint(one, other, around, &mut steps);
        self.steps -= most - steps;
        excludes
    }

    fn is_disjoint(&self, a: &'s Value, b: &'s Value, around: u8, steps: &mut usize) -> bool {
        let (Some(rest), false) = (steps.checked_sub(1), a == &json!(false)) else {
            return a == &json!(false);
        };
        *steps = rest;
        if b == &json!(false) {
            return true;
        }
        let (parts, others) = (self.parts_of(a), self.parts_of(b));
        let kinds = |parts: &[&'s Map<String, Value>]| {
            parts
                .iter()
                .fold(around, |kinds, part| kinds & kinds_in(part))
        };
        let both = kinds(&parts) & kinds(&others);
        if both == 0 {
            return true;
        }
        for part in &parts {
            for other in &others {
                if both == OBJECT && self.has_other_property(part, other, steps) {
                    return true;
                }
                let (Some(values), Some(others)) = (values_of(part), values_of(other)) else {
                    continue;
                };
                let Some(rest) = steps.checked_sub(values.len() * others.len() / COMPARED) else {
                    return false;
                };
                *steps = rest;
                if !values
                    .iter()
                    .any(|a| others.iter().any(|b| may_be_same(a, b)))
                {
                    return true;
                }
            }
        }
        // All choices of one exclude the other.
        let mut choices = |parts: &[&'s Map<String, Value>], other: &'s Value| {
            parts.iter().any(|part| {
                ["anyOf", "oneOf"].iter().any(|keyword| {
                    let branches = part.get(*keyword).and_then(Value::as_array);
                    branches.is_some_and(|branches| {
                        branches
                            .iter()
                            .all(|branch| self.is_disjoint(branch, other, both, steps))
                    })
                })
            })
        };
        choices(&parts, b) || choices(&others, a)
    }

    /// Whether a property that one of two objects requires is not the same in both.
    fn has_other_property(
        &self,
        one: &'s Map<String, Value>,
        other: &'s Map<String, Value>,
        steps: &mut usize,
    ) -> bool {
        let required = |part: &'s Map<String, Value>| {
            let names = part.get("required").and_then(Value::as_array);
            names.into_iter().flatten().filter_map(Value::as_str)
        };
        required(one).chain(required(other)).any(|name| {
            match (property(one, name), property(other, name)) {
                (Some(a), Some(b)) => self.is_disjoint(a, b, u8::MAX, steps),
                (Some(Value::Bool(false)), None) | (None, Some(Value::Bool(false))) => true,
                _ => false,
            }
        })
    }

    /// A schema and some of what holds with it: the parts of `allOf`, what it refers to.
    fn parts_of(&self, schema: &'s Value) -> Vec<&'s Map<String, Value>> {
        const MOST: usize = 64;
        let mut found: Vec<&'s Map<String, Value>> = Vec::new();
        let mut open = vec![schema];
        for _ in 0..MOST {
            let Some(schema) = open.pop() else {
                break;
            };
            let Value::Object(part) = schema else {
                continue;
            };
            let reference = part.get("$ref").filter(|_| self.references.has_one_id());
            let target = reference.and_then(|r| self.references.find(&Place::of("#"), r).ok());
            open.extend(target.map(|(_, target)| target));
            let is_known = found.iter().any(|other| std::ptr::eq(*other, part));
            if !is_known && !is_alone(part, self.draft) {
                found.push(part);
                open.extend(
                    part.get("allOf")
                        .and_then(Value::as_array)
                        .into_iter()
                        .flatten(),
                );
            }
        }
        found
    }
}

/// The schema of a property, if the keywords say one.
fn property<'s>(part: &'s Map<String, Value>, name: &str) -> Option<&'s Value> {
    let named = part.get("properties").and_then(|all| all.get(name));
    let others = part.get("additionalProperties");
    let has_patterns = part.contains_key("patternProperties");
    named.or_else(|| others.filter(|_| !has_patterns))
}

pub(super) fn kinds_of(types: Option<&Value>) -> u8 {
    let kind = |name: &Value| {
        let found = KINDS.iter().find(|(kind, _)| name == kind);
        found.map_or(0, |(_, bit)| *bit)
    };
    match types {
        Some(Value::Array(names)) => names.iter().map(kind).fold(0, |a, b| a | b),
        Some(name @ Value::String(_)) => kind(name),
        _ => u8::MAX,
    }
}

/// The types that a schema's own keywords allow.
fn kinds_in(part: &Map<String, Value>) -> u8 {
    let values = values_of(part).map_or(u8::MAX, |values| {
        let kind = |value: &&Value| match value {
            Value::Null => 1,
            Value::Bool(_) => 2,
            Value::Number(_) => 12,
            Value::String(_) => 16,
            Value::Array(_) => 32,
            Value::Object(_) => OBJECT,
        };
        values.iter().map(kind).fold(0, |a, b| a | b)
    });
    values & kinds_of(part.get("type"))
}

/// The values of `const` or `enum`.
fn values_of(part: &Map<String, Value>) -> Option<Vec<&Value>> {
    match (part.get("const"), part.get("enum")) {
        (Some(value), _) => Some(vec![value]),
        (None, Some(Value::Array(values))) => Some(values.iter().collect()),
        _ => None,
    }
}

/// Whether two values can be equal; lists and objects are not compared.
fn may_be_same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a.as_f64() == b.as_f64(),
        (Value::Array(_), Value::Array(_)) | (Value::Object(_), Value::Object(_)) => true,
        _ => a == b,
    }
}
