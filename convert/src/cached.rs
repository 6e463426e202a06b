//! A cache of packed files made from models in other formats.
//!
//! [`PackCache`] packs a Hugging Face folder, a GGUF file or the model of a training run as
//! `NAME-KEY.sterna`, with the proof of every conversion. The file is written to the folder
//! `.sterna` next to the model or, if that is not writable, to a folder of the user. KEY is a hash
//! of the version of this crate, the options and the content of every input file. A file with that
//! name therefore never comes from an older source.
//!
//! Hashing gigabytes at each start would be slow. A record next to the packed file therefore
//! stores, for each input file, its device, inode, size, and the times of its last write (mtime)
//! and last change (ctime). Unix sets the ctime at each write, and programs cannot set it back. The
//! recorded key is valid while all of these are unchanged. A record is not trusted if an input
//! changed less than two seconds before it was hashed, because a later change could have the same
//! time. Other systems have no ctime; there the content is hashed each time.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use sterna_ternary::sha256::{self, Digest, Sha256, hex};
use sterna_ternary::{Output, durable};

use crate::run_folder::{RunFolder, check_writable};
use crate::stamp::Stamp;
use crate::{ConversionReport, Error, PackedOptions, Result, is_gguf, open, write_packed};

/// Name of the cache folder next to a model.
const BESIDE: &str = ".sterna";
/// The coarsest resolution of file times that is expected.
const FINEST: Duration = Duration::from_secs(2);

/// A packed file in the cache.
#[derive(Debug)]
pub struct Cached {
    /// The packed file.
    pub path: PathBuf,
    /// The report of the conversion, if the file was packed in this call.
    pub report: Option<ConversionReport>,
}

/// Locations of packed files.
#[derive(Debug, Clone)]
pub struct PackCache {
    /// Whether the folder `.sterna` next to a model may be used.
    pub beside: bool,
    /// Folder to use if the one next to the model is not available.
    pub user: Option<PathBuf>,
}

/// A checkpoint, and the training step if it was exported from an unfinished run.
#[derive(Debug)]
pub struct LocatedCheckpoint {
    /// The Hugging Face folder, or the path that was given.
    pub path: PathBuf,
    /// Step of the exported checkpoint. None if the run has finished.
    pub step: Option<u64>,
}

impl PackCache {
    /// Returns a packed file of any model: the path itself, an up-to-date `model.sterna` of a run,
    /// or a file of the cache.
    ///
    /// `export` writes the newest checkpoint of a run into a folder and returns its step.
    /// `progress` is called as in [`crate::convert`].
    ///
    /// # Errors
    /// Errors of `export` and of [`PackCache::cached`].
    pub fn packed<E: From<Error>>(
        &self,
        model: &Path,
        options: &PackedOptions,
        export: impl FnOnce(&Path, &Path) -> std::result::Result<u64, E>,
        progress: &mut dyn FnMut(u64, u64),
    ) -> std::result::Result<Cached, E> {
        let found = |path| Cached { path, report: None };
        if !model.is_dir() && !is_gguf(model)? {
            return Ok(found(model.to_owned()));
        }
        if let Some(path) = RunFolder::open(model).and_then(|run| run.packed()) {
            return Ok(found(path));
        }
        let checkpoint = self.checkpoint(model, export)?;
        Ok(self.cached(&checkpoint.path, options, progress)?)
    }

    /// Returns the model of a run as a Hugging Face folder, which `export` writes if the run has
    /// not finished. Any other path is returned unchanged.
    ///
    /// # Errors
    /// Errors of `export`, and [`sterna_ternary::Error::Output`] if no folder of the cache is
    /// writable.
    pub fn checkpoint<E: From<Error>>(
        &self,
        model: &Path,
        export: impl FnOnce(&Path, &Path) -> std::result::Result<u64, E>,
    ) -> std::result::Result<LocatedCheckpoint, E> {
        let found = |path| LocatedCheckpoint { path, step: None };
        let Some(run) = RunFolder::open(model) else {
            return Ok(found(model.to_owned()));
        };
        if let Some(path) = run.model() {
            return Ok(found(path));
        }
        let folders = self.folders(&model.join("model"));
        let (path, step) = run.exported(&folders, |out| export(model, out))?;
        let step = Some(step);
        Ok(LocatedCheckpoint { path, step })
    }

