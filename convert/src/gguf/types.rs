//! Tensor types as data: number, sizes, position of the scales, codec.

use std::sync::atomic::{AtomicBool, Ordering};

use half::f16;

use super::lut::{self, LutLayout};
use super::{floats, q6_k, trits};
use crate::read::gguf::container::Info;
use crate::{Result, parallel};

/// A tensor type.
#[derive(Debug)]
pub(crate) struct Type {
    /// Number of the type in tensor infos.
    pub id: u32,
    pub name: &'static str,
    pub size: Size,
    pub scale: ScaleAt,
    pub content: Content,
}

/// The relation between bytes and elements.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Size {
    /// Blocks of `weights` elements of a row in `bytes` bytes, including the scale.
    Blocks { weights: usize, bytes: usize },
    /// Blocks of `weights` elements, four per byte; then a 32-byte trailer with the scale of the
    /// matrix.
    Matrix { weights: usize },
    /// TL2: 5 bits per three columns; the last 256 columns 4 bits per pair; then a 32-byte trailer
    /// with the scale.
    Triples,
    /// Units of `rows` rows: first the scales, then `bytes` bytes per 64 elements.
    Rows { rows: usize, bytes: usize },
}

/// Position of the scales of a unit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum ScaleAt {
    /// Part of the content, or no scale.
    Within,
    /// Before the codes.
    HeadF16,
    /// Before the codes, one per row.
    HeadF32,
    /// After the codes.
    TailF16,
    /// After the codes of the whole matrix.
    MatrixF32,
}

