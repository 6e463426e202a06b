//! `metrics.jsonl`: one line per step and one per evaluation, with the same bytes whether or not
//! the run was interrupted.
//!
//! So no value in it comes from a clock. Lines after the checkpoint that a run resumes from are
//! removed and written again.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use serde_json::Value;
use sterna_ternary::durable;

use crate::{Error, Result};

/// The file, open at its end; none on ranks that do not write files.
pub struct Metrics {
    path: PathBuf,
    out: Option<BufWriter<File>>,
}

impl Metrics {
    /// Opens or creates the file and removes all lines after this step.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn open(path: &Path, step: u64) -> Result<Metrics> {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(e) => return Err(Error::io(path)(e)),
        };
        let done = |line: &&str| {
            let line: Option<Value> = serde_json::from_str(line).ok();
            line.is_some_and(|line| line["step"].as_u64().is_some_and(|s| s <= step))
        };
        let kept: String = text
            .lines()
            .filter(done)
            .flat_map(|line| [line, "\n"])
            .collect();
        durable::write(path, |w| w.write_all(kept.as_bytes())).map_err(Error::io(path))?;
        let file = File::options()
            .append(true)
            .open(path)
            .map_err(Error::io(path))?;
        Ok(Metrics {
            path: path.to_owned(),
            out: Some(BufWriter::new(file)),
        })
    }

    /// Discards all lines, for ranks that do not write files.
    pub fn discarded() -> Metrics {
        Metrics {
            path: PathBuf::new(),
            out: None,
        }
    }

    /// Adds a line.
    pub fn push(&mut self, line: Value) -> Result<()> {
        match &mut self.out {
            Some(out) => writeln!(out, "{line}").map_err(Error::io(&self.path)),
            None => Ok(()),
        }
    }

    /// Writes all lines to the disk, so no checkpoint is newer than its metrics.
    pub fn sync(&mut self) -> Result<()> {
        let Some(out) = &mut self.out else {
            return Ok(());
        };
        let synced = out.flush().and_then(|()| out.get_ref().sync_data());
        synced.map_err(Error::io(&self.path))
    }
}
