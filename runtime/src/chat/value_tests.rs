//! The tests of Jinja2, such as `x is iterable`, as Python answers them.

use minijinja::value::{Rest, Value, ValueKind};
use minijinja::{Environment, Error, State};

use super::arguments::error;
use super::operators::{self, View, is_dict, is_object, relates, type_name};
use super::{categories, keys, text};

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
        let is_other = is_namespace(value) && !is_object(value, "Loop");
        is_text(value) || kinds.contains(&value.kind()) && !is_other
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
        let is_named = ["Macro", "Loop"].iter().any(|name| is_object(value, name));
        is_named || matches!(value.kind(), ValueKind::Plain | ValueKind::Undefined)
    });
    environment.add_test("sameas", same);
    let text = |value: &Value| text::plain(value);
    environment.add_test("lower", move |v: &Value| {
        text(v).map(|t| categories::is_lower(&t))
    });
    environment.add_test("upper", move |v: &Value| {
        text(v).map(|t| categories::is_upper(&t))
    });
    environment.add_test("even", |value: &Value| rest(value, &2.into(), 0));
    environment.add_test("odd", |value: &Value| rest(value, &2.into(), 1));
    environment.add_test("divisibleby", |value: &Value, by: &Value| {
        rest(value, by, 0)
    });
    for name in ["escaped", "safe"] {
        environment.add_test(name, |value: &Value| value.is_safe());
    }
    for (name, is_filter) in [("filter", true), ("test", false)] {
        environment.add_test(name, move |state: &mut State, value: &Value| {
            keys::check(value)?;
            let name = value.as_str().unwrap_or_default();
            Ok::<bool, Error>(match is_filter {
                true => minijinja::tests::is_filter(state, name),
                false => minijinja::tests::is_test(state, name),
            })
        });
    }
    // Names that Jinja2 does not have.
    for name in ["int", "startingwith", "endingwith", "containing"] {
        environment.remove_test(name);
    }
}

/// Whether two values are one object in Python; refused where only Python can know.
fn same(a: &Value, b: &Value, have_one_name: Option<bool>) -> Result<bool, Error> {
    // Python makes these integers once.
    const ONCE: std::ops::RangeInclusive<i64> = -5..=256;
    if type_name(a) != type_name(b) || !operators::equal(a, b)? {
        return Ok(false);
    }
    if have_one_name == Some(true) && !a.is_undefined() {
        return Ok(true);
    }
    let list = |value: &Value| {
        value
            .downcast_object_ref::<Vec<Value>>()
            .map(std::ptr::from_ref)
    };
    match (a.kind(), list(a), list(b)) {
        (ValueKind::None | ValueKind::Bool, ..) => Ok(true),
        (ValueKind::Number, ..) if a.as_i64().is_some_and(|n| ONCE.contains(&n)) => Ok(true),
        (ValueKind::String, ..) if a.len() == Some(0) => Ok(true),
        (_, Some(a), Some(b)) => Ok(a == b),
        _ => Err(error(format!(
            "`sameas`: whether two equal values of type '{}' are one object cannot be known; \
             compare them with `==`",
            type_name(a)
        ))),
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
