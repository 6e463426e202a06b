//! Runs models through a task, item by item, and remembers what was answered.
//!
//! There is one file per (model, task) with one line of JSON per item. Figures are computed from
//! the line, so they have the same bits whether an answer was read or just given. Everything after
//! the first line that is torn or out of order is cut off and asked again.

use std::io::Write;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::judge::Subject;
use crate::tasks::{AccuracyTask, ItemOutcome, PairedTest, Score, TaskSummary, compare, scores};
use crate::{Error, Result, store};

/// The result of one model on one task.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Exam {
    /// Name of the task.
    pub task: String,
    /// How it asks.
    #[serde(flatten)]
    pub summary: TaskSummary,
    /// SHA-256 of all items as the models see them, and of what is right.
    pub sha256: String,
    /// Its figures with their errors.
    pub scores: Vec<Score>,
    /// The figure that models are compared by.
    pub metric: String,
    /// The first model and this one on the same items; `None` of the first.
    pub beside_first: Option<PairedTest>,
}

impl Exam {
    /// The figure that models are compared by.
    pub fn main(&self) -> Option<&Score> {
        self.scores.iter().find(|score| score.metric == self.metric)
    }
}

/// Asks every model every item. `state` is a folder where answers are kept; `seen` gets the items
/// that were answered and all of them, and says whether to go on; `None` where it said no.
///
/// # Errors
/// Those of [`AccuracyTask::score`], and [`Error::Io`].
pub fn examine(
    subjects: &[Subject],
    task: &AccuracyTask,
    state: &Path,
    seen: &mut dyn FnMut(usize, usize) -> bool,
) -> Result<Option<Vec<Exam>>> {
    let sha256 = task.sha256();
    let total = task.len() * subjects.len();
    let mut exams: Vec<Exam> = Vec::new();
    let mut first: Option<Vec<ItemOutcome>> = None;
    for (i, subject) in subjects.iter().enumerate() {
        let kv_type = format!("{:?}", subject.kv_type);
        let key = store::key(&[VERSION, &subject.sha256, &sha256, task.name(), &kv_type]);
        let path = state.join(format!("{key}.outcomes"));
        let outcomes = ask(subject, task, &path, &mut |done| {
            seen(i * task.len() + done, total)
        })?;
        if outcomes.len() < task.len() {
            return Ok(None);
        }
        let metric = task.main_metric();
        let beside_first = first
            .as_ref()
            .map(|first| compare(first, &outcomes, &metric));
        exams.push(Exam {
            task: task.name().to_owned(),
            summary: task.summary(),
            sha256: sha256.clone(),
            scores: scores(&outcomes),
            metric,
            beside_first: beside_first.transpose()?,
        });
        first.get_or_insert(outcomes);
    }
    Ok(Some(exams))
}

/// Version of the scoring code, part of the key of a store. Raise it when a change alters answers.
const VERSION: &str = "3";

/// The answers of one model, those in the file at `path` first; not all of them where `seen` said
/// not to go on.
fn ask(
    subject: &Subject,
    task: &AccuracyTask,
    path: &Path,
    seen: &mut dyn FnMut(usize) -> bool,
) -> Result<Vec<ItemOutcome>> {
    let io = |source| Error::Io {
        path: path.to_owned(),
        source,
    };
    let (mut file, mut outcomes) = store::open_whole(path, |text| kept(text, task.len()))?;
    let mut failed = None;
    let from = outcomes.len();
    task.score(&subject.model, &subject.tokenizer, from, &mut |outcome| {
        let line = serde_json::to_string(&outcome).expect("an outcome is plain data");
        failed = writeln!(file, "{line}").err();
        outcomes.push(serde_json::from_str(&line).expect("what was written can be read"));
        failed.is_none() && seen(outcomes.len())
    })?;
    match failed {
        Some(error) => Err(io(error)),
        None => Ok(outcomes),
    }
}

/// The outcomes in whole lines, in order, and how many bytes they take.
fn kept(text: &[u8], items: usize) -> (Vec<ItemOutcome>, usize) {
    let (mut outcomes, mut whole) = (Vec::new(), 0);
    let lines = text.split_inclusive(|byte| *byte == b'\n');
    for line in lines.filter(|line| line.ends_with(b"\n")).take(items) {
        match serde_json::from_slice::<ItemOutcome>(line) {
            Ok(outcome) if outcome.item == outcomes.len() => outcomes.push(outcome),
            _ => break,
        }
        whole += line.len();
    }
    (outcomes, whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_count_up_to_the_damage() {
        let line = |item: usize| format!("{{\"item\":{item},\"metrics\":{{\"acc\":1.0}}}}\n");
        let text = line(0) + &line(1);
        let check = |text: &str, expected: usize| {
            let (outcomes, whole) = kept(text.as_bytes(), 5);
            assert_eq!(
                (outcomes.len(), whole),
                (expected, expected * line(0).len()),
                "{text}"
            );
        };
        check(&text, 2);
        check(&text[..text.len() - 1], 1);
        check(&(line(0) + "no json\n" + &line(1)), 1);
        check(&(line(0) + &line(2)), 1);
        check("", 0);
        assert_eq!(kept(text.as_bytes(), 1).0.len(), 1);
    }
}
