//! The right to write one file or folder, which one process has at a time.
//!
//! A claim is a lock on a small file that holds the id of the process. The system releases the lock
//! when the process ends, also when it is killed, so no lock is ever stale. The lock is that of
//! [`File::try_lock`].

use std::fs::{self, File, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};

use crate::Error;
use crate::temporary::Listed;

/// A claim, held until it is dropped.
#[derive(Debug)]
pub struct Claim {
    lock: PathBuf,
    /// The locked file; none on a file system that has no locks.
    file: Option<File>,
    _listed: Listed,
}

/// Why there is no claim.
#[derive(Debug)]
pub enum Refusal {
    /// Another process has the claim.
    Taken {
        /// Its id, if the file says it.
        process: Option<u32>,
    },
    /// The file of the lock could not be made.
    Io(io::Error),
}

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Refusal {
        Refusal::Io(error)
    }
}

impl Refusal {
    /// The error of an output at `path`. `doing` says what a process with the claim does, and what
    /// the user can do.
    pub fn explain(self, path: &Path, doing: &str) -> Error {
        let process = match self {
            Refusal::Io(error) => return Error::io(path)(error),
            Refusal::Taken { process: None } => "another process".to_owned(),
            Refusal::Taken { process: Some(id) } => format!("process {id}"),
        };
        Error::Output {
            path: path.to_owned(),
            why: format!("{process} {doing}"),
        }
    }
}

impl Claim {
    /// Makes and locks the file `lock`.
    ///
    /// # Errors
    /// [`Refusal::Taken`] if another claim holds it, also one of this process.
    pub fn new(lock: &Path) -> Result<Claim, Refusal> {
        loop {
            let mut options = File::options();
            options.create(true).truncate(false).read(true).write(true);
            let mut file = options.open(lock)?;
            let is_locked = match file.try_lock() {
                Ok(()) => true,
                Err(TryLockError::WouldBlock) => {
                    let mut text = String::new();
                    // On Windows nobody else can read a locked file.
                    let _ = file.read_to_string(&mut text);
                    let process = text.trim().parse().ok();
                    return Err(Refusal::Taken { process });
                }
                // A file system without locks, as some of networks are.
                Err(TryLockError::Error(_)) => false,
            };
            // The last holder may have removed the file after it was opened here.
            if is_locked && !is_at(&file, lock) {
                continue;
            }
            file.set_len(0)?;
            file.rewind()?;
            if let Some(id) = process_id() {
                writeln!(file, "{id}")?;
            }
            return Ok(Claim {
                lock: lock.to_owned(),
                file: is_locked.then_some(file),
                _listed: Listed::new(lock),
            });
        }
    }

    /// Whether no other process can have the same claim. It is false on a file system without
    /// locks.
    pub fn is_exclusive(&self) -> bool {
        self.file.is_some()
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        // Where files cannot be told apart, removal could take the lock of the next holder away.
        if cfg!(unix) || self.file.is_none() {
            let _ = fs::remove_file(&self.lock); // an empty file that stays is harmless
        }
    }
}

/// The id of this process; none on a system without processes, such as WASI, where
/// [`std::process::id`] panics.
fn process_id() -> Option<u32> {
    (!cfg!(target_family = "wasm")).then(std::process::id)
}

/// Whether an open file still has this path.
#[cfg(unix)]
fn is_at(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let place = |found: io::Result<fs::Metadata>| found.ok().map(|m| (m.dev(), m.ino()));
    place(file.metadata()) == place(fs::metadata(path))
}

#[cfg(not(unix))]
fn is_at(_: &File, _: &Path) -> bool {
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_claim_at_a_time_and_nothing_remains() {
        let folder = tempfile::tempdir().unwrap();
        let lock = folder.path().join("lock");
        // What a killed process leaves does not matter.
        fs::write(&lock, "123456789\n").unwrap();
        let first = Claim::new(&lock).unwrap();
        assert!(first.is_exclusive());
        let own = process_id();
        match Claim::new(&lock) {
            Err(Refusal::Taken { process }) if cfg!(unix) => assert_eq!(process, own),
            Err(Refusal::Taken { .. }) => {}
            other => panic!("{other:?}"),
        }
        drop(first);
        assert_eq!(lock.exists(), !cfg!(unix));
        drop(Claim::new(&lock).unwrap());
    }

    #[test]
    fn many_threads_never_hold_it_together() {
        let folder = tempfile::tempdir().unwrap();
        let lock = folder.path().join("lock");
        let holders = std::sync::atomic::AtomicUsize::new(0);
        let taken = std::sync::atomic::AtomicUsize::new(0);
        use std::sync::atomic::Ordering::SeqCst;
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..500 {
                        let Ok(claim) = Claim::new(&lock) else {
                            continue;
                        };
                        assert_eq!(holders.fetch_add(1, SeqCst), 0);
                        taken.fetch_add(1, SeqCst);
                        holders.fetch_sub(1, SeqCst);
                        drop(claim);
                    }
                });
            }
        });
        assert!(taken.into_inner() > 0);
    }
}
