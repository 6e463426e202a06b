//! Text generation as an iterator over pieces of text: prefill, then one token after the other.

use std::time::{Duration, Instant};

use crate::answer::{Answer, StopReason};
use crate::cache::KvCache;
use crate::constraint::Constraint;
use crate::draft::{Drafter, Pace, Speculation};
use crate::forward::Logits;
use crate::model::Model;
use crate::sampler::{Sampler, Sampling};
use crate::tokenizer::Tokenizer;
use crate::{Error, Result};

/// When to stop, and how to choose tokens.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// Most tokens to generate; by default as many as the cache has room for.
    pub max_tokens: Option<usize>,
    /// How the next token is chosen.
    pub sampling: Sampling,
    /// Texts and special tokens by name that end the generation and are not part of it.
    pub stop: Vec<String>,
    /// What the answer must keep to.
    pub constraint: Option<Box<dyn Constraint>>,
}

/// Counts and times of a generation.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Summary {
    /// Why it ended; `None` while it goes on.
    pub stop: Option<StopReason>,
    /// Tokens before the answer that were already in the cache.
    pub cached_tokens: usize,
    /// Tokens of the prompt that had to be computed.
    pub prompt_tokens: usize,
    /// Time from the start to the logits of the last prompt token.
    pub prompt_time: Duration,
    /// Tokens generated, the one that ended the text included.
    pub generated_tokens: usize,
    /// Time after that.
    pub generated_time: Duration,
    /// Tokens that were guessed and computed.
    pub drafted_tokens: usize,
    /// Those of them that became tokens of the answer.
    pub accepted_tokens: usize,
}

/// A generation in progress. Each item is a piece of text, never empty and never a broken
/// character.
pub struct Generation<'a> {
    model: &'a Model,
    cache: &'a mut KvCache,
    sampler: Sampler,
    answer: Answer<'a>,
    /// The tokens in the cache, then the prompt, then the generated tokens.
    tokens: Vec<u32>,
    /// How many of `tokens` are not in the cache yet.
    pending: usize,
    max_tokens: usize,
    /// Guesses of the next tokens, and the times of passes.
    speculation: (Speculation<'a>, Pace),
    /// The error that comes after the text of the tokens before it.
    error: Option<Error>,
    summary: Summary,
}

