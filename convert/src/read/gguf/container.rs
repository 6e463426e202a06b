//! The GGUF container: header, key-value pairs, tensor infos, and the position of each tensor's
//! bytes.
//!
//! Layout of versions 2 and 3, little endian: `GGUF`, u32 version, u64 number of tensors, u64
//! number of pairs; then the pairs (key, u32 type, value; a string is a u64 length and its bytes);
//! then for each tensor its name, u32 number of dimensions, u64 dimensions from the innermost
//! outwards, u32 type, u64 offset; then, aligned, the data.
//!
//! Type numbers collide between projects, so the info of a tensor does not determine its size. Its
//! bytes reach from its offset to the next offset, and [`crate::gguf::types`] finds the layout that
//! fills them.
//!
//! The reader is hand-written because other crates that read GGUF, such as candle-core, do not know
//! the types of bitnet.cpp and ik_llama.cpp and derive sizes from shapes.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::path::{Path, PathBuf};

use memmap2::Mmap;

use super::cursor::{Cursor, DAMAGED};
use super::metadata::{Metadata, Value};
use crate::read::mapped::map;
use crate::{Error, Result};

pub(crate) const MAGIC: &[u8; 4] = b"GGUF";
pub(crate) const ALIGNMENT: &str = "general.alignment";
pub(crate) const DEFAULT_ALIGNMENT: u64 = 32;
const LARGEST_ALIGNMENT: u64 = 1 << 20;
/// Longest name of a tensor. Other readers of the format have the same limit.
const LONGEST_NAME: usize = 64;
const LONGEST_KEY: usize = 65535;

/// A GGUF file with a checked header: every tensor is inside the file, and no two overlap.
#[derive(Debug)]
pub(crate) struct Container {
    pub path: PathBuf,
    file: File,
    pub bytes: u64,
    pub metadata: Metadata,
    pub alignment: u64,
    pub tensors: HashMap<String, Info>,
}

/// The description of a tensor in the header.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Info {
    pub name: String,
    /// From the innermost outwards.
    pub dimensions: Vec<u64>,
    pub type_id: u32,
    /// Position of the first byte in the file.
    pub start: u64,
    /// Bytes up to the next tensor or the end of the file, including padding.
    pub span: u64,
}

impl Info {
    /// Number of elements. The header check ensures that it does not overflow.
    pub fn elements(&self) -> u64 {
        self.dimensions.iter().product()
    }

    pub fn columns(&self) -> u64 {
        self.dimensions[0]
    }
}

impl Container {
    pub fn open(path: &Path) -> Result<Container> {
        let file = File::open(path).map_err(Error::io(path))?;
        let bytes = file.metadata().map_err(Error::io(path))?.len();
        let len = usize::try_from(bytes).unwrap_or(usize::MAX);
        let whole = map(path, &file, 0, len)?;
        let mut cursor = Cursor::new(path, &whole);
        let (pairs, tensors) = counts(&mut cursor)?;
        let metadata = Metadata {
            path: path.to_owned(),
            pairs: read_pairs(&mut cursor, pairs)?,
        };
        let alignment = alignment(&metadata)?;
        let mut tensors = read_infos(&mut cursor, tensors, alignment)?;
        place(&mut cursor, &mut tensors, alignment, bytes)?;
        let tensors = tensors.into_iter().map(|t| (t.name.clone(), t)).collect();
        Ok(Container {
            path: path.to_owned(),
            file,
            bytes,
            metadata,
            alignment,
            tensors,
        })
    }

    /// Maps bytes `start..start + len` of a tensor; they are within its span.
    pub fn map(&self, info: &Info, start: u64, len: usize) -> Result<Mmap> {
        map(&self.path, &self.file, info.start + start, len)
    }
}

fn counts(cursor: &mut Cursor) -> Result<(usize, usize)> {
    if cursor.take(4)? != MAGIC {
        return cursor.error("GGUF", "other bytes", "give a GGUF file");
    }
    match cursor.u32()? {
        2 | 3 => {}
        1 => return cursor.error("version 2 or 3", "version 1", OLD),
        v if matches!(v.swap_bytes(), 1..=3) => {
            return cursor.error("little-endian numbers", "a big-endian file", OLD);
        }
        v => return cursor.error("version 2 or 3", format!("version {v}"), NEW),
    }
    let tensors = cursor.count("tensors", 8 + 4 + 8 + 4 + 8)?;
    let pairs = cursor.count("key-value pairs", 8 + 4 + 1)?;
    Ok((pairs, tensors))
}

const OLD: &str = "export the model again with a current tool";
const NEW: &str = "update this program or export the model in version 3";

