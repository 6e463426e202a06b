//! Ternary products with `vpdpbusd`. Digits (trit + 1) are found as in `avx2`.
//!
//! One to three tokens: two or four rows at once, where a register holds two blocks of one row.
//! More tokens: rows in lanes, first without and then with panels ([`digits`](super::super::digits)).
//! Many tokens use tables of partial sums on CPUs that begin one `vpdpbusd` of 512 bits in a cycle:
//! tables do more than that, but less than two.

use std::arch::x86_64::*;

use sterna_ternary::Packing;
use sterna_ternary::packing::BLOCK_BYTES;

use super::super::avx2::registers::{four_sums, load};
use super::super::avx2::ternary::{product_i2, product_t5, tokens_for_tables};
use super::super::digits;
use super::super::lut::Loops;
use super::super::prefetch::Prefetch;
use super::super::shape::{GemmShape, Operands};
use super::super::width;
use super::digits::Rows16;
use super::lut;
use super::registers::{fields, pair, whole};

/// Whether the products of many tokens use tables of partial sums.
pub(super) fn uses_tables() -> bool {
    // SAFETY: only the table of this instruction set calls this.
    unsafe { !width::is_full() }
}

/// [`Kernels::gemm_i2`](super::super::Kernels::gemm_i2)
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
pub(super) fn gemm_i2(rows: &[u8], q: &[i8], q_sums: &[i32], sums: &mut [i32], uses_tables: bool) {
    let operands = Operands::of(Packing::I2, rows, q, q_sums, sums);
    // Digits stay at their places in a byte, so their products are 1, 4, 16 or 64 times as large
    // and have sums of their own: at most 2¹³ products of 2 · 64 with 128.
    let masks = [0b11, 0b11 << 2, 0b11 << 4, 0b11 << 6].map(|mask| _mm512_set1_epi8(mask as i8));
    let one = One {
        add: |mut sums: [__m512i; 4], codes, q: [__m512i; 4]| {
            for ((sum, mask), q) in sums.iter_mut().zip(masks).zip(q) {
                *sum = _mm512_dpbusd_epi32(*sum, _mm512_and_si512(codes, mask), q);
            }
            sums
        },
        finish: |[a, b, c, d]: [__m512i; 4]| {
            let [b, c, d] = [
                _mm512_srai_epi32::<2>(b),
                _mm512_srai_epi32::<4>(c),
                _mm512_srai_epi32::<6>(d),
            ];
            _mm512_add_epi32(_mm512_add_epi32(a, b), _mm512_add_epi32(c, d))
        },
    };
    let digits = |codes| fields(codes);
    // SAFETY: this function is compiled for AVX-512 F, BW and VNNI.
    unsafe {
        // One token computes faster with more rows at once, but they are read more slowly from
        // memory.
        gemm::<2, 4, _, _>(
            operands,
            sums,
            one,
            digits,
            uses_tables.then_some(product_i2),
        )
    };
}

/// [`Kernels::gemm_t5`](super::super::Kernels::gemm_t5)
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
pub(super) fn gemm_t5(rows: &[u8], q: &[i8], q_sums: &[i32], sums: &mut [i32], uses_tables: bool) {
    let operands = Operands::of(Packing::T5, rows, q, q_sums, sums);
    let sign = _mm512_set1_epi8(-128);
    let digits = |bytes| digits_t5(bytes);
    // With b = B ⊕ 128, digit n is the integer part of 3 bₙ / 256, and bₙ₊₁ the rest: 3 bₙ mod 256.
    // So 256 dₙ is 3 bₙ − bₙ₊₁, and Σ dₙ qₙ takes no digit, but two sums.
    let one = One {
        add: |[these, next]: [__m512i; 2], bytes, q: [__m512i; 5]| {
            let (mut these, mut next) = (these, next);
            let mut rest = _mm512_xor_si512(bytes, sign);
            for q in q {
                these = _mm512_dpbusd_epi32(these, rest, q);
                rest = opaque(_mm512_add_epi8(_mm512_add_epi8(rest, rest), rest));
                next = _mm512_dpbusd_epi32(next, rest, q);
            }
            [these, next]
        },
        finish: |[these, next]: [__m512i; 2]| {
            let thrice = _mm512_add_epi32(_mm512_add_epi32(these, these), these);
            _mm512_srai_epi32::<8>(_mm512_sub_epi32(thrice, next))
        },
    };
    // SAFETY: this function is compiled for AVX-512 F, BW and VNNI.
    unsafe {
        gemm::<4, 2, _, _>(
            operands,
            sums,
            one,
            digits,
            uses_tables.then_some(product_t5),
        )
    };
}

