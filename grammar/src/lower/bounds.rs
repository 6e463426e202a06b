//! Ranges of numbers that the parser does not write exactly.
//!
//! Where a bound is a whole number that is left out, and the other bound has the same digits before
//! the point, the parser allows that number: 0 for the numbers above 0 and up to 0.5.

use std::collections::HashMap;

use serde_json::{Map, Value};

/// Most pairs of ranges that hold at one place together.
const PAIRS: usize = 20_000;

/// Numbers between two bounds.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Range {
    low: f64,
    high: f64,
    /// Whether the bounds themselves are left out.
    is_above: bool,
    is_below: bool,
    is_integer: bool,
    /// Whether `multipleOf` leaves out more.
    has_gaps: bool,
}

struct Ranges<'s> {
    definitions: &'s Map<String, Value>,
    /// The ranges of definitions; `None` while they are computed.
    known: HashMap<&'s str, Option<Vec<Range>>>,
}

/// Refuses a range of the keywords of one schema.
pub(super) fn check_own(keywords: &Map<String, Value>) -> Result<(), String> {
    match Range::of(keywords) {
        Some(range) => check_all(&[range]),
        None => Ok(()),
    }
}

/// Refuses a range of lowered definitions, with the name of the definition.
pub(super) fn check(definitions: &Map<String, Value>) -> Result<(), (&str, String)> {
    let known = HashMap::new();
    let mut ranges = Ranges { definitions, known };
    let all = definitions.iter();
    // With whether a schema is by itself, and not a part of what holds at another place.
    let mut open: Vec<(&str, &Value, bool)> = all
        .map(|(name, part)| (name.as_str(), part, true))
        .collect();
    while let Some((name, schema, is_alone)) = open.pop() {
        let Value::Object(keywords) = schema else {
            continue;
        };
        if is_alone {
            let found = ranges.of(schema).and_then(|found| check_all(&found));
            found.map_err(|why| (name, why))?;
        }
        for (keyword, value) in keywords {
            let parts: Vec<&Value> = match (keyword.as_str(), value) {
                ("const" | "enum" | "required" | "type", _) => continue,
                ("properties" | "patternProperties", Value::Object(all)) => all.values().collect(),
                (_, Value::Array(all)) => all.iter().collect(),
                (_, one) => vec![one],
            };
            let is_alone = !["allOf", "anyOf"].contains(&keyword.as_str());
            open.extend(parts.into_iter().map(|part| (name, part, is_alone)));
        }
    }
    Ok(())
}

/// Refuses ranges of which one has a bound that the parser does not leave out, unless another one
/// allows that number.
fn check_all(ranges: &[Range]) -> Result<(), String> {
    for range in ranges {
        let Some(bound) = range.wrong_bound() else {
            continue;
        };
        if !ranges.iter().any(|other| other.contains(bound)) {
            return Err(format!(
                "numbers from {} to {} without {bound} cannot be enforced; allow {bound}, or \
                 have a whole number between the bounds",
                range.low, range.high
            ));
        }
    }
    Ok(())
}

impl Range {
    const ALL: Range = Range {
        low: f64::NEG_INFINITY,
        high: f64::INFINITY,
        is_above: false,
        is_below: false,
        is_integer: false,
        has_gaps: false,
    };

    /// The numbers that keywords allow. `None` if they allow none, or have a list of values.
    fn of(keywords: &Map<String, Value>) -> Option<Range> {
        let has_type = |name: &str| match keywords.get("type") {
            Some(Value::Array(names)) => names.iter().any(|other| other == name),
            Some(one) => one == name,
            None => true,
        };
        let has_values = keywords.contains_key("const") || keywords.contains_key("enum");
        if has_values || !has_type("number") && !has_type("integer") {
            return None;
        }
        let number = |keyword: &str| keywords.get(keyword).and_then(Value::as_f64);
        let (low, above) = (number("minimum"), number("exclusiveMinimum"));
        let (high, below) = (number("maximum"), number("exclusiveMaximum"));
        let own = Range {
            low: low.unwrap_or(f64::NEG_INFINITY),
            high: high.unwrap_or(f64::INFINITY),
            is_integer: !has_type("number"),
            has_gaps: keywords.contains_key("multipleOf"),
            ..Range::ALL
        };
        let open = Range {
            low: above.unwrap_or(f64::NEG_INFINITY),
            high: below.unwrap_or(f64::INFINITY),
            is_above: above.is_some(),
            is_below: below.is_some(),
            ..Range::ALL
        };
        own.and(open)
    }

