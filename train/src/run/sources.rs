//! `data/sources.json`: the files that the data of a run were made of.

use std::io::Write;
use std::path::{Path, PathBuf};

use sterna_datasets::Sources;
use sterna_ternary::durable;

use crate::recipe::Text;
use crate::{Error, Recipe, Result};

const NAME: &str = "sources.json";

/// Writes the files of a recipe as they are now into the `data` folder.
pub(super) fn record(recipe: &Recipe, folder: &Path) -> Result<()> {
    let (texts, records) = paths(recipe);
    let sources = Sources::read(&texts, &records)?;
    std::fs::create_dir_all(folder).map_err(Error::io(folder))?;
    let text = serde_json::to_string_pretty(&sources).expect("names and numbers are JSON");
    let path = folder.join(NAME);
    durable::write(&path, |w| w.write_all(text.as_bytes())).map_err(Error::io(&path))
}

/// The files as they were; none if the record was removed.
pub(super) fn recorded(folder: &Path) -> Result<Option<Sources>> {
    let path = folder.join(NAME);
    let bytes = match std::fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::io(&path)(error)),
    };
    let sources = serde_json::from_slice(&bytes).map_err(|e| Error::Recipe {
        path,
        why: format!("{e}; remove the file, it is only a record"),
    })?;
    Ok(Some(sources))
}

/// What changed since the data were made, one line a file.
pub(super) fn changes(recipe: &Recipe, folder: &Path) -> Result<Vec<String>> {
    let (texts, records) = paths(recipe);
    match recorded(folder)? {
        Some(sources) => Ok(sources.changes(&texts, &records)?),
        None => Ok(Vec::new()),
    }
}

/// Compares the files of a recipe, which are elsewhere, with those that the data were made of, and
/// records where they are now. Returns a file with other contents if there is one.
pub(super) fn moved(recipe: &Recipe, folder: &Path) -> Result<Option<PathBuf>> {
    let (texts, records) = paths(recipe);
    let now = Sources::read(&texts, &records)?;
    let differs = match recorded(folder)? {
        Some(before) => before.differs(&now).map(Path::to_owned),
        None => recipe.data_paths().next().map(Path::to_owned),
    };
    if differs.is_none() {
        record(recipe, folder)?;
    }
    Ok(differs)
}

/// The paths of texts and of conversations.
fn paths(recipe: &Recipe) -> (Vec<PathBuf>, Vec<PathBuf>) {
    let texts = recipe.data.text.iter().flatten().map(Text::path);
    let records = recipe.data.chat.clone().unwrap_or_default();
    (texts.map(Path::to_owned).collect(), records)
}
