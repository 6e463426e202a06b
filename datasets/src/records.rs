//! Reads records of data sets: one JSON value after another, from files of three formats.
//!
//! | file | records |
//! |---|---|
//! | `.jsonl`, `.ndjson` | one per line |
//! | `.json` | the elements of a list; or one per line, as in some data sets of the hub |
//! | `.parquet` | the rows, as objects |
//! | `.gz`, `.zst` after these, except `.parquet` | the same, packed |
//! | a folder | its files of these kinds, at any depth, in the order of names, but no `.json` |
//!
//! Memory holds one record, or one page per column of a Parquet file, and never a whole file.
//!
//! `serde_json` parses each record. What Python writes and JSON does not have is read too: NaN and
//! Infinity as null, half of a surrogate pair as U+FFFD. The brackets and commas of a list are read
//! here, because `serde_json` visits the elements of a list only in one call, and an iterator must
//! stop after each.

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::Value;

use crate::files::{self, Format, Kind, Lines, Packing, Unpacked};
use crate::json::{self, Parsed};
use crate::parquet::Rows;
use crate::{Error, Result};

/// The records of files, in order.
///
/// After an error in one line or list element the iterator goes on with the next; where a file
/// cannot be read on (the file system, a list or Parquet file that is broken), with the next file.
/// Errors name the file and the line, or the number of the record where there are no lines.
#[derive(Debug)]
pub struct Records {
    files: std::vec::IntoIter<(PathBuf, Format)>,
    path: PathBuf,
    line: u64,
    is_repaired: bool,
    current: Option<OpenRecords>,
    /// Bytes of all files.
    total: u64,
    /// Bytes of the files before the current one, and of the current one.
    before: u64,
    bytes: u64,
}

/// Opens files and folders.
///
/// Errors if a path does not exist, a named file is of another kind, or nothing is found.
pub fn records(paths: &[PathBuf]) -> Result<Records> {
    Ok(Records::of(files::record_files(paths)?.files))
}

impl Records {
    /// The records of these files; none of them may be a text file.
    pub(crate) fn of(files: Vec<(PathBuf, Format)>) -> Self {
        let total = files.iter().map(|(path, _)| size(path)).sum();
        Self {
            total,
            before: 0,
            bytes: 0,
            files: files.into_iter(),
            path: PathBuf::new(),
            line: 0,
            is_repaired: false,
            current: None,
        }
    }

    /// The file of the record or error that came last.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes of all files, packed as they are.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// Bytes of them that were read so far.
    pub fn bytes_read(&self) -> u64 {
        let current = self.current.as_ref();
        let current = current.map_or(0, |open| open.bytes_read(self.bytes));
        self.before + current.min(self.bytes)
    }

    /// Whether NaN or Infinity of the last record became null, or half of a surrogate pair U+FFFD.
    pub fn is_repaired(&self) -> bool {
        self.is_repaired
    }

    /// The line of the record or error that came last, or its number in a list or table, from 1.
    pub fn line(&self) -> u64 {
        self.line
    }
}

impl Iterator for Records {
    type Item = Result<Value>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let Some(open) = &mut self.current else {
                let (path, format) = self.files.next()?;
                self.before += self.bytes;
                self.bytes = size(&path);
                (self.path, self.line) = (path, 0);
                match OpenRecords::new(&self.path, format) {
                    Ok(open) => self.current = Some(open),
                    Err(error) => return Some(Err(error)),
                }
                continue;
            };
            let next = open.next();
            self.line = open.line();
            match next {
                Ok(Some(parsed)) => {
                    self.is_repaired = parsed.is_repaired;
                    return Some(Ok(parsed.value));
                }
                Ok(None) => self.current = None,
                Err(error) => {
                    if matches!(error, Error::Io { .. } | Error::Parquet { .. }) {
                        self.current = None;
                    }
                    return Some(Err(error));
                }
            }
        }
    }
}

