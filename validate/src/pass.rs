//! One pass of several models over the same windows: what each one predicts, and how far its
//! predictions are from those of the reference.
//!
//! Windows go through a model many at a time, in calls of whole batches, so that a pass is as fast
//! as prompts are. The logits of a call are reduced to a few numbers per token and dropped: there
//! is no file of logits, and memory holds two pieces of them however long the text is. The runtime
//! gives a token the same logits for any batch composition and number of threads, and sums over the
//! vocabulary run in f64 in its order, so these numbers are reproducible too.

use std::ops::Range;

use sterna_runtime::sampler::log_sum_exp;
use sterna_runtime::{KvCache, Logits, Model, Part};

use crate::windows::Window;
use crate::{Error, Result};

/// How a model predicts one token of a text.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Position {
    /// −ln of the token's probability, in nats.
    pub nll: f64,
    /// How far the prediction is from the reference's; `None` where there is no reference.
    pub apart: Option<Apart>,
}

/// A prediction q beside the prediction p of the reference.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Apart {
    /// KL divergence Σ p ln(p / q), in nats.
    pub kl: f64,
    /// q − p of the token that follows in the text.
    pub delta_p: f64,
    /// Whether the most probable token is the same.
    pub same_top: bool,
    /// Tokens that are among the five most probable of both.
    pub top5: u8,
}

/// Called with the index of a window and its positions for every model. Returns whether to go on.
pub type OnWindow<'a> = dyn FnMut(usize, &[Vec<Position>]) -> Result<bool> + 'a;

/// Bytes of logits in memory at a time, for each of two models.
const LOGITS: usize = 256 << 20;
/// Most tokens of the windows that pass together; a longer window passes alone.
const BATCH: usize = 1024;

/// Scores windows with each model, one window after the other. With `has_reference`, the first
/// model is what the others are compared with.
///
/// # Errors
/// Those of [`Model::forward`], [`Error::NotFinite`], and those of `seen`.
pub fn score(
    models: &[&Model],
    has_reference: bool,
    windows: &[Window],
    indices: Range<usize>,
    seen: &mut OnWindow,
) -> Result<()> {
    let mut start = indices.start;
    while start < indices.end {
        let end = batch(windows, start..indices.end);
        let scored = pass(models, has_reference, &windows[start..end])?;
        for (offset, positions) in scored.iter().enumerate() {
            if !seen(start + offset, positions)? {
                return Ok(());
            }
        }
        start = end;
    }
    Ok(())
}

/// The loss of one model on each scored token, in nats: of the first window, of the second, and so
/// on.
///
/// # Errors
/// Those of [`Model::forward`] and [`Error::NotFinite`].
pub fn losses(model: &Model, windows: &[Window]) -> Result<Vec<f64>> {
    let mut losses = Vec::new();
    score(
        &[model],
        false,
        windows,
        0..windows.len(),
        &mut |_, positions| {
            losses.extend(positions[0].iter().map(|position| position.nll));
            Ok(true)
        },
    )?;
    Ok(losses)
}

/// The end of the windows that pass together.
fn batch(windows: &[Window], range: Range<usize>) -> usize {
    let mut tokens = 0;
    let fits = windows[range.clone()].iter().take_while(|window| {
        tokens += window.ids.len();
        tokens <= BATCH
    });
    range.start + fits.count().max(1)
}

