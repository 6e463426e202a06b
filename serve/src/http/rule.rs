//! What an answer keeps to: JSON, a schema, a regular expression, a grammar, one of some texts.
//!
//! The fields are those of OpenAI, vLLM, SGLang and llama.cpp. All are read, and at most one may
//! ask for something.

use serde_json::{Map, Value};
use sterna_runtime::Constraint;

use super::error::{ApiError, ApiResult};
use super::read::{Reader, wrong};
use super::served::Served;

/// The fields that ask for a rule.
pub const FIELDS: [&str; 9] = [
    "grammar",
    "guided_choice",
    "guided_grammar",
    "guided_json",
    "guided_regex",
    "json_schema",
    "regex",
    "response_format",
    "structured_outputs",
];

/// What a field asks for.
#[derive(Debug, Clone, PartialEq)]
pub enum Rule {
    /// A JSON object.
    JsonObject,
    /// JSON of a schema.
    Schema(Value),
    /// A text that a regular expression matches.
    Regex(String),
    /// A text of a grammar in Lark's syntax.
    Lark(String),
    /// One of these texts.
    Choice(Vec<String>),
}

/// What an answer keeps to.
pub struct Asked {
    /// The constraint that follows it.
    pub constraint: Box<dyn Constraint>,
    /// The keywords of a schema that have no effect, below the name of their field.
    pub unknown: Vec<String>,
}

/// What a request asks for.
///
/// # Errors
/// 400 with the name of the field: a wrong value, two rules, or one that cannot be enforced.
pub fn read(fields: Reader, served: &Served) -> ApiResult<Option<Asked>> {
    let mut asked = asked(fields)?.into_iter();
    let Some((param, rule)) = asked.next() else {
        return Ok(None);
    };
    if let Some((other, _)) = asked.next() {
        let message =
            format!("{other} and {param} both say what the answer keeps to; leave one of them out");
        return Err(ApiError::invalid(other, message));
    }
    if fields.flag("ignore_eos")? {
        let message = format!("ignore_eos is true, but an answer that keeps to {param} has an end");
        return Err(ApiError::invalid("ignore_eos", message));
    }
    // This bounds the size of a schema.
    let constraint = served.constraint(&param, rule.clone())?;
    let unknown = unknown(&param, &rule);
    Ok(Some(Asked {
        constraint,
        unknown,
    }))
}

/// The field that asks for a rule, if one does.
///
/// # Errors
/// 400: a wrong value.
pub fn asked_by(fields: Reader) -> ApiResult<Option<String>> {
    Ok(asked(fields)?.into_iter().next().map(|(param, _)| param))
}

/// The rules that fields ask for, with the names of the fields.
fn asked(fields: Reader) -> ApiResult<Vec<(String, Rule)>> {
    let mut asked = Vec::new();
    if let Some(format) = fields.object("response_format")? {
        asked.extend(response_format("response_format", format)?);
    }
    if let Some(members) = fields.object("structured_outputs")? {
        for (name, value) in members.iter().filter(|(_, value)| !value.is_null()) {
            let param = format!("structured_outputs.{name}");
            asked.extend(member(name, &param, value)?);
        }
    }
    for (name, like) in [
        ("grammar", "grammar"),
        ("guided_choice", "choice"),
        ("guided_grammar", "grammar"),
        ("guided_json", "json"),
        ("guided_regex", "regex"),
        ("json_schema", "json"),
        ("regex", "regex"),
    ] {
        if let Some(value) = fields.value(name) {
            asked.extend(member(like, name, value)?);
        }
    }
    Ok(asked)
}

