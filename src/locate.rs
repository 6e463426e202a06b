//! Turns an argument into a path: a file or folder on this machine, or a model or data set of the
//! hub.

use std::path::{Path, PathBuf};

#[cfg(feature = "hub")]
pub use sterna_hub::Want;

/// The path of a model: the given path if it exists or cannot be a name, or the files that the hub
/// has under that name.
pub fn locate(given: &Path, want: Want) -> anyhow::Result<PathBuf> {
    use std::io::ErrorKind::NotFound;
    let is_path = given.is_absolute() || given.starts_with(".") || given.starts_with("..");
    match given.symlink_metadata() {
        Err(e) if e.kind() == NotFound && !is_path => model(given, want),
        _ => Ok(given.to_owned()),
    }
}

#[cfg(feature = "hub")]
mod by_name {
    use std::path::{Path, PathBuf};

    use anyhow::Context;
    use sterna_hub::{Hub, HubSettings, Name, Want, is_dataset};

    use crate::exit::BadInput;
    use crate::terminal::Download;

    const ABSENT: &str = "no such file or folder";

    /// The model of a name. For a mistyped file name the error does not mention the hub.
    pub fn model(given: &Path, want: Want) -> anyhow::Result<PathBuf> {
        let text = given.to_string_lossy();
        let name = match Name::parse(&text) {
            Ok(name) => name,
            Err(error) if text.contains([':', '@']) => return Err(error).context(ABSENT),
            Err(_) => return Err(BadInput(format!("{text}: {ABSENT}")).into()),
        };
        fetch(&name, want).map_err(|error| match error.downcast_ref() {
            Some(sterna_hub::Error::Absent { .. } | sterna_hub::Error::Denied { .. }) => {
                error.context(format!("{ABSENT}, so the hub was asked"))
            }
            _ => error,
        })
    }

    /// The given path, or the files of a data set at one commit, whose hash is part of the path.
    pub fn texts(given: &Path) -> anyhow::Result<PathBuf> {
        match given.to_str().filter(|text| is_dataset(text)) {
            Some(name) => fetch(&Name::parse(name)?, Want::Texts),
            None => Ok(given.to_owned()),
        }
    }

    fn fetch(name: &Name, want: Want) -> anyhow::Result<PathBuf> {
        let download = Download::new();
        let fetched = Hub::open(HubSettings::from_env()?, &download).fetch(name, want);
        download.finish();
        Ok(fetched?.path)
    }
}

#[cfg(not(feature = "hub"))]
mod by_name {
    use std::path::{Path, PathBuf};

    use crate::exit::BadInput;

    /// The kinds of files that a verb reads; without the hub all of them are paths.
    #[derive(Debug, Clone, Copy, PartialEq)]
    pub enum Want {
        Checkpoint,
        Runnable,
        Either,
    }

    pub fn model(given: &Path, _: Want) -> anyhow::Result<PathBuf> {
        let given = given.display();
        let why = "no such file or folder; this program was built without the hub";
        Err(BadInput(format!("{given}: {why}")).into())
    }

    pub fn texts(given: &Path) -> anyhow::Result<PathBuf> {
        match given.exists() {
            true => Ok(given.to_owned()),
            false => model(given, Want::Either),
        }
    }
}

#[cfg(not(feature = "hub"))]
pub use by_name::Want;
use by_name::model;
pub use by_name::texts;
