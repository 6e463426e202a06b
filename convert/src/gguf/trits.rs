//! Encoders and decoders of trits: two bits each in several orders, or five per byte in base 3.
//!
//! A code is trit + 1. Each function handles one unit of its type ([`super::types`]) without its
//! scales. Decoders return false if a code is invalid.

/// Two bits per trit; byte p holds the trits p, L + p, 2L + p and 3L + p of a group of 4 L.
fn decode_planes<const L: usize>(shifts: [u8; 4], codes: &[u8], trits: &mut [i8]) -> bool {
    for (codes, trits) in codes.chunks_exact(L).zip(trits.chunks_exact_mut(4 * L)) {
        for (trits, shift) in trits.chunks_exact_mut(L).zip(shifts) {
            for (trit, code) in trits.iter_mut().zip(codes) {
                *trit = (code >> shift & 3) as i8 - 1;
            }
        }
    }
    has_no_code_3(codes)
}

fn encode_planes<const L: usize>(shifts: [u8; 4], trits: &[i8], codes: &mut [u8]) {
    for (codes, trits) in codes.chunks_exact_mut(L).zip(trits.chunks_exact(4 * L)) {
        codes.fill(0);
        for (trits, shift) in trits.chunks_exact(L).zip(shifts) {
            for (trit, code) in trits.iter().zip(codes.iter_mut()) {
                *code |= ((trit + 1) as u8) << shift;
            }
        }
    }
}

fn has_no_code_3(codes: &[u8]) -> bool {
    codes.iter().all(|b| b & (b >> 1) & 0x55 == 0)
}

const LOW_FIRST: [u8; 4] = [0, 2, 4, 6];
const HIGH_FIRST: [u8; 4] = [6, 4, 2, 0];

/// I2_S: 128 trits in 32 bytes, with the first plane in the highest bits.
pub(crate) fn decode_i2_s(codes: &[u8], trits: &mut [i8]) -> bool {
    decode_planes::<32>(HIGH_FIRST, codes, trits)
}

pub(crate) fn encode_i2_s(trits: &[i8], codes: &mut [u8]) {
    encode_planes::<32>(HIGH_FIRST, trits, codes);
}

/// I2_S as ARM builds after November 2025 write it: 64 trits in 16 bytes.
pub(crate) fn decode_i2_s_arm(codes: &[u8], trits: &mut [i8]) -> bool {
    decode_planes::<16>(HIGH_FIRST, codes, trits)
}

pub(crate) fn encode_i2_s_arm(trits: &[i8], codes: &mut [u8]) {
    encode_planes::<16>(HIGH_FIRST, trits, codes);
}

/// TQ2_0: 256 trits, two groups of 128 in 32 bytes each.
pub(crate) fn decode_tq2_0(codes: &[u8], trits: &mut [i8]) -> bool {
    decode_planes::<32>(LOW_FIRST, codes, trits)
}

pub(crate) fn encode_tq2_0(trits: &[i8], codes: &mut [u8]) {
    encode_planes::<32>(LOW_FIRST, trits, codes);
}

/// IQ2_BN: groups of 64 in 16 bytes.
pub(crate) fn decode_iq2_bn(codes: &[u8], trits: &mut [i8]) -> bool {
    decode_planes::<16>(LOW_FIRST, codes, trits)
}

pub(crate) fn encode_iq2_bn(trits: &[i8], codes: &mut [u8]) {
    encode_planes::<16>(LOW_FIRST, trits, codes);
}

/// IQ2_BN_R4: row and first column of the lowest code of a byte. The other codes are 4, 8 and 12
/// columns further.
fn iq2_bn_r4(byte: usize) -> (usize, usize) {
    let (block, byte) = (byte / 64, byte % 64);
    (byte / 4 % 4, 64 * block + 16 * (byte / 16) + byte % 4)
}

/// IQ2_BN_R4: four rows interleaved; `trits` are the four rows, one after the other.
pub(crate) fn decode_iq2_bn_r4(codes: &[u8], trits: &mut [i8]) -> bool {
    let columns = trits.len() / 4;
    for (i, code) in codes.iter().enumerate() {
        let (row, column) = iq2_bn_r4(i);
        for f in 0..4 {
            trits[row * columns + column + 4 * f] = (code >> (2 * f) & 3) as i8 - 1;
        }
    }
    has_no_code_3(codes)
}

pub(crate) fn encode_iq2_bn_r4(trits: &[i8], codes: &mut [u8]) {
    let columns = trits.len() / 4;
    for (i, code) in codes.iter_mut().enumerate() {
        let (row, column) = iq2_bn_r4(i);
        let bits = |f: usize| ((trits[row * columns + column + 4 * f] + 1) as u8) << (2 * f);
        *code = (0..4).map(bits).sum();
    }
}

/// Q2_0: four neighbouring trits per byte, the first in the lowest bits.
pub(crate) fn decode_q2_0(codes: &[u8], trits: &mut [i8]) -> bool {
    decode_planes::<1>(LOW_FIRST, codes, trits)
}

pub(crate) fn encode_q2_0(trits: &[i8], codes: &mut [u8]) {
    encode_planes::<1>(LOW_FIRST, trits, codes);
}

/// ⌈256 v / 243⌉ for the number v with five base-3 digits, the most significant first.
fn encode_five(digits: [u8; 5]) -> u8 {
    let v = digits.iter().fold(0u32, |v, d| v * 3 + u32::from(*d));
    (v * 256).div_ceil(243) as u8
}

