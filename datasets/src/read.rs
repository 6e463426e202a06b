//! Text from files, one document at a time.
//!
//! | file | documents |
//! |---|---|
//! | `.txt` | the whole file; or, given a separator, what stands between the lines equal to it |
//! | `.jsonl` | one a line, an object with `text`, `messages`, or `prompt` and `completion` |
//! | a folder | its `.txt` and `.jsonl` files, at any depth, in the order of their names |
//!
//! `messages`, a list of `{role, content}`, become lines `User: …`: a chat template belongs to a
//! tokenizer, and text that is read here has none yet. `prompt` and `completion` are joined as they
//! stand. Documents without a visible character are left out. Files are read line by line, so
//! memory holds one document, not one file of them.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::{Error, Result};

/// The documents of files and folders, in order.
///
/// After an error in one line or record the iterator goes on with the next one; after an error of
/// the file system, with the next file. Errors name the file and, for bad text, the line.
#[derive(Debug)]
pub struct Documents {
    files: std::vec::IntoIter<(PathBuf, Format)>,
    separator: Option<String>,
    current: Option<Lines>,
}

/// Opens files and folders; `separator` splits `.txt` files at the lines equal to it.
///
/// Errors if a path does not exist, a named file has another extension, or nothing is found.
pub fn documents(paths: &[PathBuf], separator: Option<String>) -> Result<Documents> {
    Ok(Documents {
        files: files(paths)?.into_iter(),
        separator,
        current: None,
    })
}

/// The .jsonl files among paths and in folders; a named file of another kind, or a folder without one, is refused.
pub(crate) fn jsonl_files(paths: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut jsonl = Vec::new();
    for path in paths {
        let before = jsonl.len();
        let of_path = files(std::slice::from_ref(path))?.into_iter();
        let of_path = of_path.filter(|(_, format)| matches!(format, Format::Jsonl));
        jsonl.extend(of_path.map(|(path, _)| path));
        if jsonl.len() == before {
            return Err(Error::NotJsonl { path: path.clone() });
        }
    }
    Ok(jsonl)
}

/// The files that paths mean, each with its format.
fn files(paths: &[PathBuf]) -> Result<Vec<(PathBuf, Format)>> {
    let mut files = Vec::new();
    for path in paths {
        let before = files.len();
        if path.is_dir() {
            walk(path, &mut files)?;
        } else {
            fs::metadata(path).map_err(Error::io(path, "read"))?;
            let format = Format::of(path);
            files.push((
                path.clone(),
                format.ok_or_else(|| Error::UnknownFormat { path: path.clone() })?,
            ));
        }
        if files.len() == before {
            return Err(Error::NoInput { path: path.clone() });
        }
    }
    Ok(files)
}

/// Adds the files below a folder that have a known extension, in the order of their names; links to
/// folders are not followed.
fn walk(folder: &Path, files: &mut Vec<(PathBuf, Format)>) -> Result<()> {
    let entries = fs::read_dir(folder).map_err(Error::io(folder, "list"))?;
    let paths = entries.map(|entry| entry.map(|entry| entry.path()));
    let mut paths = paths
        .collect::<Result<Vec<_>, _>>()
        .map_err(Error::io(folder, "list"))?;
    paths.sort();
    for path in paths {
        if path.is_dir() {
            if !path.is_symlink() {
                walk(&path, files)?;
            }
        } else if let Some(format) = Format::of(&path) {
            files.push((path, format));
        }
    }
    Ok(())
}

#[derive(Clone, Copy, Debug)]
enum Format {
    Txt,
    Jsonl,
}

impl Format {
    /// The format that a file's extension names.
    fn of(path: &Path) -> Option<Self> {
        match path.extension()?.to_str()? {
            "txt" => Some(Self::Txt),
            "jsonl" => Some(Self::Jsonl),
            _ => None,
        }
    }
}

impl Iterator for Documents {
    type Item = Result<String>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let Some(lines) = &mut self.current else {
                let (path, format) = self.files.next()?;
                match Lines::open(path, format) {
                    Ok(lines) => self.current = Some(lines),
                    Err(error) => return Some(Err(error)),
                }
                continue;
            };
            match lines.document(self.separator.as_deref()) {
                Ok(Some(text)) if text.trim().is_empty() => {}
                Ok(Some(text)) => return Some(Ok(text)),
                Ok(None) => self.current = None,
                Err(error) => {
                    if matches!(error, Error::Io { .. }) {
                        self.current = None;
                    }
                    return Some(Err(error));
                }
            }
        }
    }
}

