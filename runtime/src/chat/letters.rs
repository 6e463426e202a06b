//! Large and small letters as Python's `str` converts them.

use super::categories;

/// The first letter large, all others small.
pub(super) fn capitalize(text: &str) -> String {
    let mut chars = text.char_indices();
    let first = chars.next().into_iter().flat_map(|(_, c)| titled(c));
    first
        .chain(chars.flat_map(|(at, c)| lowered(text, at, c)))
        .collect()
}

/// The first letter of each run of letters large.
pub(super) fn title(text: &str) -> String {
    let (mut out, mut in_word) = (String::with_capacity(text.len()), false);
    for (at, c) in text.char_indices() {
        match in_word {
            true => out.extend(lowered(text, at, c)),
            false => out.extend(titled(c)),
        }
        in_word = is_cased(c);
    }
    out
}

/// Large letters small, and small letters large.
pub(super) fn swap_case(text: &str) -> String {
    let swap = |(at, c): (usize, char)| match c.is_uppercase() {
        true => lowered(text, at, c),
        false => c.to_uppercase().collect(),
    };
    text.char_indices().flat_map(swap).collect()
}

/// A character without the difference of large and small letters, as `str.casefold` writes it.
pub(super) fn fold(c: char) -> Vec<char> {
    match c {
        'ı' => vec![c],
        'ẞ' => vec!['s', 's'],
        c => c.to_uppercase().flat_map(char::to_lowercase).collect(),
    }
}

fn is_cased(c: char) -> bool {
    c.is_uppercase() || c.is_lowercase() || categories::is_title(c)
}

/// A letter at the beginning of a word: of several letters only the first is large.
fn titled(c: char) -> Vec<char> {
    match c {
        'Ǆ'..='ǆ' => vec!['ǅ'],
        'Ǉ'..='ǉ' => vec!['ǈ'],
        'Ǌ'..='ǌ' => vec!['ǋ'],
        'Ǳ'..='ǳ' => vec!['ǲ'],
        c => {
            let mut upper = c.to_uppercase();
            let first = upper.next().into_iter();
            first.chain(upper.flat_map(char::to_lowercase)).collect()
        }
    }
}

/// The small form of the character at byte `at`; a sigma at the end of a word has one of its own.
fn lowered(text: &str, at: usize, c: char) -> Vec<char> {
    let is_letter = |c: Option<char>| c.is_some_and(is_cased);
    let after = text[at + c.len_utf8()..].chars().next();
    match c {
        'Σ' if is_letter(text[..at].chars().next_back()) && !is_letter(after) => vec!['ς'],
        c => c.to_lowercase().collect(),
    }
}