/// Positions, by window and model.
fn pass(
    models: &[&Model],
    has_reference: bool,
    windows: &[Window],
) -> Result<Vec<Vec<Vec<Position>>>> {
    let mut caches = Vec::new();
    for model in models {
        caches.push(prefixes(model, windows)?);
    }
    let mut scored = vec![vec![Vec::new(); models.len()]; windows.len()]; // (windows, models)
    // Rows of logits that fit the limit, for the model with the largest vocabulary.
    let widest = models.iter().map(|m| m.config().vocab_size).max();
    let rows = (LOGITS / 4 / widest.unwrap_or(1)).max(64);
    for piece in pieces(windows, rows) {
        // All models see a piece before the next one, so only its logits and the reference's are
        // kept.
        let mut reference = None;
        for (m, model) in models.iter().enumerate() {
            let logits = logits(model, &mut caches[m], windows, &piece)?;
            // A place predicts the token after it.
            let targets = piece
                .iter()
                .flat_map(|(w, range)| &windows[*w].ids[range.start + 1..range.end + 1]);
            let targets: Vec<u32> = targets.copied().collect();
            let found = positions(&logits, reference.as_deref(), &targets, model);
            let is_number =
                |p: &Position| p.nll.is_finite() && p.apart.is_none_or(|a| !a.kl.is_nan());
            if !found.iter().all(is_number) {
                let path = model.file().path().to_owned();
                return Err(Error::NotFinite { path });
            }
            // A window may continue in the next piece, so positions are appended.
            let mut positions = found.into_iter();
            for (w, range) in &piece {
                scored[*w][m].extend(positions.by_ref().take(range.len()));
            }
            if has_reference && m == 0 {
                reference = Some(logits);
            }
        }
    }
    Ok(scored)
}

/// One cache per window, filled with the tokens before the first one that predicts.
fn prefixes(model: &Model, windows: &[Window]) -> Result<Vec<KvCache>> {
    let caches = windows.iter().map(|w| model.new_cache(w.ids.len() - 1));
    let mut caches = caches.collect::<std::result::Result<Vec<KvCache>, _>>()?;
    let parts = caches.iter_mut().zip(windows).map(|(cache, w)| Part {
        cache,
        ids: &w.ids[..w.ids.len() - 1 - w.scored],
        logits: Logits::None,
    });
    let mut parts: Vec<Part> = parts.filter(|part| !part.ids.is_empty()).collect();
    if !parts.is_empty() {
        model.forward_many(&mut parts)?;
    }
    Ok(caches)
}

/// The places that predict, cut into pieces of at most `rows`: pairs of a window and a range of its
/// tokens.
fn pieces(windows: &[Window], rows: usize) -> Vec<Vec<(usize, Range<usize>)>> {
    let mut pieces = vec![Vec::new()];
    let mut room = rows;
    for (w, window) in windows.iter().enumerate() {
        let (mut from, end) = (window.ids.len() - 1 - window.scored, window.ids.len() - 1);
        while from < end {
            if room == 0 {
                pieces.push(Vec::new());
                room = rows;
            }
            let to = end.min(from + room);
            let piece = pieces.last_mut().expect("there is one from the start");
            piece.push((w, from..to));
            room -= to - from;
            from = to;
        }
    }
    pieces
}

/// (tokens of the piece, vocab_size)
fn logits(
    model: &Model,
    caches: &mut [KvCache],
    windows: &[Window],
    piece: &[(usize, Range<usize>)],
) -> Result<Vec<f32>> {
    let mut wanted = piece.iter().peekable();
    let mut parts = Vec::new();
    for (w, cache) in caches.iter_mut().enumerate() {
        if let Some((_, range)) = wanted.next_if(|(of, _)| *of == w) {
            parts.push(Part {
                cache,
                ids: &windows[w].ids[range.clone()],
                logits: Logits::All,
            });
        }
    }
    Ok(model.forward_many(&mut parts)?)
}

/// Reduces each row of logits to a position, on the threads of the model.
fn positions(
    logits: &[f32],
    reference: Option<&[f32]>,
    targets: &[u32],
    model: &Model,
) -> Vec<Position> {
    let vocab_size = model.config().vocab_size;
    let row = |i: usize| {
        let range = i * vocab_size..(i + 1) * vocab_size;
        let p = reference.map(|logits| &logits[range.clone()]);
        position(&logits[range], p, targets[i] as usize)
    };
    let mut positions = vec![Position::default(); targets.len()];
    let fill = |i: usize, position: &mut [Position]| position[0] = row(i);
    model.pool().chunks_mut(&mut positions, 1, fill);
    positions
}

