//! Q6_K: blocks of 256 values in 210 bytes, the usual type of heads in GGUF.
//!
//! A block has one f16 scale d, and each run of 16 values an int8 multiplier m. A value is
//! d · m · q, and its code q is -32 to 31. The bytes of a block are: the low four bits of all codes
//! (q + 32), their high two bits, the multipliers, d.
//!
//! The encoder minimises the squared error. First each run gets a scale of its own: for codes q
//! the best scale is Σxq / Σq², with the error Σx² - (Σxq)² / Σq², and several roundings to codes
//! are tried. Then d is chosen so that the largest scale is 127 d, and each run takes the
//! multiplier near scale / d with the smallest error.

use half::f16;

use super::floats::half;

/// Values per block.
pub(crate) const BLOCK: usize = 256;
/// Bytes per block.
pub(crate) const BYTES: usize = 210;
/// Values that share a multiplier.
const RUN: usize = 16;

/// Values must be smaller: then d is less than 2²⁷ / 24 / 127, which f16 can represent.
pub(crate) const LIMIT: f32 = (1u32 << 27) as f32;

/// Decodes whole blocks.
pub(crate) fn decode(bytes: &[u8], values: &mut [f32]) {
    for (block, values) in bytes
        .chunks_exact(BYTES)
        .zip(values.chunks_exact_mut(BLOCK))
    {
        let (low, rest) = block.split_at(128);
        let (high, rest) = rest.split_at(64);
        let (multipliers, d) = rest.split_at(16);
        let d = half(d);
        for (i, x) in values.iter_mut().enumerate() {
            let (at, shift, high_at, high_shift) = position(i);
            let code = low[at] >> shift & 15 | (high[high_at] >> high_shift & 3) << 4;
            *x = d * f32::from(multipliers[i / RUN] as i8) * (f32::from(code) - 32.0);
        }
    }
}

/// Encodes whole blocks of values below [`LIMIT`].
pub(crate) fn encode(values: &[f32], bytes: &mut [u8]) {
    for (x, block) in values.as_chunks().0.iter().zip(bytes.as_chunks_mut().0) {
        encode_block(x, block);
    }
}

/// Replaces the values of whole blocks by what decoding their encoding gives.
pub(crate) fn round(values: &mut [f32]) {
    let mut block = [0; BYTES];
    for x in values.as_chunks_mut().0 {
        encode_block(x, &mut block);
        decode(&block, x);
    }
}

/// Where the code of value `i` is: byte and shift of its low four bits, byte and shift of its high
/// two bits. A block consists of halves of 128 values, and these of quarters of 32.
fn position(i: usize) -> (usize, usize, usize, usize) {
    let (half, quarter, lane) = (i / 128, i / 32 % 4, i % 32);
    let low = 64 * half + 32 * (quarter % 2) + lane;
    (low, 4 * (quarter / 2), 32 * half + lane, 2 * quarter)
}

fn encode_block(x: &[f32; BLOCK], block: &mut [u8; BYTES]) {
    block.fill(0);
    let runs = x.as_chunks::<RUN>().0;
    let scales: [f32; BLOCK / RUN] = std::array::from_fn(|i| best_scale(&runs[i]));
    let d = block_scale(&scales);
    block[208..].copy_from_slice(&d.to_le_bytes());
    for (i, (run, scale)) in runs.iter().zip(scales).enumerate() {
        let (multiplier, codes) = best_multiplier(run, scale, d.to_f32());
        block[192 + i] = multiplier as u8;
        for (j, q) in codes.into_iter().enumerate() {
            let (at, shift, high_at, high_shift) = position(RUN * i + j);
            let code = (q + 32.0) as u8;
            block[at] |= (code & 15) << shift;
            block[128 + high_at] |= (code >> 4) << high_shift;
        }
    }
}

/// Rounds to the nearest code; even if two are equally near.
fn code(x: f32) -> f32 {
    // Adding 1.5 · 2²³ drops the fraction, as every number there is an integer.
    const INTEGERS: f32 = 12_582_912.0;
    (x.clamp(-32.0, 31.0) + INTEGERS) - INTEGERS
}

/// The scale of a run with the smallest squared error among the candidates; zero for zeros.
fn best_scale(run: &[f32; RUN]) -> f32 {
    let peak = run
        .iter()
        .fold(0f32, |m, x| if x.abs() > m.abs() { *x } else { m });
    if peak == 0.0 {
        return 0.0;
    }
    let (mut best, mut best_gain) = (0.0, 0.0);
    // The largest magnitude gets a code near `level`, clipped to -32. The sign of the scale makes
    // it negative, as there is one more code below zero than above.
    for level in (0..21).map(|i| -34.0 + 0.5 * i as f32) {
        let inverse = level / peak;
        let (mut products, mut squares) = (0f32, 0f32);
        for x in run {
            let q = code(x * inverse);
            products += x * q;
            squares += q * q;
        }
        let gain = products * products / squares;
        if gain > best_gain {
            (best, best_gain) = (products / squares, gain);
        }
    }
    best
}

