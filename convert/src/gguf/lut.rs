//! TL1 and TL2, the types of bitnet.cpp's lookup kernels.
//!
//! A byte holds two indices into tables of sums. In TL1 an index stands for a pair of weights. In
//! TL2 it stands for a triple, whose sign is in a separate plane; the remaining columns are pairs.
//! The indices are in the order in which a kernel for this shape of matrix reads them. The block
//! sizes of the kernel are not in the file. They are in the `kernel_config.ini` of the program that
//! wrote the file, so the user must supply it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use serde::Deserialize;

use crate::{Error, Result, parallel};

/// Block sizes of the kernels that a TL1 or TL2 file was written for, from bitnet.cpp's
/// `include/kernel_config.ini`.
#[derive(Debug, Clone)]
pub struct LutKernels {
    path: PathBuf,
    kernels: BTreeMap<String, LutBlocks>,
}

/// One section of the configuration: the shape of a matrix and the blocks of its kernel.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LutBlocks {
    /// Rows of the matrix.
    m: usize,
    /// Columns of the matrix.
    k: usize,
    /// Rows per block.
    bm: usize,
    /// Columns per block.
    bk: usize,
    /// Rows per part of a block. The indices of a part are read together.
    bmm: usize,
}

impl LutKernels {
    /// Reads the sections of a `kernel_config.ini`, each with m, k, bm, bk and bmm.
    ///
    /// # Errors
    /// [`Error::Kernels`] if the file does not have this format.
    pub fn open(path: &Path) -> Result<LutKernels> {
        let text = std::fs::read_to_string(path).map_err(Error::io(path))?;
        match toml::from_str(&text) {
            Ok(kernels) => Ok(LutKernels {
                path: path.to_owned(),
                kernels,
            }),
            Err(error) => Err(Error::Kernels {
                path: path.to_owned(),
                why: format!(
                    "expected sections with m, k, bm, bk and bmm: {}",
                    error.message()
                ),
            }),
        }
    }

    /// Decodes the trits (rows, columns) of a matrix. Returns false at an invalid code.
    pub(crate) fn trits(
        &self,
        layout: &LutLayout,
        codes: &[u8],
        columns: usize,
        trits: &mut [i8],
    ) -> Result<bool> {
        let blocks = self.blocks(layout, trits.len() / columns, columns)?;
        let valid = AtomicBool::new(true);
        parallel::rows(trits.len(), trits, blocks.bm * columns, |first, part| {
            for (i, trits) in part.chunks_exact_mut(blocks.bm * columns).enumerate() {
                if (layout.decode)(codes, first + i, blocks, trits).is_none() {
                    valid.store(false, Ordering::Relaxed);
                }
            }
            Ok(())
        })?;
        Ok(valid.into_inner())
    }

    /// The blocks of a matrix (rows, columns).
    pub(crate) fn blocks(
        &self,
        layout: &LutLayout,
        rows: usize,
        columns: usize,
    ) -> Result<&LutBlocks> {
        let of_shape = |b: &&LutBlocks| (b.m, b.k) == (rows, columns);
        let blocks = self.kernels.values().find(of_shape);
        let why = match blocks {
            Some(blocks) if (layout.usable)(blocks) => return Ok(blocks),
            Some(LutBlocks { bm, bk, bmm, .. }) => {
                format!(
                    "m = {rows}, k = {columns} cannot be cut into bm = {bm}, bk = {bk}, bmm = {bmm}"
                )
            }
            None => format!("there is no section with m = {rows}, k = {columns}"),
        };
        let path = self.path.clone();
        Err(Error::Kernels { path, why })
    }
}

/// The layout of one of the two types.
#[derive(Debug)]
pub(crate) struct LutLayout {
    /// Whether a matrix can be divided into these blocks.
    usable: fn(&LutBlocks) -> bool,
    /// Decodes the trits (rows, columns) of the `index`-th block of rows from the codes of the
    /// matrix. None at an invalid code.
    decode: fn(codes: &[u8], index: usize, blocks: &LutBlocks, trits: &mut [i8]) -> Option<()>,
}

pub(crate) static TL1: LutLayout = LutLayout {
    usable: LutBlocks::fits_tl1,
    decode: decode_tl1,
};
pub(crate) static TL2: LutLayout = LutLayout {
    usable: LutBlocks::fits_tl2,
    decode: decode_tl2,
};

impl LutBlocks {
    fn fits_tl1(&self) -> bool {
        self.fits(matches!(self.bmm, 16 | 32 | 64)) && {
            let part = 256 / self.bmm;
            self.bk.is_multiple_of(part) && self.k.is_multiple_of(self.bk)
        }
    }

