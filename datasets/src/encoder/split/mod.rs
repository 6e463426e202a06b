//! Cuts text into the words of a tokenizer, as its pre-tokenizer does.
//!
//! A word is what the model of a tokenizer sees at once; the ids of a text are the ids of its
//! words, one after another. `tokenizers` builds a string with an alignment of every byte for each
//! word, which costs 200 bytes of memory per byte of text. Here a word is a range of bytes.
//!
//! [`Splitter::new`] reads the `normalizer`, `pre_tokenizer` and `model` of a tokenizer.json. It
//! knows the steps that byte-level and SentencePiece BPE have, and returns `None` for all others,
//! which are left to `tokenizers`.
//!
//! Regular expressions run on a lazy DFA. The only look-ahead of published patterns, `\s+(?!\S)`,
//! is a rule of its own: of a run of spaces before a word, the last one stays with the word.

mod added;
mod normalizer;
mod pattern;

use std::collections::HashSet;
use std::ops::Range;

use regex_automata::hybrid::dfa::Cache;
use serde_json::Value;
use unicode_categories::UnicodeCategories;

use self::added::{Added, AddedPass};
use self::normalizer::{Normalizer, Prefix, metaspace_prefix, normalizer};
use self::pattern::{Pattern, SPACES};

/// The pattern of the step `ByteLevel`, which is that of GPT-2, without its last two alternatives.
const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+";

/// A word of a text, or a token that is written out in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Word {
    /// Where it ends. It begins where the word before it ends.
    pub end: u32,
    /// What it is.
    pub kind: WordKind,
    /// Whether text that begins after it is cut into the same words as in this text.
    pub is_cut: bool,
}

/// What a [`Word`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WordKind {
    /// For the model.
    Text,
    /// For the model, after the prefix of the tokenizer.
    Prefixed,
    /// An added token with this id.
    Added(u32),
}

/// How the characters of a word become those of the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alphabet {
    /// Each byte is one character.
    Bytes,
    /// A space is `▁`.
    Spaces,
}

/// The character that SentencePiece writes for a space.
pub const SPACE: char = '▁';

/// One step of a pre-tokenizer.
enum Step {
    /// Matches are words, and so is the text between them.
    Pattern(Box<Pattern>),
    /// Characters of a class are words, one by one or in runs, and so is the text between them.
    Class {
        is_in: fn(char) -> bool,
        alone: bool,
    },
    /// Like `Class`, for the bytes of a text after the step `ByteLevel`.
    Bytes {
        is_in: fn(char) -> bool,
        alone: bool,
    },
    /// A word begins at every space, except after these characters and at the second of two
    /// spaces, unless `each` says so.
    Spaces { joined: HashSet<char>, each: bool },
}

/// The steps of a tokenizer from text to words.
pub struct Splitter {
    added: Added,
    prefix: Option<Prefix>,
    steps: Vec<Step>,
    /// Whether a text must be brought into a normal form of Unicode before it is cut.
    pub is_normalized: bool,
    /// See [`Alphabet`].
    pub alphabet: Alphabet,
}

/// Memory of a thread that splits.
pub struct SplitMemory {
    caches: Vec<Option<Cache>>,
    pieces: [Vec<Piece>; 2],
}

/// A part of a text between two steps.
#[derive(Clone, Copy)]
struct Piece {
    end: u32,
    /// Whether a pattern matched it, so that a cut inside would change the match.
    is_match: bool,
    is_cut: bool,
}

