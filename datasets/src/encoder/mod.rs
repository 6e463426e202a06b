//! Encodes texts of any length in little memory, on all cores.
//!
//! A text is cut into words ([`split`]), and words into ids ([`words`]). A document arrives in
//! parts. [`Stream`] encodes a part up to a place where its words no longer depend on the text
//! that follows, and keeps the rest for the next part, so the ids are those of the whole document.
//!
//! Tokenizers with steps that [`split`] does not know are left to `tokenizers`, in parts whose ends
//! were tried: the ids of a text around an end must be the same with and without the cut.

pub mod split;
pub mod template;
pub mod texts;
pub mod words;

use std::borrow::Cow;
use std::sync::Mutex;

use rayon::prelude::*;
use serde_json::Value;
use tokenizers::{ModelWrapper, NormalizedString, Normalizer};

use crate::{Error, Result};
use split::{SplitMemory, Splitter, Word, WordKind};
use words::{WordEncoder, WordMemory};

/// Bytes of text that are encoded at once.
const CHUNK: usize = 1 << 17;
/// Changes of character class after which text does not influence the words before it. A pattern
/// of a pre-tokenizer spans a few at most, as in `'s`, a letter after an apostrophe after a letter.
const CHANGES: usize = 8;
/// Bytes on each side of a cut that is tried.
const TRIED: usize = 1 << 10;

/// Encodes texts as a tokenizer does.
pub struct Encoder {
    /// None for a tokenizer that is left to the library.
    fast: Option<Fast>,
    /// See [`CHUNK`]; smaller in tests.
    chunk: usize,
}

struct Fast {
    splitter: Splitter,
    words: WordEncoder,
    memories: Mutex<Vec<Memory>>,
}

struct Memory {
    split: SplitMemory,
    words: WordMemory,
    cut: Vec<Word>,
}

/// A part of a document that can be encoded by itself.
#[derive(Debug, PartialEq, Eq)]
pub enum Piece {
    /// Text up to the end of a document; whether a document begins with it.
    Text(String, bool),
    /// Text whose words depend on the text that follows, so they were found together with it;
    /// whether a document begins with it.
    Words(String, Vec<Word>, bool),
    /// The beginning of a word that does not end yet, as ids; whether a document begins with it.
    Ids(Vec<u32>, bool),
}

impl Piece {
    /// Whether a document begins with it.
    pub fn is_first(&self) -> bool {
        let (Piece::Text(_, is_first) | Piece::Words(_, _, is_first) | Piece::Ids(_, is_first)) =
            self;
        *is_first
    }
}

impl Encoder {
    /// The encoder of a tokenizer.json.
    pub fn new(json: &[u8]) -> Encoder {
        let fast = || {
            let tokenizer: Value = serde_json::from_slice(json).ok()?;
            let splitter = Splitter::new(&tokenizer)?;
            let words = WordEncoder::new(&tokenizer["model"], splitter.alphabet)?;
            let memories = Mutex::default();
            Some(Fast {
                splitter,
                words,
                memories,
            })
        };
        Encoder {
            fast: fast(),
            chunk: CHUNK,
        }
    }

    /// Whether words are found here, and not by `tokenizers`.
    #[cfg(test)]
    pub fn is_fast(&self) -> bool {
        self.fast.is_some()
    }

    /// Appends the ids of a piece of a document.
    pub fn encode(
        &self,
        library: &tokenizers::Tokenizer,
        piece: &Piece,
        out: &mut Vec<u32>,
    ) -> Result<()> {
        match (piece, &self.fast) {
            (Piece::Ids(ids, _), _) => out.extend(ids),
            (Piece::Text(text, is_first), Some(fast)) => {
                fast.encode(library, text, *is_first, out)?;
            }
            (Piece::Words(text, words, _), Some(fast)) => {
                fast.with_memory(|memory| fast.ids(library, text, words, &mut memory.words, out))?;
            }
            (Piece::Text(text, _) | Piece::Words(text, _, _), None) => {
                out.extend(by_library(library, text)?);
            }
        }
        Ok(())
    }

    /// The ids of each piece, computed on all cores.
    pub fn encode_all(
        &self,
        library: &tokenizers::Tokenizer,
        pieces: &[Piece],
    ) -> Result<Vec<Vec<u32>>> {
        let encode = |piece: &Piece| {
            let mut ids = Vec::new();
            self.encode(library, piece, &mut ids).map(|()| ids)
        };
        pieces.par_iter().map(encode).collect()
    }

    /// Calls `count` with the words of a text, as the model sees them.
    pub fn words(&self, library: &tokenizers::Tokenizer, text: &str, mut count: impl FnMut(&[u8])) {
        let fast = self
            .fast
            .as_ref()
            .expect("tokenizers that are trained here are known");
        let text = fast.normalized(library, text);
        fast.with_memory(|memory| {
            memory.cut.clear();
            fast.splitter
                .split(&text, true, &mut memory.split, &mut memory.cut);
            let mut start = 0;
            for word in &memory.cut {
                count(&text.as_bytes()[start..word.end as usize]);
                start = word.end as usize;
            }
        });
    }
}

