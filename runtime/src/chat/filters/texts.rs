//! Filters of texts.

use minijinja::Error;
use minijinja::value::{Tuple, Value, ValueKind};

use super::super::arguments::{Arguments, error};
use super::super::limits::check_size;
use super::super::operators::{self, is_dict, is_list, is_sequence};
use super::super::strings::{self, is_space};
use super::super::{categories, format, text};
use super::lists::{self, items};
use super::pretty;
use super::wrap::Wrapping;
use super::{elements, is_true, needed, number};

pub(super) fn center(value: &Value, args: &Arguments) -> Result<Value, Error> {
    let [width] = args.bind(["width"])?;
    let width = usize::try_from(number(width.as_ref(), 80)?).unwrap_or(0);
    check_size(width)?;
    let text = text::plain(value)?;
    let space = width.saturating_sub(text.chars().count());
    let left = space / 2 + (space & width & 1);
    Ok(Value::from(format!(
        "{}{text}{}",
        " ".repeat(left),
        " ".repeat(space - left)
    )))
}

pub(super) fn escape(value: &Value, args: &Arguments) -> Result<Value, Error> {
    match value.is_safe() {
        true => Ok(value.clone()),
        false => force_escape(value, args),
    }
}

pub(super) fn force_escape(value: &Value, args: &Arguments) -> Result<Value, Error> {
    args.bind([])?;
    let text = escaped(&text::plain(value)?);
    check_size(text.len())?;
    Ok(Value::from_safe_string(text))
}

/// Marks a text as safe: what is added to it will be escaped.
pub(super) fn safe(value: &Value, args: &Arguments) -> Result<Value, Error> {
    args.bind([])?;
    Ok(Value::from_safe_string(text::plain(value)?))
}

/// A text with the characters of HTML escaped.
pub(in super::super) fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&#34;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

pub(super) fn formatted(value: &Value, args: &Arguments) -> Result<Value, Error> {
    let names = args.names();
    if !names.is_empty() && !args.positional.is_empty() {
        return Err(error("expected arguments by position or by name, not both"));
    }
    let values = match names.is_empty() {
        true => Value::from(Tuple::from(args.positional.clone())),
        false => Value::from_pairs(names.iter().map(|name| (name.as_str(), args.named(name)))),
    };
    let text = match value.is_safe() {
        true => value.clone(),
        false => Value::from(text::plain(value)?),
    };
    format::percent(&text, &values)
}

pub(super) fn indent(value: &Value, args: &Arguments) -> Result<Value, Error> {
    let [width, first, blank] = args.bind(["width", "first", "blank"])?;
    let text = needed(value)?.to_owned() + "\n";
    let lines: Vec<&str> = text.lines().collect();
    let spaces = match width.as_ref().and_then(Value::as_str) {
        Some(text) => text.to_owned(),
        None => {
            let width = usize::try_from(number(width.as_ref(), 4)?).unwrap_or(0);
            check_size(width.saturating_mul(lines.len()).saturating_add(text.len()))?;
            " ".repeat(width)
        }
    };
    check_size(
        spaces
            .len()
            .saturating_mul(lines.len())
            .saturating_add(text.len()),
    )?;
    let mut out = String::new();
    for (i, line) in lines.iter().enumerate() {
        let is_indented = match i {
            0 => is_true(&first),
            _ => is_true(&blank) || !line.is_empty(),
        };
        out += if i > 0 { "\n" } else { "" };
        out += if is_indented { &spaces } else { "" };
        out += line;
    }
    Ok(Value::from(out))
}

pub(super) fn pprint(value: &Value, args: &Arguments) -> Result<Value, Error> {
    args.bind([])?;
    pretty::printed(&sorted(value)?).map(Value::from)
}

/// Dictionaries in the order of their keys.
fn sorted(value: &Value) -> Result<Value, Error> {
    if is_dict(value) {
        let pairs = lists::by_keys(value)?
            .into_iter()
            .map(|(key, item)| Ok((key, sorted(&item)?)));
        return Ok(Value::from_pairs(pairs.collect::<Result<Vec<_>, Error>>()?));
    }
    match is_list(value) {
        true => {
            let items: Result<Vec<Value>, Error> = value.try_iter()?.map(|v| sorted(&v)).collect();
            Ok(operators::like(value, items?))
        }
        false => Ok(value.clone()),
    }
}

pub(super) fn replace(value: &Value, args: &Arguments) -> Result<Value, Error> {
    let [old, new, count] = args.bind(["old", "new", "count"])?;
    let part = |part: Option<Value>| {
        let part = part.ok_or_else(|| error("expected two strings"))?;
        text::plain(&part)
    };
    let (old, new) = (part(old)?, part(new)?);
    let count = number(count.as_ref(), -1)?;
    strings::replace(&text::plain(value)?, &old, &new, count).map(Value::from)
}

pub(super) fn strip_tags(text: &str) -> String {
    let (mut out, mut rest) = (String::new(), text);
    while let Some(at) = rest.find('<') {
        out += &rest[..at];
        rest = match rest[at..].strip_prefix("<!--") {
            Some(comment) => comment.find("-->").map_or("", |end| &comment[end + 3..]),
            None => rest[at..].find('>').map_or("", |end| &rest[at + end + 1..]),
        };
    }
    out += rest;
    let words: Vec<&str> = out.split_whitespace().collect();
    let text = words.join(" ");
    let named = [
        ("&lt;", "<"),
        ("&gt;", ">"),
        ("&#34;", "\""),
        ("&quot;", "\""),
        ("&#39;", "'"),
    ];
    let text = named
        .iter()
        .fold(text, |text, (from, to)| text.replace(from, to));
    text.replace("&amp;", "&")
}

