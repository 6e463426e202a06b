//! Token shards: documents as one flat array of token ids, mapped into memory and used in place.
//!
//! | bytes | little endian |
//! |---|---|
//! | 0..8 | magic `STERNTOK` |
//! | 8..12 | version, 1 |
//! | 12..16 | bits of a token: 16 if the vocabulary has at most 65,536 tokens, else 32 |
//! | 16..20 | vocabulary size |
//! | 20..24 | the id that begins a document (BOS) |
//! | 24..32 | number of tokens |
//! | 32..40 | number of documents |
//! | 40..72 | SHA-256 of `tokenizer.json` |
//! | 72.. | the tokens |
//!
//! The header has a fixed size, so it can be completed after the tokens were streamed to the file.
//! A safetensors header cannot, because its length depends on the sizes in it.
//!
//! A document is a BOS token and all that follows up to the next; the file begins with one.
//! [`Shard::open`] checks every byte once: all ids lie in the vocabulary and the counts are true.

use std::io::{self, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};

use memmap2::Mmap;

use crate::{Error, Result, Tokenizer, mapped};

const MAGIC: [u8; 8] = *b"STERNTOK";
const VERSION: u32 = 1;
/// Length of the header in bytes.
const HEADER: usize = 72;

/// The header of a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShardHeader {
    /// Token ids are below this.
    pub vocab_size: u32,
    /// The token that begins every document.
    pub bos: u32,
    /// Tokens in the file.
    pub tokens: u64,
    /// Documents in the file.
    pub documents: u64,
    /// SHA-256 of the `tokenizer.json` that made the tokens.
    pub tokenizer: [u8; 32],
}

impl ShardHeader {
    /// The header of an empty shard.
    pub fn new(tokenizer: &Tokenizer) -> Self {
        Self {
            vocab_size: tokenizer.vocab_size() as u32,
            bos: tokenizer.bos_id(),
            tokens: 0,
            documents: 0,
            tokenizer: tokenizer.hash(),
        }
    }

    /// Bytes of one token, 2 or 4.
    fn width(&self) -> usize {
        if self.vocab_size <= 1 << 16 { 2 } else { 4 }
    }

    fn to_bytes(self) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        bytes[..8].copy_from_slice(&MAGIC);
        let bits = 8 * self.width() as u32;
        for (i, field) in [VERSION, bits, self.vocab_size, self.bos]
            .into_iter()
            .enumerate()
        {
            bytes[8 + 4 * i..][..4].copy_from_slice(&field.to_le_bytes());
        }
        bytes[24..32].copy_from_slice(&self.tokens.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.documents.to_le_bytes());
        bytes[40..].copy_from_slice(&self.tokenizer);
        bytes
    }

    /// Reads and checks the header of a file; the counts are checked against the tokens later.
    fn parse(path: &Path, file: &[u8]) -> Result<Self> {
        let not_a_shard = |reason: String| Error::NotAShard {
            path: path.to_owned(),
            reason,
        };
        let bytes: &[u8; HEADER] = file.first_chunk().ok_or_else(|| {
            not_a_shard(format!("{} bytes, but a header has {HEADER}", file.len()))
        })?;
        if bytes[..8] != MAGIC {
            return Err(not_a_shard(format!(
                "it begins with {:?}",
                bytes[..8].escape_ascii().to_string()
            )));
        }
        // Numbers are little endian, at the places of the table at the head of this file.
        let u32_at = |at: usize| u32::from_le_bytes([0, 1, 2, 3].map(|i| bytes[at + i]));
        let u64_at = |at: usize| u64::from(u32_at(at)) | u64::from(u32_at(at + 4)) << 32;
        let version = u32_at(8);
        if version != VERSION {
            let path = path.to_owned();
            return Err(Error::ShardVersion {
                path,
                found: version,
                expected: VERSION,
            });
        }
        let header = Self {
            vocab_size: u32_at(16),
            bos: u32_at(20),
            tokens: u64_at(24),
            documents: u64_at(32),
            tokenizer: std::array::from_fn(|i| bytes[40 + i]),
        };
        expect(path, "bits", u32_at(12).into(), 8 * header.width() as u64)?;
        if header.bos >= header.vocab_size {
            let expected = format!("an id below the vocabulary of {}", header.vocab_size);
            let (path, found) = (path.to_owned(), header.bos.into());
            return Err(Error::ShardHeader {
                path,
                field: "BOS",
                found,
                expected,
            });
        }
        // 128 bits, because a hostile count could overflow 64.
        let expected = HEADER as u128 + u128::from(header.tokens) * header.width() as u128;
        if file.len() as u128 != expected {
            let (path, found) = (path.to_owned(), file.len() as u64);
            return Err(Error::ShardSize {
                path,
                found,
                expected,
            });
        }
        Ok(header)
    }
}

