//! Filters of numbers.

use minijinja::Error;
use minijinja::value::Value;

use super::super::arguments::{Arguments, error};
use super::super::operators::{self, Number, type_name};
use super::{is_true, number};

pub(super) fn abs(value: &Value, args: &Arguments) -> Result<Value, Error> {
    args.bind([])?;
    match Number::of(value) {
        Some(Number::Int(n)) if n < 0 => operators::sign("-", value),
        Some(Number::Int(_)) => operators::sign("+", value),
        Some(Number::Float(x)) => Ok(Value::from(x.abs())),
        None => Err(error(format!("bad operand type: '{}'", type_name(value)))),
    }
}

pub(super) fn file_size(value: &Value, args: &Arguments) -> Result<Value, Error> {
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

pub(super) fn float_of(value: &Value) -> Option<f64> {
    match value.as_str() {
        Some(text) => text.trim().replace('_', "").parse().ok(),
        None => Number::of(value).map(Number::float),
    }
}

pub(super) fn float(value: &Value, args: &Arguments) -> Result<Value, Error> {
    let [default] = args.bind(["default"])?;
    if value.is_undefined() {
        return Err(operators::undefined());
    }
    let default = || default.unwrap_or_else(|| Value::from(0.0));
    Ok(float_of(value).map_or_else(default, Value::from))
}

pub(super) fn int(value: &Value, args: &Arguments) -> Result<Value, Error> {
    let [default, base] = args.bind(["default", "base"])?;
    let base = u32::try_from(number(base.as_ref(), 10)?).unwrap_or(1);
    if base == 1 || base > 36 {
        return Err(error("expected a base from 2 to 36, or 0"));
    }
    if value.is_undefined() {
        return Err(operators::undefined());
    }
    let parsed = value.as_str().and_then(|text| parsed(text, base));
    let found = match (parsed, Number::of(value), float_of(value)) {
        (Some(n), ..) | (None, Some(Number::Int(n)), _) => Some(n),
        (None, _, Some(x)) if x.abs() < 1e38 => Some(x as i128),
        (None, _, Some(x)) if x.is_finite() => return Err(error("the number is too large")),
        _ => None,
    };
    let default = || default.unwrap_or_else(|| Value::from(0));
    Ok(found.map_or_else(default, operators::int))
}

/// An integer in digits of a base; with base 0 its prefix says the base.
fn parsed(text: &str, base: u32) -> Option<i128> {
    let text = text.trim().replace('_', "").to_lowercase();
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => ("-", digits),
        None => ("", text.strip_prefix('+').unwrap_or(&text)),
    };
    let mut prefixes = [("0x", 16), ("0b", 2), ("0o", 8)].into_iter();
    let of_prefix = prefixes.find_map(|(prefix, of)| {
        let digits = digits
            .strip_prefix(prefix)
            .filter(|_| base == of || base == 0);
        digits.map(|digits| (digits, of))
    });
    let (digits, base) = of_prefix.unwrap_or((digits, if base == 0 { 10 } else { base }));
    let is_plain = digits.starts_with(|c: char| c.is_ascii_alphanumeric());
    is_plain.then(|| i128::from_str_radix(&format!("{sign}{digits}"), base).ok())?
}

pub(super) fn round(value: &Value, args: &Arguments) -> Result<Value, Error> {
    let [precision, method] = args.bind(["precision", "method"])?;
    let precision = number(precision.as_ref(), 0)?.clamp(-308, 308) as i32;
    let number = Number::of(value).ok_or_else(|| error("expected a number"))?;
    let method = method.as_ref().and_then(Value::as_str).unwrap_or("common");
    let power = 10f64.powi(precision);
    let x = number.float();
    Ok(match (method, number) {
        ("ceil", _) => Value::from((x * power).ceil() / power),
        ("floor", _) => Value::from((x * power).floor() / power),
        ("common", Number::Int(n)) if precision >= 0 => operators::int(n),
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
