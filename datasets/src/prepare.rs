//! Turns documents into shards: encodes on all cores, writes `train.tokens` and `held_out.tokens`.
//!
//! Files of text have no split of their own, so a hash of a document's position decides; a document
//! as long as a book gives its end to the held-out side. Generated corpora have their own split
//! ([`crate::Split`]). Both files are written at the same time, and each appears whole or not at
//! all. A document is encoded in one piece: split a file of many megabytes.

use std::fs;
use std::io::{self, Seek, Write};
use std::path::{Path, PathBuf};

use sterna_ternary::durable;

use crate::random::mix64;
use crate::shard::{ShardHeader, ShardWriter};
use crate::{Corpus, Error, Mix, Result, Split, Tokenizer};

/// Bytes of text encoded at a time: enough for all cores, little for memory.
const BATCH: usize = 1 << 20;

/// A document of this many bytes or more gives its own held-out part: a corpus may be one document.
const LONG: usize = 1 << 16;

/// The two shards that were written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prepared {
    /// `train.tokens`.
    pub train: Written,
    /// `held_out.tokens`.
    pub held_out: Written,
}

/// One shard that was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// The file.
    pub path: PathBuf,
    /// Documents in it.
    pub documents: u64,
    /// Tokens in it, BOS and EOS of each document included.
    pub tokens: u64,
}

/// Writes both shards into `folder`, which is created, holding out about this share (0 ≤ share < 1)
/// of the documents by a hash of their position, and of those of 64 KiB and more the last lines.
///
/// An error from `documents` ends the work, and then neither file is changed.
pub fn held_out_share(
    documents: impl IntoIterator<Item = Result<String>>,
    tokenizer: &Tokenizer,
    folder: &Path,
    share: f64,
) -> Result<Prepared> {
    if !(0.0..1.0).contains(&share) {
        return Err(Error::HeldOutShare { found: share });
    }
    let threshold = (share * 2f64.powi(64)) as u64;
    let split = |index| {
        if mix64(index) < threshold {
            Split::HeldOut
        } else {
            Split::Train
        }
    };
    let parts = |(index, text): (u64, Result<String>)| match text {
        Ok(text) if text.len() >= LONG && share > 0.0 => {
            let (first, last) = without_end(text, share);
            vec![Ok((Split::Train, first)), Ok((Split::HeldOut, last))]
        }
        Ok(text) => vec![Ok((split(index), text))],
        Err(error) => vec![Err(error)],
    };
    write((0..).zip(documents).flat_map(parts), tokenizer, folder)
}

/// Cuts about this share off the end of a text, at the end of a line if there is one.
fn without_end(mut text: String, share: f64) -> (String, String) {
    let mut cut = (text.len() as f64 * (1.0 - share)) as usize;
    while !text.is_char_boundary(cut) {
        cut -= 1;
    }
    let line = text[..cut].rfind('\n').map_or(cut, |end| end + 1);
    let end = text.split_off(line);
    (text, end)
}

/// Writes both shards into `folder`, which is created, from generated documents: `train_documents`
/// and `held_out_documents` from the two sides of the split.
pub fn generated(
    mix: &Mix,
    seed: u64,
    train_documents: u64,
    held_out_documents: u64,
    tokenizer: &Tokenizer,
    folder: &Path,
) -> Result<Prepared> {
    let sides = [
        (Split::Train, train_documents),
        (Split::HeldOut, held_out_documents),
    ];
    let documents = sides.into_iter().flat_map(|(split, count)| {
        let corpus = Corpus {
            mix: mix.clone(),
            seed,
            split,
        };
        (0..count).map(move |index| Ok((split, corpus.document(index).1.text)))
    });
    write(documents, tokenizer, folder)
}

/// Encodes documents and writes each to the shard of its side.
fn write(
    documents: impl Iterator<Item = Result<(Split, String)>>,
    tokenizer: &Tokenizer,
    folder: &Path,
) -> Result<Prepared> {
    fs::create_dir_all(folder).map_err(Error::io(folder, "create"))?;
    let paths = ["train.tokens", "held_out.tokens"].map(|name| folder.join(name));
    let mut headers = None;
    let outcome = durable::write(&paths[0], |train| {
        durable::write(&paths[1], |held_out| {
            let train = ShardWriter::new(train, tokenizer)?;
            let held_out = ShardWriter::new(held_out, tokenizer)?;
            headers = Some(fill([train, held_out], documents, tokenizer)?);
            Ok(())
        })
    });
    outcome.map_err(|error| match error.downcast::<Error>() {
        Ok(ours) => ours,
        Err(source) => Error::io(folder, "write shards into")(source),
    })?;
    let headers = headers.expect("a durable write succeeds only if its closure did");
    let [train, held_out] = [0, 1].map(|side| Written {
        path: paths[side].clone(),
        documents: headers[side].documents,
        tokens: headers[side].tokens,
    });
    Ok(Prepared { train, held_out })
}

