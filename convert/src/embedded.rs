//! The files that travel inside a packed file: config, tokenizer, generation settings and chat template.

use std::path::Path;

use serde_json::Value;
use sterna_ternary::file::FILES;

use crate::{Error, Result};

/// Files that belong to every model, and what goes wrong without each.
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

/// The files to embed, config.json first, and a warning for each that is absent.
#[derive(Debug)]
pub(crate) struct Embedded {
    pub files: Vec<(String, Vec<u8>)>,
    pub warnings: Vec<String>,
}

impl Embedded {
    /// Reads them from a folder; `config` is config.json, perhaps completed.
    pub fn read(folder: &Path, config: Vec<u8>, allow_missing: bool) -> Result<Embedded> {
        let mut files = vec![(FILES[0].to_owned(), config)];
        let mut warnings = Vec::new();
        for name in &FILES[1..] {
            let path = folder.join(name);
            let required = REQUIRED.iter().find(|(file, _)| file == name);
            match (std::fs::read(&path), required) {
                (Ok(bytes), _) => {
                    if name.ends_with(".json") {
                        parse_object(&path, &bytes)?;
                    } else if let Err(e) = std::str::from_utf8(&bytes) {
                        let why = format!("it is not UTF-8 ({e})");
                        return Err(Error::File { path, why });
                    }
                    files.push((name.to_string(), bytes));
                }
                (Err(e), _) if e.kind() != std::io::ErrorKind::NotFound => {
                    return Err(Error::io(&path)(e));
                }
                (Err(_), Some((file, consequence))) if allow_missing => {
                    warnings.push(format!("there is no {file}: {consequence}"));
                }
                (Err(_), Some((file, consequence))) => {
                    return Err(Error::MissingFile {
                        path: folder.to_owned(),
                        file,
                        consequence,
                    });
                }
                (Err(_), None) => {}
            }
        }
        Ok(Embedded { files, warnings })
    }
}

/// Parses a JSON object.
pub(crate) fn parse_object(path: &Path, bytes: &[u8]) -> Result<Value> {
    let error = |why: String| Error::File {
        path: path.to_owned(),
        why,
    };
    let json: Value =
        serde_json::from_slice(bytes).map_err(|e| error(format!("it is not JSON ({e})")))?;
    if json.is_object() {
        Ok(json)
    } else {
        Err(error("it is not a JSON object".into()))
    }
}
