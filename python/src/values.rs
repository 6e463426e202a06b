//! Values of Python as JSON and back, token ids, counts and paths: each is checked here, so that a
//! wrong one is an exception.

use std::path::PathBuf;

use pyo3::exceptions::{PyTypeError, PyUnicodeEncodeError};
use pyo3::prelude::*;
use pyo3::types::{
    PyBool, PyByteArray, PyBytes, PyDict, PyFloat, PyFrozenSet, PyInt, PyList, PyMapping,
    PySequence, PySet, PyString,
};
use serde_json::{Map, Number, Value};

use crate::errors::Fault;

/// Most levels of lists and dicts, as in JSON that is parsed.
const DEEPEST: usize = 100;
/// Most values of an argument, in lists and dicts of any depth.
const MOST_VALUES: usize = 1 << 20;
/// Most items of a list.
const MOST_ITEMS: usize = 1 << 20;
/// Most token ids of one argument.
const MOST_IDS: usize = 1 << 24;

/// A value as JSON; `name` names it in errors.
pub fn json(name: &str, value: &Bound<'_, PyAny>) -> PyResult<Value> {
    json_at(name, value, 0, &mut 0)
}

/// A value below this number of lists and dicts; `count` counts all values.
fn json_at(
    name: &str,
    value: &Bound<'_, PyAny>,
    depth: usize,
    count: &mut usize,
) -> PyResult<Value> {
    *count += 1;
    if *count > MOST_VALUES {
        let why = format!("{name} has more than {MOST_VALUES} values");
        return Err(Fault::usage(why).into());
    }
    if depth > DEEPEST {
        let why = format!("{name} has more than {DEEPEST} levels of lists and dicts");
        return Err(Fault::usage(why).into());
    }
    if value.is_none() {
        return Ok(Value::Null);
    }
    if let Ok(value) = value.cast::<PyBool>() {
        return Ok(value.is_true().into());
    }
    if let Ok(text) = value.cast::<PyString>() {
        return Ok(text_of(name, text)?.into());
    }
    if value.cast::<PyFloat>().is_ok() {
        return float(name, value.extract()?);
    }
    // Before the checks for kinds of collections, which take longer.
    if value.cast::<PyInt>().is_ok() {
        return whole_json(name, value);
    }
    if let Ok(members) = value.cast::<PyMapping>() {
        let mut object = Map::new();
        for pair in members.items()?.iter() {
            let (key, value): (Bound<PyAny>, Bound<PyAny>) = pair.extract()?;
            let key = match key.cast::<PyString>() {
                Ok(key) => text_of(name, key)?,
                // Ids of tokens are names in JSON.
                Err(_) if key.cast::<PyInt>().is_ok() => key.str()?.to_str()?.to_owned(),
                Err(_) => return Err(wrong_type(name, &key, "dicts with strings as keys")),
            };
            let value = json_at(name, &value, depth + 1, count)?;
            object.insert(key, value);
        }
        return Ok(Value::Object(object));
    }
    if is_list(value) {
        let mut list = Vec::new();
        for item in value.try_iter()? {
            list.push(json_at(name, &item?, depth + 1, count)?);
        }
        return Ok(Value::Array(list));
    }
    if value.hasattr("__fspath__")? {
        return Ok(path(name, value)?.to_string_lossy().into_owned().into());
    }
    // Whole numbers of numpy, then other numbers.
    if value.extract::<i64>().is_ok() {
        return whole_json(name, value);
    }
    match value.extract::<f64>() {
        Ok(number) => float(name, number),
        Err(_) => Err(wrong_type(
            name,
            value,
            "None, bool, int, float, str, list or dict",
        )),
    }
}

fn whole_json(name: &str, value: &Bound<'_, PyAny>) -> PyResult<Value> {
    if let Ok(whole) = value.extract::<i64>() {
        return Ok(whole.into());
    }
    let why = || Fault::usage(format!("{name} holds {value}, expected numbers below 2^64"));
    let whole: u64 = value.extract().map_err(|_| why())?;
    Ok(whole.into())
}

fn float(name: &str, number: f64) -> PyResult<Value> {
    let finite = Number::from_f64(number).map(Value::Number);
    let why = || Fault::usage(format!("{name} is {number}, expected a finite number"));
    Ok(finite.ok_or_else(why)?)
}

/// Lists, tuples, other sequences and arrays, and not texts.
fn is_list(value: &Bound<'_, PyAny>) -> bool {
    let is_bytes = value.cast::<PyBytes>().is_ok() || value.cast::<PyByteArray>().is_ok();
    !is_bytes && (value.cast::<PySequence>().is_ok() || value.hasattr("__array__").unwrap_or(false))
        // A number of numpy has `__array__` too, and no length.
        && value.len().is_ok()
}

/// JSON as a value of Python.
pub fn python<'py>(py: Python<'py>, value: &Value) -> PyResult<Bound<'py, PyAny>> {
    Ok(match value {
        Value::Null => py.None().into_bound(py),
        Value::Bool(value) => PyBool::new(py, *value).to_owned().into_any(),
        Value::String(text) => PyString::new(py, text).into_any(),
        Value::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(whole), _) => whole.into_pyobject(py)?.into_any(),
            (_, Some(whole)) => whole.into_pyobject(py)?.into_any(),
            _ => number.as_f64().into_pyobject(py)?.into_any(),
        },
        Value::Array(list) => {
            let items = list.iter().map(|item| python(py, item));
            PyList::new(py, items.collect::<PyResult<Vec<_>>>()?)?.into_any()
        }
        Value::Object(members) => {
            let dict = PyDict::new(py);
            for (key, value) in members {
                dict.set_item(key, python(py, value)?)?;
            }
            dict.into_any()
        }
    })
}

