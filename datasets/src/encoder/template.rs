//! Encodes texts that a chat template wrote: special tokens are written by their names, and answers
//! are marked.
//!
//! A row holds the first tokens of a text, and only they are wanted. `tokenizers` needs 200 bytes of
//! memory per byte of text, so of a long text only its beginning is encoded: two beginnings, one
//! twice as long as the other, and what both say is what the whole text says. If that is not enough,
//! both become longer.

use std::ops::Range;

use rayon::prelude::*;

use crate::answers::Rendered;
use crate::tokenizer::failed;
use crate::{Result, Tokenizer, rows};

/// Bytes of the shorter beginning that is encoded, per token that is wanted.
const BYTES_OF_TOKEN: usize = 8;
/// Bytes of a beginning, at least: far more than text influences the tokens before it.
const LEAST: usize = 1 << 15;

/// Encodes texts of a chat template.
pub struct TemplateEncoder {
    library: tokenizers::Tokenizer,
    /// Rows of the model's embedding, if they are known.
    rows: Option<usize>,
    /// See [`LEAST`]; others in tests.
    pub least: usize,
}

impl TemplateEncoder {
    /// The encoder of a tokenizer, for an embedding of this many rows.
    pub fn new(mut library: tokenizers::Tokenizer, rows: Option<usize>) -> Self {
        library.set_encode_special_tokens(false);
        Self {
            library,
            rows,
            least: LEAST,
        }
    }

    /// The tokens of each text, [`rows::UNSCORED`] where they do not begin in an answer; works on
    /// all cores. Of long texts only the first tokens, more than `most`.
    pub fn encode(&self, texts: Vec<Rendered>, most: usize) -> Result<Vec<Vec<u32>>> {
        let encode = |text: Rendered| {
            let tokens = self.beginning(&text, most)?;
            Tokenizer::check_rows(&self.library, self.rows, &tokens)?;
            Ok(tokens)
        };
        texts.into_par_iter().map(encode).collect()
    }

    fn beginning(
        &self,
        Rendered { text, answers, .. }: &Rendered,
        most: usize,
    ) -> Result<Vec<u32>> {
        let mut end = self.least.max(BYTES_OF_TOKEN * most);
        let mut shorter = None;
        while 2 * end < text.len() {
            let shorter_one = match shorter.take() {
                Some(tokens) => tokens,
                None => self.marked(first(text, end), answers)?,
            };
            end *= 2;
            let mut longer = self.marked(first(text, end), answers)?;
            let same = shorter_one.iter().zip(&longer);
            let same = same.take_while(|(a, b)| a == b).count();
            if same > most {
                longer.truncate(same);
                return Ok(longer);
            }
            shorter = Some(longer);
        }
        self.marked(text, answers)
    }

    /// The tokens of a text, marked. The answers are in order.
    fn marked(&self, text: &str, answers: &[Range<usize>]) -> Result<Vec<u32>> {
        let encoding = self.library.encode(text, false).map_err(failed)?;
        let is_learned = |at: &usize| {
            let answer = answers.partition_point(|answer| answer.end <= *at);
            answers
                .get(answer)
                .is_some_and(|answer| answer.contains(at))
        };
        let tokens = encoding.get_ids().iter().zip(encoding.get_offsets());
        let flagged = |(id, (start, _)): (&u32, &(usize, usize))| match is_learned(start) {
            true => *id,
            false => *id | rows::UNSCORED,
        };
        Ok(tokens.map(flagged).collect())
    }
}

/// The first bytes of a text, a few less where a character would be cut.
fn first(text: &str, bytes: usize) -> &str {
    let mut end = bytes.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}