/// The meaning of the bytes.
#[derive(Debug)]
pub(crate) enum Content {
    /// Numbers; the function decodes a run of blocks.
    Floats(fn(&[u8], &mut [f32])),
    /// Trits of one unit, as codes without scales.
    Trits {
        decode: fn(&[u8], &mut [i8]) -> bool,
        encode: fn(&[i8], &mut [u8]),
    },
    /// Trits of a matrix in the order of a lookup kernel.
    Lut(&'static LutLayout),
    /// Not supported, with the reason.
    Refused(&'static str),
}

/// The smallest part of a matrix that is encoded independently.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Unit {
    pub weights: usize,
    pub bytes: usize,
    /// Number of scales per unit, each for an equal part of its weights.
    pub scales: usize,
    /// Bytes before the codes.
    head: usize,
    /// Bytes after the codes.
    tail: usize,
}

const fn floats(
    id: u32,
    name: &'static str,
    weights: usize,
    bytes: usize,
    decode: fn(&[u8], &mut [f32]),
) -> Type {
    Type {
        id,
        name,
        size: Size::Blocks { weights, bytes },
        scale: ScaleAt::Within,
        content: Content::Floats(decode),
    }
}

const fn ternary(
    id: u32,
    name: &'static str,
    size: Size,
    scale: ScaleAt,
    decode: fn(&[u8], &mut [i8]) -> bool,
    encode: fn(&[i8], &mut [u8]),
) -> Type {
    let content = Content::Trits { decode, encode };
    Type {
        id,
        name,
        size,
        scale,
        content,
    }
}

const fn lut(id: u32, name: &'static str, size: Size, layout: &'static LutLayout) -> Type {
    Type {
        id,
        name,
        size,
        scale: ScaleAt::MatrixF32,
        content: Content::Lut(layout),
    }
}

const fn refused(
    id: u32,
    name: &'static str,
    weights: usize,
    bytes: usize,
    why: &'static str,
) -> Type {
    Type {
        id,
        name,
        size: Size::Blocks { weights, bytes },
        scale: ScaleAt::Within,
        content: Content::Refused(why),
    }
}

const fn blocks(weights: usize, bytes: usize) -> Size {
    Size::Blocks { weights, bytes }
}

pub(crate) const OTHER: &str = "it is not a ternary type; convert the original checkpoint";

pub(crate) static F32: Type = floats(0, "F32", 1, 4, floats::decode_f32);
pub(crate) static F16: Type = floats(1, "F16", 1, 2, floats::decode_f16);
pub(crate) static BF16: Type = floats(30, "BF16", 1, 2, floats::decode_bf16);
pub(crate) static Q8_0: Type = floats(8, "Q8_0", 32, 34, floats::decode_q8_0);
pub(crate) static Q6_K: Type = floats(14, "Q6_K", q6_k::BLOCK, q6_k::BYTES, q6_k::decode);
pub(crate) static TQ1_0: Type = ternary(
    34,
    "TQ1_0",
    blocks(256, 54),
    ScaleAt::TailF16,
    trits::decode_tq1_0,
    trits::encode_tq1_0,
);
pub(crate) static TQ2_0: Type = ternary(
    35,
    "TQ2_0",
    blocks(256, 66),
    ScaleAt::TailF16,
    trits::decode_tq2_0,
    trits::encode_tq2_0,
);
pub(crate) static I2_S: Type = ternary(
    36,
    "I2_S",
    Size::Matrix { weights: 128 },
    ScaleAt::MatrixF32,
    trits::decode_i2_s,
    trits::encode_i2_s,
);
/// I2_S as later ARM builds write it. The file does not tell the two orders apart.
pub(crate) static I2_S_ARM: Type = ternary(
    36,
    "I2_S (ARM order)",
    Size::Matrix { weights: 64 },
    ScaleAt::MatrixF32,
    trits::decode_i2_s_arm,
    trits::encode_i2_s_arm,
);
pub(crate) static Q2_0: Type = ternary(
    42,
    "Q2_0",
    blocks(64, 18),
    ScaleAt::HeadF16,
    trits::decode_q2_0,
    trits::encode_q2_0,
);
/// Blocks of 128 with the number of Q2_0, from before llama.cpp had this type.
pub(crate) static Q2_0_G128: Type = ternary(
    42,
    "Q2_0 in groups of 128",
    blocks(128, 34),
    ScaleAt::HeadF16,
    trits::decode_q2_0,
    trits::encode_q2_0,
);
pub(crate) static IQ2_BN: Type = ternary(
    135,
    "IQ2_BN",
    Size::Rows { rows: 1, bytes: 16 },
    ScaleAt::HeadF32,
    trits::decode_iq2_bn,
    trits::encode_iq2_bn,
);

/// Less common types, and types that share a number with a type above.
static OTHERS: [Type; 12] = [
    floats(2, "Q4_0", 32, 18, floats::decode_q4_0),
    refused(36, "IQ4_NL_4_4", 32, 18, OTHER),
    refused(41, "Q1_0", 128, 18, "it has two levels, not three"),
    refused(
        42,
        "STQ1_0",
        256,
        42,
        "the order of its elements differs between writers",
    ),
    refused(39, "MXFP4", 32, 17, OTHER),
    refused(40, "NVFP4", 64, 36, OTHER),
    lut(38, "TL1", Size::Matrix { weights: 128 }, &lut::TL1),
    lut(39, "TL2", Size::Triples, &lut::TL2),
    ternary(
        134,
        "IQ1_BN",
        Size::Rows { rows: 1, bytes: 13 },
        ScaleAt::HeadF16,
        trits::decode_iq1_bn,
        trits::encode_iq1_bn,
    ),
    ternary(
        142,
        "PQ2_0",
        blocks(128, 34),
        ScaleAt::HeadF16,
        trits::decode_q2_0,
        trits::encode_q2_0,
    ),
    ternary(
        143,
        "PTQ1_0",
        blocks(128, 28),
        ScaleAt::TailF16,
        trits::decode_ptq1_0,
        trits::encode_ptq1_0,
    ),
    ternary(
        335,
        "IQ2_BN_R4",
        Size::Rows { rows: 4, bytes: 16 },
        ScaleAt::HeadF32,
        trits::decode_iq2_bn_r4,
        trits::encode_iq2_bn_r4,
    ),
];

/// All types except ARM's I2_S, which must be asked for.
pub(crate) fn all() -> impl Iterator<Item = &'static Type> {
    let ours = [
        &F32, &F16, &BF16, &Q8_0, &Q6_K, &TQ1_0, &TQ2_0, &I2_S, &Q2_0, &Q2_0_G128, &IQ2_BN,
    ];
    ours.into_iter().chain(&OTHERS)
}

