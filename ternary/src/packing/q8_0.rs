//! `q8_0`, the block of GGUF: 32 columns in 34 bytes, an f16 scale and 32 int8 codes. Value = code
//! × scale.
//!
//! Scale and codes are those of ggml's reference: d = max|x| / 127; a code is x / d rounded half
//! away from zero; only then is d rounded to f16.

use half::f16;

/// Columns that share a scale, here and in [`super::q4_0`].
pub const BLOCK: usize = 32;

/// Bytes of a block.
pub const BYTES: usize = 2 + BLOCK;

/// Encodes a block.
pub fn encode(x: &[f32; BLOCK], block: &mut [u8; BYTES]) {
    let absmax = x.iter().fold(0f32, |m, x| m.max(x.abs()));
    let scale = absmax / 127.0;
    let inverse = if scale == 0.0 { 0.0 } else { 1.0 / scale };
    block[..2].copy_from_slice(&f16::from_f32(scale).to_le_bytes());
    for (q, x) in block[2..].iter_mut().zip(x) {
        *q = (x * inverse).round() as i8 as u8;
    }
}

/// Decodes a block.
pub fn decode(block: &[u8; BYTES]) -> [f32; BLOCK] {
    let scale = f16::from_le_bytes([block[0], block[1]]).to_f32();
    std::array::from_fn(|i| f32::from(block[2 + i] as i8) * scale)
}
