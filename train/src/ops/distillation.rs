//! Distillation fused with the heads of student and teacher, in chunks of tokens: the cross entropy
//! with the text, mixed with the divergence from the predictions of a teacher.
//!
//! The loss of a token is (1 - w) · CE + w · T² · KL(softmax(t / T) ‖ softmax(s / T)). Here s and t
//! are the logits of student and teacher, w is the weight and T the temperature (Hinton et al.,
//! "Distilling the Knowledge in a Neural Network", 2015; the factor T² keeps the size of the
//! gradient independent of T). As in [`super::cross_entropy()`] the logits of a whole batch never
//! exist at once, and gradients are computed in the forward pass.

use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor, bail};

use super::cross_entropy::{LOSSES, chunk_tokens, kept, softmax_loss, times};
use super::math::{exp, max};
use super::matmul::{Mat, matmul};
use super::parameter::{Parameter, Slot};
use super::{Saved, UNSCORED, values, vectorized, with_values};
use crate::timers::{Part, timer};

/// The weight and the temperature of a teacher's predictions.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Distillation {
    /// Share of the divergence in the loss, w from 0 to 1.
    pub weight: f32,
    /// T above 0. A higher one gives more weight to unlikely tokens.
    pub temperature: f32,
}

/// The student's side of the loss.
pub struct Student<'a> {
    /// (tokens, width)
    pub hidden: &'a Tensor,
    /// (vocabulary, width)
    pub head: Parameter<'a>,
    /// (tokens)
    pub targets: &'a [u32],
    /// Weight of the z-loss, as in [`super::cross_entropy()`]; it belongs to the cross entropy.
    pub z_loss: f32,
}

/// The sum of the losses in nats, a tensor of one element, from the student and the hidden states
/// (tokens, width') and head (vocabulary, width') of its teacher. Only the student's tensors get
/// gradients.
///
/// # Errors
/// Numbers of tokens or vocabularies that differ between the two.
pub fn distillation(
    student: &Student,
    teacher: (&Tensor, &Tensor),
    settings: Distillation,
) -> Result<Tensor> {
    let sizes = |hidden: &Tensor, head: &Tensor| -> Result<(usize, usize)> {
        Ok((hidden.dim(0)?, head.dim(0)?))
    };
    let ours = sizes(student.hidden, student.head.value)?;
    let theirs = sizes(teacher.0, teacher.1)?;
    if ours != theirs {
        bail!("tokens and vocabulary of the student are {ours:?}, of the teacher {theirs:?}");
    }
    student.hidden.apply_op2(
        student.head.value,
        Op {
            slot: student.head.slot.clone(),
            targets: student.targets.to_vec(),
            z_loss: student.z_loss,
            teacher: (teacher.0.detach(), teacher.1.detach()),
            settings,
            saved: Saved::new(),
        },
    )
}

struct Op {
    slot: Option<Slot>,
    targets: Vec<u32>,
    z_loss: f32,
    /// Hidden states (tokens, width') and head (vocabulary, width').
    teacher: (Tensor, Tensor),
    settings: Distillation,
    /// Gradients of the sum by hidden and by head.
    saved: Saved<(Vec<f32>, Vec<f32>)>,
}

/// Turns logits into log softmax(logits · inverse_temperature).
#[inline(always)]
fn log_softmax(logits: &mut [f32], inverse_temperature: f32) {
    let max = max(logits);
    let mut lanes = [0f32; 8];
    for (i, x) in logits.iter_mut().enumerate() {
        *x = (*x - max) * inverse_temperature;
        lanes[i % 8] += exp(*x);
    }
    let log_sum = libm::logf(lanes.iter().sum());
    logits.iter_mut().for_each(|x| *x -= log_sum);
}

