//! Rows in lanes ([`super::super::digits`]) for `sdot` and `smmla`.
//!
//! `sdot` by element multiplies with one of the four steps that a register of activations holds, so
//! activations are loaded once for 16 columns and nothing broadcasts them. `smmla` has a set of two
//! tokens, eight columns each, in a register, and multiplies it with two rows.

use std::arch::aarch64::*;
use std::arch::asm;

use sterna_ternary::packing::BLOCK_BYTES;

use super::super::digits::{self, Ahead, Dot, Lanes, MOST_ROWS, MOST_TOKENS, PanelLanes};
use super::super::prefetch::prefetch_second;
use super::super::shape::Operands;
use super::{Bytes, halves, load, smmla};

/// Most tokens that go without a panel with `sdot`: with more, panels take fewer instructions.
const DOT_TOKENS: usize = 8;
/// The same with `smmla`.
const MATRIX_TOKENS: usize = 16;

/// The product of two or more tokens with `sdot`. `digits` unpacks 16 bytes.
#[target_feature(enable = "neon,dotprod")]
#[inline]
pub(super) fn gemm_dotprod<const STEPS: usize>(
    operands: Operands,
    sums: &mut [i32],
    digits: impl Fn(int8x16_t) -> [int8x16_t; STEPS] + Copy,
) {
    // SAFETY: this function is compiled for NEON and `sdot`.
    unsafe {
        match operands.shape.tokens {
            ..=DOT_TOKENS => digits::few(operands, sums, Rows4, digits),
            _ => digits::product::<4, STEPS, _>(operands, sums, Rows4, digits),
        }
    }
}

/// The product of two or more tokens with `smmla`. `digits` unpacks 16 bytes.
#[target_feature(enable = "neon,dotprod,i8mm")]
#[inline]
pub(super) fn gemm_i8mm<const STEPS: usize>(
    operands: Operands,
    sums: &mut [i32],
    digits: impl Fn(int8x16_t) -> [int8x16_t; STEPS] + Copy,
) {
    let digits = |[a, b]: Bytes| {
        let mut both = [[a, b]; STEPS];
        for (to, (a, b)) in both.iter_mut().zip(digits(a).into_iter().zip(digits(b))) {
            *to = [a, b];
        }
        both
    };
    // SAFETY: this function is compiled for NEON and `smmla`.
    unsafe {
        match operands.shape.tokens {
            ..=MATRIX_TOKENS => digits::few(operands, sums, RowPairs, digits),
            _ => digits::product::<2, STEPS, _>(operands, sums, RowPairs, digits),
        }
    }
}

/// Rows in the four lanes of a register, each with four columns.
#[derive(Clone, Copy)]
struct Rows4;

/// Steps whose activations are one register.
const LOADED: usize = 4;

impl Lanes for Rows4 {
    type Register = int8x16_t;
    type Activations = [i8; 4];
    type Block = [int8x16_t; 8];
    const ROWS: usize = 4;
    const TOKENS: usize = 1;

    #[inline(always)]
    unsafe fn start(self, [value, _]: [i32; MOST_TOKENS]) -> int8x16_t {
        // SAFETY: the caller has NEON, as the trait demands.
        unsafe { vreinterpretq_s8_s32(vdupq_n_s32(value)) }
    }

    #[inline(always)]
    unsafe fn store(self, sums: int8x16_t, _: usize, to: &mut [i32]) {
        assert!(to.len() == 4);
        // SAFETY: the caller has NEON; four sums.
        unsafe { vst1q_s32(to.as_mut_ptr(), vreinterpretq_s32_s8(sums)) };
    }