impl Splitter {
    /// The splitter of a tokenizer, or `None` if it has a step that is not known here.
    pub fn new(tokenizer: &Value) -> Option<Splitter> {
        let model = &tokenizer["model"];
        let mut steps = Vec::new();
        let (normalizer, mut prefix) = normalizer(&tokenizer["normalizer"])?;
        let mut alphabet = (normalizer == Normalizer::Spaces).then_some(Alphabet::Spaces);
        for step in list(&tokenizer["pre_tokenizer"], "pretokenizers") {
            let is_bytes = alphabet == Some(Alphabet::Bytes);
            match step["type"].as_str()? {
                "ByteLevel" if alphabet.is_none() => {
                    if step["add_prefix_space"].as_bool()? {
                        return None; // the pattern would see the space
                    }
                    if step["use_regex"].as_bool().unwrap_or(true) {
                        let pattern = format!("{GPT2}{SPACES}");
                        steps.push(Step::Pattern(Pattern::new(&pattern, false)?.into()));
                    }
                    alphabet = Some(Alphabet::Bytes);
                }
                "Metaspace" if alphabet.is_none() && steps.is_empty() => {
                    prefix = metaspace_prefix(step)?;
                    alphabet = Some(Alphabet::Spaces);
                    if step["split"].as_bool().unwrap_or(true) {
                        let joined = HashSet::new();
                        steps.push(Step::Spaces { joined, each: true });
                    }
                }
                "Split" if step["invert"] == false && step["behavior"] == "Isolated" => {
                    let pattern = match &step["pattern"] {
                        Value::Object(of) if of.contains_key("Regex") => {
                            of["Regex"].as_str()?.into()
                        }
                        of => regex_syntax::escape(of["String"].as_str()?),
                    };
                    steps.push(Step::Pattern(Pattern::new(&pattern, is_bytes)?.into()));
                }
                "Digits" => {
                    let alone = step["individual_digits"].as_bool()?;
                    steps.push(class(char::is_numeric, alone, is_bytes));
                }
                "Punctuation" => {
                    let alone = match step["behavior"].as_str().unwrap_or("Isolated") {
                        "Isolated" => true,
                        "Contiguous" => false,
                        _ => return None,
                    };
                    steps.push(class(is_punctuation, alone, is_bytes));
                }
                _ => return None,
            }
        }
        let alphabet = alphabet?;
        if alphabet == Alphabet::Spaces && steps.is_empty() {
            // The model sees a whole text, but joins no characters that no token of it joins.
            if model["ignore_merges"] == true {
                return None;
            }
            let joined = joined_with_spaces(model)?;
            let each = false;
            steps.push(Step::Spaces { joined, each });
        }
        Some(Splitter {
            added: Added::new(&tokenizer["added_tokens"], normalizer)?,
            is_normalized: matches!(normalizer, Normalizer::Canonical | Normalizer::Compatible),
            prefix,
            steps,
            alphabet,
        })
    }

    /// Memory for [`Splitter::split`].
    pub fn memory(&self) -> SplitMemory {
        let cache = |step: &Step| match step {
            Step::Pattern(pattern) => Some(pattern.dfa.create_cache()),
            _ => None,
        };
        SplitMemory {
            caches: self.steps.iter().map(cache).collect(),
            pieces: Default::default(),
        }
    }

    /// Length in bytes of the longest added token.
    pub fn longest_added(&self) -> usize {
        self.added.longest
    }

    /// Appends the words of a text, which has less than 4 GiB. `is_first` says whether a document
    /// begins with it.
    pub fn split(&self, text: &str, is_first: bool, memory: &mut SplitMemory, out: &mut Vec<Word>) {
        self.pass(
            &self.added.passes,
            text,
            0..text.len(),
            is_first,
            memory,
            out,
        );
    }

    /// Looks for the added tokens of the first pass, and for those of the others between them.
    fn pass(
        &self,
        passes: &[AddedPass],
        text: &str,
        range: Range<usize>,
        is_first: bool,
        memory: &mut SplitMemory,
        out: &mut Vec<Word>,
    ) {
        let Some((pass, others)) = passes.split_first() else {
            return self.between(text, range, is_first, memory, out);
        };
        let mut start = range.start;
        for found in pass.find(&text[range.clone()]) {
            let (at, end) = (range.start + found.start, range.start + found.end);
            self.pass(others, text, start..at, is_first, memory, out);
            out.push(Word {
                end: end as u32,
                kind: WordKind::Added(found.id),
                // Text after it begins with the prefix only if it is seen together with it.
                is_cut: self.prefix.is_none(),
            });
            start = end;
        }
        self.pass(others, text, start..range.end, is_first, memory, out);
    }

    /// The words of a text without added tokens.
    fn between(
        &self,
        text: &str,
        range: Range<usize>,
        is_first: bool,
        memory: &mut SplitMemory,
        out: &mut Vec<Word>,
    ) {
        if range.is_empty() {
            return;
        }
        let SplitMemory { caches, pieces } = memory;
        let [from, to] = pieces;
        from.clear();
        from.push(Piece {
            end: range.end as u32,
            is_match: false,
            is_cut: true,
        });
        for (step, cache) in self.steps.iter().zip(caches) {
            to.clear();
            let mut start = range.start;
            for piece in from.iter() {
                let within = start..piece.end as usize;
                start = within.end;
                step.apply(text, within, *piece, cache.as_mut(), to);
            }
            std::mem::swap(from, to);
        }
        let first = out.len();
        out.extend(from.iter().map(|piece| Word {
            end: piece.end,
            kind: WordKind::Text,
            is_cut: piece.is_cut,
        }));
        // A text begins at the start of the document or after an added token.
        let begins = range.start > 0 || is_first;
        if let Some(prefix) = self.prefix
            && begins
            && !(prefix.first_only && (range.start > 0 || !is_first))
            && !(prefix.unless_space && self.is_space(text[range].chars().next()))
        {
            out[first].kind = WordKind::Prefixed;
        }
    }

