//! Models and data sets of the Hugging Face hub by name, in the cache that all programs of the hub
//! share.
//!
//! A revision becomes a commit and a list of files with sizes and hashes, in one request; files
//! that the snapshot of that commit already has are not requested again. The layout of the cache is
//! described at <https://huggingface.co/docs/huggingface_hub/guides/manage-cache>.
//!
//! The crate `hf-hub` describes repositories, makes the addresses and the request for their
//! description, and knows the layout of the cache. Its download is not used: it checks no hash,
//! appends any reply of a server to a resumed file, does not pass the hub's status and message on,
//! and has no offline mode, no `HF_HUB_CACHE` and no locks that other programs see. So these are
//! here:
//! - SHA-256, or git's SHA-1, of every file, and `Content-Range` of every resumed one
//!   (`download.rs`);
//! - redirects, retries, and the token for the endpoint's own origin only (`client.rs`);
//! - sizes and hashes of a commit, kept for use without a network (`listing.rs`);
//! - locks, links and durable references in the cache (`cache.rs`), its list and removal
//!   (`stored.rs`);
//! - all environment variables (`settings.rs`) and names that cannot leave their folder
//!   (`name.rs`).
//!
//! ```no_run
//! use sterna_hub::{Hub, HubSettings, Name, Want};
//!
//! let name = Name::parse("tiiuae/Falcon-E-1B-Base")?;
//! let fetched = Hub::open(HubSettings::from_env()?, &()).fetch(&name, Want::Checkpoint)?;
//! println!("{} at commit {}", fetched.path.display(), fetched.commit);
//! # Ok::<(), sterna_hub::Error>(())
//! ```
#![forbid(unsafe_code)]

mod cache;
mod client;
mod download;
mod error;
mod hash;
mod listing;
mod name;
mod progress;
mod settings;
mod stored;
#[cfg(test)]
mod tests;
mod want;

use std::path::{Path, PathBuf};

use cache::{Repo, is_whole};
use client::Client;
use download::{Wanted, download};
pub use error::{Error, Result};
pub use hash::Hash;
use listing::{ListedFile, Listing};
pub use name::{Name, RepoKind, is_dataset};
pub use progress::Progress;
pub use settings::HubSettings;
pub use stored::{Revision, StoredRepo, list, remove};
pub use want::Want;

/// The hub and its cache.
pub struct Hub<'a> {
    cache: PathBuf,
    /// `None` if the network may not be used.
    client: Option<Client<'a>>,
    progress: &'a dyn Progress,
}

/// A model in the cache.
#[derive(Debug, PartialEq)]
pub struct Fetched {
    /// A folder, or the one file that is the model.
    pub path: PathBuf,
    /// The commit of its files.
    pub commit: String,
    /// Its files and their sizes.
    pub files: Vec<(String, u64)>,
    /// Bytes that came over the network.
    pub downloaded: u64,
}

/// The files of one commit while they are fetched.
struct Snapshot<'a> {
    name: &'a Name,
    repo: Repo,
    commit: String,
    listing: Listing,
    /// Bytes of the files that are done.
    done: u64,
    downloaded: u64,
}

