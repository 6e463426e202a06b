//! Registers of 128 bits: 32 bytes are two of them, the sums of their products one.

use std::arch::x86_64::*;

/// 32 bytes, or 16 numbers of 16 bits.
pub(super) type Bytes = [__m128i; 2];
/// Sums of 16 or of 32 bits.
pub(super) type Sum = __m128i;

/// Steps of 32 columns whose products a 16-bit lane of a sum holds: two pairs in each step.
pub(super) const NARROW_STEPS: usize = 32;

/// Functions of this instruction set that are one intrinsic for each register.
macro_rules! intrinsics {
    ($($name:ident($($arg:ident),*) = $intrinsic:ident;)*) => {$(
        #[target_feature(enable = "ssse3")]
        #[inline]
        pub(super) fn $name($($arg: Bytes),*) -> Bytes {
            [$intrinsic($($arg[0]),*), $intrinsic($($arg[1]),*)]
        }
    )*};
}

intrinsics! {
    and(a, b) = _mm_and_si128;
    xor(a, b) = _mm_xor_si128;
    min(a, b) = _mm_min_epu8;
    add(a, b) = _mm_add_epi8;
    maddubs(digits, q) = _mm_maddubs_epi16;
    shuffle(table, places) = _mm_shuffle_epi8;
}

#[target_feature(enable = "ssse3")]
#[inline]
pub(super) fn splat(byte: i8) -> Bytes {
    [_mm_set1_epi8(byte); 2]
}

#[target_feature(enable = "ssse3")]
#[inline]
pub(super) fn splat_16(number: i16) -> Bytes {
    [_mm_set1_epi16(number); 2]
}

#[target_feature(enable = "ssse3")]
#[inline]
pub(super) fn zero() -> Sum {
    _mm_setzero_si128()
}

/// 16-bit lanes, shifted.
#[target_feature(enable = "ssse3")]
#[inline]
pub(super) fn shift_right<const BITS: i32>(bytes: Bytes) -> Bytes {
    bytes.map(|bytes| _mm_srli_epi16::<BITS>(bytes))
}

/// The high bytes of 16-bit lanes, of `even` in even places.
#[target_feature(enable = "ssse3")]
#[inline]
pub(super) fn high_bytes(even: Bytes, odd: Bytes) -> Bytes {
    let odd_places = _mm_set1_epi16(0xff00u16 as i16);
    let joined = |i: usize| {
        _mm_or_si128(
            _mm_srli_epi16::<8>(even[i]),
            _mm_and_si128(odd[i], odd_places),
        )
    };
    [joined(0), joined(1)]
}

/// Sixteen bytes for `pshufb` to select from.
#[target_feature(enable = "ssse3")]
#[inline]
pub(super) fn table(bytes: [i8; 16]) -> Bytes {
    // SAFETY: 16 bytes.
    [unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) }; 2]
}

/// Sixteen bytes as numbers of 16 bits.
#[target_feature(enable = "ssse3")]
#[inline]
pub(super) fn numbers(bytes: [u8; 16]) -> Bytes {
    // SAFETY: 16 bytes; the load may be unaligned.
    let bytes = unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) };
    let zero = _mm_setzero_si128();
    [
        _mm_unpacklo_epi8(bytes, zero),
        _mm_unpackhi_epi8(bytes, zero),
    ]
}

/// Four times four u64, rows and columns exchanged.
#[target_feature(enable = "ssse3")]
#[inline]
pub(super) fn exchange([a, b, c, d]: [Bytes; 4]) -> [Bytes; 4] {
    let low = |i: usize| {
        [
            _mm_unpacklo_epi64(a[i], b[i]),
            _mm_unpacklo_epi64(c[i], d[i]),
        ]
    };
    let high = |i: usize| {
        [
            _mm_unpackhi_epi64(a[i], b[i]),
            _mm_unpackhi_epi64(c[i], d[i]),
        ]
    };
    [low(0), high(0), low(1), high(1)]
}

#[target_feature(enable = "ssse3")]
#[inline]
pub(super) fn load<T: bytemuck::Pod>(bytes: &[T; 32]) -> Bytes {
    const { assert!(size_of::<T>() == 1) };
    let bytes: *const __m128i = bytes.as_ptr().cast();
    // SAFETY: 16 of 32 elements of one byte each; the loads may be unaligned.
    unsafe { [_mm_loadu_si128(bytes), _mm_loadu_si128(bytes.add(1))] }
}

#[target_feature(enable = "ssse3")]
#[inline]
pub(super) fn store([low, high]: Bytes, to: &mut [u64; 4]) {
    let to: *mut __m128i = to.as_mut_ptr().cast();
    // SAFETY: 16 of 32 bytes each; the stores may be unaligned.
    unsafe {
        _mm_storeu_si128(to, low);
        _mm_storeu_si128(to.add(1), high);
    }
}

/// Adds products of unsigned digits and signed activations, in pairs, to 16-bit lanes.
#[target_feature(enable = "ssse3")]
#[inline]
pub(super) fn add_products(narrow: Sum, digits: Bytes, q: Bytes) -> Sum {
    let [low, high] = maddubs(digits, q);
    _mm_add_epi16(narrow, _mm_add_epi16(low, high))
}

/// Adds products of 16-bit numbers, in pairs, to 32-bit lanes.
#[target_feature(enable = "ssse3")]
#[inline]
pub(super) fn add_pairs(wide: Sum, a: Bytes, b: Bytes) -> Sum {
    let [low, high] = [0, 1].map(|i| _mm_madd_epi16(a[i], b[i]));
    _mm_add_epi32(wide, _mm_add_epi32(low, high))
}

/// Adds `factor` times the 16-bit lanes, in pairs, to 32-bit lanes.
#[target_feature(enable = "ssse3")]
#[inline]
pub(super) fn widen(wide: Sum, narrow: Sum, factor: i16) -> Sum {
    _mm_add_epi32(wide, _mm_madd_epi16(narrow, _mm_set1_epi16(factor)))
}

/// The sums of the 32-bit lanes of four registers.
#[target_feature(enable = "ssse3")]
#[inline]
pub(super) fn four_sums([a, b, c, d]: [Sum; 4]) -> [i32; 4] {
    let added = _mm_hadd_epi32(_mm_hadd_epi32(a, b), _mm_hadd_epi32(c, d));
    let mut sums = [0; 4];
    // SAFETY: four lanes; the store may be unaligned.
    unsafe { _mm_storeu_si128(sums.as_mut_ptr().cast(), added) };
    sums
}

/// The sum of the 32-bit lanes.
#[target_feature(enable = "ssse3")]
#[inline]
pub(super) fn horizontal(sums: Sum) -> i64 {
    let sign = _mm_srai_epi32::<31>(sums);
    let two = _mm_add_epi64(
        _mm_unpacklo_epi32(sums, sign),
        _mm_unpackhi_epi32(sums, sign),
    );
    _mm_cvtsi128_si64(_mm_add_epi64(two, _mm_unpackhi_epi64(two, two)))
}
