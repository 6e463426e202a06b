//! The key-value pairs of a GGUF file, with typed access.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use crate::{Error, Result};

/// Type of a value. The position in this list is the number in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MetadataType {
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    F32,
    Bool,
    Text,
    Array,
    U64,
    I64,
    F64,
}

/// One value.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    Unsigned(u64),
    Signed(i64),
    F32(f32),
    F64(f64),
    Bool(bool),
    Text(String),
    Array(Array),
}

/// Undecoded scalars or strings. The lengths of the strings were checked.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Array {
    pub kind: MetadataType,
    pub len: usize,
    pub bytes: Vec<u8>,
}

impl MetadataType {
    const ALL: [MetadataType; 13] = [
        MetadataType::U8,
        MetadataType::I8,
        MetadataType::U16,
        MetadataType::I16,
        MetadataType::U32,
        MetadataType::I32,
        MetadataType::F32,
        MetadataType::Bool,
        MetadataType::Text,
        MetadataType::Array,
        MetadataType::U64,
        MetadataType::I64,
        MetadataType::F64,
    ];

    pub fn from_id(id: u32) -> Option<MetadataType> {
        MetadataType::ALL.get(id as usize).copied()
    }

    pub fn id(self) -> u32 {
        self as u32
    }

    /// Bytes of one value; the minimum for a string or an array.
    pub fn bytes(self) -> u64 {
        match self {
            MetadataType::U8 | MetadataType::I8 | MetadataType::Bool => 1,
            MetadataType::U16 | MetadataType::I16 => 2,
            MetadataType::U32 | MetadataType::I32 | MetadataType::F32 => 4,
            MetadataType::U64 | MetadataType::I64 | MetadataType::F64 | MetadataType::Text => 8,
            MetadataType::Array => 12,
        }
    }

    /// Decodes a number or a bool. None for a bool that is neither 0 nor 1, and for strings and
    /// arrays.
    pub fn scalar(self, bytes: &[u8]) -> Option<Value> {
        fn fixed<const N: usize>(bytes: &[u8]) -> [u8; N] {
            bytes
                .try_into()
                .expect("a scalar has the bytes of its kind")
        }
        Some(match self {
            MetadataType::U8 => Value::Unsigned(u8::from_le_bytes(fixed(bytes)).into()),
            MetadataType::U16 => Value::Unsigned(u16::from_le_bytes(fixed(bytes)).into()),
            MetadataType::U32 => Value::Unsigned(u32::from_le_bytes(fixed(bytes)).into()),
            MetadataType::U64 => Value::Unsigned(u64::from_le_bytes(fixed(bytes))),
            MetadataType::I8 => Value::Signed(i8::from_le_bytes(fixed(bytes)).into()),
            MetadataType::I16 => Value::Signed(i16::from_le_bytes(fixed(bytes)).into()),
            MetadataType::I32 => Value::Signed(i32::from_le_bytes(fixed(bytes)).into()),
            MetadataType::I64 => Value::Signed(i64::from_le_bytes(fixed(bytes))),
            MetadataType::F32 => Value::F32(f32::from_le_bytes(fixed(bytes))),
            MetadataType::F64 => Value::F64(f64::from_le_bytes(fixed(bytes))),
            MetadataType::Bool if bytes[0] < 2 => Value::Bool(bytes[0] == 1),
            MetadataType::Bool | MetadataType::Text | MetadataType::Array => return None,
        })
    }
}

impl Value {
    fn describe(&self) -> String {
        match self {
            Value::Unsigned(n) => n.to_string(),
            Value::Signed(n) => n.to_string(),
            Value::F32(x) => x.to_string(),
            Value::F64(x) => x.to_string(),
            Value::Bool(b) => b.to_string(),
            Value::Text(text) => format!("{:?}", text.chars().take(60).collect::<String>()),
            Value::Array(array) => format!("{} values of type {:?}", array.len, array.kind),
        }
    }

