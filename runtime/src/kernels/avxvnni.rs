//! AVX-VNNI: `vpdpbusd` adds four products of unsigned digits and signed activations to 32-bit
//! lanes, in the encoding of CPUs without AVX-512. `avx2` has all other slots, and the products
//! with many tokens: its tables need fewer operations than `vpdpbusd`.
//!
//! CPUs with AVX-512 have the same instruction in their own encoding. The tests run the table in
//! that encoding too, so that it is proven where only AVX-512 is at hand.

use std::arch::x86_64::*;

use sterna_ternary::Packing;

use super::avx2;
use super::avx2::registers::load;
use super::compile::slot;
use super::dot::{self, Multiply, Product, Unpack};
use super::panels::PanelProduct;
use super::prefetch::{prefetch_distance, prefetch_line};
use super::slots::Kernels;

/// Most tokens that `vpdpbusd` serves sooner than the tables of `avx2`.
const FEW_TOKENS: usize = 19;

/// A table with the dot products `$dpbusd` of bytes and `$dpwssd` of 16-bit numbers of the target
/// features `$features`.
macro_rules! table {
    ($name:literal, $features:literal, $dpbusd:ident, $dpwssd:ident) => {
        pub(super) static KERNELS: Kernels = Kernels {
            name: $name,
            gemm_i2: |rows, q, q_sums, sums| {
                if q_sums.len() > FEW_TOKENS {
                    return (avx2::KERNELS.gemm_i2)(rows, q, q_sums, sums);
                }
                let product = Product::of(Packing::I2, rows, q, q_sums, sums);
                // SAFETY: only a table calls this, and `detect` hands it out only where it found
                // `$features`.
                unsafe { gemm_i2(product) }
            },
            gemm_t5: |rows, q, q_sums, sums| {
                if q_sums.len() > FEW_TOKENS {
                    return (avx2::KERNELS.gemm_t5)(rows, q, q_sums, sums);
                }
                let product = Product::of(Packing::T5, rows, q, q_sums, sums);
                // SAFETY: only a table calls this, and `detect` hands it out only where it found
                // `$features`.
                unsafe { gemm_t5(product) }
            },
            panels_i8: slot!(panels_i8(product, y)),
            ..avx2::KERNELS
        };

        #[target_feature(enable = $features)]
        fn panels_i8(panels: PanelProduct<i16, i8>, y: &mut [f32]) {
            avx2::panels::pairs(panels, y, |sums, x, pairs| $dpwssd(sums, x, pairs));
        }

        #[target_feature(enable = $features)]
        fn gemm_i2(product: Product) {
            let unpack = Unpack::<4, _, _> {
                bias: 1,
                start: |bytes: &[u8; 32]| ahead(bytes),
                step: |codes| step_i2(codes),
            };
            gemm(product, unpack);
        }

        #[target_feature(enable = $features)]
        fn gemm_t5(product: Product) {
            let unpack = Unpack::<5, _, _> {
                bias: 1,
                start: |bytes: &[u8; 32]| start_t5(ahead(bytes)),
                step: |halves| step_t5(halves),
            };
            gemm(product, unpack);
        }

        #[target_feature(enable = $features)]
        #[inline]
        fn gemm<const STEPS: usize, S: Copy>(
            product: Product,
            unpack: Unpack<
                STEPS,
                impl Fn(&[u8; 32]) -> S + Copy,
                impl Fn(S) -> (__m256i, S) + Copy,
            >,
        ) {
            let multiply = Multiply {
                zero: _mm256_setzero_si256(),
                load: |q: &[i8; 32]| load(q),
                dot: |sums, digits, q| $dpbusd(sums, digits, q),
                sum: |sums| horizontal_sum(sums),
            };
            dot::gemm::<2, _, _, _, _>(product, unpack, multiply);
        }
    };
}

mod vex {
    use super::*;

    table!(
        "avx-vnni",
        "avx2,avxvnni",
        _mm256_dpbusd_avx_epi32,
        _mm256_dpwssd_avx_epi32
    );
}

#[cfg(test)]
mod evex {
    use super::*;

    table!(
        "avx-vnni in the encoding of avx512",
        "avx2,avx512vnni,avx512vl",
        _mm256_dpbusd_epi32,
        _mm256_dpwssd_epi32
    );
}

/// The table, if this CPU runs it.
pub(super) fn detect() -> Option<&'static Kernels> {
    if is_x86_feature_detected!("avxvnni") && avx2::detect().is_some() {
        return Some(&vex::KERNELS);
    }
    #[cfg(test)]
    if super::avx512::detect().is_some() {
        return Some(&evex::KERNELS);
    }
    None
}

/// Packed bytes, with a prefetch of those that come later.
#[target_feature(enable = "avx2")]
#[inline]
fn ahead(bytes: &[u8; 32]) -> __m256i {
    prefetch_line(bytes.as_ptr(), prefetch_distance(2, 0));
    load(bytes)
}

/// The digit of a step is the low two bits of each byte; what a 16-bit shift carries over is
/// masked.
#[target_feature(enable = "avx2")]
#[inline]
fn step_i2(codes: __m256i) -> (__m256i, __m256i) {
    let digits = _mm256_and_si256(codes, _mm256_set1_epi8(3));
    (digits, _mm256_srli_epi16::<2>(codes))
}

/// Even and odd bytes, in 16-bit lanes.
type Halves = [__m256i; 2];

#[target_feature(enable = "avx2")]
#[inline]
fn start_t5(bytes: __m256i) -> Halves {
    let bytes = _mm256_xor_si256(bytes, _mm256_set1_epi8(-128));
    [
        _mm256_maddubs_epi16(bytes, _mm256_set1_epi16(0x0003)),
        _mm256_maddubs_epi16(bytes, _mm256_set1_epi16(0x0300)),
    ]
}

#[target_feature(enable = "avx2")]
#[inline]
fn step_t5([even, odd]: Halves) -> (__m256i, Halves) {
    let low_byte = _mm256_set1_epi16(0x0003);
    let high_mask = _mm256_set1_epi16(0xff00u16 as i16);
    let digits = _mm256_blendv_epi8(_mm256_srli_epi16::<8>(even), odd, high_mask);
    let next = [
        _mm256_maddubs_epi16(even, low_byte),
        _mm256_maddubs_epi16(odd, low_byte),
    ];
    (digits, next)
}

#[target_feature(enable = "avx2")]
#[inline]
fn horizontal_sum(sums: __m256i) -> i32 {
    let halves = (
        _mm256_castsi256_si128(sums),
        _mm256_extracti128_si256::<1>(sums),
    );
    let sums = _mm_add_epi32(halves.0, halves.1);
    let sums = _mm_add_epi32(sums, _mm_unpackhi_epi64(sums, sums));
    _mm_extract_epi32::<0>(sums) + _mm_extract_epi32::<1>(sums)
}
