//! Text from files, in parts of documents.
//!
//! | file | documents |
//! |---|---|
//! | `.txt`, `.md` | the whole file; or, given a separator, the text between lines equal to it |
//! | `.jsonl`, `.ndjson`, `.json`, `.parquet` | one per [record](crate::records), in keys below |
//! | `.gz`, `.zst` after these, except `.parquet` | the same, packed |
//! | a folder | its files of these kinds, at any depth, by name; no `.json`, no `README.md` |
//!
//! A record is an object with `text`, with `messages`, or with `prompt` and `completion`; or with a
//! key that the caller names. `messages`, a list of `{role, content}`, become lines `User: …`: a
//! chat template belongs to a tokenizer, and text that is read here has none yet. `prompt` and
//! `completion` are joined unchanged. Documents without a visible character are left out.
//!
//! Memory holds a part of a text file, however long its lines are, or one record.

mod document;
mod record;

use std::path::PathBuf;

use self::document::OpenFile;
use crate::files::{self, Format, Kind};
use crate::notes::{self, Skipped, Tolerance};
use crate::{Error, Result};

/// Bytes of a part of a text file. A document of fewer bytes arrives whole.
pub const PART: usize = 1 << 16;

/// How documents are found in files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReadOptions {
    /// The line that separates the documents of a text file.
    pub separator: Option<String>,
    /// The key of records that holds the text.
    pub column: Option<String>,
}

/// A part of a document.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Part {
    /// The text, possibly empty.
    pub text: String,
    /// Whether the document begins with it.
    pub is_first: bool,
    /// Whether the document ends with it.
    pub is_last: bool,
    /// Bytes of the whole document, in the first part.
    pub bytes: u64,
    /// Bytes of all files that were read up to here, packed as they are.
    pub read: u64,
}

impl Part {
    /// A whole document.
    pub fn whole(text: String) -> Part {
        Part {
            bytes: text.len() as u64,
            text,
            is_first: true,
            is_last: true,
            read: 0,
        }
    }
}

/// The documents of files and folders, in order, in parts.
///
/// After an error in one line or record the iterator goes on with the next one; after an error of
/// the file system, with the next file. Errors name the file and, for bad text, the line.
#[derive(Debug)]
pub struct Parts {
    files: std::vec::IntoIter<(PathBuf, Format)>,
    options: ReadOptions,
    current: Option<OpenFile>,
    left_out: Vec<PathBuf>,
    total: u64,
    text_bytes: u64,
    /// Bytes of the files before the current one.
    before: u64,
    /// Records without text so far.
    without_text: u64,
    /// Records so far with NaN, Infinity or half of a surrogate pair.
    repaired: u64,
}

/// Opens files and folders.
///
/// Errors if a path does not exist, a named file is of another kind, or nothing is found.
pub fn parts(paths: &[PathBuf], options: &ReadOptions) -> Result<Parts> {
    let found = files::files(paths)?;
    Ok(Parts {
        total: found.bytes(|_| 1),
        text_bytes: found.bytes(Format::expansion),
        files: found.files.into_iter(),
        options: options.clone(),
        current: None,
        left_out: found.left_out,
        before: 0,
        without_text: 0,
        repaired: 0,
    })
}

/// The documents of [`parts`], each as one string.
pub fn documents(
    paths: &[PathBuf],
    options: &ReadOptions,
) -> Result<impl Iterator<Item = Result<String>> + use<>> {
    let mut parts = parts(paths, options)?;
    Ok(std::iter::from_fn(move || {
        let mut document = String::new();
        loop {
            match parts.next()? {
                Ok(part) => document.push_str(&part.text),
                Err(error) => return Some(Err(error)),
            }
            if parts.is_between() {
                return Some(Ok(document));
            }
        }
    }))
}

