//! The content of the cache: listing it, and removing parts of it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde::Serialize;
use sterna_ternary::units;

use super::cache::Repo;
use super::name::{Name, is_commit};
use super::{Error, RepoKind, Result};

/// A repository in the cache.
#[derive(Debug, Serialize)]
pub struct StoredRepo {
    /// Model or data set.
    pub kind: RepoKind,
    /// The name that a user types.
    pub name: String,
    /// Bytes of its files, including unfinished downloads.
    pub bytes: u64,
    /// Bytes of unfinished downloads.
    pub incomplete_bytes: u64,
    /// Its commits that are in the cache.
    pub revisions: Vec<Revision>,
}

/// One commit of a repository in the cache.
#[derive(Debug, Serialize)]
pub struct Revision {
    /// Its 40 digits.
    pub commit: String,
    /// Branches and tags that pointed to it when they were last asked for.
    pub refs: Vec<String>,
    /// Its files that are in the cache.
    pub files: Vec<String>,
    /// The folder with links to them.
    pub path: PathBuf,
}

impl StoredRepo {
    /// Name and size, then a line for each revision.
    pub fn describe(&self) -> String {
        let incomplete = match self.incomplete_bytes {
            0 => String::new(),
            bytes => format!(", {} of it incomplete", units::bytes(bytes)),
        };
        let (name, bytes) = (&self.name, units::bytes(self.bytes));
        let mut text = format!("{name}  {bytes}{incomplete}\n");
        for revision in &self.revisions {
            let (commit, refs) = (&revision.commit, revision.refs.join(" "));
            let files = revision.files.len();
            text += &format!("    {commit} {refs} ({files} files)\n");
        }
        text
    }
}

/// All models in the cache by name, then all data sets.
///
/// # Errors
/// [`Error::Disk`] for a folder that cannot be read.
pub fn list(cache: &Path) -> Result<Vec<StoredRepo>> {
    let mut all = Vec::new();
    for kind in [RepoKind::Model, RepoKind::Dataset] {
        let prefix = kind.repo("", "").folder_name(); // models-- or datasets--
        for folder in children(cache)? {
            let name = folder.file_name().and_then(|name| name.to_str());
            let name = name.and_then(|name| name.strip_prefix(&prefix));
            if let Some(name) = name {
                all.push(stored(cache, kind, &name.replacen("--", "/", 1))?);
            }
        }
    }
    Ok(all)
}

fn stored(cache: &Path, kind: RepoKind, name: &str) -> Result<StoredRepo> {
    let repo = Repo::new(cache, kind, name);
    let refs = walk(&repo.folder.join("refs"))?;
    let mut revisions = Vec::new();
    let mut bytes = 0;
    for path in children(&repo.folder.join("snapshots"))? {
        let Some(commit) = path
            .file_name()
            .and_then(|c| c.to_str())
            .filter(|c| is_commit(c))
        else {
            continue;
        };
        let files = walk(&path)?;
        bytes += files
            .iter()
            .map(|file| own_bytes(&path.join(file)))
            .sum::<u64>();
        revisions.push(Revision {
            commit: commit.to_owned(),
            refs: refs
                .iter()
                .filter(|r| repo.commit(r).as_deref() == Some(commit))
                .cloned()
                .collect(),
            files,
            path,
        });
    }
    let blobs = children(&repo.folder.join("blobs"))?;
    // A link has the size of its target.
    let size = |path: &PathBuf| path.metadata().map_or(0, |m| m.len());
    let is_part = |path: &&PathBuf| path.extension().is_some_and(|e| e == "incomplete");
    Ok(StoredRepo {
        kind,
        name: format!("{}{name}", kind.mark()),
        bytes: bytes + blobs.iter().map(size).sum::<u64>(),
        incomplete_bytes: blobs.iter().filter(is_part).map(size).sum(),
        revisions,
    })
}

