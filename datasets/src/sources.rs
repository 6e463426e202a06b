//! The files that a run reads, as they were when it began: sizes, times and hashes.
//!
//! A file whose size and time are unchanged is taken for unchanged. One of the same size and
//! another time is hashed, since copies and checkouts change times.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use sterna_ternary::sha256;

use crate::{Error, Result, files};

/// The files of some paths at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sources(Vec<SourceFile>);

/// A file as it was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceFile {
    /// Where it is.
    pub path: PathBuf,
    /// Its size.
    pub bytes: u64,
    /// Nanoseconds from 1970 to its last change; 0 if the system does not report it.
    pub modified: u64,
    /// SHA-256 of its contents.
    pub sha256: String,
}

impl Sources {
    /// Hashes the files of texts, and those of records.
    pub fn read(texts: &[PathBuf], records: &[PathBuf]) -> Result<Sources> {
        let paths = paths(texts, records)?;
        paths
            .into_iter()
            .map(SourceFile::read)
            .collect::<Result<_>>()
            .map(Sources)
    }

    /// The files, in the order in which they are read.
    pub fn files(&self) -> &[SourceFile] {
        &self.0
    }

    /// What is different now, one line a file.
    ///
    /// # Errors
    /// Those of reading a file whose time is another one.
    pub fn changes(&self, texts: &[PathBuf], records: &[PathBuf]) -> Result<Vec<String>> {
        let mut changes = Vec::new();
        for before in &self.0 {
            if let Some(change) = before.change()? {
                changes.push(format!("{} {change}", before.path.display()));
            }
        }
        // A folder may have more files than before; a path that is gone was told above.
        let before: Vec<&Path> = self.0.iter().map(|file| &*file.path).collect();
        let is_there = |path: &&PathBuf| path.exists();
        let [texts, records] =
            [texts, records].map(|of| of.iter().filter(is_there).cloned().collect::<Vec<_>>());
        let now = paths(&texts, &records).unwrap_or_default(); // an emptied folder
        let new = now.iter().filter(|path| !before.contains(&&***path));
        changes.extend(new.map(|path| format!("{} is new", path.display())));
        Ok(changes)
    }

    /// The first file that the other sources have with other contents, or do not have; `None` if
    /// both have the same contents in the same order, be it elsewhere.
    pub fn differs<'a>(&'a self, other: &'a Sources) -> Option<&'a Path> {
        let pairs = self.0.iter().zip(&other.0);
        let mut different = pairs.filter(|(a, b)| a.sha256 != b.sha256);
        let shorter = self.0.len().min(other.0.len());
        let more = || self.0.get(shorter).or(other.0.get(shorter));
        different
            .next()
            .map(|(_, b)| b)
            .or_else(more)
            .map(|file| &*file.path)
    }
}

/// The files of texts and of records.
fn paths(texts: &[PathBuf], records: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let found = [files::files(texts)?, files::record_files(records)?];
    let files = found.into_iter().flat_map(|found| found.files);
    Ok(files.map(|(path, _)| path).collect())
}

impl SourceFile {
    fn read(path: PathBuf) -> Result<SourceFile> {
        let (bytes, modified) = state(&path).map_err(Error::io(&path, "read"))?;
        let sha256 = sha256::of_file(&path).map_err(Error::io(&path, "read"))?;
        Ok(SourceFile {
            path,
            bytes,
            modified,
            sha256,
        })
    }

    /// What is different now, in words.
    fn change(&self) -> Result<Option<String>> {
        let (bytes, modified) = match state(&self.path) {
            Ok(state) => state,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Ok(Some("is not there".into()));
            }
            Err(error) => return Err(Error::io(&self.path, "read")(error)),
        };
        if bytes != self.bytes {
            return Ok(Some(format!("had {} bytes and has {bytes}", self.bytes)));
        }
        if modified == self.modified && modified != 0 {
            return Ok(None);
        }
        let sum = sha256::of_file(&self.path).map_err(Error::io(&self.path, "read"))?;
        Ok((sum != self.sha256).then(|| format!("has other contents of {bytes} bytes")))
    }
}

/// Size and time of the last change.
fn state(path: &Path) -> std::io::Result<(u64, u64)> {
    let metadata = fs::metadata(path)?;
    let modified = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
    let since = modified.duration_since(UNIX_EPOCH).unwrap_or_default();
    Ok((metadata.len(), since.as_nanos() as u64))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn changes_are_told_and_copies_are_no_changes() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let write = |name: &str, text: &str| fs::write(at(name), text).unwrap();
        let age = |name: &str, seconds: u64| {
            let file = fs::File::options().write(true).open(at(name)).unwrap();
            file.set_modified(UNIX_EPOCH + Duration::from_secs(seconds))
                .unwrap();
        };
        fs::create_dir(at("texts")).unwrap();
        for name in ["texts/a.txt", "texts/b.txt", "texts/c.txt", "d.jsonl"] {
            write(name, "one");
            age(name, 1);
        }
        let (texts, records) = ([at("texts")], [at("d.jsonl")]);
        let before = Sources::read(&texts, &records).unwrap();
        let changes = || before.changes(&texts, &records).unwrap();
        assert_eq!(changes(), [""; 0]);
        age("texts/a.txt", 2); // another time alone
        assert_eq!(changes(), [""; 0]);
        write("texts/a.txt", "two");
        age("texts/a.txt", 2);
        write("texts/b.txt", "longer");
        fs::remove_file(at("texts/c.txt")).unwrap();
        write("texts/e.txt", "one");
        fs::remove_file(at("d.jsonl")).unwrap();
        let expected = [
            ("texts/a.txt", "has other contents of 3 bytes"),
            ("texts/b.txt", "had 3 bytes and has 6"),
            ("texts/c.txt", "is not there"),
            ("d.jsonl", "is not there"),
            ("texts/e.txt", "is new"),
        ];
        let told = expected.map(|(name, change)| format!("{} {change}", at(name).display()));
        assert_eq!(changes(), told);
    }

    #[test]
    fn the_same_contents_elsewhere_do_not_differ() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let of = |names: &[&str]| {
            let paths: Vec<PathBuf> = names.iter().map(|name| at(name)).collect();
            Sources::read(&paths, &[]).unwrap()
        };
        for (name, text) in [("a.txt", "one"), ("b.txt", "one"), ("c.txt", "two")] {
            fs::write(at(name), text).unwrap();
        }
        assert_eq!(of(&["a.txt"]).differs(&of(&["b.txt"])), None);
        assert_eq!(of(&["a.txt"]).differs(&of(&["c.txt"])), Some(&*at("c.txt")));
        assert_eq!(
            of(&["a.txt"]).differs(&of(&["a.txt", "c.txt"])),
            Some(&*at("c.txt"))
        );
    }
}