    #[inline(always)]
    unsafe fn side_by_side<'a>(
        self,
        row: impl Fn(usize) -> &'a [u8; BLOCK_BYTES],
    ) -> [int8x16_t; 8] {
        // SAFETY: the caller has NEON, as the trait demands.
        unsafe {
            let [a, b, c, d] = [0, 1, 2, 3].map(|r| load(row(r)));
            let [[e, f, g, h], [i, j, k, l]] =
                [0, 1].map(|half| four_by_four([a[half], b[half], c[half], d[half]]));
            [e, f, g, h, i, j, k, l]
        }
    }

    #[inline(always)]
    unsafe fn direct<const SETS: usize, const STEPS: usize>(
        self,
        rows: &[&[[u8; BLOCK_BYTES]]; MOST_ROWS],
        q: [&[[i8; 4]]; SETS],
        digits: impl Fn(int8x16_t) -> [int8x16_t; STEPS] + Copy,
        sums: &mut [int8x16_t; SETS],
        ahead: Ahead,
    ) {
        #[target_feature(enable = "neon,dotprod")]
        #[inline(never)]
        fn compiled<const SETS: usize, const STEPS: usize>(
            rows: &[&[[u8; BLOCK_BYTES]]; MOST_ROWS],
            q: [&[[i8; 4]]; SETS],
            digits: impl Fn(int8x16_t) -> [int8x16_t; STEPS] + Copy,
            sums: &mut [int8x16_t; SETS],
            ahead: Ahead,
        ) {
            let blocks = digits::same_blocks::<SETS, STEPS, Rows4>(rows, q);
            let q = q.map(|q| q.as_chunks::<LOADED>().0);
            // Two sums of each token: a product can begin before the one before it has ended.
            let mut even = sums.map(|sums| vreinterpretq_s32_s8(sums));
            let mut odd = [vdupq_n_s32(0); SETS];
            for b in 0..blocks {
                // SAFETY: this function is compiled for NEON; there are as many blocks of each row.
                let bytes = unsafe {
                    ahead.prefetch::<Rows4>(b);
                    Rows4.side_by_side(|r| rows[r].get_unchecked(b))
                };
                for (half, bytes) in bytes.as_chunks::<LOADED>().0.iter().enumerate() {
                    let steps = bytes.map(digits);
                    for n in 0..STEPS {
                        for t in 0..SETS {
                            // SAFETY: there are as many blocks of each token, two registers of
                            // activations for each of their digits.
                            let q = unsafe { q[t].get_unchecked((b * STEPS + n) * 2 + half) };
                            let q = load_steps(q);
                            even[t] = sdot_by::<0>(even[t], steps[0][n], q);
                            odd[t] = sdot_by::<1>(odd[t], steps[1][n], q);
                            even[t] = sdot_by::<2>(even[t], steps[2][n], q);
                            odd[t] = sdot_by::<3>(odd[t], steps[3][n], q);
                        }
                    }
                }
            }
            for t in 0..SETS {
                sums[t] = vreinterpretq_s8_s32(vaddq_s32(even[t], odd[t]));
            }
        }
        // SAFETY: the caller has NEON and `sdot`, as the trait demands.
        unsafe { compiled(rows, q, digits, sums, ahead) }
    }
}

impl PanelLanes for Rows4 {
    #[inline(always)]
    unsafe fn add<const REGISTERS: usize, const SETS: usize>(
        self,
        digits: &[int8x16_t],
        q: [&[[i8; 4]]; SETS],
        sums: &mut [[int8x16_t; REGISTERS]; SETS],
        ahead: Ahead,
    ) {
        #[target_feature(enable = "neon,dotprod")]
        #[inline(never)]
        fn compiled<const REGISTERS: usize, const SETS: usize>(
            digits: &[int8x16_t],
            q: [&[[i8; 4]]; SETS],
            sums: &mut [[int8x16_t; REGISTERS]; SETS],
            ahead: Ahead,
        ) {
            let (digits, _) = digits.as_chunks::<REGISTERS>(); // (steps, registers)
            let (digits, rest) = digits.as_chunks::<LOADED>();
            assert!(rest.is_empty());
            let q = q.map(|q| q.as_chunks::<LOADED>().0);
            for q in q {
                assert!(q.len() == digits.len());
            }
            let mut registers = sums.map(|sums| sums.map(|sums| vreinterpretq_s32_s8(sums)));
            for (s, digits) in digits.iter().enumerate() {
                for i in 0..LOADED {
                    prefetch_second(ahead.start.wrapping_add((s * LOADED + i) * ahead.step));
                }
                // SAFETY: there are as many steps of each token.
                let q = q.map(|q| load_steps(unsafe { q.get_unchecked(s) }));
                add_step::<0, _, _>(&mut registers, digits[0], q);
                add_step::<1, _, _>(&mut registers, digits[1], q);
                add_step::<2, _, _>(&mut registers, digits[2], q);
                add_step::<3, _, _>(&mut registers, digits[3], q);
            }
            *sums = registers.map(|sums| sums.map(|sums| vreinterpretq_s8_s32(sums)));
        }
        // SAFETY: the caller has NEON and `sdot`, as the trait demands.
        unsafe { compiled(digits, q, sums, ahead) }
    }
}

