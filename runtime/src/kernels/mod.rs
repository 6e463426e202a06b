//! Every inner loop of the runtime, as tables of function pointers, one table per instruction set.
//!
//! [`Kernels`] is complete at all times: `scalar` fills every slot, and each instruction set starts
//! from a copy and overwrites what it does faster. [`Kernels::available`] lists the tables that
//! this CPU runs, so tests and benches walk that list. A new kernel is one function and one
//! assignment; a new instruction set is one file and one line in [`Kernels::available`].
//!
//! All tables give the same bits. Integer sums are exact. Float loops are written once, in `float`,
//! with a fixed order of operations and without fused multiply-add, and compiled for each
//! instruction set. No crate multiplies packed trits with int8, and crates for float products, such
//! as `gemm`, promise no order of their sums.

#[cfg(target_arch = "x86_64")]
mod amx;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "x86_64")]
mod avxvnni;
#[cfg(target_arch = "x86_64")]
mod blocks;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod bytes;
pub mod codes;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod compile;
mod dense;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod digits;
#[cfg(any(
    target_arch = "x86_64",
    target_arch = "aarch64",
    all(target_arch = "wasm32", target_feature = "simd128")
))]
mod dot;
mod float;
mod groups;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod lut;
#[cfg(target_arch = "aarch64")]
mod neon;
mod panels;
pub mod peak;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod prefetch;
mod scalar;
pub mod screen;
mod shape;
mod slots;
mod softmax;
#[cfg(target_arch = "x86_64")]
mod ssse3;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod sums;
#[cfg(test)]
pub(crate) mod tests;
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
mod wasm;
#[cfg(target_arch = "x86_64")]
mod whole;
mod widen;
#[cfg(target_arch = "x86_64")]
mod width;

#[cfg(target_arch = "x86_64")]
pub use amx::tiles::features as amx_features;
pub use dense::{BlockProduct, QuantizedBlock};
pub(crate) use float::exp;
pub use groups::GroupProduct;
pub use panels::{LANES, PanelProduct};
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
pub(crate) use prefetch::prefetch_second;
pub use slots::{
    Codes, Gemm, GemmBlocks, GemmFloat, GemmGroups, Kernels, Largest, Plane, SoftmaxI8,
};
pub(crate) use softmax::{LARGEST, exp2};
pub use softmax::{Scores, SoftmaxBlock};

use std::sync::LazyLock;

/// Other CPUs are not asked: their compilers have no instruction for it.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
pub(crate) fn prefetch_second(_: *const u8) {}

use slots::MANY;

impl Kernels {
    /// Every table that this CPU runs, slowest first.
    pub fn available() -> &'static [&'static Kernels] {
        static AVAILABLE: LazyLock<Vec<&'static Kernels>> = LazyLock::new(|| {
            #[allow(unused_mut)]
            let mut tables = vec![&scalar::KERNELS];
            #[cfg(target_arch = "x86_64")]
            {
                tables.extend(ssse3::detect());
                tables.extend(avx2::detect());
                tables.extend(avxvnni::detect());
                tables.extend(avx512::detect());
                tables.extend(amx::detect());
            }
            #[cfg(target_arch = "aarch64")]
            tables.extend(neon::detect());
            #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
            tables.push(&wasm::KERNELS);
            tables
        });
        &AVAILABLE
    }

    /// The tile, tokens by rows, in which `threads` threads compute the products of `tokens` tokens
    /// with `rows` rows.
    ///
    /// A few tokens are bound by memory: threads take short stretches of rows in turn. Many tokens
    /// that use tables of partial sums pass over stretches of equal length. There are as few
    /// stretches as give every thread a tile, since a table costs as much as some hundred rows.
    /// Many tokens without tables pass over stretches of some panels, and as many tokens as
    /// possible share their unpacking.
    pub(crate) fn tile(&self, tokens: usize, rows: usize, threads: usize) -> (usize, usize) {
        /// Fewest rows of a thread for which tables pay with less than [`MANY`] tokens.
        const TABLE_ROWS: usize = 512;
        let tables = (self.table_tokens)();
        if tokens < MANY && (tokens < tables || rows < TABLE_ROWS * threads) {
            // Sixteen stretches a thread or more, so that threads end together, but none so short
            // that its beginning and end cost more than its rows.
            let one = (rows / (16 * threads)).clamp(32, 128) & !31;
            return (tokens, if tokens == 1 { one } else { 64 });
        }
        if tokens < tables {
            return (tokens.min(512), (rows / (4 * threads)).clamp(64, 256) & !63);
        }
        let height = tokens.min(128);
        let stretches = threads.div_ceil(tokens.div_ceil(height));
        let stretches = stretches.max(rows.div_ceil(2048));
        let stretch = rows.div_ceil(stretches).max(256);
        (height, stretch.next_multiple_of(16))
    }

    /// The fastest table that this CPU runs.
    pub fn best() -> &'static Kernels {
        Kernels::available()
            .last()
            .expect("the scalar table is always there")
    }

    /// The table of that name, if this CPU runs it.
    pub fn find(name: &str) -> Option<&'static Kernels> {
        Kernels::available()
            .iter()
            .find(|table| table.name == name)
            .copied()
    }
}
