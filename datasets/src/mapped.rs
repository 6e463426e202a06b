//! Maps files of this crate into memory.

use std::fs::File;
use std::path::Path;

use memmap2::Mmap;

use crate::{Error, Result};

/// Maps a file. It must not be changed while it is mapped: the writers of this crate replace files
/// instead of changing them.
pub(crate) fn map(path: &Path) -> Result<Mmap> {
    let file = File::open(path).map_err(Error::io(path, "open"))?;
    // SAFETY: the mapping is read-only. Changing the file meanwhile is excluded by the contract
    // above.
    #[allow(unsafe_code)]
    let map = unsafe { Mmap::map(&file) };
    map.map_err(Error::io(path, "map"))
}
