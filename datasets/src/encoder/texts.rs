//! Encodes a long text as `tokenizers` does, special tokens that are written out in it included.

use aho_corasick::AhoCorasick;
use serde_json::Value;

use super::{Encoder, Piece, Stream};
use crate::tokenizer::failed;
use crate::{Error, Result};

/// Bytes of text that are encoded at the same time.
const BATCH: usize = 1 << 21;

/// Encodes texts of any length in little memory.
pub struct TextEncoder {
    library: tokenizers::Tokenizer,
    /// Takes special tokens for text.
    plain: Encoder,
    /// Finds special tokens.
    special: Encoder,
    names: AhoCorasick,
}

impl TextEncoder {
    /// The encoder of a tokenizer.json.
    ///
    /// # Errors
    /// [`Error::Tokenization`] if the bytes are not a tokenizer.
    pub fn new(json: &[u8]) -> Result<Self> {
        let mut library = tokenizers::Tokenizer::from_bytes(json).map_err(failed)?;
        library.with_truncation(None).map_err(failed)?;
        library.with_padding(None);
        let wrong = |reason: String| Error::Tokenization { reason };
        let mut all: Value = serde_json::from_slice(json).map_err(|e| wrong(e.to_string()))?;
        let mut names = Vec::new();
        for token in all["added_tokens"].as_array_mut().into_iter().flatten() {
            if token["special"] == true {
                token["special"] = false.into();
                names.extend(token["content"].as_str().map(str::to_owned));
            }
        }
        Ok(Self {
            library,
            plain: Encoder::new(json),
            special: Encoder::new(all.to_string().as_bytes()),
            names: AhoCorasick::new(names).map_err(|e| wrong(e.to_string()))?,
        })
    }

    /// The tokens of a text that is given in parts, without those of the post-processor.
    pub fn encode(&self, parts: &[&str]) -> Result<Vec<u32>> {
        let encoder = match self.has_special(parts) {
            true => &self.special,
            false => &self.plain,
        };
        let mut stream = Stream::new(encoder, &self.library);
        let (mut ids, mut pieces) = (Vec::new(), Vec::new());
        let mut encode = |pieces: &mut Vec<Piece>| -> Result<()> {
            let encoded = encoder.encode_all(&self.library, pieces)?;
            pieces.clear();
            ids.extend(encoded.into_iter().flatten());
            Ok(())
        };
        let mut bytes = 0;
        for part in parts {
            let mut rest = *part;
            while !rest.is_empty() {
                let mut end = rest.len().min(BATCH);
                while !rest.is_char_boundary(end) {
                    end -= 1;
                }
                stream.push(&rest[..end], &mut pieces)?;
                bytes += end;
                rest = &rest[end..];
                if bytes >= BATCH {
                    encode(&mut pieces)?;
                    bytes = 0;
                }
            }
        }
        stream.finish(&mut pieces);
        encode(&mut pieces)?;
        Ok(ids)
    }

    /// Whether a special token is written out in a text that is given in parts.
    fn has_special(&self, parts: &[&str]) -> bool {
        let longest = self.names.max_pattern_len();
        let mut end: Vec<u8> = Vec::new(); // of the text so far, where a token may have begun
        parts.iter().any(|part| {
            let part = part.as_bytes();
            end.extend_from_slice(&part[..part.len().min(longest)]);
            let is_found = self.names.is_match(part) || self.names.is_match(&end);
            if part.len() > longest {
                end = part[part.len() - longest..].to_vec();
            }
            end.drain(..end.len().saturating_sub(longest));
            is_found
        })
    }

    #[cfg(test)]
    pub(super) fn with_chunk(mut self, chunk: usize) -> Self {
        (self.plain.chunk, self.special.chunk) = (chunk, chunk);
        self
    }
}
