//! What a fetch tells its caller while it works: a bar, a log and a server each show it in their own way.

/// Receives the progress of a fetch. Every method does nothing unless it is implemented.
pub trait Progress {
    /// The files that are fetched have this many bytes together. It grows when an index names further files.
    fn total(&self, _bytes: u64) {}
    /// A file of this many bytes begins to come over the network.
    fn begin(&self, _file: &str, _bytes: u64) {}
    /// This many bytes of all files are in the cache.
    fn advance(&self, _done: u64) {}
    /// A warning, a retry or a wait, as one line of text.
    fn say(&self, _line: &str) {}
}

/// Shows nothing.
impl Progress for () {}
