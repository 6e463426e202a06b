//! Finds the files of a path by their extensions, and reads the lines of text files. The crate
//! `walkdir` is not used: it would replace one short recursive function.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use crate::{Error, Result};

/// The format of a file, by its extension.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    Txt,
    Jsonl,
    Json,
    Parquet,
}

impl Format {
    /// The format that a file's extension names.
    pub(crate) fn of(path: &Path) -> Option<Self> {
        match path.extension()?.to_str()? {
            "txt" => Some(Self::Txt),
            "jsonl" => Some(Self::Jsonl),
            "json" => Some(Self::Json),
            "parquet" => Some(Self::Parquet),
            _ => None,
        }
    }

    /// Whether it is read from a folder. There, .json files are settings more often than data.
    fn is_found(self) -> bool {
        self != Self::Json
    }
}

/// The files of the given paths, each with its format; folders are searched at any depth.
pub(crate) fn files(paths: &[PathBuf]) -> Result<Vec<(PathBuf, Format)>> {
    let mut files = Vec::new();
    for path in paths {
        let before = files.len();
        if path.is_dir() {
            walk(path, &mut files)?;
        } else {
            fs::metadata(path).map_err(Error::io(path, "read"))?;
            let format = Format::of(path);
            files.push((
                path.clone(),
                format.ok_or_else(|| Error::UnknownFormat { path: path.clone() })?,
            ));
        }
        if files.len() == before {
            return Err(Error::NoInput { path: path.clone() });
        }
    }
    Ok(files)
}

/// The record files among the paths and in folders. A path without any is an error.
pub(crate) fn record_files(paths: &[PathBuf]) -> Result<Vec<(PathBuf, Format)>> {
    let mut found = Vec::new();
    for path in paths {
        let before = found.len();
        let of_path = files(std::slice::from_ref(path))?.into_iter();
        found.extend(of_path.filter(|(_, format)| *format != Format::Txt));
        if found.len() == before {
            return Err(Error::NoRecords { path: path.clone() });
        }
    }
    Ok(found)
}

/// Adds the files below a folder that have a known extension, in the order of their names; links to
/// folders are not followed.
fn walk(folder: &Path, files: &mut Vec<(PathBuf, Format)>) -> Result<()> {
    let entries = fs::read_dir(folder).map_err(Error::io(folder, "list"))?;
    let paths = entries.map(|entry| entry.map(|entry| entry.path()));
    let mut paths = paths
        .collect::<Result<Vec<_>, _>>()
        .map_err(Error::io(folder, "list"))?;
    paths.sort();
    for path in paths {
        if path.is_dir() {
            if !path.is_symlink() {
                walk(&path, files)?;
            }
        } else if let Some(format) = Format::of(&path).filter(|format| format.is_found()) {
            files.push((path, format));
        }
    }
    Ok(())
}

/// One open file of text.
#[derive(Debug)]
pub(crate) struct Lines {
    path: PathBuf,
    reader: BufReader<File>,
    /// Lines read so far.
    line: u64,
}

impl Lines {
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(Error::io(path, "open"))?;
        Ok(Self {
            path: path.to_owned(),
            reader: BufReader::new(file),
            line: 0,
        })
    }

    /// Lines read so far.
    pub(crate) fn line(&self) -> u64 {
        self.line
    }

    /// The next line with its line break, without a byte order mark.
    pub(crate) fn next_line(&mut self) -> Result<Option<String>> {
        let mut bytes = Vec::new();
        let read = self.reader.read_until(b'\n', &mut bytes);
        if read.map_err(Error::io(&self.path, "read"))? == 0 {
            return Ok(None);
        }
        self.line += 1;
        let text = String::from_utf8(bytes).map_err(|_| Error::NotUtf8 {
            path: self.path.clone(),
            line: self.line,
        })?;
        Ok(Some(match text.strip_prefix('\u{feff}') {
            Some(rest) if self.line == 1 => rest.to_owned(),
            _ => text,
        }))
    }
}
