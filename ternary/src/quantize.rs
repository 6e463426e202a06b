//! The two quantizers of BitNet b1.58: absmean for weights and absmax for activations. Also the
//! absmax quantizer for rows of 8-bit embeddings and heads.
//!
//! Models that were trained with ternary weights and float activations use activations in 16 bits,
//! as two int8 digits in base 256. Products with trits remain sums of int8, and the rounding error
//! is below that of f32.
//!
//! All quantizers round half to even, as PyTorch does (Rust's `round` rounds half away from zero).
//! Source: "The Era of 1-bit LLMs: Training Tips, Code and FAQ", Microsoft 2024.

use crate::scales::{GROUP_COLUMNS, Scaling};

/// Lower bound of mean|W| and of max|x|, so that an all-zero tensor has a finite scale.
pub const EPSILON: f32 = 1e-5;

/// How inputs of linear layers are rounded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Activations {
    /// To int8, as BitNet b1.58 is trained.
    #[default]
    Int8,
    /// To 16 bits, for models whose activations were not quantized in training.
    Int16,
}

impl Activations {
    /// All roundings.
    pub const ALL: [Activations; 2] = [Activations::Int8, Activations::Int16];

    /// The name in headers and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Activations::Int8 => "int8",
            Activations::Int16 => "int16",
        }
    }

    /// The rounding with that name.
    pub fn from_name(name: &str) -> Option<Activations> {
        Activations::ALL.into_iter().find(|a| a.name() == name)
    }

    /// Number of int8 digits per activation.
    pub fn digits(self) -> usize {
        match self {
            Activations::Int8 => 1,
            Activations::Int16 => 2,
        }
    }
}

/// Rounds half to even where |x| ≤ 2²². Larger values are not rounded but stay larger, so a
/// following clamp still saturates them.
///
/// Adding 1.5 · 2²³ leaves no room for a fraction, and unlike `f32::round_ties_even` it needs no
/// instruction that a baseline CPU lacks.
#[inline(always)]
pub fn round_half_even(x: f32) -> f32 {
    const MAGIC: f32 = 12_582_912.0;
    (x + MAGIC) - MAGIC
}

/// The scale of a weight tensor: mean|W|, at least [`EPSILON`]. The result is NaN or infinite if
/// `w` contains such a value.
///
/// The sum runs in f64 over eight interleaved lanes, so its order is the same on every machine.
pub fn absmean(w: &[f32]) -> f32 {
    let mut lanes = [0f64; 8];
    let chunks = w.chunks_exact(8);
    for (lane, x) in lanes.iter_mut().zip(chunks.remainder()) {
        *lane += f64::from(x.abs());
    }
    for chunk in chunks {
        for (lane, x) in lanes.iter_mut().zip(chunk) {
            *lane += f64::from(x.abs());
        }
    }
    let mean = (lanes.iter().sum::<f64>() / w.len().max(1) as f64) as f32;
    if mean < EPSILON { EPSILON } else { mean }
}

/// Ternarizes one weight: w / scale, rounded half to even, clamped to ±1.
#[inline(always)]
pub fn trit(w: f32, scale: f32) -> f32 {
    round_half_even(w / scale).clamp(-1.0, 1.0)
}

/// Ternarizes a whole tensor: fills `trits` with -1, 0, +1 and returns the scale, [`absmean`] of
/// `w`.
///
/// # Panics
/// If the two slices differ in length.
pub fn ternarize(w: &[f32], trits: &mut [i8]) -> f32 {
    assert_eq!(w.len(), trits.len());
    let scale = absmean(w);
    for (t, w) in trits.iter_mut().zip(w) {
        *t = trit(*w, scale) as i8;
    }
    scale
}

