//! Operators of Python on the values of templates, within the limits. The expressions of a
//! template call them; see `expression.rs`.

use std::cmp::Ordering;
use std::sync::Arc;

use minijinja::value::{Enumerator, Object, ObjectRepr, Rest, Tuple, Value, ValueKind};
use minijinja::{Error, ErrorKind, State};

use super::arguments::{Passed, error};
use super::keys;
use super::limits::check_size;
use super::range::Range;
use super::text;

/// Name of the type in Python.
pub(super) fn type_name(value: &Value) -> &'static str {
    match value.kind() {
        ValueKind::Undefined => "Undefined",
        ValueKind::None => "NoneType",
        ValueKind::Bool => "bool",
        ValueKind::Number if value.is_integer() => "int",
        ValueKind::Number => "float",
        ValueKind::String => "str",
        ValueKind::Seq if value.is_tuple() => "tuple",
        ValueKind::Seq if Range::of(value).is_some() => "range",
        ValueKind::Iterable if View::of(value).is_some() => View::name(value),
        ValueKind::Seq | ValueKind::Iterable => "list",
        ValueKind::Map => "dict",
        _ => "object",
    }
}

/// Whether a value is a list or a tuple.
pub(super) fn is_list(value: &Value) -> bool {
    is_sequence(value) && Range::of(value).is_none()
}

/// Whether a value has items with indices.
pub(super) fn is_sequence(value: &Value) -> bool {
    matches!(value.kind(), ValueKind::Seq | ValueKind::Iterable) && View::of(value).is_none()
}

/// The keys, values or items of a dictionary, which are not a list in Python.
#[derive(Debug)]
pub(super) struct View {
    name: &'static str,
    values: Vec<Value>,
}

impl View {
    /// `method` is `keys`, `values` or `items`.
    pub fn made(method: &str, values: Vec<Value>) -> Value {
        let name = match method {
            "keys" => "dict_keys",
            "values" => "dict_values",
            _ => "dict_items",
        };
        Value::from_object(View { name, values })
    }

    pub fn of(value: &Value) -> Option<&View> {
        value.downcast_object_ref()
    }

    /// The name of the type in Python.
    pub fn name(value: &Value) -> &'static str {
        View::of(value).map_or("list", |view| view.name)
    }
}

impl Object for View {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Iterable
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Values(self.values.clone())
    }
}

/// A text that is marked as safe if the one it was made from is.
pub(super) fn safe_like(model: &Value, text: String) -> Value {
    match model.is_safe() {
        true => Value::from_safe_string(text),
        false => Value::from(text),
    }
}

/// Whether a value is a dictionary, not an object with names, such as a namespace.
pub(super) fn is_dict(value: &Value) -> bool {
    let others = ["Namespace", "Loop", "Macro"];
    value.kind() == ValueKind::Map && !others.iter().any(|name| is_object(value, name))
}

/// Whether a value is an object of this type of the interpreter.
pub(super) fn is_object(value: &Value, name: &str) -> bool {
    value
        .as_object()
        .is_some_and(|object| object.type_name().ends_with(name))
}

/// A number; booleans count as 0 and 1.
#[derive(Clone, Copy)]
pub(super) enum Number {
    Int(i128),
    Float(f64),
}

impl Number {
    pub fn of(value: &Value) -> Option<Number> {
        match value.kind() {
            ValueKind::Bool => Some(Number::Int(value.is_true().into())),
            ValueKind::Number if value.is_integer() => {
                i128::try_from(value.clone()).ok().map(Number::Int)
            }
            ValueKind::Number => f64::try_from(value.clone()).ok().map(Number::Float),
            _ => None,
        }
    }

    pub fn float(self) -> f64 {
        match self {
            Number::Int(n) => n as f64,
            Number::Float(x) => x,
        }
    }
}

/// An integer argument; booleans count.
pub(super) fn integer(value: &Value) -> Result<i64, Error> {
    match Number::of(value) {
        Some(Number::Int(n)) => i64::try_from(n).map_err(|_| error("an integer is too large")),
        _ => Err(error(format!(
            "expected an integer, found {}",
            type_name(value)
        ))),
    }
}

