//! Methods of Python's strings.

use minijinja::Error;
use minijinja::value::{Tuple, Value, ValueKind};

use super::arguments::{Arguments, error};
use super::limits::check_size;
use super::methods::bounds;
use super::operators::{integer, is_dict, type_name};
use super::{categories, keys, letters};

/// A string argument.
fn needed(value: &Option<Value>) -> Result<&str, Error> {
    let text = value.as_ref().and_then(Value::as_str);
    let found = value.as_ref().map_or("nothing", type_name);
    text.ok_or_else(|| error(format!("expected a string, found {found}")))
}

/// A method of a text that is marked as safe: its arguments are escaped, and its texts are safe.
pub(super) fn safe_string(text: &str, name: &str, mut args: Arguments) -> Result<Value, Error> {
    let is_safe = Value::from_safe_string;
    let escaped = |value: &Value| match value.as_str() {
        Some(text) if !value.is_safe() => is_safe(super::filters::escaped(text)),
        _ => value.clone(),
    };
    match (name, &mut args.positional[..]) {
        ("join", [values]) => *values = values.try_iter()?.map(|v| escaped(&v)).collect(),
        ("replace", [_, new, ..]) => *new = escaped(new),
        _ => {}
    }
    let result = string(text, name, &args)?;
    let marked = |value: Value| match value.as_str() {
        Some(text) => is_safe(text.to_owned()),
        None => value,
    };
    Ok(match result.kind() {
        ValueKind::Seq | ValueKind::Iterable => {
            let parts: Vec<Value> = result.try_iter()?.map(marked).collect();
            match result.is_tuple() {
                true => Value::from(Tuple::from(parts)),
                false => Value::from(parts),
            }
        }
        _ => marked(result),
    })
}

pub(super) fn string(text: &str, name: &str, args: &Arguments) -> Result<Value, Error> {
    let is_all = |test: fn(char) -> bool| {
        args.bind([])?;
        Ok(Value::from(!text.is_empty() && text.chars().all(test)))
    };
    let converted = |converted: String| {
        args.bind([])?;
        Ok(Value::from(converted))
    };
    match name {
        "upper" => converted(text.to_uppercase()),
        "lower" => converted(text.to_lowercase()),
        "casefold" => converted(text.chars().flat_map(letters::fold).collect()),
        "capitalize" => converted(letters::capitalize(text)),
        "title" => converted(letters::title(text)),
        "swapcase" => converted(letters::swap_case(text)),
        "isalpha" => is_all(categories::is_alpha),
        "isalnum" => is_all(categories::is_alnum),
        "isdecimal" => is_all(categories::is_decimal),
        "isdigit" => is_all(categories::is_digit),
        "isnumeric" => is_all(categories::is_numeric),
        "isspace" => is_all(is_space),
        "isascii" => Ok(Value::from(text.is_ascii())),
        "isprintable" => Ok(Value::from(text.chars().all(categories::is_printable))),
        "isidentifier" => Ok(Value::from(categories::is_identifier(text))),
        "islower" => Ok(Value::from(categories::is_lower(text))),
        "isupper" => Ok(Value::from(categories::is_upper(text))),
        "istitle" => {
            let is_cased = text
                .chars()
                .any(|c| c.is_uppercase() || categories::is_title(c));
            Ok(Value::from(is_cased && letters::title(text) == text))
        }
        "strip" | "lstrip" | "rstrip" => {
            let [chars] = args.bind(["chars"])?;
            Ok(Value::from(strip(text, chars.as_ref(), name)?))
        }
        "startswith" | "endswith" => starts_or_ends(text, name, args),
        "removeprefix" | "removesuffix" => {
            let [part] = args.bind(["part"])?;
            let part = needed(&part)?;
            let cut = match name {
                "removeprefix" => text.strip_prefix(part),
                _ => text.strip_suffix(part),
            };
            Ok(Value::from(cut.unwrap_or(text)))
        }
        "replace" => {
            let [old, new, count] = args.bind(["old", "new", "count"])?;
            let count = count.as_ref().map_or(Ok(-1), integer)?;
            Ok(Value::from(replace(
                text,
                needed(&old)?,
                needed(&new)?,
                count,
            )?))
        }
        "split" | "rsplit" => split(text, name, args),
        "splitlines" => {
            let [keep] = args.bind(["keepends"])?;
            Ok(split_lines(text, keep.is_some_and(|keep| keep.is_true())))
        }
        "partition" | "rpartition" => partition(text, name, args),
        "find" | "rfind" | "index" | "rindex" | "count" => search(text, name, args),
        "join" => {
            let [values] = args.bind(["values"])?;
            let values = values.ok_or_else(|| error("expected a list"))?;
            join(text, &values)
        }
        "center" | "ljust" | "rjust" | "zfill" => justify(text, name, args),
        "expandtabs" => {
            let [size] = args.bind(["tabsize"])?;
            expand_tabs(text, size.as_ref().map_or(Ok(8), integer)?)
        }
        "translate" => {
            let [table] = args.bind(["table"])?;
            translate(text, &table.ok_or_else(|| error("expected a table"))?)
        }
        "maketrans" => {
            let [from, to, removed] = args.bind(["x", "y", "z"])?;
            make_table(from, to, removed)
        }
        _ => Err(error("bytes are not supported")),
    }
}