impl<'a> Hub<'a> {
    /// Opens the hub that `settings` describe; `progress` is told what a fetch does.
    pub fn open(settings: HubSettings, progress: &'a dyn Progress) -> Hub<'a> {
        Hub {
            client: (!settings.offline).then(|| Client::new(&settings, progress)),
            cache: settings.cache,
            progress,
        }
    }

    /// Makes sure that the files that `want` needs are in the cache, and returns their place.
    ///
    /// # Errors
    /// Every variant of [`Error`] but [`Error::Setting`] and [`Error::NothingToRemove`].
    pub fn fetch(&self, name: &Name, want: Want) -> Result<Fetched> {
        let repo = Repo::new(&self.cache, name.kind, &name.repo);
        let (commit, listing) = self.resolve(name, &repo)?;
        let mut snapshot = Snapshot {
            name,
            repo,
            commit,
            listing,
            done: 0,
            downloaded: 0,
        };
        let selection = snapshot.listing.select(name, want)?;
        let mut files = selection.files;
        let mut total = snapshot.bytes(&files);
        self.progress.total(total);
        files
            .iter()
            .try_for_each(|file| self.bring(&mut snapshot, file))?;
        let folder = snapshot.repo.snapshot(&snapshot.commit);
        if let Some(index) = selection.index.map(|file| folder.join(file)) {
            let index = std::fs::read(&index).map_err(Error::disk(&index))?;
            let shards = snapshot.listing.shards(name, &index)?;
            total += snapshot.bytes(&shards);
            self.progress.total(total);
            shards
                .iter()
                .try_for_each(|file| self.bring(&mut snapshot, file))?;
            files.extend(shards);
        }
        snapshot
            .repo
            .set_commit(name.revision(), &snapshot.commit)?;
        let size = |file: String| {
            let path = folder.join(&file);
            let metadata = path.metadata().map_err(Error::disk(&path))?;
            Ok((file, metadata.len()))
        };
        Ok(Fetched {
            path: selection
                .main
                .map_or_else(|| folder.clone(), |file| folder.join(file)),
            commit: snapshot.commit,
            files: files.into_iter().map(size).collect::<Result<_>>()?,
            downloaded: snapshot.downloaded,
        })
    }

    /// The commit of a revision and its files. They come from the hub, with three exceptions: a
    /// revision that is a commit and is in the cache, offline mode, and, with a warning, a hub that
    /// cannot be reached.
    fn resolve(&self, name: &Name, repo: &Repo) -> Result<(String, Listing)> {
        let is_fixed = name::is_commit(name.revision());
        let listed = || {
            let commit = repo.commit(name.revision())?;
            Some((commit.clone(), repo.listing(&commit)?))
        };
        let client = match (&self.client, is_fixed.then(listed).flatten()) {
            (_, Some(known)) => return Ok(known),
            (None, None) => return self.cached(name, repo),
            (Some(client), None) => client,
        };
        match client.revision(name) {
            Ok((commit, _)) if is_fixed && commit != name.revision() => Err(Error::Reply {
                url: name.to_string(),
                why: format!("it lists commit {commit}"),
            }),
            Ok((commit, listing)) => {
                repo.set_listing(&commit, &listing)?;
                Ok((commit, listing))
            }
            Err(error @ Error::Unreachable { .. }) => {
                let known = self.cached(name, repo).map_err(|_| &error);
                let Ok((commit, listing)) = known else {
                    return Err(error);
                };
                self.progress.say(&format!(
                    "warning: {error}; using commit {commit}, which is in the cache"
                ));
                Ok((commit, listing))
            }
            Err(error) => Err(error),
        }
    }

    /// The commit of a revision and its files, as far as the cache knows them.
    fn cached(&self, name: &Name, repo: &Repo) -> Result<(String, Listing)> {
        let absent = || self.not_cached(name.to_string());
        let commit = repo.commit(name.revision()).ok_or_else(absent)?;
        if let Some(listing) = repo.listing(&commit) {
            return Ok((commit, listing));
        }
        let mut files = repo.files(&commit).ok_or_else(absent)?;
        self.progress.say(&format!(
            "warning: another program put {name} into the cache without a list of its files; a \
             file that it did not download is not noticed"
        ));
        if let Some(file) = name
            .file
            .clone()
            .filter(|file| repo.snapshot(&commit).join(file).is_file())
        {
            files.0.insert(file, ListedFile::default());
        }
        Ok((commit, files))
    }

    fn not_cached(&self, what: String) -> Error {
        let cache = self.cache.clone();
        Error::NotCached { what, cache }
    }

    /// Downloads `file` if the snapshot does not have it.
    fn bring(&self, snapshot: &mut Snapshot, file: &str) -> Result<()> {
        let entry = snapshot.entry(file);
        let path = snapshot.repo.snapshot(&snapshot.commit).join(file);
        if !is_whole(&path, &entry) {
            let Some(client) = &self.client else {
                return Err(self.not_cached(format!("{}:{file}", snapshot.name.repo)));
            };
            snapshot.fetch(client, file, &entry, &path)?;
        }
        snapshot.done += entry.size.unwrap_or(0);
        self.progress.advance(snapshot.done);
        Ok(())
    }
}

impl Snapshot<'_> {
    /// Downloads a file that is absent or damaged.
    fn fetch(
        &mut self,
        client: &Client,
        file: &str,
        entry: &ListedFile,
        path: &Path,
    ) -> Result<()> {
        let (Some(hash), Some(size)) = (entry.hash(), entry.size) else {
            return Err(Error::NoHash {
                repo: self.name.repo.clone(),
                file: file.to_owned(),
            });
        };
        let wait = || {
            client.progress.say(&format!(
                "{file}: waiting for another program that downloads it"
            ))
        };
        let _lock = self.repo.lock(&hash, wait)?;
        if is_whole(path, entry) {
            return Ok(()); // by the program that was waited for
        }
        let blob = self.repo.blob(&hash);
        let is_new = !blob.exists();
        if !is_whole(&blob, entry) {
            if !is_new {
                client.progress.say(&format!(
                    "warning: {} is damaged; downloading it again",
                    blob.display()
                ));
            }
            let wanted = Wanted {
                name: self.name,
                file,
                url: client.url(self.name, &self.commit, file),
                size,
                hash: hash.clone(),
                done_before: self.done,
            };
            self.downloaded += download(client, &wanted, &self.repo.part(&hash), &blob)?;
        }
        if path.symlink_metadata().is_ok() {
            std::fs::remove_file(path).map_err(Error::disk(path))?;
        }
        self.repo.link(&self.commit, file, &hash, is_new)
    }

    fn entry(&self, file: &str) -> ListedFile {
        self.listing.0.get(file).cloned().unwrap_or_default()
    }

    fn bytes(&self, files: &[String]) -> u64 {
        files.iter().filter_map(|file| self.entry(file).size).sum()
    }
}
