//! Text generation as an iterator over pieces of text: prefill, then one token after the other.

use std::time::{Duration, Instant};

use crate::cache::KvCache;
use crate::forward::Logits;
use crate::model::Model;
use crate::sampler::{Sampler, Sampling};
use crate::tokenizer::{TextStream, Tokenizer};
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
}

/// Why a generation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopReason {
    /// The model chose a token that ends a text.
    Eos,
    /// The text contains a stop text, or the model chose a special token that is one.
    StopText,
    /// `max_tokens` were generated, or the cache is full.
    Length,
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
}

/// A generation in progress. Each item is a piece of text, never empty and never a broken
/// character.
pub struct Generation<'a> {
    model: &'a Model,
    tokenizer: &'a Tokenizer,
    cache: &'a mut KvCache,
    sampler: Sampler,
    stream: Option<TextStream<'a>>,
    stops: StopTexts,
    /// Special tokens that are stop texts.
    stop_tokens: Vec<u32>,
    /// The tokens in the cache, then the prompt, then the generated tokens.
    tokens: Vec<u32>,
    /// How many of `tokens` are not in the cache yet.
    pending: usize,
    max_tokens: usize,
    summary: Summary,
}

impl<'a> Generation<'a> {
    /// Prepares to continue `prompt`, which follows the tokens in `cache`. Nothing is computed
    /// before the first item.
    ///
    /// # Errors
    /// An empty prompt, one that does not fit into the cache together with `max_tokens`, sampling
    /// parameters out of range, and a stop text that mixes a special token with text.
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
        let (stop_tokens, texts) = stops(tokenizer, settings.stop)?;
        Ok(Generation {
            sampler: Sampler::new(settings.sampling)?,
            stream: Some(tokenizer.stream()),
            stops: StopTexts::new(texts),
            stop_tokens,
            tokens: [cache.tokens(), prompt].concat(),
            pending: prompt.len(),
            max_tokens: settings.max_tokens.unwrap_or(room),
            summary: Summary {
                cached_tokens,
                prompt_tokens: prompt.len(),
                ..Summary::default()
            },
            model,
            tokenizer,
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

    /// Counts and times so far.
    pub fn summary(&self) -> Summary {
        self.summary
    }

    /// The tokens generated so far, the one that ended the text included.
    pub fn generated(&self) -> &[u32] {
        &self.tokens[self.summary.cached_tokens + self.summary.prompt_tokens..]
    }

    /// Computes one token and returns the text that may be shown with it.
    fn step(&mut self) -> Result<String> {
        if self.summary.generated_tokens == self.max_tokens {
            return self.end(StopReason::Length);
        }
        let start = Instant::now();
        let new = &self.tokens[self.tokens.len() - self.pending..];
        let screen = self.sampler.sampling().screen(&self.tokens);
        let wanted = screen.as_ref().map_or(Logits::Last, Logits::Screened);
        let mut logits = self.model.forward(self.cache, new, wanted)?;
        let prefill = self.summary.generated_tokens == 0;
        if prefill {
            self.summary.prompt_time = start.elapsed();
        }
        let decode = if prefill { Instant::now() } else { start };
        let id = self.sampler.sample(&mut logits, &self.tokens);
        self.tokens.push(id);
        self.pending = 1;
        self.summary.generated_tokens += 1;
        let text = if self.tokenizer.eos().contains(&id) {
            self.end(StopReason::Eos)
        } else if self.stop_tokens.contains(&id) {
            self.end(StopReason::StopText)
        } else {
            let stream = self.stream.as_mut().expect("it is there until the end");
            stream.push(id).map(|text| self.show(&text))
        };
        self.summary.generated_time += decode.elapsed();
        text
    }

    /// Filters text through the search for stop texts.
    fn show(&mut self, text: &str) -> String {
        let (shown, stopped) = self.stops.push(text);
        if stopped {
            self.summary.stop = Some(StopReason::StopText);
        }
        shown
    }

    /// Ends the generation and returns the text that was held back.
    fn end(&mut self, reason: StopReason) -> Result<String> {
        self.summary.stop = Some(reason);
        let rest = self
            .stream
            .take()
            .map_or(Ok(String::new()), TextStream::finish)?;
        let (shown, is_stopped) = self.stops.push(&rest);
        if is_stopped {
            self.summary.stop = Some(StopReason::StopText);
            return Ok(shown);
        }
        Ok(shown + &self.stops.finish())
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

/// Separates stop texts that name a special token from the others. Generated text does not contain
/// special tokens, so they are recognized by their ids.
fn stops(tokenizer: &Tokenizer, stops: Vec<String>) -> Result<(Vec<u32>, Vec<String>)> {
    let (mut tokens, mut texts) = (Vec::new(), Vec::new());
    for stop in stops {
        match tokenizer.special_in(&stop) {
            None => texts.push(stop),
            Some((id, name)) if name == stop.trim() => tokens.push(id),
            Some((_, token)) => return Err(Error::StopText { stop, token }),
        }
    }
    Ok((tokens, texts))
}

/// Finds stop texts in a stream. It holds back text that may become one.
#[derive(Debug)]
struct StopTexts {
    stops: Vec<String>,
    held: String,
}

impl StopTexts {
    fn new(mut stops: Vec<String>) -> StopTexts {
        stops.retain(|stop| !stop.is_empty());
        StopTexts {
            stops,
            held: String::new(),
        }
    }

    /// The text that may be shown, and whether a stop text follows it.
    fn push(&mut self, text: &str) -> (String, bool) {
        self.held.push_str(text);
        let found = self
            .stops
            .iter()
            .filter_map(|stop| self.held.find(stop.as_str()))
            .min();
        if let Some(at) = found {
            self.held.truncate(at);
            return (std::mem::take(&mut self.held), true);
        }
        let starts_a_stop = |at: &usize| {
            self.stops
                .iter()
                .any(|stop| stop.starts_with(&self.held[*at..]))
        };
        let mut starts = self.held.char_indices().map(|(at, _)| at);
        let keep = starts.find(starts_a_stop).unwrap_or(self.held.len());
        let rest = self.held.split_off(keep);
        (std::mem::replace(&mut self.held, rest), false)
    }

    fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(stops: &[&str], pieces: &[&str], expected: &[&str], stopped: bool) {
        let mut texts = StopTexts::new(stops.iter().map(|s| s.to_string()).collect());
        let mut shown = Vec::new();
        for piece in pieces {
            let (text, stop) = texts.push(piece);
            shown.push(text);
            if stop {
                assert!(stopped, "{shown:?}");
                assert_eq!(shown, expected);
                return;
            }
        }
        shown.push(texts.finish());
        assert!(!stopped, "{shown:?}");
        assert_eq!(shown, expected);
    }

    #[test]
    fn no_part_of_a_stop_text_is_shown() {
        check(&["END"], &["a E", "N", "D b"], &["a ", "", ""], true);
        check(&["END"], &["a E", "N", "x"], &["a ", "", "ENx", ""], false);
        check(&["END"], &["a EN"], &["a ", "EN"], false);
        check(&["aab"], &["aa", "ab"], &["", "a"], true);
        check(
            &["long stop", "st"],
            &["a lon", "g stop"],
            &["a ", ""],
            true,
        );
        check(
            &["long stop", "st"],
            &["a lon", "g st"],
            &["a ", "long "],
            true,
        );
        check(&["é!"], &["caf", "é", "?"], &["caf", "", "é?", ""], false);
        check(&[""], &["a", "b"], &["a", "b", ""], false);
        check(&[], &["a"], &["a", ""], false);
    }
}
