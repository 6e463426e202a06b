//! JSON as Python writes it.
//!
//! Python's `json.dumps` writes NaN and Infinity, which JSON does not have, and half of a surrogate
//! pair, which is not a character. `json.loads` reads them back, so data sets have them. Here NaN
//! and Infinity are read as null, and the half as U+FFFD. `serde_json` has no option for this, so a
//! text that it refuses is repaired and parsed once more.

use std::ops::Range;

use serde_json::Value;
use sterna_ternary::json::{LARGE_INTEGER, large_integers};

/// A value, and whether its text had to be repaired.
pub(crate) struct Parsed {
    pub value: Value,
    pub is_repaired: bool,
}

/// Parses a text, or says what is wrong with it. Integers beyond 64 bits become objects, see
/// [`LARGE_INTEGER`].
pub(crate) fn parse(text: &[u8]) -> Result<Parsed, String> {
    let large = large_integers(text);
    if !large.is_empty() {
        return parse_repaired(&with_large(text, large));
    }
    parse_repaired(text)
}

/// A text with its integers beyond 64 bits as objects.
fn with_large(text: &[u8], large: Vec<Range<usize>>) -> Vec<u8> {
    let key = Value::from(LARGE_INTEGER);
    let (mut out, mut at) = (Vec::with_capacity(text.len() + 32 * large.len()), 0);
    for Range { start, end } in large {
        out.extend_from_slice(&text[at..start]);
        out.extend_from_slice(format!("{{{key}:\"").as_bytes());
        out.extend_from_slice(&text[start..end]);
        out.extend_from_slice(b"\"}");
        at = end;
    }
    out.extend_from_slice(&text[at..]);
    out
}

fn parse_repaired(text: &[u8]) -> Result<Parsed, String> {
    let error = match serde_json::from_slice(text) {
        Ok(value) => {
            return Ok(Parsed {
                value,
                is_repaired: false,
            });
        }
        Err(error) => error.to_string(),
    };
    match serde_json::from_slice(&repaired(text)) {
        Ok(value) => Ok(Parsed {
            value,
            is_repaired: true,
        }),
        Err(_) => Err(error),
    }
}

/// Numbers that JSON does not have.
const NUMBERS: [&[u8]; 3] = [b"NaN", b"-Infinity", b"Infinity"];

/// Replaces numbers that are none outside strings, and halves of surrogate pairs inside.
fn repaired(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let (mut at, mut in_string) = (0, false);
    while at < text.len() {
        let rest = &text[at..];
        let (written, read): (&[u8], usize) = if in_string && rest[0] == b'\\' {
            match surrogate(rest) {
                None => (&rest[..rest.len().min(2)], 2),
                Some(Surrogate::Pair) => (&rest[..12], 12),
                Some(Surrogate::Half) => (b"\\ufffd", 6),
            }
        } else if !in_string && let Some(number) = NUMBERS.iter().find(|n| rest.starts_with(n)) {
            (b"null", number.len())
        } else {
            in_string ^= rest[0] == b'"';
            (&rest[..1], 1)
        };
        out.extend_from_slice(written);
        at += read;
    }
    out
}

enum Surrogate {
    Pair,
    Half,
}

/// The surrogate that an escape at the beginning of a text writes, if it writes one.
fn surrogate(text: &[u8]) -> Option<Surrogate> {
    let unit = |text: &[u8]| {
        let digits = text.strip_prefix(b"\\u")?.get(..4)?;
        u16::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
    };
    match unit(text)? {
        0xd800..0xdc00 => Some(match text.get(6..).and_then(unit) {
            Some(0xdc00..0xe000) => Surrogate::Pair,
            _ => Surrogate::Half,
        }),
        0xdc00..0xe000 => Some(Surrogate::Half),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn integers_beyond_64_bits_keep_their_digits() {
        let large = |digits: &str| json!({LARGE_INTEGER: digits});
        for (text, expected) in [
            ("1180591620717411303424", large("1180591620717411303424")),
            ("-9223372036854775809", large("-9223372036854775809")),
            ("18446744073709551615", json!(u64::MAX)),
            ("-9223372036854775808", json!(i64::MIN)),
            (
                r#""a 1180591620717411303424""#,
                json!("a 1180591620717411303424"),
            ),
            ("1e30", json!(1e30)),
            ("1180591620717411303424.0", json!(1180591620717411303424.0)),
            (
                r#"{"a":[1,99999999999999999999,NaN]}"#,
                json!({"a": [1, large("99999999999999999999"), null]}),
            ),
        ] {
            assert_eq!(parse(text.as_bytes()).unwrap().value, expected, "{text}");
        }
    }

    #[test]
    fn numbers_and_halves_of_python_are_read() {
        let numbers = json!({"a": null, "b": [null, null]});
        let strings = json!({"NaN": "Infinity \"NaN", "x": null});
        for (text, expected, is_repaired) in [
            (r#"{"a": NaN, "b": [Infinity, -Infinity]}"#, numbers, true),
            (r#"{"NaN": "Infinity \"NaN", "x": NaN}"#, strings, true),
            (r#""a\ud83db""#, json!("a\u{fffd}b"), true),
            (
                r#""\udc00\ud83d\ude00\ud83d""#,
                json!("\u{fffd}😀\u{fffd}"),
                true,
            ),
            (r#""\\ud83d\ud83d\\""#, json!("\\ud83d\u{fffd}\\"), true),
            (r#""\ud83d\ude00 NaN""#, json!("😀 NaN"), false),
        ] {
            let found = parse(text.as_bytes()).unwrap();
            assert_eq!(
                (found.value, found.is_repaired),
                (expected, is_repaired),
                "{text}"
            );
        }
        for text in [
            "nothing",
            "{\"a\": Nan}",
            "\"\\u12\"",
            "\"\\",
            "[NaN",
            "\"a\\ud83d",
        ] {
            assert!(parse(text.as_bytes()).is_err(), "{text}");
        }
    }
}
