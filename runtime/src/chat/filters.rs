//! The filters of Jinja2 as Python computes them, within the limits.

use minijinja::value::{Rest, Tuple, Value, ValueKind};
use minijinja::{Environment, Error};

use super::arguments::{Arguments, Passed, error};
use super::limits::check_size;
use super::methods::{self, is_space};
use super::operators::{self, Number, integer, is_dict, is_list, type_name};
use super::{format, text};

type Filter = fn(&Value, &Arguments) -> Result<Value, Error>;

const FILTERS: [(&str, Filter); 45] = [
    ("abs", abs),
    ("attr", attr),
    ("batch", batch),
    ("capitalize", |v, a| converted(v, a, methods::capitalize)),
    ("center", center),
    ("count", length),
    ("d", default),
    ("default", default),
    ("e", escape),
    ("escape", escape),
    ("filesizeformat", file_size),
    ("first", first),
    ("float", float),
    ("forceescape", escape),
    ("format", |v, a| formatted(v, a)),
    ("indent", indent),
    ("int", int),
    ("items", items),
    ("join", join),
    ("last", last),
    ("length", length),
    ("list", list),
    ("lower", |v, a| converted(v, a, str::to_lowercase)),
    ("pprint", pprint),
    ("replace", replace),
    ("reverse", reverse),
    ("round", round),
    ("safe", safe),
    ("slice", slice),
    ("string", |v, a| converted(v, a, str::to_owned)),
    ("striptags", |v, a| converted(v, a, strip_tags)),
    ("title", |v, a| converted(v, a, title)),
    ("trim", trim),
    ("truncate", truncate),
    ("upper", |v, a| converted(v, a, str::to_uppercase)),
    ("urlencode", urlencode),
    ("wordcount", word_count),
    ("wordwrap", word_wrap),
    ("xmlattr", xml_attributes),
    ("max", |v, a| extreme(v, a, std::cmp::Ordering::Greater)),
    ("min", |v, a| extreme(v, a, std::cmp::Ordering::Less)),
    ("sort", sort),
    ("sum", sum),
    ("unique", unique),
    ("dictsort", dict_sort),
];

/// Registers the filters.
pub(super) fn register(environment: &mut Environment<'static>, limits: &super::Watch) {
    for (name, filter) in FILTERS {
        let limits = limits.clone();
        environment.add_filter(name, move |value: Value, args: Passed| {
            limits.watch(|| {
                let result = filter(&value, &Arguments::of(args)?);
                result.map_err(|e| match e.detail() {
                    Some(why) => error(format!("filter `{name}`: {why}")),
                    None => e,
                })
            })
        });
    }
    // Names that Jinja2 does not have, and one whose result is random.
    for name in ["bool", "lines", "split", "chain", "zip", "random"] {
        environment.remove_filter(name);
    }
}

/// A filter of the text of a value.
fn converted(value: &Value, args: &Arguments, f: fn(&str) -> String) -> Result<Value, Error> {
    args.bind([])?;
    let text = f(&text::plain(value)?);
    check_size(text.len())?;
    Ok(Value::from(text))
}

fn abs(value: &Value, args: &Arguments) -> Result<Value, Error> {
    args.bind([])?;
    match Number::of(value) {
        Some(Number::Int(n)) if n < 0 => operators::sign("-", value),
        Some(Number::Int(_)) => operators::sign("+", value),
        Some(Number::Float(x)) => Ok(Value::from(x.abs())),
        None => Err(error(format!("bad operand type: '{}'", type_name(value)))),
    }
}

fn attr(value: &Value, args: &Arguments) -> Result<Value, Error> {
    let [name] = args.bind(["name"])?;
    let name = name.as_ref().and_then(Value::as_str).unwrap_or_default();
    match methods::has(value, name) || !is_dict(value) {
        true => operators::attr(value, name),
        false => Ok(Value::UNDEFINED), // keys are no attributes
    }
}

fn number(value: Option<&Value>, default: i64) -> Result<i64, Error> {
    value
        .filter(|value| !value.is_none())
        .map_or(Ok(default), integer)
}

fn is_true(value: &Option<Value>) -> bool {
    value.as_ref().is_some_and(Value::is_true)
}

/// The items of what a filter runs over.
fn elements(value: &Value) -> Result<Vec<Value>, Error> {
    Ok(operators::iter(value.clone())?.try_iter()?.collect())
}

