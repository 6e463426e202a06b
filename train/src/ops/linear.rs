//! BitLinear: y = Q(x) Q(W)ᵀ with straight-through gradients, or a plain linear layer.
//!
//! Forward: W is ternarized per tensor (absmean), x per token to int8 (absmax), and the product of the
//! integers is exact in f32, since 127 · columns < 2²⁴. So a trained layer computes the very sums that the
//! runtime computes from the packed file. Backward, with both quantizers taken as the identity:
//! dX = dY Q(W), dW = dYᵀ Q(x). Source: "The Era of 1-bit LLMs: Training Tips, Code and FAQ".

use std::sync::Arc;

use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor, bail};
use sterna_ternary::quantize;

use super::matmul::{Mat, matmul};
use super::{Saved, tensor_like, values, vectorized, with_values};

/// How a linear layer multiplies; made once per optimizer step.
#[derive(Clone)]
pub enum Linear {
    /// Full precision.
    Full,
    /// The trits of the weights as floats [out_features, in_features] and their scale.
    Ternary {
        /// -1, 0 or +1
        trits: Arc<Vec<f32>>,
        /// mean|W|
        scale: f32,
    },
    /// On the way from full precision to ternary: weights and activations are each (1 - λ) · x + λ · Q(x).
    Blended {
        /// The blended weights [out_features, in_features].
        weight: Arc<Vec<f32>>,
        /// λ, between 0 and 1.
        lambda: f32,
    },
}

impl Linear {
    /// Ternarizes a weight.
    pub fn ternary(weight: &Tensor) -> Result<Linear> {
        with_values(weight, |w| {
            let scale = quantize::absmean(w);
            let trits = vectorized(|| w.iter().map(|w| quantize::trit(*w, scale)).collect());
            Linear::Ternary {
                trits: Arc::new(trits),
                scale,
            }
        })
    }

    /// Ternarizes a weight as far as λ says: not at all at 0, wholly at 1.
    pub fn blended(weight: &Tensor, lambda: f32) -> Result<Linear> {
        if lambda <= 0.0 || lambda >= 1.0 {
            let is_full = lambda <= 0.0;
            return if is_full {
                Ok(Linear::Full)
            } else {
                Linear::ternary(weight)
            };
        }
        with_values(weight, |w| {
            let scale = quantize::absmean(w);
            let blend = |w: &f32| w + lambda * (quantize::trit(*w, scale) * scale - w);
            Linear::Blended {
                weight: Arc::new(w.iter().map(blend).collect()),
                lambda,
            }
        })
    }
}

/// x (tokens, in_features) and weight (out_features, in_features) to (tokens, out_features).
pub fn linear(x: &Tensor, weight: &Tensor, mode: &Linear) -> Result<Tensor> {
    let columns = weight.dim(1)?;
    if 127 * columns >= 1 << 24 {
        bail!("{columns} input features: sums of int8 products are exact in f32 up to 132104");
    }
    x.apply_op2(
        weight,
        Op {
            mode: mode.clone(),
            saved: Saved::new(),
        },
    )
}

struct Op {
    mode: Linear,
    saved: Saved<Quantized>,
}

/// int8 activations as floats (tokens, in_features), and the factor 127 / max|x| of each token; or blended
/// activations and no factors.
struct Quantized {
    q: Vec<f32>,
    scales: Vec<f32>,
}

impl Quantized {
    fn new(x: &[f32], columns: usize) -> Quantized {
        let mut q = vec![0.0; x.len()];
        let rows = q.chunks_exact_mut(columns).zip(x.chunks_exact(columns));
        let scales = vectorized(|| {
            rows.map(|(q, x)| {
                let scale = quantize::activation_scale(x);
                for (q, x) in q.iter_mut().zip(x) {
                    *q = quantize::round_half_even(x * scale).clamp(-128.0, 127.0);
                }
                scale
            })
            .collect()
        });
        Quantized { q, scales }
    }

    /// The activations blended with their quantized values, in place of the codes.
    fn blended(x: &[f32], columns: usize, lambda: f32) -> Vec<f32> {
        let Quantized { mut q, scales } = Quantized::new(x, columns);
        let rows = q.chunks_exact_mut(columns).zip(x.chunks_exact(columns));
        for ((q, x), scale) in rows.zip(&scales) {
            for (q, x) in q.iter_mut().zip(x) {
                *q = x + lambda * (*q / scale - x);
            }
        }
        q
    }
}

