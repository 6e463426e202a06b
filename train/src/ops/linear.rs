//! BitLinear: y = Q(x) Q(W)ᵀ with straight-through gradients, or a plain linear layer.
//!
//! Forward: W is ternarized with one scale per tensor, per row, or per 128 columns of a row
//! (absmean), and x is rounded to int8 per token (absmax). The product of the integers is exact in
//! f32, since 127 · columns < 2²⁴. So a trained layer computes the sums that the runtime computes
//! from the packed file. Backward, with both quantizers taken as the identity: dX = dY Q(W), dW =
//! dYᵀ Q(x). Source: "The Era of 1-bit LLMs: Training Tips, Code and FAQ".

use std::sync::Arc;

use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor, bail};
use sterna_ternary::scales::GROUP_COLUMNS;
use sterna_ternary::{Scaling, quantize};

use super::lookup::{self, Factors, TritCodes};
use super::matmul::{Mat, matmul};
use super::parameter::{Parameter, Slot, gradient};
use super::{tensor_like, values, vectorized, with_values};
use crate::timers::{Part, timer};

/// The form in which a linear layer multiplies by its weight; made once per optimizer step.
#[derive(Clone)]
pub enum Linear {
    /// Full precision.
    Full,
    /// Trits and int8 activations.
    Ternary(Arc<CodedMatrix>),
    /// Between full precision and ternary: the weights (1 - λ) · W + λ · Q(W), (out_features,
    /// in_features). Activations are blended alike.
    Blended(Arc<Vec<f32>>),
}

/// A ternarized weight (out_features, in_features), as codes for lookups in both directions.
pub struct CodedMatrix {
    forward: TritCodes,
    /// The transposed trits: of all columns together, or of each group of columns with its own
    /// scales.
    backward: Vec<TritCodes>,
    scaling: Scaling,
    /// mean|W| of each part, in the shape of [`Scaling::shape`].
    scales: Vec<f32>,
}

impl CodedMatrix {
    fn new(w: &[f32], rows: usize, columns: usize, scaling: Scaling) -> CodedMatrix {
        let mut trits = vec![0; w.len()];
        let scales = vectorized(
            #[inline(always)]
            || quantize::ternarize_parts(w, columns, scaling, &mut trits),
        );
        let span = match scaling {
            Scaling::Group => GROUP_COLUMNS,
            _ => columns,
        };
        let parts = (0..columns).step_by(span);
        let parts = parts.map(|first| first..columns.min(first + span));
        CodedMatrix {
            forward: TritCodes::new(&trits, rows, columns),
            backward: parts
                .map(|some| TritCodes::transposed(&trits, rows, columns, some))
                .collect(),
            scaling,
            scales,
        }
    }

    /// y (tokens, out_features) = x · Q(W)ᵀ
    fn product(&self, x: &Quantized, y: &mut [f32]) {
        let factors = match self.scaling {
            Scaling::Matrix => Factors::One(self.scales[0]),
            Scaling::Row => Factors::Rows(&self.scales),
            Scaling::Group => Factors::Groups(&self.scales),
        };
        lookup::of_int8(&self.forward, &x.q, &x.scales, factors, y);
    }

    /// dx (tokens, in_features) = dy (tokens, out_features) · Q(W)
    fn backward(&self, dy: &[f32], columns: usize, dx: &mut [f32]) {
        if self.scaling == Scaling::Matrix {
            return lookup::of_floats(&self.backward[0], dy, self.scales[0], dx);
        }
        // Scales differ per row, so dY is multiplied by them before the lookup; with groups, once
        // for each group, which gives the columns first..first + width of dX.
        let rows = dy.len() / (dx.len() / columns);
        let (mut scaled, mut part) = (vec![0.0; dy.len()], Vec::new());
        let mut first = 0;
        for (codes, scales) in self.backward.iter().zip(self.scales.chunks_exact(rows)) {
            let of_tokens = scaled.chunks_exact_mut(rows).zip(dy.chunks_exact(rows));
            for (scaled, dy) in of_tokens {
                let terms = scaled.iter_mut().zip(dy).zip(scales);
                terms.for_each(|((scaled, dy), scale)| *scaled = dy * scale);
            }
            let width = codes.rows();
            part.resize(dx.len() / columns * width, 0.0);
            lookup::of_floats(codes, &scaled, 1.0, &mut part);
            let of_tokens = dx.chunks_exact_mut(columns).zip(part.chunks_exact(width));
            for (dx, part) in of_tokens {
                dx[first..first + width].copy_from_slice(part);
            }
            first += width;
        }
    }
}