    /// Returns a packed file of a checkpoint from the cache, or packs it into the first writable
    /// folder. If several processes ask at the same time, one packs and the others wait.
    ///
    /// # Errors
    /// Errors of [`crate::convert`], and [`sterna_ternary::Error::Output`] if no folder of the
    /// cache is writable.
    pub fn cached(
        &self,
        checkpoint: &Path,
        options: &PackedOptions,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Cached> {
        let source = std::path::absolute(checkpoint).map_err(Error::io(checkpoint))?;
        let folders = self.folders(&source);
        let places = || {
            folders
                .iter()
                .map(|f| CacheFolder::new(f, &source, options))
        };
        if let Some(path) = places().find_map(|place| place.known()) {
            return Ok(Cached { path, report: None });
        }
        let mut refused = Vec::new();
        for place in places() {
            match check_writable(place.folder) {
                Ok(()) => return place.packed(progress),
                Err(e) => refused.push(format!("{}: {e}", place.folder.display())),
            }
        }
        let refused = refused.join(", ");
        Err(Error::from(sterna_ternary::Error::Output {
            path: source,
            why: format!(
                "its packed file cannot be written ({refused}); choose a place with \
                 `sterna convert --out FILE`"
            ),
        }))
    }

    /// The cache folders for a model, in order of preference.
    fn folders(&self, model: &Path) -> Vec<PathBuf> {
        let parent = durable::folder_of(model);
        let is_cache = parent.ends_with(BESIDE) || self.user.as_deref() == Some(parent);
        let beside = match is_cache {
            true => parent.to_owned(), // of an exported checkpoint
            false => parent.join(BESIDE),
        };
        let beside = self.beside.then_some(beside);
        beside.into_iter().chain(self.user.clone()).collect()
    }
}

/// The key of a packed file, and the state of the input files when it was made.
#[derive(Serialize, Deserialize, PartialEq)]
struct Record {
    source: PathBuf,
    options: String,
    packer: String,
    key: String,
    /// Time just before the content was hashed.
    hashed_at: Duration,
    /// Includes absent files, because they would be read if they existed.
    files: Vec<(PathBuf, Option<Stamp>)>,
}

impl Record {
    /// Whether the key is still valid: all inputs are unchanged, and none changed shortly before it
    /// was hashed.
    fn holds(&self) -> bool {
        self.files.iter().all(|(path, stamp)| {
            let changed = stamp.as_ref().map_or(Duration::ZERO, |s| s.changed);
            changed.saturating_add(FINEST) < self.hashed_at && *stamp == Stamp::of(path)
        })
    }
}

/// A cache folder for one source and one set of options.
struct CacheFolder<'a> {
    folder: &'a Path,
    source: &'a Path,
    options: &'a PackedOptions,
    /// The options as text, part of the key.
    described: String,
}

