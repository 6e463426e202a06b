//! Turns documents into shards: encodes on all cores, writes `train.tokens` and `held_out.tokens`.
//!
//! Files of text have no split of their own, so a hash of a document's position decides; a document
//! as long as a book gives its end to the held-out side. Generated corpora have their own split
//! ([`crate::Split`]). Both files are written at the same time, and each appears whole or not at
//! all. Memory holds a batch of parts of documents, however long the documents are.

use std::fs;
use std::io::{self, Seek, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use sterna_ternary::durable;

use crate::encoder::{Piece, Stream};
use crate::random::mix64;
use crate::read::{PART, Part};
use crate::shard::{ShardHeader, ShardWriter};
use crate::{Corpus, Error, Mix, Result, Split, Tokenizer};

/// Bytes of text encoded at a time: enough for all cores, little for memory.
const BATCH: usize = 1 << 21;

/// A document of this many bytes or more gives its own held-out part: a corpus may be one document.
const LONG: u64 = PART as u64;

/// Is told the bytes of files that were read so far, and says whether to go on.
pub type Watch<'a> = &'a mut dyn FnMut(u64) -> ControlFlow<()>;

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

/// Which documents are held out.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct HeldOut {
    /// About this share, 0 ≤ share < 1.
    pub share: f64,
    /// Documents of this many bytes or more are not held out whole: each gives its last lines.
    pub long: u64,
}

impl HeldOut {
    /// A share of the documents, chosen by a hash of their position, and of those of 64 KiB and
    /// more the last lines.
    ///
    /// # Errors
    /// [`Error::HeldOutShare`] if the share is not in 0 ≤ share < 1.
    pub fn share(share: f64) -> Result<HeldOut> {
        match (0.0..1.0).contains(&share) {
            true => Ok(HeldOut { share, long: LONG }),
            false => Err(Error::HeldOutShare { found: share }),
        }
    }

    /// The side of a document by its position.
    pub(crate) fn side(&self, index: u64) -> Split {
        match mix64(index) < (self.share * 2f64.powi(64)) as u64 {
            true => Split::HeldOut,
            false => Split::Train,
        }
    }
}

/// Writes both shards into `folder`, which is created.
///
/// An error from `parts` ends the work, and so does `watch`; then neither file is changed.
pub fn texts(
    parts: impl IntoIterator<Item = Result<Part>>,
    tokenizer: &Tokenizer,
    folder: &Path,
    held_out: HeldOut,
    watch: Watch,
) -> Result<Prepared> {
    let mut cutter = Cutter {
        held_out,
        documents: 0,
        side: Split::Train,
        cut: None,
    };
    let parts = parts.into_iter().flat_map(move |part| match part {
        Ok(part) => cutter.sides(part).map(Ok).collect(),
        Err(error) => vec![Err(error)],
    });
    write(parts, tokenizer, folder, watch)
}

/// Does the work of [`texts`] and writes nothing, so that its time can be measured.
pub fn rehearse(
    parts: impl IntoIterator<Item = Result<Part>>,
    tokenizer: &Tokenizer,
    watch: Watch,
) -> Result<()> {
    let nowhere = Path::new("nothing");
    let writer = || ShardWriter::new(io::empty(), tokenizer);
    let parts = parts.into_iter().map(|part| Ok((Split::Train, part?)));
    let outcome = (|| fill([writer()?, writer()?], parts, tokenizer, watch))();
    outcome.map(drop).map_err(|error| ours(error, nowhere))
}

/// [`texts`] for whole documents, without a watch.
pub fn held_out_share(
    documents: impl IntoIterator<Item = Result<String>>,
    tokenizer: &Tokenizer,
    folder: &Path,
    share: f64,
) -> Result<Prepared> {
    let parts = documents.into_iter().map(|text| text.map(Part::whole));
    let on = &mut |_| ControlFlow::Continue(());
    texts(parts, tokenizer, folder, HeldOut::share(share)?, on)
}

/// Gives each part of a document to a side, and cuts the end off long documents.
struct Cutter {
    held_out: HeldOut,
    documents: u64,
    /// The side of the document that goes on.
    side: Split,
    /// Bytes up to the held-out end of the document that goes on.
    cut: Option<u64>,
}

impl Cutter {
    fn sides(&mut self, part: Part) -> impl Iterator<Item = (Split, Part)> {
        let HeldOut { share, long } = self.held_out;
        if part.is_first {
            let is_cut = part.bytes >= long && share > 0.0;
            self.cut = is_cut.then_some((part.bytes as f64 * (1.0 - share)) as u64);
            self.side = match is_cut {
                true => Split::Train,
                false => self.held_out.side(self.documents),
            };
            self.documents += 1;
        }
        let length = part.text.len() as u64;
        let mut sides = [None, None];
        match self.cut {
            Some(cut) if cut <= length => {
                let (first, last) = without_end(part, cut as usize);
                sides = [Some((Split::Train, first)), Some((Split::HeldOut, last))];
                (self.side, self.cut) = (Split::HeldOut, None);
            }
            _ => {
                self.cut = self.cut.map(|cut| cut - length);
                sides[0] = Some((self.side, part));
            }
        }
        sides.into_iter().flatten()
    }
}

