//! The ids of words: remembered for frequent words, computed by the model of the tokenizer for the
//! others.
//!
//! A word may be as long as a file: a genome is one word. The model would need 60 bytes of memory
//! per byte of it, so a long word goes through the model in windows. The ids are those of the whole
//! word, for the following reason. Byte-pair encoding never joins characters across an end of a
//! final token, so the parts before and after it are encoded as if they were alone; and whether
//! two tokens stay apart is decided by these two tokens alone (Berglund and van der Merwe,
//! "Formalizing BPE Tokenization", 2023). A window therefore begins at an end of a token of the
//! window before, and its first token must be the one that followed there. This holds if each
//! merge joins tokens that exist before it, which [`WordEncoder::new`] checks.

use std::collections::HashMap;

use ahash::RandomState;
use serde_json::Value;
use tokenizers::{Model, ModelWrapper};

use super::split::{Alphabet, SPACE, char_of};
use crate::{Error, Result};

/// Bytes of a window of a long word.
pub const WINDOW: usize = 1 << 14;
/// Words with more bytes are not remembered.
const REMEMBERED_BYTES: usize = 48;
/// Number of words after which a memory begins anew.
const REMEMBERED_WORDS: usize = 1 << 16;

/// Encodes words.
pub struct WordEncoder {
    alphabet: Alphabet,
    /// Whether the merges allow windows.
    has_windows: bool,
    /// See [`WINDOW`]; smaller in tests.
    pub window: usize,
}

/// The words that a thread remembers, with their ids.
pub struct WordMemory {
    places: HashMap<Box<[u8]>, (u32, u32), RandomState>,
    ids: Vec<u32>,
    mapped: String,
}

impl WordMemory {
    pub fn new() -> Self {
        Self {
            // The seeds are constants: nothing depends on the order of this map.
            places: HashMap::with_hasher(RandomState::with_seeds(1, 2, 3, 4)),
            ids: Vec::new(),
            mapped: String::new(),
        }
    }
}

impl WordEncoder {
    /// The encoder of the model of a tokenizer, or `None` if words of it cannot be encoded one by
    /// one.
    pub fn new(model: &Value, alphabet: Alphabet) -> Option<WordEncoder> {
        let is_absent = |key: &str| model[key].is_null() || model[key] == "" || model[key] == 0.0;
        let has_affixes = ["continuing_subword_prefix", "end_of_word_suffix", "dropout"];
        let is_bpe =
            model["type"] == "BPE" || (model["type"].is_null() && model["merges"].is_array());
        if !is_bpe || !has_affixes.iter().all(|key| is_absent(key)) {
            return None;
        }
        let has_unknown = model["unk_token"].is_string() && model["byte_fallback"] != true;
        Some(WordEncoder {
            alphabet,
            has_windows: !has_unknown && has_ordered_merges(model),
            window: WINDOW,
        })
    }

    /// Appends the ids of a word, after the prefix of the tokenizer if `is_prefixed`.
    pub fn encode(
        &self,
        model: &ModelWrapper,
        word: &[u8],
        is_prefixed: bool,
        memory: &mut WordMemory,
        out: &mut Vec<u32>,
    ) -> Result<()> {
        let is_short = word.len() <= REMEMBERED_BYTES && !is_prefixed;
        if is_short && let Some(&(start, end)) = memory.places.get(word) {
            out.extend_from_slice(&memory.ids[start as usize..end as usize]);
            return Ok(());
        }
        let first = out.len();
        let mut mapped = std::mem::take(&mut memory.mapped);
        mapped.clear();
        self.map(word, is_prefixed, &mut mapped);
        if mapped.len() > self.window && self.has_windows {
            self.windows(model, &mapped, false, out)?;
        } else {
            out.extend(tokens(model, &mapped)?.iter().map(|token| token.id));
        }
        memory.mapped = mapped;
        if is_short {
            if memory.places.len() == REMEMBERED_WORDS {
                memory.places.clear();
                memory.ids.clear();
            }
            let start = memory.ids.len() as u32;
            memory.ids.extend_from_slice(&out[first..]);
            let place = (start, memory.ids.len() as u32);
            memory.places.insert(word.into(), place);
        }
        Ok(())
    }

