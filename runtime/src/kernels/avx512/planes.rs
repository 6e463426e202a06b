//! Rows of tables in planes ([`sterna_ternary::planes`]), 64 columns at a time: their codes meet in
//! one register, each quarter of them becomes values with corrections, and exceptions take their
//! places.

use std::arch::x86_64::*;

use sterna_ternary::planes::{Numbers, Planes};
use sterna_ternary::table::{GROUP, PLANE_BYTES};

use super::super::avx2::registers::load;
use super::registers::whole;

/// Columns whose codes share a register.
const COLUMNS: usize = GROUP / 2;
/// Zeros at the end of the bits of numbers as f32.
const BF16: u32 = 16;
const F16: u32 = 13;

#[target_feature(enable = "avx512f,avx512bw,avx512vl,popcnt")]
pub(super) fn decode(planes: &Planes, row: usize, values: &mut [f32]) {
    let exceptions = planes.exceptions_of(row);
    match planes.exceptions {
        Numbers::F32(_) => planes.decode(row, values),
        Numbers::F16(all) => {
            decode_halves::<F16>(planes, row, bytemuck::cast_slice(&all[exceptions]), values);
        }
        Numbers::Bf16(all) => {
            decode_halves::<BF16>(planes, row, bytemuck::cast_slice(&all[exceptions]), values);
        }
    }
}

/// A row whose numbers have 16 bits.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,popcnt")]
fn decode_halves<const ZEROS: u32>(
    planes: &Planes,
    row: usize,
    mut exceptions: &[u16],
    values: &mut [f32],
) {
    let (columns, groups) = (values.len(), planes.codes.groups());
    assert_eq!(columns.div_ceil(GROUP), groups);
    let of_row = row * groups..(row + 1) * groups;
    let [high, middle, last] = planes.codes.bits;
    let high = &high.as_chunks::<{ PLANE_BYTES[0] }>().0[of_row.clone()];
    let middle = &middle.as_chunks::<{ PLANE_BYTES[1] }>().0[of_row.clone()];
    let last = &last.as_chunks::<{ PLANE_BYTES[2] }>().0[of_row.clone()];
    let scale = planes.codes.scales[row];
    let step = |g: usize| scale * f32::from(planes.codes.multipliers[of_row.start + g]);
    let codes = |g: usize, half: usize| {
        let high = &high[g].as_chunks::<32>().0[half];
        join(half, high, &middle[g], &last[g])
    };
    let (low, low_rest) = planes.low[row * columns..][..columns].as_chunks();
    let (values, values_rest) = values.as_chunks_mut();
    for (i, (low, values)) in low.iter().zip(values).enumerate() {
        let (g, half) = (i / 2, i % 2);
        let low = whole(low);
        exceptions = fill::<ZEROS>(codes(g, half), step(g), low, exceptions, values);
    }
    if !low_rest.is_empty() {
        let (g, half) = (low.len() / 2, low.len() % 2);
        let used = u64::MAX >> (COLUMNS - low_rest.len());
        // SAFETY: `used` selects as many bytes as there are.
        let low = unsafe { _mm512_maskz_loadu_epi8(used, low_rest.as_ptr().cast()) };
        let mut values = [0.0; COLUMNS];
        fill::<ZEROS>(codes(g, half), step(g), low, exceptions, &mut values);
        values_rest.copy_from_slice(&values[..values_rest.len()]);
    }
}