impl<'a> CacheFolder<'a> {
    fn new(folder: &'a Path, source: &'a Path, options: &'a PackedOptions) -> CacheFolder<'a> {
        let activations = options.activations.map_or("default", |a| a.name());
        let described = format!(
            "packing {} tables {} activations {activations} allow_missing {}",
            options.packing.name(),
            options.head.name(),
            options.allow_missing
        );
        CacheFolder {
            folder,
            source,
            options,
            described,
        }
    }

    /// The path `NAME-DIGITS.ENDING`.
    fn file(&self, digits: &str, ending: &str) -> PathBuf {
        let name = match self.source.is_dir() {
            true => self.source.file_name(),
            false => self.source.file_stem(),
        };
        let name = name.unwrap_or_default().to_string_lossy();
        self.folder.join(format!("{name}-{digits}.{ending}"))
    }

    /// The path of the record or the lock for this source and these options.
    fn own(&self, ending: &str) -> PathBuf {
        let text = format!("{}\0{}", self.source.display(), self.described);
        self.file(&hex(&Sha256::digest(text))[..16], ending)
    }

    fn record(&self) -> Option<Record> {
        let json = std::fs::read(self.own("json")).ok()?;
        let record: Record = serde_json::from_slice(&json).ok()?;
        let is_ours = record.source == self.source && record.options == self.described;
        is_ours.then_some(record)
    }

    /// The packed file, if the record proves that it belongs to the current source.
    fn known(&self) -> Option<PathBuf> {
        let record = self.record().filter(Record::holds)?;
        if record.packer != packer() {
            return None;
        }
        Some(self.file(&record.key, "sterna")).filter(|path| path.is_file())
    }

    fn packed(&self, progress: &mut dyn FnMut(u64, u64)) -> Result<Cached> {
        let lock = self.own("lock");
        let file = File::create(&lock).map_err(Error::io(&lock))?;
        // On a file system without locks, several processes may pack the same file. Each result is
        // complete.
        let _ = file.lock();
        if let Some(path) = self.known() {
            return Ok(Cached { path, report: None });
        }
        let inputs = inputs(self.source, self.options.allow_missing)?;
        let stamps = || -> Vec<_> { inputs.iter().map(|path| Stamp::of(path)).collect() };
        let before = stamps();
        let hashed_at = SystemTime::now().duration_since(UNIX_EPOCH);
        let key = self.key(&inputs)?;
        let path = self.file(&key, "sterna");
        let mut report = None;
        if !path.is_file() {
            // Open the source again, so that the packed data is not older than the hashed data.
            let source = open(self.source, self.options.allow_missing)?;
            let out = Output::new(&path)?;
            report = Some(write_packed(&*source, &out, self.options, progress)?);
        }
        if stamps() != before {
            if report.is_some() {
                std::fs::remove_file(&path).map_err(Error::io(&path))?;
            }
            return Err(Error::Input {
                path: self.source.to_owned(),
                why: "changed while it was packed; try again when it is complete".into(),
            });
        }
        self.replace(&Record {
            source: self.source.to_owned(),
            options: self.described.clone(),
            packer: packer(),
            key,
            hashed_at: hashed_at.unwrap_or_default(),
            files: inputs.into_iter().zip(before).collect(),
        })?;
        Ok(Cached { path, report })
    }

    /// Hash of everything that determines the bytes of the packed file.
    fn key(&self, inputs: &[PathBuf]) -> Result<String> {
        let mut sum = Sha256::new();
        sum.update(format!("{}\0{}", packer(), self.described));
        for path in inputs.iter().filter(|path| path.exists()) {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            sum.update(format!(
                "\0{name}\0{}",
                sha256::of_file(path).map_err(Error::io(path))?
            ));
        }
        Ok(hex(&sum.finalize())[..32].to_owned())
    }

    /// Writes the record. Removes the previous packed file if no other record names it.
    fn replace(&self, record: &Record) -> Result<()> {
        let old = self.record().filter(|old| old.key != record.key);
        let path = self.own("json");
        let write = |w: &mut std::io::BufWriter<File>| Ok(serde_json::to_writer_pretty(w, record)?);
        durable::write(&path, write).map_err(Error::io(&path))?;
        let Some(old) = old else { return Ok(()) };
        let entries = self.folder.read_dir().map_err(Error::io(self.folder))?;
        let records = entries.flatten().map(|entry| entry.path());
        let mut records = records.filter(|path| path.extension().is_some_and(|e| e == "json"));
        let names =
            |path: PathBuf| std::fs::read_to_string(path).is_ok_and(|r| r.contains(&old.key));
        if !records.any(names) {
            // Removal can fail, for example on Windows while the file is in use. It then only takes
            // space.
            let _ = std::fs::remove_file(self.file(&old.key, "sterna"));
        }
        Ok(())
    }
}

/// Identifies the packing code: the version and, in development, the build.
fn packer() -> String {
    let version = env!("CARGO_PKG_VERSION");
    let build = std::env::current_exe()
        .ok()
        .filter(|_| cfg!(debug_assertions));
    match build.and_then(|path| Stamp::of(&path)) {
        Some(build) => format!("{version} {build:?}"),
        None => version.to_owned(),
    }
}

/// All files of a checkpoint, whether they exist or not.
fn inputs(source: &Path, allow_missing: bool) -> Result<Vec<PathBuf>> {
    let mut inputs = open(source, allow_missing)?.inputs();
    inputs.sort();
    inputs.dedup();
    Ok(inputs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(unix)]
    fn a_record_holds_until_an_input_changes() {
        let folder = tempfile::tempdir().unwrap();
        let (there, absent) = (folder.path().join("a"), folder.path().join("b"));
        std::fs::write(&there, "1").unwrap();
        let changed = Stamp::of(&there).unwrap().changed;
        let record = |hashed_at| Record {
            source: PathBuf::new(),
            options: String::new(),
            packer: String::new(),
            key: String::new(),
            hashed_at,
            files: [&there, &absent]
                .map(|path| (path.clone(), Stamp::of(path)))
                .into(),
        };
        let soon = record(changed + Duration::from_millis(1500));
        assert!(
            !soon.holds(),
            "a change in the same two seconds may have the same time"
        );
        let later = record(changed + Duration::from_secs(3));
        assert!(later.holds());
        std::fs::write(&absent, "new").unwrap();
        assert!(!later.holds(), "a file that was absent is there");
        std::fs::remove_file(&absent).unwrap();
        assert!(later.holds());
        // Same size and same mtime, but another ctime.
        let modified = there.metadata().unwrap().modified().unwrap();
        std::fs::write(&there, "2").unwrap();
        File::options()
            .write(true)
            .open(&there)
            .unwrap()
            .set_modified(modified)
            .unwrap();
        assert!(!later.holds());
    }
}
