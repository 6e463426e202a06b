//! From generated ids to the text that may be shown: ends of texts, stop texts, whole characters.

use crate::tokenizer::{TextStream, Tokenizer};
use crate::{Error, Result};

/// Why a generation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopReason {
    /// The model chose a token that ends a text, or a constraint allows nothing more.
    Eos,
    /// The text contains a stop text, or the model chose a special token that is one.
    StopText,
    /// As many tokens were generated as were asked for, or the cache is full.
    Length,
}

/// The text of an answer while its tokens arrive.
#[derive(Debug)]
pub struct Answer<'a> {
    tokenizer: &'a Tokenizer,
    stream: Option<TextStream<'a>>,
    stops: StopTexts,
    /// Tokens that are stop texts.
    stop_tokens: Vec<u32>,
    ends_at_eos: bool,
    stop: Option<StopReason>,
    /// Name of the token that ended the answer as a stop text.
    stop_token: Option<String>,
    is_ended_by_token: bool,
    /// Bytes of text of the tokens so far.
    decoded: usize,
    /// Bytes of them that were returned.
    shown: usize,
}

impl<'a> Answer<'a> {
    /// An empty answer that ends before each of these texts and special tokens.
    ///
    /// # Errors
    /// [`Error::StopText`]: a stop text that mixes a special token with text.
    pub fn new(tokenizer: &'a Tokenizer, stop: Vec<String>) -> Result<Answer<'a>> {
        let (stop_tokens, texts) = stops(tokenizer, stop)?;
        Ok(Answer {
            tokenizer,
            stream: Some(tokenizer.stream()),
            stops: StopTexts::new(texts),
            stop_tokens,
            ends_at_eos: true,
            stop: None,
            stop_token: None,
            is_ended_by_token: false,
            decoded: 0,
            shown: 0,
        })
    }

    /// Ends at these tokens too.
    pub fn with_stop_tokens(mut self, ids: &[u32]) -> Answer<'a> {
        self.stop_tokens.extend(ids);
        self
    }

    /// Its text follows that of `prompt`.
    ///
    /// # Errors
    /// Those of [`Tokenizer::decode`].
    pub fn after(self, prompt: &[u32]) -> Result<Answer<'a>> {
        let stream = Some(self.tokenizer.stream_after(prompt)?);
        Ok(Answer { stream, ..self })
    }

    /// Ends after stop texts instead of before them, and after stop tokens that have a text.
    pub fn with_stop_kept(mut self) -> Answer<'a> {
        self.stops.is_kept = true;
        self
    }

    /// Goes on after tokens that end a text; they have no text.
    pub fn without_eos(self) -> Answer<'a> {
        Answer {
            ends_at_eos: false,
            ..self
        }
    }

    /// Why the answer ended; `None` while it goes on.
    pub fn stop(&self) -> Option<StopReason> {
        self.stop
    }

    /// The text that may be shown after one more token; often empty.
    ///
    /// # Errors
    /// Those of [`Tokenizer::decode`].
    pub fn push(&mut self, id: u32) -> Result<String> {
        if self.ends_at_eos && self.tokenizer.eos().contains(&id) {
            self.end_with(StopReason::Eos)
        } else if self.stop_tokens.contains(&id) {
            self.stop_token = self.tokenizer.token(id).map(|(name, _)| name);
            if !self.stops.is_kept || self.tokenizer.is_special(id) {
                return self.end_with(StopReason::StopText);
            }
            let shown = self.text(id)?;
            match self.stop.replace(StopReason::StopText) {
                Some(_) => Ok(shown), // a stop text ends inside of it
                None => Ok(shown + &self.end()?),
            }
        } else {
            self.text(id)
        }
    }

    /// The text that may be shown after a token that does not end the answer by itself.
    fn text(&mut self, id: u32) -> Result<String> {
        let Some(stream) = &mut self.stream else {
            return Ok(String::new());
        };
        let text = stream.push(id)?;
        let (shown, is_stopped) = self.stops.push(&text);
        self.stop = is_stopped.then_some(StopReason::StopText);
        self.decoded += text.len();
        self.shown += shown.len();
        Ok(shown)
    }

    /// The stop text that ended the answer, or the name of the token that did.
    pub fn stop_text(&self) -> Option<&str> {
        self.stop_token.as_deref().or(self.stops.found.as_deref())
    }

    /// Whether the last token ended the answer; it is not part of the text.
    pub fn ended_by_token(&self) -> bool {
        self.is_ended_by_token
    }

    /// Bytes of text that the tokens so far have.
    pub fn decoded(&self) -> usize {
        self.decoded
    }

    /// Bytes of text that may be shown so far. A token whose text begins there or later is not
    /// shown yet.
    pub fn shown(&self) -> usize {
        self.shown
    }

    /// The text that was held back, when no token follows. It may still end with a stop text.
    ///
    /// # Errors
    /// Those of [`Tokenizer::decode`].
    pub fn end(&mut self) -> Result<String> {
        let Some(stream) = self.stream.take() else {
            return Ok(String::new());
        };
        let rest = stream.finish()?;
        let (mut shown, is_stopped) = self.stops.push(&rest);
        match is_stopped {
            true => self.stop = Some(StopReason::StopText),
            false => shown += &self.stops.finish(),
        }
        self.decoded += rest.len();
        self.shown += shown.len();
        Ok(shown)
    }

    fn end_with(&mut self, reason: StopReason) -> Result<String> {
        self.stop = Some(reason);
        self.is_ended_by_token = true;
        self.end()
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
    /// Whether a stop text is shown.
    is_kept: bool,
    held: String,
    /// The one that was found.
    found: Option<String>,
}

impl StopTexts {
    fn new(mut stops: Vec<String>) -> StopTexts {
        stops.retain(|stop| !stop.is_empty());
        StopTexts {
            stops,
            is_kept: false,
            held: String::new(),
            found: None,
        }
    }

    /// The text that may be shown, and whether a stop text follows it.
    fn push(&mut self, text: &str) -> (String, bool) {
        self.held.push_str(text);
        let found = self
            .stops
            .iter()
            .filter_map(|stop| Some((self.held.find(stop.as_str())?, stop)))
            .min_by_key(|(at, _)| *at);
        if let Some((at, stop)) = found {
            self.found = Some(stop.clone());
            self.held
                .truncate(at + if self.is_kept { stop.len() } else { 0 });
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
    fn the_stop_text_that_comes_first_is_named() {
        let stops = ["b", "END", "E"].map(str::to_owned).to_vec();
        let mut texts = StopTexts::new(stops);
        assert_eq!(texts.push("a"), ("a".into(), false));
        assert_eq!(texts.found, None);
        assert_eq!(texts.push("c ENDb"), ("c ".into(), true));
        assert_eq!(texts.found.as_deref(), Some("END"));
    }

    #[test]
    fn a_stop_text_is_shown_where_it_is_kept() {
        let mut texts = StopTexts::new(vec!["END".into()]);
        texts.is_kept = true;
        assert_eq!(texts.push("a E"), ("a ".into(), false));
        assert_eq!(texts.push("NDb"), ("END".into(), true));
        assert_eq!(texts.finish(), "");
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
