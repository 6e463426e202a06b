//! The filter `pprint`: Python's `pprint.pformat` with its usual width of 80 and indent of 1.

use minijinja::Error;
use minijinja::value::{Value, ValueKind};

use super::super::limits::check_size;
use super::super::operators::{is_dict, is_list};
use super::super::strings::{is_space, lines};
use super::super::text;

const WIDTH: usize = 80;

/// A value whose dictionaries are sorted, in lines.
pub(super) fn printed(value: &Value) -> Result<String, Error> {
    let mut out = String::new();
    write(&mut out, value, 0, 0, true)?;
    Ok(out)
}

/// Writes a value that begins in the column `indent`; `after` characters follow it in its last
/// line.
fn write(
    out: &mut String,
    value: &Value,
    indent: usize,
    after: usize,
    is_top: bool,
) -> Result<(), Error> {
    check_size(out.len().saturating_add(indent))?;
    let shown = text::shown(value)?;
    if width(&shown) <= WIDTH.saturating_sub(indent + after) {
        out.push_str(&shown);
        return Ok(());
    }
    match value.kind() {
        ValueKind::String => text_in_parts(out, value, indent, after, is_top),
        ValueKind::Map if is_dict(value) => {
            out.push('{');
            let keys: Vec<Value> = value.try_iter()?.collect();
            items(out, &keys, indent, after + 1, |out, key, after| {
                let shown = text::shown(key)?;
                out.push_str(&shown);
                out.push_str(": ");
                let indent = indent + 1 + width(&shown) + 2;
                write(out, &value.get_item(key)?, indent, after, false)
            })?;
            out.push('}');
            Ok(())
        }
        _ if is_list(value) => {
            let list: Vec<Value> = value.try_iter()?.collect();
            let [open, close] = match (value.is_tuple(), list.len()) {
                (true, 1) => ["(", ",)"],
                (true, _) => ["(", ")"],
                (false, _) => ["[", "]"],
            };
            out.push_str(open);
            items(
                out,
                &list,
                indent,
                after + close.len(),
                |out, item, after| write(out, item, indent + 1, after, false),
            )?;
            out.push_str(close);
            Ok(())
        }
        _ => {
            out.push_str(&shown);
            Ok(())
        }
    }
}

/// Writes items below one another.
fn items(
    out: &mut String,
    items: &[Value],
    indent: usize,
    after: usize,
    mut item: impl FnMut(&mut String, &Value, usize) -> Result<(), Error>,
) -> Result<(), Error> {
    for (i, value) in items.iter().enumerate() {
        if i > 0 {
            new_line(out, ",", indent + 1)?;
        }
        item(out, value, if i + 1 == items.len() { after } else { 1 })?;
    }
    Ok(())
}

fn new_line(out: &mut String, before: &str, indent: usize) -> Result<(), Error> {
    check_size(out.len().saturating_add(indent))?;
    *out += before;
    out.push('\n');
    *out += &" ".repeat(indent);
    Ok(())
}

/// Writes a long text as several literals, divided at the ends of lines and after spaces.
fn text_in_parts(
    out: &mut String,
    value: &Value,
    indent: usize,
    after: usize,
    is_top: bool,
) -> Result<(), Error> {
    let whole = value.as_str().unwrap_or_default();
    let (indent, after) = (indent + usize::from(is_top), after + usize::from(is_top));
    let most = WIDTH.saturating_sub(indent);
    let quoted = |text: &str| text::shown(&Value::from(text));
    let lines = lines(whole, true);
    let (mut chunks, mut last_shown) = (Vec::new(), String::new());
    for (i, line) in lines.iter().enumerate() {
        let is_last = i + 1 == lines.len();
        let room = |at_end: bool| most.saturating_sub(if at_end { after } else { 0 });
        last_shown = quoted(line)?;
        if width(&last_shown) <= room(is_last) {
            chunks.push(last_shown.clone());
            continue;
        }
        let words = words(line);
        let mut current = String::new();
        for (j, word) in words.iter().enumerate() {
            let candidate = format!("{current}{word}");
            let at_end = is_last && j + 1 == words.len();
            if width(&quoted(&candidate)?) <= room(at_end) {
                current = candidate;
                continue;
            }
            if !current.is_empty() {
                chunks.push(quoted(&current)?);
            }
            current = (*word).to_owned();
        }
        if !current.is_empty() {
            chunks.push(quoted(&current)?);
        }
    }
    if chunks.len() == 1 {
        out.push_str(&last_shown);
        return Ok(());
    }
    out.push_str(if is_top { "(" } else { "" });
    for (i, chunk) in chunks.iter().enumerate() {
        if i > 0 {
            new_line(out, "", indent)?;
        }
        out.push_str(chunk);
    }
    out.push_str(if is_top { ")" } else { "" });
    Ok(())
}

/// Words, each with the spaces after it.
fn words(line: &str) -> Vec<&str> {
    let (mut words, mut start, mut in_space) = (Vec::new(), 0, false);
    for (at, c) in line.char_indices() {
        if in_space && !is_space(c) {
            words.push(&line[start..at]);
            start = at;
        }
        in_space = is_space(c);
    }
    words.push(&line[start..]);
    words
}

fn width(text: &str) -> usize {
    text.chars().count()
}
