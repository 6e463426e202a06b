//! Key-value facts in sentences: `The code of Mia is 47. … What is the code of Mia? 47.`
//!
//! People are distinct, codes are two digits, and the questions ask about distinct people. Only the
//! choice of whom to ask about costs anything once the facts are known.

use super::Page;
use super::words::NAMES;

/// Writes 3 to 5 facts, then 2 or 3 questions with their answers.
pub(super) fn write(page: &mut Page) {
    let mut names: Vec<&str> = NAMES.to_vec();
    let count = 3 + page.draws.below(3);
    let mut facts: Vec<(&str, usize)> = (0..count)
        .map(|_| (page.draws.take(&mut names), page.draws.below(100)))
        .collect();
    for (position, (name, code)) in facts.iter().enumerate() {
        page.put(if position == 0 { "The" } else { " The" });
        page.put(&format!(" code of {name} is {code:02}."));
    }
    for _ in 0..2 + page.draws.below(2) {
        let (name, code) = page.draws.take(&mut facts);
        page.put(&format!(" What is the code of {name}?"));
        page.answer(&format!(" {code:02}."));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::super::{Split, Task, document};

    #[test]
    fn answers_are_the_facts_and_entropy_is_read_off_the_text() {
        for index in 0..300 {
            let document = document(Task::Facts, 1, index, Split::Train);
            let (facts, questions) = document.text.split_at(document.text.find(" What").unwrap());
            let codes: HashMap<&str, &str> = facts
                .split_terminator('.')
                .map(|fact| fact.trim_start().strip_prefix("The code of ").unwrap())
                .map(|fact| fact.split_once(" is ").unwrap())
                .collect();
            let mut expected = 3f64.ln() + 2f64.ln();
            expected += (0..codes.len())
                .map(|i| ((24 - i) as f64 * 100.0).ln())
                .sum::<f64>();
            for (i, question) in questions.split_terminator('.').enumerate() {
                let question = question.strip_prefix(" What is the code of ").unwrap();
                let (name, code) = question.split_once("? ").unwrap();
                assert_eq!(codes[name], code);
                expected += ((codes.len() - i) as f64).ln();
            }
            assert!((document.entropy - expected).abs() < 1e-9);
        }
    }
}
