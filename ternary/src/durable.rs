//! Durable writes: temporary sibling, write, fsync, rename, fsync of the folder.
//!
//! At any instant, also after a crash, a reader finds either the complete old file or the complete
//! new one. The crates `atomicwrites` and `tempfile` do not sync the folder after the rename, so a
//! power cut may undo the rename. On Windows `tempfile` gives a file the attribute of temporary
//! ones, and cannot rename a path of more than 260 characters. This file therefore takes only the
//! temporary name from `tempfile` and does the other steps itself.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use crate::temporary::Listed;

/// Writes the file `path` through `f`. The file is durable before it gets its name.
///
/// The temporary file is in the same folder as `path` and is removed if `f` fails.
pub fn write(
    path: &Path,
    f: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>,
) -> io::Result<()> {
    write_with(path, |e| e, f)
}

/// [`write()`] for an `f` with its own error type; `wrap` converts I/O errors to that type.
pub fn write_with<T, E>(
    path: &Path,
    wrap: impl Fn(io::Error) -> E,
    f: impl FnOnce(&mut BufWriter<File>) -> Result<T, E>,
) -> Result<T, E> {
    make(path, &wrap, |temporary| fill(temporary, &wrap, f))
}

/// Makes the file `path`. `f` gets the path of an empty temporary file, fills it and may read it
/// back to verify it.
pub fn make<T, E>(
    path: &Path,
    wrap: impl Fn(io::Error) -> E,
    f: impl FnOnce(&Path) -> Result<T, E>,
) -> Result<T, E> {
    let folder = folder_of(path);
    let prefix = prefix(path).map_err(&wrap)?;
    let mut builder = tempfile::Builder::new();
    let builder = builder.prefix(&prefix).suffix(SUFFIX);
    let temporary = builder.make_in(folder, create).map_err(&wrap)?;
    let temporary = temporary.into_temp_path();
    let _listed = Listed::new(&temporary);
    let made = f(&temporary)?;
    let finish = || {
        let file = OpenOptions::new().write(true).open(&temporary)?;
        make_readable(&temporary, 0o644)?;
        file.sync_all()?;
        drop(file);
        rename(&temporary, path)?; // so the drop of `temporary` finds nothing to remove
        sync_name(path)
    };
    finish().map_err(&wrap)?;
    Ok(made)
}

/// Makes the folder `path`, which must be absent or empty. `f` gets the path of an empty temporary
/// folder.
pub fn make_folder<T, E>(
    path: &Path,
    wrap: impl Fn(io::Error) -> E,
    f: impl FnOnce(&Path) -> Result<T, E>,
) -> Result<T, E> {
    let parent = folder_of(path);
    let prefix = prefix(path).map_err(&wrap)?;
    let mut builder = tempfile::Builder::new();
    let temporary = builder.prefix(&prefix).suffix(SUFFIX).tempdir_in(parent);
    let temporary = temporary.map_err(&wrap)?;
    let _listed = Listed::new(temporary.path());
    let made = f(temporary.path())?;
    let finish = || {
        make_readable(temporary.path(), 0o755)?;
        sync_folder(temporary.path())?;
        if path.is_dir() {
            fs::remove_dir(path)?; // removes an empty folder only
        }
        rename(temporary.path(), path)?;
        let _renamed = temporary.keep();
        sync_folder(parent)
    };
    finish().map_err(&wrap)?;
    Ok(made)
}

/// Writes an existing file through a buffer, without fsync. Use it to fill the temporary file of
/// [`make`].
pub fn fill<T, E>(
    path: &Path,
    wrap: impl Fn(io::Error) -> E,
    f: impl FnOnce(&mut BufWriter<File>) -> Result<T, E>,
) -> Result<T, E> {
    let file = OpenOptions::new().write(true).truncate(true).open(path);
    let mut writer = BufWriter::with_capacity(1 << 20, file.map_err(&wrap)?);
    let made = f(&mut writer)?;
    writer.flush().map_err(&wrap)?;
    Ok(made)
}

