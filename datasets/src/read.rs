//! Text from files, in parts of documents.
//!
//! | file | documents |
//! |---|---|
//! | `.txt`, `.md` | the whole file; or, given a separator, the text between lines equal to it |
//! | `.jsonl`, `.ndjson`, `.json`, `.parquet` | one per [record](crate::records), in keys below |
//! | `.gz`, `.zst` after these, except `.parquet` | the same, packed |
//! | a folder | its files of these kinds, at any depth, by name; no `.json`, no `README.md` |
//!
//! A record is an object with `text`, with `messages`, or with `prompt` and `completion`; or with a
//! key that the caller names. `messages`, a list of `{role, content}`, become lines `User: …`: a
//! chat template belongs to a tokenizer, and text that is read here has none yet. `prompt` and
//! `completion` are joined unchanged. Documents without a visible character are left out.
//!
//! Memory holds a part of a text file, however long its lines are, or one record.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::files::{self, Format, Kind, Lines};
use crate::notes::{Skipped, Tolerance};
use crate::records::Records;
use crate::{Error, Result};

/// Bytes of a part of a text file. A document of fewer bytes arrives whole.
pub const PART: usize = 1 << 16;

/// How documents are found in files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReadOptions {
    /// The line that separates the documents of a text file.
    pub separator: Option<String>,
    /// The key of records that holds the text.
    pub column: Option<String>,
}

/// A part of a document.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Part {
    /// The text, possibly empty.
    pub text: String,
    /// Whether the document begins with it.
    pub is_first: bool,
    /// Whether the document ends with it.
    pub is_last: bool,
    /// Bytes of the whole document, in the first part.
    pub bytes: u64,
    /// Bytes of all files that were read up to here, packed as they are.
    pub read: u64,
}

impl Part {
    /// A whole document.
    pub fn whole(text: String) -> Part {
        Part {
            bytes: text.len() as u64,
            text,
            is_first: true,
            is_last: true,
            read: 0,
        }
    }
}

/// The documents of files and folders, in order, in parts.
///
/// After an error in one line or record the iterator goes on with the next one; after an error of
/// the file system, with the next file. Errors name the file and, for bad text, the line.
#[derive(Debug)]
pub struct Parts {
    files: std::vec::IntoIter<(PathBuf, Format)>,
    options: ReadOptions,
    current: Option<OpenFile>,
    left_out: Vec<PathBuf>,
    total: u64,
    text_bytes: u64,
    /// Bytes of the files before the current one.
    before: u64,
    /// Records without text so far.
    without_text: u64,
}

#[derive(Debug)]
struct OpenFile {
    path: PathBuf,
    format: Format,
    bytes: u64,
    reader: Reader,
    /// Text without a visible character at the beginning of a document.
    blank: String,
    /// Whether a part of the document was returned.
    is_inside: bool,
    /// Lengths of the documents of a text file that are longer than a part, once one was found.
    lengths: Option<std::vec::IntoIter<u64>>,
    /// Records without text that are not reported yet.
    without_text: u64,
}

#[derive(Debug)]
enum Reader {
    Text(Lines),
    Records(Records),
}

/// Opens files and folders.
///
/// Errors if a path does not exist, a named file is of another kind, or nothing is found.
pub fn parts(paths: &[PathBuf], options: &ReadOptions) -> Result<Parts> {
    let found = files::files(paths)?;
    Ok(Parts {
        total: found.bytes(|_| 1),
        text_bytes: found.bytes(Format::expansion),
        files: found.files.into_iter(),
        options: options.clone(),
        current: None,
        left_out: found.left_out,
        before: 0,
        without_text: 0,
    })
}

/// The documents of [`parts`], each as one string.
pub fn documents(
    paths: &[PathBuf],
    options: &ReadOptions,
) -> Result<impl Iterator<Item = Result<String>> + use<>> {
    let mut parts = parts(paths, options)?;
    Ok(std::iter::from_fn(move || {
        let mut document = String::new();
        loop {
            match parts.next()? {
                Ok(part) => document.push_str(&part.text),
                Err(error) => return Some(Err(error)),
            }
            if parts.is_between() {
                return Some(Ok(document));
            }
        }
    }))
}

/// A line about files of folders that are not read, if there are any.
pub fn left_out(files: &[PathBuf]) -> Option<String> {
    let names = files.iter().take(5).map(|path| path.display().to_string());
    let mut names = names.collect::<Vec<_>>().join(", ");
    if files.len() > 5 {
        names += &format!(" and {} more", files.len() - 5);
    }
    (!files.is_empty()).then(|| format!("left out, since they are not texts: {names}"))
}

