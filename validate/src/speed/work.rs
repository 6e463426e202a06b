//! The roofline: how much a test must at least read and multiply, and how long the machine needs
//! for that.
//!
//! A step of generation reads every packed row and norm once, of the head the rows that the screen
//! did not rule out, and the keys and values of all positions before it, of each sequence; nothing
//! of that fits a cache. A prompt reads the weights at least once. Multiply-adds are those of the
//! linear layers, of the head for positions with logits, and of attention. They count at the int8
//! rate, twice for 16-bit activations; those of numbers that are not quantized at the f32 rate. So
//! the limit is one that no program can pass, not one that every program can reach. A table of
//! partial sums, which does fewer additions than there are multiply-adds, is the exception.
//!
//! What a step reads may stay in the last-level cache from one step to the next if it is a few
//! times as large as that at most. Then how fast memory is says nothing, and there is no limit.

use sterna_ternary::file::Values;
use sterna_ternary::layout::{self, EMBEDDING, HEAD, Role};
use sterna_ternary::{Dense, LinearType, PackedFile, file};

use super::limits::MachineLimits;

/// What is timed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Test {
    /// A prompt of this many tokens, in one call.
    Prompt(usize),
    /// Tokens one after the other, each the most probable one.
    Generate(Generation),
}

/// Several sequences that grow by a token in each step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Generation {
    /// Tokens of each sequence.
    pub tokens: usize,
    /// Sequences that are computed together.
    pub sequences: usize,
    /// Logits that are computed.
    pub head: Head,
}

/// Logits of a generated token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Head {
    /// Those that can be the largest one.
    Screened,
    /// Every one.
    Full,
}

impl Head {
    /// In words.
    pub fn name(self) -> &'static str {
        match self {
            Head::Screened => "screened",
            Head::Full => "full",
        }
    }
}

impl Test {
    /// Tokens that are computed.
    pub fn tokens(self) -> usize {
        self.positions() * self.sequences()
    }

    /// Tokens that are computed of one sequence.
    pub fn positions(self) -> usize {
        match self {
            Test::Prompt(n) => n,
            Test::Generate(generation) => generation.tokens,
        }
    }

    /// Sequences.
    pub fn sequences(self) -> usize {
        match self {
            Test::Prompt(_) => 1,
            Test::Generate(generation) => generation.sequences,
        }
    }
}

/// What a test cannot avoid.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Work {
    /// Passes through the model.
    pub passes: usize,
    /// Bytes read from memory, in all passes.
    pub bytes: f64,
    /// Multiply-adds of int8.
    pub int8_macs: f64,
    /// Multiply-adds of f32.
    pub float_macs: f64,
}

/// Which limit is the nearest one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bound {
    /// Reading memory.
    Memory,
    /// Reading caches, the speed of which is not measured.
    Cache,
    /// Multiply-adds.
    Arithmetic,
}

impl Bound {
    /// In words.
    pub fn name(self) -> &'static str {
        match self {
            Bound::Memory => "memory",
            Bound::Cache => "cache",
            Bound::Arithmetic => "arithmetic",
        }
    }
}

/// A pass that reads less than so many times what the caches hold finds some of it there.
const CACHED: f64 = 4.0;

