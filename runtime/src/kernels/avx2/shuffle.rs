//! Rows and columns exchanged in registers.

use std::arch::x86_64::*;

/// Eight columns of 16 tokens: one register per column, one byte per token.
#[target_feature(enable = "avx2")]
#[inline]
pub(super) fn columns(tokens: [&[i8; 8]; 16]) -> [__m128i; 8] {
    // Each step interleaves register i with the one half of them away: four perfect shuffles of the
    // 128 bytes (token, column) exchange the two.
    let mut x = [_mm_setzero_si128(); 8];
    for i in 0..8 {
        // SAFETY: eight bytes each.
        x[i] = unsafe {
            _mm_unpacklo_epi8(
                _mm_loadl_epi64(tokens[i].as_ptr().cast()),
                _mm_loadl_epi64(tokens[i + 8].as_ptr().cast()),
            )
        };
    }
    for _ in 0..3 {
        let before = x;
        for i in 0..4 {
            x[2 * i] = _mm_unpacklo_epi8(before[i], before[i + 4]);
            x[2 * i + 1] = _mm_unpackhi_epi8(before[i], before[i + 4]);
        }
    }
    x
}

/// Four rows of four sums, rows and columns exchanged.
#[target_feature(enable = "avx2")]
#[inline]
pub(super) fn four_by_four(rows: [&[i32; 4]; 4]) -> [__m128i; 4] {
    // SAFETY: four lanes each.
    let [a, b, c, d] = rows.map(|row| unsafe { _mm_loadu_si128(row.as_ptr().cast()) });
    let (low0, low1) = (_mm_unpacklo_epi32(a, b), _mm_unpacklo_epi32(c, d));
    let (high0, high1) = (_mm_unpackhi_epi32(a, b), _mm_unpackhi_epi32(c, d));
    [
        _mm_unpacklo_epi64(low0, low1),
        _mm_unpackhi_epi64(low0, low1),
        _mm_unpacklo_epi64(high0, high1),
        _mm_unpackhi_epi64(high0, high1),
    ]
}

/// Four registers of four u64, rows and columns exchanged.
#[target_feature(enable = "avx2")]
#[inline]
pub(super) fn exchange([a, b, c, d]: [__m256i; 4]) -> [__m256i; 4] {
    let (ab0, ab1) = (_mm256_unpacklo_epi64(a, b), _mm256_unpackhi_epi64(a, b));
    let (cd0, cd1) = (_mm256_unpacklo_epi64(c, d), _mm256_unpackhi_epi64(c, d));
    [
        _mm256_permute2x128_si256::<0x20>(ab0, cd0),
        _mm256_permute2x128_si256::<0x20>(ab1, cd1),
        _mm256_permute2x128_si256::<0x31>(ab0, cd0),
        _mm256_permute2x128_si256::<0x31>(ab1, cd1),
    ]
}

/// Eight registers of eight numbers of 32 bits, rows and columns exchanged.
#[target_feature(enable = "avx2")]
#[inline]
pub(crate) fn eight_by_eight(rows: [__m256i; 8]) -> [__m256i; 8] {
    let [a, b, c, d, e, f, g, h] = rows;
    let (below, above) = (transpose([a, b, c, d]), transpose([e, f, g, h]));
    let mut columns = rows;
    for i in 0..4 {
        columns[i] = _mm256_permute2x128_si256::<0x20>(below[i], above[i]);
        columns[4 + i] = _mm256_permute2x128_si256::<0x31>(below[i], above[i]);
    }
    columns
}

/// In each 128 bits, four numbers of 32 bits from four registers: number c of register r becomes
/// number r of register c.
#[target_feature(enable = "avx2")]
#[inline]
pub(super) fn transpose([a, b, c, d]: [__m256i; 4]) -> [__m256i; 4] {
    let low = [_mm256_unpacklo_epi32(a, b), _mm256_unpacklo_epi32(c, d)];
    let high = [_mm256_unpackhi_epi32(a, b), _mm256_unpackhi_epi32(c, d)];
    [
        _mm256_unpacklo_epi64(low[0], low[1]),
        _mm256_unpackhi_epi64(low[0], low[1]),
        _mm256_unpacklo_epi64(high[0], high[1]),
        _mm256_unpackhi_epi64(high[0], high[1]),
    ]
}
