//! The download of one file. It grows in a part file that survives a crash, is hashed as it
//! arrives, and gets its name when the hash is right. The download of `hf_hub` 0.5 does none of
//! this: it checks no hash, and appends to a part without checking that the server resumed there.

use std::fs::File;
use std::io::{ErrorKind, Read, Seek, Write};
use std::path::{Path, PathBuf};

use sterna_ternary::durable;
use ureq::http::StatusCode;

use super::client::{Again, Client, Failure, Reply};
use super::hash::{Hash, Hasher};
use super::name::Name;
use super::{Error, Result};

/// A file to download, with its size and hash from the listing.
pub struct Wanted<'a> {
    pub name: &'a Name,
    pub file: &'a str,
    pub url: String,
    pub size: u64,
    pub hash: Hash,
    /// Bytes of the files before this one.
    pub done_before: u64,
}

/// Fetches a file to `blob`. It continues the file `part` of an earlier run, if there is one.
/// Returns the number of bytes that came over the network.
pub fn download(client: &Client, wanted: &Wanted, part: &Path, blob: &Path) -> Result<u64> {
    let mut part = PartFile::open(part, wanted)?;
    let there = part.len;
    client.progress.advance(wanted.done_before + part.len);
    client.progress.begin(wanted.file, wanted.size);
    let mut came = fill(client, wanted, &mut part)?;
    if there > 0 && came < wanted.size && part.hash() != wanted.hash {
        client.progress.say(&format!(
            "{}: the part that was there is damaged; starting over",
            wanted.file
        ));
        part.truncate()?;
        came += fill(client, wanted, &mut part)?;
    }
    part.finish(wanted, blob)?;
    Ok(came)
}

/// Downloads until the part is as long as the file. Returns the number of bytes that came.
fn fill(client: &Client, wanted: &Wanted, part: &mut PartFile) -> Result<u64> {
    let (mut came, mut furthest) = (0, part.len);
    if part.len == wanted.size {
        return Ok(0);
    }
    client.persist(|| {
        let reply = client.get(&wanted.url, part.len, wanted.name)?;
        check_reply(&reply, wanted, part)?;
        let outcome = copy(client, wanted, reply, part, &mut came);
        let progress = part.len > furthest;
        furthest = furthest.max(part.len);
        match outcome? {
            None => Ok(()),
            Some(why) => Err(Failure::Again(Box::new(Again {
                note: format!("{}: the connection broke ({why})", wanted.file),
                error: Error::Cut {
                    file: wanted.file.to_owned(),
                    at: part.len,
                    size: wanted.size,
                    why,
                },
                after: None,
                progress,
            }))),
        }
    })?;
    Ok(came)
}

/// Checks that the reply is this file and continues where the part ends. If the server sends the
/// file from its beginning, the part is emptied.
fn check_reply(reply: &Reply, wanted: &Wanted, part: &mut PartFile) -> Result<()> {
    if let Some(found) = reply.hash.clone().filter(|hash| *hash != wanted.hash) {
        part.remove()?;
        return Err(Error::WrongHash {
            file: wanted.file.to_owned(),
            expected: wanted.hash.clone(),
            found,
        });
    }
    let header = |name: &str| {
        reply
            .headers
            .get(name)
            .and_then(|value| value.to_str().ok())
    };
    if reply.status == StatusCode::PARTIAL_CONTENT {
        let range = header("content-range").unwrap_or("no range");
        let expected = format!("bytes {}-{}/{}", part.len, wanted.size - 1, wanted.size);
        if range != expected {
            let why = format!("Content-Range is {range:?}, expected {expected:?}");
            let url = wanted.url.clone();
            return Err(Error::Reply { url, why });
        }
        return Ok(());
    }
    part.truncate()?;
    match header("content-length").and_then(|length| length.parse::<u64>().ok()) {
        Some(length) if length != wanted.size => {
            part.remove()?;
            Err(wrong_size(wanted, format!("{length} bytes")))
        }
        _ => Ok(()),
    }
}

