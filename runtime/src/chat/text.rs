//! Values as text: Python's `str` and `repr`, within the limits.

use minijinja::value::{Value, ValueKind};
use minijinja::{Error, Output};

use super::arguments::error;
use super::categories::is_printable;
use super::limits::{RenderUsage, check_size};
use super::operators::{View, is_dict, is_object};
use super::range::Range;

/// Prints a value as Python's `str` writes it.
pub(super) fn print(out: &mut Output, limits: &RenderUsage, value: &Value) -> Result<(), Error> {
    let text = plain(value)?;
    limits.print(text.len())?;
    out.write_str(&text).map_err(Error::from)
}

/// Python's `str`.
pub(super) fn plain(value: &Value) -> Result<String, Error> {
    match value.as_str() {
        Some(text) => Ok(text.to_owned()),
        None if value.is_undefined() => Ok(String::new()),
        None => shown(value),
    }
}

/// Python's `repr`.
pub(super) fn shown(value: &Value) -> Result<String, Error> {
    let mut text = String::new();
    repr(value, &mut text)?;
    Ok(text)
}

fn repr(value: &Value, out: &mut String) -> Result<(), Error> {
    check_size(out.len())?;
    match value.kind() {
        ValueKind::Seq | ValueKind::Iterable | ValueKind::Map => return container(value, out),
        ValueKind::Plain => return Err(error("a function has no text")),
        ValueKind::Undefined => out.push_str("Undefined"),
        ValueKind::None => out.push_str("None"),
        ValueKind::Bool if value.is_true() => out.push_str("True"),
        ValueKind::Bool => out.push_str("False"),
        ValueKind::String => quote(value.as_str().unwrap_or_default(), out),
        ValueKind::Number if !value.is_integer() => {
            let x = f64::try_from(value.clone())?;
            out.push_str(&float(x));
        }
        _ => out.push_str(&value.to_string()),
    }
    Ok(())
}

fn container(value: &Value, out: &mut String) -> Result<(), Error> {
    let is_map = value.kind() == ValueKind::Map;
    let name = value.as_object().map_or("", |object| object.type_name());
    let [before, after] = match (View::of(value), is_map && !is_dict(value)) {
        (Some(_), _) => [View::name(value), ")"],
        (None, true) if name.ends_with("Namespace") => ["<Namespace ", ">"],
        (None, true) => {
            out.push_str(&object(value)?);
            return Ok(());
        }
        (None, false) => ["", ""],
    };
    if let Some(range) = Range::of(value) {
        out.push_str(&range.text());
        return Ok(());
    }
    out.push_str(before);
    out.push_str(if after == ")" { "(" } else { "" });
    // The groups of the filter `groupby` are tuples in Python.
    let is_tuple = value.is_tuple() || name.ends_with("::Group");
    let [open, close] = match is_tuple {
        true => ['(', ')'],
        false if is_map => ['{', '}'],
        false => ['[', ']'],
    };
    out.push(open);
    let mut count = 0;
    for item in value.try_iter()? {
        out.push_str(if count > 0 { ", " } else { "" });
        repr(&item, out)?;
        if is_map {
            out.push_str(": ");
            repr(&value.get_item(&item)?, out)?;
        }
        count += 1;
    }
    out.push_str(if is_tuple && count == 1 { "," } else { "" });
    out.push(close);
    out.push_str(after);
    Ok(())
}

/// A macro or the `loop` of a loop.
fn object(value: &Value) -> Result<String, Error> {
    if is_object(value, "Macro") {
        return Ok(format!("<Macro {}>", shown(&value.get_attr("name")?)?));
    }
    let [index, length] = ["index", "length"].map(|name| value.get_attr(name));
    Ok(format!(
        "<LoopContext {}/{}>",
        shown(&index?)?,
        shown(&length?)?
    ))
}

/// The shortest digits that give the number again.
pub(super) fn float(x: f64) -> String {
    if x.is_nan() {
        return "nan".into();
    }
    if x.is_infinite() {
        return if x > 0.0 { "inf" } else { "-inf" }.into();
    }
    let size = x.abs();
    if size == 0.0 || (1e-4..1e16).contains(&size) {
        let text = x.to_string();
        return if text.contains('.') {
            text
        } else {
            text + ".0"
        };
    }
    let text = format!("{x:e}");
    let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let (sign, exponent) = match exponent.strip_prefix('-') {
        Some(exponent) => ('-', exponent),
        None => ('+', exponent),
    };
    format!("{digits}e{sign}{exponent:0>2}")
}

fn quote(text: &str, out: &mut String) {
    let mark = match text.contains('\'') && !text.contains('"') {
        true => '"',
        false => '\'',
    };
    out.push(mark);
    for c in text.chars() {
        match c {
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c == '\\' || c == mark => out.extend(['\\', c]),
            c if is_printable(c) => out.push(c),
            c => out.push_str(&escaped(c)),
        }
    }
    out.push(mark);
}

/// Only ASCII: other characters as Python escapes them.
pub(super) fn ascii(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match c.is_ascii() {
            true => out.push(c),
            false => out.push_str(&escaped(c)),
        }
    }
    out
}

fn escaped(c: char) -> String {
    match u32::from(c) {
        code @ ..=0xff => format!("\\x{code:02x}"),
        code @ ..=0xffff => format!("\\u{code:04x}"),
        code => format!("\\U{code:08x}"),
    }
}
