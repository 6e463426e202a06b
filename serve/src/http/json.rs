//! Bodies of requests: JSON from strangers, read strictly.
//!
//! `serde_json` keeps the last of two members with one name, and readers differ in which one they
//! keep; here such an object is refused. The number of values is bounded, because two bytes of text
//! can become a value of 72 bytes in memory. Errors name the member in which reading stopped.

use std::cell::{Cell, RefCell};
use std::fmt::{self, Formatter};

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use sterna_ternary::json::{count, large_integers, shown};

use super::error::{ApiError, ApiResult};

/// Most values in a body. A list of 100 prompts of 2,000 token ids has 200,000.
const MOST_VALUES: usize = 250_000;

/// Most lists and objects in a body: an empty list of a list takes more memory than four numbers.
const MOST_CONTAINERS: usize = 20_000;

/// The object that a body is.
///
/// # Errors
/// 400, with the name of the member in which reading stopped as `param`.
pub fn object(bytes: &[u8]) -> ApiResult<Map<String, Value>> {
    let found = count(bytes);
    if found > MOST_VALUES {
        let message = format!("the body holds {found} JSON values, expected at most {MOST_VALUES}");
        return Err(ApiError::json(None, message));
    }
    let state = State {
        has_large: !large_integers(bytes).is_empty(),
        ..State::default()
    };
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let value = Strict(&state).deserialize(&mut reader);
    let value = value.and_then(|value| reader.end().map(|()| value));
    match value {
        Ok(Value::Object(members)) => Ok(members),
        Ok(_) => Err(ApiError::json(None, "the body is not a JSON object")),
        Err(error) => Err(refusal(&error, &state.path.into_inner())),
    }
}

fn refusal(error: &serde_json::Error, path: &[String]) -> ApiError {
    let param = (!path.is_empty()).then(|| shown(&path.join(".")));
    let at = param
        .as_ref()
        .map_or(String::new(), |at| format!(" in {at}"));
    let mut message = format!("the body is not valid JSON{at}: {error}");
    if error.to_string().contains("surrogate") || error.to_string().contains("hex escape") {
        message += "; a \\u escape is half of a character: send both halves, or UTF-8";
    }
    ApiError::json(param, message)
}

/// Where reading is.
#[derive(Default)]
struct State {
    /// The names of the members that are being read.
    path: RefCell<Vec<String>>,
    /// Lists and objects so far.
    containers: Cell<usize>,
    /// Whether the body holds an integer beyond 64 bits, which the reader makes a float.
    has_large: bool,
}

/// Reads a value.
#[derive(Clone, Copy)]
struct Strict<'s>(&'s State);

impl Strict<'_> {
    fn begin_container<E: Error>(self) -> Result<(), E> {
        let count = self.0.containers.get() + 1;
        self.0.containers.set(count);
        match count <= MOST_CONTAINERS {
            true => Ok(()),
            false => Err(E::custom(format!(
                "more than {MOST_CONTAINERS} lists and objects"
            ))),
        }
    }
}

impl<'de> DeserializeSeed<'de> for Strict<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Value, D::Error> {
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut Formatter) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        if self.0.has_large && value.abs() >= 2f64.powi(63) {
            return Err(E::custom("an integer beyond 64 bits; send it as a string"));
        }
        let number = Number::from_f64(value);
        number
            .map(Value::Number)
            .ok_or_else(|| E::custom("number out of range"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        self.begin_container()?;
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(self)? {
            list.push(item);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        self.begin_container()?;
        let mut object = Map::new();
        while let Some(name) = members.next_key::<String>()? {
            self.0.path.borrow_mut().push(name.clone());
            if object.contains_key(&name) {
                let name = shown(&name);
                return Err(A::Error::custom(format!("{name:?} is there twice")));
            }
            let value = members.next_value_seed(self)?;
            self.0.path.borrow_mut().pop();
            object.insert(name, value);
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(body: &str, param: Option<&str>, says: &str) {
        let error = object(body.as_bytes()).unwrap_err();
        assert_eq!(error.param.as_deref(), param, "{body}: {}", error.message);
        assert!(error.message.contains(says), "{body}: {}", error.message);
        assert_eq!(error.code, Some("invalid_json"));
    }

    #[test]
    fn values_are_those_of_serde_json() {
        let text = r#"{"a": [1, -2, 2.5, 18446744073709551615], "b": {"c": null, "é": "\u00e9"},
            "d": true, "e": {}, "f": []}"#;
        let expected: Value = serde_json::from_str(text).unwrap();
        assert_eq!(Value::Object(object(text.as_bytes()).unwrap()), expected);
    }

    #[test]
    fn a_name_that_is_there_twice_is_refused() {
        refused(
            r#"{"seed": 1, "seed": 2}"#,
            Some("seed"),
            "\"seed\" is there twice",
        );
        refused(
            r#"{"messages": [{"role": "user", "role": "system"}]}"#,
            Some("messages.role"),
            "twice",
        );
    }

    #[test]
    fn numbers_out_of_range_name_their_member() {
        refused(
            r#"{"messages": [{"id": 18446744073709551616}]}"#,
            Some("messages.id"),
            "beyond 64 bits",
        );
        object(br#"{"a": 1e30, "b": "18446744073709551616"}"#).unwrap();
        refused(
            r#"{"temperature": 1e400}"#,
            Some("temperature"),
            "out of range",
        );
        refused(r#"{"temperature": NaN}"#, Some("temperature"), "");
        refused(r#"{"a": {"b": [1, -1e999]}}"#, Some("a.b"), "out of range");
    }

    #[test]
    fn halves_of_characters_are_explained() {
        refused(
            r#"{"prompt": "\ud800"}"#,
            Some("prompt"),
            "half of a character",
        );
        refused(
            r#"{"prompt": "\ud800x"}"#,
            Some("prompt"),
            "half of a character",
        );
        refused(
            r#"{"prompt": "\udc00"}"#,
            Some("prompt"),
            "half of a character",
        );
    }

    #[test]
    fn depth_and_number_are_bounded() {
        let deep = format!("{{\"a\": {}", "[".repeat(100_000));
        refused(&deep, Some("a"), "recursion limit");
        let many = format!("{{\"a\": [0{}]}}", ",0".repeat(MOST_VALUES));
        refused(&many, None, "JSON values");
        let lists = format!("{{\"a\": [[]{}]}}", ",[]".repeat(MOST_CONTAINERS));
        refused(&lists, Some("a"), "lists and objects");
    }

    #[test]
    fn other_things_are_refused() {
        refused("", None, "");
        refused("[1]", None, "not a JSON object");
        refused("{} {}", None, "trailing");
        refused("{\"a\": \"b\u{1}\"}", Some("a"), "control character");
        let error = object(b"{\"a\": \"\xff\"}").unwrap_err();
        assert!(error.message.contains("unicode"), "{}", error.message);
    }
}
