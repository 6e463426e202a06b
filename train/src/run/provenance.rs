//! `run.json`: the inputs and the circumstances of a run, so that its folder can be understood
//! years later.
//!
//! It holds the values of the recipe and their origins, hashes of the data and of the weights, and
//! one entry per start of the run.

use std::io::Write;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value, json};
use sterna_datasets::Sources;
use sterna_ternary::{durable, sha256};

use super::opened::Run;
use super::{data, sources};
use crate::teacher::weights_sum;
use crate::{Error, NUMERICS, Recipe, Result, Trainer};

/// Adds an entry for this process to `run.json` in the folder of a run. The first entry creates the
/// file.
///
/// # Errors
/// [`Error::Recipe`] for a file that is not JSON, and [`Error::Io`].
pub fn record(run: &Run, folder: &Path, trainer: &Trainer) -> Result<()> {
    let recipe = run.recipe();
    let path = folder.join("run.json");
    let mut record = match std::fs::read(&path) {
        Ok(bytes) => serde_json::from_slice(&bytes).map_err(|e| Error::Recipe {
            path: path.clone(),
            why: format!("{e}; remove the file, it is only a record"),
        })?,
        Err(_) => json!({
            "seed": recipe.train.seed,
            "data": hashes(recipe, folder)?,
            "weights": weights(trainer)?,
            "values": run.values(),
            "sessions": [],
        }),
    };
    if let Some(sessions) = record["sessions"].as_array_mut() {
        sessions.push(session(trainer.step, trainer.ranks.size()));
    }
    let text = format!("{record:#}\n");
    durable::write(&path, |w| w.write_all(text.as_bytes())).map_err(Error::io(&path))
}

/// SHA-256 of the weights that the run began with, new ones or those of `model.from`, and of the
/// weights of its teacher.
fn weights(trainer: &Trainer) -> Result<Value> {
    let began = match trainer.step {
        0 => Some(weights_sum(&trainer.model)?),
        _ => None, // the file was removed after the first step
    };
    let teacher = trainer.teacher.as_ref();
    Ok(json!({"began": began, "teacher": teacher.map(|teacher| &teacher.sum)}))
}

/// SHA-256 of the files that the run reads, by path; files in folders are left out.
fn hashes(recipe: &Recipe, folder: &Path) -> Result<Value> {
    let data = folder.join("data");
    let mut sums = Map::new();
    for path in data::files(recipe, &data) {
        let sum = sha256::of_file(&path).map_err(Error::io(&path))?;
        sums.insert(path.display().to_string(), sum.into());
    }
    let sources = sources::recorded(&data)?;
    for file in sources.iter().flat_map(Sources::files) {
        if recipe.data_paths().any(|path| path == file.path) {
            sums.insert(file.path.display().to_string(), file.sha256.clone().into());
        }
    }
    Ok(sums.into())
}

fn session(step: u64, ranks: usize) -> Value {
    let started = SystemTime::now().duration_since(UNIX_EPOCH);
    json!({
        "from_step": step,
        "started_unix": started.map_or(0, |time| time.as_secs()),
        "sterna": env!("CARGO_PKG_VERSION"),
        "numerics": NUMERICS,
        "cpu": cpu(),
        "ranks": ranks,
        "threads": rayon::current_num_threads(),
        "system": format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
    })
}

/// The name of the processor if the system reports it, its architecture if not.
fn cpu() -> String {
    sterna_ternary::system::cpu_name().unwrap_or_else(|| std::env::consts::ARCH.to_owned())
}
