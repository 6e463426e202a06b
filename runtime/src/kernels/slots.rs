//! The slots of a table of kernels: what each inner loop computes, and the shapes of its arguments.

use half::{bf16, f16};
use sterna_ternary::Packing;
use sterna_ternary::planes::Planes;

use super::codes::{CodeProduct, PlaneProduct};
use super::dense::{BlockProduct, QuantizedBlock};
use super::groups::GroupProduct;
use super::panels::PanelProduct;
use super::screen::{RowBounds, Threshold};
use super::softmax::{Scores, SoftmaxBlock};

/// Fewest tokens that are many: arithmetic bounds their products, not memory.
pub(super) const MANY: usize = 20;

/// One complete set of inner loops. All slices are row-major. A slot panics if their lengths
/// disagree.
#[derive(Clone, Copy)]
pub struct Kernels {
    /// The instruction set.
    pub name: &'static str,

    /// [`sterna_ternary::quantize::quantize_activations`]: fills `q` and returns the factor s, x ≈
    /// q / s.
    pub quantize: fn(x: &[f32], q: &mut [i8]) -> f32,
    /// [`sterna_ternary::quantize::quantize_activations_int16`]: fills the digits and returns the
    /// factor s, x ≈ (256 · high + low) / s.
    pub quantize_int16: fn(x: &[f32], high: &mut [i8], low: &mut [i8]) -> f32,
    /// Σ q.
    pub sum: fn(q: &[i8]) -> i32,
    /// y = (sums / s) · scale, `sums` rounded to f32 beforehand.
    pub dequantize: fn(sums: &[i32], s: f32, scale: f32, y: &mut [f32]),
    /// Ternary matrix product for [`Packing::I2`].
    pub gemm_i2: Gemm,
    /// Ternary matrix product for [`Packing::T5`].
    pub gemm_t5: Gemm,
    /// Fewest tokens whose products use tables of partial sums, [`usize::MAX`] if none do.
    pub(super) table_tokens: fn() -> usize,
    /// Ternary matrix product for [`Packing::I2`] with one scale per group of columns.
    pub gemm_groups: GemmGroups,

    /// The first plane of a coded table.
    pub plane4: Plane,
    /// Its other planes.
    pub plane2: Plane,
    /// Several planes of a coded table, from the first one on.
    pub codes: Codes,
    /// Whether `codes` takes less time than one plane after the other for so many tokens.
    pub prefers_codes: fn(tokens: usize) -> bool,
    /// The rows of a block that reach a threshold, one bit each.
    pub reaching: fn(sums: &[i64], bounds: &RowBounds, threshold: Threshold) -> u64,
    /// The most promising row of a block.
    pub largest: Largest,
    /// The values of a row of a table in planes.
    pub decode_planes: fn(planes: &Planes, row: usize, values: &mut [f32]),

    /// [`sterna_ternary::quantize::quantize_blocks`]: fills one block for each 32 columns.
    pub quantize_blocks: fn(x: &[f32], blocks: &mut [QuantizedBlock]),
    /// Matrix product for [`sterna_ternary::Dense::Q8_0`].
    pub gemm_q8_0: GemmBlocks,
    /// Matrix product for [`sterna_ternary::Dense::Q4_0`].
    pub gemm_q4_0: GemmBlocks,

    /// `y[t][r] = x[t] · rows[r]` in f32.
    pub gemm_f32: GemmFloat<f32>,
    /// The same with rows in half precision.
    pub gemm_f16: GemmFloat<f16>,
    /// The same with rows in bfloat16.
    pub gemm_bf16: GemmFloat<bf16>,
    /// `y[r][16 p + l] = Σ x[r][i] · panels[p][i][l]` in the order of i.
    pub panels_f32: fn(PanelProduct<f32, f32>, y: &mut [f32]),
    /// The same with panels in half precision.
    pub panels_f16: fn(PanelProduct<f32, f16>, y: &mut [f32]),
    /// The same with codes; the sums are exact and then rounded to f32.
    pub panels_i8: fn(PanelProduct<i16, i8>, y: &mut [f32]),
    /// x = 2^(x - max x) in each row, for those of x that are seen, zero for the others.
    pub softmax_blocks: fn(scores: Scores, blocks: &mut [SoftmaxBlock]),
    /// The same of x · key scales · factor, followed by weights = x · value scales in 16 bits.
    pub softmax_blocks_i8: SoftmaxI8,
    /// y = y · a + x · b.
    pub merge: fn(y: &mut [f32], x: &[f32], factors: [f32; 2]),
    /// Quantizes x · scale to codes in ±`largest` and returns the factor f, x · scale ≈ q · f; f is
    /// not finite if an element of x is not.
    pub quantize_i16: fn(x: &[f32], scale: f32, largest: f32, q: &mut [i16]) -> f32,

