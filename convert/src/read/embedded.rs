//! The files embedded in a packed file: config, tokenizer, generation settings and chat template.

use std::io::ErrorKind;
use std::path::Path;

use serde::de::IgnoredAny;
use serde_json::Value;
use sterna_ternary::file::FILES;
use sterna_ternary::{json, tokenizer_files};

use crate::{Error, Result};

/// Files that every model needs, and the consequence of the absence of each.
pub(crate) const REQUIRED: [(&str, &str); 3] = [
    (
        "tokenizer.json",
        "the model could run on token ids only, not on text",
    ),
    (
        "tokenizer_config.json",
        "prompts would get the wrong special tokens and chats no template",
    ),
    (
        "generation_config.json",
        "a chat could run past its end, because config.json often lacks the tokens that end a turn",
    ),
];

/// The files to embed, config.json first, and a warning for each absent file.
#[derive(Debug)]
pub(crate) struct Embedded {
    pub files: Vec<(String, Vec<u8>)>,
    pub warnings: Vec<String>,
}

impl Embedded {
    /// Reads the files from a folder. `config` is config.json, possibly completed by the caller.
    pub fn read(folder: &Path, config: Vec<u8>, allow_missing: bool) -> Result<Embedded> {
        let mut files = vec![(FILES[0].to_owned(), config)];
        let mut warnings = Vec::new();
        for name in &FILES[1..] {
            let path = folder.join(name);
            let required = REQUIRED.iter().find(|(file, _)| file == name);
            match (read(&path)?, required) {
                (Some(bytes), _) => {
                    check_text(&path, &bytes)?;
                    files.push((name.to_string(), bytes));
                }
                (None, Some((file, consequence))) if allow_missing => {
                    warnings.push(format!("there is no {file}: {consequence}"));
                }
                (None, Some((file, consequence))) => {
                    return Err(Error::MissingFile {
                        path: folder.to_owned(),
                        file,
                        consequence,
                    });
                }
                (None, None) => {}
            }
        }
        let mut embedded = Embedded { files, warnings };
        embedded.complete_tokenizer(folder)?;
        Ok(embedded)
    }

    /// Refuses a vocabulary that is larger than the embedding, and warns of added tokens without a
    /// row, such as one for padding.
    pub fn check_vocabulary(&mut self, folder: &Path, rows: usize) -> Result<()> {
        let path = folder.join("tokenizer.json");
        let tokenizer = self.files.iter().find(|(n, _)| n == "tokenizer.json");
        let Some((_, bytes)) = tokenizer else {
            return Ok(());
        };
        let beyond = tokenizer_files::beyond(bytes, rows).map_err(|e| Error::File {
            path: path.clone(),
            why: e.why,
        })?;
        if let Some((token, id)) = beyond.vocabulary {
            let token = json::shown(&token);
            return Err(Error::Vocabulary {
                path,
                token,
                id,
                rows,
            });
        }
        for (token, id) in beyond.added {
            let token = json::shown(&token);
            self.warnings.push(format!(
                "token {token:?} has id {id}, but the embedding has {rows} rows: text that \
                 contains this token will be refused"
            ));
        }
        Ok(())
    }

    /// Replaces a file, or adds it in the order of all files.
    fn put(&mut self, name: &str, bytes: Vec<u8>) {
        if let Some((_, old)) = self.files.iter_mut().find(|(n, _)| n == name) {
            *old = bytes;
            return;
        }
        let place = |name: &str| FILES.iter().position(|file| *file == name);
        let before = |(n, _): &(String, Vec<u8>)| place(n) < place(name);
        let index = self.files.partition_point(before);
        self.files.insert(index, (name.to_owned(), bytes));
    }

    /// Puts the tokens that only other files name into tokenizer.json.
    fn complete_tokenizer(&mut self, folder: &Path) -> Result<()> {
        let mut legacy = Vec::new();
        for name in tokenizer_files::LEGACY {
            let path = folder.join(name);
            if let Some(bytes) = read(&path)? {
                check_text(&path, &bytes)?;
                legacy.push((name.to_owned(), bytes));
            }
        }
        let file = |name: &str| {
            let mut files = self.files.iter().chain(&legacy);
            files
                .find(|(n, _)| n == name)
                .map(|(_, bytes)| bytes.as_slice())
        };
        let completed = tokenizer_files::complete(file);
        let completed = completed.map_err(|e| Error::File {
            path: folder.join(e.file),
            why: e.why,
        })?;
        if let Some(completed) = completed {
            self.put("tokenizer.json", completed.json);
            if let Some(settings) = completed.settings {
                self.put("tokenizer_config.json", settings);
            }
            let changes = completed.changes.into_iter();
            self.warnings
                .extend(changes.map(|change| format!("tokenizer: {change}")));
        }
        Ok(())
    }
}

/// Reads a whole file. None if it does not exist.
pub(crate) fn read(path: &Path) -> Result<Option<Vec<u8>>> {
    let metadata = match path.metadata() {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        metadata => metadata.map_err(Error::io(path))?,
    };
    if !metadata.is_file() {
        return Err(Error::File {
            path: path.to_owned(),
            why: "it is not a file".into(), // opening a pipe would wait forever
        });
    }
    std::fs::read(path).map(Some).map_err(Error::io(path))
}

/// Requires UTF-8, and an object in a `.json` file. The parsed value is discarded, because
/// tokenizers are large.
fn check_text(path: &Path, bytes: &[u8]) -> Result<()> {
    let error = |why: String| {
        let path = path.to_owned();
        Err(Error::File { path, why })
    };
    if let Err(e) = std::str::from_utf8(bytes) {
        return error(format!("it is not UTF-8 ({e})"));
    }
    if path.extension().is_none_or(|e| e != "json") {
        return Ok(());
    }
    match serde_json::from_slice::<IgnoredAny>(bytes) {
        Err(e) => error(format!("it is not JSON ({e})")),
        Ok(_) if bytes.trim_ascii_start().starts_with(b"{") => Ok(()),
        Ok(_) => error("it is not a JSON object".into()),
    }
}

/// Parses a JSON object; a tokenizer.json may be large.
pub(crate) fn parse_object(path: &Path, bytes: &[u8]) -> Result<Value> {
    let error = |why: String| Error::File {
        path: path.to_owned(),
        why,
    };
    let is_tokenizer = path
        .file_name()
        .is_some_and(|name| name == "tokenizer.json");
    let json = match is_tokenizer {
        true => json::parse_tokenizer(bytes),
        false => json::parse(bytes),
    };
    let json = json.map_err(|e| error(format!("it is not JSON ({e})")))?;
    if json.is_object() {
        Ok(json)
    } else {
        Err(error("it is not a JSON object".into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tokenizer_may_hold_more_values_than_settings() {
        let tokens: Vec<String> = (0..60_000).map(|id| format!("\"{id}\": {id}")).collect();
        let text = format!("{{\"vocab\": {{{}}}}}", tokens.join(", "));
        let parsed = parse_object(Path::new("m/tokenizer.json"), text.as_bytes()).unwrap();
        assert_eq!(parsed["vocab"]["59999"], 59_999);
        let refused = parse_object(Path::new("m/config.json"), text.as_bytes());
        let message = refused.unwrap_err().to_string();
        assert!(message.contains("expected at most 50000"), "{message}");
    }
}