/// A text. Half of a pair of surrogates is not one.
pub fn text_of(name: &str, text: &Bound<'_, PyString>) -> PyResult<String> {
    let why = |error: PyErr| Fault::usage(format!("{name} is not valid Unicode: {error}"));
    Ok(text.to_str().map_err(why)?.to_owned())
}

/// A text, where nothing else is taken.
pub fn text(name: &str, value: &Bound<'_, PyAny>) -> PyResult<String> {
    match value.cast::<PyString>() {
        Ok(text) => text_of(name, text),
        Err(_) => Err(wrong_type(name, value, "a str")),
    }
}

/// A path: a str or an os.PathLike, which is not empty.
pub fn path(name: &str, value: &Bound<'_, PyAny>) -> PyResult<PathBuf> {
    let path = value.extract::<PathBuf>().map_err(|error| {
        let py = value.py();
        if error.is_instance_of::<PyTypeError>(py) {
            wrong_type(name, value, "a str or an os.PathLike")
        } else if error.is_instance_of::<PyUnicodeEncodeError>(py) {
            Fault::usage(format!("{name} is not a path: {error}")).into()
        } else {
            error
        }
    })?;
    match path.as_os_str().is_empty() {
        true => Err(Fault::usage(format!("{name} is empty, expected a path")).into()),
        false => Ok(path),
    }
}

/// A prompt: a text, or token ids below a vocabulary size.
#[derive(Debug, Clone)]
pub enum Prompt {
    Text(String),
    Ids(Vec<u32>),
}

impl Prompt {
    pub fn of(name: &str, value: &Bound<'_, PyAny>, vocab_size: usize) -> PyResult<Prompt> {
        match value.cast::<PyString>() {
            Ok(text) => Ok(Prompt::Text(text_of(name, text)?)),
            Err(_) => Ok(Prompt::Ids(ids(name, value, vocab_size)?)),
        }
    }
}

/// Token ids below a vocabulary size: a list, a one-dimensional array of whole numbers, or anything
/// else with a length that gives whole numbers.
pub fn ids(name: &str, value: &Bound<'_, PyAny>, vocab_size: usize) -> PyResult<Vec<u32>> {
    const EXPECTED: &str = "token ids";
    let is_unordered = value.cast::<PyDict>().is_ok()
        || value.cast::<PySet>().is_ok()
        || value.cast::<PyFrozenSet>().is_ok();
    let is_text = value.cast::<PyString>().is_ok()
        || value.cast::<PyBytes>().is_ok()
        || value.cast::<PyByteArray>().is_ok();
    // What can be read only once has no length.
    if is_unordered || is_text || value.len().is_err() {
        return Err(wrong_type(name, value, EXPECTED));
    }
    let items = value
        .try_iter()
        .map_err(|_| wrong_type(name, value, EXPECTED))?;
    let mut ids = Vec::new();
    for item in items {
        if ids.len() == MOST_IDS {
            let why = format!("{name} has more than {MOST_IDS} token ids");
            return Err(Fault::usage(why).into());
        }
        ids.push(id(name, &item?, vocab_size)?);
    }
    Ok(ids)
}

/// A token id below a vocabulary size.
pub fn id(name: &str, value: &Bound<'_, PyAny>, vocab_size: usize) -> PyResult<u32> {
    let last = vocab_size - 1;
    let id = whole(name, value, "a token id")?;
    let known = id.and_then(|id| u32::try_from(id).ok());
    let known = known.filter(|id| (*id as usize) < vocab_size);
    let why = || {
        Fault::usage(format!(
            "{name} has the token id {value}, expected 0 to {last}"
        ))
    };
    Ok(known.ok_or_else(why)?)
}

/// The items of a list, of which a text is none.
pub fn items<'py>(name: &str, list: &Bound<'py, PyAny>) -> PyResult<Vec<Bound<'py, PyAny>>> {
    let expected = "a list";
    if list.cast::<PyString>().is_ok() || list.cast::<PyDict>().is_ok() {
        return Err(wrong_type(name, list, expected));
    }
    let mut items = Vec::new();
    let all = list.try_iter();
    for item in all.map_err(|_| wrong_type(name, list, expected))? {
        if items.len() == MOST_ITEMS {
            return Err(Fault::usage(format!("{name} has more than {MOST_ITEMS} items")).into());
        }
        items.push(item?);
    }
    Ok(items)
}

/// A number of things, from `least` to `most`.
pub fn count(
    name: &str,
    value: &Bound<'_, PyAny>,
    (least, most): (usize, usize),
) -> PyResult<usize> {
    let found = whole(name, value, "an int")?.and_then(|n| usize::try_from(n).ok());
    let found = found.filter(|n| (least..=most).contains(n));
    let why = || Fault::usage(format!("{name} is {value}, expected {least} to {most}"));
    Ok(found.ok_or_else(why)?)
}

/// A whole number; `None` if it is too large for any use.
fn whole(name: &str, value: &Bound<'_, PyAny>, expected: &str) -> PyResult<Option<i64>> {
    if value.cast::<PyBool>().is_ok() || !value.hasattr("__index__")? {
        return Err(wrong_type(name, value, expected));
    }
    match value.extract::<i64>() {
        Ok(whole) => Ok(Some(whole)),
        Err(error) if error.is_instance_of::<PyTypeError>(value.py()) => {
            Err(wrong_type(name, value, expected))
        }
        Err(_) => Ok(None),
    }
}

/// The exception for a value of a wrong type.
pub fn wrong_type(name: &str, value: &Bound<'_, PyAny>, expected: &str) -> PyErr {
    let found = value.get_type();
    let found = found.name().map(|name| name.to_string());
    let found = found.unwrap_or_else(|_| "something".into());
    PyTypeError::new_err(format!("{name} is of type {found}, expected {expected}"))
}
