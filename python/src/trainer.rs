//! `Trainer`: a run of training, with a callback.

use std::ffi::{CString, OsStr};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use pyo3::exceptions::PyUserWarning;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyMapping, PyString};
use serde_json::{Value, json};
use sterna::library;
use sterna_train::recipe::presets;
use sterna_train::{Control, Draft, Event, Run};

use crate::errors::Fault;
use crate::values;

/// A run of training.
///
/// recipe: the path of a TOML file, its text (with a line break), or a dict of its tables. May be
/// absent if `preset` names a recipe of the program.
/// out: the folder of the run. A run that was stopped goes on from its last checkpoint.
/// set: values of the recipe by their keys, like {"train.steps": 10}.
/// threads: number of threads, one number for the process; weights do not depend on it.
///
/// >>> trainer = sterna.Trainer("tiny.toml", out="run")  # doctest: +SKIP
/// >>> outcome = trainer.run(lambda step, metrics: step < 100)  # doctest: +SKIP
#[pyclass(frozen, module = "sterna")]
pub struct Trainer {
    run: Run,
    out: PathBuf,
}

/// The number of threads of the trainer, which can be chosen once.
static THREADS: Mutex<Option<usize>> = Mutex::new(None);

/// An error of the trainer.
fn fault(error: sterna_train::Error) -> Fault {
    anyhow::Error::from(error).into()
}

fn use_threads(threads: usize) -> Result<(), Fault> {
    let mut used = THREADS.lock().unwrap_or_else(PoisonError::into_inner);
    if *used != Some(threads) {
        sterna_train::use_threads(threads).map_err(fault)?;
        *used = Some(threads);
    }
    Ok(())
}

/// A recipe as a layer of a draft. Returns how errors call it.
fn add(draft: &mut Draft, recipe: &Bound<'_, PyAny>) -> PyResult<String> {
    const NAME: &str = "recipe";
    if recipe.cast::<PyMapping>().is_ok() {
        let table = toml::Value::try_from(values::json(NAME, recipe)?);
        let text = table.and_then(|table| toml::to_string(&table));
        let text = text.map_err(|error| Fault::usage(format!("{NAME}: {error}")))?;
        draft.add(&text, NAME).map_err(fault)?;
        return Ok(NAME.into());
    }
    if let Ok(text) = recipe.cast::<PyString>() {
        let text = values::text_of(NAME, text)?;
        if text.contains('\n') {
            draft.add(&text, NAME).map_err(fault)?;
            return Ok(NAME.into());
        }
    }
    let path = values::path(NAME, recipe)?;
    draft.add_file(&path).map_err(fault)?;
    Ok(path.display().to_string())
}

#[pymethods]
impl Trainer {
    #[new]
    #[pyo3(signature = (recipe=None, *, out, preset=None, set=None, threads=None))]
    fn new(
        py: Python<'_>,
        recipe: Option<&Bound<'_, PyAny>>,
        out: &Bound<'_, PyAny>,
        preset: Option<&Bound<'_, PyAny>>,
        set: Option<&Bound<'_, PyAny>>,
        threads: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Trainer> {
        let out = values::path("out", out)?;
        let mut draft = Draft::default();
        let mut origin = None;
        if let Some(preset) = preset {
            let name = values::text("preset", preset)?;
            draft = presets::draft(&name).map_err(fault)?;
            origin = Some(format!("preset {name}"));
        }
        if let Some(recipe) = recipe {
            origin = Some(add(&mut draft, recipe)?);
        }
        let Some(origin) = origin else {
            let why = "there is no recipe: give a path, a dict, or preset=";
            return Err(Fault::usage(why).into());
        };
        if let Some(set) = set {
            let Value::Object(members) = values::json("set", set)? else {
                return Err(values::wrong_type("set", set, "a dict"));
            };
            for (key, value) in members {
                let value = toml::Value::try_from(value);
                let why = |error| Fault::usage(format!("set: {key}: {error}"));
                let value = value.map_err(why)?;
                draft.set(&key, value, "set").map_err(fault)?;
            }
        }
        if let Some(threads) = threads {
            use_threads(values::count("threads", threads, (1, 1024))?)?;
        }
        let run = py.detach(|| library::open_run(draft, &origin));
        let run = run.map_err(Fault::from)?;
        Ok(Trainer { run, out })
    }

    /// The folder of the run.
    #[getter]
    fn out(&self) -> &OsStr {
        self.out.as_os_str()
    }

    /// The recipe with all defaults.
    #[getter]
    fn recipe<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let recipe = serde_json::to_value(self.run.recipe()).map_err(Fault::usage)?;
        values::python(py, &recipe)
    }

