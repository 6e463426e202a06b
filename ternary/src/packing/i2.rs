//! `i2`: two bits per weight, four weights per byte. Fastest where arithmetic is the bottleneck.
//!
//! A block is 128 columns in 32 bytes. Byte j (0..32) holds the codes of columns j, 32 + j, 64 + j
//! and 96 + j in its bits 0-1, 2-3, 4-5 and 6-7. A code is trit + 1: 0, 1, 2 for -1, 0, +1; 3 is
//! never written. One load of 32 bytes and a shift by 2n therefore give 32 consecutive columns, one
//! per byte lane.

pub(super) const BLOCK_COLUMNS: usize = 128;
const LANES: usize = 32;

pub(super) fn pack_block(trits: &[i8], bytes: &mut [u8]) {
    for (j, byte) in bytes.iter_mut().enumerate() {
        *byte = (0..4)
            .map(|n| ((trits[n * LANES + j] + 1) as u8) << (2 * n))
            .sum();
    }
}

/// Unpacks a block. Returns false if it contains code 3.
pub(super) fn unpack_block(bytes: &[u8], trits: &mut [i8]) -> bool {
    for (j, byte) in bytes.iter().enumerate() {
        for n in 0..4 {
            trits[n * LANES + j] = (byte >> (2 * n) & 3) as i8 - 1;
        }
    }
    bytes.iter().all(|b| b & (b >> 1) & 0x55 == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documented_bit_positions() {
        let mut trits = [0i8; BLOCK_COLUMNS];
        trits[0] = 1;
        trits[32] = -1;
        trits[127] = 1;
        let mut bytes = [0; 32];
        pack_block(&trits, &mut bytes);
        assert_eq!(bytes[0], 0b01_01_00_10);
        assert_eq!(bytes[1], 0b01_01_01_01);
        assert_eq!(bytes[31], 0b10_01_01_01);
    }
}