impl Parts {
    /// Files of folders that are not read: those of other kinds, settings and descriptions.
    pub fn left_out(&self) -> &[PathBuf] {
        &self.left_out
    }

    /// Bytes of all files, packed as they are.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// About the bytes of text in all files: packed files hold four times as many bytes of text,
    /// and columns twice as many.
    pub fn text_bytes(&self) -> u64 {
        self.text_bytes
    }

    /// Leaves out records that cannot be used, up to a tenth of all, unless strict.
    pub fn tolerant(self, is_strict: bool) -> TolerantParts {
        TolerantParts {
            parts: self,
            tolerance: Some(Tolerance::new(is_strict)),
            skipped: Skipped::default(),
        }
    }

    /// Whether the last part ended its document.
    fn is_between(&self) -> bool {
        self.current.as_ref().is_none_or(|open| !open.is_inside)
    }
}

impl Iterator for Parts {
    type Item = Result<Part>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let Some(open) = &mut self.current else {
                let (path, format) = self.files.next()?;
                match OpenFile::new(path, format) {
                    Ok(open) => self.current = Some(open),
                    Err(error) => return Some(Err(error)),
                }
                continue;
            };
            let part = open.part(&self.options);
            self.without_text += std::mem::take(&mut open.without_text);
            match part {
                Ok(Some(mut part)) => {
                    part.read = self.before + open.bytes_read().min(open.bytes);
                    return Some(Ok(part));
                }
                Ok(None) => {
                    self.before += open.bytes;
                    self.current = None;
                }
                Err(error) => {
                    open.is_inside = false;
                    if matches!(error, Error::Io { .. }) {
                        self.before += open.bytes;
                        self.current = None;
                    }
                    return Some(Err(error));
                }
            }
        }
    }
}

/// [`Parts`] without the records that cannot be used. More than a tenth of them are an error after
/// the last part. Text files have no records, and each of their errors ends the work.
#[derive(Debug)]
pub struct TolerantParts {
    parts: Parts,
    tolerance: Option<Tolerance>,
    skipped: Skipped,
}

impl TolerantParts {
    /// What was left out, once all parts were read; a line each.
    pub fn warnings(&self) -> Vec<String> {
        let without_text = self.parts.without_text;
        let blank = format!("{without_text} records have no text and were left out");
        let blank = (without_text > 0).then_some(blank);
        self.skipped.warning().into_iter().chain(blank).collect()
    }

    /// The number of records that were left out.
    pub fn left_out(&self) -> u64 {
        self.skipped.count + self.parts.without_text
    }
}

impl Iterator for TolerantParts {
    type Item = Result<Part>;

    fn next(&mut self) -> Option<Self::Item> {
        while let Some(tolerance) = &mut self.tolerance {
            let kept = match self.parts.next() {
                None => {
                    let skipped = self.tolerance.take()?.finish();
                    let skipped = skipped.map(|skipped| self.skipped = skipped);
                    return skipped.err().map(Err);
                }
                Some(Ok(part)) if !part.is_first => return Some(Ok(part)),
                Some(Err(error)) if is_of_text_file(&error) => return Some(Err(error)),
                Some(part) => tolerance.keep(part),
            };
            if let Some(part) = kept.transpose() {
                return Some(part);
            }
        }
        None
    }
}

fn is_of_text_file(error: &Error) -> bool {
    match error {
        Error::NotUtf8 { path, .. } => Format::of(path).is_some_and(|f| f.kind == Kind::Txt),
        _ => false,
    }
}

