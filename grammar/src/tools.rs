//! Calls of tools in the syntax that a model was trained on, with arguments that keep to schemas.
//!
//! A [`CallSyntax`] has the fixed texts around names and arguments. A grammar is made of them and
//! of the schemas. Answers begin with a call ([`Place::First`]), or are free until one begins.

use llguidance::api::TopLevelGrammar;
use serde_json::Value;
use sterna_runtime::Constraint;
use sterna_runtime::calls::{CallSyntax, Part, Place};

use crate::lower::lower;
use crate::{Error, Grammars, LARGEST, Rule, check_schema, on_large_stack, with_settings};

/// What an answer may call.
#[derive(Debug, Clone, Copy)]
pub struct Calls<'c> {
    /// How calls are written.
    pub syntax: &'c CallSyntax,
    /// Names and the schemas of their arguments, at least one.
    pub tools: &'c [(String, Value)],
    /// Where the first call may begin.
    pub place: &'c Place,
    /// Whether there may be several calls.
    pub are_several: bool,
}

impl Grammars {
    /// The constraint of an answer that may call tools.
    ///
    /// # Errors
    /// The index of the tool whose schema cannot be enforced in full, and why. The index is none if
    /// the syntax is at fault, or the tools are too large together.
    pub fn calls(&self, calls: Calls) -> Result<Box<dyn Constraint>, (Option<usize>, Error)> {
        let (what, most) = ("list of all tools", LARGEST);
        let mut found = 0;
        for (index, (_, schema)) in calls.tools.iter().enumerate() {
            found += check_schema(schema).map_err(|error| (Some(index), error))?;
            if found > most {
                return Err((None, Error::TooLarge { what, found, most }));
            }
        }
        let lowered = |(_, schema): &(String, Value)| lower(schema, "#").map(of_object);
        let schemas = || Ok(calls.tools.iter().map(lowered).collect());
        let schemas: Vec<Result<Value, Error>> = on_large_stack(schemas).map_err(|e| (None, e))?;
        let schemas = schemas.into_iter().enumerate();
        let schemas = schemas.map(|(index, schema)| schema.map_err(|error| (Some(index), error)));
        let grammar = calls.grammar(&schemas.collect::<Result<Vec<Value>, _>>()?);
        if grammar.len() > LARGEST {
            let (what, found, most) = ("grammar of all tools", grammar.len(), LARGEST);
            return Err((None, Error::TooLarge { what, found, most }));
        }
        let compiled = self.kept_or(format!("tools {grammar}"), || {
            let compiled = self.follower(TopLevelGrammar::from_lark(grammar));
            compiled.map_err(|why| Error::Text {
                what: "grammar of all tools",
                why,
            })
        });
        compiled.map_err(|error| {
            // The error of a schema by itself names the place in it.
            let mut schemas = calls.tools.iter().map(|(_, schema)| schema).enumerate();
            let guilty = schemas.find_map(|(index, schema)| {
                let rule = Rule::JsonSchema(schema.clone());
                let alone = on_large_stack(|| self.make(&rule).map(drop)).err();
                alone.map(|error| (Some(index), error))
            });
            guilty.unwrap_or((None, error))
        })
    }
}

impl Calls<'_> {
    /// The grammar in Lark's syntax, of the schemas as `lower` made them.
    fn grammar(self, schemas: &[Value]) -> String {
        let CallSyntax {
            open,
            middle,
            separator,
            close,
            ..
        } = self.syntax;
        let mut text = match self.place {
            Place::First => format!("start: {} calls\n", parts(open)),
            Place::Tag(Part::Special(id)) => {
                let rest = parts(&open[1..]);
                format!("start: PLAIN | PLAIN <[{id}]> {rest} calls\nPLAIN: /(?s:.*)/\n")
            }
            Place::Tag(Part::Text(tag)) => {
                let rest = parts(&without(open, tag));
                let (quoted, tag) = (literal(tag), escaped(tag));
                format!(
                    "start: PLAIN | head {rest} calls\nhead[lazy]: ANY {quoted}\n\
                     ANY: /(?s:.*)/\nPLAIN: ANY & ~/(?s:.*){tag}(?s:.*)/\n"
                )
            }
            Place::Start(before) => {
                let first = match open.first() {
                    Some(Part::Text(text)) => escaped(text),
                    _ => String::new(),
                };
                let open = parts(open);
                let special = before.iter().map(|id| format!(" | <[{id}]> {open} calls"));
                format!(
                    "start: PLAIN | {open} calls{}\n\
                     PLAIN: /(?s:.*)/ & ~/{first}(?s:.*)/\n",
                    special.collect::<String>()
                )
            }
        };
        let repeated = match separator {
            Some(separator) if self.are_several => format!("({} call)*", parts(separator)),
            _ => String::new(),
        };
        text += &format!("calls: call {repeated} {}\n", parts(close));
        let names: Vec<String> = (0..self.tools.len()).map(|i| format!("call{i}")).collect();
        text += &format!("call: {}\n", names.join(" | "));
        for (((name, _), schema), rule) in self.tools.iter().zip(schemas).zip(names) {
            let mut before = vec![Part::Text(name.clone())];
            before.extend_from_slice(middle);
            let json = format!("%json {}", with_settings(schema.clone()));
            text += &format!("{rule}: {} {}\n", parts(&joined(before)), json);
        }
        text
    }
}

/// A lowered schema for objects only, which arguments are.
fn of_object(mut lowered: Value) -> Value {
    if lowered["$defs"]["0"]["type"] != "object" {
        lowered["type"] = "object".into();
    }
    lowered
}

/// Parts without a text that they begin with.
fn without(parts: &[Part], beginning: &str) -> Vec<Part> {
    let mut parts = parts.to_vec();
    if let Some(Part::Text(first)) = parts.first_mut() {
        let rest = first.strip_prefix(beginning);
        *first = rest.expect("the tag is the beginning of `open`").to_owned();
    }
    parts
}

/// Texts that follow each other as one.
fn joined(parts: Vec<Part>) -> Vec<Part> {
    let mut joined: Vec<Part> = Vec::new();
    for part in parts {
        match (joined.last_mut(), part) {
            (Some(Part::Text(before)), Part::Text(text)) => *before += &text,
            (_, part) => joined.push(part),
        }
    }
    joined
}

/// Parts in Lark's syntax.
fn parts(parts: &[Part]) -> String {
    let one = |part: &Part| match part {
        Part::Text(text) if text.is_empty() => None,
        Part::Text(text) => Some(literal(text)),
        Part::Special(id) => Some(format!("<[{id}]>")),
    };
    parts.iter().filter_map(one).collect::<Vec<_>>().join(" ")
}

/// A string in Lark's syntax, which has JSON's escapes.
fn literal(text: &str) -> String {
    Value::from(text).to_string()
}

/// A regular expression for a text.
fn escaped(text: &str) -> String {
    let escape = |c: char| match c.is_alphanumeric() {
        true => c.to_string(),
        false => format!("\\x{{{:x}}}", u32::from(c)),
    };
    text.chars().map(escape).collect()
}