/// Returns an error if a header field is not what it must be.
fn expect(path: &Path, field: &'static str, found: u64, expected: u64) -> Result<()> {
    if found == expected {
        return Ok(());
    }
    let (path, expected) = (path.to_owned(), expected.to_string());
    Err(Error::ShardHeader {
        path,
        field,
        found,
        expected,
    })
}

/// Streams documents into a shard; the header is completed by [`ShardWriter::finish`].
pub struct ShardWriter<W> {
    out: W,
    header: ShardHeader,
    bytes: Vec<u8>,
}

impl<W: Write + Seek> ShardWriter<W> {
    /// Begins a shard at the start of an empty file.
    pub fn new(mut out: W, tokenizer: &Tokenizer) -> io::Result<Self> {
        let header = ShardHeader::new(tokenizer);
        out.write_all(&header.to_bytes())?;
        let bytes = Vec::new();
        Ok(Self { out, header, bytes })
    }

    /// Appends a document, its BOS token included.
    ///
    /// Errors if it does not begin with BOS, holds a second one, or an id is out of range.
    pub fn push(&mut self, document: &[u32]) -> io::Result<()> {
        let bos = self.header.bos;
        if document.first() != Some(&bos) {
            let reason = format!("a document must begin with BOS ({bos})");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, reason));
        }
        self.begin()?;
        self.extend(&document[1..])
    }

    /// Begins a document with BOS.
    pub(crate) fn begin(&mut self) -> io::Result<()> {
        let bos = self.header.bos;
        self.header.documents += 1;
        self.write(&[bos])
    }

    /// Appends tokens to the document that was begun.
    ///
    /// Errors if one is BOS or out of range.
    pub(crate) fn extend(&mut self, tokens: &[u32]) -> io::Result<()> {
        let ShardHeader {
            bos, vocab_size, ..
        } = self.header;
        if tokens.iter().any(|&id| id == bos || id >= vocab_size) {
            let reason =
                format!("a document has only ids below {vocab_size}, and BOS ({bos}) once");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, reason));
        }
        self.write(tokens)
    }

    fn write(&mut self, tokens: &[u32]) -> io::Result<()> {
        self.bytes.clear();
        match self.header.width() {
            2 => self
                .bytes
                .extend(tokens.iter().flat_map(|id| (*id as u16).to_le_bytes())),
            _ => self
                .bytes
                .extend(tokens.iter().flat_map(|id| id.to_le_bytes())),
        }
        self.header.tokens += tokens.len() as u64;
        self.out.write_all(&self.bytes)
    }

    /// Writes the counts into the header and returns it.
    pub fn finish(mut self) -> io::Result<ShardHeader> {
        self.out.seek(SeekFrom::Start(0))?;
        self.out.write_all(&self.header.to_bytes())?;
        self.out.flush()?;
        Ok(self.header)
    }
}

/// A checked shard, mapped into memory.
#[derive(Debug)]
pub struct Shard {
    path: PathBuf,
    map: Mmap,
    header: ShardHeader,
}

