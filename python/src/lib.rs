//! The compiled part of the Python package `sterna`; `python/sterna/_sterna.pyi` is its interface.
//!
//! A [`model::Model`] has an engine, as a served model has: requests are computed together in its
//! thread, and a thread of Python waits for events without the GIL. Everything that comes from
//! Python is checked in [`values`] or by the fields of requests, so that a wrong value is an
//! exception. The names of the classes are those of Python.

mod arrays;
mod completion;
mod errors;
mod inbox;
mod model;
mod opened;
mod options;
mod requests;
mod server;
mod session;
mod shared;
mod stream;
mod tokenizer;
mod trainer;
mod values;
mod verbs;

/// The module.
#[pyo3::pymodule(gil_used = false)]
mod _sterna {
    use pyo3::prelude::*;

    #[pymodule_export]
    use crate::completion::{Completion, Score, TokenLogprob, ToolCall, Usage};
    #[pymodule_export]
    use crate::model::Model;
    #[pymodule_export]
    use crate::server::Server;
    #[pymodule_export]
    use crate::session::Session;
    #[pymodule_export]
    use crate::stream::Stream;
    #[pymodule_export]
    use crate::tokenizer::Tokenizer;
    #[pymodule_export]
    use crate::trainer::Trainer;
    #[pymodule_export]
    use crate::verbs::{convert, doctor, inspect, run, serve, verify};

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        sterna::library::silence();
        module.add("__version__", env!("CARGO_PKG_VERSION"))?;
        crate::errors::add(module)
    }
}
