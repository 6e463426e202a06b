//! What the tokens of an answer must keep to: a JSON schema, a regular expression, a grammar.
//!
//! The runtime knows only which tokens may come next. Who implements [`Constraint`] decides what
//! that means.

use std::fmt::Debug;

use crate::Result;

/// Most allowed tokens for which only their own rows of the head are read.
const FEW: usize = 512;

/// A rule for the tokens of one answer, which it follows from the first token on.
pub trait Constraint: Debug + Send + Sync {
    /// Adds the tokens that may come next, at least one. Those that end a text are among them where
    /// the answer may end.
    ///
    /// # Errors
    /// [`crate::Error::Constraint`]: the rule cannot be followed further.
    fn allow(&mut self, allowed: &mut Allowed) -> Result<()>;

    /// Goes on by a token, which must be one of those that may come next.
    ///
    /// # Errors
    /// [`crate::Error::Constraint`].
    fn accept(&mut self, id: u32) -> Result<()>;

    /// Takes back the last `n` accepted tokens. Returns false, whatever `n` is, if this kind of
    /// rule cannot: then nothing has changed, and tokens of the answer are not guessed.
    ///
    /// # Errors
    /// [`crate::Error::Constraint`]: the rule cannot be followed further.
    fn rollback(&mut self, n: usize) -> Result<bool>;

    /// Tokens that are likely to come next because the rule leaves no other text; empty where it
    /// leaves a choice. They are guesses: other tokens can have the same text.
    fn forced(&mut self) -> Vec<u32>;

    /// Whether the answer is complete: nothing can follow but its end.
    fn is_complete(&self) -> bool;

    /// The same rule at the same place, for another answer.
    fn fork(&self) -> Box<dyn Constraint>;
}

impl Clone for Box<dyn Constraint> {
    fn clone(&self) -> Self {
        (**self).fork()
    }
}

/// The tokens that may come next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Allowed {
    /// A bit for each id, from the lowest bit of the first word on.
    words: Vec<u64>,
    vocab_size: usize,
}

impl Allowed {
    /// No token of a vocabulary of this size.
    pub fn none(vocab_size: usize) -> Allowed {
        Allowed {
            words: vec![0; vocab_size.div_ceil(64)],
            vocab_size,
        }
    }

    /// Forbids every token.
    pub fn clear(&mut self) {
        self.words.fill(0);
    }

    /// Allows a token. Ids that the vocabulary does not have are left out.
    pub fn insert(&mut self, id: u32) {
        if (id as usize) < self.vocab_size {
            self.words[id as usize / 64] |= 1 << (id % 64);
        }
    }

    /// Allows the tokens whose bits are set, from the lowest bit of the first word on. Ids that the
    /// vocabulary does not have are left out.
    pub fn insert_bits(&mut self, bits: &[u32]) {
        for (word, bits) in self.words.iter_mut().zip(bits.chunks(2)) {
            let high = bits.get(1).copied().unwrap_or(0);
            *word |= u64::from(bits[0]) | u64::from(high) << 32;
        }
        let beyond = self.words.len() * 64 - self.vocab_size;
        if let Some(last) = self.words.last_mut() {
            *last &= u64::MAX >> beyond;
        }
    }

    /// Whether a token is allowed.
    pub fn contains(&self, id: u32) -> bool {
        let word = self.words.get(id as usize / 64);
        word.is_some_and(|word| word >> (id % 64) & 1 == 1)
    }

    /// Number of allowed tokens.
    pub fn count(&self) -> usize {
        self.words.iter().map(|w| w.count_ones() as usize).sum()
    }

    /// The allowed tokens, ascending.
    pub fn ids(&self) -> impl Iterator<Item = u32> {
        (0..self.vocab_size as u32).filter(|id| self.contains(*id))
    }

    /// The allowed tokens if they are so few that only their rows of the head are worth reading.
    pub(crate) fn few(&self) -> Option<Vec<u32>> {
        (self.count() <= FEW).then(|| self.ids().collect())
    }

    /// The bits of ids 64 · `index` and following, from the lowest bit on.
    pub(crate) fn word(&self, index: usize) -> u64 {
        self.words[index]
    }

    /// Sets the logits (vocab_size) of all other tokens to −∞.
    pub(crate) fn forbid_others(&self, logits: &mut [f32]) {
        for (logits, word) in logits.chunks_mut(64).zip(&self.words) {
            if *word == u64::MAX {
                continue;
            }
            for (i, logit) in logits.iter_mut().enumerate() {
                if word >> i & 1 == 0 {
                    *logit = f32::NEG_INFINITY;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_are_ids() {
        let mut allowed = Allowed::none(70);
        allowed.insert(3);
        allowed.insert(69);
        allowed.insert(70);
        assert_eq!(allowed.ids().collect::<Vec<_>>(), [3, 69]);
        assert!(allowed.contains(69) && !allowed.contains(70) && !allowed.contains(1000));
        allowed.clear();
        allowed.insert_bits(&[1 << 31, 1, u32::MAX, u32::MAX]);
        assert_eq!(allowed.ids().take(3).collect::<Vec<_>>(), [31, 32, 64]);
        assert_eq!(
            (allowed.count(), allowed.few().map(|ids| ids.len())),
            (8, Some(8))
        );
        let mut logits = vec![1.0; 70];
        allowed.forbid_others(&mut logits);
        let finite = logits.iter().filter(|logit| logit.is_finite()).count();
        assert_eq!(finite, 8);
    }

    #[test]
    fn many_tokens_are_not_few() {
        let mut allowed = Allowed::none(1000);
        allowed.insert_bits(&[u32::MAX; 32]);
        assert_eq!((allowed.count(), allowed.few()), (1000, None));
    }
}
