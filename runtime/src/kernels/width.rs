//! How fast this CPU multiplies registers of 512 bits: found by a measurement, since CPUs of one
//! instruction set differ, and the next one is not in any list.

use std::arch::asm;
use std::arch::x86_64::*;
use std::hint::black_box;
use std::sync::LazyLock;
use std::time::Instant;

/// Whether the CPU begins two `vpdpbusd` of 512 bits in a cycle, not one. Tables of partial sums
/// take less time than multiply-add where it begins one.
///
/// The first call takes about 0.3 ms. Both answers give the same results.
///
/// # Safety
/// The CPU has AVX-512 F and VNNI.
pub(super) unsafe fn is_full() -> bool {
    static IS_FULL: LazyLock<bool> = LazyLock::new(|| {
        /// Tries, of which the fastest counts: the first ones may find a CPU that wakes up its
        /// upper lanes, and any may be interrupted.
        const TRIES: usize = 50;
        let fastest = |run: &dyn Fn()| {
            let time = |_| {
                let start = Instant::now();
                run();
                start.elapsed()
            };
            (0..TRIES).map(time).min().unwrap_or_default()
        };
        // As many cycles at one product a cycle as the other loop takes on every x86 CPU.
        // SAFETY: the only caller has the instructions.
        let products = fastest(&|| unsafe { products::<{ CYCLES / CHAINS }>() });
        let cycles = fastest(&cycles);
        products < cycles * 3 / 4
    });
    *IS_FULL
}

const CYCLES: usize = 9600;
/// Independent sums: more than products that are under way at once.
const CHAINS: usize = 12;

/// `CHAINS` · `N` products.
#[target_feature(enable = "avx512f,avx512vnni")]
fn products<const N: usize>() {
    let (digits, q) = (
        black_box(_mm512_set1_epi8(1)),
        black_box(_mm512_set1_epi8(1)),
    );
    let mut sums = [_mm512_setzero_si512(); CHAINS];
    for _ in 0..N {
        for sum in &mut sums {
            *sum = _mm512_dpbusd_epi32(*sum, digits, q);
        }
    }
    black_box(sums);
}

/// `CYCLES` cycles: a chain of multiplications, each of which takes three. They are assembly, since
/// the compiler makes one multiplication of many by the same factor.
fn cycles() {
    const LATENCY: usize = 3;
    let mut product = 3u64;
    for _ in 0..CYCLES / LATENCY {
        // SAFETY: an instruction of every x86-64 CPU, on a register alone.
        unsafe { asm!("imul {0}, {0}", inout(reg) product, options(pure, nomem, nostack)) };
    }
    black_box(product);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_stays() {
        if is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512vnni") {
            // SAFETY: the features are there.
            assert!(unsafe { is_full() == is_full() });
        }
    }
}