impl Op {
    /// Turns the student's logits of a token into the gradient of its loss, and returns the loss.
    /// The teacher's logits are overwritten; `soft` is scratch memory of the same length.
    #[inline(always)]
    fn row(&self, student: &mut [f32], teacher: &mut [f32], soft: &mut [f32], target: u32) -> f64 {
        if target == UNSCORED {
            student.fill(0.0);
            return 0.0;
        }
        let (w, t) = (self.settings.weight, self.settings.temperature);
        // soft = log q of the student, teacher = log p, both at temperature T.
        soft.copy_from_slice(student);
        log_softmax(soft, 1.0 / t);
        log_softmax(teacher, 1.0 / t);
        let mut divergence = [0f64; 8];
        for (i, (log_q, log_p)) in soft.iter_mut().zip(&*teacher).enumerate() {
            // The gradient of w · T² · KL by a logit of the student is w · T · (q - p).
            let (p, q) = (exp(*log_p), exp(*log_q));
            divergence[i % 8] += f64::from(p) * f64::from(log_p - *log_q);
            *log_q = w * t * (q - p);
        }
        let cross_entropy = softmax_loss(student, target, self.z_loss);
        for (x, of_divergence) in student.iter_mut().zip(&*soft) {
            *x = (1.0 - w) * *x + of_divergence;
        }
        let divergence: f64 = divergence.iter().sum();
        f64::from(1.0 - w) * cross_entropy + f64::from(w * t * t) * divergence
    }

    /// The sum of the losses. Fills `dh` (tokens, width) and `dw` (vocabulary, width).
    fn sum(&self, student: &Side, teacher: &Side, dh: &mut [f32], dw: &mut [f32]) -> f64 {
        let vocabulary = student.head.rows;
        let chunk_tokens = chunk_tokens(vocabulary);
        let room = || vec![0.0; chunk_tokens.min(self.targets.len()) * vocabulary];
        let (mut s, mut t, mut soft) = (room(), room(), vec![0.0; vocabulary]);
        let mut loss = 0.0;
        for (chunk, targets) in self.targets.chunks(chunk_tokens).enumerate() {
            let (first, tokens) = (chunk * chunk_tokens, targets.len());
            let (s, t) = (&mut s[..tokens * vocabulary], &mut t[..tokens * vocabulary]);
            let hidden = student.logits(first, tokens, s);
            teacher.logits(first, tokens, t);
            let rows = LOSSES * vocabulary;
            let rows = s.chunks_mut(rows).zip(t.chunks_mut(rows));
            for ((s, t), targets) in rows.zip(targets.chunks(LOSSES)) {
                loss += vectorized(
                    #[inline(always)]
                    || {
                        let rows = s.chunks_exact_mut(vocabulary);
                        let rows = rows.zip(t.chunks_exact_mut(vocabulary)).zip(targets);
                        rows.map(|((s, t), target)| self.row(s, t, &mut soft, *target))
                            .sum::<f64>()
                    },
                );
            }
            let dlogits = Mat::new(&*s, tokens, vocabulary);
            let width = hidden.columns;
            let dh = Mat::block(&mut *dh, first * width, tokens, width, width);
            matmul(dh, 0.0, dlogits, student.head);
            let dw = Mat::new(&mut *dw, vocabulary, width);
            matmul(dw, kept(chunk), dlogits.t(), hidden);
        }
        loss
    }
}

/// The hidden states (tokens, width) and the head (vocabulary, width) of one of the two models.
struct Side<'a> {
    hidden: &'a [f32],
    head: Mat<&'a [f32]>,
}

impl<'a> Side<'a> {
    /// Computes the logits of tokens `first..first + tokens`, and returns their hidden states.
    fn logits(&self, first: usize, tokens: usize, logits: &mut [f32]) -> Mat<&'a [f32]> {
        let width = self.head.columns;
        let hidden = Mat::block(self.hidden, first * width, tokens, width, width);
        let logits = Mat::new(logits, tokens, self.head.rows);
        matmul(logits, 0.0, hidden, self.head.t());
        hidden
    }
}

impl CustomOp2 for Op {
    fn name(&self) -> &'static str {
        "distillation"
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
        let teacher_width = self.teacher.1.dim(1)?;
        let widths = 3 * width + teacher_width;
        let _timer = timer(Part::Head, 2 * self.targets.len() * vocabulary * widths);
        let (mut dh, mut dw) = (vec![0.0; h.len()], vec![0.0; w.len()]);
        let student = Side {
            hidden: h,
            head: Mat::new(w, vocabulary, width),
        };
        let loss = with_values(&self.teacher.0, |hidden| {
            with_values(&self.teacher.1, |head| {
                let head = Mat::new(head, vocabulary, teacher_width);
                self.sum(&student, &Side { hidden, head }, &mut dh, &mut dw)
            })
        })??;
        self.saved.set((dh, dw));
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
