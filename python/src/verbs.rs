//! Verbs of the command line as functions.

use std::ffi::OsString;
use std::path::PathBuf;

use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyDict, PyString};
use sterna::library;

use crate::errors::Fault;
use crate::server::Server;
use crate::values;

/// The arguments of a verb.
pub struct Arguments(Vec<OsString>);

impl Arguments {
    fn new(verb: &str) -> Arguments {
        Arguments(vec![verb.into()])
    }

    /// Adds `--name=value`, if there is one.
    fn with(mut self, name: &str, value: Option<impl Into<OsString>>) -> Arguments {
        if let Some(value) = value {
            let mut argument = OsString::from(format!("--{}=", name.replace('_', "-")));
            argument.push(value.into());
            self.0.push(argument);
        }
        self
    }

    /// Adds `--name`, if it is true.
    fn flag(mut self, name: &str, is_given: bool) -> Arguments {
        if is_given {
            self.0.push(format!("--{}", name.replace('_', "-")).into());
        }
        self
    }

    /// Adds paths, which may begin with a dash.
    fn paths(mut self, paths: impl IntoIterator<Item = PathBuf>) -> Arguments {
        self.0.push("--".into());
        self.0.extend(paths.into_iter().map(OsString::from));
        self
    }

    /// Runs the verb and returns its report.
    fn report<'py>(self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let report = py.detach(|| library::report(&self.0));
        values::python(py, &report.map_err(Fault::from)?)
    }
}

type Value<'a, 'py> = Option<&'a Bound<'py, PyAny>>;

fn text(name: &str, value: Value) -> PyResult<Option<String>> {
    value.map(|value| values::text(name, value)).transpose()
}

fn path(name: &str, value: Value) -> PyResult<Option<PathBuf>> {
    value.map(|value| values::path(name, value)).transpose()
}

/// Converts a model to another format, and proves that no weight differs.
///
/// Options are the flags of `sterna convert`.
///
/// >>> report = sterna.convert("model", "copy.sterna")
/// >>> report["differ"]
/// 0
#[pyfunction]
#[pyo3(signature = (source, out, *, to=None, packing=None, head=None, activations=None, pre=None,
    lossy=false, masters=false, allow_missing=false, i2s_order=None, kernel_config=None),
    text_signature = "(source, out, *, to='native', packing='i2', head=None, activations=None, \
    pre=None, lossy=False, masters=False, allow_missing=False, i2s_order='x86', \
    kernel_config=None)")]
#[expect(clippy::too_many_arguments, reason = "they are keywords")]
pub fn convert<'py>(
    py: Python<'py>,
    source: &Bound<'py, PyAny>,
    out: &Bound<'py, PyAny>,
    to: Value<'_, 'py>,
    packing: Value<'_, 'py>,
    head: Value<'_, 'py>,
    activations: Value<'_, 'py>,
    pre: Value<'_, 'py>,
    lossy: bool,
    masters: bool,
    allow_missing: bool,
    i2s_order: Value<'_, 'py>,
    kernel_config: Value<'_, 'py>,
) -> PyResult<Bound<'py, PyAny>> {
    Arguments::new("convert")
        .with("out", Some(values::path("out", out)?))
        .with("to", text("to", to)?)
        .with("packing", text("packing", packing)?)
        .with("head", text("head", head)?)
        .with("activations", text("activations", activations)?)
        .with("pre", text("pre", pre)?)
        .with("i2s_order", text("i2s_order", i2s_order)?)
        .with("kernel_config", path("kernel_config", kernel_config)?)
        .flag("lossy", lossy)
        .flag("masters", masters)
        .flag("allow_missing", allow_missing)
        .paths([values::path("source", source)?])
        .report(py)
}

/// Compares two models trit by trit, in any formats.
///
/// >>> sterna.verify("model", "model.sterna")["equal"]
/// True
#[pyfunction]
#[pyo3(signature = (a, b, *, i2s_order=None, kernel_config=None),
    text_signature = "(a, b, *, i2s_order='x86', kernel_config=None)")]
pub fn verify<'py>(
    py: Python<'py>,
    a: &Bound<'py, PyAny>,
    b: &Bound<'py, PyAny>,
    i2s_order: Value<'_, 'py>,
    kernel_config: Value<'_, 'py>,
) -> PyResult<Bound<'py, PyAny>> {
    Arguments::new("verify")
        .with("i2s_order", text("i2s_order", i2s_order)?)
        .with("kernel_config", path("kernel_config", kernel_config)?)
        .paths([values::path("a", a)?, values::path("b", b)?])
        .report(py)
}

/// Checks a model for known mistakes.
///
/// >>> sterna.doctor("model.sterna")["broken"]
/// 0
#[pyfunction]
pub fn doctor<'py>(py: Python<'py>, model: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    let model = values::path("model", model)?;
    Arguments::new("doctor").paths([model]).report(py)
}

