//! Panels of digits ([`super::super::digits`]) in registers of 512 bits.

use std::arch::x86_64::*;

use sterna_ternary::packing::BLOCK_BYTES;

use super::super::digits::{self, Ahead, Dot, Lanes, MOST_ROWS, MOST_TOKENS, PanelLanes};

/// Rows in the 16 lanes of a register.
#[derive(Clone, Copy)]
pub(in super::super) struct Rows16;

impl Lanes for Rows16 {
    type Register = __m512i;
    type Activations = [i8; 4];
    type Block = [__m512i; 8];
    const ROWS: usize = 16;
    const TOKENS: usize = 1;

    #[inline(always)]
    unsafe fn start(self, [value, _]: [i32; MOST_TOKENS]) -> __m512i {
        // SAFETY: the caller has AVX-512 F, as the trait demands.
        unsafe { _mm512_set1_epi32(value) }
    }

    #[inline(always)]
    unsafe fn store(self, sums: __m512i, _: usize, to: &mut [i32]) {
        assert!(to.len() == 16);
        // SAFETY: the caller has AVX-512 F; 16 sums, and the store may be unaligned.
        unsafe { _mm512_storeu_si512(to.as_mut_ptr().cast(), sums) };
    }

    #[inline(always)]
    unsafe fn side_by_side<'a>(self, row: impl Fn(usize) -> &'a [u8; BLOCK_BYTES]) -> [__m512i; 8] {
        // SAFETY: the caller has AVX-512 F, as the trait demands.
        unsafe { columns(pairs(row)) }
    }

    #[inline(always)]
    unsafe fn direct<const SETS: usize, const STEPS: usize>(
        self,
        rows: &[&[[u8; BLOCK_BYTES]]; MOST_ROWS],
        q: [&[[i8; 4]]; SETS],
        digits: impl Fn(__m512i) -> [__m512i; STEPS] + Copy,
        sums: &mut [__m512i; SETS],
        ahead: Ahead,
    ) {
        #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
        #[inline(never)]
        unsafe fn compiled<const SETS: usize, const STEPS: usize>(
            rows: &[&[[u8; BLOCK_BYTES]]; MOST_ROWS],
            q: [&[[i8; 4]]; SETS],
            digits: impl Fn(__m512i) -> [__m512i; STEPS] + Copy,
            sums: &mut [__m512i; SETS],
            ahead: Ahead,
        ) {
            // SAFETY: this function is compiled for AVX-512 F, BW and VNNI.
            unsafe { digits::direct(Rows16, rows, q, digits, sums, ahead) }
        }
        // SAFETY: the caller has AVX-512 F, BW and VNNI, as the trait demands.
        unsafe { compiled(rows, q, digits, sums, ahead) }
    }
}

impl Dot for Rows16 {
    #[inline(always)]
    unsafe fn dot(self, sums: __m512i, digits: __m512i, q: [i8; 4]) -> __m512i {
        let q = i32::from_le_bytes(q.map(|q| q as u8));
        // SAFETY: the caller has AVX-512 F and VNNI, as the trait demands.
        unsafe { _mm512_dpbusd_epi32(sums, digits, _mm512_set1_epi32(q)) }
    }

    #[inline(always)]
    unsafe fn plus(self, a: __m512i, b: __m512i) -> __m512i {
        // SAFETY: the caller has AVX-512 F, as the trait demands.
        unsafe { _mm512_add_epi32(a, b) }
    }
}

impl PanelLanes for Rows16 {
    #[inline(always)]
    unsafe fn add<const REGISTERS: usize, const SETS: usize>(
        self,
        digits: &[__m512i],
        q: [&[[i8; 4]]; SETS],
        sums: &mut [[__m512i; REGISTERS]; SETS],
        ahead: Ahead,
    ) {
        #[target_feature(enable = "avx512f,avx512vnni")]
        #[inline(never)]
        unsafe fn compiled<const REGISTERS: usize, const SETS: usize>(
            digits: &[__m512i],
            q: [&[[i8; 4]]; SETS],
            sums: &mut [[__m512i; REGISTERS]; SETS],
            ahead: Ahead,
        ) {
            // SAFETY: this function is compiled for AVX-512 F and VNNI.
            unsafe { digits::add(Rows16, digits, q, sums, ahead) }
        }
        // SAFETY: the caller has AVX-512 F and VNNI, as the trait demands.
        unsafe { compiled(digits, q, sums, ahead) }
    }
}

/// A block of 16 rows. A register has row r and row r + 4: the first four registers have rows 0 to
/// 7, the others rows 8 to 15.
///
/// # Safety
/// The caller has AVX-512 F.
#[inline(always)]
pub(in super::super) unsafe fn pairs<'a>(
    row: impl Fn(usize) -> &'a [u8; BLOCK_BYTES],
) -> [__m512i; 8] {
    // SAFETY: the caller has AVX-512 F; 32 bytes, and the load may be unaligned.
    unsafe {
        let mut pairs = [_mm512_setzero_si512(); 8];
        for (i, pair) in pairs.iter_mut().enumerate() {
            let r = i / 4 * 8 + i % 4;
            let [low, high] =
                [row(r), row(r + 4)].map(|row| _mm256_loadu_si256(row.as_ptr().cast()));
            *pair = _mm512_inserti64x4::<1>(_mm512_castsi256_si512(low), high);
        }
        pairs
    }
}

/// The steps of the block in [`pairs`]: in each 128 bits, numbers of 32 bits of four rows become
/// four rows of one number.
///
/// # Safety
/// The caller has AVX-512 F.
#[inline(always)]
pub(in super::super) unsafe fn columns(pairs: [__m512i; 8]) -> [__m512i; 8] {
    let [a, b, c, d, e, f, g, h] = pairs;
    // SAFETY: the caller has AVX-512 F.
    unsafe {
        let (first, second) = (four_by_four([a, b, c, d]), four_by_four([e, f, g, h]));
        let mut columns = pairs;
        for i in 0..4 {
            columns[i] = _mm512_shuffle_i64x2::<0b10_00_10_00>(first[i], second[i]);
            columns[4 + i] = _mm512_shuffle_i64x2::<0b11_01_11_01>(first[i], second[i]);
        }
        columns
    }
}

/// In each 128 bits, number c of register r becomes number r of register c.
///
/// # Safety
/// The caller has AVX-512 F.
#[inline(always)]
unsafe fn four_by_four([a, b, c, d]: [__m512i; 4]) -> [__m512i; 4] {
    // SAFETY: the caller has AVX-512 F.
    unsafe {
        let low = [_mm512_unpacklo_epi32(a, b), _mm512_unpacklo_epi32(c, d)];
        let high = [_mm512_unpackhi_epi32(a, b), _mm512_unpackhi_epi32(c, d)];
        [
            _mm512_unpacklo_epi64(low[0], low[1]),
            _mm512_unpackhi_epi64(low[0], low[1]),
            _mm512_unpacklo_epi64(high[0], high[1]),
            _mm512_unpackhi_epi64(high[0], high[1]),
        ]
    }
}