/// Adds the products with step `STEP` of a register of activations.
#[target_feature(enable = "neon,dotprod")]
#[inline]
fn add_step<const STEP: usize, const REGISTERS: usize, const SETS: usize>(
    sums: &mut [[int32x4_t; REGISTERS]; SETS],
    digits: [int8x16_t; REGISTERS],
    q: [int8x16_t; SETS],
) {
    for r in 0..REGISTERS {
        for t in 0..SETS {
            sums[t][r] = sdot_by::<STEP>(sums[t][r], digits[r], q[t]);
        }
    }
}

/// `sums[r]` += Σ `digits[4 r + c]` · `q[4 STEP + c]` over four c.
#[target_feature(enable = "neon,dotprod")]
#[inline]
fn sdot_by<const STEP: usize>(mut sums: int32x4_t, digits: int8x16_t, q: int8x16_t) -> int32x4_t {
    // SAFETY: reads and writes registers only; the function has the feature.
    unsafe {
        asm!(
            "sdot {0:v}.4s, {1:v}.16b, {2:v}.4b[{3}]",
            inlateout(vreg) sums, in(vreg) digits, in(vreg) q, const STEP,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    sums
}

#[target_feature(enable = "neon")]
#[inline]
fn load_steps(q: &[[i8; 4]; LOADED]) -> int8x16_t {
    // SAFETY: 16 bytes; any alignment will do.
    unsafe { vld1q_s8(q.as_ptr().cast()) }
}

/// Two pairs of rows, each row with eight columns. Sums are those of two rows with the first token
/// of a set and then with the second, of each pair.
#[derive(Clone, Copy)]
struct RowPairs;

impl Lanes for RowPairs {
    type Register = Bytes;
    type Activations = [i8; 16];
    type Block = [Bytes; 4];
    const ROWS: usize = 4;
    const TOKENS: usize = 2;

    #[inline(always)]
    unsafe fn start(self, [first, second]: [i32; MOST_TOKENS]) -> Bytes {
        // SAFETY: the caller has NEON, as the trait demands.
        unsafe {
            let values = vcombine_s32(vdup_n_s32(first), vdup_n_s32(second));
            [vreinterpretq_s8_s32(values); 2]
        }
    }

    #[inline(always)]
    unsafe fn store(self, [a, b]: Bytes, token: usize, to: &mut [i32]) {
        assert!(to.len() == 4);
        // SAFETY: the caller has NEON; four sums.
        unsafe { vst1q_s32(to.as_mut_ptr(), vreinterpretq_s32_s8(halves(a, b)[token])) };
    }

    #[inline(always)]
    unsafe fn side_by_side<'a>(self, row: impl Fn(usize) -> &'a [u8; BLOCK_BYTES]) -> [Bytes; 4] {
        // SAFETY: the caller has NEON, as the trait demands.
        unsafe {
            let [a, b, c, d] = [0, 1, 2, 3].map(|r| load(row(r)));
            let [[e, f], [g, h]] = [0, 1].map(|half| {
                let (first, second) = (halves(a[half], b[half]), halves(c[half], d[half]));
                [[first[0], second[0]], [first[1], second[1]]]
            });
            [e, f, g, h]
        }
    }

    #[inline(always)]
    unsafe fn direct<const SETS: usize, const STEPS: usize>(
        self,
        rows: &[&[[u8; BLOCK_BYTES]]; MOST_ROWS],
        q: [&[[i8; 16]]; SETS],
        digits: impl Fn(Bytes) -> [Bytes; STEPS] + Copy,
        sums: &mut [Bytes; SETS],
        ahead: Ahead,
    ) {
        #[target_feature(enable = "neon,dotprod,i8mm")]
        #[inline(never)]
        fn compiled<const SETS: usize, const STEPS: usize>(
            rows: &[&[[u8; BLOCK_BYTES]]; MOST_ROWS],
            q: [&[[i8; 16]]; SETS],
            digits: impl Fn(Bytes) -> [Bytes; STEPS] + Copy,
            sums: &mut [Bytes; SETS],
            ahead: Ahead,
        ) {
            // SAFETY: this function is compiled for NEON and `smmla`.
            unsafe { digits::direct(RowPairs, rows, q, digits, sums, ahead) }
        }
        // SAFETY: only the table with dot and matrix products uses these lanes.
        unsafe { compiled(rows, q, digits, sums, ahead) }
    }
}

impl Dot for RowPairs {
    #[inline(always)]
    unsafe fn dot(self, [a, b]: Bytes, digits: Bytes, q: [i8; 16]) -> Bytes {
        // SAFETY: the caller has NEON and `smmla`, as the trait demands; 16 bytes.
        unsafe {
            let q = vld1q_s8(q.as_ptr());
            let dot = |sums, digits| smmla(vreinterpretq_s32_s8(sums), q, digits);
            [
                vreinterpretq_s8_s32(dot(a, digits[0])),
                vreinterpretq_s8_s32(dot(b, digits[1])),
            ]
        }
    }

    #[inline(always)]
    unsafe fn plus(self, a: Bytes, b: Bytes) -> Bytes {
        // SAFETY: the caller has NEON, as the trait demands.
        unsafe {
            let plus = |a, b| vaddq_s32(vreinterpretq_s32_s8(a), vreinterpretq_s32_s8(b));
            [
                vreinterpretq_s8_s32(plus(a[0], b[0])),
                vreinterpretq_s8_s32(plus(a[1], b[1])),
            ]
        }
    }
}

impl PanelLanes for RowPairs {
    #[inline(always)]
    unsafe fn add<const REGISTERS: usize, const SETS: usize>(
        self,
        digits: &[Bytes],
        q: [&[[i8; 16]]; SETS],
        sums: &mut [[Bytes; REGISTERS]; SETS],
        ahead: Ahead,
    ) {
        #[target_feature(enable = "neon,dotprod,i8mm")]
        #[inline(never)]
        fn compiled<const REGISTERS: usize, const SETS: usize>(
            digits: &[Bytes],
            q: [&[[i8; 16]]; SETS],
            sums: &mut [[Bytes; REGISTERS]; SETS],
            ahead: Ahead,
        ) {
            // SAFETY: this function is compiled for NEON and `smmla`.
            unsafe { digits::add(RowPairs, digits, q, sums, ahead) }
        }
        // SAFETY: only the table with dot and matrix products uses these lanes.
        unsafe { compiled(digits, q, sums, ahead) }
    }
}

/// Number c of 32 bits of register r becomes number r of register c.
#[target_feature(enable = "neon")]
#[inline]
fn four_by_four(rows: [int8x16_t; 4]) -> [int8x16_t; 4] {
    let [a, b, c, d] = rows.map(|row| vreinterpretq_s32_s8(row));
    let (even, odd) = (
        [vtrn1q_s32(a, b), vtrn1q_s32(c, d)],
        [vtrn2q_s32(a, b), vtrn2q_s32(c, d)],
    );
    let halves =
        |[low, high]: [int32x4_t; 2]| halves(vreinterpretq_s8_s32(low), vreinterpretq_s8_s32(high));
    let ([first, third], [second, fourth]) = (halves(even), halves(odd));
    [first, second, third, fourth]
}
