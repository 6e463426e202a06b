//! Text from files, one document at a time.
//!
//! | file | documents |
//! |---|---|
//! | `.txt` | the whole file; or, given a separator, the text between the lines equal to it |
//! | `.jsonl`, `.json`, `.parquet` | one per [record](crate::records), in the keys below |
//! | a folder | its `.txt`, `.jsonl` and `.parquet` files, at any depth, by name |
//!
//! A record is an object with `text`, with `messages`, or with `prompt` and `completion`.
//! `messages`, a list of `{role, content}`, become lines `User: …`: a chat template belongs to a
//! tokenizer, and text that is read here has none yet. `prompt` and `completion` are joined
//! unchanged. Documents without a visible character are left out. Files are read line by line, so
//! memory holds one document, not one file of them.

use std::path::PathBuf;

use serde_json::Value;

use crate::files::{self, Format, Lines};
use crate::records::Records;
use crate::{Error, Result};

/// The documents of files and folders, in order.
///
/// After an error in one line or record the iterator goes on with the next one; after an error of
/// the file system, with the next file. Errors name the file and, for bad text, the line.
#[derive(Debug)]
pub struct Documents {
    files: std::vec::IntoIter<(PathBuf, Format)>,
    separator: Option<String>,
    current: Option<OpenFile>,
}

#[derive(Debug)]
enum OpenFile {
    Text(Lines),
    Records(Records),
}

/// Opens files and folders; `separator` splits `.txt` files at the lines equal to it.
///
/// Errors if a path does not exist, a named file has another extension, or nothing is found.
pub fn documents(paths: &[PathBuf], separator: Option<String>) -> Result<Documents> {
    Ok(Documents {
        files: files::files(paths)?.into_iter(),
        separator,
        current: None,
    })
}

impl Iterator for Documents {
    type Item = Result<String>;

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
            match open.document(self.separator.as_deref()) {
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

impl OpenFile {
    fn new(path: PathBuf, format: Format) -> Result<Self> {
        Ok(match format {
            Format::Txt => Self::Text(Lines::open(&path)?),
            _ => Self::Records(Records::of(vec![(path, format)])),
        })
    }

    /// The next document, possibly empty; `None` at the end of the file.
    fn document(&mut self, separator: Option<&str>) -> Result<Option<String>> {
        match self {
            Self::Text(lines) => passage(lines, separator),
            Self::Records(records) => {
                let Some(next) = records.next() else {
                    return Ok(None);
                };
                let (path, line) = (records.path().to_owned(), records.line());
                let text = text(&next?);
                text.map(Some)
                    .map_err(|reason| Error::Record { path, line, reason })
            }
        }
    }
}

/// The lines up to the next separator or the end of the file.
fn passage(lines: &mut Lines, separator: Option<&str>) -> Result<Option<String>> {
    let mut passage = None;
    while let Some(line) = lines.next_line()? {
        let passage = passage.get_or_insert_with(String::new);
        if separator.is_some_and(|separator| line.trim_end_matches(['\r', '\n']) == separator) {
            break;
        }
        passage.push_str(&line);
    }
    Ok(passage)
}

/// The text of a record, or what is wrong with it.
fn text(record: &Value) -> Result<String, String> {
    let string = |value: &Value, key: &str| match value.get(key) {
        Some(Value::String(text)) => Ok(text.clone()),
        Some(_) => Err(format!("`{key}` is not a string")),
        None => Err(format!("there is no `{key}`")),
    };
    if record.get("text").is_some() {
        return string(record, "text");
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
        return Ok(string(record, "prompt")? + &string(record, "completion")?);
    }
    Err("the record has none of these keys".to_owned())
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
    fn rows_of_parquet_are_read_like_lines_of_jsonl() {
        let fixtures = Path::new(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/tests/fixtures/parquet"
        ));
        let read = |name: &str| -> Vec<Result<String, String>> {
            let documents = documents(&[fixtures.join(name)], None).unwrap();
            let shown = |error: Error| error.to_string().replace(", line ", ", record ");
            documents.map(|document| document.map_err(shown)).collect()
        };
        let found = read("zstd.parquet");
        assert_eq!(found.iter().filter(|document| document.is_ok()).count(), 27);
        let missing = found
            .iter()
            .find_map(|document| document.as_ref().err())
            .unwrap();
        let expected = "zstd.parquet, record 6: `text` is not a string";
        assert!(missing.contains(expected), "{missing}");
        let lines = read("rows.jsonl").into_iter();
        let lines = lines.map(|line| line.map_err(|e| e.replace("rows.jsonl", "zstd.parquet")));
        assert_eq!(lines.collect::<Vec<_>>(), found);
    }

    #[test]
    fn missing_empty_and_unknown_inputs_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let missing = folder.path().join("missing.txt");
        let other = folder.path().join("data.csv");
        let empty = folder.path().join("empty");
        fs::write(&other, b"a,b").unwrap();
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