/// OpenAI's `response_format`, which other APIs have under other names.
fn response_format(param: &str, format: &Map<String, Value>) -> ApiResult<Option<(String, Rule)>> {
    let kind = format.get("type").and_then(Value::as_str);
    for (name, expected) in [("json_schema", "an object"), ("schema", "a JSON schema")] {
        let is_fine = |value: &Value| match value {
            Value::Null | Value::Object(_) => true,
            Value::Bool(_) => name == "schema",
            _ => false,
        };
        if let Some(value) = format.get(name).filter(|value| !is_fine(value)) {
            return Err(wrong(format!("{param}.{name}"), value, expected));
        }
    }
    let found = |place: &str, schema: &Value| {
        let param = format!("{param}.{place}");
        Ok(Some((param, Rule::Schema(schema.clone()))))
    };
    match kind {
        None if format.is_empty() => Ok(None),
        Some("text") => Ok(None),
        // llama.cpp has the schema here.
        Some("json_object") => match format.get("schema") {
            None | Some(Value::Null) => Ok(Some((param.to_owned(), Rule::JsonObject))),
            Some(schema) => found("schema", schema),
        },
        // OpenAI's newer APIs leave out the object in the middle.
        Some("json_schema") => {
            let inner = format
                .get("json_schema")
                .and_then(|inner| inner.get("schema"));
            match (inner, format.get("schema")) {
                (Some(schema), _) => found("json_schema.schema", schema),
                (None, Some(schema)) => found("schema", schema),
                (None, None) => {
                    let message =
                        format!("{param}.json_schema.schema is absent, expected a schema");
                    Err(ApiError::invalid(format!("{param}.json_schema"), message))
                }
            }
        }
        _ => {
            let kind = format.get("type").unwrap_or(&Value::Null);
            let expected = "text, json_object or json_schema";
            Err(wrong(format!("{param}.type"), kind, expected))
        }
    }
}

/// A member of vLLM's `structured_outputs`, under the name `param`.
fn member(name: &str, param: &str, value: &Value) -> ApiResult<Option<(String, Rule)>> {
    let is_empty = matches!(value, Value::String(text) if text.is_empty());
    let text = |expected| {
        value
            .as_str()
            .map(str::to_owned)
            .ok_or_else(|| wrong(param, value, expected))
    };
    let rule = match name {
        _ if is_empty => return Ok(None),
        "json" => match value {
            // A schema, or its text.
            Value::String(text) => {
                let schema = sterna_ternary::json::parse(text.as_bytes());
                Rule::Schema(schema.map_err(|_| wrong(param, value, "a JSON schema"))?)
            }
            schema => Rule::Schema(schema.clone()),
        },
        "json_object" => match value.as_bool() {
            Some(false) => return Ok(None),
            Some(true) => Rule::JsonObject,
            None => return Err(wrong(param, value, "true or false")),
        },
        "regex" => Rule::Regex(text("a regular expression")?),
        "grammar" => {
            let grammar = text("a grammar in Lark's syntax")?;
            if grammar.contains("::=") {
                let message = format!(
                    "{param} is a grammar in the syntax of GBNF, expected Lark's syntax, which \
                     begins with the rule `start: `"
                );
                return Err(ApiError::invalid(param, message));
            }
            Rule::Lark(grammar)
        }
        "choice" => {
            let texts = value.as_array().filter(|texts| !texts.is_empty());
            let texts = texts.and_then(|texts| {
                texts
                    .iter()
                    .map(|text| text.as_str().map(str::to_owned))
                    .collect()
            });
            Rule::Choice(texts.ok_or_else(|| wrong(param, value, "a list of texts"))?)
        }
        _ => {
            let message = format!("{param} is not supported by this server; leave it out");
            return Err(ApiError::unsupported(param, message));
        }
    };
    Ok(Some((param.to_owned(), rule)))
}

/// The keywords of a schema that have no effect, as `field/place`.
#[cfg(feature = "grammar")]
fn unknown(param: &str, rule: &Rule) -> Vec<String> {
    let Rule::Schema(schema) = rule else {
        return Vec::new();
    };
    let places = sterna_grammar::unknown_keywords(schema).into_iter();
    places
        .map(|place| format!("{param}{}", &place[1..]))
        .collect()
}

#[cfg(not(feature = "grammar"))]
fn unknown(_: &str, _: &Rule) -> Vec<String> {
    Vec::new()
}

