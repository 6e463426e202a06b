//! The text that models are judged on: documents from files, or stories that are made here.

use std::f64::consts::LN_2;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use sterna_datasets::generate::Document;
use sterna_datasets::read::{self, ReadOptions};
use sterna_datasets::{Split, Task, generate};
use sterna_ternary::sha256::{Digest, Sha256, hex};

use crate::{Error, Result};

/// Documents in order.
#[derive(Debug, Clone)]
pub struct Text {
    /// What it is, in words.
    pub name: String,
    /// At least one, each with a visible character.
    pub documents: Vec<String>,
}

/// What another needs in order to take the same text.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TextSource {
    /// Paths, or what was generated.
    pub name: String,
    /// Documents.
    pub documents: usize,
    /// UTF-8 bytes of all documents.
    pub bytes: usize,
    /// SHA-256 of all documents, concatenated: for a single `.txt`, that of the file.
    pub sha256: String,
}

/// Seed of the generated stories. It differs from the seeds of the training recipes.
const SEED: u64 = 7;

impl Text {
    /// Reads files of texts and of records, and folders of them, as [`read::documents`] does.
    ///
    /// # Errors
    /// Those of the readers, and no document at all.
    pub fn open(paths: &[PathBuf], options: &ReadOptions) -> Result<Text> {
        let documents = read::documents(paths, options)?;
        let documents = documents.collect::<Result<Vec<String>, _>>()?;
        let names = paths.iter().map(|path| path.display().to_string());
        let name = names.collect::<Vec<_>>().join(", ");
        match documents.is_empty() {
            true => Err(Error::NoText { name }),
            false => Ok(Text { name, documents }),
        }
    }

    /// Held-out stories of the built-in generator, this many.
    pub fn stories(count: u64) -> Text {
        let stories: Vec<Document> = (0..count)
            .map(|i| generate::document(Task::Stories, SEED, i, Split::HeldOut))
            .collect();
        let entropy: f64 = stories.iter().map(|story| story.entropy).sum();
        let bytes: usize = stories.iter().map(|story| story.text.len()).sum();
        let bits = entropy / bytes.max(1) as f64 / LN_2;
        Text {
            name: format!(
                "{count} held-out stories of the built-in generator, seed {SEED}; the entropy of \
                 its choices is {bits:.4} bits per byte"
            ),
            documents: stories.into_iter().map(|story| story.text).collect(),
        }
    }

    /// Name, size and hash.
    pub fn source(&self) -> TextSource {
        let mut hash = Sha256::new();
        self.documents.iter().for_each(|text| hash.update(text));
        TextSource {
            name: self.name.clone(),
            documents: self.documents.len(),
            bytes: self.documents.iter().map(String::len).sum(),
            sha256: hex(&hash.finalize()),
        }
    }
}

/// Words as lm-evaluation-harness counts them: the pieces that Python's `re.split(r"\s+", text)`
/// returns, empty ones at the ends included.
pub fn words(text: &str) -> usize {
    let mut in_space = false;
    let mut gaps = 0;
    for c in text.chars() {
        let is_space = c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c);
        gaps += usize::from(is_space && !in_space);
        in_space = is_space;
    }
    gaps + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_those_of_python() {
        // len(re.split(r"\s+", text)) of Python 3.12
        for (text, expected) in [
            ("", 1),
            ("a", 1),
            ("a b", 2),
            ("a  b\n", 3),
            (" a", 2),
            ("a\u{1f}b", 2),
            ("a\u{a0}b\u{3000}c", 3),
        ] {
            assert_eq!(words(text), expected, "{text:?}");
        }
    }

    #[test]
    fn the_hash_is_that_of_a_single_file() {
        let text = Text {
            name: "abc".into(),
            documents: vec!["a".into(), "bc".into()],
        };
        let sha = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"; // sha256sum
        assert_eq!(text.source().sha256, sha);
        assert_eq!(text.source().bytes, 3);
    }
}