/// Half a group of values. Returns the exceptions of the columns after them.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,popcnt")]
#[inline]
fn fill<'a, const ZEROS: u32>(
    codes: __m512i,
    step: f32,
    low: __m512i,
    mut exceptions: &'a [u16],
    values: &mut [f32; COLUMNS],
) -> &'a [u16] {
    let found = _mm512_cmpeq_epi8_mask(low, _mm512_set1_epi8(i8::MIN));
    let step = _mm512_set1_ps(step);
    let parts = quarters(codes).into_iter().zip(quarters(low));
    let values = values.as_chunks_mut::<16>().0.iter_mut();
    for (i, ((codes, low), values)) in parts.zip(values).enumerate() {
        let mut x = corrected::<ZEROS>(codes, step, low);
        if found != 0 {
            let places = (found >> (16 * i)) as u16;
            // A row of a damaged file may have too few.
            let count = exceptions.len().min(places.count_ones() as usize);
            let (own, rest) = exceptions.split_at(count);
            let used = ((1u32 << count) - 1) as u16;
            // SAFETY: the mask selects as many numbers as `own` has.
            let own = unsafe { _mm256_maskz_loadu_epi16(used, own.as_ptr().cast()) };
            x = _mm512_mask_expand_ps(x, places, numbers::<ZEROS>(own));
            exceptions = rest;
        }
        // SAFETY: 16 elements; the store may be unaligned.
        unsafe { _mm512_storeu_ps(values.as_mut_ptr(), x) };
    }
    exceptions
}

/// The codes of half a group: four bits of the first plane, two of each other one.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,popcnt")]
#[inline]
fn join(half: usize, high: &[u8; 32], middle: &[u8; 32], last: &[u8; 32]) -> __m512i {
    // The lower 32 columns are in the lower bits. Each register is rotated so that its bits are in
    // their places; the others are masked.
    let twice = |bytes| _mm512_broadcast_i64x4(load(bytes));
    let by = |lower: i64, upper: i64| {
        _mm512_inserti64x4::<1>(_mm512_set1_epi64(lower), _mm256_set1_epi64x(upper))
    };
    let at = 4 * half as i64;
    let high = _mm512_rorv_epi64(twice(high), by(60, 0));
    let middle = _mm512_rorv_epi64(twice(middle), by(at + 62, at));
    let last = _mm512_rorv_epi64(twice(last), by(at, at + 2));
    // Bits of a where the mask has ones, of b elsewhere.
    let select =
        |mask: u8, a, b| _mm512_ternarylogic_epi32::<0xca>(_mm512_set1_epi8(mask as i8), a, b);
    let last = _mm512_and_si512(last, _mm512_set1_epi8(0b11));
    select(0xf0, high, select(0b1100, middle, last))
}

#[target_feature(enable = "avx512f")]
#[inline]
fn quarters(bytes: __m512i) -> [__m128i; 4] {
    [
        _mm512_castsi512_si128(bytes),
        _mm512_extracti32x4_epi32::<1>(bytes),
        _mm512_extracti32x4_epi32::<2>(bytes),
        _mm512_extracti32x4_epi32::<3>(bytes),
    ]
}

/// The values of 16 codes with corrections.
#[target_feature(enable = "avx512f")]
#[inline]
fn corrected<const ZEROS: u32>(codes: __m128i, step: __m512, corrections: __m128i) -> __m512 {
    let codes = _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(codes));
    let odd = _mm512_fmadd_ps(codes, _mm512_set1_ps(2.0), _mm512_set1_ps(-255.0));
    // Zero is added so that a group of zeros has no -0.
    let p = _mm512_add_ps(_mm512_mul_ps(odd, step), _mm512_setzero_ps());
    let added = _mm512_slli_epi32::<ZEROS>(_mm512_cvtepi8_epi32(corrections));
    let bits = _mm512_add_epi32(_mm512_castps_si512(p), added);
    let kept = _mm512_set1_epi32(-1 << ZEROS);
    _mm512_castsi512_ps(_mm512_and_si512(bits, kept))
}

/// The values of 16 numbers.
#[target_feature(enable = "avx512f")]
#[inline]
fn numbers<const ZEROS: u32>(bits: __m256i) -> __m512 {
    match ZEROS {
        BF16 => _mm512_castsi512_ps(_mm512_slli_epi32::<BF16>(_mm512_cvtepu16_epi32(bits))),
        _ => _mm512_cvtph_ps(bits),
    }
}
