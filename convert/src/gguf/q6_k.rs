//! Q6_K: blocks of 256 values in 210 bytes.

use super::floats::half;

/// A block of 256 values: their low four bits in 128 bytes, their high two bits in 64, a signed
/// scale per 16 values, and an f16 scale of the block.
pub(crate) fn decode(bytes: &[u8], values: &mut [f32]) {
    for (block, values) in bytes.chunks_exact(210).zip(values.chunks_exact_mut(256)) {
        let (low, rest) = block.split_at(128);
        let (high, rest) = rest.split_at(64);
        let (scales, scale) = rest.split_at(16);
        let scale = half(scale);
        for (i, x) in values.iter_mut().enumerate() {
            // Half of the block, quarter of the half, lane of the quarter.
            let (h, g, l) = (i / 128, i / 32 % 4, i % 32);
            let four = low[64 * h + 32 * (g % 2) + l] >> (4 * (g / 2)) & 15;
            let two = high[32 * h + l] >> (2 * g) & 3;
            let code = f32::from(four | two << 4) - 32.0;
            *x = scale * f32::from(scales[i / 16] as i8) * code;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