impl Type {
    /// Bytes of a tensor without its padding. None if its width does not fit the type.
    pub fn bytes(&self, info: &Info) -> Option<u64> {
        let (columns, elements) = (info.columns(), info.elements());
        match self.size {
            Size::Blocks { weights, bytes } => columns
                .is_multiple_of(weights as u64)
                .then(|| elements / weights as u64 * bytes as u64),
            Size::Matrix { weights } => elements
                .is_multiple_of(weights as u64)
                .then(|| elements / 4 + TAIL as u64),
            Size::Triples => {
                let rows = elements / columns;
                let triples = columns.checked_sub(256)? * rows / 3 * 5 / 8;
                Some((triples + rows * 64).next_multiple_of(TAIL as u64) + TAIL as u64)
            }
            Size::Rows { rows, bytes } => {
                let count = elements / columns;
                let fits = columns.is_multiple_of(64) && count.is_multiple_of(rows as u64);
                let scales = count * self.scale_bytes() as u64;
                fits.then(|| scales + elements / 64 * bytes as u64)
            }
        }
    }

    fn scale_bytes(&self) -> usize {
        match self.scale {
            ScaleAt::Within | ScaleAt::MatrixF32 => 0,
            ScaleAt::HeadF16 | ScaleAt::TailF16 => 2,
            ScaleAt::HeadF32 => 4,
        }
    }

    pub fn unit(&self, columns: usize) -> Unit {
        let size = self.scale_bytes();
        let (weights, bytes, scales) = match self.size {
            Size::Blocks { weights, bytes } => (weights, bytes, usize::from(size > 0)),
            Size::Matrix { weights } => (weights, weights / 4, 0),
            Size::Triples => (1, 1, 0),
            Size::Rows { rows, bytes } => {
                let blocks = rows * columns / 64;
                (rows * columns, rows * size + blocks * bytes, rows)
            }
        };
        let is_tail = self.scale == ScaleAt::TailF16;
        let (head, tail) = if is_tail {
            (0, size)
        } else {
            (scales * size, 0)
        };
        Unit {
            weights,
            bytes,
            scales,
            head,
            tail,
        }
    }

    /// Scale `i` of a unit.
    fn scale(&self, unit: &[u8], i: usize) -> f32 {
        match self.scale {
            ScaleAt::HeadF16 => floats::half(&unit[2 * i..]),
            ScaleAt::TailF16 => floats::half(&unit[unit.len() - 2..]),
            ScaleAt::HeadF32 => single(&unit[4 * i..]),
            ScaleAt::Within | ScaleAt::MatrixF32 => 1.0,
        }
    }

    /// Decodes the trits of a matrix; trits with a zero scale become zero. `codes` is the tensor
    /// without padding. Returns false at an invalid code.
    pub fn trits(&self, codes: &[u8], columns: usize, trits: &mut [i8]) -> Result<bool> {
        let Content::Trits { decode, .. } = self.content else {
            return Ok(false);
        };
        let unit = self.unit(columns);
        let share = unit.weights / unit.scales.max(1);
        let valid = AtomicBool::new(true);
        parallel::rows(trits.len(), trits, unit.weights, |first, trits| {
            let units = codes[first * unit.bytes..].chunks_exact(unit.bytes);
            for (trits, bytes) in trits.chunks_exact_mut(unit.weights).zip(units) {
                if !decode(&bytes[unit.head..unit.bytes - unit.tail], trits) {
                    valid.store(false, Ordering::Relaxed);
                }
                for (i, trits) in trits.chunks_exact_mut(share).enumerate() {
                    if unit.scales > 0 && self.scale(bytes, i) == 0.0 {
                        trits.fill(0);
                    }
                }
            }
            Ok(())
        })?;
        Ok(valid.into_inner())
    }