    /// The kernels of TL2 only have parts of 32 rows.
    fn fits_tl2(&self) -> bool {
        self.fits(self.bmm == TL2_ROWS) && {
            let pairs = self.k % self.bk; // at most 256, for which the files have room
            self.bk.is_multiple_of(4 * TL2_COLUMNS)
                && pairs <= 256
                && pairs.is_multiple_of(TL2_PAIRS)
        }
    }

    fn fits(&self, rows: bool) -> bool {
        let sizes = [self.m, self.k, self.bm, self.bk];
        rows && !sizes.contains(&0)
            && self.m.is_multiple_of(self.bm)
            && self.bm.is_multiple_of(self.bmm)
    }
}

/// Rows per part in TL2.
const TL2_ROWS: usize = 32;
/// Columns of the triples that are read together.
const TL2_COLUMNS: usize = 6;
/// Columns per block of pairs in TL2.
const TL2_PAIRS: usize = 32;

/// Decodes a pair of weights.
fn pair(index: u8) -> Option<[i8; 2]> {
    (index < 9).then(|| [index as i8 / 3 - 1, index as i8 % 3 - 1])
}

/// Decodes a triple of weights from its index and its sign.
fn triple(index: u8, negative: bool) -> Option<[i8; 3]> {
    let is_triple = index < 14 && !(negative && index == 0);
    let v = 13
        + if negative {
            -(index as i8)
        } else {
            index as i8
        };
    is_triple.then(|| [v / 9 - 1, v / 3 % 3 - 1, v % 3 - 1])
}

fn decode_tl1(codes: &[u8], mb: usize, blocks: &LutBlocks, trits: &mut [i8]) -> Option<()> {
    let LutBlocks { k, bm, bk, bmm, .. } = *blocks;
    let width = 256 / bmm;
    let mut bytes = codes.get(mb * bm * k / 4..)?.iter();
    for column in (0..k).step_by(bk) {
        for part in (0..bm).step_by(bmm) {
            for column in (column..column + bk).step_by(width) {
                for row in (part..part + bmm).step_by(16) {
                    for column in (column..column + width).step_by(4) {
                        for row in row..row + 16 {
                            let byte = bytes.next()?;
                            let to = &mut trits[row * k + column..][..4];
                            to[..2].copy_from_slice(&pair(byte >> 4)?);
                            to[2..].copy_from_slice(&pair(byte & 15)?);
                        }
                    }
                }
            }
        }
    }
    Some(())
}

fn decode_tl2(codes: &[u8], mb: usize, blocks: &LutBlocks, trits: &mut [i8]) -> Option<()> {
    let LutBlocks { m, k, bm, bk, .. } = *blocks;
    let triples = k - k % bk;
    // Order of the bytes: indices of all triples, their signs, indices of all pairs.
    let signs = m * triples / 6;
    let pairs = signs + m * triples / 24;
    let mut bytes = codes.get(mb * bm * triples / 6..)?.iter();
    let mut words = codes.get(signs + mb * bm * triples / 24..)?.chunks_exact(2);
    for column in (0..triples).step_by(bk) {
        for part in (0..bm).step_by(TL2_ROWS) {
            for group in (column..column + bk).step_by(4 * TL2_COLUMNS) {
                // The signs of eight triples in 32 rows.
                let mut signs = [0; 16];
                for sign in &mut signs {
                    *sign = u16::from_le_bytes(*words.next()?.first_chunk()?);
                }
                for first in (0..4).map(|i| group + i * TL2_COLUMNS) {
                    for place in 0..TL2_ROWS {
                        let row = row_at(place);
                        let byte = *bytes.next()?;
                        let t = (first - group) / 3;
                        let sign = |t: usize| signs[row % 16] >> (15 - (2 * t + row / 16)) & 1 == 1;
                        let to = &mut trits[(part + row) * k + first..][..TL2_COLUMNS];
                        to[..3].copy_from_slice(&triple(byte >> 4, sign(t))?);
                        to[3..].copy_from_slice(&triple(byte & 15, sign(t + 1))?);
                    }
                }
            }
        }
    }
    let mut bytes = codes.get(pairs + mb * bm * (k - triples) / 4..)?.iter();
    for column in (triples..k).step_by(TL2_PAIRS) {
        for part in (0..bm).step_by(TL2_ROWS) {
            for column in (column..column + TL2_PAIRS).step_by(4) {
                for place in 0..TL2_ROWS {
                    let byte = *bytes.next()?;
                    let to = &mut trits[(part + row_at(place)) * k + column..][..4];
                    to[..2].copy_from_slice(&pair(byte >> 4)?);
                    to[2..].copy_from_slice(&pair(byte & 15)?);
                }
            }
        }
    }
    Some(())
}

