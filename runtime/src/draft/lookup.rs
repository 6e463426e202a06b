//! Guesses from the text itself: what followed the same tokens before.
//!
//! A suffix automaton of the text (Blumer et al., 1985) knows, after each token, the longest end of
//! the text that occurred before, and where; adding a token takes constant time on average. What
//! followed there is the guess. The longer the match, the more often it is right: this is counted
//! for each length, whether or not the guess was computed.
//!
//! A copy with edits leaves the text for some tokens and returns to it near the place where it
//! left. There one token is enough to find it again.

use std::collections::HashMap;

use super::{Drafter, Guess, Rate};
use crate::{Result, Sampler};

/// Stands between texts; it is not a token.
const BREAK: u32 = u32::MAX;
/// No state, or no edge.
const NONE: u32 = u32::MAX;
const ROOT: u32 = 0;
/// Most tokens that are read in one call, so that a long prompt delays no answer.
const READ: usize = 8192;
/// A match as long as this is assumed where an answer is expected to begin with a given text, or to
/// return to one.
const EXPECTED: usize = 8;
/// Tokens after an edit, and around its place in the text, in which the copy may return.
const NEAR: usize = 16;
/// For matches of at least this length: first estimates of how often the next token is right.
const LENGTHS: [(usize, f32); 8] = [
    (1, 0.1),
    (2, 0.3),
    (3, 0.5),
    (5, 0.65),
    (8, 0.8),
    (16, 0.9),
    (32, 0.95),
    (64, 0.98),
];
/// Guesses that a first estimate counts as.
const PRIOR: f32 = 4.0;

/// Guesses what followed the same tokens earlier in the text, or in a text that is expected.
#[derive(Debug)]
pub struct Lookup {
    text: Vec<u32>,
    /// Tokens of `text` before the text that grows.
    offset: usize,
    automaton: Automaton,
    /// The place in `text` of the next token's guess, and how many tokens before it match.
    matched: Option<(usize, usize)>,
    /// Where the answer left a text that it copied: the place in `text` of the token that did not
    /// come, and the length of `text` at that time.
    left: Option<(usize, usize)>,
    /// Tokens of the growing text after which guesses are counted.
    answer: usize,
    rates: [Rate; LENGTHS.len()],
}

impl Lookup {
    /// A lookup for an answer that begins after `prompt` tokens.
    pub fn new(prompt: usize) -> Lookup {
        Lookup {
            text: Vec::new(),
            offset: 0,
            automaton: Automaton::new(),
            matched: None,
            left: None,
            answer: prompt,
            rates: LENGTHS.map(|(_, probability)| Rate::new(probability, PRIOR)),
        }
    }

    /// Expects that the answer repeats parts of this text. It also begins as the first such text
    /// does.
    pub fn with_expected(mut self, text: &[u32]) -> Lookup {
        for id in text.iter().chain([&BREAK]) {
            self.append(*id);
        }
        self.offset = self.text.len();
        self
    }

    /// Reads the next token of the text.
    fn read(&mut self, id: u32) {
        let place = self.text.len() - self.offset;
        if let Some((at, length)) = self.matched {
            let is_right = self.text[at] == id;
            if place >= self.answer && self.text[at] != BREAK {
                self.rates[kind(length)].learn(is_right);
            }
            self.matched = is_right.then_some((at + 1, length + 1));
            if !is_right && length >= EXPECTED {
                self.left = Some((at, self.text.len()));
            }
        }
        let repeated = self.append(id);
        // A match that goes on is kept, as long as no other is longer.
        if repeated.is_some_and(|(_, length)| self.matched.is_none_or(|m| length > m.1)) {
            self.matched = repeated;
        }
        if self.matched.is_none_or(|m| m.1 < EXPECTED) {
            self.matched = self.returned(id).or(self.matched);
        }
        if place + 1 == self.answer && self.offset > 1 {
            self.matched = Some((0, EXPECTED));
        }
    }

    /// The match after a token that was just read, if it is one of the text near the place where
    /// the answer left it. Of several places it is the one with as many tokens in the text as in the
    /// answer, or the nearest to it.
    fn returned(&self, id: u32) -> Option<(usize, usize)> {
        let (at, when) = self.left?;
        let since = self.text.len() - 1 - when;
        if since > NEAR {
            return None;
        }
        let near = at..(at + NEAR).min(when);
        let near = near.take_while(|place| self.text[*place] != BREAK);
        let places = near.filter(|place| self.text[*place] == id);
        let place = places.min_by_key(|place| place.abs_diff(at + since))?;
        Some((place + 1, EXPECTED))
    }

    /// Adds a token. Returns the place after the longest end of the text that occurred before, and
    /// the length of that end.
    fn append(&mut self, id: u32) -> Option<(usize, usize)> {
        let (place, length) = self.automaton.append(id, self.text.len());
        self.text.push(id);
        (length > 0).then_some((place, length))
    }
}

