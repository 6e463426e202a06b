//! The bytes of a packed file in memory: a mapping of the file, a copy on huge pages, or bytes that
//! the caller has.
//!
//! Generation reads all weights once per token. With pages of 4 KiB the processor needs an address
//! translation every 4 KiB, which costs up to half of the memory bandwidth, mostly in virtual
//! machines. The kernel maps a file with pages of 2 MiB only if the file system caches it that way.
//! On other file systems a copy in anonymous memory on huge pages is worth its cost: some tenths of
//! a second per gigabyte. The kernel can reclaim the cached file, so the memory that is needed is
//! the size of the file in both cases.
//!
//! Parts of a file can be seldom read: a few rows per token. They are mapped in the middle of the
//! copy too, so that only pages that are touched count as memory.

use std::fs::File;
use std::io;
use std::ops::{Deref, DerefMut, Range};

use memmap2::{Mmap, MmapMut};
use serde::{Deserialize, Serialize};

use crate::layout::ALIGNMENT;

/// How a packed file is loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Memory {
    /// Map the file, or copy it into huge pages if the mapping has none and enough memory is free.
    #[default]
    Auto,
    /// Map the file. Opening is immediate, and processes share its pages.
    Map,
    /// Copy the file. Parts that are seldom read stay mapped.
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
    Copied {
        bytes: HugePages,
        /// Parts of the file that are mapped, not copied.
        #[cfg_attr(
            not(unix),
            expect(dead_code, reason = "only requests to the system read them")
        )]
        seldom: Vec<Range<usize>>,
    },
    /// Bytes that came without a file.
    Owned(AlignedBytes),
}

/// Bytes that start where a packed file may start, for [`PackedFile::from_bytes`]. They need
/// nothing of the system but memory, so this works where there are no files and no mappings.
///
/// [`PackedFile::from_bytes`]: crate::PackedFile::from_bytes
#[derive(Debug, Default)]
pub struct AlignedBytes {
    /// The bytes, with room before them.
    bytes: Vec<u8>,
    start: usize,
    len: usize,
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
const PAGE: usize = 64 << 10;
/// Bytes of a huge page.
const HUGE: usize = 2 << 20;
/// With [`Memory::Auto`], files below this size are mapped.
const WORTHWHILE: usize = 64 << 20;

impl FileBytes {
    /// Maps a file. It must not change while it is mapped.
    #[allow(unsafe_code)]
    pub fn map(file: &File) -> io::Result<FileBytes> {
        // SAFETY: the mapping is read-only and private to this process. A file that another process
        // shortens while it is mapped ends this one with SIGBUS; `PackedFile::open` documents that
        // the file must stay as it is, and our own writer never changes a finished file, it renames
        // a new one over it.
        let map = unsafe { Mmap::map(file) }?;
        Ok(FileBytes::Mapped(map))
    }

    /// Keeps the mapping of `file` or replaces it by a copy. `seldom` are the parts that are read
    /// a few rows at a time, in order.
    pub fn load(
        self,
        file: &File,
        memory: Memory,
        seldom: &[Range<usize>],
    ) -> io::Result<FileBytes> {
        let FileBytes::Mapped(map) = self else {
            return Ok(self);
        };
        let seldom: Vec<Range<usize>> = seldom.iter().filter_map(whole_pages).collect();
        let copies = match memory {
            Memory::Map => false,
            Memory::Copy => true,
            Memory::Auto => {
                let often = often_read(0..map.len(), &seldom);
                let len = often.iter().map(ExactSizeIterator::len).sum();
                len >= WORTHWHILE && copy_is_faster(&map, &often, len)
            }
        };
        if !copies {
            #[cfg(unix)]
            for part in &seldom {
                // Without this, the kernel reads neighbours of a row too, and a row on a huge page
                // counts as two megabytes. It may refuse.
                let _ = map.advise_range(memmap2::Advice::Random, part.start, part.len());
                #[cfg(target_os = "linux")]
                let _ = map.advise_range(memmap2::Advice::NoHugePage, part.start, part.len());
            }
            return Ok(FileBytes::Mapped(map));
        }
        let len = map.len();
        drop(map); // or what was touched of it would count beside the copy
        copy(file, len, &seldom)
    }

