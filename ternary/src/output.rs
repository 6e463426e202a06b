//! Paths of results, checked before any work starts.
//!
//! A command that downloads and converts gigabytes must detect an unusable output path at its
//! start. A path is therefore first converted to an [`Output`] or an [`OutputFolder`]; only these
//! can be written to. While one process writes a result, others that want to write the same one are
//! refused.

use std::fs::File;
use std::io::BufWriter;
use std::path::{Path, PathBuf};

use crate::{Claim, Error, Result, durable};

/// The path of a file to write. An existing file is replaced only when the new one is complete.
#[derive(Debug, Clone)]
pub struct Output {
    path: PathBuf,
}

impl Output {
    /// Checks that a file can be written to this path.
    ///
    /// # Errors
    /// [`Error::Output`] if the path is a folder, its parent folder does not exist, or Windows has
    /// a device of that name.
    pub fn new(path: &Path) -> Result<Output> {
        if path.file_name().is_none() || path.is_dir() {
            let why = "is a folder; give the name of a file in it";
            return Err(refused(path, why));
        }
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if cfg!(windows) && is_device(&name) {
            let why = "is the name of a device on Windows; give another name";
            return Err(refused(path, why));
        }
        check_parent(path)?;
        Ok(Output {
            path: path.to_owned(),
        })
    }

    /// The path of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Checks that the file is not one of `inputs`, also through links.
    ///
    /// # Errors
    /// [`Error::Output`] with the path of that input.
    pub fn refuse_inputs(&self, inputs: &[PathBuf]) -> Result<()> {
        let out = &self.path;
        // An input that does not exist cannot be canonicalized, but its folder can.
        let place = |path: &Path| {
            let folder = durable::folder_of(path).canonicalize().ok()?;
            Some(folder.join(path.file_name()?))
        };
        let target = |path: &Path| path.canonicalize().ok();
        // Some systems canonicalize no long path.
        let written = |path: &Path| std::path::absolute(path).ok();
        let is_same = |a: Option<PathBuf>, b: Option<PathBuf>| a.is_some() && a == b;
        let is_out = |input: &&PathBuf| {
            is_same(place(input), place(out))
                || is_same(target(input), target(out))
                || is_same(written(input), written(out))
        };
        match inputs.iter().find(is_out) {
            None => Ok(()),
            Some(input) => {
                let why = format!(
                    "is the input {}; give another name, inputs are never changed",
                    input.display()
                );
                Err(refused(out, &why))
            }
        }
    }

    /// Writes the file durably through `f`; see [`durable::write`].
    ///
    /// # Errors
    /// Those of `f`, and [`Error::Output`] if another process writes the file.
    pub fn write<T, E: From<Error>>(
        &self,
        f: impl FnOnce(&mut BufWriter<File>) -> std::result::Result<T, E>,
    ) -> std::result::Result<T, E> {
        let _claim = claim(&self.path)?;
        durable::write_with(&self.path, |e| Error::io(&self.path)(e).into(), f)
    }

    /// Makes the file durably under a temporary name, where `f` may read it back; see
    /// [`durable::make`].
    ///
    /// # Errors
    /// Those of `f`, and [`Error::Output`] if another process writes the file.
    pub fn make<T, E: From<Error>>(
        &self,
        f: impl FnOnce(&Path) -> std::result::Result<T, E>,
    ) -> std::result::Result<T, E> {
        let _claim = claim(&self.path)?;
        durable::make(&self.path, |e| Error::io(&self.path)(e).into(), f)
    }
}

/// The path of a folder to make. It must be new or empty, since a mixture of two checkpoints would
/// be invalid.
#[derive(Debug, Clone)]
pub struct OutputFolder {
    path: PathBuf,
}

impl OutputFolder {
    /// Checks that a folder can be made at this path.
    ///
    /// # Errors
    /// [`Error::Output`] if the path exists and is not an empty folder, or its parent does not
    /// exist.
    pub fn new(path: &Path) -> Result<OutputFolder> {
        let is_empty = || {
            path.read_dir()
                .is_ok_and(|mut entries| entries.next().is_none())
        };
        if path.file_name().is_none() || (path.exists() && !is_empty()) {
            let why = "exists and is not empty; give the name of a new folder";
            return Err(refused(path, why));
        }
        check_parent(path)?;
        Ok(OutputFolder {
            path: path.to_owned(),
        })
    }

