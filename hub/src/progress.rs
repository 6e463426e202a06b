//! The progress of a fetch, for its caller to show: in a bar, a log or a page.

/// Receives the progress of a fetch. Every method does nothing unless it is implemented.
pub trait Progress {
    /// The total size of all files to fetch. It grows when an index names further files.
    fn total(&self, _bytes: u64) {}
    /// A download begins; the file has `bytes` bytes.
    fn begin(&self, _file: &str, _bytes: u64) {}
    /// `done` bytes of all files are in the cache.
    fn advance(&self, _done: u64) {}
    /// A warning, a retry or a wait, as one line of text.
    fn say(&self, _line: &str) {}
}

/// Shows nothing.
impl Progress for () {}
