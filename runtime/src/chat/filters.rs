//! The filters of Jinja2 as Python computes them, within the limits.

mod lists;
mod numbers;
mod pretty;
mod select;
mod texts;
mod wrap;

use minijinja::value::Value;
use minijinja::{Environment, Error};

use super::arguments::{Arguments, Passed, error};
use super::limits::check_size;
use super::operators::{self, integer, is_dict, type_name};
use super::{letters, methods, text};
pub(super) use texts::escaped;

type Filter = fn(&Value, &Arguments) -> Result<Value, Error>;

const FILTERS: [(&str, Filter); 46] = [
    ("abs", numbers::abs),
    ("attr", attr),
    ("batch", lists::batch),
    ("capitalize", |v, a| converted(v, a, letters::capitalize)),
    ("center", texts::center),
    ("count", lists::length),
    ("d", default),
    ("default", default),
    ("e", texts::escape),
    ("escape", texts::escape),
    ("filesizeformat", numbers::file_size),
    ("first", lists::first),
    ("float", numbers::float),
    ("forceescape", texts::force_escape),
    ("format", texts::formatted),
    ("groupby", lists::group_by),
    ("indent", texts::indent),
    ("int", numbers::int),
    ("items", lists::items),
    ("join", lists::join),
    ("last", lists::last),
    ("length", lists::length),
    ("list", lists::list),
    ("lower", |v, a| converted(v, a, str::to_lowercase)),
    ("pprint", texts::pprint),
    ("replace", texts::replace),
    ("reverse", lists::reverse),
    ("round", numbers::round),
    ("safe", texts::safe),
    ("slice", lists::slice),
    ("string", |v, a| converted(v, a, str::to_owned)),
    ("striptags", |v, a| converted(v, a, texts::strip_tags)),
    ("title", |v, a| converted(v, a, texts::title)),
    ("trim", texts::trim),
    ("truncate", texts::truncate),
    ("upper", |v, a| converted(v, a, str::to_uppercase)),
    ("urlencode", texts::urlencode),
    ("wordcount", texts::word_count),
    ("wordwrap", texts::word_wrap),
    ("xmlattr", texts::xml_attributes),
    ("max", |v, a| {
        lists::extreme(v, a, std::cmp::Ordering::Greater)
    }),
    ("min", |v, a| lists::extreme(v, a, std::cmp::Ordering::Less)),
    ("sort", lists::sort),
    ("sum", lists::sum),
    ("unique", lists::unique),
    ("dictsort", lists::dict_sort),
];

/// Filters that make a safe text of one that is marked as safe.
const KEEP_SAFE: [&str; 9] = [
    "capitalize",
    "center",
    "indent",
    "lower",
    "reverse",
    "string",
    "trim",
    "truncate",
    "upper",
];

/// Registers the filters.
pub(super) fn register(environment: &mut Environment<'static>, limits: &super::Watch) {
    for (name, filter) in FILTERS {
        let limits = limits.clone();
        environment.add_filter(name, move |value: Value, args: Passed| {
            limits.watch(|| {
                let result = filter(&value, &Arguments::of(args)?);
                let is_marked = value.is_safe() && KEEP_SAFE.contains(&name);
                let mark = |result: Value| match result.as_str() {
                    Some(text) if is_marked => Value::from_safe_string(text.to_owned()),
                    _ => result,
                };
                result.map(mark).map_err(|e| match e.detail() {
                    Some(why) => error(format!("filter `{name}`: {why}")),
                    None => e,
                })
            })
        });
    }
    select::register(environment, limits);
    // Names that Jinja2 does not have, and one whose result is random.
    for name in ["bool", "lines", "split", "chain", "zip", "random"] {
        environment.remove_filter(name);
    }
}

/// A filter of the text of a value.
fn converted(value: &Value, args: &Arguments, f: fn(&str) -> String) -> Result<Value, Error> {
    args.bind([])?;
    let text = f(&text::plain(value)?);
    check_size(text.len())?;
    Ok(Value::from(text))
}

fn attr(value: &Value, args: &Arguments) -> Result<Value, Error> {
    let [name] = args.bind(["name"])?;
    let name = name.as_ref().and_then(Value::as_str);
    let name = name.ok_or_else(|| error("expected a name"))?;
    match methods::has(value, name) || !is_dict(value) {
        true => operators::attr(value, name),
        false => Ok(Value::UNDEFINED), // keys are no attributes
    }
}

fn number(value: Option<&Value>, default: i64) -> Result<i64, Error> {
    value
        .filter(|value| !value.is_none())
        .map_or(Ok(default), integer)
}

fn is_true(value: &Option<Value>) -> bool {
    value.as_ref().is_some_and(Value::is_true)
}

/// The text that a filter needs.
fn needed(value: &Value) -> Result<&str, Error> {
    let found = type_name(value);
    let text = value.as_str();
    text.ok_or_else(|| error(format!("expected a string, found {found}")))
}

/// The items of what a filter runs over.
fn elements(value: &Value) -> Result<Vec<Value>, Error> {
    Ok(operators::iter(value.clone())?.try_iter()?.collect())
}

fn default(value: &Value, args: &Arguments) -> Result<Value, Error> {
    let [default, boolean] = args.bind(["default_value", "boolean"])?;
    match value.is_undefined() || is_true(&boolean) && !value.is_true() {
        true => Ok(default.unwrap_or_else(|| Value::from(""))),
        false => Ok(value.clone()),
    }
}