fn starts_or_ends(text: &str, name: &str, args: &Arguments) -> Result<Value, Error> {
    let [part, start, stop] = args.bind(["part", "start", "stop"])?;
    let part = part.ok_or_else(|| error("expected a string"))?;
    let text = within(text, start.as_ref(), stop.as_ref())?;
    let parts: Vec<Value> = match part.is_tuple() {
        true => part.try_iter()?.collect(),
        false => vec![part],
    };
    for part in parts {
        let part = Some(part);
        let part = needed(&part)?;
        let is = match name {
            "startswith" => text.starts_with(part),
            _ => text.ends_with(part),
        };
        if is {
            return Ok(Value::from(true));
        }
    }
    Ok(Value::from(false))
}

/// The part of a text between two indices of characters.
fn within<'t>(
    text: &'t str,
    start: Option<&Value>,
    stop: Option<&Value>,
) -> Result<&'t str, Error> {
    if start.or(stop).is_none() {
        return Ok(text);
    }
    let (start, stop) = bounds(text.chars().count(), start, stop)?;
    let byte = |at: usize| {
        text.char_indices()
            .nth(at)
            .map_or(text.len(), |(byte, _)| byte)
    };
    Ok(text.get(byte(start)..byte(stop)).unwrap_or_default())
}

/// Whitespace of Python's `str`.
pub(super) fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

/// `strip`, `lstrip` or `rstrip`.
pub(super) fn strip<'t>(
    text: &'t str,
    chars: Option<&Value>,
    name: &str,
) -> Result<&'t str, Error> {
    let chars = chars.filter(|chars| !chars.is_none()).cloned();
    let set = chars.is_some().then(|| needed(&chars)).transpose()?;
    let is_stripped = |c: char| set.map_or_else(|| is_space(c), |set| set.contains(c));
    Ok(match name {
        "lstrip" => text.trim_start_matches(is_stripped),
        "rstrip" => text.trim_end_matches(is_stripped),
        _ => text.trim_matches(is_stripped),
    })
}

/// Replaces the first `count` places, all if it is negative.
pub(super) fn replace(text: &str, old: &str, new: &str, count: i64) -> Result<String, Error> {
    let count = usize::try_from(count).unwrap_or(usize::MAX);
    let places = text.matches(old).count().min(count);
    check_size(text.len() + places * new.len())?;
    Ok(text.replacen(old, new, places))
}

fn split(text: &str, name: &str, args: &Arguments) -> Result<Value, Error> {
    let [separator, most] = args.bind(["sep", "maxsplit"])?;
    let most = usize::try_from(most.as_ref().map_or(Ok(-1), integer)?).unwrap_or(usize::MAX);
    let separator = separator.filter(|separator| !separator.is_none());
    let parts: Vec<&str> = match &separator {
        None => words(text, name == "rsplit", most),
        Some(_) => {
            let separator = needed(&separator)?;
            if separator.is_empty() {
                return Err(error("empty separator"));
            }
            let parts = most.saturating_add(1);
            match name {
                "split" => text.splitn(parts, separator).collect(),
                _ => {
                    let mut parts: Vec<&str> = text.rsplitn(parts, separator).collect();
                    parts.reverse();
                    parts
                }
            }
        }
    };
    Ok(parts.into_iter().map(Value::from).collect())
}

