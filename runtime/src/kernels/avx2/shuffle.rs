//! Rows and columns exchanged in registers.

use std::arch::x86_64::*;

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
