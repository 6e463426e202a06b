//! One repository in the cache that all programs of the hub share. `hf_hub` knows where blobs and
//! snapshots are; references, locks and listings are written here, because its locks are not seen
//! by other programs and its references are not durable.
//!
//! ```text
//! models--org--name/
//!     blobs/<hash>                    contents; <hash>.incomplete during a download
//!     snapshots/<commit>/<file>       links to them
//!     refs/<branch or tag>            the commit it was last seen at
//!     trees/<commit>.json             names, sizes and hashes of all files of the commit
//! .locks/models--org--name/<hash>.lock
//! ```

use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use hf_hub::{Cache, CacheRepo};
use sterna_ternary::durable;

use super::hash::Hash;
use super::listing::{ListedFile, Listing};
use super::name::{RepoKind, is_commit};
use super::{Error, Result};

/// One repository in the cache.
pub struct Repo {
    layout: CacheRepo,
    pub folder: PathBuf,
    pub locks: PathBuf,
}

impl Repo {
    /// `repo` is an `org/name` that was checked, so its folder stays inside the cache.
    pub fn new(cache: &Path, kind: RepoKind, repo: &str) -> Repo {
        let repo = kind.repo(repo, "");
        let name = repo.folder_name();
        Repo {
            layout: Cache::new(cache.to_owned()).repo(repo),
            folder: cache.join(&name),
            locks: cache.join(".locks").join(name),
        }
    }

    pub fn blob(&self, hash: &Hash) -> PathBuf {
        self.layout.blob_path(hash.as_str())
    }

    /// A blob during its download. The next run, or another program, continues it.
    pub fn part(&self, hash: &Hash) -> PathBuf {
        self.layout.blob_path(&format!("{hash}.incomplete"))
    }

    pub fn snapshot(&self, commit: &str) -> PathBuf {
        self.layout.pointer_path(commit)
    }

    /// The commit that a revision had when it was last asked for.
    pub fn commit(&self, revision: &str) -> Option<String> {
        if is_commit(revision) {
            return Some(revision.to_owned());
        }
        let commit = std::fs::read_to_string(self.folder.join("refs").join(revision)).ok()?;
        is_commit(&commit).then_some(commit)
    }

    /// Records the commit of a branch or tag.
    pub fn set_commit(&self, revision: &str, commit: &str) -> Result<()> {
        if is_commit(revision) || self.commit(revision).as_deref() == Some(commit) {
            return Ok(());
        }
        write(&self.folder.join("refs").join(revision), commit.as_bytes())
    }

    /// The files of a commit, if they were listed before.
    pub fn listing(&self, commit: &str) -> Option<Listing> {
        Listing::from_tree(&std::fs::read(self.tree(commit)).ok()?)
    }

    pub fn set_listing(&self, commit: &str, listing: &Listing) -> Result<()> {
        match listing.to_tree() {
            Some(json) if self.listing(commit).is_none() => write(&self.tree(commit), &json),
            _ => Ok(()),
        }
    }

    pub fn tree(&self, commit: &str) -> PathBuf {
        self.folder.join("trees").join(format!("{commit}.json"))
    }

    /// The files in the top folder of a snapshot, for a cache without a listing.
    pub fn files(&self, commit: &str) -> Option<Listing> {
        let entries = std::fs::read_dir(self.snapshot(commit)).ok()?;
        let name =
            |entry: io::Result<std::fs::DirEntry>| entry.ok()?.file_name().into_string().ok();
        Some(Listing(
            entries
                .filter_map(name)
                .map(|name| (name, ListedFile::default()))
                .collect(),
        ))
    }

    /// Keeps other processes from fetching the same blob until the returned file is dropped. `wait`
    /// is called once if another process holds the lock.
    pub fn lock(&self, hash: &Hash, wait: impl FnOnce()) -> Result<File> {
        let path = self.locks.join(format!("{hash}.lock"));
        let locked = || {
            std::fs::create_dir_all(&self.locks)?;
            let file = File::options()
                .create(true)
                .truncate(false)
                .write(true)
                .open(&path)?;
            match file.try_lock() {
                Err(TryLockError::WouldBlock) => {
                    wait();
                    file.lock()?;
                }
                Err(TryLockError::Error(e)) => return Err(e),
                Ok(()) => {}
            }
            Ok(file)
        };
        locked().map_err(Error::disk(&path))
    }

