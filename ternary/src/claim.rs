//! The right to write one file or folder, which one process has at a time.
//!
//! A claim is a lock on a small file that holds the id of the process. The system releases the lock
//! when the process ends, also when it is killed, so no lock is ever stale. The lock is that of
//! [`File::try_lock`], and on Windows a file that only one process can open.

#[cfg(not(windows))]
use std::fs::TryLockError;
use std::fs::{self, File};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};

use crate::Error;
use crate::temporary::Listed;

/// A claim, held until it is dropped.
#[derive(Debug)]
pub struct Claim {
    lock: PathBuf,
    is_exclusive: bool,
    /// The locked file, open as long as the claim exists.
    _file: File,
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
        let (mut file, is_exclusive) = open(lock)?;
        file.set_len(0)?;
        file.rewind()?;
        if let Some(id) = process_id() {
            writeln!(file, "{id}")?;
        }
        Ok(Claim {
            lock: lock.to_owned(),
            is_exclusive,
            _file: file,
            _listed: Listed::new(lock),
        })
    }

    /// Whether no other process can have the same claim. It is false on a file system without
    /// locks.
    pub fn is_exclusive(&self) -> bool {
        self.is_exclusive
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        // Windows removes the file when it is closed.
        if !cfg!(windows) {
            let _ = fs::remove_file(&self.lock); // an empty file that stays is harmless
        }
    }
}

/// Opens and locks the file, and says whether the lock keeps other processes out.
#[cfg(not(windows))]
fn open(lock: &Path) -> Result<(File, bool), Refusal> {
    loop {
        let mut options = File::options();
        options.create(true).truncate(false).read(true).write(true);
        let mut file = options.open(lock)?;
        let is_locked = match file.try_lock() {
            Ok(()) => true,
            Err(TryLockError::WouldBlock) => return Err(taken(&mut file)),
            // A file system without locks, as some of networks are.
            Err(TryLockError::Error(_)) => false,
        };
        // The last holder may have removed the file after it was opened here.
        if !is_locked || is_at(&file, lock) {
            return Ok((file, is_locked));
        }
    }
}

/// On Windows the lock is the open file itself: others may read it and neither write nor open it
/// like this. The system removes it when it is closed, also when the process is killed.
#[cfg(windows)]
fn open(lock: &Path) -> Result<(File, bool), Refusal> {
    use std::os::windows::fs::OpenOptionsExt;

    const SHARE_READ: u32 = 1;
    const DELETE_ON_CLOSE: u32 = 0x0400_0000;
    const ACCESS_DENIED: i32 = 5; // a file that was closed and is read by somebody yet
    const SHARING_VIOLATION: i32 = 32;
    /// Scanners for viruses may hold a file for a moment.
    const TRIES: usize = 10;
    let mut options = File::options();
    options.create(true).truncate(false).read(true).write(true);
    options.share_mode(SHARE_READ).custom_flags(DELETE_ON_CLOSE);
    let mut tries = 0..TRIES;
    loop {
        let error = match options.open(lock) {
            Ok(file) => return Ok((file, true)),
            Err(error) => error,
        };
        let code = error.raw_os_error();
        if !matches!(code, Some(ACCESS_DENIED | SHARING_VIOLATION)) {
            return Err(error.into());
        }
        if tries.next().is_none() {
            return Err(match (code, File::open(lock)) {
                (Some(SHARING_VIOLATION), Ok(mut file)) => taken(&mut file),
                (Some(SHARING_VIOLATION), Err(_)) => Refusal::Taken { process: None },
                _ => error.into(),
            });
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
}

/// The refusal with the id that the holder wrote into the file.
fn taken(file: &mut File) -> Refusal {
    let mut text = String::new();
    let _ = file.read_to_string(&mut text); // then the id is unknown
    let process = text.trim().parse().ok();
    Refusal::Taken { process }
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

#[cfg(not(any(unix, windows)))]
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
            Err(Refusal::Taken { process }) => assert_eq!(process, own),
            other => panic!("{other:?}"),
        }
        drop(first);
        assert!(!lock.exists());
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
