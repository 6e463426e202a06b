//! AMX: `tdpbsud` multiplies 16 tokens with 16 rows over 64 columns, signed activations with
//! unsigned digits, exactly, at seven times the rate of `vpdpbusd`.
//!
//! Digits in the order of `avx512` ([`digits`](super::digits)), four columns of 16 rows a register,
//! are what a tile of weights is: 16 such registers, one after the other. Tiles of activations are
//! the int8 rows themselves. `avx512` has all other slots, and few tokens.
//!
//! Linux hands the registers out for the asking, once for a process. Other systems are not asked,
//! and use `avx512`.

mod codes;
mod ternary;
pub(super) mod tiles;

use super::avx512;
use super::compile::slot;
use super::slots::Kernels;

static KERNELS: Kernels = Kernels {
    name: "amx",
    table_tokens: || usize::MAX,
    gemm_i2: slot!(ternary::gemm_i2(rows, q, q_sums, sums)),
    gemm_t5: slot!(ternary::gemm_t5(rows, q, q_sums, sums)),
    codes: slot!(codes::codes(product, sums)),
    ..avx512::KERNELS
};

/// The table, if this CPU and the system have AMX.
pub(super) fn detect() -> Option<&'static Kernels> {
    (avx512::detect().next().is_some() && tiles::are_usable()).then_some(&KERNELS)
}
