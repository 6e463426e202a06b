//! Training on several ranks: each computes some shards of a step, and all continue with the same
//! sums.
//!
//! Each rank owns consecutive shards. By default their sums are added along the tree of additions
//! ([`Reduction::Fixed`]): the rank with the right half of a node sends it to the rank with the
//! left half, and the root is broadcast. These are the additions of a single rank, so weights have
//! the same bits for any number of ranks. The reductions of MPI and NCCL leave the order of
//! additions to the library, so only [`Reduction::Fast`] uses them.

use std::collections::VecDeque;
use std::ops::Range;
use std::rc::Rc;

use candle_core::{Device, Tensor};
use sha2::{Digest, Sha256};

use super::tree::{Sum, Tree, added};
use crate::arena::{Arena, Values};
use crate::{Error, Result};

/// The communication of ranks. All ranks make the same calls in the same order, from one thread
/// each.
pub trait Collective {
    /// Which rank this is, from 0.
    fn rank(&self) -> usize;

    /// How many there are.
    fn size(&self) -> usize;

    /// Sends bytes to a rank, which receives the same number of bytes from this one.
    ///
    /// # Errors
    /// [`Error::Collective`], as for all functions below.
    fn send(&self, bytes: &[u8], to: usize) -> Result<()>;

    /// Receives the bytes that a rank sends to this one; the lengths are equal.
    fn receive(&self, bytes: &mut [u8], from: usize) -> Result<()>;

    /// Copies the bytes of rank 0 to all ranks.
    fn broadcast(&self, bytes: &mut [u8]) -> Result<()> {
        match self.rank() {
            0 => (1..self.size()).try_for_each(|rank| self.send(bytes, rank)),
            _ => self.receive(bytes, 0),
        }
    }

    /// Replaces the values of all ranks by their sums over all ranks, added in an order of its own
    /// choice.
    fn all_reduce(&self, values: &mut [f32]) -> Result<()>;

    /// Returns when all ranks have called it.
    fn barrier(&self) -> Result<()>;

    /// Ends the processes of all ranks with this exit code.
    fn abort(&self, code: u8) -> !;

    /// [`Collective::send`] of a flat f32 tensor. By default this and the functions below go
    /// through the memory of the CPU.
    fn send_tensor(&self, values: &Tensor, to: usize) -> Result<()> {
        self.send(bytemuck::cast_slice(&values.to_vec1::<f32>()?), to)
    }

    /// [`Collective::receive`] of a tensor of `len` values.
    fn receive_tensor(&self, len: usize, device: &Device, from: usize) -> Result<Tensor> {
        let mut values = vec![0f32; len];
        self.receive(bytemuck::cast_slice_mut(&mut values), from)?;
        Ok(Tensor::from_vec(values, len, device)?)
    }

    /// [`Collective::broadcast`] of a tensor. The values of ranks other than 0 are replaced.
    fn broadcast_tensor(&self, values: Tensor) -> Result<Tensor> {
        let (mut own, len) = (values.to_vec1::<f32>()?, values.elem_count());
        self.broadcast(bytemuck::cast_slice_mut(&mut own))?;
        Ok(Tensor::from_vec(own, len, values.device())?)
    }

    /// [`Collective::all_reduce`] of a tensor, whose own values are consumed.
    fn all_reduce_tensor(&self, values: Tensor) -> Result<Tensor> {
        let (mut own, len) = (values.to_vec1::<f32>()?, values.elem_count());
        self.all_reduce(&mut own)?;
        Ok(Tensor::from_vec(own, len, values.device())?)
    }
}

/// A single rank, without communication.
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

/// The order in which the gradients of the ranks are added.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Reduction {
    /// The order of a single rank: the same bits for any number of ranks.
    #[default]
    Fixed,
    /// The order of [`Collective::all_reduce`]: less traffic with many ranks, but the last bits
    /// depend on their number.
    Fast,
}

impl Reduction {
    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Reduction::Fixed => "fixed",
            Reduction::Fast => "fast",
        }
    }
}

