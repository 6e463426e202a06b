//! RMSNorm: y = x / sqrt(mean(x²) + eps) · gain over the last dimension.

use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor};

use super::math::dot;
use super::parameter::{Parameter, Slot, gradient};
use super::{Saved, tensor_like, values, vectorized, with_values};
use crate::timers::{Part, timer};

/// x (..., width) and gain (width) to the shape of x. `eps` is added to the mean square.
pub fn rms_norm<'a>(x: &Tensor, gain: impl Into<Parameter<'a>>, eps: f32) -> Result<Tensor> {
    let Parameter { value, slot } = gain.into();
    x.apply_op2(
        value,
        Op {
            eps,
            slot,
            saved: Saved::new(),
        },
    )
}

struct Op {
    eps: f32,
    slot: Option<Slot>,
    /// 1 / sqrt(mean(x²) + eps) per row.
    saved: Saved<Vec<f32>>,
}

impl CustomOp2 for Op {
    fn name(&self) -> &'static str {
        "rms-norm"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        gain: &CpuStorage,
        gain_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (x, gain) = (values(x, x_layout)?, values(gain, gain_layout)?);
        let width = gain.len();
        let _timer = timer(Part::Elementwise, 8 * x.len());
        let mut y = vec![0.0; x.len()];
        let rows = y.chunks_exact_mut(width).zip(x.chunks_exact(width));
        let inverse = vectorized(
            #[inline(always)]
            || {
                rows.map(|(y, x)| {
                    let inverse = 1.0 / (dot(x, x) / width as f32 + self.eps).sqrt();
                    for ((y, x), g) in y.iter_mut().zip(x).zip(gain) {
                        *y = x * inverse * g;
                    }
                    inverse
                })
                .collect()
            },
        );
        self.saved.set(inverse);
        Ok((CpuStorage::F32(y), x_layout.shape().clone()))
    }

    /// With x̂ = x / rms and h = dy · gain: dx = (h - x̂ mean(h x̂)) / rms, dgain = Σ dy x̂ over
    /// the rows.
    fn bwd(
        &self,
        x: &Tensor,
        gain: &Tensor,
        _y: &Tensor,
        dy: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let width = gain.elem_count();
        let _timer = timer(Part::Elementwise, 12 * x.elem_count());
        let inverse = self.saved.take()?;
        let mut dx = vec![0.0; x.elem_count()];
        let mut dgain = vec![0.0; width];
        let dy = dy.contiguous()?;
        with_values(x, |x| {
            with_values(gain, |gain| {
                with_values(&dy, |dy| {
                    let rows = dx.chunks_exact_mut(width).zip(x.chunks_exact(width));
                    let rows = rows.zip(dy.chunks_exact(width)).zip(&inverse);
                    let mut h = vec![0.0; width];
                    vectorized(
                        #[inline(always)]
                        || {
                            for (((dx, x), dy), inverse) in rows {
                                for ((h, dy), g) in h.iter_mut().zip(dy).zip(gain) {
                                    *h = dy * g;
                                }
                                let mean = dot(&h, x) * inverse / width as f32;
                                for ((dx, x), h) in dx.iter_mut().zip(x).zip(&h) {
                                    *dx = inverse * (h - x * inverse * mean);
                                }
                                for ((dgain, x), dy) in dgain.iter_mut().zip(x).zip(dy) {
                                    *dgain += dy * x * inverse;
                                }
                            }
                        },
                    );
                })
            })
        })???;
        let dgain = gradient(self.slot.as_ref(), gain, |sum| {
            sum.copy_from_slice(&dgain);
            Ok(())
        })?;
        Ok((Some(tensor_like(dx, x)?), dgain))
    }
}