/// Bytes of a file; none if it cannot be read, which opening it will say.
fn size(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |metadata| metadata.len())
}

#[derive(Debug)]
enum OpenRecords {
    Lines(PathBuf, Lines),
    List(List),
    Table(Box<Rows>),
}

impl OpenRecords {
    fn new(path: &Path, format: Format) -> Result<Self> {
        Ok(match format {
            Format {
                kind: Kind::Parquet,
                ..
            } => Self::Table(Box::new(Rows::open(path)?)),
            Format {
                kind: Kind::Json,
                packing,
            } if List::is_list(path, packing)? => Self::List(List::open(path, packing)?),
            Format { packing, .. } => Self::Lines(path.to_owned(), Lines::open(path, packing)?),
        })
    }

    fn line(&self) -> u64 {
        match self {
            Self::Lines(_, lines) => lines.line(),
            Self::List(list) => list.element,
            Self::Table(rows) => rows.row(),
        }
    }

    /// About the bytes that were read so far of a file of `bytes` bytes.
    fn bytes_read(&self, bytes: u64) -> u64 {
        match self {
            Self::Lines(_, lines) => lines.bytes_read(),
            Self::List(list) => list.read.load(Ordering::Relaxed),
            Self::Table(rows) => (rows.share() * bytes as f64) as u64,
        }
    }

    fn next(&mut self) -> Result<Option<Parsed>> {
        match self {
            Self::Lines(path, lines) => loop {
                let Some(line) = lines.next_line()? else {
                    return Ok(None);
                };
                if !line.trim().is_empty() {
                    return parsed(path, lines.line(), line.as_bytes()).map(Some);
                }
            },
            Self::List(list) => list.next(),
            Self::Table(rows) => Ok(rows.next_row()?.map(|value| Parsed {
                value,
                is_repaired: false,
            })),
        }
    }
}

fn parsed(path: &Path, line: u64, text: &[u8]) -> Result<Parsed> {
    json::parse(text).map_err(|reason| Error::Json {
        path: path.to_owned(),
        line,
        reason,
    })
}

/// A file that is one list. Its elements are found by counting brackets outside strings, and
/// parsed one at a time.
struct List {
    path: PathBuf,
    bytes: io::Bytes<Unpacked>,
    read: Arc<AtomicU64>,
    place: RecordPlace,
    /// Elements read so far.
    element: u64,
}

#[derive(Clone, Copy)]
enum RecordPlace {
    Before,
    Inside,
    After,
}

impl std::fmt::Debug for List {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("List").field("path", &self.path).finish()
    }
}

impl List {
    /// Does the first visible character open a list?
    fn is_list(path: &Path, packing: Packing) -> Result<bool> {
        Ok(Self::open(path, packing)?.visible()? == Some(b'['))
    }

    fn open(path: &Path, packing: Packing) -> Result<Self> {
        let (reader, read) = files::open(path, packing)?;
        Ok(Self {
            path: path.to_owned(),
            bytes: reader.bytes(),
            read,
            place: RecordPlace::Before,
            element: 0,
        })
    }

    fn byte(&mut self) -> Result<Option<u8>> {
        let byte = self.bytes.next().transpose();
        byte.map_err(Error::io(&self.path, "read"))
    }

    /// The next byte that is neither space nor part of a byte order mark.
    fn visible(&mut self) -> Result<Option<u8>> {
        loop {
            match self.byte()? {
                Some(b' ' | b'\t' | b'\r' | b'\n' | 0xef | 0xbb | 0xbf) => {}
                byte => return Ok(byte),
            }
        }
    }

    fn next(&mut self) -> Result<Option<Parsed>> {
        match self.place {
            RecordPlace::Before => drop(self.visible()?),
            RecordPlace::Inside => {}
            RecordPlace::After => return Ok(None),
        }
        self.place = RecordPlace::Inside;
        let text = self.text()?;
        let is_empty = text.iter().all(u8::is_ascii_whitespace);
        if is_empty && matches!(self.place, RecordPlace::After) && self.element == 0 {
            return Ok(None);
        }
        self.element += 1;
        parsed(&self.path, self.element, &text).map(Some)
    }

