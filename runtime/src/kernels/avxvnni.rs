//! AVX-VNNI: `vpdpbusd` adds four products of unsigned digits and signed activations to 32-bit
//! lanes, in the encoding of CPUs without AVX-512. One token: a row along each register. Several
//! tokens: rows in lanes ([`digits`](super::digits), [`whole`](super::whole)). `avx2` has all other
//! slots, and the products with many tokens: its tables need fewer operations than `vpdpbusd`.
//!
//! CPUs with AVX-512 have the same instruction in their own encoding. The tests run the table in
//! that encoding too, so that it is proven where only AVX-512 is at hand.

use std::arch::x86_64::*;

use sterna_ternary::Packing;
use sterna_ternary::packing::BLOCK_BYTES;

use super::avx2;
use super::avx2::registers::load;
use super::avx2::shuffle::eight_by_eight;
use super::avx2::tables::LONG;
use super::avx2::ternary::{digits_i2, product_i2, product_t5, tokens_for_tables};
use super::avx2::unpack::digits_t5;
use super::codes::{CodeProduct, Int16};
use super::compile::slot;
use super::digits::{self, Ahead, Dot, Lanes, MOST_ROWS, MOST_TOKENS};
use super::dot::{self, Multiply, Product, Unpack};
use super::lut::Loops;
use super::panels::PanelProduct;
use super::prefetch::Prefetch;
use super::shape::Operands;
use super::slots::{Kernels, MANY};
use super::whole::{self, CodeLanes, CodedRows};

/// Fewest tokens, out of those of a table, for which the tables of `avx2` take less time.
const TABLE_TOKENS: usize = 25;