impl Drafter for Lookup {
    fn propose(&mut self, tokens: &[u32], _: &Sampler, most: usize) -> Result<Vec<Guess>> {
        let read = self.text.len() - self.offset;
        let new = &tokens[read.min(tokens.len())..];
        for id in new.iter().take(READ) {
            self.read(*id);
        }
        let mut guesses: Vec<Guess> = Vec::new();
        let Some((at, length)) = self.matched.filter(|_| new.len() <= READ) else {
            return Ok(guesses);
        };
        let mut probability = 1.0;
        for i in 0..most {
            // Beyond the end of the text, the guesses are its end: a period goes on.
            let id = match self.text.get(at + i) {
                Some(id) => *id,
                None => guesses[at + i - self.text.len()].id,
            };
            if id == BREAK {
                break;
            }
            probability *= self.rates[kind(length + i)].probability();
            guesses.push(Guess { id, probability });
        }
        Ok(guesses)
    }
}

/// The index of a length in [`LENGTHS`].
fn kind(length: usize) -> usize {
    let longer = LENGTHS.iter().position(|(least, _)| *least > length);
    longer.unwrap_or(LENGTHS.len()).saturating_sub(1)
}

/// A suffix automaton. Each state stands for the substrings that end at the same places.
#[derive(Debug)]
struct Automaton {
    states: Vec<State>,
    /// Edges by state and token.
    edges: HashMap<(u32, u32), u32>,
    /// The token of each edge, and the next edge of the same state.
    lists: Vec<(u32, u32)>,
    /// The state of the whole text.
    last: u32,
}

#[derive(Debug, Clone, Copy)]
struct State {
    /// Length of its longest substring.
    length: usize,
    /// The state of the longest end of its substrings that occurs in more places.
    link: u32,
    /// A place after one of its occurrences.
    end: usize,
    /// Its first edge in `lists`.
    edge: u32,
}

impl Automaton {
    fn new() -> Automaton {
        let root = State {
            length: 0,
            link: NONE,
            end: 0,
            edge: NONE,
        };
        Automaton {
            states: vec![root],
            edges: HashMap::new(),
            lists: Vec::new(),
            last: ROOT,
        }
    }

    /// Adds the token at a place. Returns the place after the latest known occurrence of the
    /// longest end of the text that occurred before, and the length of that end.
    fn append(&mut self, id: u32, place: usize) -> (usize, usize) {
        let end = place + 1;
        let new = self.add(State {
            length: end,
            link: ROOT,
            end,
            edge: NONE,
        });
        let mut state = self.last;
        while state != NONE && !self.edges.contains_key(&(state, id)) {
            self.connect(state, id, new);
            state = self.states[state as usize].link;
        }
        if state != NONE {
            let next = self.edges[&(state, id)];
            self.states[new as usize].link = match self.of(state).length + 1 {
                length if length == self.of(next).length => next,
                length => self.split(state, id, next, length),
            };
        }
        self.last = new;
        let link = self.of(new).link;
        let State {
            length,
            end: before,
            ..
        } = *self.of(link);
        self.states[link as usize].end = end;
        (before, length)
    }

    /// Gives the substrings of `next` of at most this length, which occur in more places now, a
    /// state of their own; `state` and its links lead to them by the token `id`.
    fn split(&mut self, mut state: u32, id: u32, next: u32, length: usize) -> u32 {
        let copy = self.add(State {
            length,
            edge: NONE,
            ..*self.of(next)
        });
        let mut edge = self.of(next).edge;
        while edge != NONE {
            let (token, following) = self.lists[edge as usize];
            self.connect(copy, token, self.edges[&(next, token)]);
            edge = following;
        }
        while state != NONE && self.edges.get(&(state, id)) == Some(&next) {
            self.edges.insert((state, id), copy);
            state = self.of(state).link;
        }
        self.states[next as usize].link = copy;
        copy
    }

    /// A new edge of a state.
    fn connect(&mut self, state: u32, id: u32, to: u32) {
        self.edges.insert((state, id), to);
        let first = &mut self.states[state as usize].edge;
        self.lists.push((id, *first));
        *first = (self.lists.len() - 1) as u32;
    }

    fn add(&mut self, state: State) -> u32 {
        self.states.push(state);
        (self.states.len() - 1) as u32
    }

