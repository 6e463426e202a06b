//! Seeded tasks with a known entropy or a known answer, so that learning can be proved.
//!
//! A document is a pure function of (task, seed, index, split). It is made by independent uniform
//! draws, and distinct draws give distinct text, so the exact −log p(text) is the sum of the
//! ln(choices) drawn: no model can have a lower expected loss on the whole document, end included.
//!
//! | task | one document |
//! |---|---|
//! | `addition2` | 8–12 lines `12+39=150`: zero-padded operands, the sum lowest digit first |
//! | `addition3` | 6–9 lines `012+939=1590`, likewise |
//! | `copy` | 3–6 lines `copy: q x v b e \| q x v b e` of 5–9 letters |
//! | `recall` | 3–6 lines `recall: k7 m2 q9 \| m2 q9 k7` of 3–6 pairs, keys distinct |
//! | `facts` | 3–5 sentences `The code of Mia is 47.`, then 2–3 questions with their answers |
//! | `stories` | two people move and handle things; a question that the state answers |
//! | `chat` | a conversation: two sums or short stories with questions, and some small talk |
//!
//! No document is on both sides of the split. For addition a hash of the unordered pair of operands
//! decides the side, about one pair in ten being held out, so `12+39` is never trained on if
//! `39+12` is held out. The other tasks use independent streams: with at least 26^5 lines of
//! `copy`, 4·10^7 of `recall`, and far more facts and stories, a line hardly ever repeats by chance
//! and a document never does.

mod addition;
mod chat;
mod facts;
mod lines;
pub mod mix;
mod stories;
mod words;

use std::fmt;
use std::ops::Range;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::conversation::{ASSISTANT, Message};
use crate::random::Draws;
use crate::{Error, Result};

/// What a document is about. The order is part of what a seed means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Task {
    /// Short stories that end with a question about their state.
    Stories,
    /// Sums of two numbers below 100.
    Addition2,
    /// Sums of two numbers below 1000.
    Addition3,
    /// Sequences of letters, written twice.
    Copy,
    /// Key-value pairs, then the keys in another order, each with its value.
    Recall,
    /// People and their codes, in sentences, then questions.
    Facts,
    /// Conversations of sums, stories and small talk.
    Chat,
}

impl Task {
    /// All tasks.
    pub const ALL: [Task; 7] = [
        Task::Stories,
        Task::Addition2,
        Task::Addition3,
        Task::Copy,
        Task::Recall,
        Task::Facts,
        Task::Chat,
    ];

    /// The name that [`FromStr`] reads.
    pub fn name(self) -> &'static str {
        match self {
            Task::Stories => "stories",
            Task::Addition2 => "addition2",
            Task::Addition3 => "addition3",
            Task::Copy => "copy",
            Task::Recall => "recall",
            Task::Facts => "facts",
            Task::Chat => "chat",
        }
    }

    /// Whether its documents are conversations, which a chat template writes.
    pub fn is_conversation(self) -> bool {
        self == Task::Chat
    }
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Task {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        let task = Self::ALL.into_iter().find(|task| task.name() == name);
        task.ok_or_else(|| Error::UnknownTask {
            found: name.to_owned(),
        })
    }
}

/// The side of the train / held-out divide that a document is drawn from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Split {
    /// Text to learn from.
    Train,
    /// Text to be judged on.
    HeldOut,
}

impl Split {
    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Split::Train => "train",
            Split::HeldOut => "held-out",
        }
    }
}

/// Generated text with what is known about it.
#[derive(Clone, Debug, PartialEq)]
pub struct Document {
    /// The text, without any special token; of a conversation, lines `User: …` and `Assistant: …`.
    pub text: String,
    /// The messages of a conversation; empty for every other task.
    pub messages: Vec<Message>,
    /// Byte ranges of `text` that hold the answers of its problems, in order; at least one.
    pub answers: Vec<Range<usize>>,
    /// Exact −log p(text) in nats, given the task and the split; it includes the choice of where
    /// the document ends, which a model pays for at the token that begins the next document.
    pub entropy: f64,
}

/// A prompt and the text that must follow it, for exact-match scoring.
///
/// `prompt` never ends and `answer` never begins inside a word, so their tokens can be joined.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The text to begin with.
    pub prompt: String,
    /// The right continuation, with its leading space or final full stop where the task has one.
    pub answer: String,
}

/// Document `index` of a task: a pure function of the arguments.
pub fn document(task: Task, seed: u64, index: u64, split: Split) -> Document {
    let mut page = Page {
        draws: Draws::new(task as u64 + 1, seed, index, split as u64),
        text: String::new(),
        messages: Vec::new(),
        answers: Vec::new(),
    };
    match task {
        Task::Stories => stories::write(&mut page),
        Task::Addition2 => addition::write(&mut page, 2, split),
        Task::Addition3 => addition::write(&mut page, 3, split),
        Task::Copy => lines::copy(&mut page),
        Task::Recall => lines::recall(&mut page),
        Task::Facts => facts::write(&mut page),
        Task::Chat => chat::write(&mut page, split),
    }
    Document {
        entropy: page.draws.entropy(),
        text: page.text,
        messages: page.messages,
        answers: page.answers,
    }
}

