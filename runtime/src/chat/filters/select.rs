//! The filters that apply a filter or a test to each item of a list.

use minijinja::value::{Value, ValueKind};
use minijinja::{Environment, Error, State};

use super::super::Watch;
use super::super::arguments::{Arguments, Passed, error};
use super::elements;
use super::lists::attribute;

/// Registers the filters.
pub(super) fn register(environment: &mut Environment<'static>, watch: &Watch) {
    let w = watch.clone();
    environment.add_filter(
        "map",
        move |state: &mut State, value: &Value, args: Passed| w.watch(|| map(state, value, args)),
    );
    for (name, by_attribute, wanted) in [
        ("select", false, true),
        ("reject", false, false),
        ("selectattr", true, true),
        ("rejectattr", true, false),
    ] {
        let w = watch.clone();
        let filter = move |state: &mut State, value: &Value, args: Passed| {
            w.watch(|| select(state, value, args, by_attribute, wanted))
        };
        environment.add_filter(name, filter);
    }
}

/// The items, and the arguments as they are passed on. Like Jinja2, which looks at the arguments
/// only if there are items.
fn split(value: &Value, args: Passed) -> Result<(Vec<Value>, Vec<Value>), Error> {
    let has_items = value.is_true() || value.kind() == ValueKind::Iterable;
    let items = if has_items {
        elements(value)?
    } else {
        Vec::new()
    };
    Ok((items, args.into_values()))
}

/// `map(name, arguments of the filter …)` or `map(attribute=name, default=value)`
fn map(state: &mut State, value: &Value, args: Passed) -> Result<Value, Error> {
    let (items, mut values) = split(value, args)?;
    let by_name = Arguments::of_values(values.clone())?;
    if items.is_empty() {
        return Ok(Value::from(items));
    }
    if by_name.positional.is_empty() {
        let unknown = by_name.names();
        let mut unknown = unknown
            .iter()
            .filter(|name| *name != "attribute" && *name != "default");
        if let Some(name) = unknown.next() {
            return Err(error(format!("filter `map`: unexpected argument `{name}`")));
        }
        let name = by_name.named("attribute");
        let name = name.ok_or_else(|| error("filter `map`: expected the name of a filter"))?;
        let default = by_name.named("default");
        let of = |item: &Value| attribute(item, Some(&name), default.as_ref());
        return items.iter().map(of).collect();
    }
    let filter = values.remove(0);
    let filter = name_of("map", "filter", &filter)?;
    let mut call = |item: Value| {
        let args: Vec<Value> = std::iter::once(item)
            .chain(values.iter().cloned())
            .collect();
        state.apply_filter(filter, &args)
    };
    items.into_iter().map(&mut call).collect()
}

/// `select(test, arguments of the test …)`; with an attribute its name is the first argument.
fn select(
    state: &mut State,
    value: &Value,
    args: Passed,
    by_attribute: bool,
    wanted: bool,
) -> Result<Value, Error> {
    let (items, mut args) = split(value, args)?;
    if items.is_empty() {
        return Ok(Value::from(items));
    }
    let by = match by_attribute {
        false => None,
        true if args.is_empty() => return Err(error("expected the name of an attribute")),
        true => Some(args.remove(0)),
    };
    let test = if args.is_empty() {
        None
    } else {
        Some(args.remove(0))
    };
    let test = test
        .as_ref()
        .map(|test| name_of("select", "test", test))
        .transpose()?;
    let mut kept = Vec::new();
    for item in items {
        let tested = attribute(&item, by.as_ref(), None)?;
        let passes = match test {
            None => tested.is_true(),
            Some(test) => {
                let args: Vec<Value> = std::iter::once(tested)
                    .chain(args.iter().cloned())
                    .collect();
                state.perform_test(test, &args)?
            }
        };
        if passes == wanted {
            kept.push(item);
        }
    }
    Ok(Value::from(kept))
}

fn name_of<'v>(filter: &str, what: &str, value: &'v Value) -> Result<&'v str, Error> {
    let name = value.as_str();
    name.ok_or_else(|| error(format!("filter `{filter}`: expected the name of a {what}")))
}
