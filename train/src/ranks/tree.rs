//! The fixed tree in which the losses and gradients of a step's sequences are added.
//!
//! Its shape depends on the batch alone, and each addition on the two sums below it. So the result
//! has the same bits for any assignment of its parts to threads or ranks.

use std::ops::Range;

use crate::Result;
use crate::arena::Arena;
use crate::timers::{Part, timer};

/// Target size of a shard in tokens: enough for matrix products at full speed.
pub(crate) const SHARD_TOKENS: usize = 512;
/// Largest number of shards of a part; each holds a copy of the gradients.
const MOST_SHARDS: usize = 16;

/// A loss in nats and the gradients; none where only the loss is wanted.
pub(crate) type Sum = (f64, Option<Arena>);

/// Sequences, and the order in which their sums are added.
pub(crate) enum Tree {
    /// Sequences that one graph computes.
    Shard(Range<usize>),
    /// Two halves that are computed in parallel.
    Together(Box<[Tree; 2]>),
    /// Two halves that are computed one after the other; memory holds one of them.
    InTurn(Box<[Tree; 2]>),
}

impl Tree {
    /// Halves the sequences until there are this number of shards, a power of two.
    pub fn new(sequences: Range<usize>, shards: usize) -> Tree {
        if shards <= 1 || sequences.len() <= 1 {
            return Tree::Shard(sequences);
        }
        let middle = sequences.start + sequences.len().div_ceil(2);
        let halves = [sequences.start..middle, middle..sequences.end];
        Tree::Together(halves.map(|half| Tree::new(half, shards / 2)).into())
    }

    /// Halves the sequences until there are `parts`, and divides each part into the number of
    /// shards that `shards` returns for its number of sequences.
    pub fn in_parts(
        sequences: Range<usize>,
        parts: usize,
        shards: &impl Fn(usize) -> usize,
    ) -> Tree {
        if parts <= 1 {
            let shards = shards(sequences.len());
            return Tree::new(sequences, shards);
        }
        let left = parts.div_ceil(2);
        let middle = sequences.start + sequences.len() * left / parts;
        Tree::InTurn(Box::new([
            Tree::in_parts(sequences.start..middle, left, shards),
            Tree::in_parts(middle..sequences.end, parts - left, shards),
        ]))
    }

    /// The number of leaves.
    pub fn shards(&self) -> usize {
        self.halves()
            .map_or(1, |[left, right]| left.shards() + right.shards())
    }

    /// The two subtrees; none for a shard.
    pub fn halves(&self) -> Option<&[Tree; 2]> {
        match self {
            Tree::Shard(_) => None,
            Tree::Together(halves) | Tree::InTurn(halves) => Some(halves),
        }
    }

    /// The sum over all shards.
    pub fn sum(&self, shard: &(impl Fn(Range<usize>) -> Result<Sum> + Sync)) -> Result<Sum> {
        let (left, right) = match self {
            Tree::Shard(sequences) => return shard(sequences.clone()),
            Tree::InTurn(halves) => (halves[0].sum(shard), halves[1].sum(shard)),
            Tree::Together(halves) => rayon::join(|| halves[0].sum(shard), || halves[1].sum(shard)),
        };
        added(left?, right?)
    }
}

/// The number of shards for sequences on a CPU: a power of two that depends on the batch alone.
pub(crate) fn shards(sequences: usize, context: usize) -> usize {
    let wanted = (sequences * context / SHARD_TOKENS)
        .clamp(1, MOST_SHARDS)
        .min(sequences.max(1));
    1 << wanted.ilog2()
}

/// Adds the right sum to the left.
pub(crate) fn added((loss, mut sum): Sum, (right_loss, right): Sum) -> Result<Sum> {
    if let (Some(sum), Some(right)) = (&mut sum, &right) {
        let _timer = timer(Part::Sums, 12 * sum.len());
        sum.add(right)?;
    }
    Ok((loss + right_loss, sum))
}
