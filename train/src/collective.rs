//! Training on several ranks: each computes some shards of a step, and all go on with the same sums.
//!
//! Ranks own neighbouring shards. By default their sums travel along the tree of additions ([`Reduction::Fixed`]):
//! the rank that holds the right half of a node sends it to the one that holds the left half, and the root is
//! broadcast. These are the additions of one rank, so weights have the same bits for any number of ranks.

use std::collections::VecDeque;
use std::ops::Range;
use std::rc::Rc;

use sha2::{Digest, Sha256};

use crate::tree::{Sum, Tree, added};
use crate::{Error, Result};

/// What ranks do together. All ranks make the same calls in the same order, from one thread each.
pub trait Collective {
    /// Which rank this is, from 0.
    fn rank(&self) -> usize;

    /// How many there are.
    fn size(&self) -> usize;

    /// Sends bytes to a rank that receives as many from this one.
    ///
    /// # Errors
    /// [`Error::Collective`], like all below.
    fn send(&self, bytes: &[u8], to: usize) -> Result<()>;

    /// Receives as many bytes as a rank sends to this one.
    fn receive(&self, bytes: &mut [u8], from: usize) -> Result<()>;

    /// Gives all ranks the bytes of rank 0.
    fn broadcast(&self, bytes: &mut [u8]) -> Result<()>;

    /// Gives all ranks the sums over all ranks, added in an order of its own choice.
    fn all_reduce(&self, values: &mut [f32]) -> Result<()>;

    /// Returns when all ranks have called it.
    fn barrier(&self) -> Result<()>;

    /// Ends the processes of all ranks with this exit code, wherever they are.
    fn abort(&self, code: u8) -> !;
}

/// The only rank.
#[derive(Debug, Clone, Copy)]
pub struct Solo;

impl Collective for Solo {
    fn rank(&self) -> usize {
        0
    }

    fn size(&self) -> usize {
        1
    }

    fn send(&self, _: &[u8], to: usize) -> Result<()> {
        Err(no_such_rank(to))
    }

    fn receive(&self, _: &mut [u8], from: usize) -> Result<()> {
        Err(no_such_rank(from))
    }

    fn broadcast(&self, _: &mut [u8]) -> Result<()> {
        Ok(())
    }

    fn all_reduce(&self, _: &mut [f32]) -> Result<()> {
        Ok(())
    }

    fn barrier(&self) -> Result<()> {
        Ok(())
    }

    fn abort(&self, code: u8) -> ! {
        std::process::exit(code.into())
    }
}

fn no_such_rank(rank: usize) -> Error {
    Error::Collective(format!("there is no rank {rank}, only rank 0"))
}

/// How the gradients of the ranks are added.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Reduction {
    /// As one rank adds them: the same bits for any number of ranks.
    #[default]
    Fixed,
    /// By [`Collective::all_reduce`]: less traffic for many ranks, and the last bits depend on their number.
    Fast,
}

/// The ranks of a run, as one of them sees them.
#[derive(Clone)]
pub struct Ranks {
    collective: Rc<dyn Collective>,
    reduction: Reduction,
}

impl Default for Ranks {
    /// One rank.
    fn default() -> Ranks {
        Ranks::new(Rc::new(Solo), Reduction::Fixed)
    }
}

impl Ranks {
    /// Ranks that add their gradients so.
    pub fn new(collective: Rc<dyn Collective>, reduction: Reduction) -> Ranks {
        Ranks {
            collective,
            reduction,
        }
    }

    /// Whether this is the rank that writes files and talks.
    pub fn is_first(&self) -> bool {
        self.collective.rank() == 0
    }

    /// Which rank this is, from 0.
    pub fn rank(&self) -> usize {
        self.collective.rank()
    }

    /// How many ranks there are.
    pub fn size(&self) -> usize {
        self.collective.size()
    }

    /// Returns when all ranks have called it.
    pub fn barrier(&self) -> Result<()> {
        self.collective.barrier()
    }

    /// Ends the processes of all ranks with this exit code.
    pub fn abort(&self, code: u8) -> ! {
        self.collective.abort(code)
    }

    /// Whether any rank says yes.
    pub fn any(&self, yes: bool) -> Result<bool> {
        let mut count = [f32::from(u8::from(yes))];
        self.collective.all_reduce(&mut count)?;
        Ok(count[0] > 0.0)
    }

    /// Refuses to go on where this rank has other bytes than rank 0; `what` names them.
    pub fn agree(&self, what: &'static str, bytes: &[u8]) -> Result<()> {
        let own: [u8; 32] = Sha256::digest(bytes).into();
        let mut first = own;
        self.collective.broadcast(&mut first)?;
        match first == own {
            true => Ok(()),
            false => Err(Error::RanksDiffer { what }),
        }
    }