/// One open file.
#[derive(Debug)]
pub(crate) struct Lines {
    path: PathBuf,
    format: Format,
    reader: BufReader<File>,
    /// Lines read so far.
    line: u64,
}

impl Lines {
    /// The lines of a .jsonl file.
    pub(crate) fn jsonl(path: PathBuf) -> Result<Self> {
        Self::open(path, Format::Jsonl)
    }

    /// The file.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Lines read so far.
    pub(crate) fn line(&self) -> u64 {
        self.line
    }

    fn open(path: PathBuf, format: Format) -> Result<Self> {
        let file = File::open(&path).map_err(Error::io(&path, "open"))?;
        Ok(Self {
            path,
            format,
            reader: BufReader::new(file),
            line: 0,
        })
    }

    /// The next document, possibly empty; nothing at the end of the file.
    fn document(&mut self, separator: Option<&str>) -> Result<Option<String>> {
        match self.format {
            Format::Txt => self.passage(separator),
            Format::Jsonl => {
                let Some(line) = self.next_line()? else {
                    return Ok(None);
                };
                if line.trim().is_empty() {
                    return Ok(Some(String::new()));
                }
                record(&line).map(Some).map_err(|reason| Error::Record {
                    path: self.path.clone(),
                    line: self.line,
                    reason,
                })
            }
        }
    }

    /// The lines up to the next separator or the end of the file.
    fn passage(&mut self, separator: Option<&str>) -> Result<Option<String>> {
        let mut passage = None;
        while let Some(line) = self.next_line()? {
            let passage = passage.get_or_insert_with(String::new);
            if separator.is_some_and(|separator| line.trim_end_matches(['\r', '\n']) == separator) {
                break;
            }
            passage.push_str(&line);
        }
        Ok(passage)
    }

    /// The next line with its line break, without a byte order mark.
    pub(crate) fn next_line(&mut self) -> Result<Option<String>> {
        let mut bytes = Vec::new();
        let read = self.reader.read_until(b'\n', &mut bytes);
        if read.map_err(Error::io(&self.path, "read"))? == 0 {
            return Ok(None);
        }
        self.line += 1;
        let text = String::from_utf8(bytes).map_err(|_| Error::NotUtf8 {
            path: self.path.clone(),
            line: self.line,
        })?;
        Ok(Some(match text.strip_prefix('\u{feff}') {
            Some(rest) if self.line == 1 => rest.to_owned(),
            _ => text,
        }))
    }
}

/// The text of one line of jsonl, or what is wrong with it.
fn record(line: &str) -> Result<String, String> {
    let record: Value = serde_json::from_str(line).map_err(|error| error.to_string())?;
    let string = |value: &Value, key: &str| match value.get(key) {
        Some(Value::String(text)) => Ok(text.clone()),
        Some(_) => Err(format!("`{key}` is not a string")),
        None => Err(format!("there is no `{key}`")),
    };
    if record.get("text").is_some() {
        return string(&record, "text");
    }
    if let Some(messages) = record.get("messages") {
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
    if record.get("prompt").is_some() || record.get("completion").is_some() {
        return Ok(string(&record, "prompt")? + &string(&record, "completion")?);
    }
    Err("there is none of these keys".to_owned())
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
    use super::*;

    fn read(files: &[(&str, &[u8])], separator: Option<&str>) -> Vec<Result<String, String>> {
        let folder = tempfile::tempdir().unwrap();
        for (name, bytes) in files {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        }
        let paths = [folder.path().to_owned()];
        let documents = documents(&paths, separator.map(str::to_owned)).unwrap();
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
            ("notes.md", b"not read"),
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
    fn missing_empty_and_unknown_inputs_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let missing = folder.path().join("missing.txt");
        let other = folder.path().join("data.parquet");
        let empty = folder.path().join("empty");
        fs::write(&other, b"PAR1").unwrap();
        fs::create_dir(&empty).unwrap();
        assert!(matches!(documents(&[missing], None), Err(Error::Io { .. })));
        assert!(matches!(
            documents(&[other], None),
            Err(Error::UnknownFormat { .. })
        ));
        assert!(matches!(
            documents(&[empty], None),
            Err(Error::NoInput { .. })
        ));
    }
}
