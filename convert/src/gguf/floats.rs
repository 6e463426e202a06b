//! Decoders of floating-point and quantized types, for tables and norms. Each decodes a run of
//! blocks. candle-core decodes most of these types too, but it is a tensor library, and only the
//! trainer depends on it.

use half::f16;
use sterna_ternary::Dtype;
use sterna_ternary::packing::{q4_0, q8_0};

use crate::read::mapped;

pub(crate) fn decode_f32(bytes: &[u8], values: &mut [f32]) {
    mapped::decode(Dtype::F32, bytes, values);
}

pub(crate) fn decode_f16(bytes: &[u8], values: &mut [f32]) {
    mapped::decode(Dtype::F16, bytes, values);
}

pub(crate) fn decode_bf16(bytes: &[u8], values: &mut [f32]) {
    mapped::decode(Dtype::Bf16, bytes, values);
}

pub(crate) fn half(bytes: &[u8]) -> f32 {
    f16::from_le_bytes([bytes[0], bytes[1]]).to_f32()
}

pub(crate) fn decode_q8_0(bytes: &[u8], values: &mut [f32]) {
    let blocks = bytes.as_chunks().0.iter().zip(values.as_chunks_mut().0);
    blocks.for_each(|(block, values)| *values = q8_0::decode(block));
}

pub(crate) fn encode_q8_0(values: &[f32], bytes: &mut [u8]) {
    let blocks = bytes.as_chunks_mut().0.iter_mut().zip(values.as_chunks().0);
    blocks.for_each(|(block, values)| q8_0::encode(values, block));
}

pub(crate) fn decode_q4_0(bytes: &[u8], values: &mut [f32]) {
    let blocks = bytes.as_chunks().0.iter().zip(values.as_chunks_mut().0);
    blocks.for_each(|(block, values)| *values = q4_0::decode(block));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_of_reduced_precision() {
        let mut block = vec![0x00, 0x38]; // 0.5
        block.extend((0..16).map(|i| i | (15 - i) << 4));
        let mut values = [0.0; 32];
        decode_q4_0(&block, &mut values);
        assert_eq!((values[0], values[15], values[16]), (-4.0, 3.5, 3.5));
    }

    #[test]
    fn q8_0_rounds_by_less_than_half_a_step() {
        let values: Vec<f32> = (0..64)
            .map(|i| ((i * 37 % 61) as f32 - 30.0) / 7.0)
            .collect();
        let mut bytes = [0; 68];
        encode_q8_0(&values, &mut bytes);
        let mut back = [0.0; 64];
        decode_q8_0(&bytes, &mut back);
        for (a, b) in values.iter().zip(back) {
            assert!((a - b).abs() < 0.51 * 30.0 / 7.0 / 127.0 + 2e-3, "{a} {b}");
        }
        encode_q8_0(&[0.0; 32], &mut bytes[..34]);
        assert_eq!(bytes[..34], [0; 34]);
    }
}
