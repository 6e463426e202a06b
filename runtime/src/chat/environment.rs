//! Jinja as transformers sets it up: its settings, functions, filters and tests, with the limits.

use std::sync::Arc;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Rest, Tuple, Value, ValueKind};
use minijinja::{AutoEscape, Environment, Error, State};

use super::arguments::{Arguments, Passed, error};
use super::limits::{self, RenderUsage};
use super::{cycler, filters, json, keys, methods, operators, range, strftime, text, value_tests};

/// An environment for renderings one after the other.
pub(super) fn environment(usage: &Arc<RenderUsage>) -> Environment<'static> {
    let mut environment = Environment::new();
    let mut syntax = SyntaxConfig::builder();
    syntax.trim_blocks(true).lstrip_blocks(true);
    environment.set_syntax(syntax.build().expect("the delimiters are Jinja's own"));
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    environment.set_fuel(Some(limits::STEPS));
    environment.set_recursion_limit(limits::RECURSION);
    let output = usage.clone();
    environment.set_formatter(move |out, _, value| text::print(out, &output, value));
    let bound = usage.clone();
    environment.add_function(limits::BOUND, move |values: Rest<Value>| {
        bound.check(&values)
    });
    let watch = Watch(usage.clone());
    operators_of(&mut environment, &watch);
    functions(&mut environment, &watch);
    filters::register(&mut environment, &watch);
    let json = watch.clone();
    environment.add_filter("tojson", move |value: &Value, args: Passed| {
        json.watch(|| json::tojson(value, args))
    });
    value_tests::register(&mut environment);
    environment
}

/// Counts what operators, methods and filters make.
#[derive(Clone)]
pub(super) struct Watch(Arc<RenderUsage>);

impl Watch {
    /// Computes a value if there is time left, and counts its size.
    pub fn watch(&self, make: impl FnOnce() -> Result<Value, Error>) -> Result<Value, Error> {
        self.0.check_time()?;
        let value = make()?;
        self.0.count(&value)?;
        Ok(value)
    }
}

/// The functions that rewritten expressions call.
fn operators_of(environment: &mut Environment<'static>, watch: &Watch) {
    let w = watch.clone();
    environment.add_function("__arith", move |parts: Rest<Value>| {
        w.watch(|| operators::arith(parts))
    });
    let w = watch.clone();
    environment.add_function("__concat", move |parts: Rest<Value>| {
        w.watch(|| operators::concat(parts))
    });
    let w = watch.clone();
    environment.add_function("__compare", move |parts: Rest<Value>| {
        w.watch(|| operators::compare(parts))
    });
    environment.add_function("__sign", |sign: &str, value: &Value| {
        operators::sign(sign, value)
    });
    let w = watch.clone();
    environment.add_function("__dict", move |parts: Rest<Value>| {
        w.watch(|| keys::literal(parts))
    });
    environment.add_function("__iter", operators::iter);
    environment.add_function("__attr", |value: &Value, name: &str| {
        operators::attr(value, name)
    });
    let w = watch.clone();
    environment.add_function("__item", move |value: &Value, key: &Value| {
        w.watch(|| operators::item(value, key))
    });
    let w = watch.clone();
    let slice = move |value: &Value, start: &Value, stop: &Value, step: Option<Value>| {
        w.watch(|| operators::slice(value, start, stop, step.as_ref()))
    };
    environment.add_function("__slice", slice);
    let w = watch.clone();
    let method = move |state: &mut State, value: &Value, name: &str, args: Passed| {
        w.watch(|| methods::call(state, value, name, args))
    };
    environment.add_function("__method", method);
    let w = watch.clone();
    environment.add_function("__variadic", move |described: &str, args: Passed| {
        w.watch(|| variadic(described, args))
    });
}

/// `__variadic(macro, arguments …)`: the arguments of a macro by name, with what is beyond its
/// parameters as `varargs` and `kwargs`.
fn variadic(described: &str, args: Passed) -> Result<Value, Error> {
    let (parameters, caught) = described.split_once(';').unwrap_or((described, ""));
    let parameters: Vec<&str> = parameters
        .split(',')
        .filter(|name| !name.is_empty())
        .collect();
    let catches = |name: &str| caught.split(',').any(|caught| caught == name);
    let mut args = Arguments::of(args)?;
    let names = args.names();
    let more = args
        .positional
        .split_off(args.positional.len().min(parameters.len()));
    let mut bound: Vec<(&str, Value)> = Vec::new();
    bound.extend(
        parameters
            .iter()
            .copied()
            .zip(args.positional.iter().cloned()),
    );
    match catches("varargs") {
        true => bound.push(("varargs", Value::from(Tuple::from(more)))),
        false if more.is_empty() => {}
        false => {
            return Err(error(format!(
                "expected at most {} arguments",
                parameters.len()
            )));
        }
    }
    let mut others: Vec<(&str, Value)> = Vec::new();
    for name in &names {
        let value = args.named(name).unwrap_or_default();
        let is_bound = bound.iter().any(|(bound, _)| bound == name);
        match parameters.contains(&&**name) {
            true if is_bound => return Err(error(format!("argument `{name}` is there twice"))),
            true => bound.push((name, value)),
            false if catches("kwargs") => others.push((name, value)),
            false => return Err(error(format!("unexpected argument `{name}`"))),
        }
    }
    if catches("kwargs") {
        bound.push(("kwargs", Value::from_pairs(others)));
    }
    Ok(Value::from_pairs(bound))
}

/// The functions of Jinja2 and of transformers.
fn functions(environment: &mut Environment<'static>, watch: &Watch) {
    environment.add_function("raise_exception", |why: &Value| -> Result<Value, Error> {
        Err(error(text::plain(why)?))
    });
    environment.add_function("strftime_now", |format: &str| {
        strftime::strftime_now(format)
    });
    environment.add_function("range", range::range);
    let w = watch.clone();
    environment.add_function("namespace", move |args: Passed| {
        let values = w.watch(|| dict(args))?;
        for name in values.try_iter()? {
            if name.as_str().is_some_and(|name| name.starts_with('_')) {
                return Err(error(format!(
                    "namespace: the attribute {name} begins with `_`"
                )));
            }
        }
        minijinja::functions::namespace(Some(values.into()))
    });
    let w = watch.clone();
    environment.add_function("dict", move |args: Passed| w.watch(|| dict(args)));
    environment.add_function("cycler", |items: Rest<Value>| cycler::cycler(items.0));
    environment.add_function("joiner", minijinja_contrib::globals::joiner);
    environment.remove_global("debug");
    environment.add_function("lipsum", |_: Passed| -> Result<Value, Error> {
        Err(error("`lipsum` makes random text, which is not supported"))
    });
}

/// `dict(pairs or dictionary, name=value …)`
fn dict(args: Passed) -> Result<Value, Error> {
    let args = Arguments::of(args)?;
    let mut pairs: Vec<(Value, Value)> = Vec::new();
    if let Some(first) = args.positional.first() {
        for item in first.try_iter()? {
            let pair = match first.kind() {
                ValueKind::Map => (item.clone(), first.get_item(&item)?),
                _ => {
                    let parts: Vec<Value> = item.try_iter()?.collect();
                    let [key, value] = &parts[..] else {
                        return Err(error("dict: expected pairs"));
                    };
                    (key.clone(), value.clone())
                }
            };
            pairs.push(pair);
        }
    }
    for name in args.names() {
        let value = args.named(&name).unwrap_or_default();
        pairs.push((Value::from(name), value));
    }
    keys::dictionary(pairs)
}
