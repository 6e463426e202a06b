//! The state of a file: it is equal as long as the file was not changed.

use std::fs::Metadata;
use std::path::Path;
use std::time::Duration;
#[cfg(not(unix))]
use std::time::UNIX_EPOCH;

use serde::{Deserialize, Serialize};

/// Metadata that changes when a file changes.
#[derive(Serialize, Deserialize, PartialEq, Clone, Debug)]
pub(crate) struct Stamp {
    device_and_inode: (u64, u64),
    size: u64,
    modified: Duration,
    /// Time of the last change (ctime).
    pub(crate) changed: Duration,
}

impl Stamp {
    /// `None` if the file is absent.
    pub(crate) fn of(path: &Path) -> Option<Stamp> {
        Some(Stamp::new(&path.metadata().ok()?))
    }

    #[cfg(unix)]
    fn new(metadata: &Metadata) -> Stamp {
        use std::os::unix::fs::MetadataExt;
        let time = |seconds: i64, nanoseconds: i64| {
            Duration::new(seconds.max(0) as u64, nanoseconds.max(0) as u32)
        };
        Stamp {
            device_and_inode: (metadata.dev(), metadata.ino()),
            size: metadata.len(),
            modified: time(metadata.mtime(), metadata.mtime_nsec()),
            changed: time(metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    #[cfg(not(unix))]
    fn new(metadata: &Metadata) -> Stamp {
        let modified = metadata.modified().ok();
        let modified = modified.and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        Stamp {
            device_and_inode: (0, 0),
            size: metadata.len(),
            modified: modified.unwrap_or_default(),
            changed: Duration::MAX, // so that no record is trusted
        }
    }
}
