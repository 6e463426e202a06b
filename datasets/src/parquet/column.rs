//! A column of a row group: levels and values across its pages.

use std::sync::Arc;

use serde_json::Value;

use super::encoding::{self, PageValues};
use super::levels::IntegerRuns;
use super::page::{self, DataPage, Page};
use super::schema::Chunk;
use super::{Reason, Store};

/// The levels of a value: which list it continues (repetition), and how much of the path to it
/// exists (definition).
#[derive(Clone, Copy, Debug)]
pub(super) struct Levels {
    pub(super) repetition: u16,
    pub(super) definition: u16,
}

/// Reads a column from its start.
pub(super) struct Column {
    file: Store,
    chunk: Chunk,
    at: usize,
    dictionary: Option<Arc<[Value]>>,
    page: Option<OpenPage>,
    /// The levels of the next value, once they were read.
    next: Option<Levels>,
}

struct OpenPage {
    left: usize,
    repetition: Option<IntegerRuns>,
    definition: Option<IntegerRuns>,
    values: PageValues,
}

impl Column {
    pub(super) fn new(file: &Store, chunk: &Chunk) -> Self {
        Self {
            file: file.clone(),
            chunk: *chunk,
            at: chunk.start,
            dictionary: None,
            page: None,
            next: None,
        }
    }

    /// The levels of the next value; `None` at the end of the column.
    pub(super) fn peek(&mut self) -> Result<Option<Levels>, Reason> {
        while self.next.is_none() {
            match &mut self.page {
                Some(page) if page.left > 0 => {
                    page.left -= 1;
                    self.next = Some(page.levels(&self.chunk)?);
                }
                _ if self.at == self.chunk.end => return Ok(None),
                _ => self.turn()?,
            }
        }
        Ok(self.next)
    }

    /// The next value; `null` if any part of the path to it is missing.
    pub(super) fn take(&mut self) -> Result<Value, Reason> {
        let levels = self
            .peek()?
            .ok_or("a column has fewer values than others")?;
        self.next = None;
        let leaf = &self.chunk.leaf;
        match &mut self.page {
            Some(page) if levels.definition == leaf.max_definition => page.values.next(leaf),
            _ => Ok(Value::Null),
        }
    }

    /// Opens the next page.
    fn turn(&mut self) -> Result<(), Reason> {
        let (page, length) = page::read(
            &(*self.file).as_ref()[self.at..self.chunk.end],
            self.chunk.codec,
        )?;
        self.at += length;
        match page {
            Page::Dictionary { count, bytes } => {
                let dictionary = encoding::dictionary(count, bytes, &self.chunk.leaf)?;
                self.dictionary = Some(dictionary);
            }
            Page::Data(data) => self.page = Some(self.open(data)?),
            Page::Other => {}
        }
        Ok(())
    }

    fn open(&self, data: DataPage) -> Result<OpenPage, Reason> {
        let leaf = &self.chunk.leaf;
        let mut bytes = data.bytes;
        let mut levels = |max: u16, length: Option<usize>| -> Result<Option<IntegerRuns>, Reason> {
            let length = match length {
                None if max == 0 => return Ok(None),
                None => bytes.length()?,
                Some(length) => length,
            };
            let part = bytes.part(length)?;
            (max > 0).then(|| IntegerRuns::up_to(part, max)).transpose()
        };
        let repetition = levels(leaf.max_repetition, data.lengths.map(|lengths| lengths.0))?;
        let definition = levels(leaf.max_definition, data.lengths.map(|lengths| lengths.1))?;
        Ok(OpenPage {
            left: data.count,
            repetition,
            definition,
            values: PageValues::new(data.encoding, data.count, bytes, &self.dictionary, leaf)?,
        })
    }
}

impl OpenPage {
    fn levels(&mut self, chunk: &Chunk) -> Result<Levels, Reason> {
        let level = |runs: &mut Option<IntegerRuns>, max: u16| match runs {
            None => Ok(0),
            Some(runs) => match runs.next()? {
                level if level <= u64::from(max) => Ok(level as u16),
                level => Err(format!("a level is {level}, expected at most {max}")),
            },
        };
        Ok(Levels {
            repetition: level(&mut self.repetition, chunk.leaf.max_repetition)?,
            definition: level(&mut self.definition, chunk.leaf.max_definition)?,
        })
    }
}
