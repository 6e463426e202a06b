//! The tests of Jinja2, such as `x is iterable`, as Python answers them.

use minijinja::value::{Rest, Value, ValueKind};
use minijinja::{Environment, Error};

use super::arguments::error;
use super::operators::{self, View, is_dict, relates, type_name};
use super::text;

/// Registers all tests whose meaning differs from the interpreter's own.
pub(super) fn register(environment: &mut Environment<'static>) {
    let comparisons = [
        ("==", &["eq", "equalto", "=="][..]),
        ("!=", &["ne", "!="]),
        ("<", &["lt", "lessthan", "<"]),
        ("<=", &["le", "<="]),
        (">", &["gt", "greaterthan", ">"]),
        (">=", &["ge", ">="]),
        ("in", &["in"]),
    ];
    for (operator, names) in comparisons {
        for name in names {
            environment.add_test(*name, move |a: &Value, b: &Value| relates(operator, a, b));
        }
    }
    let is_text = |value: &Value| value.kind() == ValueKind::String;
    environment.add_test("string", is_text);
    environment.add_test("mapping", is_dict);
    environment.add_test("iterable", move |value: &Value| {
        // Undefined is an empty iterable in Jinja2.
        let kinds = [
            ValueKind::Seq,
            ValueKind::Iterable,
            ValueKind::Map,
            ValueKind::Undefined,
        ];
        is_text(value) || kinds.contains(&value.kind()) && !is_namespace(value)
    });
    environment.add_test("sequence", move |value: &Value| {
        // What has a length and items, so dictionaries too.
        let kinds = [
            ValueKind::Seq,
            ValueKind::Iterable,
            ValueKind::Map,
            ValueKind::Undefined,
        ];
        let is_other = is_namespace(value) || View::of(value).is_some();
        is_text(value) || kinds.contains(&value.kind()) && !is_other
    });
    environment.add_test("callable", |value: &Value| {
        matches!(value.kind(), ValueKind::Plain | ValueKind::Undefined)
    });
    environment.add_test("sameas", |a: &Value, b: &Value| {
        type_name(a) == type_name(b) && operators::equal(a, b).unwrap_or(false)
    });
    let case = |test: fn(char) -> bool, other: fn(char) -> bool| {
        move |value: &Value| -> Result<bool, Error> {
            let text = text::plain(value)?;
            Ok(text.chars().any(test) && !text.chars().any(other))
        }
    };
    environment.add_test("lower", case(char::is_lowercase, char::is_uppercase));
    environment.add_test("upper", case(char::is_uppercase, char::is_lowercase));
    environment.add_test("even", |value: &Value| rest(value, &2.into(), 0));
    environment.add_test("odd", |value: &Value| rest(value, &2.into(), 1));
    environment.add_test("divisibleby", |value: &Value, by: &Value| {
        rest(value, by, 0)
    });
    for name in ["escaped", "safe"] {
        environment.add_test(name, |value: &Value| value.is_safe());
    }
    // Names that Jinja2 does not have.
    for name in ["int", "startingwith", "endingwith", "containing"] {
        environment.remove_test(name);
    }
}

fn is_namespace(value: &Value) -> bool {
    value.kind() == ValueKind::Map && !is_dict(value)
}

/// Whether `value % by` is this number.
fn rest(value: &Value, by: &Value, wanted: i64) -> Result<bool, Error> {
    if value.as_str().is_some() {
        return Err(error("'str' cannot be divided"));
    }
    let parts = vec![value.clone(), Value::from("%"), by.clone()];
    operators::equal(&operators::arith(Rest(parts))?, &Value::from(wanted))
}