/// The row of a byte within 32 rows: the second and third group of eight are exchanged.
fn row_at(place: usize) -> usize {
    match place / 8 {
        1 => place + 8,
        2 => place - 8,
        _ => place,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Checks against bytes that bitnet.cpp's converter wrote for the same trits.
    #[track_caller]
    fn check(layout: &LutLayout, codes: &[u8], [m, k, bm, bk, bmm]: [usize; 5]) {
        let blocks = LutBlocks { m, k, bm, bk, bmm };
        assert!((layout.usable)(&blocks), "{blocks:?}");
        let expected: Vec<i8> = (0..m * k)
            .map(|i| ((i * i + i / 5) % 3) as i8 - 1)
            .collect();
        let mut trits = vec![9; m * k];
        for (mb, trits) in trits.chunks_exact_mut(bm * k).enumerate() {
            (layout.decode)(codes, mb, &blocks, trits).unwrap();
        }
        assert_eq!(trits, expected, "{blocks:?}");
        let mut short = vec![9; bm * k];
        assert!((layout.decode)(&codes[..100], 0, &blocks, &mut short).is_none());
    }

    #[test]
    fn matrices_of_the_reference_program() {
        check(
            &TL1,
            include_bytes!("lut/tl1_64x128.bin"),
            [64, 128, 32, 64, 16],
        );
        check(
            &TL1,
            include_bytes!("lut/tl1_128x192.bin"),
            [128, 192, 64, 64, 64],
        );
        check(
            &TL2,
            include_bytes!("lut/tl2_128x352.bin"),
            [128, 352, 64, 96, 32],
        );
    }

    #[test]
    fn codes_of_no_trits() {
        assert_eq!(
            (pair(0), pair(8), pair(9)),
            (Some([-1, -1]), Some([1, 1]), None)
        );
        assert_eq!(triple(13, true), Some([-1, -1, -1]));
        assert_eq!(triple(1, false), Some([0, 0, 1]));
        assert_eq!((triple(14, false), triple(0, true)), (None, None));
    }

    #[test]
    fn blocks_that_cannot_be() {
        let is_usable = |layout: &LutLayout, [m, k, bm, bk, bmm]: [usize; 5]| {
            (layout.usable)(&LutBlocks { m, k, bm, bk, bmm })
        };
        assert!(is_usable(&TL1, [3200, 8640, 160, 64, 32]));
        assert!(is_usable(&TL2, [3200, 8640, 160, 96, 32]));
        for sizes in [
            [3200, 8640, 150, 64, 32],
            [3200, 8640, 160, 128, 32],
            [3200, 8640, 160, 64, 24],
            [3200, 8640, 160, 0, 32],
            [3200, 8640, 0, 64, 32],
        ] {
            assert!(!is_usable(&TL1, sizes), "{sizes:?}");
        }
        for sizes in [
            [4096, 1536, 256, 96, 64],
            [4096, 1530, 256, 96, 32],
            [4096, 1536, 256, 64, 32],
            [4096, 8352, 256, 8064, 32],
            [4096, 1536, 256, 0, 32],
        ] {
            assert!(!is_usable(&TL2, sizes), "{sizes:?}");
        }
    }

    #[test]
    fn a_configuration_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("kernel_config.ini");
        let text = "[Kernels_0]\nm = 64\nk = 128\nbm = 32\nbk = 64\nbmm = 16\n\n";
        std::fs::write(&path, text).unwrap();
        let kernels = LutKernels::open(&path).unwrap();
        assert_eq!(kernels.blocks(&TL1, 64, 128).unwrap().bk, 64);
        for (error, part) in [
            (
                kernels.blocks(&TL1, 128, 64).unwrap_err(),
                "no section with m = 128, k = 64",
            ),
            (
                kernels.blocks(&TL2, 64, 128).unwrap_err(),
                "cannot be cut into bm = 32",
            ),
        ] {
            assert!(error.to_string().contains(part), "{error}");
        }
        for text in [
            "[Kernels_0]\nm = 64\n",
            "m = 64\n",
            "[K]\nm = -1\nk = 1\nbm = 1\nbk = 1\nbmm = 1",
        ] {
            std::fs::write(&path, text).unwrap();
            let error = LutKernels::open(&path).unwrap_err().to_string();
            assert!(error.contains("sections with m, k, bm"), "{error}");
        }
    }
}
