//! Cross entropy fused with the head, in chunks of tokens: the logits of a whole batch never exist
//! at once.
//!
//! Gradients are computed in the forward pass, while the logits of a chunk are at hand. The
//! backward pass only multiplies them by the gradient of the sum.

use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor};

use super::math::{exp_sum, max};
use super::matmul::{Mat, matmul};
use super::parameter::{Parameter, Slot, gradient};
use super::{Saved, tensor_like, values, vectorized};
use crate::ranks::tree::SHARD_TOKENS;
use crate::timers::{Part, timer};

/// Tokens whose losses are added before they are added to the others.
pub(super) const LOSSES: usize = 128;

/// Tokens of one chunk, a multiple of [`LOSSES`]: as many as a shard usually has, so that the head
/// is packed once for all of them; fewer if their logits take more than 32 MiB.
pub(crate) fn chunk_tokens(vocabulary: usize) -> usize {
    const MOST_LOGITS: usize = 8 << 20;
    let tokens = (MOST_LOGITS / vocabulary).clamp(LOSSES, SHARD_TOKENS);
    tokens / LOSSES * LOSSES
}

/// A target that is not scored: the token has no loss and no gradient.
pub const UNSCORED: u32 = u32::MAX;

/// Whether the backward pass will run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gradients {
    /// Yes.
    Wanted,
    /// No, only the loss is needed.
    Unwanted,
}

/// hidden (tokens, width), head (vocabulary, width) and targets (tokens) to the sum of the losses
/// in nats, a tensor of one element.
///
/// The gradient is that of the sum of the losses plus `z_loss` · (log Σ exp logits)² per token, the
/// z-loss of PaLM (Chowdhery et al. 2022), which keeps logits near zero. The value does not contain
/// the z-loss, so losses with and without it can be compared.
pub fn cross_entropy<'a>(
    hidden: &Tensor,
    head: impl Into<Parameter<'a>>,
    targets: &[u32],
    gradients: Gradients,
    z_loss: f32,
) -> Result<Tensor> {
    let Parameter { value, slot } = head.into();
    hidden.apply_op2(
        value,
        Op {
            slot,
            targets: targets.to_vec(),
            gradients,
            z_loss,
            saved: Saved::new(),
        },
    )
}

struct Op {
    slot: Option<Slot>,
    targets: Vec<u32>,
    gradients: Gradients,
    z_loss: f32,
    /// Gradients of the sum by hidden and by head.
    saved: Saved<(Vec<f32>, Vec<f32>)>,
}

/// Turns the logits of a token into softmax · (1 + 2 · z_loss · log-sum) - onehot, their gradient,
/// and returns the loss.
#[inline(always)]
pub(super) fn softmax_loss(logits: &mut [f32], target: u32, z_loss: f32) -> f64 {
    if target == UNSCORED {
        logits.fill(0.0);
        return 0.0;
    }
    let target = target as usize;
    let max = max(logits);
    let right = logits[target];
    let sum = exp_sum(logits, max);
    let inverse = (1.0 + 2.0 * z_loss * (max + libm::logf(sum))) / sum;
    logits.iter_mut().for_each(|x| *x *= inverse);
    logits[target] -= 1.0;
    f64::from(max - right) + libm::log(f64::from(sum))
}

impl CustomOp2 for Op {
    fn name(&self) -> &'static str {
        "cross-entropy"
    }

    fn cpu_fwd(
        &self,
        h: &CpuStorage,
        h_layout: &Layout,
        w: &CpuStorage,
        w_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (h, w) = (values(h, h_layout)?, values(w, w_layout)?);
        let (vocabulary, width) = w_layout.shape().dims2()?;
        let wanted = self.gradients == Gradients::Wanted;
        let products = if wanted { 3 } else { 1 };
        let _timer = timer(Part::Head, 2 * products * h.len() * vocabulary);
        // dh (tokens, width) and dw (vocabulary, width); empty if no backward pass will run.
        let mut dh = vec![0.0; if wanted { h.len() } else { 0 }];
        let mut dw = vec![0.0; if wanted { w.len() } else { 0 }];
        let chunk_tokens = chunk_tokens(vocabulary);
        let mut logits = vec![0.0; chunk_tokens.min(self.targets.len()) * vocabulary];
        let head = Mat::new(w, vocabulary, width);
        let mut loss = 0.0;
        for (chunk, targets) in self.targets.chunks(chunk_tokens).enumerate() {
            let (tokens, start) = (targets.len(), chunk * chunk_tokens * width);
            // logits (tokens of the chunk, vocabulary) = hidden · headᵀ
            let hidden = Mat::block(h, start, tokens, width, width);
            let logits = &mut logits[..tokens * vocabulary];
            matmul(
                Mat::new(&mut *logits, tokens, vocabulary),
                0.0,
                hidden,
                head.t(),
            );
            // Each row of logits is replaced by its gradient.
            let rows = logits.chunks_mut(LOSSES * vocabulary);
            for (logits, targets) in rows.zip(targets.chunks(LOSSES)) {
                loss += vectorized(
                    #[inline(always)]
                    || {
                        let rows = logits.chunks_exact_mut(vocabulary).zip(targets);
                        rows.map(|(row, target)| softmax_loss(row, *target, self.z_loss))
                            .sum::<f64>()
                    },
                );
            }
            if wanted {
                // dh = dlogits · head for these tokens; dw adds dlogitsᵀ · hidden over the chunks.
                let dlogits = Mat::new(&*logits, tokens, vocabulary);
                matmul(
                    Mat::block(&mut dh[..], start, tokens, width, width),
                    0.0,
                    dlogits,
                    head,
                );
                matmul(
                    Mat::new(&mut dw[..], vocabulary, width),
                    kept(chunk),
                    dlogits.t(),
                    hidden,
                );
            }
        }
        if wanted {
            self.saved.set((dh, dw));
        }
        Ok((CpuStorage::F32(vec![loss as f32]), Shape::from(1)))
    }

    fn bwd(
        &self,
        h: &Tensor,
        w: &Tensor,
        _loss: &Tensor,
        dloss: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        times(self.saved.take()?, dloss, h, (w, self.slot.as_ref()))
    }
}

/// The factor of the gradient of the head so far when the next chunk is added: 0 for the first,
/// since reading zeros that were never written costs a page fault, then 1.
pub(super) fn kept(chunk: usize) -> f32 {
    if chunk == 0 { 0.0 } else { 1.0 }
}

/// The gradients by hidden and by head, times the gradient of the sum.
pub(super) fn times(
    (mut dh, dw): (Vec<f32>, Vec<f32>),
    dloss: &Tensor,
    h: &Tensor,
    (w, slot): (&Tensor, Option<&Slot>),
) -> Result<(Option<Tensor>, Option<Tensor>)> {
    let _timer = timer(Part::Head, 0);
    let factor = dloss.reshape(())?.to_scalar::<f32>()?;
    dh.iter_mut().for_each(|x| *x *= factor);
    let dw = gradient(slot, w, |sum| {
        let both = sum.iter_mut().zip(&dw);
        both.for_each(|(sum, dw)| *sum = dw * factor);
        Ok(())
    })?;
    Ok((Some(tensor_like(dh, h)?), dw))
}
