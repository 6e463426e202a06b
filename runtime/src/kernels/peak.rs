//! The int8 multiply-add peak of an instruction set: the loop of a matrix product without anything
//! else.
//!
//! Weights stay in registers, activations come from the first-level cache, and there are as many
//! accumulators as registers. 16-bit accumulators may wrap here, which a kernel must prevent: this
//! is a limit.

use std::hint::black_box;

use super::slots::Kernels;

/// A loop and what it computes.
#[derive(Debug)]
pub struct Peak {
    /// The kernel table that is built on it.
    table: &'static str,
    /// The instruction that multiplies and adds.
    pub instruction: &'static str,
    /// Multiply-adds of one call of `run`.
    pub macs: usize,
    /// Runs the loop once.
    pub run: fn(),
    runs_here: fn() -> bool,
}

/// Activations: 4 KiB.
const COLUMNS: usize = 4096;
const REPEAT: usize = 64;
/// Rows of the loop without intrinsics.
const ROWS: usize = 4;

/// Slowest first.
static PEAKS: &[Peak] = &[
    Peak {
        table: "scalar",
        instruction: "compiled loop",
        macs: REPEAT * ROWS * COLUMNS,
        run: compiled_loop,
        runs_here: || true,
    },
    #[cfg(target_arch = "x86_64")]
    Peak {
        table: "avx2",
        instruction: "vpmaddubsw and vpaddw",
        macs: REPEAT * x86::AVX2_ROWS * COLUMNS,
        run: x86::avx2,
        runs_here: || is_x86_feature_detected!("avx2"),
    },
    #[cfg(target_arch = "x86_64")]
    Peak {
        table: "avx-vnni",
        instruction: "vpdpbusd, 256 bits",
        macs: REPEAT * x86::AVX2_ROWS * COLUMNS,
        run: x86::avx_vnni,
        runs_here: || is_x86_feature_detected!("avx2") && is_x86_feature_detected!("avxvnni"),
    },
    #[cfg(target_arch = "x86_64")]
    Peak {
        table: "avx512",
        instruction: "vpdpbusd, 512 bits",
        macs: REPEAT * x86::AVX512_ROWS * COLUMNS,
        run: x86::avx512_vnni,
        runs_here: || is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512vnni"),
    },
];

impl Peak {
    /// The peak of the instruction set of a table; of the fastest here for a table without an
    /// entry.
    pub fn of(kernels: &Kernels) -> &'static Peak {
        let mut here = PEAKS.iter().filter(|p| (p.runs_here)());
        let named = here.clone().find(|p| p.table == kernels.name);
        named
            .or(here.next_back())
            .expect("the compiled loop runs everywhere")
    }
}

/// The same loop as the compiler vectorizes it for the baseline instruction set.
fn compiled_loop() {
    let weights = black_box([[1i8; COLUMNS]; ROWS]);
    let q = black_box([1i8; COLUMNS]);
    for _ in 0..REPEAT {
        let row = |row: &[i8; COLUMNS]| -> i32 {
            let products = row.iter().zip(black_box(&q));
            products.map(|(w, q)| i32::from(*w) * i32::from(*q)).sum()
        };
        black_box(weights.each_ref().map(row));
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;
    use std::hint::black_box;

    use super::{COLUMNS, REPEAT};

    /// Six accumulators, six weights and a load: AVX2 has 16 registers.
    pub const AVX2_ROWS: usize = 6;
    pub const AVX512_ROWS: usize = 12;

    pub fn avx2() {
        // SAFETY: `runs_here` found AVX2.
        unsafe { avx2_loop() }
    }

    #[target_feature(enable = "avx2")]
    fn avx2_loop() {
        let weights = black_box([_mm256_set1_epi8(1); AVX2_ROWS]);
        let mut sums = [_mm256_setzero_si256(); AVX2_ROWS];
        let q = [_mm256_set1_epi8(1); COLUMNS / 32];
        for _ in 0..REPEAT {
            for q in black_box(&q) {
                for (sum, w) in sums.iter_mut().zip(&weights) {
                    *sum = _mm256_add_epi16(*sum, _mm256_maddubs_epi16(*w, *q));
                }
            }
        }
        black_box(sums);
    }

    pub fn avx_vnni() {
        // SAFETY: `runs_here` found AVX2 and AVX-VNNI.
        unsafe { avx_vnni_loop() }
    }

    #[target_feature(enable = "avx2,avxvnni")]
    fn avx_vnni_loop() {
        let weights = black_box([_mm256_set1_epi8(1); AVX2_ROWS]);
        let mut sums = [_mm256_setzero_si256(); AVX2_ROWS];
        let q = [_mm256_set1_epi8(1); COLUMNS / 32];
        for _ in 0..REPEAT {
            for q in black_box(&q) {
                for (sum, w) in sums.iter_mut().zip(&weights) {
                    *sum = _mm256_dpbusd_avx_epi32(*sum, *w, *q);
                }
            }
        }
        black_box(sums);
    }

    pub fn avx512_vnni() {
        // SAFETY: `runs_here` found AVX-512 F and VNNI.
        unsafe { avx512_vnni_loop() }
    }

    #[target_feature(enable = "avx512f,avx512vnni")]
    fn avx512_vnni_loop() {
        let weights = black_box([_mm512_set1_epi8(1); AVX512_ROWS]);
        let mut sums = [_mm512_setzero_si512(); AVX512_ROWS];
        let q = [_mm512_set1_epi8(1); COLUMNS / 64];
        for _ in 0..REPEAT {
            for q in black_box(&q) {
                for (sum, w) in sums.iter_mut().zip(&weights) {
                    *sum = _mm512_dpbusd_epi32(*sum, *w, *q);
                }
            }
        }
        black_box(sums);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_loop_that_can_run_runs() {
        for peak in PEAKS.iter().filter(|p| (p.runs_here)()) {
            (peak.run)();
        }
        for kernels in Kernels::available() {
            assert!((Peak::of(kernels).runs_here)());
        }
    }
}
