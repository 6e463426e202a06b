//! Where a model lies: a path, or what a name of the hub stands for.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use sterna_train::recipe::ON_HUB;

/// What a verb can use.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Want {
    /// Safetensors with their config and tokenizer, or one GGUF file.
    Checkpoint,
    /// One file that `sterna convert` wrote.
    Packed,
    /// Either, a checkpoint first.
    Either,
    /// What the trainer reads, of a data set.
    Texts,
}

/// Where a model lies: the path that was given, if something is there or it cannot be a name; else the hub is asked.
pub fn locate(given: &Path, want: Want) -> anyhow::Result<PathBuf> {
    let is_path = given.is_absolute() || given.starts_with(".") || given.starts_with("..");
    match given.symlink_metadata() {
        Err(e) if e.kind() == ErrorKind::NotFound && !is_path => from_hub(given, want),
        _ => Ok(given.to_owned()),
    }
}

#[cfg(feature = "hub")]
fn from_hub(given: &Path, want: Want) -> anyhow::Result<PathBuf> {
    use crate::hub::{Hub, Name, Settings};
    let name = Name::parse(&given.to_string_lossy())?;
    match Hub::open(Settings::from_env()?).fetch(&name, want) {
        Ok(fetched) => Ok(fetched.path),
        Err(error) if error.is_unknown_model() && want != Want::Texts => {
            let context = "no such file or folder, so the hub was asked";
            Err(anyhow::Error::new(error).context(context))
        }
        Err(error) => Err(error.into()),
    }
}

#[cfg(not(feature = "hub"))]
fn from_hub(given: &Path, _: Want) -> anyhow::Result<PathBuf> {
    let given = given.display();
    let why = format!("{given}: no such file or folder; this program was built without the hub");
    Err(crate::exit::BadInput(why).into())
}

/// The path that was given, or where the files of a data set lie as of one commit, whose hash is in the path.
pub fn texts(given: &Path) -> anyhow::Result<PathBuf> {
    match given.to_str().is_some_and(|text| text.starts_with(ON_HUB)) {
        true => from_hub(given, Want::Texts),
        false => Ok(given.to_owned()),
    }
}