/// Removes the temporary siblings of `path` that processes left when they were killed. No other
/// process may write `path` at the same time.
pub fn remove_abandoned(path: &Path) -> io::Result<()> {
    let prefix = prefix(path)?;
    let entries = fs::read_dir(folder_of(path))?;
    for entry in entries.flatten() {
        let name = entry.file_name();
        let name = name.as_encoded_bytes();
        let random = name.strip_prefix(prefix.as_encoded_bytes());
        let random = random.and_then(|rest| rest.strip_suffix(SUFFIX.as_bytes()));
        // A longer rest belongs to another path, whose name begins with this one.
        if random.is_none_or(|random| random.len() != RANDOM_CHARACTERS) {
            continue;
        }
        match entry.file_type()?.is_dir() {
            true => fs::remove_dir_all(entry.path())?,
            false => fs::remove_file(entry.path())?,
        }
    }
    Ok(())
}

/// Creates a file that only its owner can read. Windows lets a file inherit the rights of its
/// folder.
fn create(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

/// Renames a file or a folder. A file at `to` is replaced, also while other programs read it.
///
/// Windows refuses this if another program has mapped the file, or opened it for itself alone.
/// Scanners for viruses do this to every new file for a moment, so there the rename is tried for
/// two seconds.
///
/// # Errors
/// Those of [`fs::rename`]; a file in use is explained.
pub fn rename(from: &Path, to: &Path) -> io::Result<()> {
    let start = Instant::now();
    loop {
        match fs::rename(from, to) {
            Err(error) if is_in_use(&error) => {
                if start.elapsed() < PATIENCE {
                    std::thread::sleep(PATIENCE / 40);
                    continue;
                }
                let what = if to.exists() { to } else { from };
                return Err(in_use(what, &error));
            }
            renamed => return renamed,
        }
    }
}

/// How long Windows is asked again for a file that is in use.
const PATIENCE: Duration = Duration::from_secs(2);

/// Whether Windows refused because somebody uses the file: access denied, a sharing violation, a
/// locked part, or a file that is mapped.
fn is_in_use(error: &io::Error) -> bool {
    cfg!(windows) && matches!(error.raw_os_error(), Some(5 | 32 | 33 | 1224))
}

fn in_use(what: &Path, error: &io::Error) -> io::Error {
    let name = what.file_name().unwrap_or_default().display();
    let why = format!(
        "Windows does not let {name} be replaced or renamed ({error}). Another program uses it, \
         such as a `sterna serve` or `sterna chat` with this model, or it is read-only. End that \
         program and try again, or give another name"
    );
    io::Error::new(error.kind(), why)
}

/// Makes the name of a file durable that was just renamed.
fn sync_name(path: &Path) -> io::Result<()> {
    // On Windows a flush of the file also flushes the journal, in which the rename is.
    #[cfg(windows)]
    OpenOptions::new().write(true).open(path)?.sync_all()?;
    sync_folder(folder_of(path))
}

/// Makes new, renamed and removed names in `folder` durable. Windows cannot do this: it writes the
/// journal of its file system within seconds.
pub fn sync_folder(folder: &Path) -> io::Result<()> {
    if cfg!(unix) {
        File::open(folder)?.sync_all()
    } else {
        Ok(())
    }
}

/// The folder that contains `path`; `.` for a bare file name.
pub fn folder_of(path: &Path) -> &Path {
    path.parent()
        .filter(|p| !p.as_os_str().is_empty())
        .unwrap_or(Path::new("."))
}

/// Suffix of the names of temporary siblings.
const SUFFIX: &str = ".part";
/// Random characters between prefix and suffix, as the crate `tempfile` has them by default.
const RANDOM_CHARACTERS: usize = 6;

/// Prefix of a temporary sibling's name: a dot, then the name of `path`.
fn prefix(path: &Path) -> io::Result<OsString> {
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let mut prefix = OsString::from(".");
    prefix.push(name);
    Ok(prefix)
}

/// Sets the usual permissions, because temporary files and folders are private to their owner.
fn make_readable(path: &Path, mode: u32) -> io::Result<()> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
    }
    let _ = (path, mode);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_write_leaves_the_old_file_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model");
        write(&path, |w| w.write_all(b"old")).unwrap();
        let failed = write(&path, |w| {
            w.write_all(b"new")?;
            Err(io::Error::other("the disk is full"))
        });
        assert_eq!(failed.unwrap_err().to_string(), "the disk is full");
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        write(&path, |w| w.write_all(b"new")).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
    }

    #[test]
    fn a_file_that_is_open_is_replaced_or_the_error_says_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model");
        write(&path, |w| w.write_all(b"old")).unwrap();
        let open = File::open(&path).unwrap();
        match write(&path, |w| w.write_all(b"new")) {
            Ok(()) => assert_eq!(fs::read(&path).unwrap(), b"new"),
            Err(error) => {
                let said = error.to_string();
                assert!(cfg!(windows) && said.contains("End that program"), "{said}");
                assert_eq!(fs::read(&path).unwrap(), b"old");
            }
        }
        drop(open);
        write(&path, |w| w.write_all(b"newest")).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"newest");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn paths_may_be_long_and_in_any_language() {
        let folder = tempfile::tempdir().unwrap();
        let long = format!("Größe 日本 {}", "x".repeat(150));
        let parent = folder.path().join(&long).join(&long);
        fs::create_dir_all(&parent).unwrap();
        let path = parent.join("🐟 model");
        write(&path, |w| w.write_all(b"old")).unwrap();
        write(&path, |w| w.write_all(b"new")).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        make_folder(&parent.join("run"), |e| e, |_| Ok::<_, io::Error>(())).unwrap();
        let made = fs::read_dir(&parent).unwrap();
        assert_eq!(made.count(), 2);
    }

    #[test]
    fn what_a_killed_process_left_is_removed_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let path = at("model");
        // A process that is killed neither renames nor removes.
        let left = make(
            &path,
            |e| e,
            |file| {
                fs::copy(file, at("copy"))?;
                Ok::<_, io::Error>(file.file_name().unwrap().to_owned())
            },
        );
        fs::rename(at("copy"), folder.path().join(left.unwrap())).unwrap();
        let tree = at(".modelAbCdEf.part");
        fs::create_dir(&tree).unwrap();
        fs::write(tree.join("config.json"), "{}").unwrap();
        let others = [
            ".model2AbCdEf.part",
            ".modelAbCdEf.partial",
            "modelAbCdEf.part",
        ];
        for name in others {
            fs::write(at(name), "x").unwrap();
        }
        remove_abandoned(&path).unwrap();
        let names = fs::read_dir(folder.path()).unwrap();
        let mut names: Vec<_> = names
            .map(|e| e.unwrap().file_name().into_string())
            .collect();
        names.sort();
        let mut expected: Vec<_> = others
            .into_iter()
            .chain(["model"])
            .map(String::from)
            .collect();
        expected.sort();
        assert_eq!(
            names.into_iter().collect::<Result<Vec<_>, _>>().unwrap(),
            expected
        );
    }

    #[test]
    fn a_folder_appears_whole_or_not_at_all() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("model");
        let made = |content: io::Result<()>| {
            make_folder(
                &path,
                |e| e,
                |temporary| {
                    fs::write(temporary.join("config.json"), "{}")?;
                    content
                },
            )
        };
        made(Err(io::Error::other("no"))).unwrap_err();
        assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 0);
        fs::create_dir(&path).unwrap(); // an empty folder is replaced
        made(Ok(())).unwrap();
        assert_eq!(fs::read(path.join("config.json")).unwrap(), b"{}");
        made(Ok(())).unwrap_err(); // any other is not
        assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 1);
    }
}