    /// The path of the folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes the folder durably under a temporary name; see [`durable::make_folder`].
    ///
    /// # Errors
    /// Those of `f`, and [`Error::Output`] if another process writes the folder.
    pub fn make<T, E: From<Error>>(
        &self,
        f: impl FnOnce(&Path) -> std::result::Result<T, E>,
    ) -> std::result::Result<T, E> {
        let _claim = claim(&self.path)?;
        durable::make_folder(&self.path, |e| Error::io(&self.path)(e).into(), f)
    }
}

/// Claims a result and removes what processes left that were killed while they wrote it.
fn claim(path: &Path) -> Result<Claim> {
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(".lock");
    let lock = durable::folder_of(path).join(name);
    let doing = "is writing it; wait for its end, or give another name";
    let claim = Claim::new(&lock).map_err(|refusal| refusal.explain(path, doing))?;
    if claim.is_exclusive() {
        durable::remove_abandoned(path).map_err(Error::io(durable::folder_of(path)))?;
    }
    Ok(claim)
}

/// Whether a name is that of a device on Windows, such as `nul` or `aux.json`.
pub fn is_device(name: &str) -> bool {
    let stem = name.split(['.', ':']).next().unwrap_or(name).trim_end();
    let stem = stem.to_ascii_uppercase();
    let port = ["COM", "LPT"]
        .iter()
        .find_map(|port| stem.strip_prefix(port));
    let is_port = port.is_some_and(|port| matches!(port.as_bytes(), [b'1'..=b'9']));
    is_port || ["CON", "PRN", "AUX", "NUL"].contains(&&*stem)
}

fn check_parent(path: &Path) -> Result<()> {
    let folder = durable::folder_of(path);
    match folder.is_dir() {
        true => Ok(()),
        false => {
            let why = format!(
                "the folder {} does not exist; make it first",
                folder.display()
            );
            Err(refused(path, &why))
        }
    }
}

fn refused(path: &Path, why: &str) -> Error {
    Error::Output {
        path: path.to_owned(),
        why: why.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_writer_at_a_time_and_nothing_of_a_killed_one_remains() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let out = Output::new(&at("model")).unwrap();
        std::fs::write(at(".modelAbCdEf.part"), "half").unwrap();
        let write = |text: &str| {
            out.write(|file| {
                std::io::Write::write_all(file, text.as_bytes()).unwrap();
                Ok::<_, Error>(())
            })
        };
        out.make(|_| {
            assert!(!at(".modelAbCdEf.part").exists());
            let error = write("second").unwrap_err().to_string();
            let own = std::process::id();
            assert!(
                error.contains(&format!("process {own} is writing it")),
                "{error}"
            );
            Ok::<_, Error>(())
        })
        .unwrap();
        write("second").unwrap();
        assert_eq!(std::fs::read(at("model")).unwrap(), b"second");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn devices_of_windows_are_known() {
        for name in ["nul", "NUL.sterna", "con .x", "Com1", "lpt9.a.b", "aux:x"] {
            assert!(is_device(name), "{name}");
        }
        for name in [
            "null", "com", "com0", "com10", "lpta", "a.nul", "console", "",
        ] {
            assert!(!is_device(name), "{name}");
        }
    }

    #[test]
    fn paths_that_cannot_be_written_are_refused_before_any_work() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        std::fs::write(path("file"), "x").unwrap();
        std::fs::create_dir(path("empty")).unwrap();
        let check = |error: Error, part: &str| {
            assert!(matches!(error, Error::Output { .. }), "{error}");
            assert!(error.to_string().contains(part), "{error}");
        };
        check(Output::new(folder.path()).unwrap_err(), "is a folder");
        check(Output::new(&path("no/x")).unwrap_err(), "does not exist");
        check(OutputFolder::new(&path("no/x")).unwrap_err(), "make it");
        check(OutputFolder::new(&path("file")).unwrap_err(), "exists");
        check(OutputFolder::new(folder.path()).unwrap_err(), "not empty");
        OutputFolder::new(&path("empty")).unwrap();
        let out = Output::new(&path("file")).unwrap();
        let error = out.refuse_inputs(&[path("other"), path("empty/../file")]);
        check(error.unwrap_err(), "is the input");
        out.refuse_inputs(&[path("other")]).unwrap();
    }
}