    /// The text up to the comma or bracket that ends an element.
    fn text(&mut self) -> Result<Vec<u8>> {
        let (mut text, mut depth, mut in_string, mut escaped) = (Vec::new(), 0u64, false, false);
        while let Some(byte) = self.byte()? {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = in_string,
                b'"' => in_string = !in_string,
                _ if in_string => {}
                b'[' | b'{' => depth += 1,
                b',' if depth == 0 => return Ok(text),
                b']' if depth == 0 => {
                    self.place = RecordPlace::After;
                    return Ok(text);
                }
                b']' | b'}' => depth = depth.saturating_sub(1),
                _ => {}
            }
            text.push(byte);
        }
        self.place = RecordPlace::After;
        Err(Error::Json {
            path: self.path.clone(),
            line: self.element + 1,
            reason: "the list is not closed: not all of the file is here".into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(name: &str, bytes: &[u8]) -> Vec<Result<(u64, Value), String>> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        let mut records = records(&[path]).unwrap();
        let mut found = Vec::new();
        while let Some(record) = records.next() {
            assert!(records.path().ends_with(name));
            let line = records.line();
            let record = record.map(|value| (line, value));
            found.push(record.map_err(|error| error.to_string()));
        }
        found
    }

    fn values(name: &str, text: &str) -> Vec<Value> {
        let found = read(name, text.as_bytes()).into_iter();
        found.map(|record| record.unwrap().1).collect()
    }

    #[test]
    fn lists_and_lines_say_the_same() {
        let expected = [
            serde_json::json!({"a": "],\"[{", "b": [1, {"c": "é"}]}),
            serde_json::json!(2),
            serde_json::json!("x\\"),
        ];
        let [a, b, c] = expected.each_ref().map(Value::to_string);
        assert_eq!(
            values("a.json", &format!("\u{feff} [\n{a},\n {b} ,{c} ]\n")),
            expected
        );
        assert_eq!(values("a.jsonl", &format!("{a}\n\n{b}\n{c}")), expected);
        assert_eq!(values("a.json", &format!("{b}\n{a}\n"))[1], expected[0]);
        assert_eq!(values("a.json", " [ ] "), [Value::Null; 0]);
    }

    #[test]
    fn errors_name_the_record_and_reading_goes_on() {
        let check = |name: &str, text: &str, at: usize, expected: &str, count: usize| {
            let found = read(name, text.as_bytes());
            let error = found[at].as_ref().unwrap_err();
            assert!(error.contains(name) && error.contains(expected), "{error}");
            assert_eq!(found.len(), count, "{found:?}");
        };
        check(
            "a.json",
            "[1, nothing, {\"a\": 3}]",
            1,
            "record 2: expected",
            3,
        );
        check("a.json", "[1, 2,]", 2, "record 3: EOF", 3);
        check("a.json", "[1, [2", 1, "record 2: the list is not closed", 2);
        check("a.json", "{\n", 0, "record 1: EOF", 1);
        check("a.jsonl", "1\n\n{\n2", 1, "line 3: EOF", 3);
        let deep = "[".repeat(100_000);
        check("a.jsonl", &deep, 0, "line 1: recursion limit", 1);
    }

    #[test]
    fn a_folder_gives_records_without_settings_or_text() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text);
        write("b.jsonl", "2").unwrap();
        write("config.json", "{}").unwrap();
        write("notes.txt", "x").unwrap();
        write("a.jsonl", "1").unwrap();
        let found = records(&[folder.path().to_owned()]).unwrap();
        let found: Vec<Value> = found.map(Result::unwrap).collect();
        assert_eq!(found, [1, 2].map(Value::from));
        let text = records(&[folder.path().join("notes.txt")]);
        assert!(matches!(text, Err(Error::NoRecords { .. })));
    }
}
