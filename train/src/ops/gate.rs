//! The gated product of the feed-forward network: act(gate) · up, with silu, squared ReLU or gelu.

use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor};
use sterna_ternary::Activation;

use super::math::sigmoid;
use super::{tensor_like, values, vectorized, with_values};
use crate::timers::{Part, timer};

/// gate and up, both (tokens, intermediate_size), to act(gate) · up of the same shape.
pub fn gate(gate: &Tensor, up: &Tensor, activation: Activation) -> Result<Tensor> {
    gate.apply_op2(up, Op(activation))
}

struct Op(Activation);

/// act(g) and its derivative, for silu(g) = g · sigmoid(g).
#[inline(always)]
fn silu(g: f32) -> (f32, f32) {
    let s = sigmoid(g);
    (g * s, s * (1.0 + g * (1.0 - s)))
}

#[inline(always)]
fn relu2(g: f32) -> (f32, f32) {
    // Not `max`, which may return either of two zeros.
    let r = if g > 0.0 { g } else { 0.0 };
    (r * r, 2.0 * r)
}

/// gelu in the approximation by tanh: g · sigmoid(u) with u = 2 √(2/π) (g + 0.044715 g³).
#[inline(always)]
fn gelu_tanh(g: f32) -> (f32, f32) {
    /// 2 √(2/π)
    const TWICE_ROOT: f32 = 1.595_769;
    let s = sigmoid(TWICE_ROOT * (g + 0.044715 * g * g * g));
    let slope = TWICE_ROOT * (1.0 + 3.0 * 0.044715 * g * g);
    (g * s, s + g * s * (1.0 - s) * slope)
}

#[inline(always)]
fn forward(act: impl Fn(f32) -> (f32, f32), g: &[f32], u: &[f32]) -> Vec<f32> {
    g.iter().zip(u).map(|(g, u)| act(*g).0 * u).collect()
}

#[inline(always)]
fn backward(
    act: impl Fn(f32) -> (f32, f32),
    g: &[f32],
    u: &[f32],
    dy: &[f32],
) -> (Vec<f32>, Vec<f32>) {
    let mut dg = vec![0.0; g.len()];
    let mut du = vec![0.0; g.len()];
    let out = dg.iter_mut().zip(&mut du);
    for (((dg, du), (g, u)), dy) in out.zip(g.iter().zip(u)).zip(dy) {
        let (value, derivative) = act(*g);
        *dg = dy * u * derivative;
        *du = dy * value;
    }
    (dg, du)
}

impl CustomOp2 for Op {
    fn name(&self) -> &'static str {
        "gate"
    }

    fn cpu_fwd(
        &self,
        g: &CpuStorage,
        g_layout: &Layout,
        u: &CpuStorage,
        u_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (g, u) = (values(g, g_layout)?, values(u, u_layout)?);
        let _timer = timer(Part::Elementwise, 12 * g.len());
        let y = match self.0 {
            Activation::Silu => vectorized(
                #[inline(always)]
                || forward(silu, g, u),
            ),
            Activation::Relu2 => vectorized(
                #[inline(always)]
                || forward(relu2, g, u),
            ),
            Activation::GeluTanh => vectorized(
                #[inline(always)]
                || forward(gelu_tanh, g, u),
            ),
        };
        Ok((CpuStorage::F32(y), g_layout.shape().clone()))
    }

    fn bwd(
        &self,
        g: &Tensor,
        u: &Tensor,
        _y: &Tensor,
        dy: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let _timer = timer(Part::Elementwise, 20 * g.elem_count());
        let dy = dy.contiguous()?;
        let (dg, du) = with_values(g, |gv| {
            with_values(u, |uv| {
                with_values(&dy, |dy| match self.0 {
                    Activation::Silu => vectorized(
                        #[inline(always)]
                        || backward(silu, gv, uv, dy),
                    ),
                    Activation::Relu2 => vectorized(
                        #[inline(always)]
                        || backward(relu2, gv, uv, dy),
                    ),
                    Activation::GeluTanh => vectorized(
                        #[inline(always)]
                        || backward(gelu_tanh, gv, uv, dy),
                    ),
                })
            })
        })???;
        Ok((Some(tensor_like(dg, g)?), Some(tensor_like(du, u)?)))
    }
}