    /// Releases the mapped pages that lie completely inside a part. After reading a file from start
    /// to end this way, only one part is in memory. A later access reads the pages again.
    #[allow(unsafe_code)]
    pub fn release(&self, part: Range<usize>) {
        #[cfg(unix)]
        for pages in self.mapped(part) {
            // SAFETY: the pages map a file and are never written, so pages that were dropped have
            // the same bytes when they are read again. Where the system refuses, they stay: nothing
            // else depends on it.
            let _ = unsafe {
                let advice = memmap2::UncheckedAdvice::DontNeed;
                match self {
                    FileBytes::Mapped(map) => {
                        map.unchecked_advise_range(advice, pages.start, pages.len())
                    }
                    FileBytes::Copied { bytes, .. } => {
                        let start = bytes.start + pages.start;
                        bytes.map.unchecked_advise_range(advice, start, pages.len())
                    }
                    FileBytes::Owned(_) => Ok(()), // it has no mapped pages
                }
            };
        }
        #[cfg(not(unix))]
        let _ = part;
    }

    /// Announces that a whole part is read soon, if it is mapped.
    pub fn will_read(&self, part: Range<usize>) {
        #[cfg(unix)]
        for pages in self.mapped(part) {
            let advice = memmap2::Advice::WillNeed;
            // The system may refuse.
            let _ = match self {
                FileBytes::Mapped(map) => map.advise_range(advice, pages.start, pages.len()),
                FileBytes::Copied { bytes, .. } => {
                    let start = bytes.start + pages.start;
                    bytes.map.advise_range(advice, start, pages.len())
                }
                FileBytes::Owned(_) => Ok(()), // it has no mapped pages
            };
        }
        #[cfg(not(unix))]
        let _ = part;
    }

    /// The pages of a part that map the file.
    #[cfg(unix)]
    fn mapped(&self, part: Range<usize>) -> Vec<Range<usize>> {
        let parts = match self {
            FileBytes::Mapped(_) => std::slice::from_ref(&part),
            FileBytes::Copied { seldom, .. } => seldom,
            FileBytes::Owned(_) => &[],
        };
        let inside = |other: &Range<usize>| part.start.max(other.start)..part.end.min(other.end);
        parts
            .iter()
            .filter_map(|other| whole_pages(&inside(other)))
            .collect()
    }

    /// Whether the bytes are this process's own, not those of a mapped file.
    pub fn is_copied(&self) -> bool {
        !matches!(self, FileBytes::Mapped(_))
    }
}

impl Deref for FileBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            FileBytes::Mapped(map) => map,
            FileBytes::Copied { bytes, .. } => bytes,
            FileBytes::Owned(bytes) => bytes,
        }
    }
}

impl AlignedBytes {
    /// `len` zeros.
    ///
    /// # Errors
    /// [`io::ErrorKind::OutOfMemory`].
    pub fn zeroed(len: usize) -> io::Result<AlignedBytes> {
        let none = || io::Error::from(io::ErrorKind::OutOfMemory);
        let room = len.checked_add(ALIGNMENT).ok_or_else(none)?;
        let bytes: Vec<u8> = bytemuck::allocation::try_zeroed_vec(room).map_err(|()| none())?;
        let start = bytes.as_ptr().align_offset(ALIGNMENT);
        Ok(AlignedBytes { bytes, start, len })
    }

    /// A copy of bytes.
    ///
    /// # Errors
    /// Those of [`AlignedBytes::zeroed`].
    pub fn copy_of(bytes: &[u8]) -> io::Result<AlignedBytes> {
        let mut copy = AlignedBytes::zeroed(bytes.len())?;
        copy.copy_from_slice(bytes);
        Ok(copy)
    }

    /// Leaves out the bytes from `len` on.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }
}

impl Deref for AlignedBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[self.start..][..self.len]
    }
}

impl DerefMut for AlignedBytes {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..][..self.len]
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

/// The pages that lie completely inside a part; none where the system cannot map them in a copy.
fn whole_pages(part: &Range<usize>) -> Option<Range<usize>> {
    let pages = part.start.next_multiple_of(PAGE)..part.end / PAGE * PAGE;
    (cfg!(unix) && !pages.is_empty()).then_some(pages)
}

