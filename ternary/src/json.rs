//! JSON from untrusted sources. Two bytes of text can become a value of seventy bytes in memory, so
//! values are counted before parsing. `serde_json` limits the depth but not the number of values,
//! so the count is done here.

use serde_json::Value;

/// Most values in a file that is parsed into a [`Value`]. Settings of published tokenizers have up
/// to 45 000.
const MOST_VALUES: usize = 50_000;

/// Parses a small file.
///
/// # Errors
/// The message of serde_json, or a message that the file holds too many values.
pub fn parse(bytes: &[u8]) -> Result<Value, String> {
    let found = count(bytes);
    if found > MOST_VALUES {
        return Err(format!(
            "it holds {found} values, expected at most {MOST_VALUES}"
        ));
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
