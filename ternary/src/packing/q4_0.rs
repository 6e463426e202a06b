//! `q4_0`, the block of GGUF: 32 columns in 18 bytes, an f16 scale and 16 bytes of codes. Value =
//! (code − 8) × scale.
//!
//! Byte j holds the code of column j in its low four bits and that of column 16 + j in its high
//! four bits. Scale and codes are those of ggml's reference: d = m / −8, where m is the first value
//! of largest magnitude; code = min(⌊x / d + 8.5⌋, 15); only then is d rounded to f16. So m is
//! exact except for the rounding of d.

use half::f16;

use super::q8_0::BLOCK;

/// Bytes of a block.
pub const BYTES: usize = 2 + BLOCK / 2;

/// Encodes a block.
pub fn encode(x: &[f32; BLOCK], block: &mut [u8; BYTES]) {
    let extreme = x
        .iter()
        .fold(0f32, |m, x| if x.abs() > m.abs() { *x } else { m });
    let scale = extreme / -8.0;
    let inverse = if scale == 0.0 { 0.0 } else { 1.0 / scale };
    block[..2].copy_from_slice(&f16::from_f32(scale).to_le_bytes());
    let code = |x: f32| ((x * inverse + 8.5) as i8).min(15) as u8;
    let (low, high) = x.split_at(BLOCK / 2);
    for (byte, (low, high)) in block[2..].iter_mut().zip(low.iter().zip(high)) {
        *byte = code(*low) | code(*high) << 4;
    }
}

/// Decodes a block.
pub fn decode(block: &[u8; BYTES]) -> [f32; BLOCK] {
    let scale = f16::from_le_bytes([block[0], block[1]]).to_f32();
    std::array::from_fn(|i| {
        let code = block[2 + i % 16] >> (4 * (i / 16)) & 15;
        (f32::from(code) - 8.0) * scale
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documented_places_of_codes() {
        let mut x = [0.0; BLOCK];
        (x[3], x[19], x[31]) = (-8.0, 7.0, 1.0); // the scale is 1
        let mut block = [0xff; BYTES];
        encode(&x, &mut block);
        assert_eq!(block[..2], f16::ONE.to_le_bytes());
        assert_eq!((block[2], block[2 + 3], block[2 + 15]), (0x88, 0xf0, 0x98));
        assert_eq!(decode(&block), x);
    }
}