fn copy(file: &File, len: usize, seldom: &[Range<usize>]) -> io::Result<FileBytes> {
    let mut bytes = HugePages::zeroed(len)?;
    read(file, &mut bytes, seldom)?;
    #[cfg(unix)]
    for part in seldom {
        map_into(&mut bytes[part.clone()], file, part.start as u64)?;
    }
    Ok(FileBytes::Copied {
        bytes,
        seldom: seldom.to_vec(),
    })
}

/// Maps a file from `offset` on over bytes of a mapping: whole pages of both.
#[cfg(unix)]
#[allow(unsafe_code)]
fn map_into(bytes: &mut [u8], file: &File, offset: u64) -> io::Result<()> {
    use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap};

    let (over, len) = (bytes.as_mut_ptr().cast(), bytes.len());
    let flags = MapFlags::PRIVATE | MapFlags::FIXED;
    // SAFETY: the bytes lie inside a mapping of our own, on its page boundaries, and nothing else
    // refers to them. They end with that mapping, as they are part of its range, and nothing writes
    // to the mapping from here on. For changes of the file see `FileBytes::map`.
    unsafe { mmap(over, len, ProtFlags::READ, flags, file, offset) }?;
    for advice in [
        Advice::Random,
        #[cfg(target_os = "linux")]
        Advice::LinuxNoHugepage,
    ] {
        // As in `load`; the kernel may refuse.
        // SAFETY: advice about pages that were just mapped; it changes none of their bytes.
        let _ = unsafe { madvise(over, len, advice) };
    }
    Ok(())
}

/// Reads a whole file, but for the parts that are seldom read, with all cores.
fn read(file: &File, to: &mut [u8], seldom: &[Range<usize>]) -> io::Result<()> {
    let pieces = to.chunks_mut(HUGE).enumerate();
    let read = crate::parallel::map(pieces, |(i, piece)| {
        let start = i * HUGE;
        for part in often_read(start..start + piece.len(), seldom) {
            let to = &mut piece[part.start - start..part.end - start];
            read_at(file, to, part.start as u64)?;
        }
        Ok(())
    });
    read.into_iter().collect()
}

/// Reads bytes at a place of a file.
fn read_at(file: &File, to: &mut [u8], offset: u64) -> io::Result<()> {
    #[cfg(unix)]
    return std::os::unix::fs::FileExt::read_exact_at(file, to, offset);
    #[cfg(windows)]
    return read_exact_at(file, to, offset);
    #[cfg(not(any(unix, windows)))]
    {
        // There are no threads that could read at the same time.
        let mut file = file;
        io::Seek::seek(&mut file, io::SeekFrom::Start(offset))?;
        io::Read::read_exact(&mut file, to)
    }
}

#[cfg(windows)]
fn read_exact_at(file: &File, mut to: &mut [u8], mut offset: u64) -> io::Result<()> {
    while !to.is_empty() {
        let count = std::os::windows::fs::FileExt::seek_read(file, to, offset)?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        to = &mut to[count..];
        offset += count as u64;
    }
    Ok(())
}

/// What remains of a piece without the parts that are seldom read.
fn often_read(piece: Range<usize>, seldom: &[Range<usize>]) -> Vec<Range<usize>> {
    let mut parts = Vec::new();
    let mut start = piece.start;
    for part in seldom {
        parts.push(start..part.start.min(piece.end));
        start = start.max(part.end);
    }
    parts.push(start..piece.end);
    parts.retain(|part| !part.is_empty());
    parts
}

/// Whether huge pages and memory for a copy are available while the parts that are `often` read,
/// `len` bytes, are mapped with small pages.
#[cfg(target_os = "linux")]
fn copy_is_faster(map: &Mmap, often: &[Range<usize>], len: usize) -> bool {
    let enabled = std::fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled");
    let advise =
        |part: &Range<usize>| map.advise_range(memmap2::Advice::HugePage, part.start, part.len());
    if enabled.is_ok_and(|enabled| !enabled.contains("[never]"))
        && often.iter().all(|part| advise(part).is_ok())
    {
        // Touch each huge page: this reads the file if necessary and shows how the kernel maps it.
        let bytes = often
            .iter()
            .flat_map(|part| map[part.clone()].iter().step_by(HUGE));
        std::hint::black_box(bytes.fold(0, |all, byte| all ^ byte));
        let mapped = file_mapped_hugely(map).unwrap_or(len);
        return mapped < len / 4 * 3 && available() > len + len / 16 + WORTHWHILE;
    }
    false
}