impl CustomOp2 for Op {
    fn name(&self) -> &'static str {
        "bit-linear"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        w: &CpuStorage,
        w_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (x, w) = (values(x, x_layout)?, values(w, w_layout)?);
        let (rows, columns) = w_layout.shape().dims2()?;
        let tokens = x.len() / columns;
        let mut y = vec![0.0; tokens * rows];
        let out = Mat::new(&mut y[..], tokens, rows);
        match &self.mode {
            Linear::Full => {
                matmul(
                    out,
                    0.0,
                    1.0,
                    Mat::new(x, tokens, columns),
                    Mat::new(w, rows, columns).t(),
                );
            }
            Linear::Ternary { trits, scale } => {
                let x = Quantized::new(x, columns);
                let (q, t) = (
                    Mat::new(&x.q[..], tokens, columns),
                    Mat::new(&trits[..], rows, columns),
                );
                matmul(out, 0.0, 1.0, q, t.t());
                vectorized(|| {
                    for (y, s) in y.chunks_exact_mut(rows).zip(&x.scales) {
                        y.iter_mut().for_each(|y| *y = *y / s * scale);
                    }
                });
                self.saved.set(x);
            }
            Linear::Blended { weight, lambda } => {
                let q = Quantized::blended(x, columns, *lambda);
                let (x, w) = (Mat::new(&q[..], tokens, columns), &weight[..]);
                matmul(out, 0.0, 1.0, x, Mat::new(w, rows, columns).t());
                self.saved.set(Quantized {
                    q,
                    scales: Vec::new(),
                });
            }
        }
        Ok((CpuStorage::F32(y), Shape::from((tokens, rows))))
    }

    fn bwd(
        &self,
        x: &Tensor,
        w: &Tensor,
        _y: &Tensor,
        dy: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let (rows, columns) = w.dims2()?;
        let tokens = x.elem_count() / columns;
        let mut dx = vec![0.0; tokens * columns];
        let mut dw = vec![0.0; rows * columns];
        let dx_out = Mat::new(&mut dx[..], tokens, columns);
        let dw_out = Mat::new(&mut dw[..], rows, columns);
        with_values(&dy.contiguous()?, |dy| -> Result<()> {
            let dy_mat = Mat::new(dy, tokens, rows);
            match &self.mode {
                Linear::Full => {
                    with_values(w, |w| {
                        matmul(dx_out, 0.0, 1.0, dy_mat, Mat::new(w, rows, columns))
                    })?;
                    with_values(x, |x| {
                        matmul(dw_out, 0.0, 1.0, dy_mat.t(), Mat::new(x, tokens, columns));
                    })?;
                }
                Linear::Ternary { trits, scale } => {
                    let x = self.saved.take()?;
                    matmul(
                        dx_out,
                        0.0,
                        *scale,
                        dy_mat,
                        Mat::new(&trits[..], rows, columns),
                    );
                    // dYᵀ Q(x) with the factor of each token moved to the smaller side.
                    let mut dy = dy.to_vec();
                    vectorized(|| {
                        for (dy, s) in dy.chunks_exact_mut(rows).zip(&x.scales) {
                            dy.iter_mut().for_each(|dy| *dy /= s);
                        }
                    });
                    let dy_mat = Mat::new(&dy[..], tokens, rows);
                    matmul(
                        dw_out,
                        0.0,
                        1.0,
                        dy_mat.t(),
                        Mat::new(&x.q[..], tokens, columns),
                    );
                }
                Linear::Blended { weight, .. } => {
                    let x = self.saved.take()?;
                    matmul(
                        dx_out,
                        0.0,
                        1.0,
                        dy_mat,
                        Mat::new(&weight[..], rows, columns),
                    );
                    let x = Mat::new(&x.q[..], tokens, columns);
                    matmul(dw_out, 0.0, 1.0, dy_mat.t(), x);
                }
            }
            Ok(())
        })??;
        Ok((Some(tensor_like(dx, x)?), Some(tensor_like(dw, w)?)))
    }
}
