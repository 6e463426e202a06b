//! AVX2: the table, and where its functions are. Ternary products add pairs of products of bytes
//! with `vpmaddubsw` ([`bytes`](super::bytes)); from about ten tokens on these share tables of
//! partial sums ([`lut`](super::lut)).

pub(super) mod dense;
mod float;
pub(super) mod panels;
pub(super) mod registers;
pub(super) mod shuffle;

mod codes {
    crate::kernels::bytes::codes!("avx2");
}
pub(super) mod groups {
    crate::kernels::bytes::groups!("avx2");
}
mod ranks {
    crate::kernels::bytes::ranks!("avx2");
}
pub(super) mod ternary {
    crate::kernels::bytes::ternary!("avx2", table_tokens: 11, rows: 4);
}
pub(super) mod unpack {
    crate::kernels::bytes::unpack!("avx2");
}

/// The loops of [`lut`](super::lut) for this instruction set.
pub(super) mod tables {
    use std::arch::x86_64::__m256i;

    use super::super::lut::{Loops, loops};

    /// Those with short entries first, whose tables stay in the nearest cache.
    pub const NEAR: &[Loops] = &[loops!("avx2", __m256i), loops!("avx2", [__m256i; 2])];
    /// Those with the longest entries.
    pub const LONG: &[Loops] = &[loops!("avx2", [__m256i; 2])];
}

use super::compile::{compiled_loops, slot};
use super::slots::Kernels;

pub(super) static KERNELS: Kernels = Kernels {
    name: "avx2",
    table_tokens: || ternary::TABLE_TOKENS - 1,
    gemm_i2: slot!(ternary::gemm_i2(rows, q, q_sums, sums)),
    gemm_t5: slot!(ternary::gemm_t5(rows, q, q_sums, sums)),
    gemm_groups: slot!(groups::gemm(product, y)),
    gemm_q8_0: slot!(dense::gemm_q8_0(product, y)),
    gemm_q4_0: slot!(dense::gemm_q4_0(product, y)),
    gemm_f32: slot!(dense::gemm_f32(x, columns, rows, y)),
    gemm_f16: slot!(dense::gemm_f16(x, columns, rows, y)),
    gemm_bf16: slot!(dense::gemm_bf16(x, columns, rows, y)),
    plane4: slot!(codes::plane4(product, sums)),
    plane2: slot!(codes::plane2(product, sums)),
    panels_f32: slot!(panels::panels_f32(product, y)),
    panels_f16: slot!(panels::panels_f16(product, y)),
    panels_i8: slot!(panels::panels_i8(product, y)),
    quantize: slot!(float::quantize(x, q)),
    ..compiled_loops!("avx2")
};

/// The table, if this CPU runs it.
pub(super) fn detect() -> Option<&'static Kernels> {
    let detected = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("f16c");
    detected.then_some(&KERNELS)
}
