//! The tokens of a model as bytes in a tree.

use std::sync::Arc;

use llguidance::toktrie::{ApproximateTokEnv, INVALID_TOKEN, TokEnv, TokRxInfo, TokTrie};
use sterna_runtime::Tokenizer;

use crate::Error;

/// Most tokens and bytes of a token that the tree can hold.
const MOST: (usize, usize) = (1 << 22, 1 << 10);

/// The vocabulary of a model. Ids without a token, and the special ones, are in no text.
pub(crate) fn of(tokenizer: &Tokenizer, vocab_size: usize) -> Result<TokEnv, Error> {
    if vocab_size > MOST.0 {
        return Err(Error::Vocabulary(format!(
            "it has {vocab_size} tokens, expected at most {}",
            MOST.0
        )));
    }
    let ends = tokenizer.eos().iter().copied();
    let ends: Vec<u32> = ends.filter(|id| (*id as usize) < vocab_size).collect();
    let words: Vec<Vec<u8>> = (0..vocab_size as u32)
        .map(|id| {
            let bytes = tokenizer.bytes(id);
            // A token that ends a text is in none, even if it looks like one.
            match tokenizer.is_special(id) || ends.contains(&id) {
                true => [&[TokTrie::SPECIAL_TOKEN_MARKER], bytes].concat(),
                false => bytes.to_vec(),
            }
        })
        .collect();
    if let Some(id) = words.iter().position(|word| word.len() > MOST.1) {
        return Err(Error::Vocabulary(format!(
            "token {id} has {} bytes, expected at most {}",
            words[id].len(),
            MOST.1
        )));
    }
    let info = TokRxInfo::new(vocab_size as u32, *ends.first().unwrap_or(&INVALID_TOKEN));
    let mut tree = TokTrie::from(&info, &words);
    if !ends.is_empty() {
        tree = tree.with_eos_tokens(&ends);
    }
    Ok(Arc::new(ApproximateTokEnv::new(tree)))
}
