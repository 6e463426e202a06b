//! The regular expressions of pre-tokenizers, on a lazy DFA.

use std::ops::Range;

use regex_automata::hybrid::dfa::{Cache, DFA};
use regex_automata::{Anchored, Input};
use regex_syntax::hir::{Hir, HirKind};

/// The last two alternatives of nearly all patterns: spaces that belong to no word.
pub(super) const SPACES: &str = r"|\s+(?!\S)|\s+";

/// A regular expression without look-around.
pub(super) struct Pattern {
    pub(super) dfa: DFA,
    /// Whether the second pattern of the DFA is `\s+`, with the rule of [`SPACES`].
    has_spaces: bool,
}

impl Pattern {
    /// Compiles a pattern of a tokenizer; `None` if it needs more than a DFA. After the step
    /// `ByteLevel`, only patterns of ASCII mean the same for bytes and for their characters.
    pub(super) fn new(pattern: &str, of_bytes: bool) -> Option<Pattern> {
        let (pattern, has_spaces) = match pattern.strip_suffix(SPACES) {
            Some(pattern) => (pattern, true),
            None => (pattern, false),
        };
        // A possessive quantifier would be parsed as a repetition of a repetition.
        if has_possessive(pattern) {
            return None;
        }
        let hir = regex_syntax::parse(pattern).ok()?;
        let is_possible = hir.properties().look_set().is_empty()
            && hir
                .properties()
                .minimum_len()
                .is_some_and(|least| least > 0)
            && (!of_bytes || (is_ascii(&hir) && !has_spaces));
        let patterns = [pattern, r"\s+"];
        let patterns = &patterns[..1 + usize::from(has_spaces)];
        let dfa = is_possible.then(|| DFA::new_many(patterns).ok())??;
        Some(Pattern { dfa, has_spaces })
    }

    /// Calls `push` with the end of each match and of the text before it.
    pub(super) fn apply(
        &self,
        text: &[u8],
        range: Range<usize>,
        cache: &mut Cache,
        push: &mut impl FnMut(usize, bool),
    ) {
        let mut at = range.start;
        while at < range.end {
            let input = Input::new(&text[..range.end]);
            let input = input.range(at..range.end).anchored(Anchored::Yes);
            let found = self.dfa.try_search_fwd(cache, &input);
            let Some(found) = found.expect("the DFA has no bytes at which it gives up") else {
                at += 1; // in the middle of a character nothing matches
                continue;
            };
            push(at, false);
            let mut end = found.offset();
            if self.has_spaces && found.pattern().as_usize() == 1 && end < range.end {
                let mut last = end - 1;
                while text[last] & 0xc0 == 0x80 {
                    last -= 1;
                }
                if last > at {
                    end = last;
                }
            }
            push(end, true);
            at = end;
        }
    }
}

/// Whether a pattern has a quantifier that is followed by a plus.
fn has_possessive(pattern: &str) -> bool {
    let mut chars = pattern.chars().peekable();
    let (mut classes, mut is_quantified) = (0, false);
    while let Some(c) = chars.next() {
        let before = std::mem::take(&mut is_quantified);
        match c {
            '\\' => {
                chars.next();
                if chars.peek() == Some(&'{') {
                    chars.find(|c| *c == '}'); // the name of a class
                }
            }
            '[' => classes += 1,
            ']' if classes > 0 => classes -= 1,
            _ if classes > 0 => {}
            '+' if before => return true,
            '?' | '*' | '+' | '}' => is_quantified = true,
            _ => {}
        }
    }
    false
}

/// Whether a pattern matches nothing but visible ASCII.
fn is_ascii(hir: &Hir) -> bool {
    let is_visible = |byte: u8| byte.is_ascii_graphic();
    match hir.kind() {
        HirKind::Empty => true,
        HirKind::Literal(literal) => literal.0.iter().all(|b| is_visible(*b)),
        HirKind::Class(class) => {
            class
                .literal()
                .is_some_and(|l| l.iter().all(|b| is_visible(*b)))
                || match class {
                    regex_syntax::hir::Class::Unicode(class) => class
                        .ranges()
                        .iter()
                        .all(|r| r.start() >= '!' && r.end() <= '~'),
                    regex_syntax::hir::Class::Bytes(class) => class
                        .ranges()
                        .iter()
                        .all(|r| r.start() >= b'!' && r.end() <= b'~'),
                }
        }
        HirKind::Look(_) => false,
        HirKind::Repetition(repetition) => is_ascii(&repetition.sub),
        HirKind::Capture(capture) => is_ascii(&capture.sub),
        HirKind::Concat(parts) | HirKind::Alternation(parts) => parts.iter().all(is_ascii),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn possessive_quantifiers_are_found() {
        for (pattern, expected) in [
            (r"[^\r\n\p{L}]?+\p{L}+", true),
            (r"\p{N}{1,3}+", true),
            (r"a++", true),
            (r"\p{L}+|\p{N}{1,3}|[*+?+]+|\++| ?x+?", false),
        ] {
            assert_eq!(has_possessive(pattern), expected, "{pattern}");
        }
    }
}
