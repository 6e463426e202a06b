//! Registers of 256 bits: 32 bytes, and sums of their products.

use std::arch::x86_64::*;

/// 32 bytes, or 16 numbers of 16 bits.
pub(crate) type Bytes = __m256i;
/// Sums of 16 or of 32 bits.
pub(super) type Sum = __m256i;

/// Steps of 32 columns whose products a 16-bit lane of a sum holds.
pub(super) const NARROW_STEPS: usize = 64;

/// Functions of this instruction set that are one intrinsic each.
macro_rules! intrinsics {
    ($($name:ident($($arg:ident: $type:ty),*) = $intrinsic:expr;)*) => {$(
        #[target_feature(enable = "avx2")]
        #[inline]
        pub(super) fn $name($($arg: $type),*) -> Bytes {
            $intrinsic($($arg),*)
        }
    )*};
}

intrinsics! {
    splat(byte: i8) = _mm256_set1_epi8;
    splat_16(number: i16) = _mm256_set1_epi16;
    and(a: Bytes, b: Bytes) = _mm256_and_si256;
    xor(a: Bytes, b: Bytes) = _mm256_xor_si256;
    min(a: Bytes, b: Bytes) = _mm256_min_epu8;
    add(a: Bytes, b: Bytes) = _mm256_add_epi8;
    maddubs(digits: Bytes, q: Bytes) = _mm256_maddubs_epi16;
    shuffle(table: Bytes, places: Bytes) = _mm256_shuffle_epi8;
    zero() = _mm256_setzero_si256;
}

/// 16-bit lanes, shifted.
#[target_feature(enable = "avx2")]
#[inline]
pub(super) fn shift_right<const BITS: i32>(bytes: Bytes) -> Bytes {
    _mm256_srli_epi16::<BITS>(bytes)
}

/// The high bytes of 16-bit lanes, of `even` in even places.
#[target_feature(enable = "avx2")]
#[inline]
pub(super) fn high_bytes(even: Bytes, odd: Bytes) -> Bytes {
    let odd_places = _mm256_set1_epi16(0xff00u16 as i16);
    _mm256_blendv_epi8(_mm256_srli_epi16::<8>(even), odd, odd_places)
}

/// Sixteen bytes for `vpshufb` to select from.
#[target_feature(enable = "avx2")]
#[inline]
pub(super) fn table(bytes: [i8; 16]) -> Bytes {
    // SAFETY: 16 bytes.
    _mm256_broadcastsi128_si256(unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) })
}

/// Sixteen bytes as numbers of 16 bits.
#[target_feature(enable = "avx2")]
#[inline]
pub(super) fn numbers(bytes: [u8; 16]) -> Bytes {
    // SAFETY: 16 bytes; the load may be unaligned.
    _mm256_cvtepu8_epi16(unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) })
}

/// Four registers of four u64, rows and columns exchanged.
#[target_feature(enable = "avx2")]
#[inline]
pub(super) fn exchange([a, b, c, d]: [Bytes; 4]) -> [Bytes; 4] {
    let (ab0, ab1) = (_mm256_unpacklo_epi64(a, b), _mm256_unpackhi_epi64(a, b));
    let (cd0, cd1) = (_mm256_unpacklo_epi64(c, d), _mm256_unpackhi_epi64(c, d));
    [
        _mm256_permute2x128_si256::<0x20>(ab0, cd0),
        _mm256_permute2x128_si256::<0x20>(ab1, cd1),
        _mm256_permute2x128_si256::<0x31>(ab0, cd0),
        _mm256_permute2x128_si256::<0x31>(ab1, cd1),
    ]
}

#[target_feature(enable = "avx2")]
#[inline]
pub(crate) fn load<T: bytemuck::Pod>(bytes: &[T; 32]) -> Bytes {
    const { assert!(size_of::<T>() == 1) };
    // SAFETY: 32 elements of one byte; the load may be unaligned.
    unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) }
}

#[target_feature(enable = "avx2")]
#[inline]
pub(super) fn store(bytes: Bytes, to: &mut [u64; 4]) {
    // SAFETY: 32 bytes; the store may be unaligned.
    unsafe { _mm256_storeu_si256(to.as_mut_ptr().cast(), bytes) };
}

/// Adds products of unsigned digits and signed activations, in pairs, to 16-bit lanes.
#[target_feature(enable = "avx2")]
#[inline]
pub(super) fn add_products(narrow: Sum, digits: Bytes, q: Bytes) -> Sum {
    _mm256_add_epi16(narrow, maddubs(digits, q))
}

/// Adds products of 16-bit numbers, in pairs, to 32-bit lanes.
#[target_feature(enable = "avx2")]
#[inline]
pub(super) fn add_pairs(wide: Sum, a: Bytes, b: Bytes) -> Sum {
    _mm256_add_epi32(wide, _mm256_madd_epi16(a, b))
}

/// Adds `factor` times the 16-bit lanes, in pairs, to 32-bit lanes.
#[target_feature(enable = "avx2")]
#[inline]
pub(super) fn widen(wide: Sum, narrow: Sum, factor: i16) -> Sum {
    add_pairs(wide, narrow, splat_16(factor))
}

/// The sums of the 32-bit lanes of four registers.
#[target_feature(enable = "avx2")]
#[inline]
pub(crate) fn four_sums([a, b, c, d]: [Sum; 4]) -> [i32; 4] {
    let pairs = _mm256_hadd_epi32(_mm256_hadd_epi32(a, b), _mm256_hadd_epi32(c, d));
    let halves = (
        _mm256_castsi256_si128(pairs),
        _mm256_extracti128_si256::<1>(pairs),
    );
    let mut sums = [0; 4];
    let added = _mm_add_epi32(halves.0, halves.1);
    // SAFETY: four lanes; the store may be unaligned.
    unsafe { _mm_storeu_si128(sums.as_mut_ptr().cast(), added) };
    sums
}

/// The sum of the 32-bit lanes.
#[target_feature(enable = "avx2")]
#[inline]
pub(super) fn horizontal(sums: Sum) -> i64 {
    let low = _mm256_cvtepi32_epi64(_mm256_castsi256_si128(sums));
    let high = _mm256_cvtepi32_epi64(_mm256_extracti128_si256::<1>(sums));
    let four = _mm256_add_epi64(low, high);
    let halves = (
        _mm256_castsi256_si128(four),
        _mm256_extracti128_si256::<1>(four),
    );
    let two = _mm_add_epi64(halves.0, halves.1);
    _mm_extract_epi64::<0>(two) + _mm_extract_epi64::<1>(two)
}
