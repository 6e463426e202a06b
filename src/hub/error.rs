//! What can go wrong between a name and its files, and what to do about it.

use std::path::{Path, PathBuf};

use super::hash::Hash;
use super::name::Kind;

pub type Result<T> = std::result::Result<T, Error>;

/// Every way in which the hub or its cache refuses a model or a data set.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "{given}: no such file or folder, and as the name of a model it {why}: expected org/name, \
         org/name@revision or org/name:file.gguf"
    )]
    Name { given: String, why: String },
    #[error(
        "{given}: as the name of a data set it {why}: expected hf:org/name or hf:org/name@revision"
    )]
    DatasetName { given: String, why: String },
    #[error("{name} {why}")]
    Setting { name: &'static str, why: String },
    #[error(
        "{repo}: the hub refuses access ({why}). If the name is right, the {kind} is private or gated: accept \
         its licence at {page}, {token}"
    )]
    Denied {
        kind: Kind,
        repo: String,
        /// Status and message of the hub.
        why: String,
        /// Where the licence is.
        page: String,
        /// What to do about the token.
        token: String,
    },
    #[error("{repo}: {endpoint} has no such {kind} ({why}); check the name")]
    Absent {
        kind: Kind,
        repo: String,
        endpoint: String,
        why: String,
    },
    #[error(
        "{repo}: there is no revision {revision}; expected a branch, a tag or a commit of {page}"
    )]
    NoRevision {
        repo: String,
        revision: String,
        page: String,
    },
    #[error("{repo}: there is no file {file:?} in it; it has {there}")]
    NoFile {
        repo: String,
        file: String,
        there: String,
    },
    #[error("{repo}: it has no {wanted}; it has {there}{advice}")]
    NothingToRun {
        repo: String,
        wanted: &'static str,
        there: String,
        advice: String,
    },
    #[error("{repo}: it has several models, name one of them as {repo}:FILE: {there}")]
    Several { repo: String, there: String },
    #[error("{repo}: its file name {file:?} could lead out of the cache; nothing was written")]
    HostileName { repo: String, file: String },
    #[error("{url}: unexpected reply: {why}; check HF_ENDPOINT, or try again later")]
    Reply { url: String, why: String },
    #[error(
        "{repo}: the endpoint lists no checksum of {file:?}, and files are not taken without one"
    )]
    NoHash { repo: String, file: String },
    #[error(
        "{host}: too many requests; it asks to wait {wait}. With HF_TOKEN set, the hub allows more of them"
    )]
    RateLimited { host: String, wait: String },
    #[error("{host}: {why}; try again later")]
    Server { host: String, why: String },
    #[error(
        "{host}: cannot be reached ({why}); check the network, HF_ENDPOINT and HTTPS_PROXY. What is in \
         the cache works without it"
    )]
    Unreachable { host: String, why: String },
    #[error(
        "{file}: the connection broke at {at} of {size} bytes, again and again ({why}); what came is kept and \
         the same command goes on from there"
    )]
    Cut {
        file: String,
        at: u64,
        size: u64,
        why: String,
    },
    #[error(
        "{file}: expected {expected}, the hub's checksum, found {found}; nothing was kept. Try again; if it \
         happens again, something between the hub and this machine changes files"
    )]
    WrongHash {
        file: String,
        expected: Hash,
        found: Hash,
    },
    #[error(
        "{file}: expected {expected} bytes, the server sends {found}; nothing was kept. Try again later"
    )]
    WrongSize {
        file: String,
        expected: u64,
        found: String,
    },
    #[error(
        "{what} is not in the cache {cache}, and HF_HUB_OFFLINE forbids to fetch it; unset it once and run \
         `sterna pull {what}`"
    )]
    NotCached { what: String, cache: PathBuf },
    #[error("{what}: no such {kind} in the cache {cache}; `sterna models` lists what is there")]
    NothingToRemove {
        kind: Kind,
        what: String,
        cache: PathBuf,
    },
    #[error("{path}: {}", describe(cause))]
    Disk {
        path: PathBuf,
        cause: std::io::Error,
    },
}

impl Error {
    /// Wraps an I/O error with the file it happened to.
    pub fn disk(path: &Path) -> impl Fn(std::io::Error) -> Error + '_ {
        |cause| Error::Disk {
            path: path.to_owned(),
            cause,
        }
    }

    /// Whether there may be no model of that name; the hub refuses access to private ones and to absent ones.
    pub fn is_unknown_model(&self) -> bool {
        matches!(self, Error::Absent { .. } | Error::Denied { .. })
    }

    /// Whether what the user named is at fault, and not the network or this machine.
    pub fn is_bad_input(&self) -> bool {
        use Error::*;
        !matches!(
            self,
            Setting { .. }
                | Reply { .. }
                | RateLimited { .. }
                | Server { .. }
                | Unreachable { .. }
                | Cut { .. }
                | WrongHash { .. }
                | WrongSize { .. }
                | Disk { .. }
        )
    }
}

fn describe(cause: &std::io::Error) -> String {
    match cause.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
            "the disk is full; free space on it, or set HF_HUB_CACHE to a folder on another one. What came is \
             kept and the same command goes on from there"
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
