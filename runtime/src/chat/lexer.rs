//! The words of an expression: names, numbers, strings, operators.

use super::expression::{Result, malformed};

/// Parts of one tag.
const MOST_TOKENS: usize = 20_000;

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Kind {
    Name,
    Number,
    Text,
    Operator,
    End,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Token<'a> {
    pub kind: Kind,
    pub text: &'a str,
    pub at: usize,
}

const OPERATORS: [&str; 31] = [
    "//", "**", "==", "!=", "<=", ">=", "+", "-", "*", "/", "%", "~", "<", ">", "=", "(", ")", "[",
    "]", "{", "}", ",", ":", ".", "|", ";", "&", "^", "@", "?", "!",
];

pub(super) fn lex(source: &str) -> Result<Vec<Token<'_>>> {
    let (mut tokens, mut at) = (Vec::new(), 0);
    while let Some(c) = source[at..].chars().next() {
        let rest = &source[at..];
        if c.is_whitespace() {
            at += c.len_utf8();
            continue;
        }
        let (kind, length) = if c.is_alphabetic() || c == '_' {
            let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_');
            (Kind::Name, end.unwrap_or(rest.len()))
        } else if c.is_ascii_digit() {
            // After a point the digits are an index: `x.0.1` is two of them.
            let is_index = tokens.last().is_some_and(|last: &Token| last.text == ".");
            (
                Kind::Number,
                if is_index { digits(rest) } else { number(rest) },
            )
        } else if c == '\'' || c == '"' {
            (
                Kind::Text,
                quoted(rest).ok_or_else(|| malformed(at, "a string without its end"))?,
            )
        } else {
            let operator = OPERATORS
                .iter()
                .find(|operator| rest.starts_with(**operator));
            let operator = operator.ok_or_else(|| malformed(at, format!("unexpected {c:?}")))?;
            (Kind::Operator, operator.len())
        };
        let text = &rest[..length];
        tokens.push(Token { kind, text, at });
        at += length;
        if tokens.len() > MOST_TOKENS {
            let why = format!("a tag with more than {MOST_TOKENS} parts");
            return Err(malformed(at, why));
        }
    }
    tokens.push(Token {
        kind: Kind::End,
        text: "",
        at,
    });
    Ok(tokens)
}

fn digits(text: &str) -> usize {
    let end = text.find(|c: char| !c.is_ascii_digit());
    end.unwrap_or(text.len())
}

/// Length of the number that a text begins with.
fn number(text: &str) -> usize {
    let bytes = text.as_bytes();
    let digits = |from: usize| {
        let rest = bytes[from..].iter();
        from + rest
            .take_while(|b| b.is_ascii_alphanumeric() || **b == b'_')
            .count()
    };
    let mut end = digits(0);
    // A fraction needs a digit, so that `1.real` and `x.0.y` stay attributes.
    if bytes.get(end) == Some(&b'.') && bytes.get(end + 1).is_some_and(u8::is_ascii_digit) {
        end = digits(end + 1);
    }
    let is_exponent = end > 0 && matches!(bytes[end - 1], b'e' | b'E') && !text.starts_with("0x");
    if is_exponent && matches!(bytes.get(end), Some(b'+' | b'-')) {
        end = digits(end + 1);
    }
    end
}

/// Length of the string literal that a text begins with.
pub(super) fn quoted(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let mut at = 1;
    while at < bytes.len() && bytes[at] != bytes[0] {
        at += if bytes[at] == b'\\' { 2 } else { 1 };
    }
    (at < bytes.len()).then_some(at + 1)
}

/// The text of a string literal, with the escapes of Python.
pub(super) fn unescape(literal: &str) -> String {
    let mut out = String::new();
    let mut rest = &literal[1..literal.len() - 1];
    while let Some(at) = rest.find('\\') {
        out += &rest[..at];
        rest = &rest[at + 1..];
        let Some(c) = rest.chars().next() else { break };
        rest = &rest[c.len_utf8()..];
        let digits = match c {
            'x' => 2,
            'u' => 4,
            'U' => 8,
            '0'..='7' => rest
                .bytes()
                .take(2)
                .take_while(|b| (b'0'..b'8').contains(b))
                .count(),
            _ => 0,
        };
        let code = rest.get(..digits);
        let value = match c {
            'x' | 'u' | 'U' => code.and_then(|code| u32::from_str_radix(code, 16).ok()),
            '0'..='7' => code.and_then(|code| u32::from_str_radix(&format!("{c}{code}"), 8).ok()),
            _ => None,
        };
        if let Some(character) = value.and_then(char::from_u32) {
            out.push(character);
            rest = &rest[digits..];
            continue;
        }
        match c {
            '\n' => {}
            '\\' | '\'' | '"' => out.push(c),
            'n' => out.push('\n'),
            't' => out.push('\t'),
            'r' => out.push('\r'),
            'a' => out.push('\u{7}'),
            'b' => out.push('\u{8}'),
            'f' => out.push('\u{c}'),
            'v' => out.push('\u{b}'),
            c => out.extend(['\\', c]),
        }
    }
    out + rest
}