/// The ranks of a run, seen from one of them.
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
    /// Ranks with this communication and this order of additions.
    pub fn new(collective: Rc<dyn Collective>, reduction: Reduction) -> Ranks {
        Ranks {
            collective,
            reduction,
        }
    }

    /// Whether this is rank 0, which writes files and reports.
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

    /// Compares bytes with those of rank 0; `what` names them in the error.
    ///
    /// # Errors
    /// [`Error::RanksDiffer`] where they are not equal.
    pub fn agree(&self, what: &'static str, bytes: &[u8]) -> Result<()> {
        let own: [u8; 32] = Sha256::digest(bytes).into();
        let mut first = own;
        self.collective.broadcast(&mut first)?;
        match first == own {
            true => Ok(()),
            false => Err(Error::RanksDiffer { what }),
        }
    }

    /// These ranks with another communication, which has the same rank and size.
    #[cfg(feature = "nccl")]
    pub(crate) fn through(
        &self,
        other: impl FnOnce(Rc<dyn Collective>) -> Result<Rc<dyn Collective>>,
    ) -> Result<Ranks> {
        Ok(Ranks::new(
            other(Rc::clone(&self.collective))?,
            self.reduction,
        ))
    }

    /// The sum over the shards of a tree, the same on all ranks. `zeros` makes the summand of a
    /// rank without shards.
    pub(crate) fn sum(
        &self,
        tree: &Tree,
        zeros: &dyn Fn() -> Result<Option<Arena>>,
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
            Reduction::Fixed => match exchange.combine(tree, 0, &mut own)? {
                Some(root) => exchange.broadcast(root),
                None => exchange.broadcast((0.0, zeros()?)),
            },
            Reduction::Fast => {
                let first = match own.pop_front() {
                    Some(first) => first,
                    None => (0.0, zeros()?),
                };
                exchange.all_reduce(own.into_iter().try_fold(first, added)?)
            }
        }
    }
}

/// The communication of one sum over a tree with this number of shards.
struct Exchange<'a> {
    collective: &'a dyn Collective,
    shards: usize,
}

impl Exchange<'_> {
    /// The rank that computes a shard.
    fn owner(&self, shard: usize) -> usize {
        shard * self.collective.size() / self.shards
    }

    /// The rank that computes all shards of a tree whose first shard is `first`; none if several
    /// do.
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

    /// The sum of a tree on the rank that computed its first shard; none on the others. `own` is
    /// the queue that [`Exchange::compute`] filled.
    fn combine(&self, tree: &Tree, first: usize, own: &mut VecDeque<Sum>) -> Result<Option<Sum>> {
        let rank = self.collective.rank();
        // One rank computed the whole tree: its sum is the next in the queue.
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
            (Some(left), Some(right)) => Some(added(left, right)?),
            (Some(left), None) => {
                let right = self.receive(left.1.as_ref(), right_holder)?;
                Some(added(left, right)?)
            }
            (None, Some(right)) => {
                self.send(&right, left_holder)?;
                None
            }
            (None, None) => None,
        })
    }

    fn send(&self, (loss, gradients): &Sum, to: usize) -> Result<()> {
        self.collective.send(&loss.to_ne_bytes(), to)?;
        match gradients {
            None => Ok(()),
            Some(Arena::Values(values)) => self.collective.send(bytemuck::cast_slice(values), to),
            Some(Arena::Tensor(values)) => self.collective.send_tensor(values, to),
        }
    }

    /// Receives a sum with as many gradients as `like`, in the same kind of memory.
    fn receive(&self, like: Option<&Arena>, from: usize) -> Result<Sum> {
        let loss = self.receive_loss(from)?;
        let gradients = match like {
            None => None,
            Some(Arena::Values(like)) => {
                let mut values = Values::zeros(like.len());
                let bytes = bytemuck::cast_slice_mut(&mut values);
                self.collective.receive(bytes, from)?;
                Some(Arena::Values(values))
            }
            Some(Arena::Tensor(like)) => {
                let (len, device) = (like.elem_count(), like.device());
                let values = self.collective.receive_tensor(len, device, from)?;
                Some(Arena::Tensor(values))
            }
        };
        Ok((loss, gradients))
    }

    fn receive_loss(&self, from: usize) -> Result<f64> {
        let mut loss = [0; 8];
        self.collective.receive(&mut loss, from)?;
        Ok(f64::from_ne_bytes(loss))
    }

    fn broadcast(&self, (loss, gradients): Sum) -> Result<Sum> {
        let mut loss = loss.to_ne_bytes();
        self.collective.broadcast(&mut loss)?;
        let gradients = match gradients {
            None => None,
            Some(Arena::Values(mut values)) => {
                let bytes = bytemuck::cast_slice_mut(&mut values);
                self.collective.broadcast(bytes)?;
                Some(Arena::Values(values))
            }
            Some(Arena::Tensor(values)) => {
                Some(Arena::Tensor(self.collective.broadcast_tensor(values)?))
            }
        };
        Ok((f64::from_ne_bytes(loss), gradients))
    }

    /// Adds the gradients with [`Collective::all_reduce`]. Losses are f64, so rank 0 adds them, in
    /// the order of the ranks.
    fn all_reduce(&self, (mut loss, gradients): Sum) -> Result<Sum> {
        let gradients = match gradients {
            None => None,
            Some(Arena::Values(mut values)) => {
                self.collective.all_reduce(&mut values)?;
                Some(Arena::Values(values))
            }
            Some(Arena::Tensor(values)) => {
                Some(Arena::Tensor(self.collective.all_reduce_tensor(values)?))
            }
        };
        if self.collective.rank() == 0 {
            for rank in 1..self.collective.size() {
                loss += self.receive_loss(rank)?;
            }
        } else {
            self.send(&(loss, None), 0)?;
        }
        Ok((self.broadcast((loss, None))?.0, gradients))
    }
}