    /// Appends the ids of the beginning of a word whose end is not known yet, and returns how many
    /// bytes of it they are.
    pub fn encode_beginning(
        &self,
        model: &ModelWrapper,
        word: &str,
        is_prefixed: bool,
        out: &mut Vec<u32>,
    ) -> Result<usize> {
        if !self.has_windows {
            return Ok(0);
        }
        let mut mapped = String::new();
        self.map(word.as_bytes(), is_prefixed, &mut mapped);
        let done = self.windows(model, &mapped, true, out)?;
        let characters = mapped[..done].chars().count();
        let characters = characters.saturating_sub(usize::from(is_prefixed));
        Ok(match self.alphabet {
            Alphabet::Bytes => characters,
            Alphabet::Spaces => word.chars().take(characters).map(char::len_utf8).sum(),
        })
    }

    /// Writes a word in the characters of the model.
    fn map(&self, word: &[u8], is_prefixed: bool, out: &mut String) {
        match self.alphabet {
            Alphabet::Bytes => {
                out.extend(is_prefixed.then_some(char_of(b' ')));
                out.extend(word.iter().map(|byte| char_of(*byte)));
            }
            Alphabet::Spaces => {
                out.extend(is_prefixed.then_some(SPACE));
                let word = std::str::from_utf8(word).expect("only bytes are cut inside characters");
                out.extend(word.chars().map(|c| if c == ' ' { SPACE } else { c }));
            }
        }
    }

    /// Appends the ids of a long word, window after window, and returns the bytes that they are:
    /// all, or fewer if the word goes on.
    fn windows(
        &self,
        model: &ModelWrapper,
        word: &str,
        goes_on: bool,
        out: &mut Vec<u32>,
    ) -> Result<usize> {
        let window = |start: usize| -> Result<_> {
            let mut end = (start + self.window).min(word.len());
            while !word.is_char_boundary(end) {
                end += 1;
            }
            Ok((tokens(model, &word[start..end])?, end))
        };
        let first = out.len();
        let mut start = 0;
        let (mut here, mut end) = window(start)?;
        'windows: while end < word.len() {
            // The next window begins at three quarters of this one, or before if it does not fit.
            let last = here.partition_point(|token| token.offsets.0 <= self.window * 3 / 4);
            for next in (1..last).rev().take(8) {
                let at = start + here[next].offsets.0;
                if !word.is_char_boundary(at) {
                    continue;
                }
                let (there, there_end) = window(at)?;
                if goes_on && there_end == word.len() {
                    return Ok(start);
                }
                if there.first().map(|token| token.id) == Some(here[next].id) {
                    out.extend(here[..next].iter().map(|token| token.id));
                    (start, here, end) = (at, there, there_end);
                    continue 'windows;
                }
            }
            if goes_on {
                return Ok(start);
            }
            // No window fits: the model gets the whole word after all.
            out.truncate(first);
            (here, end) = (tokens(model, word)?, word.len());
        }
        if goes_on {
            return Ok(start);
        }
        out.extend(here.iter().map(|token| token.id));
        Ok(word.len())
    }
}

fn tokens(model: &ModelWrapper, word: &str) -> Result<Vec<tokenizers::Token>> {
    let tokens = model.tokenize(word);
    tokens.map_err(|reason| Error::Tokenization {
        reason: reason.to_string(),
    })
}

/// Whether each merge joins single characters or results of merges before it.
fn has_ordered_merges(model: &Value) -> bool {
    let Some(merges) = model["merges"].as_array() else {
        return false;
    };
    let mut made = std::collections::HashSet::new();
    merges.iter().all(|merge| {
        let parts = match merge {
            Value::String(text) => text.split_once(' '),
            merge => merge[0].as_str().zip(merge[1].as_str()),
        };
        let Some((a, b)) = parts else { return false };
        let exists = |part: &str| part.chars().nth(1).is_none() || made.contains(part);
        let is_ordered = exists(a) && exists(b);
        made.insert(format!("{a}{b}"));
        is_ordered
    })
}
