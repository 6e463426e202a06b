//! The loops that measure what an instruction set can do: multiply-adds, and reads of memory
//! ([`read`]).
//!
//! A limit that is too low flatters, so a limit is the best of several loops. Multiply-adds work on
//! registers alone, with several numbers of accumulators: a few do not fill the pipelines, and many
//! may not fit the registers. 16-bit accumulators may wrap here, which a kernel must prevent.

#[cfg(target_arch = "aarch64")]
mod arm;
pub mod read;
#[cfg(target_arch = "x86_64")]
mod x86;

use std::hint::black_box;

use super::slots::Kernels;

/// The multiply-adds of the instruction set of a kernel table.
#[derive(Debug)]
pub struct Peak {
    /// The kernel table.
    table: &'static str,
    /// int8 times int8, added to 32 bits or, where the table's kernels do so, to 16.
    pub int8: Loops,
    /// A product of f32, rounded, and then a sum.
    pub f32: Loops,
    /// The same rounded once.
    pub fma: Loops,
}

/// One kind of multiply-add with several numbers of accumulators.
#[derive(Debug)]
pub struct Loops {
    /// The instructions of one multiply-add.
    pub instruction: &'static str,
    runs_here: fn() -> bool,
    loops: &'static [Loop],
}

/// Multiply-adds to a number of accumulators.
#[derive(Debug)]
pub struct Loop {
    /// Multiply-adds of one call of `run`.
    pub macs: usize,
    /// Runs the loop for some tens of microseconds.
    pub run: fn(),
}

/// Multiply-adds of an accumulator in one call.
const REPEAT: usize = 1 << 13;

/// The loops of a function over the number of accumulators, and the multiply-adds of one
/// instruction.
macro_rules! loops {
    ($instruction:literal, $function:ident, $lanes:literal, [$($count:literal),*], $runs:expr) => {
        $crate::kernels::peak::Loops {
            instruction: $instruction,
            runs_here: || $runs,
            loops: &[$($crate::kernels::peak::Loop {
                macs: $crate::kernels::peak::REPEAT * $lanes * $count,
                run: || {
                    // SAFETY: `Loops::all` hands a loop out only where `runs_here` found the
                    // features that its function is compiled for.
                    #[allow(unused_unsafe)]
                    unsafe { $function::<$count>() }
                },
            }),*],
        }
    };
}
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
use loops;

/// The peaks of the tables of this architecture, slowest first.
static PEAKS: &[Peak] = &[
    Peak {
        table: "scalar",
        int8: loops!("compiled loop", compiled_int8, 64, [1, 2, 4], true),
        f32: loops!("compiled loop", compiled_f32, 4, [4, 6, 8, 12], true),
        fma: Loops::NONE,
    },
    #[cfg(target_arch = "x86_64")]
    x86::SSSE3,
    #[cfg(target_arch = "x86_64")]
    x86::AVX2,
    #[cfg(target_arch = "x86_64")]
    x86::AVX_VNNI,
    #[cfg(target_arch = "x86_64")]
    x86::AVX512,
    #[cfg(target_arch = "x86_64")]
    x86::AMX,
    #[cfg(target_arch = "aarch64")]
    arm::NEON,
    #[cfg(target_arch = "aarch64")]
    arm::DOTPROD,
    #[cfg(target_arch = "aarch64")]
    arm::I8MM,
];

impl Peak {
    /// The peak of the instruction set of a table; the last one that runs here for a table without
    /// an entry.
    pub fn of(kernels: &Kernels) -> &'static Peak {
        let named = PEAKS.iter().find(|peak| peak.table == kernels.name);
        let mut here = PEAKS.iter().filter(|peak| !peak.int8.all().is_empty());
        let last = || here.next_back().expect("compiled loops run everywhere");
        named.unwrap_or_else(last)
    }
}

impl Loops {
    /// An instruction that does not exist.
    const NONE: Loops = Loops {
        instruction: "none",
        runs_here: || false,
        loops: &[],
    };

    /// The loops; none if this CPU lacks the instruction.
    pub fn all(&self) -> &'static [Loop] {
        match (self.runs_here)() {
            true => self.loops,
            false => &[],
        }
    }
}

/// Calls `add` [`REPEAT`] times for each of `N` accumulators in turn.
#[inline(always)]
fn accumulate<const N: usize, V: Copy>(zero: V, add: impl Fn(V) -> V) {
    // Accumulators that are known to be equal would become one.
    let mut sums = black_box([zero; N]);
    for _ in 0..REPEAT {
        for sum in &mut sums {
            *sum = add(*sum);
        }
    }
    black_box(sums);
}

/// As the compiler vectorizes it for the baseline instruction set; the bytes come from the
/// first-level cache.
fn compiled_int8<const N: usize>() {
    let x = [1i8; 64];
    accumulate::<N, i32>(0, |sum| {
        let pairs = black_box(&x).iter().zip(black_box(&x));
        sum + pairs
            .map(|(a, b)| i32::from(*a) * i32::from(*b))
            .sum::<i32>()
    });
}

fn compiled_f32<const N: usize>() {
    let x = [1f32; 4];
    accumulate::<N, [f32; 4]>([0.0; 4], |mut sum| {
        for (sum, x) in sum.iter_mut().zip(black_box(&x)) {
            *sum += x * x;
        }
        sum
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_loop_that_can_run_runs() {
        for peak in PEAKS {
            let kinds = [&peak.int8, &peak.f32, &peak.fma];
            for run in kinds.into_iter().flat_map(Loops::all) {
                (run.run)();
            }
        }
    }

    #[test]
    fn every_table_has_a_peak() {
        for kernels in Kernels::available() {
            let peak = Peak::of(kernels);
            assert!(!peak.int8.all().is_empty() && !peak.f32.all().is_empty());
        }
    }
}