/// The five digits of each byte, found as in `avx2`.
#[target_feature(enable = "avx512f,avx512bw")]
#[inline]
pub(in super::super) fn digits_t5(bytes: __m512i) -> [__m512i; 5] {
    let (nine, three) = (_mm512_set1_epi16(9), _mm512_set1_epi16(3));
    let odd_places = _mm512_set1_epi16(0xff00u16 as i16);
    // (even >> 8) | (odd & odd_places)
    let high_bytes = |even, odd| {
        let even = _mm512_srli_epi16::<8>(even);
        _mm512_ternarylogic_epi32::<0xf8>(even, odd, odd_places)
    };
    let table = |bytes: [i8; 16]| {
        let bytes = i128::from_le_bytes(bytes.map(|byte| byte as u8));
        let halves = _mm_set_epi64x((bytes >> 64) as i64, bytes as i64);
        _mm512_broadcast_i32x4(halves)
    };
    let first = table([0, 0, 0, 1, 1, 1, 2, 2, 2, 0, 0, 0, 0, 0, 0, 0]);
    let second = table([0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 0, 0, 0, 0, 0, 0]);
    let bytes = _mm512_xor_si512(bytes, _mm512_set1_epi8(-128));
    let even = _mm512_maddubs_epi16(bytes, nine);
    let odd = _mm512_maddubs_epi16(bytes, _mm512_set1_epi16(9 << 8));
    let two = high_bytes(even, odd);
    let even = _mm512_maddubs_epi16(even, nine);
    let odd = _mm512_maddubs_epi16(odd, nine);
    let next_two = high_bytes(even, odd);
    let even = _mm512_maddubs_epi16(even, three);
    let odd = _mm512_maddubs_epi16(odd, three);
    [
        _mm512_shuffle_epi8(first, two),
        _mm512_shuffle_epi8(second, two),
        _mm512_shuffle_epi8(first, next_two),
        _mm512_shuffle_epi8(second, next_two),
        high_bytes(even, odd),
    ]
}