    fn unsigned(&self) -> Option<u64> {
        match self {
            Value::Unsigned(n) => Some(*n),
            Value::Signed(n) => u64::try_from(*n).ok(),
            _ => None,
        }
    }

    fn float(&self) -> Option<f64> {
        match self {
            // The f64 with the same decimal form as the f32, so that 1e-5 stays 1e-5.
            Value::F32(x) => x.to_string().parse().ok(),
            Value::F64(x) => Some(*x),
            _ => None,
        }
    }
}

impl Array {
    fn strings(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest = self.bytes.as_slice();
        (0..self.len).map(move |_| {
            let (len, after) = rest.split_first_chunk().expect("lengths were checked");
            let (text, after) = after.split_at(u64::from_le_bytes(*len) as usize);
            rest = after;
            text
        })
    }

    fn scalars(&self) -> impl Iterator<Item = Option<Value>> {
        let chunks = self.bytes.chunks_exact(self.kind.bytes() as usize);
        chunks.map(|bytes| self.kind.scalar(bytes))
    }
}

/// All pairs of a file.
#[derive(Debug)]
pub(crate) struct Metadata {
    pub path: PathBuf,
    pub pairs: HashMap<String, Value>,
}

impl Metadata {
    pub fn has(&self, key: &str) -> bool {
        self.pairs.contains_key(key)
    }

    pub fn unsigned(&self, key: &str) -> Result<Option<u64>> {
        self.typed(key, "an integer above or equal to zero", Value::unsigned)
    }

    pub fn float(&self, key: &str) -> Result<Option<f64>> {
        self.typed(key, "a number", Value::float)
    }

    pub fn boolean(&self, key: &str) -> Result<Option<bool>> {
        self.typed(key, "true or false", |v| match v {
            Value::Bool(b) => Some(*b),
            _ => None,
        })
    }

    pub fn text(&self, key: &str) -> Result<Option<&str>> {
        self.typed(key, "a string", |v| match v {
            Value::Text(text) => Some(text.as_str()),
            _ => None,
        })
    }

    pub fn strings(&self, key: &str) -> Result<Option<Vec<&str>>> {
        self.typed(key, "an array of UTF-8 strings", |v| match v {
            Value::Array(array) if array.kind == MetadataType::Text => {
                let texts = array.strings().map(|text| std::str::from_utf8(text).ok());
                texts.collect()
            }
            _ => None,
        })
    }

    pub fn unsigneds(&self, key: &str) -> Result<Option<Vec<u64>>> {
        self.typed(
            key,
            "an array of integers above or equal to zero",
            |v| match v {
                Value::Array(array) if array.kind != MetadataType::Text => {
                    array.scalars().map(|v| v?.unsigned()).collect()
                }
                _ => None,
            },
        )
    }

    pub fn floats(&self, key: &str) -> Result<Option<Vec<f32>>> {
        self.typed(key, "an array of f32", |v| match v {
            Value::Array(array) if array.kind == MetadataType::F32 => {
                let numbers = array.bytes.as_chunks().0.iter();
                Some(numbers.map(|b| f32::from_le_bytes(*b)).collect())
            }
            _ => None,
        })
    }

    fn typed<'a, T>(
        &'a self,
        key: &str,
        expected: &str,
        read: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<Option<T>> {
        let Some(value) = self.pairs.get(key) else {
            return Ok(None);
        };
        match read(value) {
            Some(value) => Ok(Some(value)),
            None => Err(self.bad(key, expected, value.describe())),
        }
    }

    /// The error for a key with a wrong value.
    pub fn bad(&self, key: &str, expected: impl Into<String>, found: impl Into<String>) -> Error {
        bad(&self.path, key, expected, found)
    }
}

fn bad(path: &Path, key: &str, expected: impl Into<String>, found: impl Into<String>) -> Error {
    Error::Gguf {
        path: path.to_owned(),
        part: format!("key {key}"),
        expected: expected.into(),
        found: found.into(),
        advice: "export the model again, or take the file of another publisher",
    }
}
