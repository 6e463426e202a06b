//! Copy and associative recall: the two smallest tests of whether attention works.
//!
//! `copy: q x v b e | q x v b e` and `recall: k7 m2 q9 | m2 q9 k7`, several lines per document.
//! Everything left of the bar is drawn uniformly; a copy costs nothing after the bar, a recall
//! costs the order of the keys and their values nothing. A line asks for all keys: from lines that
//! ask for one key, a small model learns which values a line has, but not which key has which
//! value.

use super::Page;

/// Writes lines of a sequence of letters and its copy.
pub(super) fn copy(page: &mut Page) {
    for _ in 0..3 + page.draws.below(4) {
        let length = 5 + page.draws.below(5);
        let letters: String = (0..length)
            .flat_map(|_| [' ', letter(page.draws.below(26))])
            .collect();
        page.put("copy:");
        page.put(&letters);
        page.put(" |");
        page.answer(&letters);
        page.put("\n");
    }
}

/// Writes lines of key-value pairs, then the keys in another order, each with its value.
pub(super) fn recall(page: &mut Page) {
    for _ in 0..3 + page.draws.below(4) {
        let mut keys: Vec<char> = (0..26).map(letter).collect();
        let count = 3 + page.draws.below(4);
        let mut pairs: Vec<(char, usize)> = (0..count)
            .map(|_| (page.draws.take(&mut keys), page.draws.below(10)))
            .collect();
        page.put("recall:");
        for (key, value) in &pairs {
            page.put(&format!(" {key}{value}"));
        }
        page.put(" |");
        while !pairs.is_empty() {
            let (key, value) = page.draws.take(&mut pairs);
            page.put(&format!(" {key}"));
            page.answer(&value.to_string());
        }
        page.put("\n");
    }
}

fn letter(index: usize) -> char {
    char::from(b'a' + index as u8)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::super::{Split, Task, document};

    /// ln of the falling factorial n (n−1) … with `k` factors.
    fn ln_falling(n: usize, k: usize) -> f64 {
        (n - k + 1..=n).map(|x| (x as f64).ln()).sum()
    }

    #[test]
    fn copies_are_exact_and_their_entropy_is_read_off_the_text() {
        for index in 0..300 {
            let document = document(Task::Copy, 1, index, Split::Train);
            let mut expected = 4f64.ln();
            for line in document.text.lines() {
                let (left, right) = line
                    .strip_prefix("copy:")
                    .unwrap()
                    .split_once(" |")
                    .unwrap();
                assert_eq!(left, right);
                let length = left.split_whitespace().count();
                assert!((5..=9).contains(&length));
                expected += 5f64.ln() + length as f64 * 26f64.ln();
            }
            assert!((document.entropy - expected).abs() < 1e-9);
        }
    }

    #[test]
    fn recalled_values_are_right_and_their_entropy_is_read_off_the_text() {
        for index in 0..300 {
            let document = document(Task::Recall, 1, index, Split::HeldOut);
            let mut expected = 4f64.ln();
            for line in document.text.lines() {
                let (left, asked) = line
                    .strip_prefix("recall: ")
                    .unwrap()
                    .split_once(" | ")
                    .unwrap();
                let pairs: Vec<&str> = left.split(' ').collect();
                let mut asked: Vec<&str> = asked.split(' ').collect();
                asked.sort_unstable();
                let mut sorted = pairs.clone();
                sorted.sort_unstable();
                assert_eq!(asked, sorted);
                let keys: HashSet<&str> = pairs.iter().map(|pair| &pair[..1]).collect();
                let count = pairs.len();
                assert!(keys.len() == count && (3..=6).contains(&count));
                expected += 4f64.ln()
                    + ln_falling(26, count)
                    + count as f64 * 10f64.ln()
                    + ln_falling(count, count);
            }
            assert!((document.entropy - expected).abs() < 1e-9);
        }
    }
}