fn read_pairs(cursor: &mut Cursor, count: usize) -> Result<HashMap<String, Value>> {
    let mut pairs = HashMap::new();
    for i in 0..count {
        cursor.part = format!("key {i}");
        let key = cursor.text()?;
        if key.is_empty() || key.len() > LONGEST_KEY {
            let expected = format!("a name of 1 to {LONGEST_KEY} bytes");
            return cursor.error(expected, key.len(), DAMAGED);
        }
        cursor.part = format!("key {}", shown(&key));
        let value = cursor.value()?;
        if pairs.contains_key(&key) {
            return cursor.error("one value", "a second one", DAMAGED);
        }
        pairs.insert(key, value);
    }
    Ok(pairs)
}

/// Formats a name for a message. A hostile name may be long and contain control characters.
fn shown(name: &str) -> String {
    let short: String = name.chars().take(LONGEST_NAME).collect();
    short.escape_debug().to_string()
}

fn alignment(metadata: &Metadata) -> Result<u64> {
    let alignment = metadata.unsigned(ALIGNMENT)?.unwrap_or(DEFAULT_ALIGNMENT);
    if alignment.is_power_of_two() && (8..=LARGEST_ALIGNMENT).contains(&alignment) {
        return Ok(alignment);
    }
    let expected = format!("a power of two from 8 to {LARGEST_ALIGNMENT}");
    Err(metadata.bad(ALIGNMENT, expected, alignment.to_string()))
}

fn read_infos(cursor: &mut Cursor, count: usize, alignment: u64) -> Result<Vec<Info>> {
    let mut infos = Vec::new();
    let mut names = HashSet::new();
    for i in 0..count {
        cursor.part = format!("tensor {i}");
        let name = cursor.text()?;
        if name.is_empty() || name.len() > LONGEST_NAME {
            let expected = format!("a name of 1 to {LONGEST_NAME} bytes");
            return cursor.error(expected, name.len(), DAMAGED);
        }
        cursor.part = format!("tensor {}", shown(&name));
        if !names.insert(name.clone()) {
            return cursor.error("one tensor of that name", "a second one", DAMAGED);
        }
        let dimensions = read_dimensions(cursor)?;
        let type_id = cursor.u32()?;
        let start = cursor.u64()?;
        if !start.is_multiple_of(alignment) {
            let expected = format!("an offset that is a multiple of {alignment}");
            return cursor.error(expected, start, DAMAGED);
        }
        infos.push(Info {
            name,
            dimensions,
            type_id,
            start,
            span: 0,
        });
    }
    Ok(infos)
}

fn read_dimensions(cursor: &mut Cursor) -> Result<Vec<u64>> {
    let count = cursor.u32()?;
    if !(1..=4).contains(&count) {
        return cursor.error("1 to 4 dimensions", count, DAMAGED);
    }
    let dimensions = (0..count)
        .map(|_| cursor.u64())
        .collect::<Result<Vec<_>>>()?;
    let product = dimensions.iter().try_fold(1u64, |p, d| p.checked_mul(*d));
    // Every layout takes less than 8 bytes per element, so the sizes of tensors cannot overflow
    // below.
    match product {
        Some(1..=MOST_ELEMENTS) => Ok(dimensions),
        _ => {
            let expected = "dimensions above zero with a product of at most 2^56";
            cursor.error(expected, format!("{dimensions:?}"), DAMAGED)
        }
    }
}

const MOST_ELEMENTS: u64 = 1 << 56;

/// Computes the start and the maximum extent of each tensor.
fn place(cursor: &mut Cursor, infos: &mut [Info], alignment: u64, bytes: u64) -> Result<()> {
    let data = (cursor.at() as u64).next_multiple_of(alignment);
    let mut order: Vec<usize> = (0..infos.len()).collect();
    order.sort_by_key(|i| infos[*i].start);
    let mut end = bytes;
    for i in order.into_iter().rev() {
        let info = &mut infos[i];
        cursor.part = format!("tensor {}", shown(&info.name));
        let start = info.start.checked_add(data).filter(|start| *start < bytes);
        let Some(start) = start else {
            let expected = format!("an offset below {}", bytes.saturating_sub(data));
            return cursor.error(expected, info.start, DAMAGED);
        };
        if start >= end {
            return cursor.error("bytes of its own", "the offset of another tensor", DAMAGED);
        }
        info.span = end - start;
        info.start = start;
        end = start;
    }
    if end > data && !infos.is_empty() {
        cursor.part = "data".into();
        let found = format!("the first one {} bytes later", end - data);
        return cursor.error("a tensor at its start", found, DAMAGED);
    }
    Ok(())
}
