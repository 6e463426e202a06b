//! The losses of a run as a curve.

use std::path::Path;

use serde_json::Value;

use super::Curve;
use crate::{Error, Result};

impl Curve {
    /// The losses in `metrics.jsonl` of a run: those of steps, smoothed, as the line, those of
    /// held-out text as dots.
    ///
    /// # Errors
    /// [`Error::Metrics`].
    pub fn of_run(run: &Path) -> Result<Curve> {
        let path = run.join("metrics.jsonl");
        let refuse = |why: String| Error::Metrics {
            path: path.clone(),
            why,
        };
        let text = std::fs::read_to_string(&path).map_err(|e| refuse(e.to_string()))?;
        let name = run.file_name().unwrap_or(run.as_os_str());
        let mut curve = Curve {
            name: name.to_string_lossy().into_owned(),
            ..Curve::default()
        };
        // A run that goes on may be in the middle of its last line.
        for (i, line) in text
            .split_inclusive('\n')
            .filter(|line| line.ends_with('\n'))
            .enumerate()
        {
            let value: Value = serde_json::from_str(line).map_err(|e| {
                refuse(format!(
                    "line {}: {e}; expected the metrics of a run",
                    i + 1
                ))
            })?;
            let point = |key: &str| Some((value["step"].as_f64()?, value[key].as_f64()?));
            curve.line.extend(point("loss"));
            curve.dots.extend(point("held_out_loss"));
        }
        if curve.line.is_empty() {
            return Err(refuse("no step was taken yet".into()));
        }
        curve.smooth();
        let last = |points: &[(f64, f64)]| points.last().map(|(_, loss)| *loss);
        if let Some(loss) = last(&curve.line) {
            curve.name += &format!(": {loss:.3}");
        }
        if let Some(loss) = last(&curve.dots) {
            curve.name += &format!(", held-out {loss:.3}");
        }
        Ok(curve)
    }
}
