//! The bytes of a packed file in memory: a mapping of the file, or a copy on huge pages.
//!
//! Generation reads all weights once per token. With pages of 4 KiB the processor needs an address
//! translation every 4 KiB, which costs up to half of the memory bandwidth, mostly in virtual
//! machines. The kernel maps a file with pages of 2 MiB only if the file system caches it that way.
//! On other file systems a copy in anonymous memory on huge pages is worth its cost: some tenths of
//! a second per gigabyte. The kernel can reclaim the cached file, so either way the memory that is
//! needed is the size of the file.

use std::fs::File;
use std::io;
use std::ops::{Deref, DerefMut, Range};

use memmap2::{Mmap, MmapMut};

/// How a packed file is loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Memory {
    /// Map the file, or copy it into huge pages if the mapping has none and enough memory is free.
    #[default]
    Auto,
    /// Map the file. Opening is immediate, and processes share its pages.
    Map,
    /// Copy the file.
    Copy,
}

impl Memory {
    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Memory::Auto => "auto",
            Memory::Map => "map",
            Memory::Copy => "copy",
        }
    }
}

/// The bytes of a file, mapped or copied.
#[derive(Debug)]
pub(crate) enum FileBytes {
    Mapped(Mmap),
    Copied(HugePages),
}

/// Memory that starts at a huge page and is on huge pages where the system has some.
#[derive(Debug)]
pub struct HugePages {
    map: MmapMut,
    /// Offset of the first huge page in the mapping.
    start: usize,
    len: usize,
}

/// A multiple of every page size of a mapping.
#[cfg(unix)]
const PAGE: usize = 64 << 10;
/// Bytes of a huge page.
const HUGE: usize = 2 << 20;
/// With [`Memory::Auto`], files below this size are mapped.
const WORTHWHILE: usize = 64 << 20;

impl FileBytes {
    /// Maps or copies a file. The file must not change while it is mapped.
    #[allow(unsafe_code)]
    pub fn open(file: &File, memory: Memory) -> io::Result<FileBytes> {
        // SAFETY: the mapping is read-only and private to this process. A file that another process
        // shortens while it is mapped ends this one with SIGBUS; `PackedFile::open` documents that
        // the file must stay as it is, and our own writer never changes a finished file, it renames
        // a new one over it.
        let map = unsafe { Mmap::map(file) }?;
        let copies = match memory {
            Memory::Map => false,
            Memory::Copy => true,
            Memory::Auto => map.len() >= WORTHWHILE && copy_is_faster(&map),
        };
        if !copies {
            return Ok(FileBytes::Mapped(map));
        }
        let len = map.len();
        drop(map); // or what was touched of it would count beside the copy
        copy(file, len)
    }

    /// Releases the pages that lie completely inside a part. After reading a file from start to end
    /// this way, only one part is in memory. A later access reads the pages again.
    #[allow(unsafe_code)]
    pub fn release(&self, part: Range<usize>) {
        #[cfg(unix)]
        if let FileBytes::Mapped(map) = self {
            let (start, end) = (
                part.start.next_multiple_of(PAGE),
                part.end.min(map.len()) / PAGE * PAGE,
            );
            if start < end {
                // SAFETY: the mapping is of a file, read-only and never written, so pages that were
                // dropped have the same bytes when they are read again. Where the system refuses,
                // they stay: nothing else depends on it.
                let _ = unsafe {
                    map.unchecked_advise_range(
                        memmap2::UncheckedAdvice::DontNeed,
                        start,
                        end - start,
                    )
                };
            }
        }
        #[cfg(not(unix))]
        let _ = part;
    }

    /// Whether the file was copied.
    pub fn is_copied(&self) -> bool {
        matches!(self, FileBytes::Copied(_))
    }
}

impl Deref for FileBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            FileBytes::Mapped(map) => map,
            FileBytes::Copied(bytes) => bytes,
        }
    }
}

impl HugePages {
    /// `len` zeros, for which the system finds memory when they are first written.
    ///
    /// # Errors
    /// Those of mapping so much memory.
    pub fn zeroed(len: usize) -> io::Result<HugePages> {
        let map = MmapMut::map_anon(len + HUGE)?;
        #[cfg(target_os = "linux")]
        // A kernel without huge pages refuses this. The memory is then on ordinary pages.
        let _ = map.advise(memmap2::Advice::HugePage);
        let start = map.as_ptr().align_offset(HUGE);
        Ok(HugePages { map, start, len })
    }
}