/// Cuts a part of a document into the end of one document and the beginning of another: at the end
/// of a line, or where it has none before `cut`, there.
fn without_end(mut part: Part, mut cut: usize) -> (Part, Part) {
    while !part.text.is_char_boundary(cut) {
        cut -= 1;
    }
    let line = part.text[..cut].rfind('\n').map_or(cut, |end| end + 1);
    let last = Part {
        text: part.text.split_off(line),
        is_first: true,
        ..part
    };
    part.is_last = true;
    (part, last)
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
        (0..count).map(move |index| Ok((split, Part::whole(corpus.document(index).1.text))))
    });
    let on = &mut |_| ControlFlow::Continue(());
    write(documents, tokenizer, folder, on)
}

/// Encodes documents and writes each to the shard of its side.
fn write(
    parts: impl Iterator<Item = Result<(Split, Part)>>,
    tokenizer: &Tokenizer,
    folder: &Path,
    watch: Watch,
) -> Result<Prepared> {
    fs::create_dir_all(folder).map_err(Error::io(folder, "create"))?;
    let paths = ["train.tokens", "held_out.tokens"].map(|name| folder.join(name));
    let mut headers = None;
    let outcome = durable::write(&paths[0], |train| {
        durable::write(&paths[1], |held_out| {
            let train = ShardWriter::new(train, tokenizer)?;
            let held_out = ShardWriter::new(held_out, tokenizer)?;
            headers = Some(fill([train, held_out], parts, tokenizer, watch)?);
            Ok(())
        })
    });
    outcome.map_err(|error| ours(error, folder))?;
    let headers = headers.expect("a durable write succeeds only if its closure did");
    let [train, held_out] = [0, 1].map(|side| Written {
        path: paths[side].clone(),
        documents: headers[side].documents,
        tokens: headers[side].tokens,
    });
    Ok(Prepared { train, held_out })
}

/// The error of this crate that travelled in one of the file system, or that one.
fn ours(error: io::Error, folder: &Path) -> Error {
    match error.downcast::<Error>() {
        Ok(ours) => ours,
        Err(source) => Error::io(folder, "write shards into")(source),
    }
}

/// A piece of a document, and where it belongs.
struct Place {
    side: Split,
    begins: bool,
    ends: bool,
}

/// Streams documents into the writers, which are in the order of [`Split`]. Errors of this crate
/// travel inside an [`io::Error`].
fn fill<W: Write + Seek>(
    mut writers: [ShardWriter<W>; 2],
    mut parts: impl Iterator<Item = Result<(Split, Part)>>,
    tokenizer: &Tokenizer,
    watch: Watch,
) -> io::Result<[ShardHeader; 2]> {
    let mut stream = tokenizer.stream();
    let end = tokenizer.end_of_document();
    let mut read = 0;
    loop {
        // Pieces of many documents, or of a long one, that are encoded at the same time.
        let (mut pieces, mut places, mut bytes) = (Vec::new(), Vec::new(), 0);
        while bytes < BATCH
            && let Some(part) = parts.next()
        {
            let (side, part) = part.map_err(io::Error::other)?;
            read = part.read;
            bytes += part.text.len();
            push(&mut stream, part, side, &mut pieces, &mut places).map_err(io::Error::other)?;
        }
        if pieces.is_empty() && bytes == 0 {
            break;
        }
        let encoded = tokenizer.encode_pieces(&pieces).map_err(io::Error::other)?;
        for (place, ids) in places.iter().zip(encoded) {
            let writer = &mut writers[place.side as usize];
            if place.begins {
                writer.begin()?;
            }
            writer.extend(&ids)?;
            if place.ends {
                writer.extend(end.as_slice())?;
            }
        }
        if watch(read).is_break() {
            return Err(io::Error::other(Error::Stopped));
        }
    }
    let [train, held_out] = writers;
    Ok([train.finish()?, held_out.finish()?])
}

/// Adds the pieces of a part of a document, with their places.
fn push(
    stream: &mut Stream,
    part: Part,
    side: Split,
    pieces: &mut Vec<Piece>,
    places: &mut Vec<Place>,
) -> Result<()> {
    if part.is_first && part.is_last && part.text.len() <= PART {
        pieces.push(Piece::Text(part.text, true));
        places.push(Place {
            side,
            begins: true,
            ends: true,
        });
        return Ok(());
    }
    stream.push(&part.text, pieces)?;
    if part.is_last {
        stream.finish(pieces);
    }
    let first = places.len();
    places.extend(pieces[first..].iter().map(|piece| Place {
        side,
        begins: piece.is_first(),
        ends: false,
    }));
    if part.is_last
        && let Some(last) = places.last_mut()
    {
        last.ends = true;
    }
    Ok(())
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