/// The products scale · trit of a weight (out_features, in_features).
pub(crate) fn products(w: &[f32], columns: usize, scaling: Scaling) -> Vec<f32> {
    let mut trits = vec![0; w.len()];
    let scales = quantize::ternarize_parts(w, columns, scaling, &mut trits);
    let rows = w.len() / columns;
    let scale = |i: usize| scales[scaling.index(i / columns, i % columns, rows)];
    let product = |(i, trit): (usize, &i8)| f32::from(*trit) * scale(i);
    trits.iter().enumerate().map(product).collect()
}

impl Linear {
    /// Ternarizes a weight (out_features, in_features), with one scale per part.
    pub fn ternary(weight: &Tensor, scaling: Scaling) -> Result<Linear> {
        let (rows, columns) = weight.dims2()?;
        with_values(weight, |w| {
            Linear::Ternary(Arc::new(CodedMatrix::new(w, rows, columns, scaling)))
        })
    }

    /// Ternarizes a weight to the degree λ: full precision at 0, ternary at 1, a blend between.
    pub fn blended(weight: &Tensor, scaling: Scaling, lambda: f32) -> Result<Linear> {
        if lambda <= 0.0 {
            return Ok(Linear::Full);
        }
        if lambda >= 1.0 {
            return Linear::ternary(weight, scaling);
        }
        let columns = weight.dim(1)?;
        with_values(weight, |w| {
            let mut blend = products(w, columns, scaling);
            let both = blend.iter_mut().zip(w);
            both.for_each(|(q, w)| *q = w + lambda * (*q - w));
            Linear::Blended(Arc::new(blend))
        })
    }
}

/// The input of linear layers (tokens, in_features), quantized once for all layers that share it.
pub struct Input {
    x: Tensor,
    codes: Codes,
}

enum Codes {
    None,
    Int8(Arc<Quantized>),
    Blended(Arc<Vec<f32>>),
}

/// int8 activations (tokens, in_features), and the factor 127 / max|x| of each token.
struct Quantized {
    q: Vec<i8>,
    scales: Vec<f32>,
}

impl Input {
    /// Quantizes x (tokens, in_features) to the degree λ, like [`Linear::blended`]. Gradients pass
    /// the quantizer unchanged, so it is not an operation of the graph.
    ///
    /// # Errors
    /// More input features than an exact sum in f32 allows.
    pub fn new(x: Tensor, lambda: f32) -> Result<Input> {
        let columns = x.dim(1)?;
        // f32 in, int8 out.
        let _timer = timer(Part::Elementwise, 5 * x.elem_count());
        let codes = if lambda <= 0.0 {
            Codes::None
        } else {
            let int8 = with_values(&x, |x| Quantized::new(x, columns))??;
            match lambda >= 1.0 {
                true => Codes::Int8(Arc::new(int8)),
                false => Codes::Blended(Arc::new(with_values(&x, |x| {
                    let blend = |(x, q): (&f32, f32)| x + lambda * (q - x);
                    x.iter().zip(int8.values(columns)).map(blend).collect()
                })?)),
            }
        };
        Ok(Input { x, codes })
    }

    /// The values before any quantization.
    pub fn values(&self) -> &Tensor {
        &self.x
    }
}