/// Streams documents into the writers, which are in the order of [`Split`]. Errors of this crate
/// travel inside an [`io::Error`].
fn fill<W: Write + Seek>(
    mut writers: [ShardWriter<W>; 2],
    documents: impl Iterator<Item = Result<(Split, String)>>,
    tokenizer: &Tokenizer,
) -> io::Result<[ShardHeader; 2]> {
    let mut documents = documents.peekable();
    while documents.peek().is_some() {
        let (mut sides, mut texts, mut bytes) = (Vec::new(), Vec::new(), 0);
        while bytes < BATCH
            && let Some(document) = documents.next()
        {
            let (side, text) = document.map_err(io::Error::other)?;
            bytes += text.len();
            sides.push(side);
            texts.push(text);
        }
        let encoded = tokenizer
            .encode_documents(texts)
            .map_err(io::Error::other)?;
        for (side, document) in sides.into_iter().zip(encoded) {
            writers[side as usize].push(&document)?;
        }
    }
    let [train, held_out] = writers;
    Ok([train.finish()?, held_out.finish()?])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Shard, Task, train_bpe};

    fn corpus() -> Corpus {
        Corpus {
            mix: "stories,addition2".parse().unwrap(),
            seed: 2,
            split: Split::Train,
        }
    }

    fn tokenizer() -> Tokenizer {
        train_bpe(corpus().texts().take(100), 320, &[]).unwrap()
    }

    fn texts(path: &Path, tokenizer: &Tokenizer) -> Vec<String> {
        let shard = Shard::open(path).unwrap();
        assert_eq!(shard.header().tokenizer, tokenizer.hash());
        let text = |range| {
            tokenizer
                .decode(&shard.tokens(range).collect::<Vec<_>>())
                .unwrap()
        };
        shard.documents().into_iter().map(text).collect()
    }

    #[test]
    fn every_document_lands_whole_on_one_side_in_order() {
        let (tokenizer, folder) = (tokenizer(), tempfile::tempdir().unwrap());
        let input: Vec<String> = corpus().texts().take(3000).collect();
        let documents = || input.iter().cloned().map(Ok);
        let prepared = held_out_share(documents(), &tokenizer, folder.path(), 0.1).unwrap();
        let train = texts(&prepared.train.path, &tokenizer);
        let held_out = texts(&prepared.held_out.path, &tokenizer);
        assert_eq!(prepared.train.documents as usize, train.len());
        assert!(
            (240..360).contains(&held_out.len()),
            "{} of 3000",
            held_out.len()
        );
        let (mut train, mut held_out) = (train.into_iter().peekable(), held_out.into_iter());
        for text in &input {
            let found = if train.peek() == Some(text) {
                train.next()
            } else {
                held_out.next()
            };
            assert_eq!(found.as_ref(), Some(text));
        }
        assert!(train.next().is_none() && held_out.next().is_none());

        let before = fs::read(&prepared.train.path).unwrap();
        held_out_share(documents(), &tokenizer, folder.path(), 0.1).unwrap();
        assert_eq!(
            fs::read(&prepared.train.path).unwrap(),
            before,
            "same input, same bytes"
        );
    }

    #[test]
    fn of_a_book_the_last_lines_are_held_out() {
        let (tokenizer, folder) = (tokenizer(), tempfile::tempdir().unwrap());
        let book: String = (0..LONG / 8).map(|i| format!("{i:07}\n")).collect();
        let prepared = held_out_share([Ok(book.clone())], &tokenizer, folder.path(), 0.1).unwrap();
        let train = texts(&prepared.train.path, &tokenizer);
        let held_out = texts(&prepared.held_out.path, &tokenizer);
        assert_eq!([&train[0][..], &held_out[0]].concat(), book);
        assert!(held_out[0].len() / 8 == 820 && train[0].ends_with('\n'));
    }

    #[test]
    fn generated_shards_hold_their_side_of_the_split() {
        let (tokenizer, folder) = (tokenizer(), tempfile::tempdir().unwrap());
        let mix = Mix::new([(Task::Addition2, 1.0)]).unwrap();
        let prepared = generated(&mix, 5, 40, 7, &tokenizer, folder.path()).unwrap();
        assert_eq!(
            (prepared.train.documents, prepared.held_out.documents),
            (40, 7)
        );
        for (written, split) in [
            (&prepared.train, Split::Train),
            (&prepared.held_out, Split::HeldOut),
        ] {
            let corpus = Corpus {
                mix: mix.clone(),
                seed: 5,
                split,
            };
            let expected: Vec<String> = corpus.texts().take(written.documents as usize).collect();
            assert_eq!(texts(&written.path, &tokenizer), expected);
        }
    }

    #[test]
    fn an_error_keeps_the_old_files_and_comes_back_as_it_was() {
        let (tokenizer, folder) = (tokenizer(), tempfile::tempdir().unwrap());
        let prepared =
            held_out_share([Ok("kept".to_owned())], &tokenizer, folder.path(), 0.0).unwrap();
        let bad = Error::NotUtf8 {
            path: "a.txt".into(),
            line: 3,
        };
        let failed = held_out_share(
            [Ok("lost".to_owned()), Err(bad)],
            &tokenizer,
            folder.path(),
            0.0,
        );
        assert!(matches!(failed, Err(Error::NotUtf8 { line: 3, .. })));
        assert_eq!(texts(&prepared.train.path, &tokenizer), ["kept"]);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
        for share in [-0.1, 1.0, f64::NAN] {
            let refused = held_out_share([], &tokenizer, folder.path(), share);
            assert!(matches!(refused, Err(Error::HeldOutShare { .. })));
        }
    }
}
