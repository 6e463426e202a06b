//! Methods of Python's strings (`strings.rs`), lists and dictionaries, except those that change a
//! value, which the sandbox of transformers refuses too.

use minijinja::value::{Tuple, Value, ValueKind};
use minijinja::{Error, State};

use super::arguments::{Arguments, Passed, error};
use super::expression::EXTRA;
use super::operators::{
    Number, View, equal, int, integer, is_dict, is_list, is_object, is_sequence, type_name,
    undefined,
};
use super::range::Range;
use super::{format, keys, strings, text};

/// Methods of strings.
const OF_STRINGS: [&str; 47] = [
    "capitalize",
    "casefold",
    "center",
    "count",
    "encode",
    "endswith",
    "expandtabs",
    "find",
    "format",
    "format_map",
    "index",
    "isalnum",
    "isalpha",
    "isascii",
    "isdecimal",
    "isdigit",
    "isidentifier",
    "islower",
    "isnumeric",
    "isprintable",
    "isspace",
    "istitle",
    "isupper",
    "join",
    "ljust",
    "lower",
    "lstrip",
    "maketrans",
    "partition",
    "removeprefix",
    "removesuffix",
    "replace",
    "rfind",
    "rindex",
    "rjust",
    "rpartition",
    "rsplit",
    "rstrip",
    "split",
    "splitlines",
    "startswith",
    "strip",
    "swapcase",
    "title",
    "translate",
    "upper",
    "zfill",
];
const OF_DICTS: [&str; 5] = ["copy", "get", "items", "keys", "values"];
const OF_LISTS: [&str; 3] = ["copy", "count", "index"];
const OF_NUMBERS: [&str; 5] = [
    "as_integer_ratio",
    "bit_count",
    "bit_length",
    "conjugate",
    "is_integer",
];
/// Attributes that are not methods: of numbers, ranges and macros.
const PROPERTIES: [&str; 10] = [
    "catch_kwargs",
    "catch_varargs",
    "real",
    "imag",
    "numerator",
    "denominator",
    "start",
    "stop",
    "step",
    "arguments",
];
/// Methods whose arguments may be given by name.
const WITH_NAMES: [&str; 7] = [
    "encode",
    "expandtabs",
    "format",
    "format_map",
    "rsplit",
    "split",
    "splitlines",
];
/// The method of the type `dict` itself.
const FROM_KEYS: &str = "fromkeys";

/// Whether some type has an attribute of this name. Attributes with other names are keys.
pub(super) fn is_name(name: &str) -> bool {
    let lists = [
        &OF_STRINGS[..],
        &OF_DICTS,
        &OF_LISTS,
        &OF_NUMBERS,
        &PROPERTIES,
    ];
    name == FROM_KEYS || lists.iter().any(|names| names.contains(&name))
}

/// Whether Python has this method on the type of the value.
pub(super) fn has(value: &Value, name: &str) -> bool {
    match value.kind() {
        ValueKind::String => OF_STRINGS.contains(&name),
        ValueKind::Map => is_dict(value) && (name == FROM_KEYS || OF_DICTS.contains(&name)),
        ValueKind::Seq | ValueKind::Iterable if value.is_tuple() || Range::of(value).is_some() => {
            name != "copy" && OF_LISTS.contains(&name)
        }
        ValueKind::Seq | ValueKind::Iterable => is_list(value) && OF_LISTS.contains(&name),
        ValueKind::Bool | ValueKind::Number => OF_NUMBERS.contains(&name),
        _ => false,
    }
}

/// An attribute that is not a method; none if the value does not have it.
pub(super) fn property(value: &Value, name: &str) -> Option<Value> {
    match (Number::of(value), name) {
        (Some(Number::Int(n)), "real" | "numerator") => Some(int(n)),
        (Some(Number::Int(_)), "imag") => Some(int(0)),
        (Some(Number::Int(_)), "denominator") => Some(int(1)),
        (Some(Number::Float(x)), "real") => Some(Value::from(x)),
        (Some(Number::Float(_)), "imag") => Some(Value::from(0.0)),
        (None, "arguments") if is_object(value, "Macro") => {
            let names = parameters(value)?.into_iter();
            let own = names.filter(|name| !EXTRA.iter().any(|extra| name.as_str() == Some(extra)));
            Some(Value::from(Tuple::from(own.collect::<Vec<_>>())))
        }
        (None, "catch_kwargs" | "catch_varargs") if is_object(value, "Macro") => {
            let extra = name.replace("catch_", "");
            let is_extra = |name: &Value| name.as_str() == Some(&extra);
            Some(Value::from(parameters(value)?.iter().any(is_extra)))
        }
        (None, _) => Range::of(value)?.attribute(name).map(Value::from),
        _ => None,
    }
}

/// The parameters of a macro, with those that [`super::guard`] adds.
fn parameters(value: &Value) -> Option<Vec<Value>> {
    let names = value.get_attr("arguments").ok()?;
    Some(names.try_iter().ok()?.collect())
}

/// Calls a method.
pub(super) fn call(
    state: &mut State,
    value: &Value,
    name: &str,
    args: Passed,
) -> Result<Value, Error> {
    if value.is_undefined() {
        return Err(undefined());
    }
    if !has(value, name) {
        // A function under a key, as in a namespace or an imported template.
        return match value.kind() {
            // The function `dict` is its own type in Jinja2.
            ValueKind::Plain if name == FROM_KEYS => from_keys(&Arguments::of(args)?),
            ValueKind::Map | ValueKind::Plain => {
                value.call_method(state, name, &args.into_values())
            }
            _ => Err(error(format!(
                "'{}' has no method `{name}`",
                type_name(value)
            ))),
        };
    }
    let args = Arguments::of(args)?;
    if !args.names().is_empty() && !WITH_NAMES.contains(&name) {
        return Err(error(format!("`{name}` takes no arguments by name")));
    }
    let result = match value.as_str() {
        Some(_) if matches!(name, "format" | "format_map") => format::method(value, name, &args),
        Some(text) if value.is_safe() => strings::safe_string(text, name, args),
        Some(text) => strings::string(text, name, &args),
        None if value.kind() == ValueKind::Map => dictionary(value, name, &args),
        None if is_sequence(value) => list(value, name, &args),
        None => number(value, name, &args),
    };
    result.map_err(|e| match e.detail() {
        Some(why) => error(format!("`{name}`: {why}")),
        None => e,
    })
}

