//! Errors between a name and its files, each with what to do about it.

use std::path::{Path, PathBuf};

use super::hash::Hash;
use super::name::RepoKind;

/// A result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Every way in which the hub or its cache refuses a model or a data set.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The given text is not `org/name` with an optional revision or file.
    #[error(
        "{given} is not the name of a model: it {why}; expected org/name, org/name@revision or \
         org/name:file.gguf"
    )]
    Name {
        /// What was given.
        given: String,
        /// What is wrong with it.
        why: String,
    },
    /// The given text is not `hf:org/name` with an optional revision.
    #[error(
        "{given} is not the name of a data set: it {why}; expected hf:org/name or \
         hf:org/name@revision"
    )]
    DatasetName {
        /// What was given.
        given: String,
        /// What is wrong with it.
        why: String,
    },
    /// An environment variable has a value that cannot be used.
    #[error("{name} {why}")]
    Setting {
        /// The variable.
        name: &'static str,
        /// Its value, and what was expected.
        why: String,
    },
    /// The hub answers 401 or 403.
    #[error(
        "{repo}: the hub refuses access ({why}). If the name is right, the {kind} is private or \
         gated: accept its licence at {page}, {token}"
    )]
    Denied {
        /// Model or data set.
        kind: RepoKind,
        /// `org/name`.
        repo: String,
        /// Status and message of the hub.
        why: String,
        /// The page with the licence.
        page: String,
        /// What to do about the token.
        token: String,
    },
    /// The hub has no such repository, or hides it.
    #[error("{repo}: {endpoint} has no such {kind} ({why}); check the name")]
    Absent {
        /// Model or data set.
        kind: RepoKind,
        /// `org/name`.
        repo: String,
        /// The hub that was asked.
        endpoint: String,
        /// Its status and message.
        why: String,
    },
    /// The repository has no such branch, tag or commit.
    #[error("{repo}: no revision {revision}; expected a branch, a tag or a commit of {page}")]
    NoRevision {
        /// `org/name`.
        repo: String,
        /// The revision that was asked for.
        revision: String,
        /// The page of the repository.
        page: String,
    },
    /// The repository has no such file.
    #[error("{repo}: no file {file:?}; it has {there}")]
    NoFile {
        /// `org/name`.
        repo: String,
        /// The file that was asked for.
        file: String,
        /// Files that it has.
        there: String,
    },
    /// No file of the repository can be used.
    #[error("{repo}: it has no {wanted}; it has {there}{advice}")]
    NothingToRun {
        /// `org/name`.
        repo: String,
        /// The files that were expected.
        wanted: &'static str,
        /// Files that it has.
        there: String,
        /// What to do, after `; `, or nothing.
        advice: String,
    },
    /// Several files could be meant.
    #[error("{repo}: it has several models; name one of them as {repo}:FILE: {there}")]
    Several {
        /// `org/name`.
        repo: String,
        /// The files.
        there: String,
    },
    /// A file name of the hub could lead out of the cache.
    #[error("{repo}: its file name {file:?} could lead out of the cache; nothing was written")]
    HostileName {
        /// `org/name`.
        repo: String,
        /// The file name.
        file: String,
    },
    /// The hub sends a reply that its protocol does not allow.
    #[error("{url}: unexpected reply: {why}; check HF_ENDPOINT, or try again later")]
    Reply {
        /// The address, without its query.
        url: String,
        /// What was expected and found.
        why: String,
    },
    /// The hub lists a file without a hash.
    #[error(
        "{repo}: the endpoint lists no checksum of {file:?}; a file without one is not downloaded"
    )]
    NoHash {
        /// `org/name`.
        repo: String,
        /// The file.
        file: String,
    },
    /// The hub answers 429 and asks for a longer wait than a download accepts.
    #[error(
        "{host}: too many requests; it asks to wait {wait}. With HF_TOKEN set, the hub allows more"
    )]
    RateLimited {
        /// The server.
        host: String,
        /// The time that it asks for.
        wait: String,
    },
    /// A server fails again and again.
    #[error("{host}: {why}; try again later")]
    Server {
        /// The server.
        host: String,
        /// Its status and message.
        why: String,
    },
    /// There is no connection, or the server does not answer.
    #[error(
        "{host}: cannot be reached ({why}); check the network, HF_ENDPOINT and HTTPS_PROXY. Models \
         in the cache work without it"
    )]
    Unreachable {
        /// The server.
        host: String,
        /// The error of the connection.
        why: String,
    },
    /// The connection broke several times, without progress in between.
    #[error(
        "{file}: the connection broke at {at} of {size} bytes, several times ({why}); the \
         downloaded part is kept, and the same command continues from there"
    )]
    Cut {
        /// The file.
        file: String,
        /// Bytes that are on disk.
        at: u64,
        /// Bytes of the file.
        size: u64,
        /// The error of the last attempt.
        why: String,
    },
    /// The content of a file is not what the hub lists.
    #[error(
        "{file}: expected the hub's checksum {expected}, found {found}; nothing was kept. Try \
         again; if it happens again, something between the hub and this machine changes files"
    )]
    WrongHash {
        /// The file.
        file: String,
        /// Its hash in the listing.
        expected: Hash,
        /// Its hash as downloaded or announced.
        found: Hash,
    },
    /// The size of a file is not what the hub lists.
    #[error(
        "{file}: expected {expected} bytes, the server sends {found}; nothing was kept. Try again \
         later"
    )]
    WrongSize {
        /// The file.
        file: String,
        /// Its size in the listing.
        expected: u64,
        /// The size that the server sends.
        found: String,
    },
    /// Something is not in the cache, and `HF_HUB_OFFLINE` is set.
    #[error(
        "{what} is not in the cache {cache}, and HF_HUB_OFFLINE forbids a download; unset it once \
         and run `sterna pull {what}`"
    )]
    NotCached {
        /// The name.
        what: String,
        /// The folder.
        cache: PathBuf,
    },
    /// The cache has no repository or revision of this name.
    #[error("{what}: no such {kind} in the cache {cache}; `sterna models` lists its content")]
    NothingToRemove {
        /// Model or data set.
        kind: RepoKind,
        /// The name.
        what: String,
        /// The folder.
        cache: PathBuf,
    },
    /// The operating system could not read or write a file of the cache.
    #[error("{path}: {}", describe(cause))]
    Disk {
        /// The file.
        path: PathBuf,
        /// The cause.
        cause: std::io::Error,
    },
}

