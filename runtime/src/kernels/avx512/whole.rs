//! Products with whole codes ([`super::super::whole`]) in registers of 512 bits.

use std::arch::x86_64::*;

use super::super::codes::{CodeProduct, Int16};
use super::super::digits::MOST_ROWS;
use super::super::whole::{self, CodeLanes, CodedRows};
use super::digits::Rows16;

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
pub(super) fn codes(product: CodeProduct, sums: &mut [i64]) {
    if product.x.len() == 1 && product.planes.len() > 1 {
        return super::codes::one(product, sums);
    }
    // SAFETY: this function is compiled for AVX-512 F, BW and VNNI.
    unsafe { whole::product(product, sums, Rows16) }
}

impl CodeLanes for Rows16 {
    #[inline(always)]
    unsafe fn codes(self, half: usize, four: __m512i, [two, last]: [__m512i; 2]) -> [__m512i; 2] {
        // SAFETY: the caller has AVX-512 F and BW, as the trait demands.
        unsafe {
            // Bits of a where the mask has ones, of b elsewhere. What a 16-bit shift carries over
            // is masked.
            let select = |mask: u8, a, b| {
                _mm512_ternarylogic_epi32::<0xca>(_mm512_set1_epi8(mask as i8), a, b)
            };
            let join = |four, two, last| {
                let last = _mm512_and_si512(last, _mm512_set1_epi8(0b11));
                select(0xf0, four, select(0b1100, two, last))
            };
            let next = _mm512_slli_epi16::<4>(four);
            match half {
                0 => [
                    join(next, _mm512_slli_epi16::<2>(two), last),
                    join(four, two, _mm512_srli_epi16::<2>(last)),
                ],
                _ => [
                    join(
                        next,
                        _mm512_srli_epi16::<2>(two),
                        _mm512_srli_epi16::<4>(last),
                    ),
                    join(
                        four,
                        _mm512_srli_epi16::<4>(two),
                        _mm512_srli_epi16::<6>(last),
                    ),
                ],
            }
        }
    }

    #[inline(always)]
    unsafe fn first_plane(self, codes: __m512i) -> __m512i {
        // SAFETY: the caller has AVX-512 F, as the trait demands.
        unsafe { _mm512_and_si512(codes, _mm512_set1_epi8(0xf0u8 as i8)) }
    }

    #[inline(always)]
    unsafe fn scale(
        self,
        [even, odd]: &mut [__m512i; 2],
        [high, low]: [__m512i; 2],
        constant: i32,
        multipliers: &[i32; MOST_ROWS],
    ) {
        // SAFETY: the caller has AVX-512 F, as the trait demands; 16 numbers, and the load may be
        // unaligned.
        unsafe {
            let multipliers = _mm512_loadu_si512(multipliers.as_ptr().cast());
            let sum = _mm512_add_epi32(_mm512_slli_epi32::<9>(high), _mm512_slli_epi32::<1>(low));
            let sum = _mm512_sub_epi32(sum, _mm512_set1_epi32(constant));
            *even = _mm512_add_epi64(*even, _mm512_mul_epi32(sum, multipliers));
            let [sum, multipliers] = [sum, multipliers].map(|lanes| _mm512_srli_epi64::<32>(lanes));
            *odd = _mm512_add_epi64(*odd, _mm512_mul_epi32(sum, multipliers));
        }
    }

    #[inline(always)]
    unsafe fn store_wide(self, wide: __m512i, to: &mut [i64; MOST_ROWS / 2]) {
        // SAFETY: the caller has AVX-512 F; eight numbers, and the store may be unaligned.
        unsafe { _mm512_storeu_si512(to.as_mut_ptr().cast(), wide) };
    }

    #[inline(always)]
    unsafe fn multiply<const TOKENS: usize, const LOW: bool>(
        self,
        rows: CodedRows<Self>,
        x: &[Int16; TOKENS],
    ) -> [[__m512i; 2]; TOKENS] {
        #[target_feature(enable = "avx512f,avx512vnni")]
        #[inline(never)]
        fn compiled<const TOKENS: usize, const LOW: bool>(
            rows: CodedRows<Rows16>,
            x: &[Int16; TOKENS],
        ) -> [[__m512i; 2]; TOKENS] {
            // SAFETY: this function is compiled for AVX-512 F and VNNI.
            unsafe { whole::multiply::<TOKENS, LOW, _>(Rows16, rows, x) }
        }
        // SAFETY: the caller has AVX-512 F and VNNI, as the trait demands.
        unsafe { compiled::<TOKENS, LOW>(rows, x) }
    }
}
