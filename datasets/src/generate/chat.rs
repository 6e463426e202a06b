//! Conversations with known answers: sums, questions about a story, and small talk.
//!
//! > **user** Hello! **assistant** Hello! How can I help?
//! > **user** What is 47+38? **assistant** 47+38=580 from the right, so 85.
//! > **user** Once Mia sat in the barn. Tom was in the park. He ran to the zoo. Where is Tom?
//! > **assistant** In the zoo.
//!
//! A conversation has two tasks, each a sum or a story; small talk may come before each and at the
//! end. An answer to a sum first writes the line that `addition2` has, lowest digit first, and then
//! reverses it: a small model cannot foresee carries, as the head of `addition` explains. All draws
//! can be read off the messages, so their entropies add up to −log p of the conversation. Pairs of
//! operands are on the side of the split that `addition2` puts them on.

use super::addition::{self, Kind, reversed};
use super::stories::{FIND, OPENINGS};
use super::words::{COLOURS, NAMES, PLACES, THINGS};
use super::{Page, Split};

/// Intents of small talk: what a user may say, and the one answer.
const TALK: [(&[&str], &str); 6] = [
    (
        &[
            "Hello!",
            "Hello",
            "Hi!",
            "Hi",
            "hi",
            "hello",
            "Good morning!",
        ],
        "Hello! How can I help?",
    ),
    (
        &["Who are you?", "What are you?", "What is your name?"],
        "I am Sterna, a small ternary model.",
    ),
    (
        &["What can you do?", "Can you help me?"],
        "I can add numbers and answer questions about a story.",
    ),
    (
        &["How are you?", "How are you today?"],
        "I am well. How can I help?",
    ),
    (
        &["Thanks!", "Thanks", "thanks", "Thank you!", "Thank you"],
        "You are welcome!",
    ),
    (
        &["Goodbye!", "Goodbye", "Bye!", "Bye", "bye"],
        "Goodbye! See you soon.",
    ),
];

/// The text before, between and after the operands of a question about a sum.
const SUMS: [[&str; 3]; 6] = [
    ["What is ", "+", "?"],
    ["What is ", " + ", "?"],
    ["What is ", " plus ", "?"],
    ["How much is ", "+", "?"],
    ["Add ", " and ", "."],
    ["", "+", ""],
];

/// Kinds of numbers below 100, each as likely as the others: below ten, whole tens, all others.
///
/// A digit of a sum depends on two digits. Where both are uniform, neither alone says anything
/// about the result, and a small model finds the rule late or never. Here zeros are frequent, so
/// that one digit often decides; the model begins with that and goes on to the rule (Abbe,
/// Cornacchia and Lotfi, "Provable Advantage of Curriculum Learning on Parity Targets with Mixed
/// Inputs", 2023).
const KINDS: [Kind; 3] = [Kind::BelowTen, Kind::Tens, Kind::Other];

/// The number of tasks in a conversation.
const TASKS: usize = 2;

/// Writes one conversation.
pub(super) fn write(page: &mut Page, split: Split) {
    for _ in 0..TASKS {
        small_talk(page);
        match page.draws.below(2) {
            0 => sum(page, split),
            _ => story(page),
        }
    }
    small_talk(page);
}

/// Writes one exchange of small talk, or none.
fn small_talk(page: &mut Page) {
    if page.draws.below(2) == 0 {
        return;
    }
    let (questions, answer) = page.draws.pick(&TALK);
    let question = page.draws.pick(questions);
    page.exchange(question, answer);
}

/// Asks for the sum of two numbers below 100.
fn sum(page: &mut Page, split: Split) {
    let kinds = [0; 2].map(|_| page.draws.pick(&KINDS));
    let (a, b) = addition::operands_of(page, 2, split, kinds);
    let [before, between, after] = page.draws.pick(&SUMS);
    let question = format!("{before}{a}{between}{b}{after}");
    let sum = a + b;
    let digits = reversed(sum, 3);
    page.exchange(
        &question,
        &format!("{a:02}+{b:02}={digits} from the right, so {sum}."),
    );
}