/// Splits at whitespace, at most `most` times, from the start or from the end.
fn words(text: &str, from_end: bool, most: usize) -> Vec<&str> {
    let mut parts = Vec::new();
    let mut rest = match from_end {
        true => text.trim_end_matches(is_space),
        false => text.trim_start_matches(is_space),
    };
    while !rest.is_empty() {
        let at = match from_end {
            _ if parts.len() == most => None,
            false => rest.find(is_space),
            true => rest.rfind(is_space),
        };
        let Some(at) = at else {
            parts.push(rest);
            break;
        };
        let next = at + rest[at..].chars().next().map_or(0, char::len_utf8);
        if from_end {
            parts.push(&rest[next..]);
            rest = rest[..at].trim_end_matches(is_space);
        } else {
            parts.push(&rest[..at]);
            rest = rest[next..].trim_start_matches(is_space);
        }
    }
    if from_end {
        parts.reverse();
    }
    parts
}

fn split_lines(text: &str, keep: bool) -> Value {
    lines(text, keep).into_iter().map(Value::from).collect()
}

/// The lines of a text by all line ends that Python knows, with them or without.
pub(super) fn lines(text: &str, keep: bool) -> Vec<&str> {
    let is_separator = |c: char| matches!(c, '\u{1c}'..='\u{1e}' | '\u{2028}' | '\u{2029}');
    let is_end = |c: char| matches!(c, '\n'..='\r' | '\u{85}') || is_separator(c);
    let (mut lines, mut rest) = (Vec::new(), text);
    while !rest.is_empty() {
        let at = rest.find(is_end).unwrap_or(rest.len());
        let end = match rest[at..].chars().next() {
            None => at,
            Some(_) if rest[at..].starts_with("\r\n") => at + 2,
            Some(c) => at + c.len_utf8(),
        };
        lines.push(&rest[..if keep { end } else { at }]);
        rest = &rest[end..];
    }
    lines
}

fn partition(text: &str, name: &str, args: &Arguments) -> Result<Value, Error> {
    let [separator] = args.bind(["sep"])?;
    let separator = needed(&separator)?;
    if separator.is_empty() {
        return Err(error("empty separator"));
    }
    let parts = match name {
        "partition" => text.split_once(separator).map(|(a, b)| [a, separator, b]),
        _ => text.rsplit_once(separator).map(|(a, b)| [a, separator, b]),
    };
    let parts = parts.unwrap_or(match name {
        "partition" => [text, "", ""],
        _ => ["", "", text],
    });
    Ok(Value::from(Tuple::from(parts.map(Value::from))))
}

fn search(text: &str, name: &str, args: &Arguments) -> Result<Value, Error> {
    let [part, start, stop] = args.bind(["sub", "start", "end"])?;
    let part = needed(&part)?;
    let inside = within(text, start.as_ref(), stop.as_ref())?;
    if name == "count" {
        return Ok(Value::from(inside.matches(part).count()));
    }
    let at = match name {
        "find" | "index" => inside.find(part),
        _ => inside.rfind(part),
    };
    match at {
        Some(at) => {
            let before = bounds(text.chars().count(), start.as_ref(), None)?.0;
            Ok(Value::from(before + inside[..at].chars().count()))
        }
        None if name.ends_with("find") => Ok(Value::from(-1)),
        None => Err(error("substring not found")),
    }
}

fn join(separator: &str, values: &Value) -> Result<Value, Error> {
    let mut joined = String::new();
    for (i, value) in values.try_iter()?.enumerate() {
        if i > 0 {
            joined += separator;
        }
        joined += needed(&Some(value))?;
        check_size(joined.len())?;
    }
    Ok(Value::from(joined))
}

