//! AVX-512 with VNNI: `vpdpbusd` adds four products of unsigned digits and signed activations to 32-bit lanes.
//! Digits are found as in `avx2`; with VBMI, those of `t5` are looked up in tables of all 256 bytes.
//!
//! A register holds a block of one row below that of the next, and the activations twice. One token: eight rows
//! at once. Several tokens: tiles of four rows by four tokens. Many tokens go the way of
//! `avx2`, with wider registers.

mod codes;
mod lut;
mod panels;

use std::arch::x86_64::*;

use sterna_ternary::Packing;
use sterna_ternary::packing::BLOCK_BYTES;

use super::avx2::{self, four_sums, is_near, load, prefetch_distance, prefetch_near};
use super::{Kernels, Shape, float};

float::compile_for!("avx512f,avx512bw,avx512vl,avx512dq");

static KERNELS: Kernels = Kernels {
    name: "avx512",
    gemm_i2: |rows, q, q_sums, sums| {
        let shape = Shape::of(Packing::I2, rows, q, q_sums, sums);
        // SAFETY: as in `detect`; the shape was checked.
        unsafe { gemm_i2(shape, rows, q, q_sums, sums) }
    },
    gemm_t5: |rows, q, q_sums, sums| {
        let shape = Shape::of(Packing::T5, rows, q, q_sums, sums);
        // SAFETY: as in `detect`; the shape was checked.
        unsafe { gemm_t5(shape, rows, q, q_sums, sums) }
    },
    plane4: |x, rows, multipliers, weight, sums| {
        // SAFETY: as in `detect`.
        unsafe { codes::plane4(x, rows, multipliers, weight, sums) }
    },
    plane2: |x, rows, multipliers, weight, sums| {
        // SAFETY: as in `detect`.
        unsafe { codes::plane2(x, rows, multipliers, weight, sums) }
    },
    sum: compiled::sum,
    dequantize: compiled::dequantize,
    gemv_f32: compiled::gemv_f32,
    gemv_bf16: compiled::gemv_bf16,
    panels_f32: |product, y| {
        // SAFETY: as in `detect`.
        unsafe { panels::panels_f32(product, y) }
    },
    panels_f16: |product, y| {
        // SAFETY: as in `detect`.
        unsafe { panels::panels_f16(product, y) }
    },
    panels_i8: |product, y| {
        // SAFETY: as in `detect`.
        unsafe { panels::panels_i8(product, y) }
    },
    softmax_block: compiled::softmax_block,
    softmax_block_i8: compiled::softmax_block_i8,
    merge: compiled::merge,
    quantize_i16: compiled::quantize_i16,
    rms_norm: compiled::rms_norm,
    silu_mul: compiled::silu_mul,
    relu2_mul: compiled::relu2_mul,
    rotate: compiled::rotate,
    add: compiled::add,
    ..super::avx2::KERNELS
};

static VBMI: Kernels = Kernels {
    name: "avx512-vbmi",
    gemm_t5: |rows, q, q_sums, sums| {
        let shape = Shape::of(Packing::T5, rows, q, q_sums, sums);
        // SAFETY: as in `detect`; the shape was checked.
        unsafe { gemm_t5_vbmi(shape, rows, q, q_sums, sums) }
    },
    ..KERNELS
};

/// The table, if this CPU runs it.
pub(super) fn detect() -> Option<&'static Kernels> {
    let detected = is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vnni");
    (detected && super::avx2::detect().is_some()).then_some(&KERNELS)
}

/// The table with VBMI, if this CPU runs it.
pub(super) fn detect_vbmi() -> Option<&'static Kernels> {
    let detected = is_x86_feature_detected!("avx512vbmi") && detect().is_some();
    detected.then_some(&VBMI)
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn gemm_i2(shape: Shape, rows: &[u8], q: &[i8], q_sums: &[i32], sums: &mut [i32]) {
    let digits = |codes| fields(codes);
    // SAFETY: as for this function.
    unsafe { gemm::<4>(shape, rows, q, q_sums, sums, digits, avx2::gemm_i2) };
}