fn batch(value: &Value, args: &Arguments) -> Result<Value, Error> {
    let [count, fill] = args.bind(["linecount", "fill_with"])?;
    let count = usize::try_from(number(count.as_ref(), 0)?).unwrap_or(0);
    check_size(count)?;
    if count == 0 {
        return Err(error("expected a number of items"));
    }
    let items = elements(value)?;
    let mut rows: Vec<Vec<Value>> = items.chunks(count).map(<[Value]>::to_vec).collect();
    if let (Some(fill), Some(last)) = (fill.filter(|fill| !fill.is_none()), rows.last_mut()) {
        last.resize(count, fill);
    }
    Ok(Value::from(rows))
}

fn slice(value: &Value, args: &Arguments) -> Result<Value, Error> {
    let [count, fill] = args.bind(["slices", "fill_with"])?;
    let count = usize::try_from(number(count.as_ref(), 0)?).unwrap_or(0);
    check_size(count)?;
    if count == 0 {
        return Err(error("expected a number of slices"));
    }
    let items = elements(value)?;
    let (each, more) = (items.len() / count, items.len() % count);
    let mut rest = items.into_iter();
    let mut columns = Vec::new();
    for i in 0..count {
        let mut column: Vec<Value> = rest.by_ref().take(each + usize::from(i < more)).collect();
        if let Some(fill) = fill
            .as_ref()
            .filter(|fill| !fill.is_none() && i >= more && more > 0)
        {
            column.push(fill.clone());
        }
        columns.push(column);
    }
    Ok(Value::from(columns))
}