impl Error {
    /// Wraps an I/O error with its file.
    pub(crate) fn disk(path: &Path) -> impl Fn(std::io::Error) -> Error + '_ {
        |cause| Error::Disk {
            path: path.to_owned(),
            cause,
        }
    }

    /// Whether the name or its repository is at fault, and not the network or this machine.
    pub fn is_bad_input(&self) -> bool {
        use Error::*;
        match self {
            Name { .. }
            | DatasetName { .. }
            | Denied { .. }
            | Absent { .. }
            | NoRevision { .. }
            | NoFile { .. }
            | NothingToRun { .. }
            | Several { .. }
            | HostileName { .. }
            | NoHash { .. }
            | NotCached { .. }
            | NothingToRemove { .. } => true,
            Setting { .. }
            | Reply { .. }
            | RateLimited { .. }
            | Server { .. }
            | Unreachable { .. }
            | Cut { .. }
            | WrongHash { .. }
            | WrongSize { .. }
            | Disk { .. } => false,
        }
    }
}

fn describe(cause: &std::io::Error) -> String {
    match cause.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
            "the disk is full; free space on it, or set HF_HUB_CACHE to a folder on another disk. \
             The downloaded part is kept, and the same command continues from there"
                .into()
        }
        std::io::ErrorKind::PermissionDenied | std::io::ErrorKind::ReadOnlyFilesystem => {
            format!("{cause}; set HF_HUB_CACHE to a folder that can be written")
        }
        _ => cause.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_says_what_to_do() {
        let full = std::io::Error::from(std::io::ErrorKind::StorageFull);
        let error = Error::disk(Path::new("cache/blob"))(full).to_string();
        assert!(
            error.starts_with("cache/blob: the disk is full") && error.contains("HF_HUB_CACHE")
        );
    }
}
