//! Rows of exactly context + 1 tokens, in which the tokens to learn are marked. They are packed
//! once and mapped into memory.
//!
//! | bytes | little endian |
//! |---|---|
//! | 0..8 | magic `STERNROW` |
//! | 8..12 | version, 1 |
//! | 12..16 | vocabulary size |
//! | 16..24 | tokens of a row |
//! | 24..32 | number of rows |
//! | 32..64 | SHA-256 of `tokenizer.json` |
//! | 64.. | the tokens, 32 bits each, row after row |
//!
//! The two highest bits of a token are flags: [`UNSCORED`] and [`FIRST`]. A row holds whole
//! documents, one after another; its end never cuts one. [`PackedRows::open`] checks every byte
//! once.

use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use memmap2::Mmap;

use crate::{Error, Result, Tokenizer, mapped};

/// Flag of a token that is read and not learned: as the target of the token before it, it has no
/// loss.
pub const UNSCORED: u32 = 1 << 31;
/// Flag of the first token of a document, which sees nothing before it.
pub const FIRST: u32 = 1 << 30;

/// A token without its flags.
pub fn id(token: u32) -> u32 {
    token & (FIRST - 1)
}

const MAGIC: [u8; 8] = *b"STERNROW";
const VERSION: u32 = 1;
/// Length of the header in bytes.
const HEADER: usize = 64;
/// The number of rows that are open for further documents.
const OPEN_ROWS: usize = 64;

/// Packs documents into rows, each into the fullest row that has room for it.
pub struct RowsWriter<W> {
    out: W,
    open: Vec<Vec<u32>>,
    width: usize,
    /// The unscored token that pads rows.
    padding: u32,
    header: [u8; HEADER],
    rows: u64,
}

impl<W: Write + Seek> RowsWriter<W> {
    /// Begins rows of `width` tokens at the start of an empty file.
    pub fn new(mut out: W, tokenizer: &Tokenizer, width: usize) -> io::Result<Self> {
        let mut header = [0; HEADER];
        header[..8].copy_from_slice(&MAGIC);
        header[8..12].copy_from_slice(&VERSION.to_le_bytes());
        header[12..16].copy_from_slice(&(tokenizer.vocab_size() as u32).to_le_bytes());
        header[16..24].copy_from_slice(&(width as u64).to_le_bytes());
        header[32..].copy_from_slice(&tokenizer.hash());
        out.write_all(&header)?;
        Ok(Self {
            out,
            open: Vec::new(),
            width,
            padding: tokenizer.bos_id() | UNSCORED,
            header,
            rows: 0,
        })
    }

    /// Adds a document of at most the width of a row, with [`UNSCORED`] where nothing is learned.
    /// Its first token becomes [`FIRST`].
    ///
    /// # Panics
    /// If the document is empty or longer than a row.
    pub fn push(&mut self, mut document: Vec<u32>) -> io::Result<()> {
        assert!((1..=self.width).contains(&document.len()));
        document[0] |= FIRST | UNSCORED;
        let has_room = |row: &&mut Vec<u32>| row.len() + document.len() <= self.width;
        let rows = self.open.iter_mut().filter(has_room);
        match rows.max_by_key(|row| row.len()) {
            Some(row) => row.extend(document),
            None => {
                self.open.push(document);
                if self.open.len() > OPEN_ROWS {
                    let fullest = (0..self.open.len()).max_by_key(|i| self.open[*i].len());
                    let row = self.open.remove(fullest.expect("rows are open"));
                    self.write(row)?;
                }
            }
        }
        Ok(())
    }

    fn write(&mut self, mut row: Vec<u32>) -> io::Result<()> {
        if row.len() < self.width {
            row.push(self.padding | FIRST);
            row.resize(self.width, self.padding);
        }
        for token in row {
            self.out.write_all(&token.to_le_bytes())?;
        }
        self.rows += 1;
        Ok(())
    }

    /// Writes the open rows and the number of rows, and returns that number.
    pub fn finish(mut self) -> io::Result<u64> {
        for row in std::mem::take(&mut self.open) {
            self.write(row)?;
        }
        self.header[24..32].copy_from_slice(&self.rows.to_le_bytes());
        self.out.seek(SeekFrom::Start(0))?;
        self.out.write_all(&self.header)?;
        self.out.flush()?;
        Ok(self.rows)
    }
}

/// Checked rows, mapped into memory.
#[derive(Debug)]
pub struct PackedRows {
    path: PathBuf,
    map: Mmap,
    width: usize,
    rows: u64,
}

impl PackedRows {
    /// Maps a file and checks all of it: header, size, every id.
    ///
    /// The file must not be changed while it is mapped; the writers of this crate replace files
    /// instead of changing them.
    pub fn open(path: &Path) -> Result<Self> {
        let map = mapped::map(path)?;
        let (vocab_size, width, rows) = header(path, &map)?;
        let rows = Self {
            path: path.to_owned(),
            map,
            width,
            rows,
        };
        rows.check_tokens(vocab_size)?;
        Ok(rows)
    }

    fn check_tokens(&self, vocab_size: u32) -> Result<()> {
        let tokens = (0..self.rows).flat_map(|row| self.row(row));
        match tokens.enumerate().find(|(_, t)| id(*t) >= vocab_size) {
            None => Ok(()),
            Some((position, token)) => Err(Error::ShardToken {
                path: self.path.clone(),
                position: position as u64,
                found: id(token),
                vocab_size,
            }),
        }
    }

