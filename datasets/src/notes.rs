//! What there is to say about records: what they were taken for, what of them is not read or not
//! learned, and what was left out. Nothing that people bring is dropped in silence.

use std::collections::BTreeMap;
use std::fmt;

use crate::answers::RenderedConversation;
use crate::conversation::{Conversation, Layout};
use crate::{Error, Result};

/// Counts over conversations.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Notes {
    /// Conversations of each layout.
    pub layouts: BTreeMap<Layout, u64>,
    /// Records with a key that is not null and not read.
    pub unread: BTreeMap<String, u64>,
    /// Conversations with a key of a message, or a variable, that the template does not name.
    pub unnamed: BTreeMap<String, u64>,
    /// Messages with a role that the template knows by another name: as written, and there.
    pub renamed: BTreeMap<(String, String), u64>,
    /// Answers that are read and not learned because the template writes nothing of them.
    pub empty: u64,
    /// Answers that are read and not learned because the record says so.
    pub read_only: u64,
    /// Conversations without a learned answer.
    pub unlearned: u64,
    /// Conversations that are not learned because their records say that they are not wanted.
    pub undesirable: u64,
    /// Records with NaN, Infinity or half of a surrogate pair.
    pub repaired: u64,
    /// Records that were left out.
    pub skipped: Skipped,
    /// The first conversations, with `⟦` and `⟧` around what is learned.
    pub examples: Vec<Example>,
}

/// A conversation as it will be learned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Example {
    /// Its file and line.
    pub place: String,
    /// Its text, with `⟦` and `⟧` around what is learned.
    pub text: String,
}

/// Examples that are kept.
const EXAMPLES: usize = 2;

impl Notes {
    /// Counts a conversation whose answers are not wanted.
    pub fn add_undesirable(&mut self, conversation: &Conversation) {
        *self.layouts.entry(conversation.layout).or_default() += 1;
        self.undesirable += 1;
    }

    /// Counts a conversation and what the template wrote for it.
    pub fn add(&mut self, conversation: &Conversation, rendered: &RenderedConversation) {
        *self.layouts.entry(conversation.layout).or_default() += 1;
        for key in &conversation.unread {
            *self.unread.entry(key.clone()).or_default() += 1;
        }
        for key in &rendered.unnamed {
            *self.unnamed.entry(key.clone()).or_default() += 1;
        }
        for roles in &conversation.renamed {
            *self.renamed.entry(roles.clone()).or_default() += 1;
        }
        self.repaired += u64::from(conversation.is_repaired);
        self.empty += rendered.empty;
        self.read_only += rendered.read_only;
        self.unlearned += u64::from(rendered.texts.is_empty());
        if let Some(text) = rendered.texts.last()
            && self.examples.len() < EXAMPLES
        {
            self.examples.push(Example {
                place: conversation.place(),
                text: text.marked(),
            });
        }
    }
}

impl Notes {
    /// What is not learned although people may expect it, and what was left out; a line each.
    pub fn warnings(&self) -> Vec<String> {
        let mut lines = Vec::new();
        if !self.unnamed.is_empty() {
            lines.push(format!(
                "the chat template does not name these keys, so they are not learned (with the \
                 number of conversations): {}",
                counted(&self.unnamed)
            ));
        }
        if self.empty > 0 {
            lines.push(format!(
                "{} answers are read and not learned, because the chat template writes nothing of \
                 them",
                self.empty
            ));
        }
        if self.unlearned > 0 {
            let n = self.unlearned;
            lines.push(format!(
                "{n} conversations have nothing to learn and were left out"
            ));
        }
        if self.undesirable > 0 {
            let n = self.undesirable;
            lines.push(format!(
                "{n} records say that their answers are not wanted (`label` or `kto_tag` is \
                 false) and were left out"
            ));
        }
        lines.extend(repaired(self.repaired));
        lines.extend(self.skipped.warning());
        lines
    }
}

/// What was recognized, and the examples; several lines.
impl fmt::Display for Notes {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let layouts = self.layouts.iter();
        let layouts = layouts.map(|(l, n)| format!("{n} of layout {l} ({})", l.meaning()));
        write!(f, "conversations: {}", joined(layouts))?;
        if !self.renamed.is_empty() {
            let roles = self.renamed.iter();
            let roles = roles.map(|((from, to), n)| format!("{from} is {to} ({n} messages)"));
            write!(f, "\nroles: {}", joined(roles))?;
        }
        if !self.unread.is_empty() {
            let keys = counted(&self.unread);
            write!(
                f,
                "\nkeys that are not read (with the number of records): {keys}"
            )?;
        }
        if self.read_only > 0 {
            let n = self.read_only;
            write!(
                f,
                "\n{n} answers are read and not learned, as their records say"
            )?;
        }
        for example in &self.examples {
            let text = shown(&example.text).replace('\n', "\n  ");
            write!(
                f,
                "\n{}; what is between ⟦ and ⟧ is learned:\n  {text}",
                example.place
            )?;
        }
        Ok(())
    }
}

fn counted(keys: &BTreeMap<String, u64>) -> String {
    joined(keys.iter().map(|(key, n)| format!("`{key}` ({n})")))
}

fn joined(parts: impl Iterator<Item = String>) -> String {
    parts.collect::<Vec<_>>().join(", ")
}

/// Characters of an example at its beginning and at its end that are shown.
const SHOWN: [usize; 2] = [300, 500];

