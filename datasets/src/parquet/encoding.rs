//! The values of a page, one by one, as JSON.

use std::sync::Arc;

use serde_json::{Number, Value};

use super::Reason;
use super::levels::{ByteReader, IntegerRuns};
use super::schema::{Leaf, Physical};

/// Reads the values of a page in one of the encodings.
#[derive(Debug)]
pub(super) enum PageValues {
    Plain(ByteReader, Bits),
    /// Indices into the column's dictionary.
    Dictionary(IntegerRuns, Arc<[Value]>),
    Booleans(IntegerRuns),
    Integers(Deltas),
    /// The lengths first, then all bytes.
    Lengths(Deltas, ByteReader),
    /// The lengths of the prefixes shared with the previous value, then the suffixes with their
    /// lengths.
    Prefixes(Deltas, Deltas, ByteReader, Vec<u8>),
}

/// How many bits of booleans are read.
type Bits = usize;

impl PageValues {
    pub(super) fn new(
        encoding: i64,
        count: usize,
        mut bytes: ByteReader,
        dictionary: &Option<Arc<[Value]>>,
        leaf: &Leaf,
    ) -> Result<Self, Reason> {
        use Physical::{Boolean, Bytes as Text, Fixed, Int32, Int64};
        Ok(match (encoding, leaf.physical) {
            (0, _) => Self::Plain(bytes, 0),
            (2 | 8, _) => {
                let dictionary = dictionary.clone().ok_or("a column has no dictionary")?;
                let [width] = match bytes.is_empty() {
                    true => [0],
                    false => bytes.array()?,
                };
                Self::Dictionary(IntegerRuns::new(bytes, width.into())?, dictionary)
            }
            (3, Boolean) => {
                let length = bytes.length()?;
                Self::Booleans(IntegerRuns::new(bytes.part(length)?, 1)?)
            }
            (5, Int32 | Int64) => Self::Integers(Deltas::new(&mut bytes, count)?),
            (6, Text) => Self::Lengths(Deltas::skipped(&mut bytes, count)?, bytes),
            (7, Text | Fixed(_)) => {
                let prefixes = Deltas::skipped(&mut bytes, count)?;
                let lengths = Deltas::skipped(&mut bytes, count)?;
                Self::Prefixes(prefixes, lengths, bytes, Vec::new())
            }
            (other, kind) => {
                return Err(format!(
                    "the encoding {other} of values of type {kind:?} is not known; write it again \
                     with plain or dictionary encoding"
                ));
            }
        })
    }

    /// The next value.
    pub(super) fn next(&mut self, leaf: &Leaf) -> Result<Value, Reason> {
        match self {
            Self::Plain(bytes, bits) if leaf.physical == Physical::Boolean => {
                let value = bytes.bits(*bits, 1)?;
                *bits += 1;
                Ok(Value::Bool(value == 1))
            }
            Self::Plain(bytes, _) => plain(bytes, leaf),
            Self::Dictionary(runs, dictionary) => {
                let index = runs.next()? as usize;
                let value = dictionary.get(index).cloned();
                value
                    .ok_or_else(|| format!("entry {index} of a dictionary of {}", dictionary.len()))
            }
            Self::Booleans(runs) => Ok(Value::Bool(runs.next()? == 1)),
            Self::Integers(deltas) => match leaf.physical {
                Physical::Int32 => Ok(integer32(deltas.next()? as i32, leaf)),
                _ => Ok(integer64(deltas.next()?, leaf)),
            },
            Self::Lengths(lengths, bytes) => Ok(text(bytes.take(length(lengths.next()?)?)?)),
            Self::Prefixes(prefixes, lengths, bytes, last) => {
                let kept = length(prefixes.next()?)?;
                if kept > last.len() {
                    return Err(format!(
                        "{kept} bytes are kept of a value of {}",
                        last.len()
                    ));
                }
                last.truncate(kept);
                last.extend_from_slice(bytes.take(length(lengths.next()?)?)?);
                Ok(text(last))
            }
        }
    }
}

/// A dictionary: plain values.
pub(super) fn dictionary(
    count: usize,
    mut bytes: ByteReader,
    leaf: &Leaf,
) -> Result<Arc<[Value]>, Reason> {
    if leaf.physical == Physical::Boolean {
        return Err("a column of booleans has a dictionary".into());
    }
    (0..count).map(|_| plain(&mut bytes, leaf)).collect()
}