pub(super) fn int(n: i128) -> Value {
    match i64::try_from(n) {
        Ok(n) => Value::from(n),
        Err(_) => Value::from(n),
    }
}

/// What Python says of a value that is not there.
pub(super) fn undefined() -> Error {
    Error::new(ErrorKind::UndefinedError, "a value is undefined")
}

fn unsupported(operator: &str, a: &Value, b: &Value) -> Error {
    if a.is_undefined() || b.is_undefined() {
        return undefined();
    }
    error(format!(
        "unsupported operand types for {operator}: '{}' and '{}'",
        type_name(a),
        type_name(b)
    ))
}

/// `__arith(a, "+", b, "*", c …)`, from left to right.
pub(super) fn arith(parts: Rest<Value>) -> Result<Value, Error> {
    let mut parts = parts.0.into_iter();
    let mut value = parts.next().ok_or_else(undefined)?;
    while let (Some(operator), Some(right)) = (parts.next(), parts.next()) {
        value = binary(operator.as_str().unwrap_or_default(), &value, &right)?;
    }
    Ok(value)
}

fn binary(operator: &str, a: &Value, b: &Value) -> Result<Value, Error> {
    match (Number::of(a), Number::of(b)) {
        (Some(Number::Int(a)), Some(Number::Int(b))) => return integers(operator, a, b),
        (Some(a), Some(b)) => return floats(operator, a.float(), b.float()).map(Value::from),
        _ => {}
    }
    match (operator, a.as_str(), b.as_str()) {
        // Jinja2 escapes what is added to a text that is marked as safe.
        ("+", Some(left), Some(right)) if a.is_safe() || b.is_safe() => {
            let part = |value: &Value, text: &str| match value.is_safe() {
                true => text.to_owned(),
                false => super::filters::escaped(text),
            };
            let joined = part(a, left) + &part(b, right);
            check_size(joined.len())?;
            Ok(Value::from_safe_string(joined))
        }
        ("+", Some(a), Some(b)) => {
            check_size(a.len() + b.len())?;
            Ok(Value::from(format!("{a}{b}")))
        }
        ("%", Some(_), _) => super::format::percent(a, b),
        ("+", None, None) if is_list(a) && is_list(b) && a.is_tuple() == b.is_tuple() => {
            let items: Vec<Value> = a.try_iter()?.chain(b.try_iter()?).collect();
            check_size(items.len())?;
            Ok(like(a, items))
        }
        ("*", ..) => match (Number::of(a), Number::of(b)) {
            (None, Some(Number::Int(times))) => repeat(a, times, b),
            (Some(Number::Int(times)), None) => repeat(b, times, a),
            _ => Err(unsupported(operator, a, b)),
        },
        _ => Err(unsupported(operator, a, b)),
    }
}

/// A list or tuple, as `model` is one.
pub(super) fn like(model: &Value, items: Vec<Value>) -> Value {
    match model.is_tuple() {
        true => Value::from(Tuple::from(items)),
        false => Value::from(items),
    }
}

fn repeat(value: &Value, times: i128, number: &Value) -> Result<Value, Error> {
    let times = usize::try_from(times.max(0)).unwrap_or(usize::MAX);
    if let Some(text) = value.as_str() {
        check_size(text.len().saturating_mul(times))?;
        return Ok(safe_like(value, text.repeat(times)));
    }
    if !is_list(value) {
        return Err(unsupported("*", value, number));
    }
    let items: Vec<Value> = value.try_iter()?.collect();
    check_size(items.len().saturating_mul(times))?;
    Ok(like(
        value,
        (0..times).flat_map(|_| items.clone()).collect(),
    ))
}