/// The ids of a text, by `tokenizers`.
fn by_library(library: &tokenizers::Tokenizer, text: &str) -> Result<Vec<u32>> {
    let encoding = library.encode_fast(text, false);
    let encoding = encoding.map_err(|reason| Error::Tokenization {
        reason: reason.to_string(),
    })?;
    Ok(encoding.get_ids().to_vec())
}

impl Fast {
    fn encode(
        &self,
        library: &tokenizers::Tokenizer,
        text: &str,
        is_first: bool,
        out: &mut Vec<u32>,
    ) -> Result<()> {
        let text = self.normalized(library, text);
        self.with_memory(|Memory { split, words, cut }| {
            cut.clear();
            self.splitter.split(&text, is_first, split, cut);
            self.ids(library, &text, cut, words, out)
        })
    }

    /// Appends the ids of the words of a text.
    fn ids(
        &self,
        library: &tokenizers::Tokenizer,
        text: &str,
        words: &[Word],
        memory: &mut WordMemory,
        out: &mut Vec<u32>,
    ) -> Result<()> {
        let model = library.get_model();
        out.reserve(words.len() * 3 / 2);
        let mut start = 0;
        for word in words {
            let bytes = &text.as_bytes()[start..word.end as usize];
            start = word.end as usize;
            match word.kind {
                WordKind::Added(id) => out.push(id),
                kind => {
                    let is_prefixed = kind == WordKind::Prefixed;
                    self.words.encode(model, bytes, is_prefixed, memory, out)?;
                }
            }
        }
        Ok(())
    }

    fn with_memory<T>(&self, work: impl FnOnce(&mut Memory) -> T) -> T {
        let kept = self.memories.lock().expect("no thread panics here").pop();
        let mut memory = kept.unwrap_or_else(|| Memory {
            split: self.splitter.memory(),
            words: WordMemory::new(),
            cut: Vec::new(),
        });
        let result = work(&mut memory);
        self.memories
            .lock()
            .expect("no thread panics here")
            .push(memory);
        result
    }

    /// The normal form of a text. Only ASCII characters that follow another one never change, so
    /// the text is cut there, and parts of ASCII stay as they are.
    fn normalized<'a>(&self, library: &tokenizers::Tokenizer, text: &'a str) -> Cow<'a, str> {
        let Some(normalizer) = library.get_normalizer() else {
            return text.into();
        };
        if !self.splitter.is_normalized || text.is_ascii() {
            return text.into();
        }
        let bytes = text.as_bytes();
        let mut out = String::with_capacity(text.len());
        let mut start = 0;
        while start < text.len() {
            // ASCII up to the character before the next other one, which may be a base of it.
            let other = bytes[start..].iter().position(|b| !b.is_ascii());
            let other = other.map_or(text.len(), |at| start + at);
            let base = if other < text.len() {
                other.saturating_sub(1).max(start)
            } else {
                other
            };
            out.push_str(&text[start..base]);
            let is_end = |at: &usize| bytes[*at].is_ascii() && bytes[at - 1].is_ascii();
            let end = (base + 1..text.len()).find(is_end).unwrap_or(text.len());
            if base < text.len() {
                let mut part = NormalizedString::from(&text[base..end]);
                normalizer
                    .normalize(&mut part)
                    .expect("normal forms of Unicode do not fail");
                out.push_str(part.get());
            }
            start = end.max(base);
        }
        out.into()
    }
}

/// Cuts a document that arrives in parts into pieces.
pub struct Stream<'a> {
    encoder: &'a Encoder,
    library: &'a tokenizers::Tokenizer,
    /// Text that is not part of a piece yet.
    rest: String,
    is_first: bool,
    /// Bytes of `rest` with which a cut is looked for again.
    wanted: usize,
}

impl<'a> Stream<'a> {
    /// A document that is about to arrive.
    pub fn new(encoder: &'a Encoder, library: &'a tokenizers::Tokenizer) -> Self {
        Self {
            encoder,
            library,
            rest: String::new(),
            is_first: true,
            wanted: encoder.chunk,
        }
    }

    /// Appends the pieces that are certain after this part of the document.
    pub fn push(&mut self, part: &str, pieces: &mut Vec<Piece>) -> Result<()> {
        let mut part = part;
        while !part.is_empty() {
            let mut end = self
                .wanted
                .saturating_sub(self.rest.len())
                .clamp(4, self.encoder.chunk)
                .min(part.len());
            while !part.is_char_boundary(end) {
                end -= 1;
            }
            self.rest.push_str(&part[..end]);
            part = &part[end..];
            if self.rest.len() >= self.wanted {
                self.cut(pieces)?;
            }
        }
        Ok(())
    }

