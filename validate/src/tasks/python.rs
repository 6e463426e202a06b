//! Literals of Python as `repr` writes them: lists, dicts, strings, numbers.
//!
//! RACE keeps its problems in this form. It is read by hand, because `py_literal`, the crate for
//! it, adds a parser generator and numbers of any size for a list of dicts of strings.

use serde_json::{Map, Value};

use super::layout::Reason;

/// How deep lists and dicts may be inside each other.
const DEPTH: usize = 16;

/// The value of a literal, tuples as lists.
///
/// # Errors
/// Text that is not a literal, with the place; strings that are not Unicode text.
pub(super) fn literal(text: &str) -> Result<Value, Reason> {
    let mut reader = Reader { text, at: 0 };
    let value = reader.value(DEPTH)?;
    match reader.peek() {
        None => Ok(value),
        Some(_) => Err(reader.refused("the end")),
    }
}

struct Reader<'a> {
    text: &'a str,
    /// A byte, on the boundary of a character.
    at: usize,
}

impl Reader<'_> {
    fn rest(&self) -> &str {
        &self.text[self.at..]
    }

    /// The next character that is not a space.
    fn peek(&mut self) -> Option<char> {
        let rest = self.rest();
        self.at += rest.len() - rest.trim_start().len();
        self.rest().chars().next()
    }

    fn next(&mut self) -> Option<char> {
        let next = self.rest().chars().next()?;
        self.at += next.len_utf8();
        Some(next)
    }

    fn takes(&mut self, wanted: char) -> bool {
        let is_next = self.peek() == Some(wanted);
        if is_next {
            self.at += wanted.len_utf8();
        }
        is_next
    }

    fn refused(&self, expected: &str) -> Reason {
        let found: String = self.rest().chars().take(12).collect();
        format!(
            "byte {} of the Python literal is {found:?}, expected {expected}",
            self.at
        )
    }

    fn value(&mut self, depth: usize) -> Result<Value, Reason> {
        let Some(depth) = depth.checked_sub(1) else {
            return Err(format!("the Python literal is deeper than {DEPTH}"));
        };
        match self.peek() {
            Some('[') => self.list(depth, ']'),
            Some('(') => self.list(depth, ')'),
            Some('{') => self.dict(depth),
            Some(quote @ ('\'' | '"')) => self.string(quote).map(Value::String),
            _ => self.word(),
        }
    }

    fn list(&mut self, depth: usize, end: char) -> Result<Value, Reason> {
        self.next();
        let mut values = Vec::new();
        while !self.takes(end) {
            values.push(self.value(depth)?);
            if !self.takes(',') && self.peek() != Some(end) {
                return Err(self.refused("a comma or the end of the list"));
            }
        }
        Ok(Value::Array(values))
    }

    fn dict(&mut self, depth: usize) -> Result<Value, Reason> {
        self.next();
        let mut fields = Map::new();
        while !self.takes('}') {
            let Value::String(key) = self.value(depth)? else {
                return Err(self.refused("a string as the key of a dict"));
            };
            if !self.takes(':') {
                return Err(self.refused("a colon after the key of a dict"));
            }
            fields.insert(key, self.value(depth)?);
            if !self.takes(',') && self.peek() != Some('}') {
                return Err(self.refused("a comma or the end of the dict"));
            }
        }
        Ok(Value::Object(fields))
    }

    /// A number, or one of Python's names.
    fn word(&mut self) -> Result<Value, Reason> {
        let is_part = |c: char| c.is_alphanumeric() || "+-._".contains(c);
        let rest = self.rest();
        let end = rest.find(|c| !is_part(c)).unwrap_or(rest.len());
        let value = match &rest[..end] {
            "None" => Some(Value::Null),
            "True" => Some(true.into()),
            "False" => Some(false.into()),
            word => serde_json::from_str(word).ok().filter(Value::is_number),
        };
        let value = value.ok_or_else(|| self.refused("a list, a dict, a string or a number"))?;
        self.at += end;
        Ok(value)
    }

    fn string(&mut self, quote: char) -> Result<String, Reason> {
        self.next();
        let mut text = String::new();
        loop {
            match self.next() {
                Some(c) if c == quote => return Ok(text),
                Some('\\') => self.escape(&mut text)?,
                Some('\n') | None => return Err(self.refused("the end of a string before this")),
                Some(c) => text.push(c),
            }
        }
    }

    /// What follows a backslash; `repr` writes no octal numbers and no names of characters.
    fn escape(&mut self, text: &mut String) -> Result<(), Reason> {
        let (plain, digits) = match self.next() {
            Some(c @ ('\\' | '\'' | '"')) => (Some(c), 0),
            Some('n') => (Some('\n'), 0),
            Some('r') => (Some('\r'), 0),
            Some('t') => (Some('\t'), 0),
            Some('x') => (None, 2),
            Some('u') => (None, 4),
            Some('U') => (None, 8),
            _ => return Err(self.refused("an escape that Python's repr writes before this")),
        };
        if let Some(c) = plain {
            text.push(c);
            return Ok(());
        }
        let code = self.rest().get(..digits).and_then(|hex| {
            let is_hex = hex.bytes().all(|byte| byte.is_ascii_hexdigit());
            is_hex.then(|| u32::from_str_radix(hex, 16).ok()).flatten()
        });
        let code = code.ok_or_else(|| self.refused(&format!("{digits} hexadecimal digits")))?;
        let c = char::from_u32(code);
        text.push(c.ok_or_else(|| self.refused("a character; half a surrogate is not one"))?);
        self.at += digits;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_repr_writes_is_read() {
        let check = |text: &str, expected: Value| {
            assert_eq!(literal(text).unwrap(), expected, "{text}");
        };
        check("[]", json!([]));
        check(
            "[1, -2.5, None, True, False,]",
            json!([1, -2.5, null, true, false]),
        );
        check(
            "{'a': ['it\\'s', \"it's\"], 'b': ('x',)}",
            json!({"a": ["it's", "it's"], "b": ["x"]}),
        );
        check(
            r"'\\n \n\t\r \x07 \xe9 \u65e5 \U0001f41f'",
            json!("\\n \n\t\r \u{7} é 日 🐟"),
        );
        check(" [ { } , 'é日🐟' ] ", json!([{}, "é日🐟"]));
    }

    #[test]
    fn what_is_not_a_literal_is_refused_where_it_ends() {
        let check = |text: &str, expected: &str| {
            let reason = literal(text).unwrap_err();
            assert!(reason.contains(expected), "{text}: {reason}");
        };
        check("", "byte 0 of the Python literal is \"\", expected a list");
        check("open('x')", "byte 0");
        check("[1 2]", "expected a comma");
        check("{1: 2}", "a string as the key");
        check("{'a' 2}", "a colon");
        check("'a", "the end of a string");
        check("'a' 'b'", "byte 4");
        check(r"'\ud83d'", "half a surrogate");
        check(r"'\x4'", "2 hexadecimal digits");
        check(r"'\q'", "an escape");
        check(&"[".repeat(99), "deeper than 16");
    }
}