    /// All scales of a matrix, in byte order.
    pub fn scales(&self, codes: &[u8], columns: usize) -> impl Iterator<Item = f32> {
        let unit = self.unit(columns);
        let tail = match self.scale {
            ScaleAt::MatrixF32 => Some(single(&codes[codes.len() - TAIL..])),
            _ => None,
        };
        let units = codes.chunks_exact(unit.bytes);
        let within = units.flat_map(move |bytes| (0..unit.scales).map(|i| self.scale(bytes, i)));
        within.chain(tail)
    }

    /// Decodes whole blocks of numbers, or of trits times scales. Returns false at an invalid code.
    pub fn values(&self, bytes: &[u8], values: &mut [f32]) -> bool {
        let (unit, decode) = match &self.content {
            Content::Floats(decode) => {
                decode(bytes, values);
                return true;
            }
            Content::Trits { decode, .. } => (self.unit(0), decode),
            Content::Lut(_) | Content::Refused(_) => return false,
        };
        let mut trits = vec![0; unit.weights];
        let mut valid = true;
        for (bytes, values) in bytes
            .chunks_exact(unit.bytes)
            .zip(values.chunks_exact_mut(unit.weights))
        {
            valid &= decode(&bytes[unit.head..unit.bytes - unit.tail], &mut trits);
            let scale = self.scale(bytes, 0);
            for (x, trit) in values.iter_mut().zip(&trits) {
                *x = f32::from(*trit) * scale;
            }
        }
        valid
    }

    /// Encodes whole units with their scales. The trailer of a matrix comes from [`matrix_tail`].
    pub fn encode(&self, trits: &[i8], columns: usize, scales: &[f32], bytes: &mut [u8]) {
        let Content::Trits { encode, .. } = self.content else {
            unreachable!("only trits are encoded");
        };
        let unit = self.unit(columns);
        let units = bytes.chunks_exact_mut(unit.bytes).enumerate();
        for ((i, bytes), trits) in units.zip(trits.chunks_exact(unit.weights)) {
            let (head, rest) = bytes.split_at_mut(unit.head);
            let (codes, tail) = rest.split_at_mut(unit.bytes - unit.head - unit.tail);
            encode(trits, codes);
            let scales = scales[i * unit.scales..].iter().take(unit.scales);
            match self.scale {
                ScaleAt::HeadF16 | ScaleAt::TailF16 => {
                    let place = if unit.tail > 0 { tail } else { head };
                    for (to, scale) in place.chunks_exact_mut(2).zip(scales) {
                        to.copy_from_slice(&f16::from_f32(*scale).to_le_bytes());
                    }
                }
                ScaleAt::HeadF32 => {
                    for (to, scale) in head.chunks_exact_mut(4).zip(scales) {
                        to.copy_from_slice(&scale.to_le_bytes());
                    }
                }
                ScaleAt::Within | ScaleAt::MatrixF32 => {}
            }
        }
    }
}

/// Bytes after the codes of a [`Size::Matrix`]: its scale, then zeros.
pub(crate) const TAIL: usize = 32;

pub(crate) fn matrix_tail(scale: f32) -> [u8; TAIL] {
    let mut tail = [0; TAIL];
    tail[..4].copy_from_slice(&scale.to_le_bytes());
    tail
}