/// Decodes five digits. The byte is a fraction of 256; multiplying by 3 moves the next digit to the
/// front.
fn decode_five(byte: u8) -> [u8; 5] {
    let mut rest = byte;
    [(); 5].map(|()| {
        let tripled = u16::from(rest) * 3;
        rest = tripled as u8;
        (tripled >> 8) as u8
    })
}

/// TQ1_0 and PTQ1_0: bytes of five or four trits, which are `lanes` elements apart. The groups
/// follow one another.
fn decode_base_3(groups: [(usize, usize); 3], codes: &[u8], trits: &mut [i8]) -> bool {
    let (mut codes, mut trits) = (codes, trits);
    let mut valid = true;
    for (lanes, digits) in groups {
        let (bytes, group);
        (bytes, codes) = codes.split_at(lanes);
        (group, trits) = trits.split_at_mut(lanes * digits);
        for (m, byte) in bytes.iter().enumerate() {
            let decoded = decode_five(*byte);
            for (n, digit) in decoded[..digits].iter().enumerate() {
                group[m + lanes * n] = *digit as i8 - 1;
            }
            valid &= encode_five(decoded) == *byte && decoded[digits..].iter().all(|d| *d == 0);
        }
    }
    valid
}

fn encode_base_3(groups: [(usize, usize); 3], trits: &[i8], codes: &mut [u8]) {
    let (mut trits, mut codes) = (trits, codes);
    for (lanes, count) in groups {
        let (bytes, group);
        (bytes, codes) = codes.split_at_mut(lanes);
        (group, trits) = trits.split_at(lanes * count);
        for (m, byte) in bytes.iter_mut().enumerate() {
            let mut digits = [0; 5];
            for (n, digit) in digits[..count].iter_mut().enumerate() {
                *digit = (group[m + lanes * n] + 1) as u8;
            }
            *byte = encode_five(digits);
        }
    }
}

/// 256 trits in 52 bytes.
const TQ1_0: [(usize, usize); 3] = [(32, 5), (16, 5), (4, 4)];
/// 128 trits in 26 bytes.
const PTQ1_0: [(usize, usize); 3] = [(16, 5), (8, 5), (2, 4)];

pub(crate) fn decode_tq1_0(codes: &[u8], trits: &mut [i8]) -> bool {
    decode_base_3(TQ1_0, codes, trits)
}

pub(crate) fn encode_tq1_0(trits: &[i8], codes: &mut [u8]) {
    encode_base_3(TQ1_0, trits, codes);
}

pub(crate) fn decode_ptq1_0(codes: &[u8], trits: &mut [i8]) -> bool {
    decode_base_3(PTQ1_0, codes, trits)
}

pub(crate) fn encode_ptq1_0(trits: &[i8], codes: &mut [u8]) {
    encode_base_3(PTQ1_0, trits, codes);
}

/// IQ1_BN: 64 trits in 13 bytes. Of each 16 trits, fifteen are in three bytes and the last one is
/// in the thirteenth byte, which all groups share. The first trit of a byte is the least
/// significant digit.
pub(crate) fn decode_iq1_bn(codes: &[u8], trits: &mut [i8]) -> bool {
    let mut valid = true;
    for (codes, trits) in codes.chunks_exact(13).zip(trits.chunks_exact_mut(64)) {
        let mut digits = |byte: u8| {
            let mut digits = decode_five(byte);
            valid &= encode_five(digits) == byte;
            digits.reverse();
            digits
        };
        let last = digits(codes[12]);
        for (a, (codes, trits)) in codes.chunks(3).zip(trits.chunks_exact_mut(16)).enumerate() {
            for (five, byte) in trits.chunks_exact_mut(5).zip(codes) {
                for (trit, digit) in five.iter_mut().zip(digits(*byte)) {
                    *trit = digit as i8 - 1;
                }
            }
            trits[15] = last[a] as i8 - 1;
        }
        valid &= last[4] == 0;
    }
    valid
}

pub(crate) fn encode_iq1_bn(trits: &[i8], codes: &mut [u8]) {
    let byte = |trits: &mut dyn DoubleEndedIterator<Item = i8>| {
        let mut digits = [0; 5];
        for (digit, trit) in digits.iter_mut().rev().zip(trits) {
            *digit = (trit + 1) as u8;
        }
        encode_five(digits)
    };
    for (codes, trits) in codes.chunks_exact_mut(13).zip(trits.chunks_exact(64)) {
        codes[12] = byte(&mut trits.iter().copied().skip(15).step_by(16));
        for (codes, trits) in codes.chunks_mut(3).zip(trits.chunks_exact(16)) {
            for (code, five) in codes.iter_mut().zip(trits.chunks_exact(5)) {
                *code = byte(&mut five.iter().copied());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_243_bytes_of_base_3() {
        let mut seen = std::collections::HashSet::new();
        for v in 0..243u32 {
            let digits = [81, 27, 9, 3, 1].map(|p| (v / p % 3) as u8);
            assert!(seen.insert(encode_five(digits)));
            assert_eq!(decode_five(encode_five(digits)), digits);
        }
    }

    #[test]
    fn code_3_and_impossible_bytes_are_seen() {
        let mut trits = [0; 256];
        assert!(!decode_i2_s(&[0b0111_0000; 32], &mut trits[..128]));
        assert!(!decode_q2_0(&[0, 3], &mut trits[..8]));
        assert!(!decode_tq1_0(&[1; 52], &mut trits), "no number gives 1");
        let mut codes = [0; 52];
        codes[51] = encode_five([0, 0, 0, 0, 1]);
        assert!(!decode_tq1_0(&codes, &mut trits), "a fifth trit of four");
        assert!(!decode_iq1_bn(&[255; 13], &mut trits[..64]));
    }
}
