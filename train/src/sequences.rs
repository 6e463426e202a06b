//! Rows of tokens as a model trains on them: inputs, targets, and where documents start.

use std::sync::Arc;

use sterna_datasets::rows;

use crate::ops::{self, DocumentStarts};

/// Sequences of the same length: input tokens and the targets of each.
pub struct Sequences {
    /// Tokens of a sequence.
    pub context: usize,
    pub(crate) ids: Vec<u32>,
    pub(crate) targets: Vec<u32>,
    pub(crate) document_starts: Option<DocumentStarts>,
}

impl Sequences {
    /// Takes rows of `context` + 1 tokens: each token of a row predicts the next one.
    ///
    /// Tokens may carry the flags of [`sterna_datasets::rows`]: an unscored token is not a target,
    /// and tokens do not attend beyond the first token of their document.
    pub fn new(rows: &[u32], context: usize) -> Sequences {
        let inputs = || inputs(rows, context);
        let is_flagged = inputs().any(|token| token & rows::FIRST != 0);
        let document_starts =
            is_flagged.then(|| document_starts(inputs().map(|t| t & rows::FIRST != 0), context));
        let target = |token: u32| match token & rows::UNSCORED {
            0 => rows::id(token),
            _ => ops::UNSCORED,
        };
        Sequences {
            context,
            ids: inputs().map(rows::id).collect(),
            targets: targets(rows, context).map(target).collect(),
            document_starts,
        }
    }

    /// Limits attention to the document of a token. A document starts at each token `first`.
    pub fn apart(mut self, first: u32) -> Sequences {
        let firsts = self.ids.iter().map(|id| *id == first);
        self.document_starts = Some(document_starts(firsts, self.context));
        self
    }
}

/// All tokens but the last of each row.
fn inputs(rows: &[u32], context: usize) -> impl Iterator<Item = u32> {
    let rows = rows.chunks_exact(context + 1);
    rows.flat_map(move |row| &row[..context]).copied()
}

/// All tokens but the first of each row.
fn targets(rows: &[u32], context: usize) -> impl Iterator<Item = u32> {
    rows.chunks_exact(context + 1)
        .flat_map(|row| &row[1..])
        .copied()
}

/// The number of scored targets in rows of `context` + 1 tokens.
pub(crate) fn scored(rows: &[u32], context: usize) -> usize {
    let targets = targets(rows, context);
    targets.filter(|token| token & rows::UNSCORED == 0).count()
}

/// The position where the document of each token starts in its sequence. `firsts` says for each
/// token whether a document starts there.
fn document_starts(firsts: impl Iterator<Item = bool>, context: usize) -> DocumentStarts {
    let mut starts = Vec::new();
    for (i, is_first) in firsts.enumerate() {
        let position = i % context;
        let start = match position == 0 || is_first {
            true => position as u32,
            false => starts[i - 1],
        };
        starts.push(start);
    }
    Arc::new(starts)
}
