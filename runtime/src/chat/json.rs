//! The filter `tojson`: Python's `json.dumps` with the arguments that transformers allows. Unlike
//! Jinja's own filter it escapes nothing for HTML.

use minijinja::Error;
use minijinja::value::{Serde, Value, ValueKind};
use sterna_ternary::json::LARGE_INTEGER;

use super::arguments::{Arguments, Passed, error};
use super::limits::check_size;
use super::operators::{Number, integer, is_dict, is_list, order, type_name};
use super::text;

/// A variable of the caller. Integers beyond 64 bits are those of `sterna_ternary::json`.
pub(super) fn variable(json: &serde_json::Value) -> Result<Value, Error> {
    use serde_json::Value as Json;
    Ok(match json {
        Json::Null => Value::from(()),
        Json::Array(items) => {
            Value::from(items.iter().map(variable).collect::<Result<Vec<_>, _>>()?)
        }
        Json::Object(members) => match (members.len(), members.get(LARGE_INTEGER)) {
            (1, Some(Json::String(digits))) => match digits.parse::<i128>() {
                Ok(n) => Value::from(n),
                Err(_) => {
                    return Err(error(format!(
                        "the integer {digits} has more than 128 bits"
                    )));
                }
            },
            _ => {
                let pair = |(name, value): (&String, &Json)| Ok((name.clone(), variable(value)?));
                let pairs: Result<Vec<_>, Error> = members.iter().map(pair).collect();
                Value::from_pairs(pairs?)
            }
        },
        plain => Value::from(Serde(plain)),
    })
}

/// `tojson(value, ensure_ascii=false, indent=none, separators=none, sort_keys=false)`
pub(super) fn tojson(value: &Value, args: Passed) -> Result<Value, Error> {
    let names = ["ensure_ascii", "indent", "separators", "sort_keys"];
    let given = Arguments::of(args)?.bind(names)?;
    let [ensure_ascii, indent, separators, sort_keys] =
        given.map(|argument| argument.filter(|argument| !argument.is_none()));
    let indent = match indent {
        None => None,
        Some(indent) => match indent.as_str() {
            Some(text) => Some(text.to_owned()),
            None => {
                let width = integer(&indent)?.max(0) as usize;
                check_size(width)?;
                Some(" ".repeat(width))
            }
        },
    };
    let mut between = [if indent.is_some() { "," } else { ", " }, ": "].map(str::to_owned);
    if let Some(separators) = separators {
        let given: Vec<Value> = separators.try_iter()?.collect();
        let texts: Vec<&str> = given.iter().filter_map(Value::as_str).collect();
        let [item, key] = texts[..] else {
            return Err(error("tojson: expected two `separators`"));
        };
        between = [item, key].map(str::to_owned);
    }
    let mut writer = Writer {
        out: String::new(),
        indent,
        between,
        ensure_ascii: ensure_ascii.is_some_and(|is| is.is_true()),
        sort_keys: sort_keys.is_some_and(|is| is.is_true()),
    };
    writer.write(value, 0)?;
    Ok(Value::from(writer.out))
}

struct Writer {
    out: String,
    indent: Option<String>,
    /// Separators of items, and of key and value.
    between: [String; 2],
    ensure_ascii: bool,
    sort_keys: bool,
}

impl Writer {
    fn write(&mut self, value: &Value, depth: usize) -> Result<(), Error> {
        check_size(self.out.len())?;
        match value.kind() {
            ValueKind::None | ValueKind::Bool | ValueKind::Number => {
                self.out += &scalar(value)?;
            }
            ValueKind::String => self.string(value.as_str().unwrap_or_default()),
            ValueKind::Seq | ValueKind::Iterable if is_list(value) => {
                let items: Vec<Value> = value.try_iter()?.collect();
                self.list(['[', ']'], &items, depth, |writer, item| {
                    writer.write(item, depth + 1)
                })?;
            }
            ValueKind::Map if is_dict(value) => {
                let mut keys: Vec<Value> = value.try_iter()?.collect();
                if self.sort_keys {
                    let mut failed = false;
                    keys.sort_by(|a, b| {
                        let order = order(a, b).ok().flatten();
                        failed |= order.is_none();
                        order.unwrap_or(std::cmp::Ordering::Equal)
                    });
                    if failed {
                        return Err(error("tojson: keys of different types cannot be sorted"));
                    }
                }
                self.list(['{', '}'], &keys, depth, |writer, key| {
                    match key.as_str() {
                        Some(key) => writer.string(key),
                        None => {
                            let key = scalar(key)?;
                            writer.string(&key);
                        }
                    }
                    writer.out += &writer.between[1].clone();
                    writer.write(&value.get_item(key)?, depth + 1)
                })?;
            }
            _ => {
                let name = type_name(value);
                return Err(error(format!(
                    "tojson: an object of type {name} has no JSON"
                )));
            }
        }
        Ok(())
    }

    fn list(
        &mut self,
        brackets: [char; 2],
        items: &[Value],
        depth: usize,
        mut item: impl FnMut(&mut Writer, &Value) -> Result<(), Error>,
    ) -> Result<(), Error> {
        self.out.push(brackets[0]);
        for (i, value) in items.iter().enumerate() {
            if i > 0 {
                self.out += &self.between[0].clone();
            }
            self.new_line(depth + 1)?;
            item(self, value)?;
        }
        if !items.is_empty() {
            self.new_line(depth)?;
        }
        self.out.push(brackets[1]);
        Ok(())
    }

    fn new_line(&mut self, depth: usize) -> Result<(), Error> {
        if let Some(indent) = &self.indent {
            check_size(
                self.out
                    .len()
                    .saturating_add(indent.len().saturating_mul(depth)),
            )?;
            self.out.push('\n');
            self.out += &indent.repeat(depth);
        }
        Ok(())
    }

    fn string(&mut self, text: &str) {
        self.out.push('"');
        for c in text.chars() {
            match c {
                '"' | '\\' => self.out.extend(['\\', c]),
                '\n' => self.out.push_str("\\n"),
                '\r' => self.out.push_str("\\r"),
                '\t' => self.out.push_str("\\t"),
                '\u{8}' => self.out.push_str("\\b"),
                '\u{c}' => self.out.push_str("\\f"),
                c if c < ' ' || self.ensure_ascii && !c.is_ascii() => {
                    let mut units = [0; 2];
                    for unit in c.encode_utf16(&mut units) {
                        self.out += &format!("\\u{unit:04x}");
                    }
                }
                c => self.out.push(c),
            }
        }
        self.out.push('"');
    }
}

fn scalar(value: &Value) -> Result<String, Error> {
    Ok(match Number::of(value) {
        _ if value.is_none() => "null".into(),
        _ if value.kind() == ValueKind::Bool => value.is_true().to_string(),
        Some(Number::Int(n)) => n.to_string(),
        Some(Number::Float(x)) if x.is_nan() => "NaN".into(),
        Some(Number::Float(x)) if x.is_infinite() => {
            if x > 0.0 { "Infinity" } else { "-Infinity" }.into()
        }
        Some(Number::Float(x)) => text::float(x),
        None => {
            let name = type_name(value);
            return Err(error(format!("tojson: a key of type {name}")));
        }
    })
}