impl OpenFile {
    fn new(path: PathBuf, format: Format) -> Result<Self> {
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
        })
    }

    fn bytes_read(&self) -> u64 {
        match &self.reader {
            Reader::Text(lines) => lines.bytes_read(),
            Reader::Records(records) => records.bytes_read(),
        }
    }

    /// The next part of a document with a visible character; `None` at the end of the file.
    fn part(&mut self, options: &ReadOptions) -> Result<Option<Part>> {
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

/// The text of a record, or what is wrong with it.
fn text(record: &Value, column: Option<&str>) -> Result<String, String> {
    let string = |value: &Value, key: &str| match value.get(key) {
        Some(Value::String(text)) => Ok(text.clone()),
        Some(_) => Err(format!("`{key}` is not a string")),
        None => Err(format!("there is no `{key}`")),
    };
    // Merged sets have a null in every column of the others.
    let has = |key: &str| record.get(key).is_some_and(|value| !value.is_null());
    let is_null = |key: &str| record.get(key).is_some_and(Value::is_null);
    if let Some(column) = column {
        return match is_null(column) {
            true => Ok(String::new()),
            false => string(record, column).map_err(|reason| reason + &keys(record)),
        };
    }
    if has("text") {
        return string(record, "text");
    }
    if let Some(messages) = record.get("messages").filter(|_| has("messages")) {
        let messages = messages.as_array().ok_or("`messages` is not a list")?;
        let line = |message| {
            Ok(format!(
                "{}: {}\n",
                capital(&string(message, "role")?),
                string(message, "content")?
            ))
        };
        return messages.iter().map(line).collect();
    }
    if has("prompt") || has("completion") {
        return Ok(string(record, "prompt")? + &string(record, "completion")?);
    }
    if is_null("text") {
        return Ok(String::new());
    }
    Err("the record has none of these keys".to_owned() + &keys(record))
}

/// The keys of a record in words, where it has some.
fn keys(record: &Value) -> String {
    let keys = record
        .as_object()
        .into_iter()
        .flat_map(|record| record.keys());
    let keys: Vec<String> = keys.take(20).map(|key| format!("`{key}`")).collect();
    match keys.is_empty() {
        true => String::new(),
        false => format!(", it has {}", keys.join(", ")),
    }
}

/// The word with its first letter in upper case.
fn capital(word: &str) -> String {
    let mut letters = word.chars();
    letters
        .next()
        .map(|first| first.to_uppercase().chain(letters).collect())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    fn read(files: &[(&str, &[u8])], separator: Option<&str>) -> Vec<Result<String, String>> {
        let folder = tempfile::tempdir().unwrap();
        for (name, bytes) in files {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        }
        let paths = [folder.path().to_owned()];
        let options = ReadOptions {
            separator: separator.map(str::to_owned),
            column: None,
        };
        let documents = documents(&paths, &options).unwrap();
        let shown = |error: Error| {
            error
                .to_string()
                .replace(folder.path().to_str().unwrap(), "")
                .replace('\\', "/")
        };
        documents.map(|document| document.map_err(shown)).collect()
    }

    fn texts(files: &[(&str, &[u8])], separator: Option<&str>) -> Vec<String> {
        read(files, separator)
            .into_iter()
            .map(|document| document.unwrap())
            .collect()
    }

    #[test]
    fn a_folder_is_walked_in_the_order_of_names() {
        let files: [(&str, &[u8]); 5] = [
            ("b.txt", b"second\n"),
            ("a/z.txt", "first é".as_bytes()),
            (
                "c.jsonl",
                b"{\"text\": \"third\"}\n\n{\"text\": \"fourth\"}",
            ),
            ("notes.rst", b"not read"),
            ("empty.txt", b" \n"),
        ];
        assert_eq!(
            texts(&files, None),
            ["first é", "second\n", "third", "fourth"]
        );
    }

    #[test]
    fn a_separator_splits_txt_files_only() {
        let files: [(&str, &[u8]); 2] = [
            ("a.txt", b"one\ntwo\n---\n---\r\nthree --- four\n---\n"),
            ("b.jsonl", b"{\"text\":\"---\"}"),
        ];
        assert_eq!(
            texts(&files, Some("---")),
            ["one\ntwo\n", "three --- four\n", "---"]
        );
    }

    #[test]
    fn the_three_kinds_of_records() {
        let lines = "\u{feff}{\"text\": \"a\\nb\", \"other\": 1}\n\
            {\"messages\": [{\"role\": \"user\", \"content\": \"Hi\"}, \
                            {\"role\": \"assistant\", \"content\": \"Hello\"}]}\n\
            {\"prompt\": \"2+2=\", \"completion\": \"4\"}\n";
        let expected = ["a\nb", "User: Hi\nAssistant: Hello\n", "2+2=4"];
        assert_eq!(texts(&[("a.jsonl", lines.as_bytes())], None), expected);
    }

    #[test]
    fn errors_name_file_and_line_and_reading_goes_on() {
        let lines = b"{\"text\": 1}\n{\"text\": \"good\"}\nnot json\n[]\n{\"prompt\": \"p\"}\n\
            {\"messages\": 3}\n{\"messages\": [{\"role\": \"user\"}]}\n\xff\n{\"text\": \"end\"}";
        let found = read(&[("a.jsonl", lines)], None);
        let check = |position: usize, line: &str, reason: &str| {
            let error = found[position].as_ref().unwrap_err();
            assert!(
                error.contains("/a.jsonl") && error.contains(line),
                "{error}"
            );
            assert!(error.contains(reason), "{error}");
        };
        check(0, "line 1:", "`text` is not a string");
        assert_eq!(found[1].as_deref(), Ok("good"));
        check(2, "line 3:", "expected");
        check(3, "line 4:", "none of these keys");
        check(4, "line 5:", "no `completion`");
        check(5, "line 6:", "not a list");
        check(6, "line 7:", "no `content`");
        check(7, "line 8:", "UTF-8");
        assert_eq!(found[8].as_deref(), Ok("end"));
        assert_eq!(found.len(), 9);
    }

    #[test]
    fn bad_records_and_records_without_text_are_left_out_and_counted() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.jsonl");
        let tolerant = |lines: &[&str], is_strict: bool| {
            fs::write(&path, lines.join("\n")).unwrap();
            let paths = [path.clone()];
            let mut parts = parts(&paths, &ReadOptions::default())
                .unwrap()
                .tolerant(is_strict);
            let texts = parts.by_ref().map(|part| part.map(|part| part.text));
            let texts = texts.collect::<Result<Vec<_>>>().map_err(|e| e.to_string());
            (texts, parts.warnings(), parts.left_out())
        };
        let mut lines = vec![r#"{"text": "a", "score": NaN}"#; 20];
        lines[3] = r#"{"text": null}"#;
        lines[4] = r#"{"text": null, "prompt": "half \ud83d", "completion": "!"}"#;
        lines[5] = "nothing";
        let (texts, warnings, left_out) = tolerant(&lines, false);
        let texts = texts.unwrap();
        assert_eq!((texts.len(), texts[3].as_str()), (18, "half \u{fffd}!"));
        assert!(
            warnings[0].starts_with("1 of 19 records cannot be used"),
            "{warnings:?}"
        );
        assert_eq!(warnings[1], "1 records have no text and were left out");
        assert_eq!(left_out, 2);
        assert!(tolerant(&lines, true).0.unwrap_err().contains("line 6"));
        lines[6] = "nothing";
        let error = tolerant(&lines, false).0.unwrap_err();
        assert!(
            error.starts_with("2 of 19 records cannot be used"),
            "{error}"
        );
        let book = folder.path().join("a.txt");
        fs::write(&book, b"good\n\xff\n").unwrap();
        let mut parts = parts(&[book], &ReadOptions::default())
            .unwrap()
            .tolerant(false);
        assert!(parts.any(|part| matches!(part, Err(Error::NotUtf8 { .. }))));
    }

    #[test]
    fn rows_of_parquet_are_read_like_lines_of_jsonl() {
        let fixtures = Path::new(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/tests/fixtures/parquet"
        ));
        let read = |name: &str| -> Vec<Result<String, String>> {
            let documents = documents(&[fixtures.join(name)], &ReadOptions::default()).unwrap();
            let shown = |error: Error| error.to_string().replace(", line ", ", record ");
            documents.map(|document| document.map_err(shown)).collect()
        };
        // Rows whose text is null are left out.
        let found = read("zstd.parquet");
        assert_eq!(found.iter().filter(|document| document.is_ok()).count(), 27);
        assert_eq!(found.len(), 27);
        let lines = read("rows.jsonl").into_iter();
        let lines = lines.map(|line| line.map_err(|e| e.replace("rows.jsonl", "zstd.parquet")));
        assert_eq!(lines.collect::<Vec<_>>(), found);
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        use std::io::Write;
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), Default::default());
        packed.write_all(bytes).unwrap();
        packed.finish().unwrap()
    }

    fn zstd(bytes: &[u8]) -> Vec<u8> {
        let level = ruzstd::encoding::CompressionLevel::Uncompressed;
        ruzstd::encoding::compress_to_vec(bytes, level)
    }

    #[test]
    fn packed_files_are_read_and_damaged_ones_named() {
        let lines = b"{\"text\": \"one\"}\n{\"text\": \"two\"}\n";
        // Several members, as `pigz` and `cat` write them, and a frame that readers skip.
        let two = [gzip(b"one\n"), gzip(b"two")].concat();
        let skipped = [0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3];
        let frames = [zstd(&lines[..20]), skipped.to_vec(), zstd(&lines[20..])].concat();
        let list = gzip(b"[{\"text\": \"in a list\"}]");
        let files: [(&str, &[u8]); 7] = [
            ("a.jsonl.gz", &gzip(lines)),
            ("b.jsonl.zst", &frames),
            ("c.ndjson", lines),
            ("d.json.gz", &list),
            ("e.txt.gz", &two),
            ("f.md", b"# Terns"),
            ("g.JSONL.ZST", &zstd(lines)),
        ];
        let pair = ["one", "two"];
        let expected = [
            &pair[..],
            &pair,
            &pair,
            &["in a list", "one\ntwo", "# Terns"],
            &pair,
        ];
        assert_eq!(texts(&files, None), expected.concat());
        let cut = |bytes: Vec<u8>| bytes[..bytes.len() - 6].to_vec();
        for (name, bytes) in [
            ("a.jsonl.gz", cut(gzip(lines))),
            ("a.jsonl.zst", cut(zstd(lines))),
        ] {
            let found = read(&[(name, &bytes)], None);
            let error = found.last().unwrap().as_ref().unwrap_err();
            assert!(
                error.contains(name) && error.contains("cannot read"),
                "{error}"
            );
        }
    }

    #[test]
    fn hidden_files_are_not_data_and_others_are_left_out_by_name() {
        let folder = tempfile::tempdir().unwrap();
        for name in [
            "a.jsonl",
            ".a.jsonl",
            "._a.jsonl",
            ".git/b.txt",
            ".ipynb_checkpoints/a-checkpoint.txt",
            "data.csv",
            "sub/README.md",
            "sub/config.json",
            "sub/notes.md",
        ] {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "{\"text\": \"seen\"}").unwrap();
        }
        let parts = parts(&[folder.path().to_owned()], &ReadOptions::default()).unwrap();
        let names = |paths: &[PathBuf]| -> Vec<String> {
            let name = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().to_owned();
            paths.iter().map(name).collect()
        };
        let expected = ["data.csv", "README.md", "config.json"];
        assert_eq!(names(parts.left_out()), expected);
        assert!(left_out(parts.left_out()).unwrap().contains("data.csv"));
        assert_eq!(left_out(&[]), None);
        assert_eq!(
            parts.filter(|part| part.as_ref().unwrap().is_last).count(),
            2
        );
        // What is named is read.
        let hidden = [
            folder.path().join(".git"),
            folder.path().join("sub/README.md"),
        ];
        let options = ReadOptions::default();
        assert_eq!(documents(&hidden, &options).unwrap().count(), 2);
    }

    #[test]
    fn a_column_is_picked_and_the_keys_of_a_record_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.jsonl");
        fs::write(&path, r#"{"body": "fn main", "text": 3, "size": 7}"#).unwrap();
        let read = |column: Option<&str>| {
            let options = ReadOptions {
                separator: None,
                column: column.map(str::to_owned),
            };
            let mut documents = documents(std::slice::from_ref(&path), &options).unwrap();
            documents.next().unwrap().map_err(|error| error.to_string())
        };
        assert_eq!(read(Some("body")).unwrap(), "fn main");
        let error = read(Some("code")).unwrap_err();
        assert!(
            error.contains("no `code`, it has `body`, `text`, `size`"),
            "{error}"
        );
        let error = read(None).unwrap_err();
        assert!(
            error.contains("`text` is not a string") && error.contains("--column"),
            "{error}"
        );
    }

    #[test]
    fn long_documents_arrive_in_parts_with_their_length() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.txt");
        // Letters of two bytes, so that parts end inside of them; lines and a separator.
        let long = format!("x{}\n{}", "é".repeat(PART), "short\n".repeat(20_000));
        fs::write(&path, format!("one\n--\n{long}--\n \n--\n{long}")).unwrap();
        for packed in [false, true] {
            if packed {
                let bytes = gzip(&fs::read(&path).unwrap());
                fs::write(folder.path().join("a.txt.gz"), bytes).unwrap();
                fs::remove_file(&path).unwrap();
            }
            let options = ReadOptions {
                separator: Some("--".into()),
                column: None,
            };
            let parts = parts(&[folder.path().to_owned()], &options).unwrap();
            let (mut found, mut lengths) = (vec![], vec![]);
            for part in parts.map(Result::unwrap) {
                assert!(part.text.len() < 2 * PART + 4);
                if part.is_first {
                    found.push(String::new());
                    lengths.push(part.bytes as usize);
                }
                *found.last_mut().unwrap() += &part.text;
            }
            assert!(found == ["one\n", &long, &long]);
            assert_eq!(lengths, [4, long.len(), long.len()]);
        }
    }

    #[test]
    fn missing_empty_and_unknown_inputs_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let missing = folder.path().join("missing.txt");
        let other = folder.path().join("data.csv");
        let empty = folder.path().join("empty");
        fs::write(&other, b"a,b").unwrap();
        fs::create_dir(&empty).unwrap();
        let open = |path| documents(&[path], &ReadOptions::default()).err();
        assert!(matches!(open(missing), Some(Error::Io { .. })));
        assert!(matches!(open(other), Some(Error::UnknownFormat { .. })));
        assert!(matches!(open(empty), Some(Error::NoInput { .. })));
    }
}