/// Ternarizes a matrix with `columns` columns, each part that shares a scale as [`ternarize`] does
/// a whole tensor. Fills `trits` and returns the scales in the shape of [`Scaling::shape`].
///
/// # Panics
/// If the two slices differ in length.
pub fn ternarize_parts(w: &[f32], columns: usize, scaling: Scaling, trits: &mut [i8]) -> Vec<f32> {
    assert_eq!(w.len(), trits.len());
    let rows = w.len() / columns;
    let span = match scaling {
        Scaling::Matrix => return vec![ternarize(w, trits)],
        Scaling::Row => columns,
        Scaling::Group => GROUP_COLUMNS,
    };
    let mut scales = vec![0.0; scaling.shape(rows, columns).iter().product()];
    let of_rows = w.chunks_exact(columns).zip(trits.chunks_exact_mut(columns));
    for (row, (w, trits)) in of_rows.enumerate() {
        for (part, (w, trits)) in w.chunks(span).zip(trits.chunks_mut(span)).enumerate() {
            scales[scaling.index(row, part * span, rows)] = ternarize(w, trits);
        }
    }
    scales
}

/// The factor of one token's activations: 127 / max|x|, with max|x| at least [`EPSILON`].
///
/// The result is NaN or zero if `x` contains a NaN or an infinity; [`is_usable`] checks this.
#[inline(always)]
pub fn activation_scale(x: &[f32]) -> f32 {
    127.0 / absmax(x)
}

/// max|x|, at least [`EPSILON`]. The result is NaN or infinite if `x` contains such a value.
#[inline(always)]
fn absmax(x: &[f32]) -> f32 {
    // Bit patterns of absolute values sort like the values; infinity and NaN are the largest.
    let absmax = x
        .iter()
        .fold(0, |m: u32, x| m.max(x.to_bits() & 0x7fff_ffff));
    let absmax = f32::from_bits(absmax);
    if absmax < EPSILON { EPSILON } else { absmax }
}

/// The largest magnitude of a 16-bit activation. Both of its digits are then within ±127.
pub const LARGEST_INT16: f32 = 32639.0;

/// Whether an [`activation_scale`] was computed from finite activations.
pub fn is_usable(scale: f32) -> bool {
    scale > 0.0
}

/// Quantizes one token's activations to int8 and returns their [`activation_scale`] s: x ≈ q / s.
///
/// # Panics
/// If the two slices differ in length.
#[inline(always)]
pub fn quantize_activations(x: &[f32], q: &mut [i8]) -> f32 {
    assert_eq!(x.len(), q.len());
    let scale = activation_scale(x);
    for (q, x) in q.iter_mut().zip(x) {
        *q = round_half_even(x * scale).clamp(-128.0, 127.0) as i8;
    }
    scale
}

/// Quantizes one token's activations to 16 bits: x ≈ (256 · high + low) / s. Returns s =
/// [`LARGEST_INT16`] / max|x|, with max|x| at least [`EPSILON`]. NaN and infinities affect s as in
/// [`activation_scale`].
///
/// # Panics
/// If the slices differ in length.
#[inline(always)]
pub fn quantize_activations_int16(x: &[f32], high: &mut [i8], low: &mut [i8]) -> f32 {
    assert!(x.len() == high.len() && x.len() == low.len());
    let scale = LARGEST_INT16 / absmax(x);
    for (x, (high, low)) in x.iter().zip(high.iter_mut().zip(low)) {
        let q = round_half_even(x * scale).clamp(-LARGEST_INT16, LARGEST_INT16) as i32;
        *high = ((q + 128) >> 8) as i8;
        *low = q as i8; // q mod 256 in ±128: what the rounded high digit leaves
    }
    scale
}

/// Columns that share a scale in [`quantize_blocks`].
const BLOCK: usize = 32;
/// Blocks with max|x| below this become zeros, because 127 / max|x| would overflow.
const LEAST_BLOCK: f32 = 1e-36;

