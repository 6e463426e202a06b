//! Runs models over a text under a convention, beside a reference, and remembers what was done.

use std::ops::Range;
use std::path::{Path, PathBuf};

use sterna_runtime::{KvType, Model, Options, Tokenizer};
use sterna_ternary::sha256;

use crate::accuracy::Scored;
use crate::pass::{self, Position};
use crate::store::{self, Store};
use crate::text::Text;
use crate::windows::{Convention, Window};
use crate::{Error, Result};

/// A model under judgment.
#[derive(Debug)]
pub struct Subject {
    /// Ready to run.
    pub model: Model,
    /// The tokenizer inside its file.
    pub tokenizer: Tokenizer,
    /// How it is called in the report.
    pub name: String,
    /// Its packed file.
    pub path: PathBuf,
    /// SHA-256 of its file.
    pub sha256: String,
    /// Element type of its KV caches.
    pub kv_type: KvType,
}

impl Subject {
    /// Opens and hashes a packed file.
    ///
    /// # Errors
    /// Those of [`Model::open`] and of the tokenizer inside, and [`Error::Io`].
    pub fn open(path: &Path, name: String, options: Options) -> Result<Subject> {
        let model = Model::open(path, options)?;
        let sha256 = sha256::of_file(path).map_err(|source| Error::Io {
            path: path.to_owned(),
            source,
        })?;
        Ok(Subject {
            tokenizer: model.tokenizer()?,
            model,
            name,
            path: path.to_owned(),
            sha256,
            kv_type: options.kv_type,
        })
    }
}

/// The longest context that every model takes.
pub fn longest_context(subjects: &[Subject]) -> usize {
    let longest = subjects
        .iter()
        .map(|s| s.model.config().max_position_embeddings);
    longest.min().unwrap_or(1)
}

/// Names for the report: the last part of each path, with a number if two are equal.
pub fn names(given: &[PathBuf]) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for path in given {
        let stem = match path.is_dir() {
            true => path.file_name(),
            false => path.file_stem(),
        };
        let stem = stem
            .unwrap_or(path.as_os_str())
            .to_string_lossy()
            .into_owned();
        let numbered = (2..).map(|i| format!("{stem} ({i})"));
        let mut candidates = std::iter::once(stem.clone()).chain(numbered);
        let free = candidates.find(|name| !names.contains(name));
        names.push(free.expect("numbers do not end"));
    }
    names
}

/// A text and how it is scored.
#[derive(Debug, Clone, Copy)]
pub struct Passage<'a> {
    /// The text.
    pub text: &'a Text,
    /// How it is cut into windows.
    pub convention: Convention,
    /// Most tokens to score: whole windows (or documents, where they are scored alone) are taken up
    /// to this number. `None` for all.
    pub most_tokens: Option<usize>,
    /// A folder where what was scored is kept.
    pub state: &'a Path,
}

/// How one model predicted a text.
#[derive(Debug)]
pub struct Judgment {
    /// The windows that were scored.
    pub windows: Vec<Window>,
    /// For each of them its positions.
    pub positions: Vec<Vec<Position>>,
    /// Whether the positions say how far they are from the first model's.
    pub is_compared: bool,
}

impl Judgment {
    /// The same with what it was made of.
    pub fn scored<'a>(&'a self, passage: &Passage<'a>) -> Scored<'a> {
        Scored {
            convention: passage.convention,
            text: passage.text,
            windows: &self.windows,
            positions: &self.positions,
        }
    }
}

/// Version of the scoring code, part of the key of a store. Raise it when a change alters results.
const VERSION: &str = "2";

/// Scores a text with each subject, those with the tokens of the first one beside it. `seen` is
/// called with the number of tokens scored so far and the total, and returns whether to go on; the
/// result is `None` if it says no.
///
/// # Errors
/// Those of [`Convention::windows`], [`Store`] and [`pass::score`].
pub fn judge(
    subjects: &[Subject],
    passage: &Passage,
    seen: &mut dyn FnMut(usize, usize) -> bool,
) -> Result<Option<Vec<Judgment>>> {
    let mut all = Vec::new();
    for subject in subjects {
        all.push(
            passage
                .convention
                .windows(passage.text, &subject.model, &subject.tokenizer)?,
        );
    }
    let groups = groups(subjects, &all);
    let counts: Vec<usize> = all.iter().map(|w| wanted(w, passage)).collect();
    let tokens = |i: usize| all[i][..counts[i]].iter().map(|w| w.scored).sum::<usize>();
    let total = groups.iter().map(|group| tokens(group[0])).sum();
    let mut judgments: Vec<Option<Judgment>> = subjects.iter().map(|_| None).collect();
    let mut before = 0;
    // Members of a group have the same windows, and the first one is their reference.
    for group in &groups {
        let windows = &all[group[0]];
        let members: Vec<&Subject> = group.iter().map(|i| &subjects[*i]).collect();
        let mut stores = Vec::new();
        for member in &members {
            stores.push(open(member, members[0], passage, windows)?);
        }
        // Scored tokens at the end of each window, those of earlier groups included.
        let ends: Vec<usize> = windows
            .iter()
            .scan(before, |end, window| {
                *end += window.scored;
                Some(*end)
            })
            .collect();
        let mut count = |done: usize| seen(ends[done - 1], total);
        if !fill(&members, &mut stores, windows, counts[group[0]], &mut count)? {
            return Ok(None);
        }
        for (i, mut store) in group.iter().zip(stores) {
            store.windows.truncate(counts[*i]);
            judgments[*i] = Some(Judgment {
                windows: windows[..counts[*i]].to_vec(),
                positions: store.windows,
                is_compared: *i > 0 && group.len() > 1,
            });
        }
        before += tokens(group[0]);
    }
    Ok(judgments.into_iter().collect())
}