fn integers(operator: &str, a: i128, b: i128) -> Result<Value, Error> {
    let floor = || {
        let quotient = a.checked_div(b)?;
        let is_lower = a.checked_rem(b)? != 0 && (a < 0) != (b < 0);
        quotient.checked_sub(is_lower.into())
    };
    let by_zero = || error("division by zero");
    let result = match operator {
        "+" => a.checked_add(b),
        "-" => a.checked_sub(b),
        "*" => a.checked_mul(b),
        "/" if b == 0 => return Err(by_zero()),
        "/" => return Ok(Value::from(a as f64 / b as f64)),
        "//" | "%" if b == 0 => return Err(by_zero()),
        "//" => floor(),
        "%" => floor().and_then(|q| a.checked_sub(q.checked_mul(b)?)),
        "**" if b < 0 => return floats(operator, a as f64, b as f64).map(Value::from),
        "**" => u32::try_from(b).ok().and_then(|b| a.checked_pow(b)),
        _ => None,
    };
    result
        .map(int)
        .ok_or_else(|| error(format!("{a} {operator} {b} is too large")))
}

fn floats(operator: &str, a: f64, b: f64) -> Result<f64, Error> {
    match operator {
        "+" => Ok(a + b),
        "-" => Ok(a - b),
        "*" => Ok(a * b),
        "**" if a == 0.0 && b < 0.0 => Err(error("division by zero")),
        "**" if a < 0.0 && b.fract() != 0.0 && b.is_finite() => {
            Err(error("complex numbers are not supported"))
        }
        "**" => Ok(a.powf(b)),
        _ if b == 0.0 => Err(error("division by zero")),
        "/" => Ok(a / b),
        "//" => Ok((a / b).floor()),
        _ => {
            let rest = a % b;
            let is_other = rest != 0.0 && (rest < 0.0) != (b < 0.0);
            let rest = if is_other { rest + b } else { rest };
            Ok(if rest == 0.0 { rest.copysign(b) } else { rest })
        }
    }
}

/// `-x` and `+x`.
pub(super) fn sign(sign: &str, value: &Value) -> Result<Value, Error> {
    match (Number::of(value), sign) {
        (Some(Number::Int(n)), "-") => Ok(int(-n)),
        (Some(Number::Int(n)), _) => Ok(int(n)),
        (Some(Number::Float(x)), "-") => Ok(Value::from(-x)),
        (Some(Number::Float(x)), _) => Ok(Value::from(x)),
        (None, _) if value.is_undefined() => Err(undefined()),
        _ => Err(error(format!(
            "bad operand type for {sign}: '{}'",
            type_name(value)
        ))),
    }
}

/// `a ~ b ~ c`: the texts of all values.
pub(super) fn concat(parts: Rest<Value>) -> Result<Value, Error> {
    let mut joined = String::new();
    for part in parts.iter() {
        joined += &text::plain(part)?;
        check_size(joined.len())?;
    }
    Ok(Value::from(joined))
}

/// `__compare(a, "<", b, "in", c …)`: every pair of neighbours.
pub(super) fn compare(parts: Rest<Value>) -> Result<Value, Error> {
    let parts = &parts.0;
    for i in (0..parts.len().saturating_sub(2)).step_by(2) {
        let operator = parts[i + 1].as_str().unwrap_or_default();
        if !relates(operator, &parts[i], &parts[i + 2])? {
            return Ok(Value::from(false));
        }
    }
    Ok(Value::from(true))
}

/// Whether `a operator b`.
pub(super) fn relates(operator: &str, a: &Value, b: &Value) -> Result<bool, Error> {
    match operator {
        "==" => return equal(a, b),
        "!=" => return equal(a, b).map(|is| !is),
        "in" => return contains(b, a),
        "not in" => return contains(b, a).map(|is| !is),
        _ => {}
    }
    let order = order(a, b)?.ok_or_else(|| {
        if a.is_undefined() || b.is_undefined() {
            return undefined();
        }
        let types = (type_name(a), type_name(b));
        error(format!(
            "'{operator}' not supported between '{}' and '{}'",
            types.0, types.1
        ))
    })?;
    Ok(match operator {
        "<" => order == Ordering::Less,
        "<=" => order != Ordering::Greater,
        ">" => order == Ordering::Greater,
        _ => order != Ordering::Less,
    })
}