/// A table with the dot products `$dpbusd` of bytes and `$dpwssd` of 16-bit numbers of the target
/// features `$features`.
macro_rules! table {
    ($name:literal, $features:literal, $dpbusd:ident, $dpwssd:ident) => {
        pub(super) static KERNELS: Kernels = Kernels {
            name: $name,
            table_tokens: || MANY,
            gemm_i2: slot!(gemm_i2(rows, q, q_sums, sums)),
            gemm_t5: slot!(gemm_t5(rows, q, q_sums, sums)),
            codes: slot!(codes(product, sums)),
            prefers_codes: |tokens| tokens > 1,
            panels_i8: slot!(panels_i8(product, y)),
            ..avx2::KERNELS
        };

        #[target_feature(enable = $features)]
        fn panels_i8(panels: PanelProduct<i16, i8>, y: &mut [f32]) {
            avx2::panels::pairs(panels, y, |sums, x, pairs| $dpwssd(sums, x, pairs));
        }

        #[target_feature(enable = $features)]
        fn gemm_i2(rows: &[u8], q: &[i8], q_sums: &[i32], sums: &mut [i32]) {
            if q_sums.len() == 1 {
                let prefetch = Prefetch::of(1, 0);
                let unpack = Unpack::<4, _, _> {
                    bias: 1,
                    start: |bytes: &[u8; 32]| ahead(bytes, prefetch),
                    step: |codes| step_i2(codes),
                };
                return gemv(Product::of(Packing::I2, rows, q, q_sums, sums), unpack);
            }
            let operands = Operands::of(Packing::I2, rows, q, q_sums, sums);
            gemm(operands, sums, |codes| digits_i2(codes), product_i2);
        }

        #[target_feature(enable = $features)]
        fn gemm_t5(rows: &[u8], q: &[i8], q_sums: &[i32], sums: &mut [i32]) {
            if q_sums.len() == 1 {
                let prefetch = Prefetch::of(1, 0);
                let unpack = Unpack::<5, _, _> {
                    bias: 1,
                    start: |bytes: &[u8; 32]| start_t5(ahead(bytes, prefetch)),
                    step: |halves| step_t5(halves),
                };
                return gemv(Product::of(Packing::T5, rows, q, q_sums, sums), unpack);
            }
            let operands = Operands::of(Packing::T5, rows, q, q_sums, sums);
            gemm(operands, sums, |bytes| digits_t5(bytes), product_t5);
        }

        /// One token.
        #[target_feature(enable = $features)]
        #[inline]
        fn gemv<const STEPS: usize, S: Copy>(
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
            dot::gemv(product, unpack, multiply);
        }

        /// Several tokens.
        #[target_feature(enable = $features)]
        #[inline]
        fn gemm<const STEPS: usize>(
            operands: Operands,
            sums: &mut [i32],
            digits: impl Fn(__m256i) -> [__m256i; STEPS] + Copy,
            tables: unsafe fn(Operands, &mut [i32], &[Loops]),
        ) {
            let tokens = tokens_for_tables(operands.shape, LONG, TABLE_TOKENS);
            let (sums, rest_sums) = sums.split_at_mut(operands.shape.rows * tokens);
            let [operands, rest] = operands.split_at(tokens);
            // SAFETY: this function is compiled for `$features`, which AVX2 is one of.
            unsafe {
                if tokens > 0 {
                    tables(operands, sums, LONG);
                }
                if rest.shape.tokens > 0 {
                    digits::few(rest, rest_sums, Rows8, digits);
                }
            }
        }

        #[target_feature(enable = $features)]
        fn codes(product: CodeProduct, sums: &mut [i64]) {
            // SAFETY: this function is compiled for `$features`, which AVX2 is one of.
            unsafe { whole::product(product, sums, Rows8) }
        }

        /// Rows in the eight lanes of a register.
        #[derive(Clone, Copy)]
        struct Rows8;

        impl Lanes for Rows8 {
            type Register = __m256i;
            type Activations = [i8; 4];
            type Block = [__m256i; 8];
            const ROWS: usize = 8;
            const TOKENS: usize = 1;

            #[inline(always)]
            unsafe fn start(self, [value, _]: [i32; MOST_TOKENS]) -> __m256i {
                // SAFETY: the caller has AVX2, as the trait demands.
                unsafe { _mm256_set1_epi32(value) }
            }

            #[inline(always)]
            unsafe fn store(self, sums: __m256i, _: usize, to: &mut [i32]) {
                assert!(to.len() == 8);
                // SAFETY: the caller has AVX2; eight sums, and the store may be unaligned.
                unsafe { _mm256_storeu_si256(to.as_mut_ptr().cast(), sums) };
            }

            #[inline(always)]
            unsafe fn side_by_side<'a>(
                self,
                row: impl Fn(usize) -> &'a [u8; BLOCK_BYTES],
            ) -> [__m256i; 8] {
                // SAFETY: the caller has AVX2, as the trait demands.
                unsafe {
                    let mut rows = [_mm256_setzero_si256(); 8];
                    for (r, to) in rows.iter_mut().enumerate() {
                        *to = load(row(r));
                    }
                    eight_by_eight(rows)
                }
            }

            #[inline(always)]
            unsafe fn direct<const SETS: usize, const STEPS: usize>(
                self,
                rows: &[&[[u8; BLOCK_BYTES]]; MOST_ROWS],
                q: [&[[i8; 4]]; SETS],
                digits: impl Fn(__m256i) -> [__m256i; STEPS] + Copy,
                sums: &mut [__m256i; SETS],
                ahead: Ahead,
            ) {
                #[target_feature(enable = $features)]
                #[inline(never)]
                fn compiled<const SETS: usize, const STEPS: usize>(
                    rows: &[&[[u8; BLOCK_BYTES]]; MOST_ROWS],
                    q: [&[[i8; 4]]; SETS],
                    digits: impl Fn(__m256i) -> [__m256i; STEPS] + Copy,
                    sums: &mut [__m256i; SETS],
                    ahead: Ahead,
                ) {
                    // SAFETY: this function is compiled for `$features`.
                    unsafe { digits::direct(Rows8, rows, q, digits, sums, ahead) }
                }
                // SAFETY: the caller has `$features`, as the trait demands.
                unsafe { compiled(rows, q, digits, sums, ahead) }
            }
        }

        impl Dot for Rows8 {
            #[inline(always)]
            unsafe fn dot(self, sums: __m256i, digits: __m256i, q: [i8; 4]) -> __m256i {
                let q = i32::from_le_bytes(q.map(|q| q as u8));
                // SAFETY: the caller has `$features`, as the trait demands.
                unsafe { $dpbusd(sums, digits, _mm256_set1_epi32(q)) }
            }

            #[inline(always)]
            unsafe fn plus(self, a: __m256i, b: __m256i) -> __m256i {
                // SAFETY: the caller has AVX2, as the trait demands.
                unsafe { _mm256_add_epi32(a, b) }
            }
        }

        impl CodeLanes for Rows8 {
            #[inline(always)]
            unsafe fn codes(self, half: usize, four: __m256i, two: [__m256i; 2]) -> [__m256i; 2] {
                // SAFETY: the caller has AVX2, as the trait demands.
                unsafe { whole_codes(half, four, two) }
            }

            #[inline(always)]
            unsafe fn first_plane(self, codes: __m256i) -> __m256i {
                // SAFETY: the caller has AVX2, as the trait demands.
                unsafe { _mm256_and_si256(codes, _mm256_set1_epi8(0xf0u8 as i8)) }
            }

            #[inline(always)]
            unsafe fn scale(
                self,
                wide: &mut [__m256i; 2],
                sums: [__m256i; 2],
                constant: i32,
                multipliers: &[i32; MOST_ROWS],
            ) {
                // SAFETY: the caller has AVX2, as the trait demands.
                unsafe { scale(wide, sums, constant, multipliers) }
            }

            #[inline(always)]
            unsafe fn store_wide(self, wide: __m256i, to: &mut [i64; MOST_ROWS / 2]) {
                // SAFETY: the caller has AVX2; there is room for four, and the store may be
                // unaligned.
                unsafe { _mm256_storeu_si256(to.as_mut_ptr().cast(), wide) };
            }

            #[inline(always)]
            unsafe fn multiply<const TOKENS: usize, const LOW: bool>(
                self,
                rows: CodedRows<Self>,
                x: &[Int16; TOKENS],
            ) -> [[__m256i; 2]; TOKENS] {
                #[target_feature(enable = $features)]
                #[inline(never)]
                fn compiled<const TOKENS: usize, const LOW: bool>(
                    rows: CodedRows<Rows8>,
                    x: &[Int16; TOKENS],
                ) -> [[__m256i; 2]; TOKENS] {
                    // SAFETY: this function is compiled for `$features`.
                    unsafe { whole::multiply::<TOKENS, LOW, _>(Rows8, rows, x) }
                }
                // SAFETY: the caller has `$features`, as the trait demands.
                unsafe { compiled::<TOKENS, LOW>(rows, x) }
            }
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
    if super::avx512::detect().next().is_some() {
        return Some(&evex::KERNELS);
    }
    None
}

/// Packed bytes, with a prefetch of those that come later.
#[target_feature(enable = "avx2")]
#[inline]
fn ahead(bytes: &[u8; 32], prefetch: Prefetch) -> __m256i {
    prefetch.after(bytes.as_ptr(), 0);
    load(bytes)
}

/// [`CodeLanes::codes`]
#[target_feature(enable = "avx2")]
#[inline]
fn whole_codes(half: usize, four: __m256i, [two, last]: [__m256i; 2]) -> [__m256i; 2] {
    // What a 16-bit shift carries over is masked.
    let part = |bits: u8, bytes| _mm256_and_si256(bytes, _mm256_set1_epi8(bits as i8));
    let join = |four, two, last| {
        let low = _mm256_or_si256(part(0b1100, two), part(0b11, last));
        _mm256_or_si256(part(0xf0, four), low)
    };
    let next = _mm256_slli_epi16::<4>(four);
    match half {
        0 => [
            join(next, _mm256_slli_epi16::<2>(two), last),
            join(four, two, _mm256_srli_epi16::<2>(last)),
        ],
        _ => [
            join(
                next,
                _mm256_srli_epi16::<2>(two),
                _mm256_srli_epi16::<4>(last),
            ),
            join(
                four,
                _mm256_srli_epi16::<4>(two),
                _mm256_srli_epi16::<6>(last),
            ),
        ],
    }
}

/// [`CodeLanes::scale`]
#[target_feature(enable = "avx2")]
#[inline]
fn scale(
    [even, odd]: &mut [__m256i; 2],
    [high, low]: [__m256i; 2],
    constant: i32,
    multipliers: &[i32; MOST_ROWS],
) {
    // SAFETY: there are more than eight numbers; the load may be unaligned.
    let multipliers = unsafe { _mm256_loadu_si256(multipliers.as_ptr().cast()) };
    let sum = _mm256_add_epi32(_mm256_slli_epi32::<9>(high), _mm256_slli_epi32::<1>(low));
    let sum = _mm256_sub_epi32(sum, _mm256_set1_epi32(constant));
    *even = _mm256_add_epi64(*even, _mm256_mul_epi32(sum, multipliers));
    let [sum, multipliers] = [sum, multipliers].map(|lanes| _mm256_srli_epi64::<32>(lanes));
    *odd = _mm256_add_epi64(*odd, _mm256_mul_epi32(sum, multipliers));
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
