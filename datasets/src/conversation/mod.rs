//! Reads conversations from records, one per record, in the [layouts](Layout) that data sets have.
//!
//! Messages keep every field that is not null, because a chat template may show it. Keys of a
//! record that nothing reads are listed, so that the caller can say it. A conversation without an
//! answer of the assistant teaches nothing and is an error.

mod layout;
mod message;
#[cfg(test)]
mod tests;

use std::path::PathBuf;

use serde_json::{Map, Value};

pub use self::layout::{LISTS, Layout};
pub use self::message::Message;
use crate::records::{self, Records};
use crate::{Error, Result};

/// The fields of a message or of a record.
pub type Fields = Map<String, Value>;

/// The role with the messages that are learned.
pub const ASSISTANT: &str = "assistant";

/// The conversations of files, in order; one is in memory at a time.
#[derive(Debug)]
pub struct Conversations {
    records: Records,
    layout: Option<Layout>,
}

/// One conversation and its place in a file, for messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conversation {
    /// The file.
    pub path: PathBuf,
    /// Its line, or the number of its record if the file has no lines, from 1.
    pub line: u64,
    /// The layout of its record.
    pub layout: Layout,
    /// Its messages, in order.
    pub messages: Vec<Message>,
    /// What the template gets beside the messages, such as `tools`.
    pub variables: Fields,
    /// Keys of the record that are not null and not read.
    pub unread: Vec<String>,
    /// Roles that the template knows by another name: as written, and there.
    pub renamed: Vec<(String, String)>,
    /// Whether its record says that its answers are not wanted, as in sets for KTO. It is not
    /// learned.
    pub is_undesirable: bool,
    /// Whether its record had NaN, Infinity or half of a surrogate pair.
    pub is_repaired: bool,
}

impl Conversation {
    /// A conversation that comes from no record.
    pub fn of(messages: Vec<Message>) -> Self {
        Self {
            path: PathBuf::new(),
            line: 0,
            layout: Layout::Messages,
            messages,
            variables: Map::new(),
            unread: Vec::new(),
            renamed: Vec::new(),
            is_undesirable: false,
            is_repaired: false,
        }
    }

    /// Its file and line, for messages.
    pub fn place(&self) -> String {
        crate::error::place(&self.path, self.line)
    }
}

impl Conversations {
    /// Bytes of all files, packed as they are.
    pub fn total(&self) -> u64 {
        self.records.total()
    }

    /// Bytes of them that were read so far.
    pub fn bytes_read(&self) -> u64 {
        self.records.bytes_read()
    }
}

/// Opens files of [`records`] and folders of them. Records have this layout, or the one that their
/// keys say.
///
/// Errors if a path does not exist, a named file is of another kind, or nothing is found.
pub fn conversations(paths: &[PathBuf], layout: Option<Layout>) -> Result<Conversations> {
    let records = records::records(paths)?;
    Ok(Conversations { records, layout })
}

impl Iterator for Conversations {
    type Item = Result<Conversation>;

    fn next(&mut self) -> Option<Self::Item> {
        let record = self.records.next()?;
        let (path, line) = (self.records.path().to_owned(), self.records.line());
        let found = record.and_then(|record| match layout::read(&record, self.layout) {
            Ok(read) => Ok(Conversation {
                path,
                line,
                layout: read.layout,
                messages: read.messages,
                variables: read.variables,
                unread: read.unread,
                renamed: read.renamed,
                is_undesirable: read.is_undesirable,
                is_repaired: self.records.is_repaired(),
            }),
            Err(reason) => Err(Error::Conversation { path, line, reason }),
        });
        Some(found)
    }
}
