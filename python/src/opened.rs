//! From the options of a model to the model with its engine.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use pyo3::prelude::*;
use sterna_runtime::{Kernels, KvType, Model, Options};
use sterna_serve::engine::Limits;
use sterna_serve::http::{BadModel, Options as ServeOptions, Served};
use sterna_serve::memory;
use sterna_ternary::{Memory, units};

use crate::errors::Fault;
use crate::shared::Shared;
use crate::values;

/// Longest time of a request: a program waits as long as it wants.
const EVER: Duration = Duration::from_secs(u32::MAX as u64);

/// Most threads, and most answers at the same time.
pub const MOST: usize = 4096;
/// Values of `kv`.
pub const KV_TYPES: [KvType; 3] = [KvType::F32, KvType::F16, KvType::Q8];
/// Values of `memory`.
pub const WAYS: [Memory; 3] = [Memory::Auto, Memory::Map, Memory::Copy];

/// Values of `kernels`.
pub fn tables() -> Vec<(&'static str, &'static Kernels)> {
    let tables = Kernels::available();
    tables.iter().map(|table| (table.name, *table)).collect()
}

/// An option that is a number from 1.
pub fn count(name: &str, value: Option<&Bound<'_, PyAny>>, most: usize) -> PyResult<Option<usize>> {
    let count = |value| values::count(name, value, (1, most));
    value.map(count).transpose()
}

/// An option that is a text.
pub fn text(name: &str, value: Option<&Bound<'_, PyAny>>) -> PyResult<Option<String>> {
    value.map(|value| values::text(name, value)).transpose()
}

/// A size in bytes.
pub fn bytes(text: String) -> Result<u64, Fault> {
    let why = || format!("kv_memory is {text:?}, expected a size like 2GiB or 500MB");
    units::parse_bytes(&text).ok_or_else(|| Fault::usage(why()))
}

/// One of the values that a name may stand for.
pub fn named<T: Copy>(name: &str, given: &str, all: &[(&str, T)]) -> Result<T, Fault> {
    let found = all.iter().find(|(known, _)| *known == given);
    found.map(|(_, value)| *value).ok_or_else(|| {
        let known: Vec<&str> = all.iter().map(|(known, _)| *known).collect();
        Fault::usage(format!(
            "{name} is {given:?}, expected {}",
            known.join(", ")
        ))
    })
}

/// Options of a model that are not checked yet.
pub struct Wanted {
    pub path: PathBuf,
    pub options: Options,
    pub context: Option<usize>,
    pub kv_memory: Option<u64>,
    pub parallel: usize,
}

impl Wanted {
    /// Packs what is not packed, maps the file and starts the engine.
    pub fn open(self) -> Result<Shared, Fault> {
        let path = sterna::library::packed(&self.path)?;
        let (model, tokenizer) = Model::open_with_tokenizer(&path, self.options)?;
        let refused = |error: &dyn std::fmt::Display| Fault::usage(error);
        let pages = memory::pages(&[&model], None, self.kv_memory, self.context)
            .map_err(|error| refused(&error))?;
        let limits = Limits {
            parallel: self.parallel,
            queue: usize::MAX / 2,
            queue_tokens: usize::MAX / 2,
            queue_timeout: EVER,
            timeout: EVER,
            ..Limits::usual(pages[0], 0)
        };
        // What the makers of the model say about sampling, as the command line takes it.
        let sampling = model.generation_config()?.sampling;
        let options = ServeOptions {
            name: "python".into(),
            context: self.context,
            limits,
            draft: None,
        };
        let served = Served::start_with(Arc::new(model), tokenizer, options);
        let mut served = served.map_err(|error| match error {
            BadModel::Runtime(error) => error.into(),
            error => Fault::usage(error),
        })?;
        served.sampling = sampling;
        Ok(Shared::new(served))
    }
}
