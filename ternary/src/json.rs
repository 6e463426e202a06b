//! JSON from untrusted sources. Two bytes of text can become a value of seventy bytes in memory, so
//! values are counted before parsing. `serde_json` limits the depth but not the number of values,
//! so the count is done here.

use std::ops::Range;

use serde_json::Value;

/// Most values in a file that is parsed into a [`Value`]. Settings of published tokenizers have up
/// to 45 000.
const MOST_VALUES: usize = 50_000;

/// Most values of a tokenizer.json. A vocabulary of 262 144 tokens with its merges has two million.
const MOST_TOKENIZER_VALUES: usize = 5_000_000;

/// Parses a small file.
///
/// # Errors
/// The message of serde_json, or a message that the file holds too many values.
pub fn parse(bytes: &[u8]) -> Result<Value, String> {
    parse_at_most(bytes, MOST_VALUES)
}

/// Parses a tokenizer.json with its vocabulary and merges.
///
/// # Errors
/// Those of [`parse`].
pub fn parse_tokenizer(bytes: &[u8]) -> Result<Value, String> {
    parse_at_most(bytes, MOST_TOKENIZER_VALUES)
}

fn parse_at_most(bytes: &[u8], most: usize) -> Result<Value, String> {
    let found = count(bytes);
    if found > most {
        return Err(format!("it holds {found} values, expected at most {most}"));
    }
    serde_json::from_slice(bytes).map_err(|e| e.to_string())
}

/// Upper bound of the number of values: every value is the first one or follows a bracket or a
/// comma.
pub fn count(bytes: &[u8]) -> usize {
    let (mut values, mut in_string, mut escaped) = (1, false, false);
    for byte in bytes {
        match (in_string, byte) {
            (true, _) if escaped => escaped = false,
            (true, b'\\') => escaped = true,
            (_, b'"') => in_string = !in_string,
            (false, b'[' | b'{' | b',') => values += 1,
            _ => {}
        }
    }
    values
}

/// The key of an object that stands for an integer beyond 64 bits; its value is the digits.
/// `serde_json` would make a float of such an integer.
pub const LARGE_INTEGER: &str = "\0integer";

/// Places of the integers beyond 64 bits.
pub fn large_integers(text: &[u8]) -> Vec<Range<usize>> {
    let (mut found, mut in_string, mut at) = (Vec::new(), false, 0);
    while at < text.len() {
        match text[at] {
            b'\\' if in_string => at += 1,
            b'"' => in_string = !in_string,
            b'-' | b'0'..=b'9' if !in_string => {
                let is_part = |b: &&u8| b.is_ascii_digit() || b"+-.eE".contains(b);
                let end = at + text[at..].iter().take_while(is_part).count();
                if is_large(&text[at..end]) {
                    found.push(at..end);
                }
                at = end - 1;
            }
            _ => {}
        }
        at += 1;
    }
    found
}

/// Whether a number is an integer that 64 bits do not hold.
fn is_large(number: &[u8]) -> bool {
    let digits = number.strip_prefix(b"-").unwrap_or(number);
    let is_integer = digits.len() >= 19 && digits.iter().all(u8::is_ascii_digit);
    let text = str::from_utf8(number).unwrap_or_default();
    is_integer && text.parse::<i64>().is_err() && text.parse::<u64>().is_err()
}

/// The members of an object with the text of each value, so that a large one need not become a
/// [`Value`]. None if the text is not an object. The text must be valid JSON.
pub fn members(text: &str) -> Option<Vec<(String, &str)>> {
    let mut members = Vec::new();
    let mut rest = text.trim().strip_prefix('{')?.trim_start();
    while rest.starts_with('"') {
        let key = &rest[..value_length(rest)?];
        let after = rest[key.len()..]
            .trim_start()
            .strip_prefix(':')?
            .trim_start();
        let value = after[..value_length(after)?].trim_end();
        members.push((serde_json::from_str(key).ok()?, value));
        rest = after[value.len()..].trim_start();
        rest = rest.strip_prefix(',').unwrap_or(rest).trim_start();
    }
    (rest == "}").then_some(members)
}

/// Length of the value that a text begins with.
fn value_length(text: &str) -> Option<usize> {
    let (mut depth, mut in_string, mut escaped) = (0usize, false, false);
    for (at, byte) in text.bytes().enumerate() {
        match (in_string, byte) {
            (true, _) if escaped => escaped = false,
            (true, b'\\') => escaped = true,
            (_, b'"') => {
                in_string = !in_string;
                if !in_string && depth == 0 {
                    return Some(at + 1);
                }
            }
            (true, _) => {}
            (false, b',' | b'}' | b']') if depth == 0 => return Some(at),
            (false, b'{' | b'[') => depth += 1,
            (false, b'}' | b']') => {
                depth -= 1;
                if depth == 0 {
                    return Some(at + 1);
                }
            }
            _ => {}
        }
    }
    None
}

/// Shortens untrusted text for messages and removes characters that could control a terminal.
pub fn shown(text: &str) -> String {
    const LONGEST: usize = 200;
    let mut shown = String::new();
    for c in text.chars().take(LONGEST) {
        match c.is_control() {
            true => shown.extend(c.escape_default()),
            false => shown.push(c),
        }
    }
    if text.chars().nth(LONGEST).is_some() {
        shown.push_str("...");
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_counted_outside_of_strings() {
        assert_eq!(count(b"3"), 1);
        assert_eq!(count(br#"{"a": [1, 2], "b, [\", {": "\\"}"#), 5);
        assert_eq!(parse(br#"["a, b"]"#).unwrap()[0], "a, b");
    }

    #[test]
    fn integers_beyond_64_bits_are_found() {
        let text = br#"{"a\" 99999999999999999999": [18446744073709551616, -9223372036854775809,
            18446744073709551615, -9223372036854775808, 1e30, 99999999999999999999.0, 7]}"#;
        let found = large_integers(text).into_iter();
        let found: Vec<&[u8]> = found.map(|place| &text[place]).collect();
        assert_eq!(
            found,
            [&b"18446744073709551616"[..], b"-9223372036854775809"]
        );
        assert!(large_integers(b"\"1\\").is_empty() && large_integers(b"").is_empty());
    }

    #[test]
    fn members_are_told_apart() {
        let text = r#" {"a": [1, {"b": "}"}], "\"c\\" : "x,\"", "d":-1.5 , "e": {}, "f": null} "#;
        let expected = [
            ("a", r#"[1, {"b": "}"}]"#),
            ("\"c\\", r#""x,\"""#),
            ("d", "-1.5"),
            ("e", "{}"),
            ("f", "null"),
        ];
        let expected = expected.map(|(key, value)| (key.to_owned(), value));
        assert_eq!(members(text).unwrap(), expected);
        assert_eq!(members("{}").unwrap(), []);
        assert!(members("[1]").is_none() && members("3").is_none());
    }

    #[test]
    fn what_is_shown_is_short_and_plain() {
        assert_eq!(shown("naïve \"x\""), "naïve \"x\"");
        assert_eq!(shown("\u{1b}[2J\n"), "\\u{1b}[2J\\n");
        assert_eq!(shown(&"é".repeat(300)).chars().count(), 203);
    }

    #[test]
    fn many_values_are_refused_before_they_are_made() {
        let many = |n: usize| format!("[{}0]", "0,".repeat(n));
        assert!(parse(many(MOST_VALUES - 2).as_bytes()).is_ok());
        let error = parse(many(MOST_VALUES - 1).as_bytes()).unwrap_err();
        assert!(error.contains("50001 values"), "{error}");
    }
}