    fn of(&self, state: u32) -> &State {
        &self.states[state as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Sampling;

    fn greedy() -> Sampler {
        Sampler::new(Sampling::default()).unwrap()
    }

    fn ids(lookup: &mut Lookup, tokens: &[u32], most: usize) -> Vec<u32> {
        let guesses = lookup.propose(tokens, &greedy(), most).unwrap();
        guesses.iter().map(|guess| guess.id).collect()
    }

    /// The longest end of `text` that occurred before, and whether one of its places is `place`.
    fn check(text: &[u32], found: Option<(usize, usize)>) {
        let occurs = |length: usize| {
            let end = &text[text.len() - length..];
            (0..text.len() - length).any(|at| &text[at..at + length] == end)
        };
        let longest = (1..text.len()).rev().find(|length| occurs(*length));
        assert_eq!(found.map(|found| found.1), longest, "{text:?}");
        if let Some((place, length)) = found {
            assert!(place < text.len() && place >= length, "{text:?}");
            assert_eq!(&text[place - length..place], &text[text.len() - length..]);
        }
    }

    #[test]
    fn the_longest_end_that_occurred_before_is_found() {
        let mut random = 1_u64;
        for alphabet in 1..5 {
            for _ in 0..200 {
                let mut lookup = Lookup::new(0);
                for _ in 0..40 {
                    random = random
                        .wrapping_mul(6364136223846793005)
                        .wrapping_add(alphabet);
                    let found = lookup.append((random >> 40) as u32 % alphabet as u32);
                    check(&lookup.text, found);
                }
            }
        }
    }

    #[test]
    fn the_automaton_stays_linear() {
        let mut lookup = Lookup::new(0);
        let mut random = 1_u64;
        let n = 20_000;
        for _ in 0..n {
            random = random.wrapping_mul(6364136223846793005).wrapping_add(1);
            lookup.append((random >> 50) as u32 % 50);
        }
        assert!(lookup.automaton.states.len() <= 2 * n);
        assert!(lookup.automaton.lists.len() <= 3 * n);
    }

    #[test]
    fn what_followed_is_guessed() {
        let mut lookup = Lookup::new(0);
        assert_eq!(ids(&mut lookup, &[1, 2, 3, 4, 5, 9, 1, 2, 3], 3), [4, 5, 9]);
        // Another token comes: nothing matches.
        assert_eq!(ids(&mut lookup, &[1, 2, 3, 4, 5, 9, 1, 2, 3, 7], 3), [0; 0]);
        // A period goes on beyond the end.
        let mut lookup = Lookup::new(0);
        assert_eq!(ids(&mut lookup, &[8, 1, 2, 1, 2], 5), [1, 2, 1, 2, 1]);
    }

    #[test]
    fn an_expected_text_is_guessed_from_its_beginning() {
        let mut lookup = Lookup::new(2).with_expected(&[10, 11, 12, 13]);
        assert_eq!(ids(&mut lookup, &[1, 2], 9), [10, 11, 12, 13]);
        assert_eq!(ids(&mut lookup, &[1, 2, 10], 2), [11, 12]);
        // After another token, the text is found again.
        assert_eq!(ids(&mut lookup, &[1, 2, 10, 7], 2), [0; 0]);
        assert_eq!(ids(&mut lookup, &[1, 2, 10, 7, 12], 2), [13]);
    }

    #[test]
    fn a_copy_goes_on_after_an_edit() {
        let text: Vec<u32> = (100..140).chain([100, 7, 101, 8]).collect();
        let edits: [(&[u32], u32); 4] = [
            (&[1], 111),       // instead of 110
            (&[1, 2, 3], 110), // before it
            (&[], 113),        // instead of 110, 111 and 112
            (&[100, 2], 112),  // a token of another place instead of 110
        ];
        for (new, next) in edits {
            let mut lookup = Lookup::new(1).with_expected(&text);
            let mut tokens: Vec<u32> = [0].into_iter().chain(100..110).collect();
            lookup.propose(&tokens, &greedy(), 4).unwrap();
            tokens.extend(new);
            tokens.push(next);
            let goes_on: Vec<u32> = (next + 1..next + 5).collect();
            assert_eq!(ids(&mut lookup, &tokens, 4), goes_on, "{new:?}");
        }
        // Far from the place the text is found only by what matches.
        let mut lookup = Lookup::new(1).with_expected(&text);
        let mut tokens: Vec<u32> = [0].into_iter().chain(100..110).collect();
        tokens.extend([1; NEAR + 2]);
        tokens.push(135);
        lookup.propose(&tokens, &greedy(), 4).unwrap();
        assert_eq!(lookup.matched.map(|m| m.1), Some(1));
    }

    #[test]
    fn rates_follow_what_happens() {
        let sampler = Sampler::new(Sampling::default()).unwrap();
        let mut lookup = Lookup::new(1);
        let mut tokens = vec![0];
        // Each of 50 tokens appears four times and is never followed by the same one.
        for i in 0..200 {
            tokens.push(i * 7 % 50);
            tokens.push(1000 + i);
            lookup.propose(&tokens, &sampler, 4).unwrap();
        }
        assert!(lookup.rates[0].probability() < 0.05);
        let mut lookup = Lookup::new(1);
        let tokens: Vec<u32> = (0..400).map(|i| i % 10).collect();
        let guesses = lookup.propose(&tokens, &sampler, 4).unwrap();
        assert!(guesses[3].probability > 0.9, "{guesses:?}");
    }
}
