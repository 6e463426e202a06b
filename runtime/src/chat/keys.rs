//! Keys of dictionaries, which are equal and allowed as in Python.

use minijinja::Error;
use minijinja::value::{Rest, Value, ValueKind};

use super::arguments::error;
use super::operators::{View, equal, is_dict, is_list, type_name};

/// The value under a key; undefined if there is none. In Python true is the key 1, and false 0.
pub(super) fn lookup(dict: &Value, key: &Value) -> Result<Value, Error> {
    let found = dict.get_item(key)?;
    let other = match (key.kind(), key.as_i64()) {
        (ValueKind::Bool, _) => Value::from(i64::from(key.is_true())),
        (ValueKind::Number, Some(n @ (0 | 1))) => Value::from(n == 1),
        _ => return Ok(found),
    };
    match found.is_undefined() {
        true => dict.get_item(&other),
        false => Ok(found),
    }
}

/// A dictionary of pairs. Like Python, which keeps the first of equal keys and the last value.
pub(super) fn dictionary(pairs: Vec<(Value, Value)>) -> Result<Value, Error> {
    let mut kept: Vec<(Value, Value)> = Vec::with_capacity(pairs.len());
    for (key, value) in pairs {
        check(&key)?;
        let is_one = |n: i64| n == 0 || n == 1;
        let may_equal = key.kind() == ValueKind::Bool || key.as_i64().is_some_and(is_one);
        let place = |(other, _): &&mut (Value, Value)| equal(other, &key).unwrap_or(false);
        match may_equal.then(|| kept.iter_mut().find(place)).flatten() {
            Some(pair) => pair.1 = value,
            None => kept.push((key, value)),
        }
    }
    Ok(Value::from_pairs(kept))
}

/// `__dict(key, value, key, value …)`
pub(super) fn literal(parts: Rest<Value>) -> Result<Value, Error> {
    let pairs = parts
        .chunks_exact(2)
        .map(|pair| (pair[0].clone(), pair[1].clone()));
    dictionary(pairs.collect())
}

/// Refuses a key that Python refuses: a list, a dictionary, or a tuple with one.
pub(super) fn check(key: &Value) -> Result<(), Error> {
    let is_mutable = is_list(key) && !key.is_tuple()
        || is_dict(key)
        || View::of(key).is_some() && View::name(key) != "dict_values";
    match is_mutable {
        true => Err(error(format!("unhashable type: '{}'", type_name(key)))),
        false if key.is_tuple() => key.try_iter()?.try_for_each(|part| check(&part)),
        false => Ok(()),
    }
}