impl Shard {
    /// Maps a file and checks all of it: header, size, every id, the number of documents.
    ///
    /// The file must not be changed while it is mapped; the writers of this crate replace files
    /// instead of changing them.
    pub fn open(path: &Path) -> Result<Self> {
        let map = mapped::map(path)?;
        let header = ShardHeader::parse(path, &map)?;
        let shard = Self {
            path: path.to_owned(),
            map,
            header,
        };
        shard.check_tokens()?;
        Ok(shard)
    }

    fn check_tokens(&self) -> Result<()> {
        let ShardHeader {
            vocab_size,
            bos,
            tokens,
            documents,
            ..
        } = self.header;
        let mut begun = 0;
        for (position, id) in self.iter().enumerate() {
            if id >= vocab_size {
                let (path, position) = (self.path.clone(), position as u64);
                return Err(Error::ShardToken {
                    path,
                    position,
                    found: id,
                    vocab_size,
                });
            }
            begun += u64::from(id == bos);
        }
        expect(&self.path, "documents", documents, begun)?;
        match self.iter().next() {
            Some(first) => expect(&self.path, "first token", first.into(), bos.into()),
            None => expect(&self.path, "tokens", tokens, 0),
        }
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The header.
    pub fn header(&self) -> &ShardHeader {
        &self.header
    }

    /// The tokens of a range of positions; panics if it is out of bounds, as slices do.
    pub fn tokens(&self, range: Range<usize>) -> impl ExactSizeIterator<Item = u32> + '_ {
        let width = self.header.width();
        let bytes = &self.map[HEADER..][width * range.start..width * range.end];
        bytes.chunks_exact(width).map(|token| {
            token
                .iter()
                .rev()
                .fold(0, |id, &byte| id << 8 | u32::from(byte))
        })
    }

