//! BitLinear: y = Q(x) Q(W)ᵀ with straight-through gradients, or a plain linear layer.
//!
//! Forward: W is ternarized per tensor (absmean), x per token to int8 (absmax), and the product of the
//! integers is exact in f32, since 127 · columns < 2²⁴. So a trained layer computes the very sums that the
//! runtime computes from the packed file. Backward, with both quantizers taken as the identity:
//! dX = dY Q(W), dW = dYᵀ Q(x). Source: "The Era of 1-bit LLMs: Training Tips, Code and FAQ".

use std::sync::Arc;

use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor, bail};
use sterna_ternary::quantize;

use super::lookup::{self, Ranks};
use super::matmul::{Mat, matmul};
use super::{tensor_like, values, vectorized, with_values};

/// How a linear layer multiplies; made once per optimizer step.
#[derive(Clone)]
pub enum Linear {
    /// Full precision.
    Full,
    /// Trits and int8 activations.
    Ternary(Arc<Trits>),
}

/// A ternarized weight [out_features, in_features].
pub struct Trits {
    forward: Ranks,
    backward: Ranks,
    /// mean|W|
    scale: f32,
}

impl Linear {
    /// Ternarizes a weight.
    pub fn ternary(weight: &Tensor) -> Result<Linear> {
        let (rows, columns) = weight.dims2()?;
        with_values(weight, |w| {
            let scale = quantize::absmean(w);
            let trits: Vec<i8> = vectorized(
                #[inline(always)]
                || w.iter().map(|w| quantize::trit(*w, scale) as i8).collect(),
            );
            Linear::Ternary(Arc::new(Trits {
                forward: Ranks::new(&trits, rows, columns),
                backward: Ranks::transposed(&trits, rows, columns),
                scale,
            }))
        })
    }
}

/// The input of linear layers (tokens, in_features), quantized once for all that share it.
pub struct Input {
    x: Tensor,
    int8: Option<Arc<Quantized>>,
}

/// int8 activations (tokens, in_features), and the factor 127 / max|x| of each token.
struct Quantized {
    q: Vec<i8>,
    scales: Vec<f32>,
}

impl Input {
    /// For layers of full precision.
    pub fn full(x: Tensor) -> Input {
        Input { x, int8: None }
    }

    /// The values before any quantization.
    pub fn values(&self) -> &Tensor {
        &self.x
    }

    /// For ternary layers. Quantization is the identity to gradients, so it is no operation of the graph.
    pub fn int8(x: Tensor) -> Result<Input> {
        let columns = x.dim(1)?;
        if 127 * columns >= 1 << 24 {
            bail!("{columns} input features: sums of int8 products are exact in f32 up to 132104");
        }
        let int8 = with_values(&x, |x| Quantized::new(x, columns))?;
        Ok(Input {
            x,
            int8: Some(Arc::new(int8)),
        })
    }
}

impl Quantized {
    fn new(x: &[f32], columns: usize) -> Quantized {
        let mut q = vec![0; x.len()];
        let rows = q.chunks_exact_mut(columns).zip(x.chunks_exact(columns));
        let scales = vectorized(
            #[inline(always)]
            || {
                rows.map(|(q, x)| quantize::quantize_activations(x, q))
                    .collect()
            },
        );
        Quantized { q, scales }
    }
}

/// x (tokens, in_features) and weight (out_features, in_features) to (tokens, out_features).
pub fn linear(input: &Input, weight: &Tensor, mode: &Linear) -> Result<Tensor> {
    let product = match (mode, &input.int8) {
        (Linear::Full, _) => Product::Full,
        (Linear::Ternary(trits), Some(int8)) => Product::Ternary(trits.clone(), int8.clone()),
        (Linear::Ternary(_), None) => bail!("a ternary layer has int8 activations"),
    };
    input.x.apply_op2(weight, Op(product))
}

enum Product {
    Full,
    Ternary(Arc<Trits>, Arc<Quantized>),
}

struct Op(Product);

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
        match &self.0 {
            Product::Full => {
                let (x, w) = (Mat::new(x, tokens, columns), Mat::new(w, rows, columns));
                matmul(Mat::new(&mut y[..], tokens, rows), 0.0, 1.0, x, w.t());
            }
            Product::Ternary(trits, x) => {
                lookup::of_int8(&trits.forward, &x.q, &x.scales, trits.scale, &mut y);
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
        let dw_out = Mat::new(&mut dw[..], rows, columns);
        with_values(&dy.contiguous()?, |dy| -> Result<()> {
            match &self.0 {
                Product::Full => {
                    let dy = Mat::new(dy, tokens, rows);
                    let dx = Mat::new(&mut dx[..], tokens, columns);
                    with_values(w, |w| {
                        matmul(dx, 0.0, 1.0, dy, Mat::new(w, rows, columns));
                    })?;
                    with_values(x, |x| {
                        matmul(dw_out, 0.0, 1.0, dy.t(), Mat::new(x, tokens, columns));
                    })?;
                }
                Product::Ternary(trits, x) => {
                    lookup::of_floats(&trits.backward, dy, trits.scale, &mut dx);
                    let x = x.values(columns);
                    let (dy, x) = (
                        Mat::new(dy, tokens, rows),
                        Mat::new(&x[..], tokens, columns),
                    );
                    matmul(dw_out, 0.0, 1.0, dy.t(), x);
                }
            }
            Ok(())
        })??;
        Ok((Some(tensor_like(dx, x)?), Some(tensor_like(dw, w)?)))
    }
}

impl Quantized {
    /// What the activations are after rounding: q / scale.
    fn values(&self, columns: usize) -> Vec<f32> {
        let mut x = vec![0.0; self.q.len()];
        let rows = x
            .chunks_exact_mut(columns)
            .zip(self.q.chunks_exact(columns));
        vectorized(
            #[inline(always)]
            || {
                for ((x, q), scale) in rows.zip(&self.scales) {
                    x.iter_mut()
                        .zip(q)
                        .for_each(|(x, q)| *x = f32::from(*q) / scale);
                }
            },
        );
        x
    }
}