/// Python's `==`.
pub(super) fn equal(a: &Value, b: &Value) -> Result<bool, Error> {
    if let (Some(a), Some(b)) = (Number::of(a), Number::of(b)) {
        return Ok(match (a, b) {
            (Number::Int(a), Number::Int(b)) => a == b,
            (a, b) => a.float() == b.float(),
        });
    }
    if is_list(a) && is_list(b) {
        if a.is_tuple() != b.is_tuple() {
            return Ok(false);
        }
        let (mut a, mut b) = (a.try_iter()?, b.try_iter()?);
        loop {
            match (a.next(), b.next()) {
                (None, None) => return Ok(true),
                (Some(a), Some(b)) if equal(&a, &b)? => {}
                _ => return Ok(false),
            }
        }
    }
    if a.kind() == ValueKind::Map && b.kind() == ValueKind::Map {
        if a.len() != b.len() {
            return Ok(false);
        }
        for key in a.try_iter()? {
            let other = b.get_item(&key)?;
            if other.is_undefined() || !equal(&a.get_item(&key)?, &other)? {
                return Ok(false);
            }
        }
        return Ok(true);
    }
    Ok(type_name(a) == type_name(b) && a == b)
}

/// The order of two values; None if Python has none for their types.
pub(super) fn order(a: &Value, b: &Value) -> Result<Option<Ordering>, Error> {
    if let (Some(a), Some(b)) = (Number::of(a), Number::of(b)) {
        return Ok(match (a, b) {
            (Number::Int(a), Number::Int(b)) => Some(a.cmp(&b)),
            (a, b) => a.float().partial_cmp(&b.float()),
        });
    }
    if let (Some(a), Some(b)) = (a.as_str(), b.as_str()) {
        return Ok(Some(a.cmp(b)));
    }
    if !is_list(a) || !is_list(b) || a.is_tuple() != b.is_tuple() {
        return Ok(None);
    }
    let (mut a, mut b) = (a.try_iter()?, b.try_iter()?);
    loop {
        match (a.next(), b.next()) {
            (None, None) => return Ok(Some(Ordering::Equal)),
            (None, Some(_)) => return Ok(Some(Ordering::Less)),
            (Some(_), None) => return Ok(Some(Ordering::Greater)),
            (Some(a), Some(b)) if equal(&a, &b)? => {}
            (Some(a), Some(b)) => return order(&a, &b),
        }
    }
}

/// Python's `value in values`.
pub(super) fn contains(values: &Value, value: &Value) -> Result<bool, Error> {
    if let Some(text) = values.as_str() {
        let part = value.as_str().ok_or_else(|| {
            error(format!(
                "'in' a string needs a string, not '{}'",
                type_name(value)
            ))
        })?;
        return Ok(text.contains(part));
    }
    match values.kind() {
        ValueKind::Map if is_dict(values) => {
            keys::check(value)?;
            Ok(!keys::lookup(values, value)?.is_undefined())
        }
        ValueKind::Seq | ValueKind::Iterable => {
            for item in values.try_iter()? {
                if equal(&item, value)? {
                    return Ok(true);
                }
            }
            Ok(false)
        }
        ValueKind::Undefined => Ok(false),
        _ => Err(error(format!("'{}' is not iterable", type_name(values)))),
    }
}

/// What a loop runs over.
pub(super) fn iter(values: Value) -> Result<Value, Error> {
    match values.kind() {
        ValueKind::None | ValueKind::Bool | ValueKind::Number => Err(error(format!(
            "'{}' object is not iterable",
            type_name(&values)
        ))),
        ValueKind::Map if !is_dict(&values) => Err(error("an object without items")),
        _ => Ok(values),
    }
}

/// An attribute whose name is that of a method, or begins with `_`: the key of a dictionary, if
/// Python has no such method on this type.
pub(super) fn attr(value: &Value, name: &str) -> Result<Value, Error> {
    if value.is_undefined() {
        return Err(undefined());
    }
    if let Some(property) = super::methods::property(value, name) {
        return Ok(property);
    }
    if name.starts_with('_') || !super::methods::has(value, name) {
        return match name.starts_with("__") {
            true => Ok(Value::UNDEFINED),
            false => value.get_attr(name),
        };
    }
    let (value, name) = (value.clone(), name.to_owned());
    Ok(Value::from_function(
        move |state: &mut State, args: Passed| super::methods::call(state, &value, &name, args),
    ))
}