fn position(q: &[f32], p: Option<&[f32]>, target: usize) -> Position {
    let q_sum = log_sum_exp(q);
    let nll = q_sum - f64::from(q[target]);
    let apart = p.map(|p| {
        let p_sum = log_sum_exp(p);
        let p_nll = p_sum - f64::from(p[target]);
        let (p_top, q_top) = (top(p), top(q));
        let in_both = p_top.iter().filter(|id| q_top.contains(id));
        Apart {
            kl: divergence(p, p_sum, q, q_sum),
            delta_p: (-nll).exp() - (-p_nll).exp(),
            same_top: p_top[0] == q_top[0],
            top5: in_both.count() as u8,
        }
    });
    Position { nll, apart }
}

/// Σ p ln(p / q); exactly 0 for equal logits.
fn divergence(p: &[f32], p_sum: f64, q: &[f32], q_sum: f64) -> f64 {
    let terms = p.iter().zip(q).map(|(p, q)| {
        let log_p = f64::from(*p) - p_sum;
        log_p.exp() * (log_p - (f64::from(*q) - q_sum))
    });
    terms.sum::<f64>().max(0.0)
}

/// How many of the most probable tokens are compared.
pub(crate) const TOP: usize = 5;

/// The ids of the largest logits, largest first, the lower id first among equals.
fn top(logits: &[f32]) -> Vec<usize> {
    let mut top: Vec<usize> = Vec::with_capacity(TOP + 1);
    for (id, x) in logits.iter().enumerate() {
        if top.len() == TOP && *x <= logits[top[TOP - 1]] {
            continue;
        }
        let place = top.partition_point(|other| logits[*other] >= *x);
        top.insert(place, id);
        top.truncate(TOP);
    }
    top
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prediction_beside_another() {
        let ln = |p: [f64; 6]| p.map(|p| (p.ln() + 3.0) as f32);
        let p = ln([0.5, 0.25, 0.125, 0.0625, 0.03125, 0.03125]);
        let q = ln([0.25, 0.5, 0.03125, 0.0625, 0.03125, 0.125]);
        let found = position(&q, Some(&p), 1);
        assert!((found.nll - 2f64.ln()).abs() < 1e-6);
        let apart = found.apart.unwrap();
        // Σ p log2(p / q) = 0.5 - 0.25 + 0.25 + 0 + 0 - 0.0625 bits
        assert!((apart.kl - 0.4375 * 2f64.ln()).abs() < 1e-6, "{}", apart.kl);
        assert!((apart.delta_p - 0.25).abs() < 1e-6);
        assert!(!apart.same_top);
        assert_eq!(apart.top5, 4); // 0 1 2 3 4 and 1 0 5 3 2
        let same = position(&p, Some(&p), 1).apart.unwrap();
        assert_eq!(
            (same.kl, same.delta_p, same.same_top, same.top5),
            (0.0, 0.0, true, 5)
        );
    }

    #[test]
    fn the_largest_come_first() {
        assert_eq!(top(&[1.0, 3.0, 2.0, 3.0, 0.0, -1.0, 9.0]), [6, 1, 3, 2, 0]);
        assert_eq!(top(&[1.0, 1.0]), [0, 1]);
    }

    #[test]
    fn pieces_hold_every_place_once() {
        let window = |len, scored| Window {
            ids: vec![0; len],
            scored,
            document: 0,
        };
        let windows = [window(8, 3), window(3, 2), window(6, 5)];
        let found = pieces(&windows, 4);
        let expected = vec![
            vec![(0, 4..7), (1, 0..1)],
            vec![(1, 1..2), (2, 0..3)],
            vec![(2, 3..5)],
        ];
        assert_eq!(found, expected);
    }
}