    /// Trains until the last step and writes a Hugging Face folder.
    ///
    /// callback(step, metrics) is called after each step and each evaluation. If it returns
    /// False, the run saves a checkpoint and ends; the same happens, and the exception is raised
    /// again, if it raises one or Ctrl-C is pressed.
    #[pyo3(signature = (callback=None))]
    fn run<'py>(
        &self,
        py: Python<'py>,
        callback: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        if let Some(callback) = callback.filter(|callback| !callback.is_callable()) {
            return Err(values::wrong_type("callback", callback, "a function"));
        }
        // The trainer divides a step over its own threads; those of candle would compete with them.
        let environment = py.import("os")?.getattr("environ")?;
        environment.set_item("CANDLE_NUM_THREADS", "1")?;
        let mut watch = Watch {
            callback: callback.map(|callback| callback.clone().unbind()),
            is_stopped: false,
            error: None,
        };
        let observe = |event: &Event| watch.see(event);
        let outcome = py.detach(|| library::train(&self.run, &self.out, observe));
        if let Some(error) = watch.error {
            return Err(error);
        }
        let outcome = outcome.map_err(Fault::from)?;
        let result = json!({
            "step": outcome.step,
            "held_out_loss": outcome.held_out_loss,
            "out": self.out.to_string_lossy(),
            "model": outcome.model.to_string_lossy(),
            "stopped": outcome.step < self.run.recipe().train.steps,
        });
        values::python(py, &result)
    }
}

/// What a run tells Python.
struct Watch {
    callback: Option<Py<PyAny>>,
    is_stopped: bool,
    /// What is raised when the run has saved its checkpoint.
    error: Option<PyErr>,
}

impl Watch {
    fn see(&mut self, event: &Event) -> Control {
        if self.error.is_none() {
            match Python::attach(|py| self.tell(py, event)) {
                Ok(goes_on) => self.is_stopped |= !goes_on,
                Err(error) => self.error = Some(error),
            }
        }
        match self.is_stopped || self.error.is_some() {
            true => Control::Stop,
            false => Control::Continue,
        }
    }

    /// Calls the callback, and looks for Ctrl-C. Returns whether training goes on.
    fn tell(&self, py: Python<'_>, event: &Event) -> PyResult<bool> {
        py.check_signals()?;
        let (step, metrics) = match event {
            Event::Step {
                step,
                of,
                learning_rate,
                tokens,
            } => {
                let metrics = json!({
                    "loss": of.loss,
                    "gradient_norm": of.gradient_norm,
                    "learning_rate": learning_rate,
                    "tokens": tokens,
                    "skipped": of.is_skipped,
                });
                (step, metrics)
            }
            Event::Evaluated { step, of } => {
                let metrics = json!({
                    "held_out_loss": of.loss,
                    "bits_per_byte": of.bits_per_byte,
                    "sample": of.sample,
                    "layers": of.layers,
                });
                (step, metrics)
            }
            Event::Warning(line) => return warn(py, line).map(|()| true),
            Event::Packed(packed) => {
                for line in packed.notes.warnings() {
                    warn(py, &line)?;
                }
                return Ok(true);
            }
            _ => return Ok(true),
        };
        let Some(callback) = &self.callback else {
            return Ok(true);
        };
        let result = callback
            .bind(py)
            .call1((step, values::python(py, &metrics)?))?;
        // False of Python or of numpy.
        let is_bool = result.cast::<PyBool>().is_ok() || result.hasattr("dtype")?;
        Ok(!is_bool || result.is_truthy()?)
    }
}

fn warn(py: Python<'_>, line: &str) -> PyResult<()> {
    let line = CString::new(line.replace('\0', "")).expect("it has no NUL");
    PyErr::warn(py, &py.get_type::<PyUserWarning>(), &line, 1)
}