fn justify(text: &str, name: &str, args: &Arguments) -> Result<Value, Error> {
    let [width, fill] = args.bind(["width", "fillchar"])?;
    let width = integer(&width.ok_or_else(|| error("expected a width"))?)?;
    let fill = match fill.as_ref().map(|fill| (fill.as_str(), fill)) {
        None => {
            if name == "zfill" {
                '0'
            } else {
                ' '
            }
        }
        Some((Some(text), _)) if text.chars().count() == 1 => text.chars().next().unwrap_or(' '),
        Some(_) => return Err(error("the fill must be one character")),
    };
    let width = usize::try_from(width).unwrap_or(0);
    check_size(width.saturating_mul(fill.len_utf8()))?;
    let space = width.saturating_sub(text.chars().count());
    let pad = |count: usize| fill.to_string().repeat(count);
    Ok(Value::from(match name {
        "ljust" => format!("{text}{}", pad(space)),
        "rjust" => format!("{}{text}", pad(space)),
        // Python puts the odd place on the left if the width is odd.
        "center" => {
            let left = space / 2 + (space & width & 1);
            format!("{}{text}{}", pad(left), pad(space - left))
        }
        _ => {
            let sign = usize::from(text.starts_with(['+', '-']));
            format!("{}{}{}", &text[..sign], pad(space), &text[sign..])
        }
    }))
}

fn expand_tabs(text: &str, size: i64) -> Result<Value, Error> {
    let size = usize::try_from(size).unwrap_or(0);
    let tabs = text.matches('\t').count();
    check_size(text.len().saturating_add(tabs.saturating_mul(size)))?;
    let (mut out, mut column) = (String::new(), 0);
    for c in text.chars() {
        match c {
            '\t' if size > 0 => {
                let spaces = size - column % size;
                out.extend(std::iter::repeat_n(' ', spaces));
                column += spaces;
            }
            '\t' => {}
            c => {
                out.push(c);
                column = if matches!(c, '\n' | '\r') {
                    0
                } else {
                    column + 1
                };
            }
        }
    }
    Ok(Value::from(out))
}

/// Characters as a table says: of the number of a character, a text, a number, or none.
fn translate(text: &str, table: &Value) -> Result<Value, Error> {
    if !is_dict(table) {
        return Err(error("expected a dictionary"));
    }
    let mut out = String::new();
    for c in text.chars() {
        let found = keys::lookup(table, &Value::from(u32::from(c)))?;
        match (found.kind(), found.as_str()) {
            (ValueKind::Undefined, _) => out.push(c),
            (ValueKind::None, _) => {}
            (_, Some(text)) => out += text,
            _ => {
                let code = u32::try_from(integer(&found)?)
                    .ok()
                    .and_then(char::from_u32);
                out.push(code.ok_or_else(|| error("a number that is not a character"))?);
            }
        }
        check_size(out.len())?;
    }
    Ok(Value::from(out))
}

/// The table of `str.maketrans`: of a dictionary, or of two texts and one of what is removed.
fn make_table(
    from: Option<Value>,
    to: Option<Value>,
    removed: Option<Value>,
) -> Result<Value, Error> {
    let code = |c: char| Value::from(u32::from(c));
    let mut pairs = Vec::new();
    let Some(to) = to else {
        let table = from
            .filter(is_dict)
            .ok_or_else(|| error("expected a dictionary"))?;
        for key in table.try_iter()? {
            let value = table.get_item(&key)?;
            let mut chars = key.as_str().unwrap_or_default().chars();
            pairs.push(match (key.as_str(), chars.next(), chars.next()) {
                (None, ..) => (Value::from(integer(&key)?), value),
                (_, Some(c), None) => (code(c), value),
                _ => return Err(error("expected keys of one character")),
            });
        }
        return keys::dictionary(pairs);
    };
    let (from, to) = (needed(&from)?.to_owned(), Some(to));
    let to = needed(&to)?;
    if from.chars().count() != to.chars().count() {
        return Err(error("expected two texts of equal length"));
    }
    pairs.extend(
        from.chars()
            .zip(to.chars())
            .map(|(from, to)| (code(from), code(to))),
    );
    if removed.is_some() {
        let none = |c: char| (code(c), Value::from(()));
        pairs.extend(needed(&removed)?.chars().map(none));
    }
    keys::dictionary(pairs)
}