/// What is in a model: shapes, packing, sizes, trits, tokenizer.
///
/// verify: read everything, compare the checksum and count all trits.
/// context: tokens of context for which memory is counted.
///
/// >>> sterna.inspect("model.sterna")["packing"]
/// 'i2'
#[pyfunction]
#[pyo3(signature = (model, *, verify=false, context=None))]
pub fn inspect<'py>(
    py: Python<'py>,
    model: &Bound<'py, PyAny>,
    verify: bool,
    context: Value<'_, 'py>,
) -> PyResult<Bound<'py, PyAny>> {
    let context = context.map(|n| values::count("context", n, (1, usize::MAX)));
    Arguments::new("inspect")
        .flag("verify", verify)
        .with("context", context.transpose()?.map(|n| n.to_string()))
        .paths([values::path("model", model)?])
        .report(py)
}

/// Options of `serve` that are lists, which are repeated flags.
const LISTS: [&str; 3] = ["names", "allow_host", "cors_origin"];
/// Those with a value.
const VALUES: [&str; 20] = [
    "api_key_env",
    "api_key_file",
    "context",
    "drain",
    "draft",
    "host",
    "kernels",
    "key_weights",
    "kv",
    "kv_memory",
    "log_requests",
    "memory",
    "parallel",
    "port",
    "queue",
    "queue_timeout",
    "queue_tokens",
    "step",
    "threads",
    "timeout",
];
/// Those that are true or false.
const FLAGS: [&str; 5] = ["any_model", "no_key", "no_lookup", "no_metrics", "strict"];

/// Serves models over HTTP with OpenAI's API, in threads of this process.
///
/// Options are the keys of the file of `sterna serve --config`, with _ for -. Port 0, the default
/// here, takes a free one.
///
/// >>> from urllib.request import urlopen
/// >>> with sterna.serve("model.sterna") as server:
/// ...     urlopen(server.url + "/health").status
/// 200
#[pyfunction]
#[pyo3(signature = (models, **options))]
pub fn serve(
    py: Python<'_>,
    models: &Bound<'_, PyAny>,
    options: Option<&Bound<'_, PyDict>>,
) -> PyResult<Server> {
    let mut arguments = Arguments::new("serve");
    let mut has_port = false;
    for (name, value) in options.into_iter().flatten() {
        let name = values::text("the name of an option", &name)?;
        // The key of the TOML file; the flag is repeated.
        let flag = if name == "names" { "name" } else { &name };
        let is = |known: &[&str]| known.contains(&&*name);
        has_port |= name == "port";
        if is(&FLAGS) {
            let expected = || values::wrong_type(&name, &value, "True or False");
            let is_given = value.cast::<PyBool>().map_err(|_| expected())?;
            arguments = arguments.flag(&name, is_given.is_true());
        } else if !is(&VALUES) && !is(&LISTS) {
            let why = format!("there is no option {name:?}");
            return Err(PyTypeError::new_err(why));
        } else if value.is_none() {
            continue;
        } else if is(&LISTS) && value.cast::<PyString>().is_err() {
            for item in value.try_iter()? {
                arguments = arguments.with(flag, Some(values::text(&name, &item?)?));
            }
        } else {
            arguments = arguments.with(flag, Some(value_of(&name, &value)?));
        }
    }
    if !has_port {
        arguments = arguments.with("port", Some("0"));
    }
    let is_one = models.cast::<PyString>().is_ok() || models.hasattr("__fspath__")?;
    let list = match is_one {
        true => vec![values::path("models", models)?],
        false => {
            let items = models.try_iter();
            let items = items.map_err(|_| values::wrong_type("models", models, "paths"))?;
            let paths = items.map(|item| values::path("models", &item?));
            paths.collect::<PyResult<_>>()?
        }
    };
    if list.is_empty() {
        return Err(Fault::usage("models is empty, expected at least one path").into());
    }
    let arguments = arguments.paths(list);
    let serving = py.detach(|| library::serve(&arguments.0));
    Ok(Server::new(serving.map_err(Fault::from)?))
}

/// The text of a value as a flag has it.
fn value_of(name: &str, value: &Bound<'_, PyAny>) -> PyResult<OsString> {
    if value.cast::<PyBool>().is_ok() {
        return Err(values::wrong_type(name, value, "a value"));
    }
    if let Ok(path) = values::path(name, value) {
        return Ok(path.into());
    }
    match values::json(name, value)? {
        serde_json::Value::Number(number) => Ok(number.to_string().into()),
        serde_json::Value::Array(list) if name == "key_weights" => {
            let items: Vec<String> = list.iter().map(ToString::to_string).collect();
            Ok(items.join(",").into())
        }
        _ => Err(values::wrong_type(name, value, "a text or a number")),
    }
}

/// Runs the command line with these arguments and returns its exit code.
#[pyfunction]
pub fn run(py: Python<'_>, args: Vec<OsString>) -> u8 {
    py.detach(|| sterna::run(args))
}