/// The scale d of a block: each scale of a run, divided by d, rounds to 127 or less. Zero if all
/// are.
fn block_scale(scales: &[f32; BLOCK / RUN]) -> f16 {
    let largest = scales.iter().fold(0f32, |m, s| m.max(s.abs()));
    let d = f16::from_f32(largest / 127.0);
    match largest > 127.5 * d.to_f32() {
        true => f16::from_bits(d.to_bits() + 1), // the next larger number
        false => d,
    }
}

/// The multiplier near `scale` / `d` with the smallest squared error, and its codes.
fn best_multiplier(run: &[f32; RUN], scale: f32, d: f32) -> (i8, [f32; RUN]) {
    let mut best = (0, [0.0; RUN]);
    let mut least = run.iter().map(|x| x * x).sum::<f32>();
    if d == 0.0 {
        return best;
    }
    let near = (scale / d).round_ties_even();
    for multiplier in [near, near - 1.0, near + 1.0] {
        if multiplier == 0.0 || multiplier.abs() > 127.0 {
            continue;
        }
        let step = d * multiplier;
        let inverse = 1.0 / step;
        let codes = run.map(|x| code(x * inverse));
        let error = run
            .iter()
            .zip(codes)
            .map(|(x, q)| (x - step * q).powi(2))
            .sum::<f32>();
        if error < least {
            (best, least) = ((multiplier as i8, codes), error);
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values around zero, most of them small.
    fn values(count: usize, size: f32) -> Vec<f32> {
        let fraction = |i: usize| (i * 7919 % 10007) as f32 / 5003.5 - 1.0;
        let cubed = |i| fraction(i).powi(3) * size;
        (0..count).map(cubed).collect()
    }

    fn squared_error(a: &[f32], b: &[f32]) -> f32 {
        a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum()
    }

    fn rounded(values: &[f32]) -> Vec<f32> {
        let mut bytes = vec![0; values.len() / BLOCK * BYTES];
        encode(values, &mut bytes);
        let mut decoded = vec![9.0; values.len()];
        decode(&bytes, &mut decoded);
        let mut again = values.to_vec();
        round(&mut again);
        assert_eq!(decoded, again);
        decoded
    }

    /// Not more error than with a scale that maps the largest value of each run to -32, which needs
    /// no search but exact scales.
    #[test]
    fn the_search_reduces_the_error() {
        for size in [1e-4, 0.03, 1.0, 1e6] {
            let x = values(64 * BLOCK, size);
            let plain = x.as_chunks::<RUN>().0.iter().flat_map(|run| {
                let peak = run
                    .iter()
                    .fold(0f32, |m, x| if x.abs() > m.abs() { *x } else { m });
                let scale = peak / -32.0;
                run.map(|x| (x / scale).round_ties_even().clamp(-32.0, 31.0) * scale)
            });
            let plain = squared_error(&x, &plain.collect::<Vec<f32>>());
            let ours = squared_error(&x, &rounded(&x));
            assert!(ours < 0.95 * plain, "{size}: {ours} of {plain}");
        }
    }

    /// Here d is 2⁻⁴ and the multipliers are 127.
    #[test]
    fn values_that_the_type_holds_stay_the_same() {
        let x: Vec<f32> = (0..BLOCK)
            .map(|i| 127.0 / 16.0 * ((i % 16 * 4) as f32 - 32.0))
            .collect();
        assert_eq!(rounded(&x), x);
    }

    #[test]
    fn extremes_are_finite_and_zeros_stay_zeros() {
        assert_eq!(rounded(&[0.0; BLOCK]), [0.0; BLOCK]);
        for size in [1e-38, 1e-30, 1e-7, 1e-5, LIMIT * 0.99] {
            for sign in [1.0, -1.0] {
                let x = values(BLOCK, size * sign);
                let largest = x.iter().fold(0f32, |m, x| m.max(x.abs()));
                for (x, y) in x.iter().zip(rounded(&x)) {
                    // Steps are no finer than the least f16, 2⁻²⁴.
                    assert!((x - y).abs() <= (largest / 30.0).max(3e-8), "{x} {y}");
                }
            }
        }
    }

    #[test]
    fn codes_and_scales_of_a_block() {
        let mut block = vec![0; 210];
        block[208..].copy_from_slice(&[0x00, 0x38]);
        block[192..208].fill(2);
        block[192 + 9] = 0xfd; // -3: elements 144..160
        block[64 + 5] = 0x70; // low bits of element 128 + 64 + 5
        block[128 + 32 + 5] = 0x10 | 0x02; // high bits of it, and of element 128 + 5
        let mut values = [0.0; 256];
        decode(&block, &mut values);
        assert_eq!(values[0], -32.0);
        assert_eq!(values[144], 48.0);
        assert_eq!(values[128 + 64 + 5], 0.5 * 2.0 * (7.0 + 16.0 - 32.0));
        assert_eq!(values[128 + 5], 0.0);
    }
}
