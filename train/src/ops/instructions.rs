//! The instruction set that the loops of the trainer use, chosen when the program starts.
//!
//! It decides how fast a step is and never what it computes: rustc neither reorders nor fuses float
//! operations, and [`super::matmul()`] has one order of fused multiply-adds for all sets. So a run
//! has the same bytes on every CPU, which `train/tests/bits.rs` proves for each set of the machine.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use pulp::Arch;

/// An instruction set that this machine has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InstructionSet {
    /// 512-bit registers of x86-64: AVX-512 F, BW, CD, DQ and VL.
    Avx512,
    /// 256-bit registers of x86-64 and fused multiply-adds.
    Avx2,
    /// 128-bit registers of 64-bit Arm.
    Neon,
    /// What every CPU of the target has. Without fused multiply-adds in hardware they are computed
    /// in software: exact, and tens of times slower.
    Baseline,
}

/// The sets of this machine, the fastest first.
pub(super) static SETS: LazyLock<Vec<(InstructionSet, Arch)>> = LazyLock::new(|| {
    let mut sets = Vec::new();
    #[cfg(target_arch = "x86_64")]
    {
        let avx512 = pulp::x86::V4::try_new().map(Arch::V4);
        let avx2 = pulp::x86::V3::try_new().map(Arch::V3);
        sets.extend(avx512.map(|arch| (InstructionSet::Avx512, arch)));
        sets.extend(avx2.map(|arch| (InstructionSet::Avx2, arch)));
    }
    #[cfg(target_arch = "aarch64")]
    sets.extend(
        pulp::aarch64::Neon::try_new().map(|neon| (InstructionSet::Neon, Arch::Neon(neon))),
    );
    sets.push((InstructionSet::Baseline, Arch::Scalar));
    sets
});

/// Index into [`SETS`] of the set that is used.
static USED: AtomicUsize = AtomicUsize::new(0);

impl InstructionSet {
    /// The sets of this machine, the fastest first. The first one is used.
    pub fn available() -> Vec<InstructionSet> {
        SETS.iter().map(|(set, _)| *set).collect()
    }

    /// The set that is used.
    pub fn used() -> InstructionSet {
        SETS[USED.load(Ordering::Relaxed)].0
    }

    /// Uses this set from now on in the whole process, to compare sets with each other.
    ///
    /// # Panics
    /// If this machine does not have it.
    pub fn use_everywhere(self) {
        let index = SETS.iter().position(|(set, _)| *set == self);
        let index = index.unwrap_or_else(|| panic!("this machine has no {self:?}"));
        USED.store(index, Ordering::Relaxed);
    }
}

/// The set that is used, for operations that are generic over its registers.
#[inline(always)]
pub(super) fn used() -> Arch {
    SETS[USED.load(Ordering::Relaxed)].1
}

/// Runs a loop that the compiler vectorizes, compiled for the set that is used.
#[inline(always)]
pub(crate) fn vectorized<R>(f: impl FnOnce() -> R) -> R {
    used().dispatch(f)
}
