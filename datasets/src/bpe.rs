//! Trains a byte-level BPE tokenizer.
//!
//! Every byte is a token, so all text can be encoded and decodes to itself. Every digit is a token
//! of its own, so that numbers are read column by column; then the pre-tokenizer of GPT-2 splits
//! words with their leading space. The same text always gives the same bytes.
//!
//! Training sees how often each word occurs, not the text. `tokenizers` computes the merges and
//! needs some 60 bytes of memory per byte of distinct words, so their number is limited: rare words
//! are left out when there are too many. What has no spaces is one word for the pre-tokenizer,
//! however long it is; words are cut after 256 bytes, and longer tokens are not wanted.

use ahash::AHashMap;
use compact_str::CompactString;
use rayon::prelude::*;
use tokenizers::AddedToken;
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::digits::Digits;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::processors::template::TemplateProcessing;

use crate::encoder::Encoder;
use crate::encoder::split::char_of;
use crate::prepare::Watch;
use crate::random::mix64;
use crate::read::Part;
use crate::tokenizer::{BOS, EOS, failed};
use crate::{Error, Result, Tokenizer};

/// Bytes after which a word is cut.
const LONGEST_WORD: usize = 256;
/// Bytes of distinct words that merges are computed from.
const DISTINCT: usize = 4 << 20;
/// Bytes of text that are counted at a time.
const BATCH: usize = 1 << 22;

/// Trains a byte-level BPE of at most `vocab_size` tokens, special tokens and all bytes included;
/// fewer if the text has no pair of tokens left that occurs twice.
///
/// [`BOS`] and [`EOS`] get ids 0 and 1, `special_tokens` (of a chat template, say) the next ones.
///
/// # Errors
/// [`Error::VocabSize`] if `vocab_size` is less than 256 and the special tokens.
pub fn train_bpe<I>(texts: I, vocab_size: usize, special_tokens: &[&str]) -> Result<Tokenizer>
where
    I: IntoIterator<Item = String>,
{
    let mut counts = WordCounts::new()?;
    for text in texts {
        counts.add(text);
    }
    counts.train(vocab_size, special_tokens)
}

/// How often each word occurs in the texts so far.
pub struct WordCounts {
    /// The tokenizer without merges, which splits texts.
    untrained: tokenizers::Tokenizer,
    encoder: Encoder,
    words: AHashMap<CompactString, u64>,
    /// Bytes of the distinct words.
    distinct: usize,
    /// Texts that are not counted yet, and their bytes.
    batch: (Vec<String>, usize),
}

impl WordCounts {
    /// No texts.
    pub fn new() -> Result<Self> {
        let untrained = untrained().map_err(failed)?;
        let json = untrained.to_string(false).map_err(failed)?;
        Ok(Self {
            encoder: Encoder::new(json.as_bytes()),
            untrained,
            words: AHashMap::new(),
            distinct: 0,
            batch: Default::default(),
        })
    }

    /// Adds a text. A long document may be added in parts: only the words at their ends suffer.
    pub fn add(&mut self, text: String) {
        self.batch.1 += text.len();
        self.batch.0.push(text);
        if self.batch.1 >= BATCH {
            self.count();
        }
    }

    /// Counts the words of the batch on all cores.
    fn count(&mut self) {
        let (texts, _) = std::mem::take(&mut self.batch);
        let (encoder, untrained) = (&self.encoder, &self.untrained);
        let count = |mut counts: AHashMap<CompactString, u64>, text: &String| {
            encoder.words(untrained, text, |word| {
                for part in word.chunks(LONGEST_WORD) {
                    let word: CompactString = part.iter().map(|byte| char_of(*byte)).collect();
                    *counts.entry(word).or_default() += 1;
                }
            });
            counts
        };
        let counted: Vec<_> = texts.par_iter().fold(AHashMap::new, count).collect();
        for (word, count) in counted.into_iter().flatten() {
            let before = &mut *self.words.entry(word).or_insert_with_key(|word| {
                self.distinct += word.len();
                0
            });
            *before += count;
        }
        if self.distinct > 2 * DISTINCT {
            self.forget();
        }
    }

    /// Leaves rare words out until [`DISTINCT`] bytes are left. Among words that are equally
    /// frequent a hash decides, so the words come from all of the text.
    fn forget(&mut self) {
        let mut words: Vec<_> = std::mem::take(&mut self.words).into_iter().collect();
        words.sort_unstable_by_key(|(word, count)| (std::cmp::Reverse(*count), hash(word)));
        self.distinct = 0;
        self.words = words
            .into_iter()
            .take_while(|(word, _)| {
                self.distinct += word.len();
                self.distinct <= DISTINCT
            })
            .collect();
        self.distinct = self.words.keys().map(|word| word.len()).sum();
    }