/// Problem `index` of a task: the document of that index, cut at its first answer.
///
/// So a prompt always looks like the beginning of a training document.
pub fn problem(task: Task, seed: u64, index: u64, split: Split) -> Problem {
    let Document { text, answers, .. } = document(task, seed, index, split);
    let Range { start, end } = answers[0];
    Problem {
        prompt: text[..start].to_owned(),
        answer: text[start..end].to_owned(),
    }
}

/// A document being written.
struct Page {
    draws: Draws,
    text: String,
    messages: Vec<Message>,
    answers: Vec<Range<usize>>,
}

impl Page {
    /// Appends text.
    fn put(&mut self, text: &str) {
        self.text.push_str(text);
    }

    /// Appends the answer of a problem.
    fn answer(&mut self, text: &str) {
        let start = self.text.len();
        self.put(text);
        self.answers.push(start..self.text.len());
    }

    /// Appends a message of the user and the answer of the assistant.
    fn exchange(&mut self, question: &str, answer: &str) {
        self.put(&format!("User: {question}\nAssistant:"));
        self.answer(&format!(" {answer}"));
        self.put("\n");
        for (role, content) in [("user", question), (ASSISTANT, answer)] {
            self.messages.push(Message::new(role, content));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeSet, HashSet};

    use super::*;

    #[test]
    fn names_round_trip_and_unknown_ones_are_refused() {
        for task in Task::ALL {
            assert_eq!(task.to_string().parse::<Task>().unwrap(), task);
            let json = serde_json::to_string(&task).unwrap();
            assert_eq!(json, format!("\"{task}\""), "serde and FromStr spell alike");
        }
        let error = "additon2".parse::<Task>().unwrap_err().to_string();
        assert!(
            error.contains("additon2") && error.contains("addition3"),
            "{error}"
        );
    }

    #[test]
    fn a_document_is_a_pure_function_of_its_arguments() {
        for task in Task::ALL {
            let a = document(task, 1, 7, Split::Train);
            assert_eq!(a, document(task, 1, 7, Split::Train));
            assert_ne!(a.text, document(task, 2, 7, Split::Train).text);
            assert_ne!(a.text, document(task, 1, 8, Split::Train).text);
            assert_ne!(a.text, document(task, 1, 7, Split::HeldOut).text);
        }
    }

    #[test]
    fn a_seed_means_the_same_text_for_ever() {
        let first_lines = [
            (
                Task::Stories,
                "Once Ivy sat in the mill. Zoe was in the shop. She walked to the mill. Ivy walked \
                 to the hall. She made a brown key. Where is the key? In the hall.",
            ),
            (Task::Addition2, "01+36=730"),
            (Task::Addition3, "741+950=1961"),
            (Task::Copy, "copy: q m l j f y m h | q m l j f y m h"),
            (Task::Recall, "recall: g8 v2 y4 | v2 g8 y4"),
            (
                Task::Facts,
                "The code of Ivy is 79. The code of Pam is 81. The code of Ben is 54. The code of \
                 Roy is 57. What is the code of Ivy? 79. What is the code of Ben? 54.",
            ),
        ];
        for (task, expected) in first_lines {
            let text = document(task, 1, 0, Split::Train).text;
            assert_eq!(text.lines().next(), Some(expected));
        }
    }

    #[test]
    fn documents_do_not_repeat_nor_cross_the_split() {
        for task in Task::ALL {
            let texts = |split| (0..2000).map(move |i| document(task, 3, i, split).text);
            let train: HashSet<String> = texts(Split::Train).collect();
            let held_out: HashSet<String> = texts(Split::HeldOut).collect();
            assert_eq!((train.len(), held_out.len()), (2000, 2000), "{task}");
            assert!(train.is_disjoint(&held_out), "{task}");
        }
    }

    #[test]
    fn a_problem_is_a_document_cut_at_its_first_answer() {
        for task in Task::ALL {
            for index in 0..100 {
                let document = document(task, 5, index, Split::HeldOut);
                let problem = problem(task, 5, index, Split::HeldOut);
                assert!(
                    document
                        .text
                        .starts_with(&(problem.prompt.clone() + &problem.answer))
                );
                assert!(!problem.prompt.ends_with(' ') && !problem.answer.is_empty());
                assert!(document.entropy > 0.0 && document.answers.is_sorted_by_key(|r| r.start));
            }
        }
    }

    #[test]
    fn the_vocabulary_is_small_enough_for_a_small_tokenizer() {
        let mut words = BTreeSet::new();
        for task in Task::ALL {
            for index in 0..2000 {
                let text = document(task, 0, index, Split::Train).text;
                words.extend(
                    text.split(|c: char| !c.is_ascii_alphabetic())
                        .filter(|word| !word.is_empty())
                        .map(str::to_owned),
                );
            }
        }
        assert!(
            words.len() <= 210,
            "{} distinct words: {words:?}",
            words.len()
        );
    }
}
