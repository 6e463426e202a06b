//! Finds the files of a path by their names, and reads the lines of text files, packed ones too.
//!
//! In a folder, names that begin with a dot are hidden and are not data, nor are `README.md`, which
//! describes a data set, and `.json` files, which are settings more often than data. What is left
//! out is reported, except hidden files. The crate `walkdir` is not used: it would replace one
//! short recursive function.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};

use crate::{Error, Result};

/// The kinds of files that are read, for messages.
pub(crate) const KINDS: &str = ".txt, .md, .jsonl, .ndjson, .json and .parquet, and all but the \
                                last also with .gz or .zst";

/// The format of a file, by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Format {
    pub kind: Kind,
    pub packing: Packing,
}

/// What a file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Txt,
    Jsonl,
    Json,
    Parquet,
}

/// How a file is compressed as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Packing {
    None,
    Gzip,
    Zstd,
}

impl Format {
    /// The format that a file's name tells.
    pub(crate) fn of(path: &Path) -> Option<Self> {
        let name = path.file_name()?.to_str()?.to_ascii_lowercase();
        let (rest, last) = name.rsplit_once('.')?;
        let packing = match last {
            "gz" => Packing::Gzip,
            "zst" | "zstd" => Packing::Zstd,
            _ => Packing::None,
        };
        let extension = match packing {
            Packing::None => last,
            _ => rest.rsplit_once('.')?.1,
        };
        let kind = match extension {
            "txt" | "text" | "md" => Kind::Txt,
            "jsonl" | "ndjson" => Kind::Jsonl,
            "json" => Kind::Json,
            "parquet" if packing == Packing::None => Kind::Parquet,
            _ => return None,
        };
        Some(Self { kind, packing })
    }
}

impl Format {
    /// About the bytes of text that a byte of a file holds.
    pub(crate) fn expansion(self) -> u64 {
        match self {
            Self { packing, .. } if packing != Packing::None => 4,
            Self {
                kind: Kind::Parquet,
                ..
            } => 2,
            _ => 1,
        }
    }
}

/// Whether a file of a folder is data.
fn is_data(path: &Path, format: Format) -> bool {
    let is_card = path.file_name().is_some_and(|name| name == "README.md");
    let is_settings = format.kind == Kind::Json && format.packing == Packing::None;
    !is_card && !is_settings
}

/// The files of paths.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// Each file with its format, in order.
    pub files: Vec<(PathBuf, Format)>,
    /// Files of folders that are not data, or not of a kind that is read.
    pub left_out: Vec<PathBuf>,
}

impl Found {
    /// The sum of the bytes of all files, each times a factor.
    pub(crate) fn bytes(&self, factor: impl Fn(Format) -> u64) -> u64 {
        let bytes = |(path, format): &(PathBuf, Format)| {
            let metadata = fs::metadata(path).ok()?;
            Some(metadata.len() * factor(*format))
        };
        self.files.iter().filter_map(bytes).sum()
    }
}

/// The files of the given paths; folders are searched at any depth.
pub(crate) fn files(paths: &[PathBuf]) -> Result<Found> {
    let mut found = Found::default();
    for path in paths {
        let before = found.files.len();
        if path.is_dir() {
            walk(path, &mut found)?;
        } else {
            fs::metadata(path).map_err(Error::io(path, "read"))?;
            let format = Format::of(path);
            found.files.push((
                path.clone(),
                format.ok_or_else(|| Error::UnknownFormat { path: path.clone() })?,
            ));
        }
        if found.files.len() == before {
            return Err(Error::NoInput {
                path: path.clone(),
                left_out: found.left_out.len(),
            });
        }
    }
    Ok(found)
}

/// The record files among the paths and in folders. A path without any is an error.
pub(crate) fn record_files(paths: &[PathBuf]) -> Result<Found> {
    let mut found = Found::default();
    for path in paths {
        let before = found.files.len();
        let of_path = files(std::slice::from_ref(path))?;
        found.left_out.extend(of_path.left_out);
        for (path, format) in of_path.files {
            match format.kind {
                Kind::Txt => found.left_out.push(path),
                _ => found.files.push((path, format)),
            }
        }
        if found.files.len() == before {
            return Err(Error::NoRecords { path: path.clone() });
        }
    }
    Ok(found)
}

/// Adds the files below a folder in the order of their names; links to folders are not followed.
fn walk(folder: &Path, found: &mut Found) -> Result<()> {
    let entries = fs::read_dir(folder).map_err(Error::io(folder, "list"))?;
    let paths = entries.map(|entry| entry.map(|entry| entry.path()));
    let mut paths = paths
        .collect::<Result<Vec<_>, _>>()
        .map_err(Error::io(folder, "list"))?;
    paths.sort();
    let is_hidden = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str());
        name.is_some_and(|name| name.starts_with('.'))
    };
    for path in paths.into_iter().filter(|path| !is_hidden(path)) {
        if path.is_dir() {
            if !path.is_symlink() {
                walk(&path, found)?;
            }
            continue;
        }
        match Format::of(&path) {
            Some(format) if is_data(&path, format) => found.files.push((path, format)),
            _ => found.left_out.push(path),
        }
    }
    Ok(())
}

