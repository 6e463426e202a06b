//! The files of a data set that are scored, and those that examples come from.

use std::path::{Path, PathBuf};

use super::error::{Error, Result};
use super::layout::TaskLayout;

/// Splits of a data set that are scored, and that examples come from, the best first, after the
/// one that the layout says.
const SCORED: [&str; 3] = ["test", "validation", "val"];
const SHOWN: [&str; 3] = ["train", "validation", "dev"];

/// Ends of the names of files of records. Those that cannot be read are refused by name, not left
/// out in favour of another split.
const RECORDS: [&str; 6] = [
    ".jsonl",
    ".json",
    ".ndjson",
    ".parquet",
    ".json.gz",
    ".jsonl.gz",
];

/// The files that are scored: those of a split if the path is a folder of splits, else the path
/// itself.
pub(super) fn scored(path: &Path, layout: Option<TaskLayout>) -> Result<Vec<PathBuf>> {
    let first = layout.map(TaskLayout::scored);
    let split = first
        .into_iter()
        .chain(SCORED)
        .find_map(|split| of_split(path, split).transpose());
    Ok(split.transpose()?.unwrap_or_else(|| vec![path.to_owned()]))
}

/// The files that examples come from, if the path is a folder with another split for them.
pub(super) fn shown(path: &Path, layout: Option<TaskLayout>) -> Result<Option<Vec<PathBuf>>> {
    let scored = scored(path, layout)?;
    for split in layout.map(TaskLayout::shown).into_iter().chain(SHOWN) {
        match of_split(path, split)? {
            Some(files) if files != scored => return Ok(Some(files)),
            _ => {}
        }
    }
    Ok(None)
}

/// The files of a folder that are named after a split, as `test-00000-of-00001.parquet` is.
fn of_split(folder: &Path, split: &str) -> Result<Option<Vec<PathBuf>>> {
    if !folder.is_dir() {
        return Ok(None);
    }
    let io = |source| Error::Io {
        path: folder.to_owned(),
        source,
    };
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(io)? {
        let path = entry.map_err(io)?.path();
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        let is_record = RECORDS.iter().any(|end| name.ends_with(end));
        let rest = name.strip_prefix(split);
        if is_record && rest.is_some_and(|rest| rest.starts_with(['-', '.', '_'])) {
            files.push(path);
        }
    }
    files.sort();
    Ok((!files.is_empty()).then_some(files))
}
