//! The reference table: integer products straight from the definition of the packings, float loops
//! as the compiler makes them for the oldest CPU of the target.

use sterna_ternary::Packing;
use sterna_ternary::packing::BLOCK_BYTES;

use super::shape::GemmShape;
use super::slots::Kernels;
use super::{codes, dense, float, groups, panels, screen, softmax};

pub(super) static KERNELS: Kernels = TABLE;

/// The same, for tables that start from it.
pub(super) const TABLE: Kernels = Kernels {
    name: "scalar",
    table_tokens: || usize::MAX,
    quantize: float::quantize,
    quantize_int16: float::quantize_int16,
    sum: float::sum,
    dequantize: float::dequantize,
    gemm_i2,
    gemm_t5,
    gemm_groups: groups::reference,
    quantize_blocks: float::quantize_blocks,
    gemm_q8_0: dense::gemm_q8_0,
    gemm_q4_0: dense::gemm_q4_0,
    gemm_f32: float::gemm_f32,
    gemm_f16: float::gemm_f16,
    gemm_bf16: float::gemm_bf16,
    plane4: codes::plane4,
    plane2: codes::plane2,
    codes: |product, sums| {
        for (plane, product) in product.of_planes().enumerate() {
            KERNELS.plane(plane)(product, sums);
        }
    },
    prefers_codes: |_| false,
    reaching: screen::reaching,
    largest: screen::largest,
    decode_planes: codes::decode_planes,
    panels_f32: panels::panels_f32,
    panels_f16: panels::panels_f16,
    panels_i8: panels::panels_i8,
    softmax_blocks: softmax::softmax_blocks,
    softmax_blocks_i8: softmax::softmax_blocks_i8,
    merge: softmax::merge,
    quantize_i16: softmax::quantize_i16,
    rms_norm: float::rms_norm,
    silu_mul: float::silu_mul,
    relu2_mul: float::relu2_mul,
    gelu_tanh_mul: float::gelu_tanh_mul,
    rotate: float::rotate,
    add: float::add,
};

fn gemm_i2(rows: &[u8], q: &[i8], q_sums: &[i32], sums: &mut [i32]) {
    let trits = |byte: u8| [0, 2, 4, 6].map(|shift| (byte >> shift & 3) as i32 - 1);
    gemm(Packing::I2, rows, q, q_sums, sums, trits);
}

fn gemm_t5(rows: &[u8], q: &[i8], q_sums: &[i32], sums: &mut [i32]) {
    let trits = |byte: u8| {
        [1, 3, 9, 27, 81].map(|power| {
            let s = (byte as i8).wrapping_mul(power);
            i32::from(s > 42) - i32::from(s < -42)
        })
    };
    gemm(Packing::T5, rows, q, q_sums, sums, trits);
}

/// Byte j of a block holds the trits of columns j, 32 + j, 64 + j and so on.
fn gemm<const TRITS: usize>(
    packing: Packing,
    rows: &[u8],
    q: &[i8],
    q_sums: &[i32],
    sums: &mut [i32],
    trits: impl Fn(u8) -> [i32; TRITS],
) {
    let shape = GemmShape::of(packing, rows, q, q_sums, sums);
    sums.fill(0);
    for t in 0..shape.tokens {
        for r in 0..shape.rows {
            let sum = &mut sums[t * shape.rows + r];
            for b in 0..shape.blocks {
                let bytes = &rows[(r * shape.blocks + b) * BLOCK_BYTES..][..BLOCK_BYTES];
                let columns = packing.block_columns();
                let q = &q[(t * shape.blocks + b) * columns..][..columns];
                for (j, byte) in bytes.iter().enumerate() {
                    for (n, trit) in trits(*byte).into_iter().enumerate() {
                        *sum += trit * i32::from(q[n * BLOCK_BYTES + j]);
                    }
                }
            }
        }
    }
}