    /// The tokens of a row with their flags; panics if there is no such row, as slices do.
    pub fn row(&self, row: u64) -> impl ExactSizeIterator<Item = u32> + '_ {
        let bytes = &self.map[HEADER + 4 * self.width * row as usize..][..4 * self.width];
        let tokens = bytes.chunks_exact(4);
        tokens.map(|b| u32::from_le_bytes(b.try_into().expect("chunks of four")))
    }

    /// Number of rows.
    pub fn len(&self) -> u64 {
        self.rows
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// Tokens of a row.
    pub fn width(&self) -> usize {
        self.width
    }
}

/// Vocabulary size, width and number of rows of a file. Errors if they contradict its size.
fn header(path: &Path, file: &[u8]) -> Result<(u32, usize, u64)> {
    let fail = |reason: String| Error::NotAShard {
        path: path.to_owned(),
        reason,
    };
    if file.len() < HEADER || file[..8] != MAGIC {
        return Err(fail("it does not begin as packed rows do".into()));
    }
    let u32_at = |at: usize| u32::from_le_bytes([0, 1, 2, 3].map(|i| file[at + i]));
    let u64_at = |at: usize| u64::from(u32_at(at)) | u64::from(u32_at(at + 4)) << 32;
    if u32_at(8) != VERSION {
        return Err(Error::ShardVersion {
            path: path.to_owned(),
            found: u32_at(8),
            expected: VERSION,
        });
    }
    let (vocab_size, width, rows) = (u32_at(12), u64_at(16), u64_at(24));
    if width == 0 {
        return Err(fail("its rows have no tokens".into()));
    }
    let tokens = u128::from(width) * u128::from(rows);
    let expected = tokens.saturating_mul(4).saturating_add(HEADER as u128);
    if file.len() as u128 != expected {
        return Err(Error::ShardSize {
            path: path.to_owned(),
            found: file.len() as u64,
            expected,
        });
    }
    Ok((vocab_size, width as usize, rows))
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;
    use crate::train_bpe;

    fn tokenizer() -> Tokenizer {
        train_bpe(["abc abc".to_owned()], 258, &[]).unwrap()
    }

    fn packed(documents: &[&[u32]], width: usize) -> Vec<u8> {
        let mut out = Cursor::new(Vec::new());
        let mut writer = RowsWriter::new(&mut out, &tokenizer(), width).unwrap();
        documents
            .iter()
            .for_each(|d| writer.push(d.to_vec()).unwrap());
        writer.finish().unwrap();
        out.into_inner()
    }

    fn open(bytes: &[u8]) -> Result<PackedRows> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.rows");
        std::fs::write(&path, bytes).unwrap();
        PackedRows::open(&path)
    }

    #[test]
    fn documents_lie_whole_side_by_side_and_the_rest_is_not_learned() {
        let a = [5 | UNSCORED, 6, 7];
        let rows = open(&packed(&[&a, &[8, 9], &[4; 4], &[3]], 6)).unwrap();
        let found: Vec<Vec<u32>> = (0..rows.len()).map(|r| rows.row(r).collect()).collect();
        let (u, first) = (UNSCORED, FIRST | UNSCORED);
        // BOS is 0; the single token goes to the fuller row.
        let expected = [
            vec![5 | first, 6, 7, 8 | first, 9, 3 | first],
            vec![4 | first, 4, 4, 4, first, u],
        ];
        assert_eq!(found, expected);
        assert_eq!(rows.width(), 6);
    }

    #[test]
    fn many_documents_fill_their_rows() {
        let documents: Vec<Vec<u32>> = (0..1000).map(|i| vec![7; 1 + i * i % 90]).collect();
        let views: Vec<&[u32]> = documents.iter().map(Vec::as_slice).collect();
        let rows = open(&packed(&views, 100)).unwrap();
        let tokens: usize = documents.iter().map(Vec::len).sum();
        let filled = tokens as f64 / (100 * rows.len()) as f64;
        assert!(filled > 0.95, "{filled}");
    }

    #[test]
    fn damaged_files_are_refused() {
        let good = packed(&[&[1, 2, 3]], 4);
        assert!(open(&good).is_ok());
        let with = |at: usize, byte: u8| {
            let mut bytes = good.clone();
            bytes[at] = byte;
            open(&bytes).unwrap_err()
        };
        assert!(matches!(with(0, b'x'), Error::NotAShard { .. }));
        assert!(matches!(with(8, 2), Error::ShardVersion { found: 2, .. }));
        assert!(matches!(with(16, 0), Error::NotAShard { .. }));
        assert!(matches!(with(16, 5), Error::ShardSize { .. }));
        assert!(matches!(with(31, 255), Error::ShardSize { .. }));
        let token = with(HEADER + 5, 2);
        assert!(matches!(
            token,
            Error::ShardToken {
                position: 1,
                found: 514,
                ..
            }
        ));
        let cut = open(&good[..good.len() - 1]).unwrap_err();
        assert!(matches!(cut, Error::ShardSize { .. }));
        assert!(matches!(open(b"STERN"), Err(Error::NotAShard { .. })));
    }
}