    /// Makes `file` of the commit a relative link to its blob. `is_new` says that no other snapshot
    /// has a link to the blob.
    pub fn link(&self, commit: &str, file: &str, hash: &Hash, is_new: bool) -> Result<()> {
        let path = self.snapshot(commit).join(file);
        let up = "../".repeat(2 + file.matches('/').count());
        let target = format!("{up}blobs/{hash}");
        let link = || {
            std::fs::create_dir_all(durable::folder_of(&path))?;
            link(Path::new(&target), &self.blob(hash), &path, is_new)?;
            durable::sync_folder(durable::folder_of(&path))
        };
        link().map_err(Error::disk(&path))
    }
}

/// Whether a file exists and has the size that the hub lists.
pub fn is_whole(path: &Path, entry: &ListedFile) -> bool {
    let metadata = path.metadata().ok().filter(|m| m.is_file());
    metadata.is_some_and(|m| entry.size.is_none_or(|size| size == m.len()))
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let write = || {
        std::fs::create_dir_all(durable::folder_of(path))?;
        durable::write(path, |w| io::Write::write_all(w, bytes))
    };
    write().map_err(Error::disk(path))
}

#[cfg(unix)]
fn link(target: &Path, _blob: &Path, path: &Path, _is_new: bool) -> io::Result<()> {
    std::os::unix::fs::symlink(target, path)
}

/// Few users of Windows may create links. Without a link the snapshot holds the file itself, as the
/// Python package of the hub does it: the blob, or a copy if other snapshots need it.
#[cfg(windows)]
fn link(target: &Path, blob: &Path, path: &Path, is_new: bool) -> io::Result<()> {
    let target: PathBuf = target.components().collect();
    let linked = std::os::windows::fs::symlink_file(target, path);
    match linked.is_ok() && path.exists() {
        true => Ok(()),
        false if is_new => durable::rename(blob, path),
        false => std::fs::copy(blob, path).map(drop),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_layout_is_the_standard_one() {
        let cache = tempfile::tempdir().unwrap();
        let repo = Repo::new(cache.path(), RepoKind::Model, "org/name");
        let commit = "0123456789abcdef0123456789abcdef01234567";
        let hash = Hash::parse(commit).unwrap();
        write(&repo.blob(&hash), b"content").unwrap();
        for file in ["config.json", "a/b/c.gguf"] {
            repo.link(commit, file, &hash, false).unwrap();
            assert_eq!(
                std::fs::read(repo.snapshot(commit).join(file)).unwrap(),
                b"content"
            );
        }
        let folder = cache.path().join("models--org--name");
        assert_eq!(repo.blob(&hash), folder.join("blobs").join(commit));
        #[cfg(unix)]
        assert_eq!(
            std::fs::read_link(folder.join("snapshots").join(commit).join("a/b/c.gguf")).unwrap(),
            Path::new("../../../../blobs").join(commit)
        );
        repo.set_commit("refs/pr/1", commit).unwrap();
        assert_eq!(
            std::fs::read(folder.join("refs/refs/pr/1")).unwrap(),
            commit.as_bytes()
        );
        assert_eq!(repo.commit("refs/pr/1").as_deref(), Some(commit));
        assert_eq!(repo.commit("main"), None);
        repo.set_commit(commit, commit).unwrap();
        assert!(!folder.join("refs").join(commit).exists());
    }

    #[test]
    fn a_damaged_reference_is_ignored() {
        let cache = tempfile::tempdir().unwrap();
        let repo = Repo::new(cache.path(), RepoKind::Model, "org/name");
        write(&repo.folder.join("refs/main"), b"../../../../etc").unwrap();
        assert_eq!(repo.commit("main"), None);
    }
}
