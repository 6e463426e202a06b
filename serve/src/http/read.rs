//! Values of fields, read with their types and ranges. Null is the same as an absent field.

use std::fmt::Display;
use std::io;
use std::ops::RangeInclusive;

use serde_json::{Map, Value};
use sterna_ternary::json::shown;

use super::error::{ApiError, ApiResult};

/// The members of a body.
#[derive(Debug, Clone, Copy)]
pub struct Reader<'b>(pub &'b Map<String, Value>);

impl<'b> Reader<'b> {
    /// The value of a field that is there and not null.
    pub fn value(self, name: &str) -> Option<&'b Value> {
        self.0.get(name).filter(|value| !value.is_null())
    }

    /// A field of this type.
    fn typed<T>(
        self,
        name: &str,
        expected: impl Display,
        read: impl FnOnce(&'b Value) -> Option<T>,
    ) -> ApiResult<Option<T>> {
        let Some(value) = self.value(name) else {
            return Ok(None);
        };
        let read = read(value).ok_or_else(|| wrong(name, value, expected));
        read.map(Some)
    }

    /// True or false; false if it is absent.
    pub fn flag(self, name: &str) -> ApiResult<bool> {
        Ok(self.boolean(name)?.unwrap_or(false))
    }

    /// True or false.
    pub fn boolean(self, name: &str) -> ApiResult<Option<bool>> {
        self.typed(name, "true or false", Value::as_bool)
    }

    /// A text.
    pub fn text(self, name: &str) -> ApiResult<Option<&'b str>> {
        self.typed(name, "a string", Value::as_str)
    }

    /// An object.
    pub fn object(self, name: &str) -> ApiResult<Option<&'b Map<String, Value>>> {
        self.typed(name, "an object", Value::as_object)
    }

    /// A whole number in a range.
    pub fn integer(self, name: &str, range: RangeInclusive<i64>) -> ApiResult<Option<i64>> {
        let (first, last) = (range.start(), range.end());
        let expected = match *last {
            i64::MAX => format!("a whole number from {first}"),
            _ => format!("a whole number from {first} to {last}"),
        };
        self.typed(name, expected, |value| {
            integer(value).filter(|found| range.contains(found))
        })
    }

    /// A number of things, from 0.
    pub fn count(self, name: &str) -> ApiResult<Option<usize>> {
        let count = self.integer(name, 0..=i64::MAX)?;
        Ok(count.map(|count| usize::try_from(count).unwrap_or(usize::MAX)))
    }

    /// A number in a range, rounded to single precision.
    pub fn number(self, name: &str, range: RangeInclusive<f32>) -> ApiResult<Option<f32>> {
        let expected = format!("a number from {} to {}", range.start(), range.end());
        self.typed(name, expected, |value| {
            let number = value.as_f64()? as f32;
            range.contains(&number).then_some(number)
        })
    }
}

/// 400: the value of a field is not what was expected.
pub fn wrong(name: impl Display, value: &Value, expected: impl Display) -> ApiError {
    let value = brief(value);
    ApiError::invalid(
        name.to_string(),
        format!("{name} is {value}, expected {expected}"),
    )
}

/// An error about a member of the object `at`.
pub fn under(at: &str, error: ApiError) -> ApiError {
    ApiError {
        param: error.param.map(|param| format!("{at}.{param}")),
        message: format!("{at}.{}", error.message),
        ..error
    }
}

/// The beginning of a value as JSON. A large value is not written in full.
pub fn brief(value: &Value) -> String {
    struct Start(Vec<u8>);
    impl io::Write for Start {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.extend_from_slice(bytes);
            match self.0.len() < 1000 {
                true => Ok(bytes.len()),
                false => Err(io::ErrorKind::StorageFull.into()),
            }
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut start = Start(Vec::new());
    // An error is the end of what is shown.
    let _cut = serde_json::to_writer(&mut start, value);
    shown(&String::from_utf8_lossy(&start.0))
}

/// A whole number, also one that is written as 3.0.
fn integer(value: &Value) -> Option<i64> {
    let is_whole = |x: &f64| x.fract() == 0.0 && x.abs() < (1u64 << 53) as f64;
    let whole = || value.as_f64().filter(is_whole).map(|x| x as i64);
    value.as_i64().or_else(whole)
}

/// Token ids of a list, each below the vocabulary size.
pub fn ids(name: &str, list: &[Value], vocab_size: usize) -> ApiResult<Vec<u32>> {
    let id = |(index, value): (usize, &Value)| {
        let id = integer(value).filter(|id| (0..vocab_size as i64).contains(id));
        let expected = format!("a token id from 0 to {}", vocab_size - 1);
        id.map(|id| id as u32)
            .ok_or_else(|| wrong(format!("{name}[{index}]"), value, expected))
    };
    list.iter().enumerate().map(id).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn types_and_ranges_are_checked_by_name() {
        let body = json!({"a": 3, "b": 3.0, "c": 1.5, "d": "x", "e": null, "f": true,
            "g": 18446744073709551615u64, "h": 1e300, "i": -1});
        let reader = Reader(body.as_object().unwrap());
        assert_eq!(reader.integer("a", 0..=5).unwrap(), Some(3));
        assert_eq!(reader.integer("b", 0..=5).unwrap(), Some(3));
        assert_eq!(reader.integer("e", 0..=5).unwrap(), None);
        assert_eq!(reader.integer("z", 0..=5).unwrap(), None);
        assert_eq!(reader.number("c", 0.0..=2.0).unwrap(), Some(1.5));
        assert_eq!(reader.text("d").unwrap(), Some("x"));
        assert!(reader.flag("f").unwrap() && !reader.flag("e").unwrap());
        for (error, says) in [
            (
                reader.integer("a", 0..=2).unwrap_err(),
                "a is 3, expected a whole number from 0 to 2",
            ),
            (reader.integer("c", 0..=5).unwrap_err(), "c is 1.5"),
            (reader.integer("d", 0..=5).unwrap_err(), "d is \"x\""),
            (
                reader.count("g").unwrap_err(),
                "g is 18446744073709551615, expected a whole number from 0",
            ),
            (reader.count("i").unwrap_err(), "i is -1"),
            (
                reader.number("h", 0.0..=2.0).unwrap_err(),
                "h is 1e+300, expected a number from 0 to 2",
            ),
            (
                reader.flag("a").unwrap_err(),
                "a is 3, expected true or false",
            ),
            (
                reader.text("f").unwrap_err(),
                "f is true, expected a string",
            ),
        ] {
            assert!(error.message.starts_with(says), "{}", error.message);
            assert_eq!(error.param.as_deref(), Some(&says[..1]));
        }
    }

    #[test]
    fn a_large_value_is_cut() {
        let list: Value = vec![7; 100_000].into();
        assert!(brief(&list).starts_with("[7,7,7") && brief(&list).len() < 300);
        assert_eq!(brief(&json!({"a": "b"})), "{\"a\":\"b\"}");
        assert!(brief(&json!("é".repeat(100_000))).len() < 100_000);
    }

    #[test]
    fn ids_are_those_of_the_vocabulary() {
        let list = [json!(0), json!(9)];
        assert_eq!(ids("prompt", &list, 10).unwrap(), [0, 9]);
        assert_eq!(ids("prompt", &[json!(3.0)], 10).unwrap(), [3]);
        for bad in [json!(10), json!(-1), json!(1.5), json!("1"), json!(null)] {
            let error = ids("prompt", &[json!(0), bad], 10).unwrap_err();
            assert_eq!(error.param.as_deref(), Some("prompt[1]"));
        }
    }
}
