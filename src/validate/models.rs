//! What was named on the command line, as packed files: others are packed into a folder that vanishes.
//!
//! A run that is not at its end is exported from its newest checkpoint first. Nothing is rounded then, so that a folder
//! stands for the model as it was published; what a smaller head costs is measured on a file that was converted with it.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::Context;
use sterna_convert::HeadType;
use sterna_runtime::Options;
use sterna_ternary::{Dense, LinearType, PackedFile, Packing};
use sterna_train::{Origins, Recipe};
use sterna_validate::Subject;

use crate::convert;
use crate::exit::BadInput;
use crate::locate::{Want, locate};
use crate::train::start;

/// Models that are open, and the folder of those that had to be packed.
pub struct Models {
    pub subjects: Vec<Subject>,
    /// What each of them was made of, as it was given.
    pub given: Vec<PathBuf>,
    packed: tempfile::TempDir,
    options: Options,
}

impl Models {
    /// Opens packed files; packs Hugging Face folders, GGUF files, the newest model of a training run, and
    /// what the hub has under a name. With `has_masters`, the master weights of the first one come in front.
    pub fn open(given: &[PathBuf], has_masters: bool, options: Options) -> anyhow::Result<Models> {
        let mut models = Models {
            subjects: Vec::new(),
            given: Vec::new(),
            packed: tempfile::tempdir().context("a temporary folder cannot be made")?,
            options,
        };
        for (given, name) in given.iter().zip(names(given)) {
            let path = models.of_run(&locate(given, Want::Either)?)?;
            if has_masters && models.subjects.is_empty() {
                check_masters(&path)?;
                let masters = models.pack(&path, Dense::F16.into(), HeadType::Lossless)?;
                models.push(given, &masters, format!("{name} masters"))?;
            }
            let path = match is_packed(&path) {
                true => path,
                false => models.pack(&path, Packing::I2.into(), HeadType::Lossless)?,
            };
            models.push(given, &path, name)?;
        }
        Ok(models)
    }

    fn push(&mut self, given: &Path, path: &Path, name: String) -> anyhow::Result<()> {
        self.subjects.push(Subject::open(path, name, self.options)?);
        self.given.push(given.to_owned());
        Ok(())
    }

    /// A path in the folder that vanishes.
    fn free(&self, ending: &str) -> PathBuf {
        self.packed
            .path()
            .join(format!("{}.{ending}", self.subjects.len()))
    }

    fn pack(&self, path: &Path, packing: LinearType, head: HeadType) -> anyhow::Result<PathBuf> {
        eprintln!("packing {} ({})", path.display(), packing.name());
        let out = self.free("sterna");
        convert::convert_to(path, &out, packing, head)?;
        Ok(out)
    }

    /// The model of a training run: the one that it wrote when it ended, or that of its newest checkpoint if it went on
    /// since or never ended. Any other path is itself.
    fn of_run(&self, path: &Path) -> anyhow::Result<PathBuf> {
        let (recipe, model) = (path.join("recipe.toml"), path.join("model"));
        if !recipe.exists() {
            return Ok(path.to_owned());
        }
        let written = changed(&model.join("config.json"));
        if written.is_some() && written >= changed(&path.join("checkpoints")) {
            return Ok(model);
        }
        // As it stands, since the checkpoints carry its hash: paths are those of the place where it was trained.
        let text = std::fs::read_to_string(&recipe)
            .with_context(|| format!("cannot read {}", recipe.display()))?;
        let recipe = Recipe::parse(&text, &recipe)?;
        let run = start::open(recipe, Origins::default())?;
        let out = self.free("run");
        let step = sterna_train::export_newest(&run, path, &out)?;
        eprintln!(
            "{}: not at its end; its checkpoint of step {step} is taken",
            path.display()
        );
        Ok(out)
    }
}

/// When a file was written, or a file was added to a folder; `None` where there is none.
fn changed(path: &Path) -> Option<SystemTime> {
    path.metadata().ok()?.modified().ok()
}

/// Refuses what has no master weights.
fn check_masters(path: &Path) -> anyhow::Result<()> {
    let source = sterna_convert::open(path, false)?;
    match source.has_masters() {
        true => Ok(()),
        false => {
            let why = format!(
                "--masters: {}: expected master weights, which are in the folder of a training run, or a Hugging Face \
                 folder with `quantization_mode` online; give one of these as the first MODEL",
                path.display()
            );
            Err(BadInput(why).into())
        }
    }
}

/// Whether it need not be packed: a file that is no GGUF.
fn is_packed(path: &Path) -> bool {
    let is_gguf = path
        .extension()
        .is_some_and(|e| e.eq_ignore_ascii_case("gguf"));
    !path.is_dir() && !is_gguf || PackedFile::open(path).is_ok()
}

/// Names for the report: the last part of each path, with a number where two would be alike.
fn names(given: &[PathBuf]) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for path in given {
        let stem = match path.is_dir() {
            true => path.file_name(),
            false => path.file_stem(),
        };
        let stem = stem
            .unwrap_or(path.as_os_str())
            .to_string_lossy()
            .into_owned();
        let numbered = (2..).map(|i| format!("{stem} ({i})"));
        let mut candidates = std::iter::once(stem.clone()).chain(numbered);
        let free = candidates.find(|name| !names.contains(name));
        names.push(free.expect("numbers do not end"));
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_short_and_different() {
        let given = ["a/model.sterna", "b/model.sterna", "org/name"].map(PathBuf::from);
        assert_eq!(names(&given), ["model", "model (2)", "name"]);
    }
}