impl Quantized {
    fn new(x: &[f32], columns: usize) -> Result<Quantized> {
        if 127 * columns >= 1 << 24 {
            bail!(
                "{columns} input features, expected at most 132104: f32 sums of more int8 \
                 products are not exact"
            );
        }
        let mut q = vec![0; x.len()];
        let rows = q.chunks_exact_mut(columns).zip(x.chunks_exact(columns));
        let scales = vectorized(
            #[inline(always)]
            || {
                rows.map(|(q, x)| quantize::quantize_activations(x, q))
                    .collect()
            },
        );
        Ok(Quantized { q, scales })
    }

    /// The activations after rounding: q / scale.
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

/// The input (tokens, in_features) and the weight (out_features, in_features) to (tokens,
/// out_features).
///
/// # Errors
/// An input and a weight that are quantized to different degrees.
pub fn linear<'a>(
    input: &Input,
    weight: impl Into<Parameter<'a>>,
    mode: &Linear,
) -> Result<Tensor> {
    let Parameter { value, slot } = weight.into();
    let product = match (mode, &input.codes) {
        (Linear::Full, _) => Product::Full,
        (Linear::Ternary(trits), Codes::Int8(int8)) => {
            Product::Ternary(trits.clone(), int8.clone())
        }
        (Linear::Blended(w), Codes::Blended(x)) => Product::Blended(w.clone(), x.clone()),
        _ => bail!("a linear layer and its input are quantized in two ways"),
    };
    input.x.apply_op2(value, Op { product, slot })
}

enum Product {
    Full,
    Ternary(Arc<CodedMatrix>, Arc<Quantized>),
    /// Weights and activations.
    Blended(Arc<Vec<f32>>, Arc<Vec<f32>>),
}

struct Op {
    product: Product,
    slot: Option<Slot>,
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
        let part = match &self.product {
            Product::Ternary(..) => Part::TernaryProducts,
            _ => Part::FloatProducts,
        };
        let _timer = timer(part, 2 * tokens * rows * columns);
        let mut y = vec![0.0; tokens * rows];
        let (x, w) = match &self.product {
            Product::Full => (x, w),
            Product::Blended(w, x) => (&x[..], &w[..]),
            Product::Ternary(trits, x) => {
                trits.product(x, &mut y);
                return Ok((CpuStorage::F32(y), Shape::from((tokens, rows))));
            }
        };
        let (x, w) = (Mat::new(x, tokens, columns), Mat::new(w, rows, columns));
        matmul(Mat::new(&mut y[..], tokens, rows), 0.0, x, w.t());
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
        let operations = 2 * tokens * rows * columns;
        let dy = dy.contiguous()?;
        // dx (tokens, in_features) = dy · W and dw (out_features, in_features) = dyᵀ · x, with the
        // W and x that the forward pass multiplied.
        let mut dx = vec![0.0; tokens * columns];
        let mut of_x = |dy: &[f32]| -> Result<()> {
            let _timer = timer(Part::InputGradients, operations);
            let mut product = |w: &[f32]| {
                let (dy, w) = (Mat::new(dy, tokens, rows), Mat::new(w, rows, columns));
                matmul(Mat::new(&mut dx[..], tokens, columns), 0.0, dy, w);
            };
            match &self.product {
                Product::Full => with_values(w, product)?,
                Product::Blended(w, _) => product(w),
                Product::Ternary(trits, _) => trits.backward(dy, columns, &mut dx),
            }
            Ok(())
        };
        let of_w = |dy: &[f32], dw: &mut [f32]| -> Result<()> {
            let _timer = timer(Part::WeightGradients, operations);
            let mut product = |x: &[f32]| {
                let (dy, x) = (Mat::new(dy, tokens, rows), Mat::new(x, tokens, columns));
                matmul(Mat::new(dw, rows, columns), 0.0, dy.t(), x);
            };
            match &self.product {
                Product::Full => with_values(x, product)?,
                Product::Blended(_, x) => product(x),
                Product::Ternary(_, x) => product(&x.values(columns)),
            }
            Ok(())
        };
        with_values(&dy, &mut of_x)??;
        let dw = gradient(self.slot.as_ref(), w, |dw| {
            with_values(&dy, |dy| of_w(dy, dw))?
        })?;
        Ok((Some(tensor_like(dx, x)?), dw))
    }
}