/// Quantizes one token's activations to codes in ±127 with one scale per 32 columns: x ≈ q · scale,
/// scale = max|x| / 127. This is the input type for matrices in `q8_0` and `q4_0`. It equals ggml's
/// Q8_0 except that the scale is not rounded to f16. A scale is not finite if its columns are not.
///
/// # Panics
/// If `x` and `q` differ in length, or `scales` does not have one element per 32 columns (rounded
/// up).
#[inline(always)]
pub fn quantize_blocks(x: &[f32], q: &mut [i8], scales: &mut [f32]) {
    assert!(x.len() == q.len() && scales.len() == x.len().div_ceil(BLOCK));
    let blocks = x.chunks(BLOCK).zip(q.chunks_mut(BLOCK));
    for ((x, q), scale) in blocks.zip(scales) {
        let absmax = x
            .iter()
            .fold(0, |m: u32, x| m.max(x.to_bits() & 0x7fff_ffff));
        let absmax = f32::from_bits(absmax);
        let is_tiny = absmax < LEAST_BLOCK;
        let inverse = if is_tiny { 0.0 } else { 127.0 / absmax };
        *scale = if is_tiny { 0.0 } else { absmax / 127.0 };
        for (q, x) in q.iter_mut().zip(x) {
            *q = round_half_even(x * inverse).clamp(-127.0, 127.0) as i8;
        }
    }
}

/// The scale of one row of an 8-bit table: max|x| / 127, at least the smallest normal number, so
/// that a row of zeros has a positive scale.
pub fn row_scale(x: &[f32]) -> f32 {
    let absmax = x.iter().fold(0f32, |m, x| m.max(x.abs()));
    (absmax / 127.0).max(f32::MIN_POSITIVE)
}