    /// What is in both, unless that is empty.
    fn and(self, other: Range) -> Option<Range> {
        let (low, is_above) = match self.low == other.low {
            true => (self.low, self.is_above || other.is_above),
            false if self.low > other.low => (self.low, self.is_above),
            false => (other.low, other.is_above),
        };
        let (high, is_below) = match self.high == other.high {
            true => (self.high, self.is_below || other.is_below),
            false if self.high < other.high => (self.high, self.is_below),
            false => (other.high, other.is_below),
        };
        let range = Range {
            low,
            high,
            is_above,
            is_below,
            is_integer: self.is_integer || other.is_integer,
            has_gaps: self.has_gaps || other.has_gaps,
        };
        let is_empty = low > high || low == high && (is_above || is_below);
        (!is_empty).then_some(range)
    }

    /// The bound that is left out, but not by the parser.
    fn wrong_bound(&self) -> Option<f64> {
        let Range { low, high, .. } = *self;
        match self {
            _ if self.is_integer => None,
            _ if self.is_above && low >= 0.0 && low.fract() == 0.0 && high < low + 1.0 => Some(low),
            _ if self.is_below && high <= 0.0 && high.fract() == 0.0 && low > high - 1.0 => {
                Some(high)
            }
            _ => None,
        }
    }

    fn contains(&self, number: f64) -> bool {
        let is_low = number > self.low || number == self.low && !self.is_above;
        let is_high = number < self.high || number == self.high && !self.is_below;
        is_low && is_high && !self.has_gaps
    }
}

impl<'s> Ranges<'s> {
    /// The ranges of which a number is in one.
    fn of(&mut self, schema: &'s Value) -> Result<Vec<Range>, String> {
        let Value::Object(keywords) = schema else {
            let is_all = *schema != Value::Bool(false);
            return Ok(Vec::from_iter(is_all.then_some(Range::ALL)));
        };
        let mut all = Vec::from_iter(Range::of(keywords));
        for (keyword, value) in keywords {
            match (keyword.as_str(), value) {
                ("allOf", Value::Array(parts)) => {
                    for part in parts {
                        all = both(&all, &self.of(part)?)?;
                    }
                }
                ("anyOf", Value::Array(branches)) => {
                    let mut any = Vec::new();
                    for branch in branches {
                        add(&mut any, self.of(branch)?);
                    }
                    all = both(&all, &any)?;
                }
                ("$ref", Value::String(name)) => all = both(&all, &self.target(name)?)?,
                _ => {}
            }
        }
        Ok(all)
    }

    fn target(&mut self, name: &'s str) -> Result<Vec<Range>, String> {
        let name = name.trim_start_matches("#/$defs/");
        if let Some(known) = self.known.get(name) {
            return Ok(known.clone().unwrap_or_else(|| vec![Range::ALL]));
        }
        self.known.insert(name, None);
        let found = match self.definitions.get(name) {
            Some(schema) => self.of(schema)?,
            None => vec![Range::ALL],
        };
        self.known.insert(name, Some(found.clone()));
        Ok(found)
    }
}

/// What is in a range of both lists.
fn both(some: &[Range], others: &[Range]) -> Result<Vec<Range>, String> {
    if some.len() * others.len() > PAIRS {
        return Err("it has too many ranges of numbers; write fewer".into());
    }
    let mut found = Vec::new();
    for range in some {
        add(
            &mut found,
            others.iter().filter_map(|other| range.and(*other)),
        );
    }
    Ok(found)
}

/// Adds the ranges that are not in a list.
fn add(list: &mut Vec<Range>, more: impl IntoIterator<Item = Range>) {
    for range in more {
        if !list.contains(&range) {
            list.push(range);
        }
    }
}
