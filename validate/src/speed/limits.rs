//! What this machine can do right now: how fast it reads memory and how fast it multiplies.
//!
//! A limit that is too low flatters, so each one is the best of several ways. Reading: the threads
//! stream together through a buffer on huge pages, with the widest loads of the CPU, in each of the
//! [`PATTERNS`]. The buffer is at least eight times the last-level caches of the threads and at
//! least 256 MiB, so that little of it is cached. Multiplying: the loops of a [`Peak`], on
//! registers alone, on every thread.
//!
//! A shared machine changes by the minute, so [`super::bench::measure`] repeats this in every round
//! and keeps the best.

use std::time::{Duration, Instant};

use sterna_runtime::Kernels;
use sterna_runtime::kernels::peak::read::{Line, PATTERNS, Pattern};
use sterna_runtime::kernels::peak::{Loops, Peak};
use sterna_runtime::threads::Pool;
use sterna_ternary::HugePages;

use super::machine::Machine;
use crate::{Error, Result};

/// Rates of the machine with a number of threads.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MachineLimits {
    /// Threads that worked together.
    pub threads: usize,
    /// Bytes read from memory.
    pub bytes_per_second: f64,
    /// int8 multiply-adds.
    pub int8_macs_per_second: f64,
    /// f32 multiply-adds that round the product, as attention computes.
    pub f32_macs_per_second: f64,
    /// f32 multiply-adds that round once; zero if the kernel table has none.
    pub fma_macs_per_second: f64,
    /// The int8 instruction that was timed.
    pub instruction: &'static str,
    /// Bytes of the last-level caches that so many threads can use.
    pub cache_bytes: u64,
}

impl MachineLimits {
    /// What is known before any measurement.
    pub fn none(threads: usize) -> MachineLimits {
        MachineLimits {
            threads,
            bytes_per_second: 0.0,
            int8_macs_per_second: 0.0,
            f32_macs_per_second: 0.0,
            fma_macs_per_second: 0.0,
            instruction: "",
            cache_bytes: 0,
        }
    }

    /// The better of two measurements, rate by rate.
    pub fn or_better(&self, other: &MachineLimits) -> MachineLimits {
        let best = |rate: fn(&MachineLimits) -> f64| rate(self).max(rate(other));
        MachineLimits {
            bytes_per_second: best(|l| l.bytes_per_second),
            int8_macs_per_second: best(|l| l.int8_macs_per_second),
            f32_macs_per_second: best(|l| l.f32_macs_per_second),
            fma_macs_per_second: best(|l| l.fma_macs_per_second),
            ..*other
        }
    }

    /// f32 multiply-adds, rounded in whichever way is faster.
    pub fn float_macs_per_second(&self) -> f64 {
        self.f32_macs_per_second.max(self.fma_macs_per_second)
    }
}

/// Measures [`MachineLimits`]; holds a large buffer.
pub struct Meter {
    machine: Machine,
    buffer: HugePages,
}

/// Bytes of one stream that a thread reads at a time.
const RUN: usize = 256 << 10;
/// A multiple of the runs of every pattern.
const RUNS: usize = 4 * RUN;
/// The smallest buffer.
const LEAST: u64 = 256 << 20;
/// How long each loop of multiply-adds is repeated.
const PEAK_TIME: Duration = Duration::from_millis(8);

impl Meter {
    /// Allocates a buffer for some pools, at most a quarter of the machine's memory.
    ///
    /// # Errors
    /// [`Error::Memory`].
    pub fn new(pools: &[Pool]) -> Result<Meter> {
        let machine = Machine::detect();
        let largest = pools.iter().max_by_key(|pool| pool.threads());
        let bytes = largest.map_or(0, |pool| buffer_bytes(&machine, pool.threads()));
        let mut buffer =
            HugePages::zeroed(bytes).map_err(|source| Error::Memory { bytes, source })?;
        // Each page is written, or all would be one page of zeros, mapped everywhere.
        if let Some(pool) = largest {
            pool.chunks_mut(&mut buffer, RUN, |_, run| run.fill(1));
        }
        Ok(Meter { machine, buffer })
    }

    /// The rates with the threads of a pool; multiply-adds by the instructions that the table is
    /// built on.
    pub fn measure(&self, pool: &Pool, kernels: &Kernels) -> MachineLimits {
        let peak = Peak::of(kernels);
        let threads = pool.threads();
        let buffer = &self.buffer[..self.buffer.len().min(buffer_bytes(&self.machine, threads))];
        let rates = PATTERNS.map(|pattern| read(pool, pattern, buffer));
        MachineLimits {
            threads,
            bytes_per_second: rates.into_iter().fold(0.0, f64::max),
            int8_macs_per_second: macs_per_second(pool, &peak.int8),
            f32_macs_per_second: macs_per_second(pool, &peak.f32),
            fma_macs_per_second: macs_per_second(pool, &peak.fma),
            instruction: peak.int8.instruction,
            cache_bytes: self.machine.cache_bytes(threads),
        }
    }
}

fn buffer_bytes(machine: &Machine, threads: usize) -> usize {
    let wanted = LEAST.max(8 * machine.cache_bytes(threads));
    let most = machine.memory_bytes.map_or(LEAST, |bytes| bytes / 4);
    (wanted.min(most) as usize).next_multiple_of(RUNS)
}

/// Bytes per second of one pass over the buffer.
fn read(pool: &Pool, pattern: Pattern, buffer: &[u8]) -> f64 {
    let (lines, _) = buffer.as_chunks::<{ size_of::<Line>() }>();
    let streams: Vec<&[Line]> = lines.chunks_exact(lines.len() / pattern.streams).collect();
    let lines_of_run = RUN / size_of::<Line>();
    let start = Instant::now();
    pool.for_each(streams[0].len() / lines_of_run, |run| {
        let mut runs = [&[][..]; 4];
        for (to, stream) in runs.iter_mut().zip(&streams) {
            *to = &stream[run * lines_of_run..][..lines_of_run];
        }
        pattern.read(&runs[..pattern.streams]);
    });
    buffer.len() as f64 / start.elapsed().as_secs_f64()
}

/// Of the fastest loop; zero if there is none.
fn macs_per_second(pool: &Pool, loops: &Loops) -> f64 {
    let rates = loops.all().iter().map(|peak| {
        let start = Instant::now();
        let mut macs = 0;
        while start.elapsed() < PEAK_TIME {
            // Chunks of some tens of microseconds, several a thread, so that all threads end
            // together.
            let chunks = 16 * pool.threads();
            pool.for_each(chunks, |_| (peak.run)());
            macs += chunks * peak.macs;
        }
        macs as f64 / start.elapsed().as_secs_f64()
    });
    rates.fold(0.0, f64::max)
}
