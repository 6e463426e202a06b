//! The filter `wordwrap`: lines of a width, as Python's `textwrap` breaks them.

use super::super::categories;
use super::super::strings::is_space;

/// How lines are broken.
pub(super) struct Wrapping {
    /// Characters of a line.
    pub width: usize,
    /// Whether a word longer than a line is broken anywhere.
    pub breaks_words: bool,
    /// Whether a word is broken after a hyphen.
    pub breaks_hyphens: bool,
}

impl Wrapping {
    /// The lines of a paragraph.
    pub fn lines(&self, paragraph: &str) -> Vec<String> {
        let chars: Vec<char> = paragraph.chars().collect();
        // The next chunk is the last of the list; what is left of a broken word returns there.
        let mut chunks = self.chunks(&chars);
        chunks.reverse();
        let is_blank = |chunk: &&[char]| chunk.iter().all(|c| is_space(*c));
        let mut lines: Vec<String> = Vec::new();
        while let Some(next) = chunks.last() {
            if !lines.is_empty() && is_blank(next) {
                chunks.pop();
            }
            let mut line: Vec<&[char]> = Vec::new();
            let mut length = 0;
            while let Some(chunk) = chunks.pop_if(|chunk| length + chunk.len() <= self.width) {
                line.push(chunk);
                length += chunk.len();
            }
            if let Some(long) = chunks.pop_if(|chunk| chunk.len() > self.width) {
                let end = self.end_of_part(long, self.width - length, line.is_empty());
                let (part, rest) = long.split_at(end);
                // An empty part keeps the spaces before it, as in Python.
                line.extend(Some(part).filter(|_| self.breaks_words || line.is_empty()));
                chunks.extend(Some(rest).filter(|rest| !rest.is_empty()));
            }
            line.pop_if(|last| is_blank(&&**last));
            if !line.is_empty() {
                lines.push(line.concat().into_iter().collect());
            }
        }
        lines
    }

    /// Length of the part of a long word that goes into a line with this space.
    fn end_of_part(&self, word: &[char], space: usize, is_first: bool) -> usize {
        if !self.breaks_words {
            return if is_first { word.len() } else { 0 };
        }
        let hyphen = word[..space].iter().rposition(|c| *c == '-');
        match hyphen.filter(|_| self.breaks_hyphens) {
            Some(at) if word[..at].iter().any(|c| *c != '-') => at + 1,
            _ => space,
        }
    }

    /// Spaces and words, in order; a word may be divided after hyphens and before dashes.
    fn chunks<'c>(&self, text: &'c [char]) -> Vec<&'c [char]> {
        // The whitespace of `textwrap`, which is ASCII.
        let is_blank = |at: usize| matches!(text[at], ' ' | '\t'..='\r');
        let (mut chunks, mut start) = (Vec::new(), 0);
        while start < text.len() {
            let is_space = is_blank(start);
            let mut end = start + 1;
            while end < text.len() && is_blank(end) == is_space {
                if !is_space && self.breaks_hyphens && divides(text, start, end) {
                    break;
                }
                end += 1;
            }
            chunks.push(&text[start..end]);
            start = end;
        }
        chunks
    }
}

/// Whether a word that begins at `start` is divided before the character `at`.
fn divides(text: &[char], start: usize, at: usize) -> bool {
    let is = |at: Option<usize>, test: fn(char) -> bool| {
        at.and_then(|at| text.get(at)).is_some_and(|c| test(*c))
    };
    let is_word: fn(char) -> bool = |c| categories::is_alnum(c) || c == '_';
    let is_letter: fn(char) -> bool =
        |c| categories::is_alnum(c) && !categories::is_decimal(c) || c == '_';
    let is_hyphen: fn(char) -> bool = |c| c == '-';
    let before = |back: usize| at.checked_sub(back);
    // After a hyphen between letters: two before it, or one after another hyphen, and two after it.
    let after_two = is(before(2), is_letter) && is(before(3), is_letter);
    let after_one =
        is(before(2), is_letter) && is(before(3), is_hyphen) && is(before(4), is_letter);
    let pair = is(Some(at + 1), is_letter);
    let pair = pair || is(Some(at + 1), is_hyphen) && is(Some(at + 2), is_letter);
    let is_between = is(before(1), is_hyphen) && is(Some(at), is_letter) && pair;
    if at > start + 1 && is_between && (after_two || after_one) {
        return true;
    }
    // Before and after a dash of several hyphens between words.
    let ends_word: fn(char) -> bool = |c| categories::is_alnum(c) || "_!\"'&.,?".contains(c);
    let dashes = |from: usize| text[from..].iter().take_while(|c| **c == '-').count();
    let is_dash = |from: usize| {
        let count = dashes(from);
        let is_after = from.checked_sub(1).is_some_and(|at| ends_word(text[at]));
        is_after && count > 1 && is(Some(from + count), is_word)
    };
    is_dash(at) || is_dash(start) && at == start + dashes(start)
}
