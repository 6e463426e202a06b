//! Maps parts of a file and decodes the numbers in them.

use std::fs::File;
use std::path::Path;

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use memmap2::{Mmap, MmapOptions};
use sterna_ternary::Dtype;

use crate::{Error, Result};

/// Maps a part of a file only while it is read, so that memory does not grow with the file.
#[allow(unsafe_code)]
pub(crate) fn map(path: &Path, file: &File, offset: u64, len: usize) -> Result<Mmap> {
    // SAFETY: the mapping is read-only, private to this process and short-lived. A checkpoint that
    // another process shortens meanwhile ends this one with SIGBUS; a checkpoint is not written
    // while it is converted.
    unsafe { MmapOptions::new().offset(offset).len(len).map(file) }.map_err(Error::io(path))
}

/// Decodes little-endian numbers of any alignment, exactly.
///
/// # Panics
/// If `dtype` is U8.
pub(crate) fn decode(dtype: Dtype, bytes: &[u8], values: &mut [f32]) {
    match dtype {
        Dtype::F32 => {
            for (x, b) in values.iter_mut().zip(bytes.as_chunks().0) {
                *x = f32::from_le_bytes(*b);
            }
        }
        Dtype::F16 => {
            let mut buffer = [f16::ZERO; 1024];
            for (values, bytes) in values.chunks_mut(1024).zip(bytes.chunks(2048)) {
                let halves = &mut buffer[..values.len()];
                for (h, b) in halves.iter_mut().zip(bytes.as_chunks().0) {
                    *h = f16::from_le_bytes(*b);
                }
                halves.convert_to_f32_slice(values);
            }
        }
        Dtype::Bf16 => {
            for (x, b) in values.iter_mut().zip(bytes.as_chunks().0) {
                *x = bf16::from_le_bytes(*b).to_f32();
            }
        }
        Dtype::U8 => panic!("bytes are no numbers"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_decode_exactly_at_any_length() {
        for count in [0, 1, 1023, 1024, 1025, 5000] {
            let halves: Vec<u16> = (0..count).map(|i| (i * 13 % 0x7c00) as u16).collect();
            let bytes: Vec<u8> = halves.iter().flat_map(|h| h.to_le_bytes()).collect();
            let mut values = vec![0.0; count];
            decode(Dtype::F16, &bytes, &mut values);
            let expected: Vec<f32> = halves.iter().map(|h| f16::from_bits(*h).to_f32()).collect();
            assert_eq!(values, expected);
            decode(Dtype::Bf16, &bytes, &mut values);
            let expected: Vec<f32> = halves
                .iter()
                .map(|h| bf16::from_bits(*h).to_f32())
                .collect();
            assert_eq!(values, expected);
        }
    }
}
