//! Speeds on disk: the same measurement on the same machine is read instead of repeated.

use std::io::Write;
use std::path::Path;

use sterna_runtime::{Kernels, Options};
use sterna_ternary::durable;

use super::machine::Machine;
use super::measured::{Measured, OnTest, SpeedPlan, measure};
use crate::judge::Subject;
use crate::{Error, Result, store};

/// Measures all models like [`measure`], or reads what an earlier call measured and kept in the
/// folder `state`. The name of the file is a hash of processor, plan, options and models. A file
/// that cannot be read is measured again.
///
/// # Errors
/// Those of [`measure`], and [`Error::Io`] if the file cannot be written.
pub fn measure_once(
    state: &Path,
    subjects: &[Subject],
    plan: &SpeedPlan,
    options: Options,
    on_test: &mut OnTest,
) -> Result<Option<Measured>> {
    let kernels = options.kernels.unwrap_or_else(Kernels::best).name;
    let choices = format!(
        "{:?} {:?} {:?}",
        options.threads, options.kv_type, options.memory
    );
    let cpu = Machine::detect().cpu;
    let plan_json = serde_json::to_string(plan).expect("a plan is numbers");
    let mut parts = vec![&*cpu, &plan_json, kernels, &choices];
    parts.extend(subjects.iter().map(|s| s.sha256.as_str()));
    let path = state.join(format!("{}.speeds", store::key(&parts)));
    let known = std::fs::read(&path).ok();
    if let Some(known) = known.and_then(|bytes| serde_json::from_slice(&bytes).ok()) {
        return Ok(Some(known));
    }
    let Some(measured) = measure(subjects, plan, options, on_test)? else {
        return Ok(None);
    };
    let bytes = serde_json::to_vec(&measured).expect("speeds are numbers and names");
    durable::write(&path, |w| w.write_all(&bytes)).map_err(|source| Error::Io { path, source })?;
    // The bits that a later call will read.
    Ok(Some(
        serde_json::from_slice(&bytes).expect("it was just written"),
    ))
}