fn center(value: &Value, args: &Arguments) -> Result<Value, Error> {
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

fn default(value: &Value, args: &Arguments) -> Result<Value, Error> {
    let [default, boolean] = args.bind(["default_value", "boolean"])?;
    match value.is_undefined() || is_true(&boolean) && !value.is_true() {
        true => Ok(default.unwrap_or_else(|| Value::from(""))),
        false => Ok(value.clone()),
    }
}

fn escape(value: &Value, args: &Arguments) -> Result<Value, Error> {
    args.bind([])?;
    let text = escaped(&text::plain(value)?);
    check_size(text.len())?;
    Ok(Value::from_safe_string(text))
}

/// Marks a text as safe: what is added to it will be escaped.
fn safe(value: &Value, args: &Arguments) -> Result<Value, Error> {
    args.bind([])?;
    Ok(Value::from_safe_string(text::plain(value)?))
}

/// A text with the characters of HTML escaped.
pub(super) fn escaped(text: &str) -> String {
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

fn file_size(value: &Value, args: &Arguments) -> Result<Value, Error> {
    let [binary] = args.bind(["binary"])?;
    let bytes = float_of(value).ok_or_else(|| error("expected a number"))?;
    let (base, units) = match is_true(&binary) {
        true => (
            1024.0,
            ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB", "ZiB", "YiB"],
        ),
        false => (1000.0, ["kB", "MB", "GB", "TB", "PB", "EB", "ZB", "YB"]),
    };
    if bytes == 1.0 {
        return Ok(Value::from("1 Byte"));
    }
    if bytes < base {
        return Ok(Value::from(format!("{} Bytes", bytes as i64)));
    }
    let mut shown = bytes / base;
    let mut at = 0;
    while shown >= base && at + 1 < units.len() {
        (shown, at) = (shown / base, at + 1);
    }
    Ok(Value::from(format!("{shown:.1} {}", units[at])))
}

fn first(value: &Value, args: &Arguments) -> Result<Value, Error> {
    args.bind([])?;
    let first = operators::iter(value.clone())?.try_iter()?.next();
    Ok(first.unwrap_or(Value::UNDEFINED))
}

fn last(value: &Value, args: &Arguments) -> Result<Value, Error> {
    args.bind([])?;
    Ok(elements(value)?.pop().unwrap_or(Value::UNDEFINED))
}

fn float_of(value: &Value) -> Option<f64> {
    match value.as_str() {
        Some(text) => text.trim().replace('_', "").parse().ok(),
        None => Number::of(value).map(Number::float),
    }
}

fn float(value: &Value, args: &Arguments) -> Result<Value, Error> {
    let [default] = args.bind(["default"])?;
    let default = || default.unwrap_or_else(|| Value::from(0.0));
    Ok(float_of(value).map_or_else(default, Value::from))
}

fn int(value: &Value, args: &Arguments) -> Result<Value, Error> {
    let [default, base] = args.bind(["default", "base"])?;
    let base = u32::try_from(number(base.as_ref(), 10)?).unwrap_or(10);
    if !(2..=36).contains(&base) {
        return Err(error("expected a base from 2 to 36"));
    }
    let parsed = match value.as_str() {
        Some(text) => {
            let digits = text.trim().replace('_', "");
            let prefixes = ["0x", "0b", "0o"].iter().zip([16, 2, 8]);
            let mut prefixes = prefixes.filter(|(_, of)| *of == base);
            let digits = prefixes
                .find_map(|(prefix, _)| digits.strip_prefix(prefix).map(str::to_owned))
                .unwrap_or(digits);
            i64::from_str_radix(&digits, base).ok()
        }
        None => None,
    };
    let truncated = || float_of(value).filter(|x| x.is_finite()).map(|x| x as i64);
    let default = || default.unwrap_or_else(|| Value::from(0));
    Ok(parsed.or_else(truncated).map_or_else(default, Value::from))
}

fn formatted(value: &Value, args: &Arguments) -> Result<Value, Error> {
    let names = args.names();
    if !names.is_empty() && !args.positional.is_empty() {
        return Err(error("expected arguments by position or by name, not both"));
    }
    let values = match names.is_empty() {
        true => Value::from(Tuple::from(args.positional.clone())),
        false => Value::from_pairs(names.iter().map(|name| (name.as_str(), args.named(name)))),
    };
    format::percent(&text::plain(value)?, &values)
}

fn indent(value: &Value, args: &Arguments) -> Result<Value, Error> {
    let [width, first, blank] = args.bind(["width", "first", "blank"])?;
    let text = text::plain(value)? + "\n";
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

fn items(value: &Value, args: &Arguments) -> Result<Value, Error> {
    args.bind([])?;
    if value.is_undefined() {
        return Ok(Value::from(Vec::<Value>::new()));
    }
    if !is_dict(value) {
        return Err(error("can only get the items of a mapping"));
    }
    let pair = |key: Value| -> Result<Value, Error> {
        let item = value.get_item(&key)?;
        Ok(Value::from(Tuple::from([key, item])))
    };
    value.try_iter()?.map(pair).collect()
}

/// The attribute `a.b.0` of a value; the value itself without a name.
fn attribute(value: &Value, name: Option<&Value>) -> Result<Value, Error> {
    let Some(name) = name.filter(|name| !name.is_none()) else {
        return Ok(value.clone());
    };
    let Some(path) = name.as_str() else {
        return operators::item(value, name);
    };
    let mut value = value.clone();
    for part in path.split('.') {
        let key = part
            .parse::<i64>()
            .map_or_else(|_| Value::from(part), Value::from);
        value = operators::item(&value, &key)?;
    }
    Ok(value)
}

fn join(value: &Value, args: &Arguments) -> Result<Value, Error> {
    let [separator, name] = args.bind(["d", "attribute"])?;
    let separator = separator
        .as_ref()
        .map(text::plain)
        .transpose()?
        .unwrap_or_default();
    let mut joined = String::new();
    for (i, item) in operators::iter(value.clone())?.try_iter()?.enumerate() {
        joined += if i > 0 { &separator } else { "" };
        joined += &text::plain(&attribute(&item, name.as_ref())?)?;
        check_size(joined.len())?;
    }
    Ok(Value::from(joined))
}

fn length(value: &Value, args: &Arguments) -> Result<Value, Error> {
    args.bind([])?;
    match value.kind() {
        ValueKind::Undefined => Ok(Value::from(0)),
        ValueKind::String => Ok(Value::from(value.as_str().map_or(0, |t| t.chars().count()))),
        ValueKind::Seq | ValueKind::Iterable | ValueKind::Map => {
            Ok(Value::from(match value.len() {
                Some(length) => length,
                None => value.try_iter()?.count(),
            }))
        }
        _ => Err(error(format!(
            "object of type '{}' has no len()",
            type_name(value)
        ))),
    }
}

fn list(value: &Value, args: &Arguments) -> Result<Value, Error> {
    args.bind([])?;
    let items = elements(value)?;
    check_size(items.len())?;
    Ok(Value::from(items))
}

fn pprint(value: &Value, args: &Arguments) -> Result<Value, Error> {
    args.bind([])?;
    let shown = text::shown(value)?;
    match shown.chars().count() {
        0..80 => Ok(Value::from(shown)),
        _ => Err(error("values that need several lines are not supported")),
    }
}

fn replace(value: &Value, args: &Arguments) -> Result<Value, Error> {
    let [old, new, count] = args.bind(["old", "new", "count"])?;
    let part = |part: Option<Value>| {
        let part = part.ok_or_else(|| error("expected two strings"))?;
        text::plain(&part)
    };
    let (old, new) = (part(old)?, part(new)?);
    let count = number(count.as_ref(), -1)?;
    methods::replace(&text::plain(value)?, &old, &new, count).map(Value::from)
}

fn reverse(value: &Value, args: &Arguments) -> Result<Value, Error> {
    args.bind([])?;
    if let Some(text) = value.as_str() {
        return Ok(Value::from(text.chars().rev().collect::<String>()));
    }
    let mut items = elements(value)?;
    items.reverse();
    Ok(Value::from(items))
}

fn round(value: &Value, args: &Arguments) -> Result<Value, Error> {
    let [precision, method] = args.bind(["precision", "method"])?;
    let precision = number(precision.as_ref(), 0)?.clamp(-308, 308) as i32;
    let number = Number::of(value).ok_or_else(|| error("expected a number"))?;
    let method = method.as_ref().and_then(Value::as_str).unwrap_or("common");
    let power = 10f64.powi(precision);
    let x = number.float();
    Ok(match (method, number) {
        ("ceil", _) => Value::from((x * power).ceil() / power),
        ("floor", _) => Value::from((x * power).floor() / power),
        ("common", Number::Int(_)) if precision >= 0 => value.clone(),
        ("common", Number::Int(n)) => {
            let unit = 10i128
                .checked_pow(precision.unsigned_abs())
                .unwrap_or(i128::MAX);
            let down = n.div_euclid(unit) * unit;
            let (below, half) = (n - down, unit - (n - down));
            let is_up = below > half || below == half && (down / unit) % 2 != 0;
            Value::from(if is_up { down + unit } else { down } as i64)
        }
        // The digits of a decimal are rounded exactly, half to even, as in Python.
        ("common", _) if precision >= 0 => {
            let shown = format!("{x:.*}", precision as usize);
            Value::from(shown.parse::<f64>().unwrap_or(x))
        }
        ("common", _) => Value::from((x * power).round_ties_even() / power),
        _ => return Err(error("expected the method common, ceil or floor")),
    })
}

fn strip_tags(text: &str) -> String {
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
fn title(text: &str) -> String {
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

fn trim(value: &Value, args: &Arguments) -> Result<Value, Error> {
    let [chars] = args.bind(["chars"])?;
    Ok(Value::from(methods::strip(
        &text::plain(value)?,
        chars.as_ref(),
        "strip",
    )?))
}

fn truncate(value: &Value, args: &Arguments) -> Result<Value, Error> {
    let [length, kill, end, leeway] = args.bind(["length", "killwords", "end", "leeway"])?;
    let length = usize::try_from(number(length.as_ref(), 255)?).unwrap_or(0);
    let leeway = usize::try_from(number(leeway.as_ref(), 5)?).unwrap_or(0);
    let end = end.as_ref().map_or(Ok("...".into()), text::plain)?;
    let text = text::plain(value)?;
    if text.chars().count() <= length.saturating_add(leeway) {
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

fn urlencode(value: &Value, args: &Arguments) -> Result<Value, Error> {
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
    if !is_dict(value) && !is_list(value) {
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

fn word_count(value: &Value, args: &Arguments) -> Result<Value, Error> {
    args.bind([])?;
    let text = text::plain(value)?;
    let words = text.split(|c: char| !c.is_alphanumeric() && c != '_');
    Ok(Value::from(words.filter(|word| !word.is_empty()).count()))
}

fn word_wrap(value: &Value, args: &Arguments) -> Result<Value, Error> {
    let [width, long, wrap, _] = args.bind([
        "width",
        "break_long_words",
        "wrapstring",
        "break_on_hyphens",
    ])?;
    let width = usize::try_from(number(width.as_ref(), 79)?)
        .unwrap_or(0)
        .max(1);
    let breaks = long.is_none_or(|long| long.is_true());
    let wrap = wrap.filter(|wrap| !wrap.is_none());
    let wrap = wrap.as_ref().map_or(Ok("\n".into()), text::plain)?;
    let text = text::plain(value)?;
    let mut paragraphs = Vec::new();
    for paragraph in text.lines() {
        let (mut lines, mut line) = (Vec::new(), String::new());
        for word in paragraph.split(' ') {
            let mut word = word.to_owned();
            let joined =
                line.chars().count() + usize::from(!line.is_empty()) + word.chars().count();
            if !line.is_empty() && joined > width {
                lines.push(std::mem::take(&mut line));
            }
            while breaks && word.chars().count() > width {
                let head: String = word.chars().take(width).collect();
                word = word.chars().skip(width).collect();
                lines.push(head);
            }
            line += if line.is_empty() { "" } else { " " };
            line += &word;
        }
        lines.push(line);
        paragraphs.push(lines.join(&wrap));
    }
    let out = paragraphs.join(&wrap);
    check_size(out.len())?;
    Ok(Value::from(out))
}

fn xml_attributes(value: &Value, args: &Arguments) -> Result<Value, Error> {
    let [space] = args.bind(["autospace"])?;
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

/// The value by which an item is compared: an attribute, in small letters unless case counts.
fn key(item: &Value, name: Option<&Value>, case: bool) -> Result<Value, Error> {
    let key = attribute(item, name)?;
    Ok(match key.as_str() {
        Some(text) if !case => Value::from(text.to_lowercase()),
        _ => key,
    })
}

/// Sorts by keys, stably; an error if two keys have no order.
fn sort_by_keys(mut keyed: Vec<(Value, Value)>, reverse: bool) -> Result<Vec<Value>, Error> {
    let mut failed = None;
    keyed.sort_by(|(a, _), (b, _)| {
        let order = operators::order(a, b).ok().flatten();
        if order.is_none() {
            failed.get_or_insert_with(|| [type_name(a), type_name(b)]);
        }
        let order = order.unwrap_or(std::cmp::Ordering::Equal);
        if reverse { order.reverse() } else { order }
    });
    match failed {
        Some([a, b]) => Err(error(format!("'<' not supported between '{a}' and '{b}'"))),
        None => Ok(keyed.into_iter().map(|(_, item)| item).collect()),
    }
}

fn sort(value: &Value, args: &Arguments) -> Result<Value, Error> {
    let [reverse, case, name] = args.bind(["reverse", "case_sensitive", "attribute"])?;
    // Several attributes are compared one after the other.
    let names: Vec<Option<Value>> = match name.as_ref().and_then(Value::as_str) {
        Some(names) => names
            .split(',')
            .map(|name| Some(Value::from(name)))
            .collect(),
        None => vec![name],
    };
    let mut keyed = Vec::new();
    for item in elements(value)? {
        let mut keys = Vec::new();
        for name in &names {
            keys.push(key(&item, name.as_ref(), is_true(&case))?);
        }
        keyed.push((Value::from(keys), item));
    }
    sort_by_keys(keyed, is_true(&reverse)).map(Value::from)
}

fn dict_sort(value: &Value, args: &Arguments) -> Result<Value, Error> {
    let [case, by, reverse] = args.bind(["case_sensitive", "by", "reverse"])?;
    let by = by
        .as_ref()
        .and_then(Value::as_str)
        .unwrap_or("key")
        .to_owned();
    let at = match by.as_str() {
        "key" => 0,
        "value" => 1,
        _ => return Err(error("expected `by` to be key or value")),
    };
    let none = Arguments::of(Rest(Vec::new()))?;
    let pairs = elements(&items(value, &none)?)?;
    let keyed = pairs.into_iter().map(|pair| {
        let key = key(
            &operators::item(&pair, &Value::from(at))?,
            None,
            is_true(&case),
        )?;
        Ok((key, pair))
    });
    let keyed: Result<Vec<_>, Error> = keyed.collect();
    sort_by_keys(keyed?, is_true(&reverse)).map(Value::from)
}

fn extreme(value: &Value, args: &Arguments, wanted: std::cmp::Ordering) -> Result<Value, Error> {
    let [case, name] = args.bind(["case_sensitive", "attribute"])?;
    let mut best: Option<(Value, Value)> = None;
    for item in elements(value)? {
        let key = key(&item, name.as_ref(), is_true(&case))?;
        let is_better = match &best {
            None => true,
            Some((best, _)) => {
                let order = operators::order(&key, best)?;
                let types = (type_name(&key), type_name(best));
                order.ok_or_else(|| {
                    error(format!("no order between '{}' and '{}'", types.0, types.1))
                })? == wanted
            }
        };
        if is_better {
            best = Some((key, item));
        }
    }
    Ok(best.map_or(Value::UNDEFINED, |(_, item)| item))
}

fn sum(value: &Value, args: &Arguments) -> Result<Value, Error> {
    let [name, start] = args.bind(["attribute", "start"])?;
    let mut total = start.unwrap_or_else(|| Value::from(0));
    for item in elements(value)? {
        let item = attribute(&item, name.as_ref())?;
        total = operators::arith(Rest(vec![total, Value::from("+"), item]))?;
    }
    Ok(total)
}

fn unique(value: &Value, args: &Arguments) -> Result<Value, Error> {
    let [case, name] = args.bind(["case_sensitive", "attribute"])?;
    let (mut seen, mut kept) = (std::collections::HashSet::new(), Vec::new());
    for item in elements(value)? {
        let key = key(&item, name.as_ref(), is_true(&case))?;
        if seen.insert(format!(
            "{} {}",
            Number::of(&key).is_some(),
            text::shown(&key)?
        )) {
            kept.push(item);
        }
    }
    Ok(Value::from(kept))
}