/// A line about files of folders that are not read, if there are any.
pub fn left_out(files: &[PathBuf]) -> Option<String> {
    let names = files.iter().take(5).map(|path| path.display().to_string());
    let mut names = names.collect::<Vec<_>>().join(", ");
    if files.len() > 5 {
        names += &format!(" and {} more", files.len() - 5);
    }
    (!files.is_empty()).then(|| format!("left out, since they are not texts: {names}"))
}

impl Parts {
    /// Files of folders that are not read: those of other kinds, settings and descriptions.
    pub fn left_out(&self) -> &[PathBuf] {
        &self.left_out
    }

    /// Bytes of all files, packed as they are.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// About the bytes of text in all files: packed files hold four times as many bytes of text,
    /// and columns twice as many.
    pub fn text_bytes(&self) -> u64 {
        self.text_bytes
    }

    /// Leaves out records that cannot be used, up to a tenth of all, unless strict.
    pub fn tolerant(self, is_strict: bool) -> TolerantParts {
        TolerantParts {
            parts: self,
            tolerance: Some(Tolerance::new(is_strict)),
            skipped: Skipped::default(),
        }
    }

    /// Whether the last part ended its document.
    fn is_between(&self) -> bool {
        self.current.as_ref().is_none_or(|open| !open.is_inside)
    }
}

impl Iterator for Parts {
    type Item = Result<Part>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let Some(open) = &mut self.current else {
                let (path, format) = self.files.next()?;
                match OpenFile::new(path, format) {
                    Ok(open) => self.current = Some(open),
                    Err(error) => return Some(Err(error)),
                }
                continue;
            };
            let part = open.part(&self.options);
            self.without_text += std::mem::take(&mut open.without_text);
            self.repaired += std::mem::take(&mut open.repaired);
            match part {
                Ok(Some(mut part)) => {
                    part.read = self.before + open.bytes_read().min(open.bytes);
                    return Some(Ok(part));
                }
                Ok(None) => {
                    self.before += open.bytes;
                    self.current = None;
                }
                Err(error) => {
                    open.is_inside = false;
                    if matches!(error, Error::Io { .. }) {
                        self.before += open.bytes;
                        self.current = None;
                    }
                    return Some(Err(error));
                }
            }
        }
    }
}

/// [`Parts`] without the records that cannot be used. More than a tenth of them are an error after
/// the last part. Text files have no records, and each of their errors ends the work.
#[derive(Debug)]
pub struct TolerantParts {
    parts: Parts,
    tolerance: Option<Tolerance>,
    skipped: Skipped,
}

impl TolerantParts {
    /// What was left out or repaired, once all parts were read; a line each.
    pub fn warnings(&self) -> Vec<String> {
        let without_text = self.parts.without_text;
        let blank = format!("{without_text} records have no text and were left out");
        let blank = (without_text > 0).then_some(blank);
        let repaired = notes::repaired(self.parts.repaired);
        let lines = self.skipped.warning().into_iter();
        lines.chain(blank).chain(repaired).collect()
    }

    /// The number of records that were left out.
    pub fn left_out(&self) -> u64 {
        self.skipped.count + self.parts.without_text
    }
}

impl Iterator for TolerantParts {
    type Item = Result<Part>;

    fn next(&mut self) -> Option<Self::Item> {
        while let Some(tolerance) = &mut self.tolerance {
            let kept = match self.parts.next() {
                None => {
                    let skipped = self.tolerance.take()?.finish();
                    let skipped = skipped.map(|skipped| self.skipped = skipped);
                    return skipped.err().map(Err);
                }
                Some(Ok(part)) if !part.is_first => return Some(Ok(part)),
                Some(Err(error)) if is_of_text_file(&error) => return Some(Err(error)),
                Some(part) => tolerance.keep(part),
            };
            if let Some(part) = kept.transpose() {
                return Some(part);
            }
        }
        None
    }
}

fn is_of_text_file(error: &Error) -> bool {
    match error {
        Error::NotUtf8 { path, .. } => Format::of(path).is_some_and(|f| f.kind == Kind::Txt),
        _ => false,
    }
}

#[cfg(test)]
mod tests;
