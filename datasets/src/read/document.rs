//! The documents of one file, in parts.

use std::path::{Path, PathBuf};

use super::record::text;
use super::{PART, Part, ReadOptions};
use crate::files::{self, Format, Kind, Lines};
use crate::records::Records;
use crate::{Error, Result};

#[derive(Debug)]
pub(super) struct OpenFile {
    path: PathBuf,
    format: Format,
    pub(super) bytes: u64,
    reader: Reader,
    /// Text without a visible character at the beginning of a document.
    blank: String,
    /// Whether a part of the document was returned.
    pub(super) is_inside: bool,
    /// Lengths of the documents of a text file that are longer than a part, once one was found.
    lengths: Option<std::vec::IntoIter<u64>>,
    /// Records without text that are not reported yet.
    pub(super) without_text: u64,
    /// Records with NaN, Infinity or half of a surrogate pair that are not reported yet.
    pub(super) repaired: u64,
}

#[derive(Debug)]
enum Reader {
    Text(Lines),
    Records(Records),
}

impl OpenFile {
    pub(super) fn new(path: PathBuf, format: Format) -> Result<Self> {
        let bytes = std::fs::metadata(&path).map_err(Error::io(&path, "read"))?;
        let reader = match format.kind {
            Kind::Txt => Reader::Text(Lines::open(&path, format.packing)?),
            _ => Reader::Records(Records::of(vec![(path.clone(), format)])),
        };
        Ok(Self {
            path,
            format,
            bytes: bytes.len(),
            reader,
            blank: String::new(),
            is_inside: false,
            lengths: None,
            without_text: 0,
            repaired: 0,
        })
    }

    pub(super) fn bytes_read(&self) -> u64 {
        match &self.reader {
            Reader::Text(lines) => lines.bytes_read(),
            Reader::Records(records) => records.bytes_read(),
        }
    }

    /// The next part of a document with a visible character; `None` at the end of the file.
    pub(super) fn part(&mut self, options: &ReadOptions) -> Result<Option<Part>> {
        loop {
            let Some((text, is_last)) = self.read(options)? else {
                return Ok(None);
            };
            let mut text = match self.blank.is_empty() {
                true => text,
                false => std::mem::take(&mut self.blank) + &text,
            };
            if !self.is_inside && text.trim_start().is_empty() {
                match (is_last, &self.reader) {
                    (false, _) => self.blank = std::mem::take(&mut text),
                    (true, Reader::Records(_)) => self.without_text += 1,
                    (true, Reader::Text(_)) => {}
                }
                continue;
            }
            let is_first = !self.is_inside;
            let bytes = match (is_first, is_last) {
                (true, true) => text.len() as u64,
                (true, false) => self.length(options)?,
                (false, _) => 0,
            };
            self.is_inside = !is_last;
            return Ok(Some(Part {
                text,
                is_first,
                is_last,
                bytes,
                read: 0,
            }));
        }
    }

    /// The next text, and whether a document ends with it; `None` at the end of the file.
    fn read(&mut self, options: &ReadOptions) -> Result<Option<(String, bool)>> {
        match &mut self.reader {
            Reader::Text(lines) => {
                let goes_on = self.is_inside || !self.blank.is_empty();
                passage(lines, options.separator.as_deref(), goes_on)
            }
            Reader::Records(records) => {
                let Some(next) = records.next() else {
                    return Ok(None);
                };
                let (path, line) = (records.path().to_owned(), records.line());
                let text = text(&next?, options.column.as_deref());
                self.repaired += u64::from(text.is_ok() && records.is_repaired());
                text.map(|text| Some((text, true)))
                    .map_err(|reason| Error::Record { path, line, reason })
            }
        }
    }

    /// The length in bytes of the document that begins here and is longer than a part. For the
    /// first such document, the file is read to its end once.
    fn length(&mut self, options: &ReadOptions) -> Result<u64> {
        if options.separator.is_none() && self.format.packing == files::Packing::None {
            return Ok(self.bytes);
        }
        if self.lengths.is_none() {
            let lengths = lengths(&self.path, self.format, options.separator.as_deref())?;
            self.lengths = Some(lengths.into_iter());
        }
        let next = self.lengths.as_mut().and_then(Iterator::next);
        Ok(next.unwrap_or(u64::MAX)) // someone cut the file just now
    }
}

/// The lengths of the documents of a text file that are longer than a part and have a visible
/// character.
fn lengths(path: &Path, format: Format, separator: Option<&str>) -> Result<Vec<u64>> {
    let mut lines = Lines::open(path, format.packing)?;
    let (mut lengths, mut length, mut goes_on) = (Vec::new(), 0, false);
    // Whether a visible part was found, and whether the document went on after it.
    let mut first = None;
    while let Some((text, is_last)) = passage(&mut lines, separator, goes_on)? {
        length += text.len() as u64;
        goes_on = !is_last;
        if first.is_none() && !text.trim_start().is_empty() {
            first = Some(goes_on);
        }
        if is_last {
            lengths.extend((first == Some(true)).then_some(length));
            (length, first) = (0, None);
        }
    }
    Ok(lengths)
}

/// The lines up to the next separator, the end of the file or the size of a part, and whether the
/// document ends there. At the end of the file, a document that goes on ends with an empty text.
fn passage(
    lines: &mut Lines,
    separator: Option<&str>,
    goes_on: bool,
) -> Result<Option<(String, bool)>> {
    let mut text = String::new();
    let mut begins_line = !lines.is_inside_line();
    loop {
        let before = text.len();
        let Some(ends_line) = lines.append(&mut text, PART)? else {
            return Ok((goes_on || !text.is_empty()).then_some((text, true)));
        };
        let line = text[before..].trim_end_matches(['\r', '\n']);
        if begins_line && ends_line && separator == Some(line) {
            text.truncate(before);
            return Ok(Some((text, true)));
        }
        begins_line = ends_line;
        if text.len() >= PART {
            return Ok(Some((text, false)));
        }
    }
}
