//! The folder of a training run, used as a model.
//!
//! `sterna train` writes `model/` at the end or when it stops, and `checkpoints/` during training.
//! `sterna quickstart` packs `model/` as `model.sterna`. The modification times of the files show
//! which is the newest.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use sterna_ternary::durable;
use sterna_ternary::sha256::{Digest, Sha256, hex};
use sterna_ternary::temporary::Listed;

use crate::Error;
use crate::stamp::Stamp;

/// The folder of a training run.
#[derive(Debug, Clone)]
pub struct RunFolder(PathBuf);

const DIGITS: usize = 16;

impl RunFolder {
    /// Opens a folder as a run. `None` if it is not the folder of a run.
    pub fn open(path: &Path) -> Option<RunFolder> {
        let path = std::path::absolute(path).ok()?;
        path.join("recipe.toml")
            .is_file()
            .then_some(RunFolder(path))
    }

    /// `model/`, if no checkpoint is newer.
    pub fn model(&self) -> Option<PathBuf> {
        let model = self.0.join("model");
        let written = changed(&model.join("config.json"))?;
        let is_newest = Some(written) >= changed(&self.0.join("checkpoints"));
        is_newest.then_some(model)
    }

    /// `model.sterna`, if no file of [`RunFolder::model`] is newer.
    pub fn packed(&self) -> Option<PathBuf> {
        let packed = self.0.join("model.sterna");
        let written = changed(&packed)?;
        let files = self.model()?.read_dir().ok()?.flatten();
        let newest = files.filter_map(|file| changed(&file.path())).max();
        (newest <= Some(written)).then_some(packed)
    }

    /// Returns the newest checkpoint as a Hugging Face folder, and its step. If it was not exported
    /// before, `export` writes it and returns the step. Exports of older checkpoints are removed.
    ///
    /// # Errors
    /// Errors of `export`, and [`sterna_ternary::Error::Output`] if none of `folders` is writable.
    pub fn exported<E: From<Error>>(
        &self,
        folders: &[PathBuf],
        export: impl FnOnce(&Path) -> std::result::Result<u64, E>,
    ) -> std::result::Result<(PathBuf, u64), E> {
        let digits = self.checkpoints_hash();
        for folder in folders {
            if let Some(found) = exports(folder, &self.0).find(|e| e.digits == digits) {
                return Ok((found.path, found.step));
            }
        }
        let writable = folders.iter().find(|f| check_writable(f).is_ok());
        let folder = writable.ok_or_else(|| {
            Error::from(sterna_ternary::Error::Output {
                path: self.0.clone(),
                why: "cannot export the newest checkpoint: no folder of the cache is writable"
                    .into(),
            })
        })?;
        let unfinished = tempfile::Builder::new()
            .prefix(".unfinished-")
            .tempdir_in(folder)
            .map_err(Error::io(folder))?;
        let _listed = Listed::new(unfinished.path());
        let step = export(unfinished.path())?;
        for old in exports(folder, &self.0) {
            std::fs::remove_dir_all(&old.path).map_err(Error::io(&old.path))?;
        }
        let path = folder.join(format!("{}{step}-{digits}", prefix(&self.0)));
        match durable::rename(unfinished.path(), &path) {
            Ok(()) => drop(unfinished.keep()),
            Err(_) if path.join("config.json").is_file() => {} // another process was faster
            Err(e) => return Err(Error::io(&path)(e).into()),
        }
        durable::sync_folder(folder).map_err(Error::io(folder))?;
        Ok((path, step))
    }

    /// Hash of the names and stamps of all checkpoints, as 16 digits.
    fn checkpoints_hash(&self) -> String {
        let entries = self.0.join("checkpoints").read_dir();
        let entries = entries.into_iter().flatten().flatten();
        let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
        paths.sort();
        let mut sum = Sha256::new();
        for path in paths {
            sum.update(format!("{} {:?}\n", path.display(), Stamp::of(&path)));
        }
        hex(&sum.finalize())[..DIGITS].to_owned()
    }
}

/// An exported checkpoint.
struct Export {
    path: PathBuf,
    step: u64,
    digits: String,
}

/// Name of a run and a hash of its path, because runs with the same name may share the user's cache
/// folder.
fn prefix(run: &Path) -> String {
    let name = run.file_name().unwrap_or_default().to_string_lossy();
    let digits = hex(&Sha256::digest(run.display().to_string()));
    format!("{name}-{}-step-", &digits[..DIGITS])
}

fn exports(folder: &Path, run: &Path) -> impl Iterator<Item = Export> {
    let prefix = prefix(run);
    let entries = folder.read_dir().into_iter().flatten().flatten();
    entries.filter_map(move |entry| {
        let path = entry.path();
        let name = path.file_name()?.to_str()?.to_owned();
        let (step, digits) = name.strip_prefix(&prefix)?.split_once('-')?;
        let is_export = digits.len() == DIGITS && path.is_dir();
        Some(Export {
            step: step.parse().ok().filter(|_| is_export)?,
            digits: digits.to_owned(),
            path,
        })
    })
}

/// Time of the last write of a file, or of the last change of a folder's entries.
fn changed(path: &Path) -> Option<SystemTime> {
    path.metadata().ok()?.modified().ok()
}

/// Creates a folder if necessary, and tries to create a file in it.
pub(crate) fn check_writable(folder: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(folder)?;
    tempfile::tempfile_in(folder).map(drop)
}