    /// x = x · r · weight with r = 1 / √(mean(x²) + eps), which it returns. r is not above zero
    /// where the mean overflowed or was NaN.
    pub rms_norm: fn(x: &mut [f32], weight: &[f32], eps: f32) -> f32,
    /// gate = gate · sigmoid(gate) · up.
    pub silu_mul: fn(gate: &mut [f32], up: &[f32]),
    /// gate = max(gate, 0)² · up.
    pub relu2_mul: fn(gate: &mut [f32], up: &[f32]),
    /// gate = gelu(gate) · up with the approximation by tanh: gate · sigmoid(√(8/π) · (gate +
    /// 0.044715 gate³)) · up.
    pub gelu_tanh_mul: fn(gate: &mut [f32], up: &[f32]),
    /// Rotates one head by angles given as cos and sin (x.len() / 2): dimension i pairs with i +
    /// x.len() / 2.
    pub rotate: fn(x: &mut [f32], cos: &[f32], sin: &[f32]),
    /// x = x + y.
    pub add: fn(x: &mut [f32], y: &[f32]),
}

/// `sums[t][r] = Σ trit[r][c] · q[t][c]`, exact.
///
/// `rows` (n, row_bytes) are packed, `q` (tokens, padded columns) is zero after the last column,
/// `q_sums` (tokens) are the sums of `q` over its rows, `sums` is (tokens, n). Trits are read as
/// the packing defines them; bytes that no packer writes give an unspecified sum.
pub type Gemm = fn(rows: &[u8], q: &[i8], q_sums: &[i32], sums: &mut [i32]);

/// `y[t][r] = Σ over groups g in their order of scale[g][r] · Σ trit[r][c] · q[t][c]`, the inner
/// sum exact, the outer one in f32.
pub type GemmGroups = fn(product: GroupProduct, y: &mut [f32]);

/// `y[t][r] = Σ over blocks in their order of Σ code[r][c] · q[t][c] · (scale[r] · scale[t])`, the
/// inner sum exact, the outer one in f32.
pub type GemmBlocks = fn(product: BlockProduct, y: &mut [f32]);

/// x (tokens, columns) times rows (n, columns) gives y (tokens, n): sums in 16 lanes, then of the
/// lanes in halves.
pub type GemmFloat<T> = fn(x: &[f32], columns: usize, rows: &[T], y: &mut [f32]);

/// `sums[t][r] += weight · Σ multiplier[r][g] · digit[r][g][i] · q[t][g][i]` over groups g and
/// their columns i, exact. For the first plane q has 16 bits if the tokens have low bytes; if not,
/// and for the other planes, it is 256 times the high byte.
///
/// Rows and multipliers are those of [`sterna_ternary::table`]; a digit is odd, 2h − 15 or 2h − 3.
pub type Plane = fn(product: PlaneProduct, sums: &mut [i64]);

/// `sums[t][r] +=` the sum of what [`Plane`] adds for every plane, each with its weight in
/// [`CodeProduct::of_planes`].
pub type Codes = fn(product: CodeProduct, sums: &mut [i64]);

/// The largest sum · scale of the rows of a block and its place, the first of equal ones. Rows that
/// were dropped or have a bit in `skipped` do not count; -∞ if none does.
pub type Largest = fn(sums: &[i64], scales: &[f32], skipped: u64) -> (f64, usize);

/// [`Kernels::softmax_blocks_i8`]; `factors` has one for each row, `scales` are those of keys and
/// of values for the positions that are used, `weights` are as many as scores.
pub type SoftmaxI8 = fn(
    scores: Scores,
    factors: &[f32],
    scales: [&[f32]; 2],
    weights: &mut [i16],
    blocks: &mut [SoftmaxBlock],
);

impl Kernels {
    /// The product of a plane of coded tables.
    pub fn plane(&self, plane: usize) -> Plane {
        match plane {
            0 => self.plane4,
            _ => self.plane2,
        }
    }

    /// The ternary matrix product of a packing.
    pub fn gemm(&self, packing: Packing) -> Gemm {
        match packing {
            Packing::I2 => self.gemm_i2,
            Packing::T5 => self.gemm_t5,
        }
    }
}

impl std::fmt::Debug for Kernels {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.debug_tuple("Kernels").field(&self.name).finish()
    }
}
