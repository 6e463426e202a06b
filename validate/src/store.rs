//! Scored windows on disk: interrupted work goes on after the last complete window.
//!
//! There is one file per (model, reference, text, convention), named by a hash of everything that
//! the numbers depend on. A record is one window: its number of positions (u32, little-endian), 26
//! bytes per position, and the first 8 bytes of the SHA-256 of both. Everything after the first
//! record that is torn or does not match its hash is cut off and computed again. This is not an
//! embedded database, because only appending and cutting are needed.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use sterna_ternary::TemporaryFolder;
use sterna_ternary::sha256::{Digest, Sha256, hex};

use crate::pass::{Apart, Position};
use crate::{Error, Result};

/// The positions of the windows that were scored so far, and where more are appended.
#[derive(Debug)]
pub struct Store {
    path: PathBuf,
    file: File,
    /// For each window that was scored its positions.
    pub windows: Vec<Vec<Position>>,
}

/// The folder of intermediate results: `state` in the folder of a report, or one that is removed
/// when this is dropped.
#[derive(Debug)]
pub struct State {
    folder: PathBuf,
    _temporary: Option<TemporaryFolder>,
}

impl State {
    /// Makes the folder.
    ///
    /// # Errors
    /// [`Error::Io`] if that fails.
    pub fn open(report: Option<&Path>) -> Result<State> {
        let io = |path: &Path| {
            let path = path.to_owned();
            |source| Error::Io { path, source }
        };
        let Some(report) = report else {
            let temporary = TemporaryFolder::new().map_err(io(&std::env::temp_dir()))?;
            return Ok(State {
                folder: temporary.path().to_owned(),
                _temporary: Some(temporary),
            });
        };
        let folder = report.join("state");
        std::fs::create_dir_all(&folder).map_err(io(&folder))?;
        Ok(State {
            folder,
            _temporary: None,
        })
    }

    /// Its path.
    pub fn folder(&self) -> &Path {
        &self.folder
    }
}

const POSITION: usize = 26;
const SUM: usize = 8;

/// A name for work that depends on these parts.
pub fn key(parts: &[&str]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    hex(&hash.finalize()[..16])
}

/// Opens or creates a file that grows record by record and truncates it after its last complete
/// record. `read` returns the complete records and their length in bytes.
pub(crate) fn open_whole<T>(path: &Path, read: impl Fn(&[u8]) -> (T, usize)) -> Result<(File, T)> {
    let open = || {
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        let (found, whole) = read(&bytes);
        file.set_len(whole as u64)?;
        file.seek(SeekFrom::Start(whole as u64))?;
        Ok((file, found))
    };
    open().map_err(|source| Error::Io {
        path: path.to_owned(),
        source,
    })
}

impl Store {
    /// Opens or makes `KEY.scores` in a folder that exists. `windows` says how many positions each
    /// window has.
    ///
    /// # Errors
    /// [`Error::Io`]. A damaged file is not an error: it is used up to the damage.
    pub fn open(folder: &Path, key: &str, windows: &[usize]) -> Result<Store> {
        let path = folder.join(format!("{key}.scores"));
        let (file, found) = open_whole(&path, |bytes| {
            let mut rest = bytes;
            let mut found = Vec::new();
            while let Some(positions) = windows.get(found.len()).and_then(|n| record(&mut rest, *n))
            {
                found.push(positions);
            }
            (found, bytes.len() - rest.len())
        })?;
        Ok(Store {
            path,
            file,
            windows: found,
        })
    }

    /// Adds the next window.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn push(&mut self, positions: &[Position]) -> Result<()> {
        let mut bytes = (positions.len() as u32).to_le_bytes().to_vec();
        positions.iter().for_each(|p| write(p, &mut bytes));
        let sum = Sha256::digest(&bytes);
        bytes.extend_from_slice(&sum[..SUM]);
        self.file.write_all(&bytes).map_err(|source| Error::Io {
            path: self.path.clone(),
            source,
        })?;
        self.windows.push(positions.to_vec());
        Ok(())
    }
}