    /// Adds a sample of documents that are read from files: of about `bytes` bytes at most about
    /// `most`, in parts from everywhere. All files are read. Returns the bytes that were added.
    ///
    /// # Errors
    /// Those of reading, and [`Error::Stopped`] if `watch` says so.
    pub fn add_sample(
        &mut self,
        parts: impl IntoIterator<Item = Result<Part>>,
        bytes: u64,
        most: u64,
        watch: Watch,
    ) -> Result<u64> {
        let share = most as f64 / bytes.max(1) as f64;
        let threshold = (share * 2f64.powi(64)) as u64; // all if the share is 1 or more
        let (mut added, mut seen) = (0, 0);
        for (index, part) in (0..).zip(parts) {
            let part = part?;
            seen += part.text.len();
            if threshold == u64::MAX || mix64(index) < threshold {
                added += part.text.len() as u64;
                self.add(part.text);
            }
            if seen >= BATCH {
                seen = 0;
                if watch(part.read).is_break() {
                    return Err(Error::Stopped);
                }
            }
        }
        Ok(added)
    }

    /// Computes the merges.
    ///
    /// # Errors
    /// [`Error::VocabSize`] as for [`train_bpe`].
    pub fn train(mut self, vocab_size: usize, special_tokens: &[&str]) -> Result<Tokenizer> {
        let special_tokens = [&[BOS, EOS], special_tokens].concat();
        let least = special_tokens.len() + 256;
        if vocab_size < least {
            return Err(Error::VocabSize {
                found: vocab_size,
                least,
            });
        }
        self.count();
        if self.distinct > DISTINCT {
            self.forget();
        }
        // Counts do not depend on threads, and equal counts go to the lowest ids.
        let tokens = special_tokens
            .iter()
            .map(|&token| AddedToken::from(token, true));
        let tokens: Vec<AddedToken> = tokens.collect();
        let trainer = BpeTrainer::builder()
            .vocab_size(vocab_size)
            .min_frequency(2)
            .special_tokens(tokens.clone())
            .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
            .show_progress(false)
            .build();
        let mut model = BPE::default();
        trainer.do_train(&self.words, &mut model).map_err(failed)?;
        let mut inner = self.untrained;
        inner.with_model(model);
        inner.add_special_tokens(tokens).map_err(failed)?;
        let json = inner.to_string(true).map_err(failed)?.into_bytes();
        Tokenizer::new(inner, json, BOS, Some(EOS)).map_err(failed)
    }
}

/// A hash that is the same everywhere.
fn hash(word: &str) -> u64 {
    word.bytes()
        .fold(0, |hash, byte| mix64(hash ^ u64::from(byte)))
}

/// The parts of a tokenizer without merges; text encoded with special tokens begins with BOS.
fn untrained() -> tokenizers::Result<tokenizers::Tokenizer> {
    let byte_level = ByteLevel::new(false, true, true);
    let digits_alone = Digits::new(true);
    let template = TemplateProcessing::builder()
        .try_single(format!("{BOS} $A"))?
        .try_pair(format!("{BOS} $A {BOS}:1 $B:1"))?
        .special_tokens(vec![(BOS, 0)])
        .build()?;
    let mut inner = tokenizers::Tokenizer::new(BPE::default());
    inner.with_pre_tokenizer(Some(Sequence::new(vec![
        digits_alone.into(),
        byte_level.into(),
    ])));
    inner.with_decoder(Some(byte_level));
    inner.with_post_processor(Some(template));
    Ok(inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::read::{ReadOptions, parts};

    #[test]
    fn words_without_end_and_too_many_words_are_learned_from_in_seconds() {
        let mut state = 1;
        let mut letter = |letters: &[u8]| {
            state = mix64(state);
            letters[(state % letters.len() as u64) as usize] as char
        };
        let dna: String = (0..3_000_000).map(|_| letter(b"ACGT")).collect();
        let words: String = (0..12_000_000)
            .map(|_| letter(b"abcdefghijklmn  "))
            .collect();
        for text in ["a".repeat(3_000_000), dna, words] {
            let mut counts = WordCounts::new().unwrap();
            counts.add(text.clone());
            counts.count();
            assert!(counts.distinct <= 2 * DISTINCT);
            let tokenizer = counts.train(400, &[]).unwrap();
            let ids = tokenizer.encode(&text[..1000]).unwrap();
            assert_eq!(tokenizer.decode(&ids).unwrap(), text[..1000]);
            assert!(ids.len() < 800, "{}", ids.len());
        }
    }

    #[test]
    fn a_sample_comes_from_everywhere_and_has_about_its_size() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.jsonl");
        let line = |i: u32| format!("{{\"text\": \"word{} of many\"}}\n", i / 1000);
        std::fs::write(&path, (0..20_000).map(line).collect::<String>()).unwrap();
        let sample = |most: u64| {
            let parts = parts(std::slice::from_ref(&path), &ReadOptions::default()).unwrap();
            let mut counts = WordCounts::new().unwrap();
            let watch = &mut |_| std::ops::ControlFlow::Continue(());
            let bytes = parts.text_bytes();
            let used = counts.add_sample(parts, bytes, most, watch).unwrap();
            (used, counts.train(600, &[]).unwrap())
        };
        let (all, _) = sample(u64::MAX);
        assert!(all >= 20_000 * 13);
        let (some, tokenizer) = sample(70_000);
        assert!((20_000..60_000).contains(&some), "{some}");
        assert!(tokenizer.encode(" many").unwrap().len() == 1);
    }
}
