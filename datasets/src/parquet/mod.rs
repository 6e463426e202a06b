//! Rows of Apache Parquet files as JSON, one at a time.
//!
//! A file consists of row groups. A group has one chunk of bytes per column, a leaf of the schema
//! tree; a chunk has pages, each compressed by itself. Levels beside the values encode lists and
//! missing values, as in Dremel ([`rows`]). The specification is
//! <https://parquet.apache.org/docs/file-format/>; this reader knows what data sets of text use:
//! pages of both versions, plain, dictionary and delta encodings, and the codecs snappy, gzip and
//! zstd. Anything else is refused by name.
//!
//! The crate `parquet` is not used: it has panicked on malformed files and needs a C compiler. Here
//! any file gives rows or an error.
//!
//! Files come from strangers. Every length is checked against the bytes that are there, a page may
//! unpack to [`page::MAX_PAGE`] bytes, a row hold [`rows::MAX_VALUES`] values, the schema be
//! [`schema::MAX_DEPTH`] deep, and encodings that repeat a value are unrolled only as far as rows
//! are asked for; so memory holds one page per column, whatever a file claims. A file is mapped and
//! must not be changed while it is read.
//!
//! | Parquet | JSON |
//! |---|---|
//! | text; bytes that are UTF-8 | string |
//! | other bytes, 96-bit times | list of numbers |
//! | integers, dates, times, decimals of up to 64 bits | the stored integer |
//! | floats | number; `null` where it is not finite |
//! | list; group; map | list; object; list of objects with `key` and `value` |

mod column;
mod encoding;
mod levels;
mod page;
mod rows;
mod schema;
mod thrift;

#[cfg(test)]
mod tests;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;

use self::rows::Group;
use self::schema::Footer;
use crate::{Error, Result, mapped};

/// A message that says what is wrong with a file.
type Reason = String;

/// The bytes of a whole file.
type Store = Arc<dyn AsRef<[u8]> + Send + Sync>;

/// The rows of one file, in order.
pub(crate) struct Rows {
    path: PathBuf,
    bytes: Store,
    footer: Footer,
    /// The row group to open next.
    next_group: usize,
    group: Option<Group>,
    /// Rows returned so far.
    row: u64,
    /// Rows in all groups, as the footer says.
    all: f64,
}

impl fmt::Debug for Rows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rows").field("path", &self.path).finish()
    }
}

impl Rows {
    /// Opens a file and checks its footer.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let metadata = std::fs::metadata(path).map_err(Error::io(path, "read"))?;
        match metadata.len() {
            0 => Self::of(path, Arc::new([0; 0])), // which cannot be mapped
            _ => Self::of(path, Arc::new(mapped::map(path)?)),
        }
    }

    /// The rows of a file that is in memory.
    fn of(path: &Path, bytes: Store) -> Result<Self> {
        let footer = Footer::parse((*bytes).as_ref()).map_err(|reason| Error::Parquet {
            path: path.to_owned(),
            row: 0,
            reason,
        })?;
        let first = footer.groups.iter().filter_map(|columns| columns.first());
        Ok(Self {
            path: path.to_owned(),
            bytes,
            all: first.map(|chunk| chunk.rows as f64).sum(),
            footer,
            next_group: 0,
            group: None,
            row: 0,
        })
    }

    /// Rows returned so far.
    pub(crate) fn row(&self) -> u64 {
        self.row
    }

    /// The share of all rows that was returned so far.
    pub(crate) fn share(&self) -> f64 {
        self.row as f64 / self.all.max(1.0)
    }

    /// The next row, an object; `None` at the end. After an error the rest cannot be read.
    pub(crate) fn next_row(&mut self) -> Result<Option<Value>> {
        self.row += 1;
        self.step().map_err(|reason| Error::Parquet {
            path: self.path.clone(),
            row: self.row,
            reason,
        })
    }

    fn step(&mut self) -> Result<Option<Value>, Reason> {
        loop {
            if let Some(group) = &mut self.group
                && let Some(row) = group.next_row(&self.footer.schema)?
            {
                return Ok(Some(row));
            }
            let Some(chunks) = self.footer.groups.get(self.next_group) else {
                return Ok(None);
            };
            self.next_group += 1;
            self.group = Some(Group::open(&self.bytes, chunks, &self.footer.schema)?);
        }
    }
}
