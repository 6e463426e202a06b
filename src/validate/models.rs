//! What was named on the command line, as packed files: others are packed into a folder that vanishes.
//!
//! Nothing is rounded then, so that a folder stands for the model as it was published; what a smaller head costs is
//! measured on a file that was converted with it.

use std::path::{Path, PathBuf};

use anyhow::Context;
use sterna_convert::HeadType;
use sterna_runtime::Options;
use sterna_ternary::PackedFile;
use sterna_validate::Subject;

use crate::convert;
use crate::exit::BadInput;
use crate::locate::{Want, locate};

/// Models that are open, and the folder of those that had to be packed.
pub struct Models {
    pub subjects: Vec<Subject>,
    _packed: tempfile::TempDir,
}

impl Models {
    /// Opens packed files; packs Hugging Face folders, GGUF files, the newest model of a training run, and
    /// what the hub has under a name.
    pub fn open(given: &[PathBuf], options: Options) -> anyhow::Result<Models> {
        let folder = tempfile::tempdir().context("a temporary folder cannot be made")?;
        let mut subjects = Vec::new();
        for (i, (given, name)) in given.iter().zip(names(given)).enumerate() {
            let path = locate(given, Want::Either)?;
            let path = of_run(&path)?;
            let path = match is_packed(&path) {
                true => path,
                false => {
                    eprintln!("packing {}", path.display());
                    let out = folder.path().join(format!("{i}.sterna"));
                    convert::convert_with_head(&path, &out, HeadType::Lossless)?;
                    out
                }
            };
            subjects.push(Subject::open(&path, name, options)?);
        }
        Ok(Models {
            subjects,
            _packed: folder,
        })
    }
}

/// The model that a training run wrote last; any other path is itself.
fn of_run(path: &Path) -> anyhow::Result<PathBuf> {
    if !path.join("recipe.toml").exists() {
        return Ok(path.to_owned());
    }
    let model = path.join("model");
    match model.join("config.json").exists() {
        true => Ok(model),
        false => {
            let why = format!(
                "{}: a training run without a model yet; expected the folder `model`, which `sterna train` \
                 writes at its end",
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
