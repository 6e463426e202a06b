//! Temporary files and folders of this process, which a program removes before a signal ends it.
//!
//! The crate `tempfile` removes a file when its owner is dropped, but a process that a signal ends
//! drops nothing. So this file keeps a list of what is there. The handler of the signal calls
//! [`remove_all`].

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};

static PRESENT: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());

/// A path in the list of [`remove_all`], until it is dropped.
#[derive(Debug)]
pub struct Listed(PathBuf);

impl Listed {
    /// Adds a path to the list.
    pub fn new(path: &Path) -> Listed {
        present().insert(path.to_owned());
        Listed(path.to_owned())
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        present().remove(&self.0);
    }
}

fn present() -> MutexGuard<'static, BTreeSet<PathBuf>> {
    PRESENT
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// A folder for temporary files of the system. It is removed when the value is dropped.
#[derive(Debug)]
pub struct TemporaryFolder {
    folder: tempfile::TempDir,
    _listed: Listed,
}

impl TemporaryFolder {
    /// Makes an empty folder whose name begins with `sterna-`.
    pub fn new() -> io::Result<TemporaryFolder> {
        let folder = tempfile::Builder::new().prefix("sterna-").tempdir()?;
        let _listed = Listed::new(folder.path());
        Ok(TemporaryFolder { folder, _listed })
    }

    /// The path of the folder.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }
}

/// Removes all temporary files and folders of this process. Call it just before the process ends:
/// other threads may still write, and then they fail.
pub fn remove_all() {
    remove(&present());
}

fn remove(paths: &BTreeSet<PathBuf>) {
    // A folder in which a thread makes a file at the same time needs another try.
    const TRIES: usize = 20;
    for path in paths {
        let is_gone = |_| match path.is_dir() {
            true => std::fs::remove_dir_all(path).is_ok(),
            false => std::fs::remove_file(path).is_ok() || !path.exists(),
        };
        // What cannot be removed stays: the process ends anyway.
        let _ = (0..TRIES).any(is_gone);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // `remove_all` itself would take the files of other tests of this process away.
    #[test]
    fn what_is_listed_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let [file, tree, gone] = ["file", "tree", "gone"].map(|name| folder.path().join(name));
        std::fs::create_dir(&tree).unwrap();
        for path in [&file, &tree.join("part")] {
            std::fs::write(path, "x").unwrap();
        }
        let listed = [&file, &tree, &gone].map(|path| Listed::new(path));
        let own: BTreeSet<PathBuf> = [&file, &tree, &gone].map(PathBuf::clone).into();
        assert!(present().is_superset(&own));
        remove(&own);
        assert_eq!([&file, &tree].map(|path| path.exists()), [false; 2]);
        drop(listed);
        assert!(present().is_disjoint(&own));
    }
}