fn write(position: &Position, bytes: &mut Vec<u8>) {
    let none = Apart {
        kl: f64::NAN,
        delta_p: 0.0,
        same_top: false,
        top5: 0,
    };
    let apart = position.apart.unwrap_or(none);
    for value in [position.nll, apart.kl, apart.delta_p] {
        bytes.extend_from_slice(&value.to_le_bytes());
    }
    bytes.extend_from_slice(&[u8::from(apart.same_top), apart.top5]);
}

/// The record of a window with `n` positions, if it is complete; `bytes` then begins after it.
fn record(bytes: &mut &[u8], n: usize) -> Option<Vec<Position>> {
    let (record, rest) = bytes.split_at_checked(4 + n * POSITION + SUM)?;
    let (content, sum) = record.split_at(4 + n * POSITION);
    let matches =
        content[..4] == (n as u32).to_le_bytes() && Sha256::digest(content)[..SUM] == *sum;
    if !matches {
        return None;
    }
    *bytes = rest;
    Some(content[4..].chunks_exact(POSITION).map(read).collect())
}

fn read(bytes: &[u8]) -> Position {
    let number = |i: usize| {
        let bytes = bytes[8 * i..8 * i + 8].try_into().expect("eight bytes");
        f64::from_le_bytes(bytes)
    };
    let kl = number(1);
    let apart = Apart {
        kl,
        delta_p: number(2),
        same_top: bytes[24] == 1,
        top5: bytes[25],
    };
    Position {
        nll: number(0),
        apart: (!kl.is_nan()).then_some(apart),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn positions(n: usize) -> Vec<Position> {
        let position = |i: usize| Position {
            nll: 0.1 + i as f64,
            apart: i.is_multiple_of(2).then_some(Apart {
                kl: 1e-3,
                delta_p: -0.25,
                same_top: i == 0,
                top5: 4,
            }),
        };
        (0..n).map(position).collect()
    }

    #[test]
    fn what_was_pushed_is_there_again() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = Store::open(folder.path(), "k", &[3, 2]).unwrap();
        store.push(&positions(3)).unwrap();
        drop(store);
        let mut store = Store::open(folder.path(), "k", &[3, 2]).unwrap();
        assert_eq!(store.windows, [positions(3)]);
        store.push(&positions(2)).unwrap();
        let store = Store::open(folder.path(), "k", &[3, 2]).unwrap();
        assert_eq!(store.windows, [positions(3), positions(2)]);
    }

    #[test]
    fn a_torn_or_changed_file_counts_up_to_the_damage() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = Store::open(folder.path(), "k", &[3, 2]).unwrap();
        store.push(&positions(3)).unwrap();
        store.push(&positions(2)).unwrap();
        let path = folder.path().join("k.scores");
        let whole = std::fs::read(&path).unwrap();
        let first = 4 + 3 * POSITION + SUM;
        let check = |bytes: &[u8], expected: usize| {
            std::fs::write(&path, bytes).unwrap();
            let store = Store::open(folder.path(), "k", &[3, 2]).unwrap();
            assert_eq!(store.windows.len(), expected);
            let len = std::fs::metadata(&path).unwrap().len();
            assert_eq!(len as usize, [0, first, whole.len()][expected]);
        };
        check(&whole, 2);
        check(&whole[..whole.len() - 1], 1);
        check(&whole[..3], 0);
        let mut changed = whole.clone();
        changed[first + 9] ^= 1;
        check(&changed, 1);
        check(&[&whole[..], b"more"].concat(), 2);
    }

    #[test]
    fn keys_tell_parts_apart() {
        assert_ne!(key(&["ab", "c"]), key(&["a", "bc"]));
        assert_eq!(key(&["a"]).len(), 32);
    }
}
