//! Files and folders that a kill cannot tear: temporary sibling, write, fsync, rename, fsync of the folder.
//!
//! A reader finds the old file or the new one, whole, at any instant. The crates `atomicwrites` and `tempfile` do the first
//! half; neither syncs the folder after the rename, without which a power cut may undo it. So the temporary name comes
//! from `tempfile` and the order of the steps stands here.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::Path;

/// Writes the file `path` through `f` and makes it durable before it gets its name.
///
/// The temporary file is in the folder of `path` and is removed if `f` fails.
pub fn write(
    path: &Path,
    f: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>,
) -> io::Result<()> {
    write_with(path, |e| e, f)
}

/// [`write`] for an `f` that fails for other reasons too; `wrap` turns an I/O error into its kind of error.
pub fn write_with<T, E>(
    path: &Path,
    wrap: impl Fn(io::Error) -> E,
    f: impl FnOnce(&mut BufWriter<File>) -> Result<T, E>,
) -> Result<T, E> {
    make(path, &wrap, |temporary| fill(temporary, &wrap, f))
}

/// Makes the file `path`: `f` gets the path of an empty temporary file, which it fills and may read again to prove it.
pub fn make<T, E>(
    path: &Path,
    wrap: impl Fn(io::Error) -> E,
    f: impl FnOnce(&Path) -> Result<T, E>,
) -> Result<T, E> {
    let folder = folder_of(path);
    let prefix = prefix(path).map_err(&wrap)?;
    let mut builder = tempfile::Builder::new();
    let temporary = builder.prefix(&prefix).suffix(SUFFIX).tempfile_in(folder);
    let temporary = temporary.map_err(&wrap)?.into_temp_path();
    let made = f(&temporary)?;
    let finish = || {
        let file = OpenOptions::new().write(true).open(&temporary)?;
        make_readable(&temporary, 0o644)?;
        file.sync_all()?;
        drop(file);
        temporary.persist(path)?;
        sync_folder(folder)
    };
    finish().map_err(&wrap)?;
    Ok(made)
}

/// Makes the folder `path`, which must be absent or empty: `f` gets the path of an empty temporary folder.
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
    let made = f(temporary.path())?;
    let finish = || {
        make_readable(temporary.path(), 0o755)?;
        sync_folder(temporary.path())?;
        if path.is_dir() {
            fs::remove_dir(path)?; // removes an empty folder only
        }
        fs::rename(temporary.path(), path)?;
        let _renamed = temporary.keep();
        sync_folder(parent)
    };
    finish().map_err(&wrap)?;
    Ok(made)
}

/// Writes an existing file through a buffer, without making it durable: the content of a temporary file of [`make`].
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

/// Makes the entries of `folder` itself durable: its new, renamed and removed names.
pub fn sync_folder(folder: &Path) -> io::Result<()> {
    // Windows cannot open a folder as a file; its renames are durable with the file.
    if cfg!(unix) {
        File::open(folder)?.sync_all()
    } else {
        Ok(())
    }
}

/// The folder that holds `path`; the current one for a bare name.
pub fn folder_of(path: &Path) -> &Path {
    path.parent()
        .filter(|p| !p.as_os_str().is_empty())
        .unwrap_or(Path::new("."))
}

/// How the name of a temporary sibling ends.
const SUFFIX: &str = ".part";

/// How the name of a temporary sibling of `path` begins: hidden, then the name of `path`.
fn prefix(path: &Path) -> io::Result<OsString> {
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let mut prefix = OsString::from(".");
    prefix.push(name);
    Ok(prefix)
}

/// Temporary files and folders are private to their owner; a finished model has the usual permissions.
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