/// The four codes of each byte.
#[target_feature(enable = "avx512f,avx512bw")]
#[inline]
fn fields(codes: __m512i) -> [__m512i; 4] {
    // What a 16-bit shift carries over is masked.
    let mask = _mm512_set1_epi8(3);
    [
        _mm512_and_si512(codes, mask),
        _mm512_and_si512(_mm512_srli_epi16::<2>(codes), mask),
        _mm512_and_si512(_mm512_srli_epi16::<4>(codes), mask),
        _mm512_and_si512(_mm512_srli_epi16::<6>(codes), mask),
    ]
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn gemm_t5(shape: Shape, rows: &[u8], q: &[i8], q_sums: &[i32], sums: &mut [i32]) {
    let sign = _mm512_set1_epi8(-128);
    let (low_byte, high_byte) = (_mm512_set1_epi16(0x0003), _mm512_set1_epi16(0x0300));
    let high_mask = _mm512_set1_epi16(0xff00u16 as i16);
    let digits = |bytes| {
        let bytes = _mm512_xor_si512(bytes, sign);
        let mut even = _mm512_maddubs_epi16(bytes, low_byte);
        let mut odd = _mm512_maddubs_epi16(bytes, high_byte);
        let mut digits = [_mm512_setzero_si512(); 5];
        for digits in &mut digits {
            // (even >> 8) | (odd & high_mask)
            let low = _mm512_srli_epi16::<8>(even);
            *digits = _mm512_ternarylogic_epi32::<0xf8>(low, odd, high_mask);
            even = _mm512_maddubs_epi16(even, low_byte);
            odd = _mm512_maddubs_epi16(odd, low_byte);
        }
        digits
    };
    // SAFETY: as for this function.
    unsafe { gemm::<5>(shape, rows, q, q_sums, sums, digits, avx2::gemm_t5) };
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx512vbmi")]
fn gemm_t5_vbmi(shape: Shape, rows: &[u8], q: &[i8], q_sums: &[i32], sums: &mut [i32]) {
    let [four, fifth] = DIGITS
        .each_ref()
        .map(|table| table.each_ref().map(|part| whole(part)));
    let digits = |bytes| {
        // A lookup takes seven bits of a byte; the eighth selects between two.
        let upper = _mm512_movepi8_mask(bytes);
        let lookup = |table: [__m512i; 4]| {
            let low = _mm512_permutex2var_epi8(table[0], bytes, table[1]);
            let high = _mm512_permutex2var_epi8(table[2], bytes, table[3]);
            _mm512_mask_blend_epi8(upper, low, high)
        };
        let [a, b, c, d] = fields(lookup(four));
        [a, b, c, d, lookup(fifth)]
    };
    // SAFETY: as for this function.
    unsafe { gemm::<5>(shape, rows, q, q_sums, sums, digits, avx2::gemm_t5) };
}

/// The first four digits of every `t5` byte as an `i2` byte, and the fifth.
static DIGITS: [[[u8; 64]; 4]; 2] = {
    let mut tables = [[[0; 64]; 4]; 2];
    let mut byte = 0;
    while byte < 256 {
        let mut fraction = byte as u32 ^ 0x80;
        let mut n = 0;
        while n < 5 {
            fraction *= 3;
            tables[n / 4][byte / 64][byte % 64] |= ((fraction >> 8) as u8) << (n % 4 * 2);
            fraction &= 0xff;
            n += 1;
        }
        byte += 1;
    }
    tables
};

/// A product by `avx2::lut`.
type Tables = unsafe fn(Shape, &[u8], &[i8], &[i32], &mut [i32], avx2::lut::Loops);

/// The arguments of a product.
#[derive(Clone, Copy)]
struct Product<'a, const STEPS: usize> {
    shape: Shape,
    rows: &'a [[u8; BLOCK_BYTES]], // (rows, blocks)
    q: &'a [[[i8; 32]; STEPS]],    // (tokens, blocks)
    q_sums: &'a [i32],
}

/// A packing is `STEPS` digits a byte, `digits`: packed bytes to digits, and `tables`: the product by tables.
///
/// # Safety
/// The caller has AVX-512 F, BW and VNNI, and what `digits` needs: everything is inlined into it.
#[inline(always)]
unsafe fn gemm<const STEPS: usize>(
    shape: Shape,
    rows: &[u8],
    q: &[i8],
    q_sums: &[i32],
    sums: &mut [i32],
    digits: impl Fn(__m512i) -> [__m512i; STEPS] + Copy,
    tables: Tables,
) {
    let part = |tokens| Shape { tokens, ..shape };
    /// Fewest tokens, out of those of a table, for which tables take less time than multiply-add: with the
    /// four digits of `i2` and with the five of `t5`.
    const TABLE_TOKENS: [usize; 2] = [25, 19];
    let tokens = avx2::tokens_for_tables(shape, TABLE_TOKENS[STEPS - 4]);
    let (q, rest_q) = q.split_at(q.len() / shape.tokens * tokens);
    let (q_sums, rest_q_sums) = q_sums.split_at(tokens);
    let (sums, rest_sums) = sums.split_at_mut(shape.rows * tokens);
    if tokens > 0 {
        // SAFETY: AVX2 is there wherever AVX-512 is.
        unsafe { tables(part(tokens), rows, q, q_sums, sums, lut::LOOPS) };
    }
    let product = Product {
        shape: part(shape.tokens - tokens),
        rows: rows.as_chunks().0,
        q: rest_q.as_chunks().0.as_chunks().0,
        q_sums: rest_q_sums,
    };
    // SAFETY: as here.
    unsafe {
        match product.shape.tokens {
            0 => {}
            1 => row_pairs::<STEPS, 4, 1>(product, rest_sums, digits),
            _ => row_pairs::<STEPS, 2, 4>(product, rest_sums, digits),
        }
    }
}

/// `PAIRS` pairs of rows at a time, with at most `TOKENS` ≤ 4 tokens.
///
/// # Safety
/// As for [`gemm`].
#[inline(always)]
unsafe fn row_pairs<const STEPS: usize, const PAIRS: usize, const TOKENS: usize>(
    product: Product<STEPS>,
    sums: &mut [i32],
    digits: impl Fn(__m512i) -> [__m512i; STEPS] + Copy,
) {
    const { assert!(TOKENS <= 4) };
    let Shape {
        tokens,
        rows: n,
        blocks,
    } = product.shape;
    for first in (0..n).step_by(2 * PAIRS) {
        let mut rows = [[product.rows; 2]; PAIRS];
        for (i, row) in rows.as_flattened_mut().iter_mut().enumerate() {
            *row = &product.rows[(first + i).min(n - 1) * blocks..][..blocks];
        }
        for t in (0..tokens).step_by(TOKENS) {
            let q = |i: usize| &product.q[(t + i) * blocks..][..blocks];
            let tile = Tile {
                rows,
                q_sums: &product.q_sums[t..],
                sums: &mut sums[t * n + first..],
                stride: n,
                rows_left: n - first,
                first_pass: t == 0,
            };
            // SAFETY: as here.
            unsafe {
                match (tokens - t).min(TOKENS) {
                    1 => tile.compute([q(0)], digits),
                    2 if TOKENS > 1 => tile.compute([q(0), q(1)], digits),
                    3 if TOKENS > 1 => tile.compute([q(0), q(1), q(2)], digits),
                    _ if TOKENS > 1 => tile.compute([q(0), q(1), q(2), q(3)], digits),
                    _ => {}
                }
            }
        }
    }
}

/// Pairs of rows with some tokens.
struct Tile<'a, const PAIRS: usize> {
    rows: [[&'a [[u8; BLOCK_BYTES]]; 2]; PAIRS], // (pairs, 2, blocks)
    q_sums: &'a [i32],
    sums: &'a mut [i32], // (tokens, stride)
    stride: usize,
    /// How many of the rows there are; the others repeat the last.
    rows_left: usize,
    /// The rows come from memory.
    first_pass: bool,
}

impl<const PAIRS: usize> Tile<'_, PAIRS> {
    /// The products with tokens `q`, each (blocks, steps).
    ///
    /// # Safety
    /// As for [`gemm`].
    #[inline(always)]
    unsafe fn compute<const STEPS: usize, const TOKENS: usize>(
        self,
        q: [&[[[i8; 32]; STEPS]]; TOKENS],
        digits: impl Fn(__m512i) -> [__m512i; STEPS],
    ) {
        let blocks = q[0].len();
        let start = self.rows[0][0].as_ptr().cast();
        let distance = prefetch_distance(2 * PAIRS, blocks * BLOCK_BYTES);
        let near = is_near(distance);
        // SAFETY: as here.
        unsafe {
            let mut wide = [[_mm512_setzero_si512(); PAIRS]; TOKENS];
            for b in 0..blocks {
                if self.first_pass {
                    for line in 0..PAIRS {
                        let offset = (b * PAIRS + line) * 64 + distance;
                        prefetch_near(start, offset, near);
                    }
                }
                let mut unpacked = [[_mm512_setzero_si512(); STEPS]; PAIRS];
                for (unpacked, [low, high]) in unpacked.iter_mut().zip(self.rows) {
                    let low = _mm512_castsi256_si512(load(&low[b]));
                    *unpacked = digits(_mm512_inserti64x4::<1>(low, load(&high[b])));
                }
                for n in 0..STEPS {
                    for t in 0..TOKENS {
                        let q = _mm512_broadcast_i64x4(load(&q[t][b][n]));
                        for i in 0..PAIRS {
                            wide[t][i] = _mm512_dpbusd_epi32(wide[t][i], unpacked[i][n], q);
                        }
                    }
                }
            }
            for (t, wide) in wide.iter().enumerate() {
                let sums = &mut self.sums[t * self.stride..];
                let sums = &mut sums[..self.rows_left.min(2 * PAIRS)];
                for (sums, wide) in sums.chunks_mut(4).zip(wide.as_chunks::<2>().0) {
                    let dots = four_sums([
                        _mm512_castsi512_si256(wide[0]),
                        _mm512_extracti64x4_epi64::<1>(wide[0]),
                        _mm512_castsi512_si256(wide[1]),
                        _mm512_extracti64x4_epi64::<1>(wide[1]),
                    ]);
                    for (sum, dot) in sums.iter_mut().zip(dots) {
                        *sum = dot - self.q_sums[t];
                    }
                }
            }
        }
    }
}

#[target_feature(enable = "avx512f")]
#[inline]
fn whole(bytes: &[u8; 64]) -> __m512i {
    // SAFETY: 64 bytes; the load may be unaligned.
    unsafe { _mm512_loadu_si512(bytes.as_ptr().cast()) }
}
