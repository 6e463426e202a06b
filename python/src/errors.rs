//! The exceptions of the package, and what becomes which of them.

use std::fmt::Display;

use pyo3::exceptions::{PyException, PyValueError};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyTuple, PyType};
use sterna::library::{Cause, explain};
use sterna_runtime::Error as RuntimeError;
use sterna_serve::engine::{Failure, Full};
use sterna_serve::http::ApiError;

/// The kinds of errors, in the order of [`CLASSES`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Error,
    File,
    Model,
    Usage,
    Context,
    Constraint,
    Closed,
}

/// Names and docstrings.
const CLASSES: [(Kind, &str, &str); 7] = [
    (
        Kind::Error,
        "Error",
        "The base of all errors of this package.",
    ),
    (
        Kind::File,
        "FileError",
        "A file, a folder or a name of the hub that cannot be used.",
    ),
    (
        Kind::Model,
        "ModelError",
        "The model failed: it computed a number that is not finite, or tokens without a text.",
    ),
    (
        Kind::Usage,
        "UsageError",
        "An argument with a value that it cannot have.",
    ),
    (
        Kind::Context,
        "ContextError",
        "More tokens than the context holds.",
    ),
    (
        Kind::Constraint,
        "ConstraintError",
        "A schema, a regular expression or a grammar that cannot be enforced in full.",
    ),
    (
        Kind::Closed,
        "ClosedError",
        "What is used is closed, in use by another thread, or was made before a fork.",
    ),
];

static TYPES: PyOnceLock<Vec<Py<PyType>>> = PyOnceLock::new();

fn types(py: Python<'_>) -> PyResult<&Vec<Py<PyType>>> {
    TYPES.get_or_try_init(py, || {
        let mut types: Vec<Bound<PyType>> = Vec::new();
        for (kind, name, doc) in CLASSES {
            let bases = match kind {
                Kind::Error => PyTuple::new(py, [py.get_type::<PyException>()])?,
                Kind::Usage => {
                    let value_error = py.get_type::<PyValueError>();
                    PyTuple::new(py, [&types[Kind::Error as usize], &value_error])?
                }
                Kind::Context | Kind::Constraint => {
                    PyTuple::new(py, [&types[Kind::Usage as usize]])?
                }
                _ => PyTuple::new(py, [&types[Kind::Error as usize]])?,
            };
            let members = PyDict::new(py);
            members.set_item("__module__", "sterna")?;
            members.set_item("__doc__", doc)?;
            let made = py.get_type::<PyType>().call1((name, bases, members))?;
            types.push(made.cast_into()?);
        }
        Ok(types.into_iter().map(Bound::unbind).collect())
    })
}

/// Adds the classes to the module.
pub fn add(module: &Bound<'_, PyModule>) -> PyResult<()> {
    for ((_, name, _), class) in CLASSES.iter().zip(types(module.py())?) {
        module.add(name, class)?;
    }
    Ok(())
}

/// An error that is not yet an exception.
#[derive(Debug)]
pub struct Fault {
    pub kind: Kind,
    pub message: String,
}

impl Fault {
    pub fn new(kind: Kind, message: impl Display) -> Fault {
        let message = message.to_string();
        Fault { kind, message }
    }

    pub fn usage(message: impl Display) -> Fault {
        Fault::new(Kind::Usage, message)
    }

    pub fn closed(message: impl Display) -> Fault {
        Fault::new(Kind::Closed, message)
    }

    /// A prompt of too many tokens.
    pub fn context(tokens: usize, context: usize) -> Fault {
        let message = format!(
            "there are {tokens} tokens, and the context holds {context}; give fewer, or open the \
             model with a larger context"
        );
        Fault::new(Kind::Context, message)
    }
}

impl From<Fault> for PyErr {
    fn from(fault: Fault) -> PyErr {
        Python::attach(|py| match types(py) {
            Ok(types) => {
                let class = types[fault.kind as usize].bind(py).clone();
                PyErr::from_type(class, fault.message)
            }
            Err(error) => error,
        })
    }
}

impl From<RuntimeError> for Fault {
    fn from(error: RuntimeError) -> Fault {
        use RuntimeError::*;
        let kind = match &error {
            ContextFull { .. } | ContextLength { .. } => Kind::Context,
            TokenId { .. } | NoTokens | StopText { .. } | Sampling { .. } => Kind::Usage,
            NoChatTemplate | TokenWithoutRow { .. } | Threads { .. } => Kind::Usage,
            Constraint(_) => Kind::Constraint,
            NonFinite { .. } | CacheOverflow { .. } | Encoding(_) => Kind::Model,
            _ if error.is_bad_input() => Kind::File,
            _ => Kind::Error,
        };
        Fault::new(kind, error)
    }
}

impl From<anyhow::Error> for Fault {
    fn from(error: anyhow::Error) -> Fault {
        let error = match error.downcast::<RuntimeError>() {
            Ok(error) => return error.into(),
            Err(error) => error,
        };
        let (cause, message) = explain(&error);
        let kind = match cause {
            Cause::Usage => Kind::Usage,
            Cause::BadInput => Kind::File,
            Cause::Other => Kind::Error,
        };
        Fault::new(kind, message)
    }
}

/// Fields of requests that have another name as an option, and those whose errors are of
/// constraints.
const RULES: [(&str, &str); 4] = [
    ("json_schema", "schema"),
    ("guided_choice", "choice"),
    ("regex", "regex"),
    ("grammar", "grammar"),
];

impl From<ApiError> for Fault {
    fn from(error: ApiError) -> Fault {
        let param = error.param.as_deref().unwrap_or_default();
        if let Some((field, option)) = RULES.iter().find(|(field, _)| *field == param) {
            return Fault::new(Kind::Constraint, error.message.replacen(field, option, 1));
        }
        let kind = match error.code {
            Some("context_length_exceeded") => Kind::Context,
            Some("no_chat_template") => {
                return Fault::usage(RuntimeError::NoChatTemplate);
            }
            _ if error.status.is_server_error() => Kind::Model,
            _ => Kind::Usage,
        };
        Fault::new(kind, error.message)
    }
}

impl From<Failure> for Fault {
    fn from(failure: Failure) -> Fault {
        let kind = match &failure {
            Failure::Refused(_) => Kind::Usage,
            Failure::Constraint(_) => Kind::Constraint,
            Failure::Decoding(_) | Failure::Numeric(_) => Kind::Model,
            Failure::Stopped => return Fault::closed("the model was closed"),
            _ => Kind::Error,
        };
        Fault::new(kind, failure)
    }
}

impl From<Full> for Fault {
    fn from(full: Full) -> Fault {
        Fault::new(Kind::Error, full)
    }
}
