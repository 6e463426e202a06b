//! Reads numbers, strings and values from the start of an untrusted file. Any length in it may be
//! wrong.

use std::path::Path;

use super::metadata::{Array, MetadataType, Value};
use crate::{Error, Result};

/// A position in the bytes of a file, and the name of the current part for messages.
pub(crate) struct Cursor<'a> {
    path: &'a Path,
    bytes: &'a [u8],
    at: usize,
    /// The part being read: `header`, `key 3`, `tensor blk.0.attn_q.weight`.
    pub part: String,
}

const CUT: &str = "the file was cut off or its header is damaged; copy or download it again";
pub(crate) const DAMAGED: &str = "the file is damaged; copy or download it again";

impl<'a> Cursor<'a> {
    pub fn new(path: &'a Path, bytes: &'a [u8]) -> Cursor<'a> {
        Cursor {
            path,
            bytes,
            at: 0,
            part: "header".into(),
        }
    }

    pub fn at(&self) -> usize {
        self.at
    }

    pub fn left(&self) -> u64 {
        (self.bytes.len() - self.at) as u64
    }

    pub fn error<T>(
        &self,
        expected: impl Into<String>,
        found: impl ToString,
        advice: &'static str,
    ) -> Result<T> {
        Err(Error::Gguf {
            path: self.path.to_owned(),
            part: self.part.clone(),
            expected: expected.into(),
            found: found.to_string(),
            advice,
        })
    }

    pub fn take(&mut self, len: u64) -> Result<&'a [u8]> {
        if len > self.left() {
            let expected = format!("{len} bytes at {}", self.at);
            return self.error(expected, format!("{} before the end", self.left()), CUT);
        }
        let bytes = &self.bytes[self.at..][..len as usize];
        self.at += len as usize;
        Ok(bytes)
    }

    fn number<const N: usize>(&mut self) -> Result<[u8; N]> {
        let bytes = self.take(N as u64)?;
        Ok(bytes.try_into().expect("as many bytes were taken"))
    }

    pub fn u32(&mut self) -> Result<u32> {
        Ok(u32::from_le_bytes(self.number()?))
    }

    pub fn u64(&mut self) -> Result<u64> {
        Ok(u64::from_le_bytes(self.number()?))
    }

    /// Reads a count of things that take at least `each` bytes.
    pub fn count(&mut self, what: &str, each: u64) -> Result<usize> {
        let count = self.u64()?;
        if count > self.left() / each {
            let expected = format!("at most {} {what}, which fit", self.left() / each);
            return self.error(expected, count, CUT);
        }
        Ok(count as usize)
    }

    fn bytes(&mut self) -> Result<&'a [u8]> {
        let len = self.u64()?;
        self.take(len)
    }

    pub fn text(&mut self) -> Result<String> {
        let bytes = self.bytes()?;
        match std::str::from_utf8(bytes) {
            Ok(text) => Ok(text.to_owned()),
            Err(e) => self.error("UTF-8", e, DAMAGED),
        }
    }

    pub fn value(&mut self) -> Result<Value> {
        let kind = self.u32()?;
        Ok(match MetadataType::from_id(kind) {
            Some(MetadataType::Text) => Value::Text(self.text()?),
            Some(MetadataType::Array) => Value::Array(self.array()?),
            Some(kind) => match kind.scalar(self.take(kind.bytes())?) {
                Some(value) => value,
                None => return self.error("false or true, 0 or 1", "another byte", DAMAGED),
            },
            None => return self.error("a value type from 0 to 12", kind, DAMAGED),
        })
    }

    /// Keeps the elements undecoded, so that memory stays below the size of the file.
    fn array(&mut self) -> Result<Array> {
        let id = self.u32()?;
        let kind = match MetadataType::from_id(id) {
            Some(MetadataType::Array) => {
                return self.error(
                    "an array of scalars or strings",
                    "an array of arrays",
                    NESTED,
                );
            }
            Some(kind) => kind,
            None => return self.error("a value type from 0 to 12", id, DAMAGED),
        };
        let len = self.count("elements", kind.bytes())?;
        let start = self.at;
        match kind {
            MetadataType::Text => {
                for _ in 0..len {
                    self.bytes()?;
                }
            }
            kind => {
                self.take(len as u64 * kind.bytes())?;
            }
        }
        let bytes = self.bytes[start..self.at].to_vec();
        Ok(Array { kind, len, bytes })
    }
}

const NESTED: &str = "no model needs one; export the model again";