/// `value[key]`.
pub(super) fn item(value: &Value, key: &Value) -> Result<Value, Error> {
    if value.is_undefined() {
        return Err(undefined());
    }
    if View::of(value).is_some() {
        return Ok(Value::UNDEFINED);
    }
    let is_text = value.as_str().is_some();
    let Some(Number::Int(at)) = Number::of(key).filter(|_| is_text || is_sequence(value)) else {
        return match key.as_str() {
            // Like Jinja2, which looks for an attribute if there is no such key.
            Some(name) if value.kind() != ValueKind::Map => attr(value, name),
            Some(name) => {
                let found = value.get_item(key)?;
                match found.is_undefined() && super::methods::has(value, name) {
                    true => attr(value, name),
                    false => Ok(found),
                }
            }
            // Only integers are indices.
            None if is_text || is_sequence(value) => Ok(Value::UNDEFINED),
            None => keys::lookup(value, key),
        };
    };
    let found = match (
        value.as_str(),
        usize::try_from(at),
        usize::try_from(-1 - at),
    ) {
        (Some(text), Ok(at), _) => text.chars().nth(at).map(|c| safe_like(value, c.into())),
        (Some(text), _, Ok(back)) => {
            let c = text.chars().nth_back(back);
            c.map(|c| safe_like(value, c.into()))
        }
        (None, Ok(at), _) if value.kind() == ValueKind::Seq => {
            return value.get_item_by_index(at);
        }
        (None, Ok(at), _) => value.try_iter()?.nth(at),
        (None, _, Ok(back)) => {
            let items = elements(value)?;
            items
                .len()
                .checked_sub(back + 1)
                .map(|at| items[at].clone())
        }
        _ => None,
    };
    Ok(found.unwrap_or(Value::UNDEFINED))
}

/// The characters of a string, or the items of a list.
fn elements(value: &Value) -> Result<Vec<Value>, Error> {
    Ok(value.try_iter()?.collect())
}

/// `value[start:stop:step]`; none where a part is not given.
pub(super) fn slice(
    value: &Value,
    start: &Value,
    stop: &Value,
    step: Option<&Value>,
) -> Result<Value, Error> {
    if value.as_str().is_none() && !is_sequence(value) {
        return match value.is_undefined() {
            true => Err(undefined()),
            false => Err(error(format!("'{}' cannot be sliced", type_name(value)))),
        };
    }
    let items = elements(value)?;
    let length = items.len() as i64;
    let step = match step.filter(|step| !step.is_none()) {
        None => 1,
        Some(step) => integer(step)?,
    };
    if step == 0 {
        return Err(error("slice step cannot be zero"));
    }
    // The ends of the range, clamped as Python clamps them.
    let (low, high) = if step > 0 {
        (0, length)
    } else {
        (-1, length - 1)
    };
    let end = |given: &Value, default: i64| -> Result<i64, Error> {
        if given.is_none() {
            return Ok(default);
        }
        let at = integer(given)?;
        let at = if at < 0 {
            at.saturating_add(length)
        } else {
            at
        };
        Ok(at.clamp(low, high))
    };
    let (first, last) = if step > 0 { (low, high) } else { (high, low) };
    let (mut at, stop) = (end(start, first)?, end(stop, last)?);
    if let Some(range) = Range::of(value) {
        return range.slice(at, stop, step);
    }
    let mut taken = Vec::new();
    while if step > 0 { at < stop } else { at > stop } {
        taken.push(items[at as usize].clone());
        at = at.saturating_add(step);
    }
    match value.as_str() {
        Some(_) => Ok(safe_like(
            value,
            taken.iter().filter_map(Value::as_str).collect(),
        )),
        None => Ok(like(value, taken)),
    }
}
