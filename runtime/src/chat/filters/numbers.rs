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
    let default = || default.unwrap_or_else(|| Value::from(0.0));
    Ok(float_of(value).map_or_else(default, Value::from))
}

pub(super) fn int(value: &Value, args: &Arguments) -> Result<Value, Error> {
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