#[cfg(not(target_os = "linux"))]
fn copy_is_faster(_: &Mmap, _: &[Range<usize>], _: usize) -> bool {
    false
}

/// Number of bytes in huge pages in a mapping. The kernel lists it in parts, which differ in what
/// was advised.
#[cfg(target_os = "linux")]
fn file_mapped_hugely(map: &Mmap) -> Option<usize> {
    let maps = std::fs::read_to_string("/proc/self/smaps").ok()?;
    let start = map.as_ptr() as usize;
    let mut lines = maps.lines();
    let mut bytes = None;
    while let Some(line) = lines.next() {
        let address = line
            .split_once('-')
            .and_then(|(address, _)| usize::from_str_radix(address, 16).ok());
        if address.is_some_and(|address| (start..start + map.len()).contains(&address)) {
            *bytes.get_or_insert(0) += kilobytes(&mut lines, "FilePmdMapped:")?;
        }
    }
    bytes
}

/// Bytes of memory that are free or can be reclaimed.
#[cfg(target_os = "linux")]
fn available() -> usize {
    crate::system::machine_memory().map_or(0, |memory| memory.available as usize)
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
            let seldom = [
                len / 9..len / 7,
                len / 5..len / 2,
                len / 2..len / 3 * 2,
                len..len,
            ];
            for memory in [Memory::Auto, Memory::Map, Memory::Copy] {
                for seldom in [&[][..], &seldom[..1], &seldom] {
                    let bytes = FileBytes::map(&file).unwrap();
                    let bytes = bytes.load(&file, memory, seldom).unwrap();
                    assert!(*bytes == *content, "{len} {memory:?} {seldom:?}");
                    assert_eq!(bytes.is_copied(), memory == Memory::Copy);
                    assert_eq!(bytes.as_ptr().align_offset(64), 0);
                }
            }
        }
    }

    #[test]
    fn bytes_of_ones_own_are_aligned() {
        for len in [0, 1, 63, 64, 100_001] {
            let content: Vec<u8> = (0..len).map(|i| i as u8).collect();
            let mut bytes = AlignedBytes::copy_of(&content).unwrap();
            assert_eq!(bytes.as_ptr().align_offset(ALIGNMENT), 0);
            assert_eq!(*bytes, *content);
            bytes.truncate(50);
            assert_eq!(*bytes, content[..len.min(50)]);
        }
        let error = AlignedBytes::zeroed(usize::MAX - 100).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::OutOfMemory);
    }

    #[test]
    fn released_parts_have_the_same_bytes() {
        let content: Vec<u8> = (0..1usize << 20).map(|i| ((i * 7919) >> 3) as u8).collect();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&content).unwrap();
        for memory in [Memory::Map, Memory::Copy] {
            let bytes = FileBytes::map(&file).unwrap();
            let seldom = 100_000..500_000;
            let bytes = bytes
                .load(&file, memory, std::slice::from_ref(&seldom))
                .unwrap();
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
    fn what_is_seldom_read_is_not_copied() {
        let (len, seldom) = (16 * HUGE, 3 * HUGE + 70_000..15 * HUGE - 5);
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&vec![7; len]).unwrap();
        let bytes = FileBytes::map(&file).unwrap();
        let bytes = bytes
            .load(&file, Memory::Copy, std::slice::from_ref(&seldom))
            .unwrap();
        let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let pages = whole_pages(&seldom).unwrap();
        let prefix = format!("{:x}-", bytes.as_ptr() as usize + pages.start);
        let mut lines = maps.lines();
        let line = lines
            .find(|line| line.starts_with(&prefix))
            .expect("a mapping of its own");
        assert!(line.contains("r--p"), "{line}");
        assert_eq!(kilobytes(lines, "Rss:"), Some(0));
        assert_eq!(bytes[9 * HUGE], 7);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn the_kernel_is_understood() {
        let file = File::open("/proc/self/exe").unwrap();
        let FileBytes::Mapped(map) = FileBytes::map(&file).unwrap() else {
            panic!("a mapping was asked for");
        };
        assert!(file_mapped_hugely(&map).is_some());
        assert!(available() > 0);
    }
}