    /// The sum over the shards of a tree, the same on all ranks; its gradients have `len` values.
    pub(crate) fn sum(
        &self,
        tree: &Tree,
        len: usize,
        shard: &(impl Fn(Range<usize>) -> Result<Sum> + Sync),
    ) -> Result<Sum> {
        if self.size() == 1 {
            return tree.sum(shard);
        }
        let exchange = Exchange {
            collective: &*self.collective,
            shards: tree.shards(),
        };
        let mut own = VecDeque::new();
        exchange.compute(tree, 0, shard, &mut own)?;
        match self.reduction {
            Reduction::Fixed => {
                let root = exchange.combine(tree, 0, &mut own)?;
                exchange.broadcast(root.unwrap_or((0.0, vec![0.0; len])))
            }
            Reduction::Fast => {
                let own = own.into_iter().reduce(added);
                exchange.all_reduce(own.unwrap_or((0.0, vec![0.0; len])))
            }
        }
    }
}

/// One sum over a tree with this many shards.
struct Exchange<'a> {
    collective: &'a dyn Collective,
    shards: usize,
}

impl Exchange<'_> {
    /// The rank that computes a shard.
    fn owner(&self, shard: usize) -> usize {
        shard * self.collective.size() / self.shards
    }

    /// The rank that computes all shards of a tree whose first is `first`; none if there are several.
    fn only_owner(&self, tree: &Tree, first: usize) -> Option<usize> {
        let owner = self.owner(first);
        (owner == self.owner(first + tree.shards() - 1)).then_some(owner)
    }

    /// The sums of the largest trees that this rank computes alone, from left to right.
    fn compute(
        &self,
        tree: &Tree,
        first: usize,
        shard: &(impl Fn(Range<usize>) -> Result<Sum> + Sync),
        own: &mut VecDeque<Sum>,
    ) -> Result<()> {
        match (self.only_owner(tree, first), tree.halves()) {
            (None, Some([left, right])) => {
                self.compute(left, first, shard, own)?;
                self.compute(right, first + left.shards(), shard, own)?;
            }
            (Some(rank), _) if rank == self.collective.rank() => own.push_back(tree.sum(shard)?),
            _ => {}
        }
        Ok(())
    }

    /// The sum of a tree, on the rank that computed its first shard. `own` has what [`Exchange::compute`] left.
    fn combine(&self, tree: &Tree, first: usize, own: &mut VecDeque<Sum>) -> Result<Option<Sum>> {
        let rank = self.collective.rank();
        let (None, Some([left, right])) = (self.only_owner(tree, first), tree.halves()) else {
            let is_own = self.owner(first) == rank;
            return Ok(is_own.then(|| own.pop_front()).flatten());
        };
        let middle = first + left.shards();
        let sums = (
            self.combine(left, first, own)?,
            self.combine(right, middle, own)?,
        );
        let (left_holder, right_holder) = (self.owner(first), self.owner(middle));
        Ok(match sums {
            (Some(left), Some(right)) => Some(added(left, right)),
            (Some(left), None) => {
                let right = self.receive(left.1.len(), right_holder)?;
                Some(added(left, right))
            }
            (None, Some(right)) => {
                self.send(&right, left_holder)?;
                None
            }
            (None, None) => None,
        })
    }

    fn send(&self, (loss, values): &Sum, to: usize) -> Result<()> {
        self.collective.send(&loss.to_ne_bytes(), to)?;
        self.collective.send(bytemuck::cast_slice(values), to)
    }

    fn receive(&self, len: usize, from: usize) -> Result<Sum> {
        let (mut loss, mut values) = ([0; 8], vec![0f32; len]);
        self.collective.receive(&mut loss, from)?;
        let bytes = bytemuck::cast_slice_mut(&mut values);
        self.collective.receive(bytes, from)?;
        Ok((f64::from_ne_bytes(loss), values))
    }

    fn broadcast(&self, (loss, mut values): Sum) -> Result<Sum> {
        let mut loss = loss.to_ne_bytes();
        self.collective.broadcast(&mut loss)?;
        let bytes = bytemuck::cast_slice_mut(&mut values);
        self.collective.broadcast(bytes)?;
        Ok((f64::from_ne_bytes(loss), values))
    }

    /// Losses are f64: they are added by rank 0, in the order of the ranks.
    fn all_reduce(&self, (mut loss, mut values): Sum) -> Result<Sum> {
        self.collective.all_reduce(&mut values)?;
        if self.collective.rank() == 0 {
            for rank in 1..self.collective.size() {
                loss += self.receive(0, rank)?.0;
            }
        } else {
            self.send(&(loss, Vec::new()), 0)?;
        }
        Ok((self.broadcast((loss, Vec::new()))?.0, values))
    }
}