/// The first letter of each word large; only some characters begin a word, unlike `str.title`.
pub(super) fn title(text: &str) -> String {
    let (mut out, mut begins) = (String::with_capacity(text.len()), true);
    for c in text.chars() {
        match begins {
            true => out.extend(c.to_uppercase()),
            false => out.extend(c.to_lowercase()),
        }
        begins = is_space(c) || "-({[<".contains(c);
    }
    out
}

pub(super) fn trim(value: &Value, args: &Arguments) -> Result<Value, Error> {
    let [chars] = args.bind(["chars"])?;
    Ok(Value::from(strings::strip(
        &text::plain(value)?,
        chars.as_ref(),
        "strip",
    )?))
}

pub(super) fn truncate(value: &Value, args: &Arguments) -> Result<Value, Error> {
    let [length, kill, end, leeway] = args.bind(["length", "killwords", "end", "leeway"])?;
    let length = usize::try_from(number(length.as_ref(), 255)?).unwrap_or(0);
    let leeway = usize::try_from(number(leeway.as_ref(), 5)?).unwrap_or(0);
    let end = end.as_ref().map_or(Ok("...".into()), text::plain)?;
    let is_short = |count: usize| count <= length.saturating_add(leeway);
    // A list that is short enough stays a list in Python.
    let has_items = is_sequence(value) || is_dict(value) || value.is_undefined();
    if has_items && is_short(elements(value)?.len()) {
        return Ok(value.clone());
    }
    let text = needed(value)?.to_owned();
    if is_short(text.chars().count()) {
        return Ok(Value::from(text));
    }
    let kept = length.checked_sub(end.chars().count());
    let kept = kept.ok_or_else(|| error("the length is less than that of the end"))?;
    let mut cut: String = text.chars().take(kept).collect();
    if !is_true(&kill)
        && let Some(at) = cut.rfind(' ')
    {
        cut.truncate(at);
    }
    Ok(Value::from(cut + &end))
}

pub(super) fn urlencode(value: &Value, args: &Arguments) -> Result<Value, Error> {
    args.bind([])?;
    let quoted = |value: &Value, safe: &str| -> Result<String, Error> {
        let mut out = String::new();
        for byte in text::plain(value)?.bytes() {
            match byte {
                b if b.is_ascii_alphanumeric() || b"_.-~".contains(&b) => out.push(b.into()),
                b if safe.as_bytes().contains(&b) => out.push(b.into()),
                b => out += &format!("%{b:02X}"),
            }
        }
        check_size(out.len())?;
        Ok(out)
    };
    let has_items = matches!(value.kind(), ValueKind::Seq | ValueKind::Iterable);
    if !is_dict(value) && !has_items {
        return quoted(value, "/").map(Value::from);
    }
    let pairs = match is_dict(value) {
        true => items(value, args)?,
        false => value.clone(),
    };
    let mut parts = Vec::new();
    for pair in pairs.try_iter()? {
        let pair: Vec<Value> = pair.try_iter()?.collect();
        let [key, value] = &pair[..] else {
            return Err(error("expected pairs"));
        };
        let plus = |text: String| text.replace("%20", "+");
        parts.push(format!(
            "{}={}",
            plus(quoted(key, "")?),
            plus(quoted(value, "")?)
        ));
    }
    Ok(Value::from(parts.join("&")))
}

pub(super) fn word_count(value: &Value, args: &Arguments) -> Result<Value, Error> {
    args.bind([])?;
    let text = text::plain(value)?;
    let words = text.split(|c: char| !categories::is_alnum(c) && c != '_');
    Ok(Value::from(words.filter(|word| !word.is_empty()).count()))
}

pub(super) fn word_wrap(value: &Value, args: &Arguments) -> Result<Value, Error> {
    let [width, long, wrap, hyphens] = args.bind([
        "width",
        "break_long_words",
        "wrapstring",
        "break_on_hyphens",
    ])?;
    let width = usize::try_from(number(width.as_ref(), 79)?).unwrap_or(0);
    let width = Some(width).filter(|width| *width > 0);
    let wrapping = Wrapping {
        width: width.ok_or_else(|| error("expected a width of 1 or more"))?,
        breaks_words: long.is_none_or(|long| long.is_true()),
        breaks_hyphens: hyphens.is_none_or(|hyphens| hyphens.is_true()),
    };
    let wrap = wrap.filter(|wrap| !wrap.is_none());
    let wrap = wrap.as_ref().map_or(Ok("\n".into()), text::plain)?;
    let mut out = String::new();
    for (i, paragraph) in strings::lines(needed(value)?, false).iter().enumerate() {
        out += if i > 0 { &wrap } else { "" };
        for (i, line) in wrapping.lines(paragraph).iter().enumerate() {
            out += if i > 0 { &wrap } else { "" };
            out += line;
            check_size(out.len())?;
        }
    }
    Ok(Value::from(out))
}

pub(super) fn xml_attributes(value: &Value, args: &Arguments) -> Result<Value, Error> {
    let [space] = args.bind(["autospace"])?;
    if !is_dict(value) {
        return Err(error("expected a dictionary"));
    }
    let mut out = String::new();
    for key in elements(value)? {
        let item = value.get_item(&key)?;
        if item.is_none() || item.is_undefined() {
            continue;
        }
        let key = text::plain(&key)?;
        if key.contains(|c: char| is_space(c) || "/>=".contains(c)) {
            return Err(error(format!(
                "invalid character in attribute name {key:?}"
            )));
        }
        out += if out.is_empty() { "" } else { " " };
        out += &format!("{}=\"{}\"", escaped(&key), escaped(&text::plain(&item)?));
        check_size(out.len())?;
    }
    let is_spaced = space.is_none_or(|space| space.is_true()) && !out.is_empty();
    Ok(Value::from(if is_spaced { format!(" {out}") } else { out }))
}