/// The same, but the compiler does not know: it would make 27 b of 3 · 3 · 3 b, which are four
/// instructions for two.
#[target_feature(enable = "avx512f")]
#[inline]
fn opaque(mut x: __m512i) -> __m512i {
    // SAFETY: the assembly is empty, so it reads and writes nothing.
    unsafe {
        std::arch::asm!(
            "/* {0} */",
            inout(zmm_reg) x,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    x
}

/// A product by tables ([`lut`](super::super::lut)).
type Tables = unsafe fn(Operands, &mut [i32], &[Loops]);

/// The arguments of a product.
#[derive(Clone, Copy)]
struct Product<'a, const STEPS: usize> {
    shape: GemmShape,
    rows: &'a [[u8; BLOCK_BYTES]], // (rows, blocks)
    q: &'a [[[i8; 32]; STEPS]],    // (tokens, blocks)
    q_sums: &'a [i32],
}

/// One token: `add` adds the products of a block, `STEPS` digits per byte, to `SUMS` sums from
/// which `finish` makes the result.
#[derive(Clone, Copy)]
struct One<Add, Finish> {
    add: Add,
    finish: Finish,
}

/// A packing has `STEPS` digits per byte. `one` computes one token, which meets `ROWS` rows at
/// once; two or three tokens meet `ROWS_OF_FEW`. `unpack` finds the digits for several tokens, and
/// `tables` is the product by tables where many tokens use them.
///
/// # Safety
/// The caller has AVX-512 F, BW and VNNI, and what `unpack` needs: everything is inlined into it.
#[inline(always)]
unsafe fn gemm<
    const ROWS: usize,
    const ROWS_OF_FEW: usize,
    const STEPS: usize,
    const SUMS: usize,
>(
    operands: Operands,
    sums: &mut [i32],
    one: One<
        impl Fn([__m512i; SUMS], __m512i, [__m512i; STEPS]) -> [__m512i; SUMS],
        impl Fn([__m512i; SUMS]) -> __m512i,
    >,
    unpack: impl Fn(__m512i) -> [__m512i; STEPS] + Copy,
    tables: Option<Tables>,
) {
    /// Fewest tokens, out of those of a table, for which tables take less time than multiply-add:
    /// with the four digits of `i2` and with the five of `t5`.
    const TABLE_TOKENS: [usize; 2] = [29, 25];
    /// Most tokens that take less time without a panel.
    const FEW_TOKENS: usize = 32;
    let tokens = match tables {
        Some(_) => tokens_for_tables(operands.shape, lut::LOOPS, TABLE_TOKENS[STEPS - 4]),
        None => 0,
    };
    let (sums, rest_sums) = sums.split_at_mut(operands.shape.rows * tokens);
    let [operands, rest] = operands.split_at(tokens);
    if let Some(tables) = tables.filter(|_| tokens > 0) {
        // SAFETY: the caller has AVX-512, and every CPU with AVX-512 has AVX2.
        unsafe { tables(operands, sums, lut::LOOPS) };
    }
    let product = Product {
        shape: rest.shape,
        rows: rest.rows.as_chunks().0,
        q: rest.q.as_chunks().0.as_chunks().0,
        q_sums: rest.q_sums,
    };
    // SAFETY: the caller has AVX-512 F, BW and VNNI.
    unsafe {
        match rest.shape.tokens {
            0 => {}
            1 => gemv::<ROWS, _, _>(product, rest_sums, one),
            // They take less time with columns in lanes than with rows in lanes.
            2 => beside::<2, ROWS_OF_FEW, _>(product, rest_sums, unpack),
            3 => beside::<3, ROWS_OF_FEW, _>(product, rest_sums, unpack),
            4..=FEW_TOKENS => digits::few(rest, rest_sums, Rows16, unpack),
            _ => digits::product::<4, STEPS, _>(rest, rest_sums, Rows16, unpack),
        }
    }
}

/// One token, which meets `ROWS` rows at once: a divisor of four.
///
/// # Safety
/// The caller has AVX-512 F, BW and VNNI; everything is inlined into it.
#[inline(always)]
unsafe fn gemv<const ROWS: usize, const STEPS: usize, const SUMS: usize>(
    product: Product<STEPS>,
    sums: &mut [i32],
    one: One<
        impl Fn([__m512i; SUMS], __m512i, [__m512i; STEPS]) -> [__m512i; SUMS],
        impl Fn([__m512i; SUMS]) -> __m512i,
    >,
) {
    let (q, last_q) = product.q.as_chunks::<2>();
    let prefetch = Prefetch::of(ROWS, product.shape.blocks * BLOCK_BYTES);
    for (first, sums) in (0..).step_by(4).zip(sums.chunks_mut(4)) {
        // SAFETY: the caller has AVX-512 F, BW and VNNI.
        let dots = unsafe {
            let mut wide = [_mm512_setzero_si512(); 4];
            for (first, wide) in (first..).step_by(ROWS).zip(wide.as_chunks_mut::<ROWS>().0) {
                let rows: [_; ROWS] = product.rows(first);
                let start = rows[0].as_ptr().cast();
                let rows = rows.map(<[_]>::as_chunks::<2>);
                let mut parts = [[_mm512_setzero_si512(); SUMS]; ROWS];
                for (i, q) in q.iter().enumerate() {
                    for line in 0..ROWS {
                        prefetch.after(start, (i * ROWS + line) * 64);
                    }
                    let mut both = [_mm512_setzero_si512(); STEPS];
                    for (both, (low, high)) in both.iter_mut().zip(q[0].iter().zip(&q[1])) {
                        *both = pair(low, high);
                    }
                    for (parts, (blocks, _)) in parts.iter_mut().zip(rows) {
                        *parts = (one.add)(*parts, whole(bytemuck::cast_ref(&blocks[i])), both);
                    }
                }
                if let [q] = last_q {
                    // Where activations are zero, bytes do not matter.
                    let mut low = [_mm512_setzero_si512(); STEPS];
                    for (low, q) in low.iter_mut().zip(q) {
                        *low = _mm512_zextsi256_si512(load(q));
                    }
                    for (parts, (_, block)) in parts.iter_mut().zip(rows) {
                        let block = _mm512_zextsi256_si512(load(&block[0]));
                        *parts = (one.add)(*parts, block, low);
                    }
                }
                for (wide, parts) in wide.iter_mut().zip(parts) {
                    *wide = (one.finish)(parts);
                }
            }
            let mut halves = [_mm256_setzero_si256(); 4];
            for (half, wide) in halves.iter_mut().zip(wide) {
                *half = add_halves(wide);
            }
            four_sums(halves)
        };
        // Digits are trits + 1.
        for (sum, dot) in sums.iter_mut().zip(dots) {
            *sum = dot - product.q_sums[0];
        }
    }
}

/// Two or three tokens, as one token: a register holds two blocks of a row. It is unpacked once for
/// all tokens.
///
/// # Safety
/// The caller has AVX-512 F, BW and VNNI, and what `unpack` needs; everything is inlined into it.
#[inline(always)]
unsafe fn beside<const TOKENS: usize, const ROWS: usize, const STEPS: usize>(
    product: Product<STEPS>,
    sums: &mut [i32],
    unpack: impl Fn(__m512i) -> [__m512i; STEPS],
) {
    let GemmShape {
        rows: n, blocks, ..
    } = product.shape;
    let q: [_; TOKENS] = std::array::from_fn(|t| {
        let q = &product.q[t * blocks..][..blocks];
        let (pairs, last) = q.as_chunks::<2>();
        (&pairs[..blocks / 2], last)
    });
    let prefetch = Prefetch::of(ROWS, blocks * BLOCK_BYTES);
    for first in (0..n).step_by(ROWS) {
        let rows: [_; ROWS] = product.rows(first);
        let start = rows[0].as_ptr().cast();
        let rows = rows.map(|row| {
            let (pairs, last) = row.as_chunks::<2>();
            (&pairs[..blocks / 2], last)
        });
        // SAFETY: the caller has AVX-512 F, BW and VNNI.
        let dots = unsafe {
            let mut wide = [[_mm512_setzero_si512(); TOKENS]; ROWS];
            for i in 0..blocks / 2 {
                for line in 0..ROWS {
                    prefetch.after(start, (i * ROWS + line) * 64);
                }
                // Closures that are not inlined have no instruction set, so there is no map here.
                let mut digits = [[_mm512_setzero_si512(); STEPS]; ROWS];
                for (digits, (pairs, _)) in digits.iter_mut().zip(rows) {
                    *digits = unpack(whole(bytemuck::cast_ref(&pairs[i])));
                }
                for step in 0..STEPS {
                    for t in 0..TOKENS {
                        let [low, high] = &q[t].0[i];
                        let q = pair(&low[step], &high[step]);
                        for r in 0..ROWS {
                            wide[r][t] = _mm512_dpbusd_epi32(wide[r][t], digits[r][step], q);
                        }
                    }
                }
            }
            if blocks % 2 == 1 {
                // Where activations are zero, bytes do not matter.
                let mut digits = [[_mm512_setzero_si512(); STEPS]; ROWS];
                for (digits, (_, last)) in digits.iter_mut().zip(rows) {
                    *digits = unpack(_mm512_zextsi256_si512(load(&last[0])));
                }
                for t in 0..TOKENS {
                    for (step, q) in q[t].1[0].iter().enumerate() {
                        let q = _mm512_zextsi256_si512(load(q));
                        for r in 0..ROWS {
                            wide[r][t] = _mm512_dpbusd_epi32(wide[r][t], digits[r][step], q);
                        }
                    }
                }
            }
            let mut dots = [[0; 4]; ROWS];
            for (dots, wide) in dots.iter_mut().zip(wide) {
                let mut halves = [_mm256_setzero_si256(); 4];
                for (half, wide) in halves.iter_mut().zip(wide) {
                    *half = add_halves(wide);
                }
                *dots = four_sums(halves);
            }
            dots
        };
        // Digits are trits + 1.
        for (r, dots) in dots.iter().enumerate().take(n - first) {
            for (t, dot) in dots[..TOKENS].iter().enumerate() {
                sums[t * n + first + r] = dot - product.q_sums[t];
            }
        }
    }
}

impl<'a, const STEPS: usize> Product<'a, STEPS> {
    /// Rows from `first` on; after the last row, that row is repeated.
    fn rows<const N: usize>(&self, first: usize) -> [&'a [[u8; BLOCK_BYTES]]; N] {
        let GemmShape {
            rows: n, blocks, ..
        } = self.shape;
        std::array::from_fn(|r| &self.rows[(first + r).min(n - 1) * blocks..][..blocks])
    }
}

#[target_feature(enable = "avx512f")]
#[inline]
fn add_halves(wide: __m512i) -> __m256i {
    let (low, high) = (
        _mm512_castsi512_si256(wide),
        _mm512_extracti64x4_epi64::<1>(wide),
    );
    _mm256_add_epi32(low, high)
}