/// The beginning and the end of a text, without control characters except line breaks.
fn shown(text: &str) -> String {
    let letters: Vec<char> = text.trim_end().chars().collect();
    let [first, last] = SHOWN;
    let escaped = |letters: &[char]| -> String {
        let escape = |c: &char| match c {
            '\n' => "\n".to_owned(),
            c if c.is_control() => c.escape_default().to_string(),
            c => c.to_string(),
        };
        letters.iter().map(escape).collect()
    };
    match letters.len() > first + last {
        true => format!(
            "{} […] {}",
            escaped(&letters[..first]),
            escaped(&letters[letters.len() - last..])
        ),
        false => escaped(&letters),
    }
}

/// A line about records with NaN, Infinity or half of a surrogate pair, if there are any.
pub(crate) fn repaired(count: u64) -> Option<String> {
    (count > 0).then(|| {
        format!(
            "{count} records have NaN or Infinity, which are read as null, or half of a surrogate \
             pair, which is read as U+FFFD"
        )
    })
}

/// Records that were left out because they cannot be used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Skipped {
    /// Their number.
    pub count: u64,
    /// The number of all records.
    pub of: u64,
    /// The first reasons, each with its place.
    pub first: Vec<String>,
}

impl Skipped {
    /// Their number and the first reasons, if there are any.
    pub fn warning(&self) -> Option<String> {
        let Skipped { count, of, first } = self;
        if *count == 0 {
            return None;
        }
        let mut text = format!("{count} of {of} records cannot be used and were left out:");
        for reason in first {
            text += &format!("\n  {reason}");
        }
        match *count as usize - first.len() {
            0 => {}
            more => text += &format!("\n  and {more} more"),
        }
        Some(text)
    }
}

/// Reasons that are kept.
const REASONS: usize = 3;

/// With this many records at the beginning of the data, none of which can be used, the data are of
/// another kind.
const HOPELESS: u64 = 1000;

/// Leaves out records that cannot be used, up to a tenth of all.
#[derive(Debug)]
pub struct Tolerance {
    is_strict: bool,
    skipped: Skipped,
}

impl Tolerance {
    /// A strict one leaves out nothing.
    pub fn new(is_strict: bool) -> Self {
        let skipped = Skipped::default();
        Self { is_strict, skipped }
    }

    /// The record, or none if it is left out.
    ///
    /// # Errors
    /// Errors that do not come from one record, every error if strict, and
    /// [`Error::BadRecords`] after a long beginning of bad records.
    pub fn keep<T>(&mut self, record: Result<T>) -> Result<Option<T>> {
        self.skipped.of += 1;
        let error = match record {
            Ok(record) => return Ok(Some(record)),
            Err(error) if self.is_strict || !error.is_of_a_record() => return Err(error),
            Err(error) => error,
        };
        self.skipped.count += 1;
        if self.skipped.first.len() < REASONS {
            self.skipped.first.push(error.to_string());
        }
        let Skipped { count, of, .. } = self.skipped;
        match count == of && of >= HOPELESS {
            true => Err(self.skipped.clone().into()),
            false => Ok(None),
        }
    }

    /// The records that were left out.
    ///
    /// # Errors
    /// [`Error::BadRecords`] if they are more than a tenth.
    pub fn finish(self) -> Result<Skipped> {
        match self.skipped.count * 10 > self.skipped.of {
            true => Err(self.skipped.into()),
            false => Ok(self.skipped),
        }
    }
}

impl From<Skipped> for Error {
    fn from(skipped: Skipped) -> Self {
        let Skipped { count, of, first } = skipped;
        Error::BadRecords { count, of, first }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bad(line: u64) -> Result<u64> {
        Err(Error::Json {
            path: "a.jsonl".into(),
            line,
            reason: "bad".into(),
        })
    }

    #[test]
    fn a_tenth_may_be_bad_and_the_first_reasons_are_kept() {
        let read = |is_strict, bad_lines: &[u64], lines| -> Result<(Vec<u64>, Skipped)> {
            let mut tolerance = Tolerance::new(is_strict);
            let mut kept = Vec::new();
            for line in 1..=lines {
                let record = match bad_lines.contains(&line) {
                    true => bad(line),
                    false => Ok(line),
                };
                kept.extend(tolerance.keep(record)?);
            }
            Ok((kept, tolerance.finish()?))
        };
        let (kept, skipped) = read(false, &[3, 9], 20).unwrap();
        assert_eq!((kept.len(), skipped.count, skipped.of), (18, 2, 20));
        assert_eq!(
            skipped.first,
            ["a.jsonl, line 3: bad", "a.jsonl, line 9: bad"]
        );
        let error = read(false, &[3, 9], 19).unwrap_err().to_string();
        assert!(
            error.starts_with("2 of 19 records cannot be used") && error.contains("line 3: bad"),
            "{error}"
        );
        let strict = read(true, &[3], 20).unwrap_err().to_string();
        assert_eq!(strict, "a.jsonl, line 3: bad");
        let all: Vec<u64> = (1..=5000).collect();
        assert!(
            read(false, &all, 5000)
                .unwrap_err()
                .to_string()
                .starts_with("1000 of 1000")
        );
    }

    #[test]
    fn errors_of_files_are_not_tolerated() {
        let missing = Error::io("a.jsonl".as_ref(), "read")(std::io::ErrorKind::NotFound.into());
        assert!(Tolerance::new(false).keep::<u64>(Err(missing)).is_err());
    }
}