    /// All tokens.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = u32> + '_ {
        self.tokens(0..self.header.tokens as usize)
    }

    /// The range of each document, in order, its BOS included.
    pub fn documents(&self) -> Vec<Range<usize>> {
        let bos = self.header.bos;
        let mut ends: Vec<usize> = self
            .iter()
            .enumerate()
            .filter(|&(_, id)| id == bos)
            .map(|(at, _)| at)
            .collect();
        ends.push(self.header.tokens as usize);
        ends.windows(2).map(|pair| pair[0]..pair[1]).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    const HASH: [u8; 32] = [7; 32];

    /// The bytes of a shard with these documents.
    fn bytes(vocab_size: u32, bos: u32, documents: &[&[u32]]) -> Vec<u8> {
        let header = ShardHeader {
            vocab_size,
            bos,
            tokens: 0,
            documents: 0,
            tokenizer: HASH,
        };
        let mut out = Cursor::new(header.to_bytes().to_vec());
        out.set_position(HEADER as u64);
        let mut writer = ShardWriter {
            out: &mut out,
            header,
            bytes: Vec::new(),
        };
        documents
            .iter()
            .for_each(|document| writer.push(document).unwrap());
        writer.finish().unwrap();
        out.into_inner()
    }

    fn open(bytes: &[u8]) -> Result<Shard> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.tokens");
        std::fs::write(&path, bytes).unwrap();
        Shard::open(&path)
    }

    /// A good shard of 2 documents with some bytes replaced.
    fn damaged(at: usize, with: &[u8]) -> Error {
        let mut bytes = bytes(500, 0, &[&[0, 499, 3], &[0]]);
        bytes[at..at + with.len()].copy_from_slice(with);
        open(&bytes).unwrap_err()
    }

    #[test]
    fn what_is_written_is_read_in_both_widths() {
        for (vocab_size, bytes_per_token) in [(500, 2), (65_536, 2), (65_537, 4), (u32::MAX, 4)] {
            let last = vocab_size - 1;
            let bytes = bytes(vocab_size, 1, &[&[1, last, 0], &[1], &[1, 2]]);
            assert_eq!(bytes.len(), 72 + 6 * bytes_per_token);
            let shard = open(&bytes).unwrap();
            assert_eq!(shard.iter().collect::<Vec<_>>(), [1, last, 0, 1, 1, 2]);
            assert_eq!(shard.tokens(1..3).collect::<Vec<_>>(), [last, 0]);
            assert_eq!(shard.documents(), [0..3, 3..4, 4..6]);
            let expected = ShardHeader {
                vocab_size,
                bos: 1,
                tokens: 6,
                documents: 3,
                tokenizer: HASH,
            };
            assert_eq!(*shard.header(), expected);
        }
    }

    #[test]
    fn an_empty_shard_is_valid() {
        assert!(open(&bytes(500, 0, &[])).unwrap().documents().is_empty());
    }

    #[test]
    fn the_header_is_the_one_in_the_table() {
        let bytes = bytes(500, 0, &[&[0, 499, 3], &[0]]);
        assert_eq!(&bytes[..16], b"STERNTOK\x01\0\0\0\x10\0\0\0");
        assert_eq!(
            &bytes[16..40],
            b"\xf4\x01\0\0\0\0\0\0\x04\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\0"
        );
        assert_eq!(bytes[40..72], HASH);
        assert_eq!(&bytes[72..], b"\0\0\xf3\x01\x03\0\0\0");
    }

    #[test]
    fn a_file_cut_anywhere_is_refused() {
        let whole = bytes(500, 0, &[&[0, 499, 3], &[0]]);
        for length in 0..whole.len() {
            match open(&whole[..length]).unwrap_err() {
                Error::NotAShard { .. } => assert!(length < HEADER),
                Error::ShardSize { .. } => assert!(length >= HEADER),
                Error::Io { .. } if length == 0 => {} // some systems cannot map an empty file
                error => panic!("{length} bytes: {error}"),
            }
        }
        let longer = [whole, vec![0]].concat();
        assert!(matches!(
            open(&longer),
            Err(Error::ShardSize {
                found: 81,
                expected: 80,
                ..
            })
        ));
    }

    #[test]
    fn every_lie_has_its_error() {
        let is_header = |error: Error, name: &str| {
            let found = match &error {
                Error::ShardHeader { field, .. } => *field,
                _ => "another error",
            };
            assert_eq!(found, name, "{error}");
        };
        assert!(matches!(damaged(0, b"GGUF"), Error::NotAShard { .. }));
        assert!(matches!(
            damaged(8, &[2]),
            Error::ShardVersion {
                found: 2,
                expected: 1,
                ..
            }
        ));
        is_header(damaged(12, &[32]), "bits");
        is_header(damaged(16, &[0, 0, 1, 1]), "bits"); // a vocabulary that needs 32
        is_header(damaged(20, &[0xf4, 1]), "BOS");
        is_header(damaged(16, &[0; 4]), "BOS"); // an empty vocabulary
        assert!(matches!(
            damaged(24, &[5]),
            Error::ShardSize { expected: 82, .. }
        ));
        assert!(matches!(damaged(24, &[0xff; 8]), Error::ShardSize { .. })); // no overflow
        is_header(damaged(32, &[3]), "documents");
        is_header(damaged(32, &[0xff; 8]), "documents");
        let token = damaged(74, &[0xf4, 1]);
        assert!(matches!(
            token,
            Error::ShardToken {
                position: 1,
                found: 500,
                vocab_size: 500,
                ..
            }
        ));
        let mut headless = bytes(500, 0, &[&[0, 499, 3], &[0]]);
        headless[72] = 9;
        headless[32] = 1;
        is_header(open(&headless).unwrap_err(), "first token");
        assert!(matches!(
            Shard::open(Path::new("missing.tokens")),
            Err(Error::Io { .. })
        ));
    }

    #[test]
    fn the_writer_refuses_what_the_reader_would() {
        let header = ShardHeader {
            vocab_size: 9,
            bos: 1,
            tokens: 0,
            documents: 0,
            tokenizer: HASH,
        };
        let mut writer = ShardWriter {
            out: Cursor::new(Vec::new()),
            header,
            bytes: Vec::new(),
        };
        for document in [&[][..], &[2], &[1, 1], &[1, 9]] {
            assert!(writer.push(document).is_err(), "{document:?}");
        }
        assert!(writer.push(&[1, 8]).is_ok());
    }
}
