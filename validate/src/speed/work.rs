//! The roofline: how much a test must at least read and multiply, and how long the machine needs
//! for that.
//!
//! A generated token reads every packed row and norm once, of the head the rows that the screen did
//! not rule out, and the keys and values of all positions before it; nothing of that fits a cache.
//! A prompt reads the weights at least once. Multiply-adds are those of the linear layers, of the
//! head for positions with logits, and of attention, all counted at the int8 rate although the last
//! two are float, and twice for 16-bit activations. So the limit is one that no program can pass,
//! not one that every program can reach. A table of partial sums, which does fewer additions than
//! there are multiply-adds, is the exception.

use sterna_ternary::layout::{self, EMBEDDING, HEAD, Role};
use sterna_ternary::{PackedFile, file};

use super::limits::MachineLimits;

/// What is timed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Test {
    /// A prompt of this many tokens, in one call.
    Prompt(usize),
    /// This many tokens one after the other, each the most probable one.
    Generate(usize),
}

impl Test {
    /// Tokens that are computed.
    pub fn tokens(self) -> usize {
        match self {
            Test::Prompt(n) | Test::Generate(n) => n,
        }
    }
}

/// What a test cannot avoid.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Work {
    /// Bytes read from memory.
    pub bytes: f64,
    /// Multiply-adds.
    pub macs: f64,
}

/// Which limit is the nearer one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bound {
    /// Reading.
    Memory,
    /// Multiply-adds.
    Arithmetic,
}

impl Bound {
    /// In words.
    pub fn name(self) -> &'static str {
        match self {
            Bound::Memory => "memory",
            Bound::Arithmetic => "arithmetic",
        }
    }
}

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
        let ternary: usize = linear.map(|w| w.rows * w.columns).sum();
        let head = c.vocab_size * c.hidden_size;
        let n = test.tokens();
        // Positions that all queries of the test see together, and those that it must read.
        let seen = n * depth + n * (n + 1) / 2;
        let (passes, read) = match test {
            Test::Prompt(_) => (1, depth),
            Test::Generate(_) => (n, seen),
        };
        let attention = 2 * c.num_hidden_layers * c.num_attention_heads * c.head_dim * seen;
        Work {
            bytes: passes as f64 * weight_bytes(file) as f64
                + (read * kv_bytes + head_bytes) as f64,
            macs: (n * ternary * file.activations.digits() + passes * head + attention) as f64,
        }
    }

    /// The shortest time within the limits of a machine, and which of them decides.
    pub fn seconds(&self, limits: &MachineLimits) -> (f64, Bound) {
        let memory = self.bytes / limits.bytes_per_second;
        let arithmetic = self.macs / limits.macs_per_second;
        match memory > arithmetic {
            true => (memory, Bound::Memory),
            false => (arithmetic, Bound::Arithmetic),
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

    #[test]
    fn the_nearer_limit_decides() {
        let work = Work {
            bytes: 10e9,
            macs: 300e9,
        };
        let limits = |bytes_per_second, macs_per_second| MachineLimits {
            bytes_per_second,
            macs_per_second,
            ..MachineLimits::none(1)
        };
        assert_eq!(work.seconds(&limits(5e9, 200e9)), (2.0, Bound::Memory));
        assert_eq!(work.seconds(&limits(20e9, 100e9)), (3.0, Bound::Arithmetic));
    }
}