fn dictionary(value: &Value, name: &str, args: &Arguments) -> Result<Value, Error> {
    if name == FROM_KEYS {
        return from_keys(args);
    }
    if name == "get" {
        let [key, default] = args.bind(["key", "default"])?;
        let key = key.ok_or_else(|| error("expected a key"))?;
        keys::check(&key)?;
        let found = keys::lookup(value, &key)?;
        return Ok(match found.is_undefined() {
            true => default.unwrap_or(Value::from(())),
            false => found,
        });
    }
    args.bind([])?;
    let pair = |key: Value| -> Result<Value, Error> {
        let item = value.get_item(&key)?;
        Ok(Value::from(Tuple::from([key, item])))
    };
    let keys = value.try_iter()?;
    let values: Result<Vec<Value>, Error> = match name {
        "keys" => Ok(keys.collect()),
        "values" => keys.map(|key| value.get_item(&key)).collect(),
        "items" => keys.map(pair).collect(),
        _ => return copied(value),
    };
    Ok(View::made(name, values?))
}

/// Another dictionary with the same items.
fn copied(value: &Value) -> Result<Value, Error> {
    let keys: Vec<Value> = value.try_iter()?.collect();
    let pair = |key: Value| Ok((key.clone(), value.get_item(&key)?));
    let pairs: Result<Vec<_>, Error> = keys.into_iter().map(pair).collect();
    Ok(Value::from_pairs(pairs?))
}

fn from_keys(args: &Arguments) -> Result<Value, Error> {
    let [keys, value] = args.bind(["keys", "value"])?;
    let keys = keys.ok_or_else(|| error("expected a list of keys"))?;
    let value = value.unwrap_or(Value::from(()));
    let pairs: Vec<_> = keys.try_iter()?.map(|key| (key, value.clone())).collect();
    keys::dictionary(pairs)
}

fn list(value: &Value, name: &str, args: &Arguments) -> Result<Value, Error> {
    if name == "copy" {
        args.bind([])?;
        return Ok(value.try_iter()?.collect());
    }
    let [wanted, start, stop] = args.bind(["value", "start", "stop"])?;
    let wanted = wanted.ok_or_else(|| error("expected a value"))?;
    let items: Vec<Value> = value.try_iter()?.collect();
    let (start, stop) = bounds(items.len(), start.as_ref(), stop.as_ref())?;
    let mut count = 0;
    for (at, item) in items.iter().enumerate().take(stop).skip(start) {
        if equal(item, &wanted)? {
            if name == "index" {
                return Ok(Value::from(at));
            }
            count += 1;
        }
    }
    match name {
        "index" => Err(error(format!(
            "{} is not in the list",
            text::shown(&wanted)?
        ))),
        _ => Ok(Value::from(count)),
    }
}

fn number(value: &Value, name: &str, args: &Arguments) -> Result<Value, Error> {
    args.bind([])?;
    match (Number::of(value), name) {
        (Some(Number::Int(n)), "bit_length") => {
            Ok(Value::from(128 - n.unsigned_abs().leading_zeros()))
        }
        (Some(Number::Int(n)), "bit_count") => Ok(Value::from(n.unsigned_abs().count_ones())),
        (Some(Number::Int(n)), "conjugate") => Ok(int(n)),
        (Some(Number::Float(x)), "conjugate") => Ok(Value::from(x)),
        (Some(Number::Int(n)), "as_integer_ratio") => Ok(Tuple::from([int(n), int(1)]).into()),
        (Some(Number::Float(x)), "as_integer_ratio") => ratio(x),
        (Some(Number::Float(x)), "is_integer") => Ok(Value::from(x.fract() == 0.0)),
        (Some(Number::Int(_)), "is_integer") => Ok(Value::from(true)),
        _ => Err(error(format!("'{}' has no such method", type_name(value)))),
    }
}

/// The fraction that a float is.
fn ratio(x: f64) -> Result<Value, Error> {
    if !x.is_finite() {
        return Err(error("expected a finite number"));
    }
    let (mut above, mut below) = (x, 1i128);
    while above.fract() != 0.0 && below < 1 << 120 {
        (above, below) = (above * 2.0, below * 2);
    }
    match above.fract() == 0.0 && above.abs() < 1e36 {
        true => Ok(Tuple::from([int(above as i128), int(below)]).into()),
        false => Err(error("a part of the fraction is too large")),
    }
}

/// The part of a sequence between two indices, clamped as Python clamps them.
pub(super) fn bounds(
    length: usize,
    start: Option<&Value>,
    stop: Option<&Value>,
) -> Result<(usize, usize), Error> {
    let index = |value: Option<&Value>, default: usize| -> Result<usize, Error> {
        let Some(value) = value.filter(|value| !value.is_none()) else {
            return Ok(default);
        };
        let at = integer(value)?;
        let at = if at < 0 {
            at.saturating_add(length as i64)
        } else {
            at
        };
        Ok(at.max(0) as usize)
    };
    Ok((index(start, 0)?, index(stop, length)?.min(length)))
}