/// Tells where two people were and what one of them found, and asks one to three of the
/// four questions that the sentences answer.
fn story(page: &mut Page) {
    let draws = &mut page.draws;
    let (mut names, mut places) = (NAMES.to_vec(), PLACES.to_vec());
    let people: [(&str, &str); 2] =
        std::array::from_fn(|_| (draws.take(&mut names), draws.take(&mut places)));
    let verbs: [&str; 2] = std::array::from_fn(|_| draws.pick(&OPENINGS));
    let (finder, found) = (people[draws.below(2)].0, draws.pick(&FIND));
    let (colour, thing) = (draws.pick(&COLOURS), draws.pick(&THINGS));
    let [(a, at_a), (b, at_b)] = people;
    let told = format!(
        "Once {a} {} in the {at_a}. {b} {} in the {at_b}. {finder} {found} a {colour} {thing}.",
        verbs[0], verbs[1]
    );
    let mut questions = vec![
        (format!("Where is {a}?"), format!("In the {at_a}.")),
        (format!("Where is {b}?"), format!("In the {at_b}.")),
        (format!("Who has the {thing}?"), format!("{finder}.")),
        (
            format!("What colour is the {thing}?"),
            format!("It is {colour}."),
        ),
    ];
    let (question, answer) = page.draws.take(&mut questions);
    page.exchange(&format!("{told} {question}"), &answer);
    for _ in 0..page.draws.below(3) {
        let (question, answer) = page.draws.take(&mut questions);
        page.exchange(&question, &answer);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::iter::Peekable;

    use super::super::{Task, document};
    use super::*;

    /// Reads a conversation back: checks every answer, and sums −log p of what was drawn, from the
    /// messages alone.
    struct Listener<'a, I: Iterator<Item = (&'a str, &'a str)>> {
        exchanges: Peekable<I>,
        split: Split,
        nats: f64,
    }

    impl<'a, I: Iterator<Item = (&'a str, &'a str)>> Listener<'a, I> {
        fn pay(&mut self, choices: usize) {
            self.nats += (choices as f64).ln();
        }

        fn next(&mut self) -> (&'a str, &'a str) {
            self.exchanges.next().unwrap()
        }

        fn talk(&mut self) {
            self.pay(2);
            let Some((question, answer)) = self.exchanges.peek().copied() else {
                return;
            };
            if let Some((questions, known)) = talk_of(question) {
                self.next();
                self.pay(TALK.len());
                self.pay(questions.len());
                assert_eq!(answer, known);
            }
        }

        fn task(&mut self) {
            self.pay(2);
            let (question, answer) = self.next();
            match answer.split_once(" from the right, so ") {
                Some((line, sum)) => self.sum(question, line, sum),
                None => self.story(question, answer),
            }
        }

        fn sum(&mut self, question: &str, line: &str, sum: &str) {
            let sum: usize = sum.strip_suffix('.').unwrap().parse().unwrap();
            let numbers = |text: &str| -> Vec<usize> {
                let numbers = text.split(|c: char| !c.is_ascii_digit());
                numbers.filter_map(|n| n.parse().ok()).collect()
            };
            let (operands, digits) = line.split_once('=').unwrap();
            let [a, b] = numbers(question)[..] else {
                panic!("{question}")
            };
            assert_eq!(operands, format!("{a:02}+{b:02}"), "{question}");
            assert_eq!((sum, digits), (a + b, &*reversed(sum, 3)));
            assert_eq!(addition::side(2, a, b), self.split);
            self.pay(SUMS.len());
            // Two kinds of numbers, then a pair of numbers of these kinds on this side.
            let kind = |n: usize| (n < 10, n >= 10 && n.is_multiple_of(10));
            let is_choice = |(c, d): &(usize, usize)| {
                (kind(*c), kind(*d)) == (kind(a), kind(b))
                    && addition::side(2, *c, *d) == self.split
            };
            let pairs = (0..100).flat_map(|c| (0..100).map(move |d| (c, d)));
            let choices = pairs.filter(is_choice).count();
            self.pay(3 * 3);
            self.pay(choices);
        }

        fn story(&mut self, text: &'a str, answer: &str) {
            let sentences: Vec<&str> = text.split(". ").collect();
            let [first, second, third, question] = sentences[..] else {
                panic!("{text}")
            };
            let opening = |sentence: &'a str| {
                let words: Vec<&str> = sentence.split(' ').collect();
                let [name, verb, "in", "the", place] = words[..] else {
                    panic!("{sentence}")
                };
                assert!(NAMES.contains(&name) && OPENINGS.contains(&verb));
                (name, place)
            };
            let places = HashMap::from([first.strip_prefix("Once ").unwrap(), second].map(opening));
            let words: Vec<&str> = third.split(' ').collect();
            let [finder, verb, "a", colour, thing] = words[..] else {
                panic!("{third}")
            };
            assert!(places.contains_key(finder) && FIND.contains(&verb));
            for choices in [24 * 23, 12 * 11, 4 * 4, 2 * 3, 12 * 24, 4, 3] {
                self.pay(choices);
            }
            let known = |question: &str| {
                let words: Vec<&str> = question.split(' ').collect();
                match words[..] {
                    ["Where", "is", person] => {
                        format!("In the {}.", places[person.strip_suffix('?').unwrap()])
                    }
                    ["Who", "has", "the", _] => format!("{finder}."),
                    ["What", "colour", "is", "the", _] => format!("It is {colour}."),
                    _ => panic!("{question}"),
                }
            };
            let is_about = |question: &str| {
                question.starts_with("Where") || question.ends_with(&format!(" {thing}?"))
            };
            assert!(is_about(question) && answer == known(question), "{text}");
            let is_more = |(question, _): &(&str, &str)| {
                let has_digits = question.contains(|c: char| c.is_ascii_digit());
                !has_digits && !question.starts_with("Once ") && talk_of(question).is_none()
            };
            let mut asked = vec![question];
            while let Some((another, answer)) = self.exchanges.next_if(is_more) {
                assert!(is_about(another) && !asked.contains(&another), "{text}");
                assert_eq!(answer, known(another));
                self.pay(4 - asked.len());
                asked.push(another);
            }
            assert!(asked.len() <= 3);
        }
    }

    /// The small talk that a question belongs to.
    fn talk_of(question: &str) -> Option<(&'static [&'static str], &'static str)> {
        let mut talk = TALK.into_iter();
        talk.find(|(questions, _)| questions.contains(&question))
    }

    #[test]
    fn answers_and_entropy_agree_with_a_reader_of_the_messages_alone() {
        for split in [Split::Train, Split::HeldOut] {
            for index in 0..3000 {
                let document = document(Task::Chat, 11, index, split);
                let exchanges = document.messages.chunks_exact(2).map(|pair| {
                    assert_eq!((pair[0].role(), pair[1].role()), ("user", "assistant"));
                    (pair[0].content(), pair[1].content())
                });
                let mut listener = Listener {
                    exchanges: exchanges.peekable(),
                    split,
                    nats: 0.0,
                };
                for _ in 0..TASKS {
                    listener.talk();
                    listener.task();
                }
                listener.talk();
                assert_eq!(listener.exchanges.next(), None);
                let nats = listener.nats;
                assert!((nats - document.entropy).abs() < 1e-9, "{}", document.text);
            }
        }
    }

    #[test]
    fn the_text_and_its_answers_are_those_of_the_messages() {
        for index in 0..100 {
            let document = document(Task::Chat, 3, index, Split::Train);
            let lines = document.messages.chunks_exact(2);
            let lines = lines.map(|pair| {
                format!(
                    "User: {}\nAssistant: {}\n",
                    pair[0].content(),
                    pair[1].content()
                )
            });
            assert_eq!(document.text, lines.collect::<String>());
            let answers = document
                .answers
                .iter()
                .map(|range| &document.text[range.clone()]);
            let messages = document.messages.iter().skip(1).step_by(2);
            assert!(answers.eq(messages.map(|m| format!(" {}", m.content()))));
        }
    }

    #[test]
    fn a_message_of_small_talk_has_one_answer() {
        let mut answers = HashMap::new();
        for (questions, answer) in TALK {
            for question in questions {
                assert_eq!(answers.insert(*question, answer), None, "{question}");
            }
        }
    }
}