/// Appends the body to the part. Returns why the body ended too early, or `None` if it is complete.
fn copy(
    client: &Client,
    wanted: &Wanted,
    reply: Reply,
    part: &mut PartFile,
    came: &mut u64,
) -> Result<Option<String>> {
    let mut body = reply.body.into_reader();
    let mut buffer = vec![0; 1 << 18];
    loop {
        match body.read(&mut buffer) {
            Ok(0) if part.len == wanted.size => return Ok(None),
            Ok(0) => return Ok(Some("it ended too early".into())),
            Ok(n) if part.len + n as u64 > wanted.size => {
                part.remove()?;
                return Err(wrong_size(wanted, "more".into()));
            }
            Ok(n) => {
                part.append(&buffer[..n])?;
                *came += n as u64;
                client.progress.advance(wanted.done_before + part.len);
            }
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(_) if part.len == wanted.size => return Ok(None),
            Err(e) => return Ok(Some(e.to_string())),
        }
    }
}

fn wrong_size(wanted: &Wanted, found: String) -> Error {
    Error::WrongSize {
        file: wanted.file.to_owned(),
        expected: wanted.size,
        found,
    }
}

/// A growing file, and the hash of its content so far.
struct PartFile {
    path: PathBuf,
    file: File,
    len: u64,
    hasher: Hasher,
    empty: Hasher,
}

impl PartFile {
    /// Opens the part that an earlier run left, or an empty one.
    fn open(path: &Path, wanted: &Wanted) -> Result<PartFile> {
        let open = || {
            std::fs::create_dir_all(durable::folder_of(path))?;
            let mut options = File::options();
            options
                .create(true)
                .truncate(false)
                .read(true)
                .write(true)
                .open(path)
        };
        let file = open().map_err(Error::disk(path))?;
        let empty = wanted.hash.hasher(wanted.size);
        let mut part = PartFile {
            path: path.to_owned(),
            file,
            len: 0,
            hasher: empty.clone(),
            empty,
        };
        part.read().map_err(Error::disk(path))?;
        if part.len > wanted.size {
            part.truncate()?;
        }
        Ok(part)
    }

    fn read(&mut self) -> std::io::Result<()> {
        let mut buffer = vec![0; 1 << 18];
        loop {
            match self.file.read(&mut buffer)? {
                0 => return Ok(()),
                n => {
                    self.hasher.update(&buffer[..n]);
                    self.len += n as u64;
                }
            }
        }
    }

    fn append(&mut self, bytes: &[u8]) -> Result<()> {
        self.file
            .write_all(bytes)
            .map_err(Error::disk(&self.path))?;
        self.hasher.update(bytes);
        self.len += bytes.len() as u64;
        Ok(())
    }

    fn truncate(&mut self) -> Result<()> {
        let empty = || {
            self.file.set_len(0)?;
            (&self.file).rewind()
        };
        empty().map_err(Error::disk(&self.path))?;
        self.len = 0;
        self.hasher = self.empty.clone();
        Ok(())
    }

    fn hash(&self) -> Hash {
        self.hasher.clone().finish()
    }

    fn remove(&self) -> Result<()> {
        std::fs::remove_file(&self.path).map_err(Error::disk(&self.path))
    }

    /// Gives the part its name, if the hash is right.
    fn finish(self, wanted: &Wanted, blob: &Path) -> Result<()> {
        let found = self.hash();
        if found != wanted.hash {
            self.remove()?;
            return Err(Error::WrongHash {
                file: wanted.file.to_owned(),
                expected: wanted.hash.clone(),
                found,
            });
        }
        let PartFile { path, file, .. } = self;
        let rename = || {
            file.sync_all()?;
            drop(file);
            durable::rename(&path, blob)?;
            durable::sync_folder(durable::folder_of(blob))
        };
        rename().map_err(Error::disk(blob))
    }
}