/// The constraint of a rule.
///
/// # Errors
/// 400: it cannot be enforced in full.
#[cfg(feature = "grammar")]
pub fn compile(
    grammars: &sterna_grammar::Grammars,
    param: &str,
    rule: Rule,
) -> ApiResult<Box<dyn Constraint>> {
    let rule = match rule {
        Rule::JsonObject => sterna_grammar::Rule::JsonObject,
        Rule::Schema(schema) => sterna_grammar::Rule::JsonSchema(schema),
        Rule::Regex(text) => sterna_grammar::Rule::Regex(text),
        Rule::Lark(text) => sterna_grammar::Rule::Lark(text),
        Rule::Choice(texts) => sterna_grammar::Rule::one_of(&texts),
    };
    let compiled = grammars.compile(&rule);
    compiled.map_err(|error| ApiError::invalid(param, format!("{param}: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn rules(body: Value) -> ApiResult<Vec<(String, Rule)>> {
        asked(Reader(body.as_object().unwrap()))
    }

    #[test]
    fn every_field_is_read() {
        let schema = json!({"type": "null"});
        let one = |rule: Rule| rule;
        for (body, param, rule) in [
            (
                json!({"response_format": {"type": "json_object"}}),
                "response_format",
                one(Rule::JsonObject),
            ),
            (
                json!({"response_format": {"type": "json_schema", "json_schema":
                {"name": "n", "strict": true, "schema": schema}}}),
                "response_format.json_schema.schema",
                Rule::Schema(schema.clone()),
            ),
            (
                json!({"response_format": {"type": "json_object", "schema": schema}}),
                "response_format.schema",
                Rule::Schema(schema.clone()),
            ),
            (
                json!({"structured_outputs": {"choice": ["a", "b"], "regex": null}}),
                "structured_outputs.choice",
                Rule::Choice(vec!["a".into(), "b".into()]),
            ),
            (
                json!({"guided_json": "{\"type\": \"null\"}"}),
                "guided_json",
                Rule::Schema(schema.clone()),
            ),
            (
                json!({"json_schema": schema, "regex": ""}),
                "json_schema",
                Rule::Schema(schema.clone()),
            ),
            (json!({"regex": "a+"}), "regex", Rule::Regex("a+".into())),
            (
                json!({"grammar": "start: \"a\""}),
                "grammar",
                Rule::Lark("start: \"a\"".into()),
            ),
        ] {
            assert_eq!(
                rules(body.clone()).unwrap(),
                [(param.to_owned(), rule)],
                "{body}"
            );
        }
        for body in [
            json!({}),
            json!({"response_format": {"type": "text"}, "structured_outputs": {}, "regex": null}),
        ] {
            assert_eq!(rules(body.clone()).unwrap(), [], "{body}");
        }
    }

    #[test]
    fn wrong_values_are_named() {
        for (body, param) in [
            (
                json!({"response_format": {"type": "sound"}}),
                "response_format.type",
            ),
            (
                json!({"response_format": {"type": "json_schema", "json_schema": {}}}),
                "response_format.json_schema",
            ),
            (
                json!({"response_format": {"type": "text", "json_schema": 3}}),
                "response_format.json_schema",
            ),
            (
                json!({"response_format": {"type": "json_object", "schema": "x"}}),
                "response_format.schema",
            ),
            (json!({"response_format": "json"}), "response_format"),
            (
                json!({"structured_outputs": {"structural_tag": "x"}}),
                "structured_outputs.structural_tag",
            ),
            (json!({"guided_choice": []}), "guided_choice"),
            (json!({"guided_choice": [3]}), "guided_choice"),
            (json!({"guided_json": "{"}), "guided_json"),
            (json!({"regex": 3}), "regex"),
            (json!({"grammar": "root ::= \"a\""}), "grammar"),
        ] {
            let error = rules(body.clone()).unwrap_err();
            assert_eq!(error.param.as_deref(), Some(param), "{body}");
        }
    }
}