impl Work {
    /// The work of a test after `depth` tokens. A position takes `kv_bytes` of the KV cache;
    /// `head_bytes` of the head were read in all.
    pub fn of(
        file: &PackedFile,
        test: Test,
        depth: usize,
        kv_bytes: usize,
        head_bytes: usize,
    ) -> Work {
        let c = &file.config;
        let weights = layout::weights(c);
        let linear = weights.iter().filter(|w| w.role == Role::Linear);
        let (n, sequences) = (test.positions(), test.sequences());
        let linear = n * sequences * linear.map(|w| w.rows * w.columns).sum::<usize>();
        // Positions that all queries of a sequence see together, and those that it must read.
        let seen = n * depth + n * (n + 1) / 2;
        let (passes, read) = match test {
            Test::Prompt(_) => (1, depth),
            Test::Generate(_) => (n, seen),
        };
        let head = passes * sequences * c.vocab_size * c.hidden_size;
        let heads = c.num_hidden_layers * c.num_attention_heads * c.head_dim;
        let mut work = Work {
            passes,
            bytes: passes as f64 * weight_bytes(file) as f64
                + (sequences * read * kv_bytes + head_bytes) as f64,
            int8_macs: 0.0,
            // Half precision is exact in f32, and 8-bit caches are multiplied with 16-bit numbers.
            float_macs: (2 * heads * seen * sequences) as f64,
        };
        match file.packing {
            LinearType::Dense(Dense::F16) => work.float_macs += linear as f64,
            _ => work.int8_macs += (linear * file.activations.digits()) as f64,
        }
        let is_full = matches!(test, Test::Generate(generation) if generation.head == Head::Full);
        match file.head().values {
            Values::Planes(_) if is_full => work.float_macs += head as f64,
            Values::F32(_) | Values::F16(_) | Values::Bf16(_) => work.float_macs += head as f64,
            // All rows of planes are estimated with their codes; few are multiplied in f32.
            Values::Codes(_) | Values::Trits(_) | Values::Planes(_) => {
                work.int8_macs += head as f64;
            }
        }
        work
    }

    /// The shortest time within the limits of a machine, and which of them decides; no time where
    /// it is the one of the caches.
    pub fn seconds(&self, limits: &MachineLimits) -> (Option<f64>, Bound) {
        let memory = self.bytes / limits.bytes_per_second;
        let mut arithmetic = self.int8_macs / limits.int8_macs_per_second;
        if self.float_macs > 0.0 {
            arithmetic += self.float_macs / limits.float_macs_per_second();
        }
        if memory <= arithmetic {
            return (Some(arithmetic), Bound::Arithmetic);
        }
        match self.bytes < self.passes as f64 * CACHED * limits.cache_bytes as f64 {
            true => (None, Bound::Cache),
            false => (Some(memory), Bound::Memory),
        }
    }
}

/// All tensors that a pass reads whole: everything but embedded files, padding, embedding and head.
fn weight_bytes(file: &PackedFile) -> usize {
    let is_read = |name: &str| {
        let is_table = name.starts_with(EMBEDDING) || name.starts_with(HEAD);
        !is_table && !name.starts_with("padding.") && !file::FILES.contains(&name)
    };
    let entries = file.layout().entries.iter();
    entries.filter(|e| is_read(&e.name)).map(|e| e.len).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(work: Work, limits: MachineLimits, seconds: Option<f64>, bound: Bound) {
        assert_eq!(work.seconds(&limits), (seconds, bound));
    }

    #[test]
    fn the_nearest_limit_decides() {
        let work = Work {
            passes: 10,
            bytes: 10e9,
            int8_macs: 300e9,
            float_macs: 0.0,
        };
        let limits = |bytes_per_second, int8_macs_per_second| MachineLimits {
            bytes_per_second,
            int8_macs_per_second,
            fma_macs_per_second: 50e9,
            ..MachineLimits::none(1)
        };
        check(work, limits(5e9, 200e9), Some(2.0), Bound::Memory);
        check(work, limits(20e9, 100e9), Some(3.0), Bound::Arithmetic);
        let floats = Work {
            float_macs: 100e9,
            ..work
        };
        check(floats, limits(5e9, 200e9), Some(3.5), Bound::Arithmetic);
    }

    #[test]
    fn what_caches_hold_has_no_limit_by_memory() {
        let work = Work {
            passes: 10,
            bytes: 10e9,
            int8_macs: 1e9,
            float_macs: 0.0,
        };
        let limits = |cache_bytes, int8_macs_per_second| MachineLimits {
            bytes_per_second: 5e9,
            int8_macs_per_second,
            cache_bytes,
            ..MachineLimits::none(1)
        };
        check(work, limits(250_000_000, 1e9), Some(2.0), Bound::Memory);
        check(work, limits(250_000_001, 1e9), None, Bound::Cache);
        check(
            work,
            limits(250_000_001, 0.4e9),
            Some(2.5),
            Bound::Arithmetic,
        );
    }
}