/// Quantizes one row of an 8-bit table to codes in ±127 and returns its [`row_scale`] s: x ≈ q · s.
///
/// # Panics
/// If the two slices differ in length.
pub fn quantize_row(x: &[f32], q: &mut [i8]) -> f32 {
    assert_eq!(x.len(), q.len());
    let scale = row_scale(x);
    for (q, x) in q.iter_mut().zip(x) {
        *q = round_half_even(x / scale).clamp(-127.0, 127.0) as i8;
    }
    scale
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_round_half_to_even() {
        // mean|W| = 1: 0.5 and -0.5 are ties and go to 0, 1.5 is clamped.
        let w = [0.5, -0.5, 1.5, -1.5, 0.51, -1.49, 0.9, 1.1];
        let mut trits = [9; 8];
        let scale = ternarize(&w, &mut trits);
        assert_eq!(scale, 1.0);
        assert_eq!(trits, [0, 0, 1, -1, 1, -1, 1, 1]);
    }

    #[test]
    fn parts_are_ternarized_on_their_own() {
        let w: Vec<f32> = (0..3 * 200)
            .map(|i| ((i * i % 41) as f32 - 20.0) * (i / 100 + 1) as f32)
            .collect();
        for (scaling, span) in [
            (Scaling::Matrix, 600),
            (Scaling::Row, 200),
            (Scaling::Group, 128),
        ] {
            let mut trits = vec![9; w.len()];
            let scales = ternarize_parts(&w, 200, scaling, &mut trits);
            assert_eq!(
                scales.len(),
                scaling.shape(3, 200).iter().product::<usize>()
            );
            for (row, w) in w.chunks(span.max(200)).enumerate() {
                for (part, w) in w.chunks(span).enumerate() {
                    let mut expected = vec![9; w.len()];
                    let scale = ternarize(w, &mut expected);
                    assert_eq!(scales[scaling.index(row, part * span, 3)], scale);
                    assert_eq!(trits[row * 200 + part * span..][..w.len()], expected);
                }
            }
        }
    }

    #[test]
    fn rounding_is_that_of_ieee() {
        for i in -40_000..40_000 {
            let x = i as f32 / 64.0;
            assert_eq!(round_half_even(x), x.round_ties_even(), "{x}");
        }
        for x in [4e6, -4e6, 1e30, f32::INFINITY] {
            assert_eq!(round_half_even(x).clamp(-1.0, 1.0), f32::signum(x), "{x}");
        }
        assert!(round_half_even(f32::NAN).is_nan());
    }

    #[test]
    fn zeros_have_a_finite_scale() {
        let mut trits = [1; 3];
        assert_eq!(ternarize(&[0.0; 3], &mut trits), EPSILON);
        assert_eq!(trits, [0; 3]);
        assert_eq!(absmean(&[]), EPSILON);
        let mut q = [1; 3];
        assert_eq!(quantize_activations(&[0.0; 3], &mut q), 127.0 / EPSILON);
        assert_eq!(q, [0; 3]);
    }

    #[test]
    fn activations_of_the_published_example() {
        // transformers: x = [0.5, -2.0] has scale 63.5 and codes [32, -127] (31.75, and a tie at
        // -127).
        let mut q = [0; 2];
        assert_eq!(quantize_activations(&[0.5, -2.0], &mut q), 63.5);
        assert_eq!(q, [32, -127]);
    }

    #[test]
    fn two_digits_hold_sixteen_bits() {
        let x: Vec<f32> = (-32_639..=32_639).map(|q| q as f32).collect();
        let (mut high, mut low) = (vec![0; x.len()], vec![0; x.len()]);
        assert_eq!(quantize_activations_int16(&x, &mut high, &mut low), 1.0);
        for (x, (high, low)) in x.iter().zip(high.iter().zip(&low)) {
            assert_eq!(*x, f32::from(*high) * 256.0 + f32::from(*low));
        }
        assert_eq!((high[0], low[0]), (-127, -127));
        let (mut high, mut low) = ([1; 3], [1; 3]);
        let scale = quantize_activations_int16(&[0.5, -0.4999, 0.0], &mut high, &mut low);
        assert_eq!(scale, 65278.0);
        assert_eq!((high, low), ([127, -127, 0], [127, -120, 0])); // -32632.47 is -127 · 256 - 120
        for bad in [f32::NAN, f32::INFINITY] {
            let scale = quantize_activations_int16(&[bad, 1.0, 2.0], &mut high, &mut low);
            assert!(!is_usable(scale), "{bad}");
        }
    }

    #[test]
    fn blocks_have_scales_of_their_own() {
        let mut x = [0.0; 70];
        (x[0], x[5], x[31]) = (-254.0, 1.0, 3.0); // the scale is 2: ties
        (x[32], x[33]) = (127.0, 0.49);
        x[69] = 1e-37;
        let (mut q, mut scales) = ([9; 70], [9.0; 3]);
        quantize_blocks(&x, &mut q, &mut scales);
        assert_eq!(scales, [2.0, 1.0, 0.0]);
        assert_eq!((q[0], q[5], q[31], q[32], q[33]), (-127, 0, 2, 127, 0));
        assert!(q[34..].iter().all(|q| *q == 0));
        for bad in [f32::NAN, f32::INFINITY] {
            x[40] = bad;
            quantize_blocks(&x, &mut q, &mut scales);
            assert!(!scales[1].is_finite() && scales[0].is_finite(), "{bad}");
        }
    }

    #[test]
    fn rows_of_a_table_round_half_to_even() {
        let mut q = [0; 4];
        let scale = quantize_row(&[127.0, -0.5, 1.5, -127.0], &mut q);
        assert_eq!((scale, q), (1.0, [127, 0, 2, -127]));
        let scale = quantize_row(&[0.0; 4], &mut q);
        assert_eq!((scale, q), (f32::MIN_POSITIVE, [0; 4]));
        // The largest magnitude keeps its code, also where max|x| / 127 is inexact or would be
        // subnormal.
        for x in [0.3, 1e-30, f32::MAX, 1e-40] {
            let scale = quantize_row(&[x, -x, 0.0, x], &mut q);
            assert!(scale > 0.0 && scale.is_finite());
            let code = if x == 1e-40 { 0 } else { 127 };
            assert_eq!(q, [code, -code, 0, code], "{x}");
        }
    }

    #[test]
    fn non_finite_values_are_seen() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            assert!(!is_usable(activation_scale(&[1.0, bad, 2.0])), "{bad}");
            assert!(!absmean(&[1.0, bad]).is_finite(), "{bad}");
        }
        assert!(is_usable(activation_scale(&[f32::MAX])));
    }
}