impl Deref for HugePages {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.map[self.start..][..self.len]
    }
}

impl DerefMut for HugePages {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.map[self.start..][..self.len]
    }
}

fn copy(file: &File, len: usize) -> io::Result<FileBytes> {
    let mut copied = HugePages::zeroed(len)?;
    read(file, &mut copied)?;
    Ok(FileBytes::Copied(copied))
}

/// Reads a whole file with all cores.
#[cfg(unix)]
fn read(file: &File, to: &mut [u8]) -> io::Result<()> {
    use std::os::unix::fs::FileExt;

    let pieces = to.chunks_mut(HUGE).enumerate();
    let read = crate::parallel::map(pieces, |(i, piece)| {
        file.read_exact_at(piece, (i * HUGE) as u64)
    });
    read.into_iter().collect()
}

#[cfg(not(unix))]
fn read(mut file: &File, to: &mut [u8]) -> io::Result<()> {
    io::Read::read_exact(&mut file, to)
}

/// Whether huge pages and memory for a copy are available while the file is mapped with small
/// pages.
#[cfg(target_os = "linux")]
fn copy_is_faster(map: &Mmap) -> bool {
    let enabled = std::fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled");
    if enabled.is_ok_and(|enabled| !enabled.contains("[never]"))
        && map.advise(memmap2::Advice::HugePage).is_ok()
    {
        // Touch each huge page: this reads the file if necessary and shows how the kernel maps it.
        let touched = map.iter().step_by(HUGE).fold(0, |all, byte| all ^ byte);
        std::hint::black_box(touched);
        let mapped = file_mapped_hugely(map.as_ptr() as usize).unwrap_or(map.len());
        return mapped < map.len() / 4 * 3 && available() > map.len() + map.len() / 16 + WORTHWHILE;
    }
    false
}

#[cfg(not(target_os = "linux"))]
fn copy_is_faster(_: &Mmap) -> bool {
    false
}

/// Number of bytes in huge pages in the mapping at `start`.
#[cfg(target_os = "linux")]
fn file_mapped_hugely(start: usize) -> Option<usize> {
    let maps = std::fs::read_to_string("/proc/self/smaps").ok()?;
    let mut lines = maps.lines();
    let prefix = format!("{start:x}-");
    lines.find(|line| line.starts_with(&prefix))?;
    kilobytes(lines, "FilePmdMapped:")
}

/// Bytes of memory that are free or can be reclaimed.
#[cfg(target_os = "linux")]
fn available() -> usize {
    let info = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    kilobytes(info.lines(), "MemAvailable:").unwrap_or(0)
}

#[cfg(target_os = "linux")]
fn kilobytes<'a>(mut lines: impl Iterator<Item = &'a str>, key: &str) -> Option<usize> {
    let value = lines.find_map(|line| line.strip_prefix(key))?;
    let number: usize = value.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(number * 1024)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_copy_equals_the_mapping() {
        for len in [1, 4096, HUGE - 1, 2 * HUGE + 5] {
            let content: Vec<u8> = (0..len).map(|i| ((i * 7919) >> 3) as u8).collect();
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(&content).unwrap();
            for memory in [Memory::Auto, Memory::Map, Memory::Copy] {
                let bytes = FileBytes::open(&file, memory).unwrap();
                assert!(*bytes == *content, "{len} {memory:?}");
                assert_eq!(bytes.is_copied(), memory == Memory::Copy);
                assert_eq!(bytes.as_ptr().align_offset(64), 0);
            }
        }
    }

    #[test]
    fn released_parts_have_the_same_bytes() {
        let content: Vec<u8> = (0..1usize << 20).map(|i| ((i * 7919) >> 3) as u8).collect();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&content).unwrap();
        for memory in [Memory::Map, Memory::Copy] {
            let bytes = FileBytes::open(&file, memory).unwrap();
            for part in [
                0..1 << 20,
                5..70_000,
                65_536..131_072,
                9..9,
                (1 << 20) - 7..1 << 20,
            ] {
                assert!(bytes[part.clone()] == content[part.clone()]);
                bytes.release(part.clone());
                assert!(*bytes == *content, "{part:?}");
            }
        }
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn the_kernel_is_understood() {
        let file = File::open("/proc/self/exe").unwrap();
        let FileBytes::Mapped(map) = FileBytes::open(&file, Memory::Map).unwrap() else {
            panic!("a mapping was asked for");
        };
        assert!(file_mapped_hugely(map.as_ptr() as usize).is_some());
        assert!(available() > 0);
    }
}