impl<'a> Generation<'a> {
    /// Prepares to continue `prompt`, which follows the tokens in `cache`. Nothing is computed
    /// before the first item.
    ///
    /// # Errors
    /// An empty prompt, one that does not fit into the cache together with `max_tokens`, sampling
    /// parameters out of range, a stop text that mixes a special token with text, and a constraint
    /// that no token keeps.
    pub fn new(
        model: &'a Model,
        tokenizer: &'a Tokenizer,
        cache: &'a mut KvCache,
        prompt: &[u32],
        settings: Settings,
    ) -> Result<Generation<'a>> {
        if prompt.is_empty() {
            return Err(Error::NoTokens);
        }
        // The last generated token is not computed, so it needs no room.
        let new = prompt.len() + settings.max_tokens.unwrap_or(1).saturating_sub(1);
        cache.check(model.config(), new)?;
        let room = cache.capacity() - cache.len() - prompt.len() + 1;
        let cached_tokens = cache.len();
        let mut sampler = Sampler::new(settings.sampling)?;
        sampler = sampler.with_answer_after(cache.len() + prompt.len());
        if let Some(constraint) = settings.constraint {
            sampler = sampler.with_constraint(constraint, model.config().vocab_size)?;
        }
        Ok(Generation {
            sampler,
            answer: Answer::new(tokenizer, settings.stop)?,
            tokens: [cache.tokens(), prompt].concat(),
            pending: prompt.len(),
            max_tokens: settings.max_tokens.unwrap_or(room),
            speculation: (Speculation::new(Vec::new()), Pace::new()),
            error: None,
            summary: Summary {
                cached_tokens,
                prompt_tokens: prompt.len(),
                ..Summary::default()
            },
            model,
            cache,
        })
    }

    /// Prepares to continue the whole `text`. The tokens that it shares with the beginning of
    /// `cache` are not computed again; the rest of the cache is dropped.
    ///
    /// # Errors
    /// Those of [`Generation::new`].
    pub fn resume(
        model: &'a Model,
        tokenizer: &'a Tokenizer,
        cache: &'a mut KvCache,
        text: &[u32],
        settings: Settings,
    ) -> Result<Generation<'a>> {
        let kept = cache.keep_prefix(text);
        Generation::new(model, tokenizer, cache, &text[kept..], settings)
    }

    /// Guesses the next tokens, so that a pass can give several; `pace` decides how many. Text and
    /// tokens stay the same. Without drafters, only what a constraint forces is guessed.
    pub fn with_drafters(
        mut self,
        drafters: Vec<Box<dyn Drafter + 'a>>,
        pace: Pace,
    ) -> Generation<'a> {
        self.speculation = (Speculation::new(drafters), pace);
        self
    }

    /// The error of a drafter since the last call. The answer does without that drafter.
    pub fn take_draft_error(&mut self) -> Option<Error> {
        self.speculation.0.take_error()
    }

    /// Counts and times so far.
    pub fn summary(&self) -> Summary {
        self.summary
    }

    /// The tokens generated so far, the one that ended the text included.
    pub fn generated(&self) -> &[u32] {
        &self.tokens[self.summary.cached_tokens + self.summary.prompt_tokens..]
    }

    /// Computes the next token, and more if guesses are right. Returns the text that may be shown
    /// with them.
    fn step(&mut self) -> Result<String> {
        if let Some(error) = self.error.take() {
            return Err(error);
        }
        if self.summary.generated_tokens == self.max_tokens {
            let text = self.answer.end();
            self.summary.stop = Some(self.answer.stop().unwrap_or(StopReason::Length));
            return text;
        }
        let mut drafts = self.guess();
        let start = Instant::now();
        // Logits (1 + drafts, vocab_size), of the last token and of each draft.
        let mut logits = match self.compute(&mut drafts) {
            // The error can be that of a draft, which the answer may not have.
            Err(_) if !drafts.is_empty() => {
                drafts.clear();
                self.compute(&mut drafts)?
            }
            logits => logits?,
        };
        let prefill = self.summary.generated_tokens == 0;
        if prefill {
            self.summary.prompt_time = start.elapsed();
        }
        let decode = if prefill { Instant::now() } else { start };
        self.summary.drafted_tokens += drafts.len();
        let computed = self.cache.len() - drafts.len();
        let (mut row, mut text) = (0, String::new());
        let vocab_size = self.model.config().vocab_size;
        for (i, logits) in logits.chunks_exact_mut(vocab_size).enumerate() {
            row = i;
            let pushed = self.sampler.sample(logits, &self.tokens);
            let pushed = pushed.and_then(|id| Ok((id, self.push(id)?)));
            let id = match pushed {
                Ok((id, piece)) => {
                    text += &piece;
                    id
                }
                Err(error) => {
                    // It comes after the text of the tokens before.
                    self.error = Some(error);
                    break;
                }
            };
            let is_guessed = drafts.get(i) == Some(&id);
            self.summary.accepted_tokens += usize::from(is_guessed);
            if self.summary.stop.is_some() || !is_guessed {
                break;
            }
        }
        // Guesses that were wrong are not part of the text; the last token is not computed yet.
        self.cache.truncate(computed + row);
        self.pending = self.tokens.len() - self.cache.len();
        self.summary.generated_time += decode.elapsed();
        if !prefill {
            let pace = &mut self.speculation.1;
            pace.learn(1 + drafts.len(), start.elapsed().as_secs_f64());
        }
        Ok(text)
    }

    /// The guesses of the next tokens that are worth computing.
    fn guess(&mut self) -> Vec<u32> {
        let (speculation, pace) = &mut self.speculation;
        // Room for the last token and the guesses; the token after them is not computed.
        let room = self.cache.capacity() - self.cache.len() - self.pending;
        let most = room.min(self.max_tokens - self.summary.generated_tokens - 1);
        let most = if self.pending == 1 { most } else { 0 };
        let guesses = speculation.guess(&self.tokens, &mut self.sampler, most, (pace, 1));
        let probabilities: Vec<f32> = guesses.iter().map(|guess| guess.probability).collect();
        let worth = pace.choose(1, &probabilities, 0.0);
        guesses[..worth].iter().map(|guess| guess.id).collect()
    }

    /// The logits that the choices of the next tokens need. Drafts that the constraint does not
    /// allow are taken out.
    fn compute(&mut self, drafts: &mut Vec<u32>) -> Result<Vec<f32>> {
        let screens = self.sampler.screens(&self.tokens, drafts)?;
        let pending = &self.tokens[self.tokens.len() - self.pending..];
        let new = [pending, &drafts[..]].concat();
        let wanted = match &screens {
            Some(screens) => Logits::Screened(screens),
            None if drafts.is_empty() => Logits::Last,
            None => Logits::All, // one token is pending where there are drafts
        };
        self.model.forward(self.cache, &new, wanted)
    }

    /// Adds a token. Returns the text that may be shown with it.
    fn push(&mut self, id: u32) -> Result<String> {
        self.tokens.push(id);
        self.summary.generated_tokens += 1;
        let mut text = self.answer.push(id)?;
        self.summary.stop = self.answer.stop();
        if self.summary.stop.is_none() && self.sampler.is_complete() {
            text += &self.answer.end()?;
            self.summary.stop = Some(self.answer.stop().unwrap_or(StopReason::Eos));
        }
        Ok(text)
    }
}

impl Iterator for Generation<'_> {
    type Item = Result<String>;

    fn next(&mut self) -> Option<Result<String>> {
        while self.summary.stop.is_none() {
            match self.step() {
                Ok(text) if text.is_empty() => {}
                Ok(text) => return Some(Ok(text)),
                Err(e) => {
                    // The error would come again, so the iterator ends.
                    self.summary.stop = Some(StopReason::Length);
                    return Some(Err(e));
                }
            }
        }
        None
    }
}
