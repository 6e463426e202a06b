//! Schemas inside of grammars.

use serde_json::Value;

use crate::lower::lower;
use crate::schema::unknown_keywords;
use crate::{Error, check_schema, with_settings};

/// What stands before a schema.
const JSON: &str = "%json";

/// A grammar whose schemas, which follow `%json`, are made of what the parser enforces.
///
/// The syntax of texts, regular expressions, special tokens and comments is the parser's, because a
/// `%json` in these is not a schema; its own reader is not public.
pub(crate) fn with_lowered_schemas(grammar: &str) -> Result<String, Error> {
    let mut lowered = String::with_capacity(grammar.len());
    let mut rest = grammar;
    while let Some(first) = rest.chars().next() {
        let taken = match first {
            '"' => delimited(rest, '"'),
            '/' if rest.starts_with("//") => line(rest),
            '/' => delimited(rest, '/'),
            '#' => line(rest),
            '<' => special(rest),
            '%' if rest.starts_with(JSON) => {
                let (schema, length) = schema(&rest[JSON.len()..])?;
                lowered.push_str(&format!("{JSON} {schema}"));
                rest = &rest[JSON.len() + length..];
                continue;
            }
            _ => first.len_utf8(),
        };
        lowered.push_str(&rest[..taken]);
        rest = &rest[taken..];
    }
    Ok(lowered)
}

/// The lowered schema at the beginning of a text, and how many bytes it has there.
fn schema(text: &str) -> Result<(Value, usize), Error> {
    let refused = |why: String| Error::Text {
        what: "grammar",
        why: format!("the schema after %json: {why}"),
    };
    let mut values = serde_json::Deserializer::from_str(text).into_iter::<Value>();
    let schema = match values.next() {
        Some(Ok(schema)) => schema,
        Some(Err(error)) => return Err(refused(error.to_string())),
        None => return Err(refused("it is missing".into())),
    };
    check_schema(&schema)?;
    if let Some(unknown) = unknown_keywords(&schema).first() {
        return Err(refused(format!("{unknown} has no effect; leave it out")));
    }
    let lowered = lower(&schema, "#")?;
    Ok((with_settings(lowered), values.byte_offset()))
}

/// The length of a text that ends with the same character as it begins with; a backslash quotes.
fn delimited(text: &str, end: char) -> usize {
    let mut is_quoted = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if is_quoted => is_quoted = false,
            '\\' => is_quoted = true,
            c if c == end => return at + c.len_utf8(),
            _ => {}
        }
    }
    text.len()
}

/// The length of the rest of a line.
fn line(text: &str) -> usize {
    text.find('\n').unwrap_or(text.len())
}

/// The length of a special token such as `<|end|>`, or of a `<` alone.
fn special(text: &str) -> usize {
    let ends = |c: char| c == '<' || c == '>' || c.is_whitespace();
    match text[1..].find(ends) {
        Some(at) if at > 0 && text[1 + at..].starts_with('>') => at + 2,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_schemas_are_changed() {
        for grammar in [
            "start: \"%json {\" /%json \\/ [/]/ <%json{>",
            "// %json {\n# %json {\nX: \"a\\\"%json\"\n",
            "start: x < 3 \"ü\" /a",
        ] {
            assert_eq!(with_lowered_schemas(grammar).unwrap(), grammar);
        }
        let found =
            with_lowered_schemas("start: \"a\" %json {\"type\": \"null\"} \"b\"\n").unwrap();
        assert!(found.starts_with("start: \"a\" %json {"), "{found}");
        assert!(found.contains("whitespace_pattern"), "{found}");
        assert!(found.ends_with("} \"b\"\n"), "{found}");
    }

    #[test]
    fn schemas_that_cannot_be_enforced_are_refused() {
        for (schema, expected) in [
            ("{\"type\": ", "EOF"),
            ("", "missing"),
            ("{\"typ\": 1}", "#/typ has no effect"),
            ("{\"uniqueItems\": true}", "#/uniqueItems"),
        ] {
            let error = with_lowered_schemas(&format!("start: %json {schema}")).unwrap_err();
            assert!(error.to_string().contains(expected), "{schema}: {error}");
        }
    }
}