/// Opens a file, and unpacks it while it is read. The number is that of its bytes that were read.
pub(crate) fn open(path: &Path, packing: Packing) -> Result<(Unpacked, Arc<AtomicU64>)> {
    let file = File::open(path).map_err(Error::io(path, "open"))?;
    let read = Arc::new(AtomicU64::new(0));
    let file = Counted {
        file,
        read: read.clone(),
    };
    let unpacked: Box<dyn Read + Send> = match packing {
        Packing::None => Box::new(file),
        Packing::Gzip => Box::new(flate2::read::MultiGzDecoder::new(file)),
        Packing::Zstd => Box::new(Frames {
            source: BufReader::with_capacity(READ, file),
            decoder: FrameDecoder::new(),
            is_open: false,
        }),
    };
    Ok((BufReader::with_capacity(READ, unpacked), read))
}

/// A file as its reader sees it.
pub(crate) type Unpacked = BufReader<Box<dyn Read + Send>>;

/// Bytes that are read from a file at once.
const READ: usize = 1 << 16;

struct Counted {
    file: File,
    read: Arc<AtomicU64>,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read(buffer)?;
        self.read.fetch_add(read as u64, Ordering::Relaxed);
        Ok(read)
    }
}

/// The frames of a zstd file, one after another. The decoder of `ruzstd` reads one frame.
struct Frames<R> {
    source: R,
    decoder: FrameDecoder,
    is_open: bool,
}

impl<R: BufRead> Read for Frames<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        use FrameDecoderError::ReadFrameHeaderError as Header;
        while !buffer.is_empty() {
            if self.decoder.can_collect() > 0 {
                return self.decoder.read(buffer);
            }
            if self.is_open && !self.decoder.is_finished() {
                let some = BlockDecodingStrategy::UptoBlocks(1);
                let decoded = self.decoder.decode_blocks(&mut self.source, some);
                decoded.map_err(damaged)?;
                continue;
            }
            if self.source.fill_buf()?.is_empty() {
                return Ok(0);
            }
            match self.decoder.init(&mut self.source) {
                Ok(()) => self.is_open = true,
                Err(Header(ReadFrameHeaderError::SkipFrame { length, .. })) => {
                    let skipped = (&mut self.source).take(length.into());
                    io::copy(&mut { skipped }, &mut io::sink())?;
                }
                Err(error) => return Err(damaged(error)),
            }
        }
        Ok(0)
    }
}

fn damaged(error: FrameDecoderError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

/// One open file of text.
pub(crate) struct Lines {
    path: PathBuf,
    reader: Unpacked,
    read: Arc<AtomicU64>,
    /// Lines that were begun.
    line: u64,
    /// Whether the last of them goes on.
    is_open: bool,
    /// The first bytes of a character that was cut.
    tail: Vec<u8>,
}

impl std::fmt::Debug for Lines {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lines").field("path", &self.path).finish()
    }
}

impl Lines {
    pub(crate) fn open(path: &Path, packing: Packing) -> Result<Self> {
        let (reader, read) = open(path, packing)?;
        Ok(Self {
            path: path.to_owned(),
            reader,
            read,
            line: 0,
            is_open: false,
            tail: Vec::new(),
        })
    }

    /// Lines read so far.
    pub(crate) fn line(&self) -> u64 {
        self.line
    }

    /// Whether the last line was cut and goes on.
    pub(crate) fn is_inside_line(&self) -> bool {
        self.is_open
    }

    /// Bytes of the file that were read so far.
    pub(crate) fn bytes_read(&self) -> u64 {
        self.read.load(Ordering::Relaxed)
    }

    /// The next line with its line break, without a byte order mark.
    pub(crate) fn next_line(&mut self) -> Result<Option<String>> {
        let mut line = String::new();
        Ok(self.append(&mut line, usize::MAX)?.map(|_| line))
    }

    /// Appends the next line with its line break, or as much of it as `most` bytes hold. Returns
    /// whether the line ends there, and `None` at the end of the file.
    pub(crate) fn append(&mut self, out: &mut String, most: usize) -> Result<Option<bool>> {
        let mut bytes = std::mem::take(&mut self.tail);
        let most = most.max(bytes.len() + 4);
        let mut ends = false;
        while bytes.len() < most && !ends {
            let buffer = self.reader.fill_buf();
            let buffer = buffer.map_err(Error::io(&self.path, "read"))?;
            if buffer.is_empty() {
                break;
            }
            let room = buffer.len().min(most - bytes.len());
            let newline = buffer[..room].iter().position(|byte| *byte == b'\n');
            let used = newline.map_or(room, |at| at + 1);
            ends = newline.is_some();
            bytes.extend_from_slice(&buffer[..used]);
            self.reader.consume(used);
        }
        if bytes.is_empty() {
            return Ok(None);
        }
        let is_first = self.line == 0;
        if is_first && (bytes.starts_with(b"\xff\xfe") || bytes.starts_with(b"\xfe\xff")) {
            let path = self.path.clone();
            return Err(Error::Utf16 { path });
        }
        self.line += u64::from(!self.is_open);
        let is_cut = bytes.len() >= most && !ends;
        self.is_open = is_cut;
        let text = match std::str::from_utf8(&bytes) {
            Ok(text) => text,
            Err(error) if is_cut && error.error_len().is_none() => {
                self.tail = bytes.split_off(error.valid_up_to());
                std::str::from_utf8(&bytes).expect("the bytes before are valid")
            }
            Err(_) => {
                return Err(Error::NotUtf8 {
                    path: self.path.clone(),
                    line: self.line,
                });
            }
        };
        let mark = '\u{feff}';
        out.push_str(text.strip_prefix(mark).filter(|_| is_first).unwrap_or(text));
        Ok(Some(!is_cut))
    }
}