fn plain(bytes: &mut ByteReader, leaf: &Leaf) -> Result<Value, Reason> {
    let float = |value: f64| Number::from_f64(value).map_or(Value::Null, Value::Number);
    Ok(match leaf.physical {
        Physical::Boolean => Value::Bool(bytes.take(1)?[0] & 1 == 1),
        Physical::Int32 => integer32(i32::from_le_bytes(bytes.array()?), leaf),
        Physical::Int64 => integer64(i64::from_le_bytes(bytes.array()?), leaf),
        Physical::Float => float(f32::from_le_bytes(bytes.array()?).into()),
        Physical::Double => float(f64::from_le_bytes(bytes.array()?)),
        Physical::Bytes => {
            let length = bytes.length()?;
            text(bytes.take(length)?)
        }
        Physical::Fixed(length) => text(bytes.take(length)?),
    })
}

fn integer32(value: i32, leaf: &Leaf) -> Value {
    match leaf.unsigned {
        true => Value::from(value as u32),
        false => Value::from(value),
    }
}

fn integer64(value: i64, leaf: &Leaf) -> Value {
    match leaf.unsigned {
        true => Value::from(value as u64),
        false => Value::from(value),
    }
}

fn text(bytes: &[u8]) -> Value {
    match std::str::from_utf8(bytes) {
        Ok(text) => Value::from(text),
        Err(_) => Value::from(bytes),
    }
}

fn length(value: i64) -> Result<usize, Reason> {
    usize::try_from(value).map_err(|_| format!("a value of {value} bytes"))
}

/// Integers as differences, in blocks of miniblocks; each miniblock has its own bit width.
#[derive(Clone, Debug)]
pub(super) struct Deltas {
    bytes: ByteReader,
    /// Values of a miniblock.
    miniblock: usize,
    miniblocks: usize,
    /// Values not returned yet.
    left: u64,
    value: i64,
    is_first: bool,
    least: i64,
    /// Widths of the block's miniblocks that have not been opened, last one first.
    widths: Vec<u8>,
    width: u32,
    /// Values of the open miniblock that were returned.
    at: usize,
}

impl Deltas {
    fn new(bytes: &mut ByteReader, count: usize) -> Result<Self, Reason> {
        let block = bytes.varint()?;
        let miniblocks = bytes.varint()?;
        let left = bytes.varint()?;
        let value = bytes.zigzag()?;
        if left > count as u64 {
            return Err(format!("{left} differences in a page of {count} values"));
        }
        let sound = (1..=1 << 16).contains(&block)
            && (1..=block).contains(&miniblocks)
            && block % miniblocks == 0
            && (block / miniblocks) % 8 == 0;
        if !sound {
            return Err(format!(
                "differences come in blocks of {block} in {miniblocks} parts"
            ));
        }
        let miniblock = (block / miniblocks) as usize;
        Ok(Self {
            bytes: bytes.clone(),
            miniblock,
            miniblocks: miniblocks as usize,
            left,
            value,
            is_first: true,
            least: 0,
            widths: Vec::new(),
            width: 0,
            at: miniblock,
        })
    }

    /// Reads and returns all the numbers; the reader of `bytes` is then after them.
    fn skipped(bytes: &mut ByteReader, count: usize) -> Result<Self, Reason> {
        let numbers = Self::new(bytes, count)?;
        let mut last = numbers.clone();
        while last.left > 0 {
            last.next()?;
        }
        last.close()?;
        *bytes = last.bytes;
        Ok(numbers)
    }

    fn next(&mut self) -> Result<i64, Reason> {
        self.left = self
            .left
            .checked_sub(1)
            .ok_or("a page has too few values")?;
        if self.is_first {
            self.is_first = false;
            return Ok(self.value);
        }
        if self.at == self.miniblock {
            self.close()?;
            self.open()?;
        }
        let delta = self.bytes.bits(self.at * self.width as usize, self.width)? as i64;
        self.at += 1;
        self.value = self.value.wrapping_add(self.least).wrapping_add(delta);
        Ok(self.value)
    }

    fn open(&mut self) -> Result<(), Reason> {
        if self.widths.is_empty() {
            self.least = self.bytes.zigzag()?;
            self.widths = self.bytes.take(self.miniblocks)?.to_vec();
            self.widths.reverse();
        }
        self.width = self.widths.pop().expect("a block has a miniblock").into();
        self.at = 0;
        match self.width {
            0..=64 => Ok(()),
            width => Err(format!("differences of {width} bits")),
        }
    }

    /// Moves to the end of the open miniblock, which is stored whole even if few of its values
    /// count.
    fn close(&mut self) -> Result<(), Reason> {
        let length = self.miniblock / 8 * self.width as usize;
        self.width = 0;
        self.bytes.take(length)?;
        Ok(())
    }
}