    fn is_space(&self, c: Option<char>) -> bool {
        c == Some(' ') || (self.alphabet == Alphabet::Spaces && c == Some(SPACE))
    }
}

/// The steps of a sequence, a single step, or none.
fn list<'a>(of: &'a Value, key: &str) -> Vec<&'a Value> {
    match of["type"].as_str() {
        Some("Sequence") => of[key].as_array().into_iter().flatten().collect(),
        Some(_) => vec![of],
        None => Vec::new(),
    }
}

fn class(is_in: fn(char) -> bool, alone: bool, is_bytes: bool) -> Step {
    match is_bytes {
        true => Step::Bytes { is_in, alone },
        false => Step::Class { is_in, alone },
    }
}

fn is_punctuation(c: char) -> bool {
    c.is_ascii_punctuation() || c.is_punctuation()
}

/// The characters that some token of a model has before a space inside of it.
fn joined_with_spaces(model: &Value) -> Option<HashSet<char>> {
    let mut joined = HashSet::new();
    for token in model["vocab"].as_object()?.keys() {
        let mut last = None;
        for c in token.chars() {
            if c == SPACE {
                joined.extend(last);
            }
            last = Some(c);
        }
    }
    Some(joined)
}

impl Step {
    /// Cuts a piece of a text into smaller ones.
    fn apply(
        &self,
        text: &str,
        range: Range<usize>,
        piece: Piece,
        cache: Option<&mut Cache>,
        out: &mut Vec<Piece>,
    ) {
        let mut last = range.start;
        let mut push = |end: usize, is_match: bool| {
            if end > last {
                last = end;
                out.push(Piece {
                    end: end as u32,
                    is_match: is_match || piece.is_match,
                    is_cut: !piece.is_match,
                });
            }
        };
        match self {
            Step::Pattern(pattern) => {
                let cache = cache.expect("a pattern has a cache");
                pattern.apply(text.as_bytes(), range.clone(), cache, &mut push);
            }
            Step::Class { is_in, alone } => {
                let chars = text[range.clone()].char_indices();
                let classes = chars.map(|(at, c)| (range.start + at, is_in(c)));
                runs(classes, *alone, &mut push);
            }
            Step::Bytes { is_in, alone } => {
                let bytes = text.as_bytes()[range.clone()].iter().enumerate();
                let classes = bytes.map(|(at, b)| (range.start + at, is_in(char_of(*b))));
                runs(classes, *alone, &mut push);
            }
            Step::Spaces { joined, each } => {
                let mut last = None;
                for (at, c) in text[range.clone()].char_indices() {
                    let c = if c == ' ' { SPACE } else { c };
                    if c == SPACE && (*each || last.is_some_and(|last| !joined.contains(&last))) {
                        push(range.start + at, false);
                    }
                    last = Some(c);
                }
            }
        }
        push(range.end, false);
        // The end of the piece is a cut if it was one.
        if let Some(last) = out.last_mut() {
            last.is_cut = piece.is_cut;
        }
    }
}

/// Calls `push` where a run of characters inside or outside of a class ends, except at the last.
fn runs(
    classes: impl Iterator<Item = (usize, bool)>,
    alone: bool,
    push: &mut impl FnMut(usize, bool),
) {
    let mut last = None;
    for (at, is_in) in classes {
        if last.is_some_and(|last| last != is_in || (is_in && alone)) {
            push(at, false);
        }
        last = Some(is_in);
    }
}

/// The character that byte-level BPE writes for a byte: itself if it is visible in Latin-1, else
/// one from U+0100 on, in order.
pub fn char_of(byte: u8) -> char {
    let code = match byte {
        0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff => byte.into(),
        0..=0x20 => 0x100 + u32::from(byte),
        0x7f..=0xa0 => 0x121 + u32::from(byte) - 0x7f,
        0xad => 0x143,
    };
    char::from_u32(code).expect("below the surrogates")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_of_bytes_are_those_of_tokenizers() {
        use tokenizers::pre_tokenizers::byte_level::ByteLevel;
        let ours: HashSet<char> = (0..=255).map(char_of).collect();
        assert!(ByteLevel::alphabet().into_iter().all(|c| ours.contains(&c)));
        assert_eq!(
            (char_of(b' '), char_of(b'a'), char_of(0xad)),
            ('Ġ', 'a', 'Ń')
        );
    }
}