    /// Appends the last piece. The stream is then ready for another document.
    pub fn finish(&mut self, pieces: &mut Vec<Piece>) {
        let rest = std::mem::take(&mut self.rest);
        pieces.push(Piece::Text(rest, self.is_first));
        (self.is_first, self.wanted) = (true, self.encoder.chunk);
    }

    fn cut(&mut self, pieces: &mut Vec<Piece>) -> Result<()> {
        let before = self.rest.len();
        match &self.encoder.fast {
            Some(fast) => self.cut_at_word(fast, pieces)?,
            None => self.cut_where_tried(pieces)?,
        }
        // Without a cut the text is looked at again when it has twice the size.
        self.wanted = match self.rest.len() {
            same if same == before => 2 * same,
            less => less + self.encoder.chunk,
        };
        Ok(())
    }

    /// Takes the text up to `end`.
    fn take(&mut self, end: usize) -> (String, bool) {
        let rest = self.rest.split_off(end);
        let text = std::mem::replace(&mut self.rest, rest);
        (text, std::mem::take(&mut self.is_first))
    }

    /// Takes the text up to the last word that is certain.
    fn cut_at_word(&mut self, fast: &Fast, pieces: &mut Vec<Piece>) -> Result<()> {
        if let Cow::Owned(normalized) = fast.normalized(self.library, &self.rest) {
            self.rest = normalized;
        }
        let mut words = Vec::with_capacity(self.rest.len() / 4);
        fast.with_memory(|memory| {
            let split = &mut memory.split;
            fast.splitter
                .split(&self.rest, self.is_first, split, &mut words);
        });
        let certain = certain(&self.rest, fast.splitter.longest_added());
        let is_cut = |word: &Word| word.is_cut && word.end as usize <= certain;
        if let Some(last) = words.iter().rposition(is_cut) {
            words.truncate(last + 1);
            let (text, is_first) = self.take(words[last].end as usize);
            pieces.push(Piece::Words(text, words, is_first));
            return Ok(());
        }
        // The last word is not certain, because it reaches to the end. A long one goes on, except
        // that spaces may belong to a line break after them, however far away it is.
        let Some(long) = words.pop() else {
            return Ok(());
        };
        let start = words.last().map_or(0, |word| word.end as usize);
        let is_open = self.rest.len() - start >= self.encoder.chunk / 2
            && !matches!(long.kind, WordKind::Added(_))
            && words.last().is_none_or(|word| word.is_cut)
            && !self.rest[start..].chars().all(char::is_whitespace);
        if !is_open {
            return Ok(());
        }
        if !words.is_empty() {
            let (text, is_first) = self.take(start);
            pieces.push(Piece::Words(text, words, is_first));
        }
        let mut ids = Vec::new();
        let is_prefixed = long.kind == WordKind::Prefixed;
        let model: &ModelWrapper = self.library.get_model();
        let done = fast
            .words
            .encode_beginning(model, &self.rest, is_prefixed, &mut ids)?;
        if done > 0 {
            self.rest.drain(..done);
            pieces.push(Piece::Ids(ids, std::mem::take(&mut self.is_first)));
        }
        Ok(())
    }

    /// Takes the text up to the last place near its end where a cut changes no id around it.
    fn cut_where_tried(&mut self, pieces: &mut Vec<Piece>) -> Result<()> {
        let text = &self.rest;
        let boundary = |mut at: usize| {
            while !text.is_char_boundary(at) {
                at -= 1;
            }
            at
        };
        let ends = text[..boundary(text.len().saturating_sub(TRIED))]
            .char_indices()
            .rev();
        let after = |(at, c): (usize, char)| c.is_whitespace().then_some([at, at + c.len_utf8()]);
        let places = ends
            .filter_map(after)
            .flatten()
            .filter(|at| *at > 0)
            .take(64);
        for at in places {
            let around = boundary(at.saturating_sub(TRIED))..boundary(at + TRIED);
            let [first, second] = [around.start..at, at..around.end];
            let mut apart = by_library(self.library, &text[first])?;
            apart.extend(by_library(self.library, &text[second])?);
            if apart == by_library(self.library, &text[around])? {
                let (text, is_first) = self.take(at);
                pieces.push(Piece::Text(text, is_first));
                return Ok(());
            }
        }
        Ok(())
    }
}

/// The last place of a text that is followed by enough changes of character class, and by as many
/// bytes as an added token may have.
fn certain(text: &str, longest_added: usize) -> usize {
    let (mut changes, mut last) = (0, None);
    for (at, c) in text.char_indices().rev() {
        let class = match c {
            c if c.is_whitespace() => 0,
            c if c.is_alphabetic() => 1,
            c if c.is_numeric() => 2,
            _ => 3,
        };
        changes += usize::from(last.is_some_and(|last| last != class));
        last = Some(class);
        if changes >= CHANGES && text.len() - at > longest_added {
            return at;
        }
    }
    0
}

#[cfg(test)]
mod tests;

const _: () = assert!(CHUNK > 4 * words::WINDOW);
