//! What this machine can do right now: how fast it reads memory and how fast it multiplies.
//!
//! Reading: the threads stream together through a buffer of at least eight times the last-level
//! cache and at least 256 MiB, in 1, 2, 4 and 8 concurrent streams each; the fastest pattern
//! counts. The loop is one exclusive or per word, which is far faster than memory. Multiplying:
//! `peak` on every thread.
//!
//! A shared machine changes by the minute, so [`super::bench::measure`] repeats this in every round
//! and keeps the best.

use std::hint::black_box;
use std::time::{Duration, Instant};

use sterna_runtime::Kernels;
use sterna_runtime::kernels::peak::Peak;
use sterna_runtime::threads::Pool;

use super::machine::Machine;

/// Rates of the machine with a number of threads.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MachineLimits {
    /// Threads that worked together.
    pub threads: usize,
    /// Bytes read from memory.
    pub bytes_per_second: f64,
    /// int8 multiply-adds.
    pub macs_per_second: f64,
    /// The instruction that was timed.
    pub instruction: &'static str,
}

impl MachineLimits {
    /// What is known before any measurement.
    pub fn none(threads: usize) -> MachineLimits {
        MachineLimits {
            threads,
            bytes_per_second: 0.0,
            macs_per_second: 0.0,
            instruction: "",
        }
    }

    /// The better of two measurements, rate by rate.
    pub fn or_better(&self, other: &MachineLimits) -> MachineLimits {
        MachineLimits {
            threads: self.threads,
            bytes_per_second: self.bytes_per_second.max(other.bytes_per_second),
            macs_per_second: self.macs_per_second.max(other.macs_per_second),
            instruction: other.instruction,
        }
    }
}

/// 64 bytes, a cache line of most machines.
type CacheLine = [u64; 8];

/// Measures [`MachineLimits`]; holds a large buffer.
pub struct Meter {
    buffer: Vec<CacheLine>,
}

/// Lines of one stream that a thread reads at a time: 256 KiB.
const RUN: usize = 1 << 12;
/// How long multiply-adds are repeated.
const PEAK_TIME: Duration = Duration::from_millis(20);

impl Meter {
    /// Allocates the buffer, at most a quarter of the machine's memory.
    pub fn new() -> Meter {
        let machine = Machine::detect();
        let caches = machine.caches.iter().map(|cache| cache.bytes);
        let wanted = 8 * caches.max().unwrap_or(0);
        let most = machine.memory_bytes.map_or(1 << 28, |bytes| bytes / 4);
        let bytes = wanted.max(1 << 28).min(most) as usize;
        Meter {
            // Not zeros: those would be one page of the kernel, mapped everywhere.
            buffer: vec![
                [1; 8];
                bytes
                    .div_ceil(size_of::<CacheLine>())
                    .next_multiple_of(8 * RUN)
            ],
        }
    }

    /// The rates with the threads of a pool; multiply-adds by the instruction that the table is
    /// built on.
    pub fn measure(&self, pool: &Pool, kernels: &Kernels) -> MachineLimits {
        let peak = Peak::of(kernels);
        let patterns = [
            self.read::<1>(pool),
            self.read::<2>(pool),
            self.read::<4>(pool),
            self.read::<8>(pool),
        ];
        MachineLimits {
            threads: pool.threads(),
            bytes_per_second: patterns.into_iter().fold(0.0, f64::max),
            macs_per_second: macs_per_second(pool, peak),
            instruction: peak.instruction,
        }
    }

    /// Bytes per second in `STREAMS` concurrent streams per thread.
    fn read<const STREAMS: usize>(&self, pool: &Pool) -> f64 {
        let mut parts = self.buffer.chunks_exact(self.buffer.len() / STREAMS);
        let streams: [&[CacheLine]; STREAMS] =
            std::array::from_fn(|_| parts.next().expect("a divisor of the length"));
        let runs = streams[0].len() / RUN;
        let start = Instant::now();
        pool.for_each(runs, |run| {
            black_box(fold(streams.map(|stream| &stream[run * RUN..][..RUN])));
        });
        size_of_val(self.buffer.as_slice()) as f64 / start.elapsed().as_secs_f64()
    }
}

impl Default for Meter {
    fn default() -> Meter {
        Meter::new()
    }
}

#[inline(never)]
fn fold<const STREAMS: usize>(streams: [&[CacheLine]; STREAMS]) -> CacheLine {
    let mut folded = [0; 8];
    for i in 0..RUN {
        for stream in &streams {
            for (folded, word) in folded.iter_mut().zip(&stream[i]) {
                *folded ^= word;
            }
        }
    }
    folded
}

fn macs_per_second(pool: &Pool, peak: &Peak) -> f64 {
    let start = Instant::now();
    let mut macs = 0;
    while start.elapsed() < PEAK_TIME {
        // Chunks of some tens of microseconds, several a thread, so that all threads end together.
        let chunks = 16 * pool.threads();
        pool.for_each(chunks, |_| (peak.run)());
        macs += chunks * peak.macs;
    }
    macs as f64 / start.elapsed().as_secs_f64()
}