fn single(bytes: &[u8]) -> f32 {
    f32::from_le_bytes(*bytes.first_chunk().expect("a scale has four bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn formula(count: usize) -> Vec<i8> {
        (0..count)
            .map(|i| ((i * i + i / 5) % 3) as i8 - 1)
            .collect()
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|b| format!("{b:02x}")).collect()
    }

    fn named(name: &str) -> &'static Type {
        all().find(|t| t.name == name).unwrap()
    }

    /// Encodes and decodes a matrix with rows of `columns` elements, and compares the bytes.
    fn check(name: &str, rows: usize, columns: usize, expected: &str) {
        let kind = named(name);
        let trits = formula(rows * columns);
        let unit = kind.unit(columns);
        let mut bytes = vec![0; trits.len() / unit.weights * unit.bytes];
        kind.encode(&trits, columns, &vec![0.5; trits.len()], &mut bytes);
        if kind.scale == ScaleAt::MatrixF32 {
            bytes.extend(matrix_tail(0.5));
        }
        assert_eq!(hex(&bytes), expected, "{name}");
        let mut back = vec![9; trits.len()];
        assert!(kind.trits(&bytes, columns, &mut back).unwrap());
        assert_eq!(back, trits, "{name}");
        assert!(kind.scales(&bytes, columns).all(|s| s == 0.5));
        if matches!(kind.size, Size::Blocks { .. }) {
            let mut values = vec![0.0; trits.len()];
            assert!(kind.values(&bytes, &mut values));
            assert!(
                values
                    .iter()
                    .zip(&trits)
                    .all(|(x, t)| *x == f32::from(*t) * 0.5)
            );
        }
    }

    /// Expected bytes were written by the programs that define the types.
    #[test]
    fn vectors_of_the_reference_programs() {
        let i2_s = "154a562958a4629088402101840512154a562958a4629088402101840512154a";
        check(
            "I2_S",
            1,
            128,
            &format!("{i2_s}0000003f{}", "00".repeat(28)),
        );
        check(
            "TQ1_0",
            1,
            256,
            "2c70825087ee95c8bf573d05b70e252c70825087ee95c8bf573d05b70e252c70\
             1339ac050d27786735a1e2a5eeca5c13369872390038",
        );
        check(
            "TQ2_0",
            1,
            256,
            "54a19568251a89062201484012508454a19568251a89062201484012508454a1\
             2201484012508454a19568251a89062201484012508454a19568251a890622010038",
        );
        check("Q2_0", 1, 64, "00381499060245a6814091692050641a0814");
        let q2_0 = "00381499060245a6814091692050641a081499060245a6814091692050641a081499";
        check("Q2_0 in groups of 128", 1, 128, q2_0);
        check("PQ2_0", 1, 128, q2_0);
        let ptq1_0 = "27786735a1e2a5eeca5c1339ac050d27b76bc2d4720636e72a6f0038";
        check("PTQ1_0", 1, 128, ptq1_0);
        check("IQ2_BN", 1, 64, "0000003f1445916499a6691a0681200802405014");
        check("IQ1_BN", 1, 64, "003862a713cc3707991258deb0720d");
        let r4 = "a4190508694601429a518090661420".repeat(4) + "a4190508";
        check("IQ2_BN_R4", 4, 64, &format!("{}{r4}", "0000003f".repeat(4)));
    }

    #[test]
    fn several_blocks_and_rows_round_trip() {
        for kind in all().chain([&I2_S_ARM]) {
            let Content::Trits { .. } = kind.content else {
                continue;
            };
            for (rows, columns) in [(4, 256), (8, 512), (12, 768)] {
                let trits = formula(rows * columns);
                let unit = kind.unit(columns);
                let mut bytes = vec![0; trits.len() / unit.weights * unit.bytes];
                kind.encode(&trits, columns, &vec![0.75; trits.len()], &mut bytes);
                if kind.scale == ScaleAt::MatrixF32 {
                    bytes.extend(matrix_tail(0.75));
                }
                let info = Info {
                    name: "x".into(),
                    dimensions: vec![columns as u64, rows as u64],
                    type_id: kind.id,
                    start: 0,
                    span: 0,
                };
                assert_eq!(kind.bytes(&info), Some(bytes.len() as u64), "{}", kind.name);
                let mut back = vec![9; trits.len()];
                assert!(kind.trits(&bytes, columns, &mut back).unwrap());
                assert_eq!(back, trits, "{}", kind.name);
                assert!(kind.scales(&bytes, columns).all(|s| s == 0.75));
            }
        }
    }

    #[test]
    fn a_zero_scale_makes_zeros() {
        let mut bytes = vec![0xaa; 66]; // every code is 2
        bytes[64..].fill(0);
        let mut trits = [9; 256];
        assert!(TQ2_0.trits(&bytes, 256, &mut trits).unwrap());
        assert_eq!(trits, [0; 256]);
    }
}