/// Groups of subjects that are scored together: those with the same tokens as the first one, and
/// each of the others alone.
fn groups(subjects: &[Subject], windows: &[Vec<Window>]) -> Vec<Vec<usize>> {
    let vocab_size = |i: usize| subjects[i].model.config().vocab_size;
    let like_first = |i: &usize| windows[*i] == windows[0] && vocab_size(*i) == vocab_size(0);
    let (together, others): (Vec<usize>, Vec<usize>) = (0..subjects.len()).partition(like_first);
    let alone = others.into_iter().map(|i| vec![i]);
    std::iter::once(together).chain(alone).collect()
}

/// How many windows there are until enough tokens are scored; at least one, and whole documents.
fn wanted(windows: &[Window], passage: &Passage) -> usize {
    let Some(most) = passage.most_tokens else {
        return windows.len();
    };
    let mut tokens = 0;
    let fits = windows.iter().take_while(|window| {
        tokens += window.scored;
        tokens <= most
    });
    let n = fits.count().max(1);
    let is_whole = |n: &usize| windows[*n - 1].document != windows[*n].document;
    match passage.convention {
        Convention::Rolling { .. } if n < windows.len() => {
            let documents_before = (1..=n).rev().find(is_whole);
            let or_after = (n..windows.len()).find(is_whole);
            documents_before.or(or_after).unwrap_or(windows.len())
        }
        _ => n,
    }
}

fn open(
    subject: &Subject,
    first: &Subject,
    passage: &Passage,
    windows: &[Window],
) -> Result<Store> {
    let source = passage.text.source();
    let reference = match std::ptr::eq(subject, first) {
        true => "none",
        false => &first.sha256,
    };
    let convention = format!("{:?}", passage.convention);
    let documents = source.documents.to_string();
    let cache = format!("{:?}", subject.kv_type);
    let key = store::key(&[
        VERSION,
        &subject.sha256,
        reference,
        &source.sha256,
        &documents,
        &convention,
        &cache,
    ]);
    let lengths: Vec<usize> = windows.iter().map(|w| w.scored).collect();
    Store::open(passage.state, &key, &lengths)
}

/// Scores what the stores lack of the first `count` windows; false if `seen` stopped it.
fn fill(
    members: &[&Subject],
    stores: &mut [Store],
    windows: &[Window],
    count: usize,
    seen: &mut dyn FnMut(usize) -> bool,
) -> Result<bool> {
    loop {
        let done = |store: &Store| store.windows.len().min(count);
        let start = stores.iter().map(done).min().unwrap_or(count);
        if start == count {
            return Ok(true);
        }
        // The stores with the fewest windows catch up with the next one, beside the reference.
        let late: Vec<usize> = (0..stores.len())
            .filter(|i| done(&stores[*i]) == start)
            .collect();
        let ahead = stores.iter().map(done).filter(|n| *n > start).min();
        let range: Range<usize> = start..ahead.unwrap_or(count);
        // The reference always takes part, since the others are compared with its logits.
        let mut lineup = late.clone();
        if lineup[0] != 0 {
            lineup.insert(0, 0);
        }
        let models: Vec<&Model> = lineup.iter().map(|i| &members[*i].model).collect();
        let mut goes_on = true;
        pass::score(&models, true, windows, range, &mut |window, positions| {
            for (i, positions) in lineup.iter().zip(positions) {
                if late.contains(i) {
                    stores[*i].push(positions)?;
                }
            }
            goes_on = seen(window + 1);
            Ok(goes_on)
        })?;
        if !goes_on {
            return Ok(false);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_short_and_different() {
        let given = ["a/model.sterna", "b/model.sterna", "org/name"].map(PathBuf::from);
        assert_eq!(names(&given), ["model", "model (2)", "name"]);
    }
}