/// Removes a model or data set, or only the given revision with the blobs that no other revision
/// uses. Returns the bytes that became free.
///
/// # Errors
/// [`Error::NothingToRemove`] if the cache does not have it, [`Error::Disk`] for a file that cannot
/// be removed.
pub fn remove(cache: &Path, name: &Name) -> Result<u64> {
    let repo = Repo::new(cache, name.kind, &name.repo);
    let stored = stored(cache, name.kind, &name.repo)?;
    let before = folder_bytes(&repo.folder)?;
    let absent = || Error::NothingToRemove {
        kind: name.kind,
        what: name.to_string(),
        cache: cache.to_owned(),
    };
    if !repo.folder.exists() {
        return Err(absent());
    }
    if let Some(revision) = name.explicit_revision() {
        let commit = repo
            .commit(revision)
            .filter(|c| repo.snapshot(c).is_dir())
            .ok_or_else(absent)?;
        if stored.revisions.len() > 1 {
            remove_revision(&repo, &stored, &commit)?;
            return Ok(before.saturating_sub(folder_bytes(&repo.folder)?));
        }
    }
    for folder in [&repo.folder, &repo.locks] {
        match std::fs::remove_dir_all(folder) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                return Err(Error::disk(folder)(e));
            }
            _ => {}
        }
    }
    Ok(before)
}

fn remove_revision(repo: &Repo, stored: &StoredRepo, commit: &str) -> Result<()> {
    let blobs = |revision: &Revision| -> BTreeSet<PathBuf> {
        let link = |file: &String| std::fs::read_link(revision.path.join(file)).ok();
        let name = |link: PathBuf| Some(repo.folder.join("blobs").join(link.file_name()?));
        revision
            .files
            .iter()
            .filter_map(link)
            .filter_map(name)
            .collect()
    };
    let (gone, kept): (Vec<_>, Vec<_>) = stored.revisions.iter().partition(|r| r.commit == commit);
    let needed: BTreeSet<PathBuf> = kept.into_iter().flat_map(blobs).collect();
    for revision in gone {
        let refs = revision
            .refs
            .iter()
            .map(|r| repo.folder.join("refs").join(r));
        let unused = blobs(revision)
            .into_iter()
            .filter(|blob| !needed.contains(blob));
        for path in refs.chain(unused).chain([repo.tree(commit)]) {
            match std::fs::remove_file(&path) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                    return Err(Error::disk(&path)(e));
                }
                _ => {}
            }
        }
        std::fs::remove_dir_all(&revision.path).map_err(Error::disk(&revision.path))?;
    }
    Ok(())
}

/// The bytes that removing the folder would free. Newer programs of the hub keep some contents
/// outside of it, shared between models.
fn folder_bytes(folder: &Path) -> Result<u64> {
    Ok(walk(folder)?
        .iter()
        .map(|file| own_bytes(&folder.join(file)))
        .sum())
}

/// The size of a file; 0 for a link.
fn own_bytes(path: &Path) -> u64 {
    path.symlink_metadata()
        .map_or(0, |m| if m.is_file() { m.len() } else { 0 })
}

/// The entries of a folder, sorted; none if it does not exist.
fn children(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = match std::fs::read_dir(folder) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(Error::disk(folder))?,
    };
    let mut paths: Vec<PathBuf> = entries
        .map(|entry| Ok(entry.map_err(Error::disk(folder))?.path()))
        .collect::<Result<_>>()?;
    paths.sort();
    Ok(paths)
}

/// Every file below a folder, as `a/b/c`. Links count as files.
fn walk(folder: &Path) -> Result<Vec<String>> {
    let mut files = Vec::new();
    for path in children(folder)? {
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
            continue;
        };
        match path.symlink_metadata().is_ok_and(|m| m.is_dir()) {
            true => files.extend(walk(&path)?.iter().map(|file| format!("{name}/{file}"))),
            false => files.push(name.to_owned()),
        }
    }
    Ok(files)
}
