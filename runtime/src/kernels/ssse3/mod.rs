//! SSSE3, for CPUs without AVX2: the ternary products of `avx2` at 128 bits
//! ([`bytes`](super::bytes), [`lut`](super::lut)). Most float loops are those of the scalar table,
//! which are compiled for registers of 128 bits already.

mod dense;
mod float;
mod panels;
mod registers;

mod codes {
    crate::kernels::bytes::codes!("ssse3");
}
mod groups {
    crate::kernels::bytes::groups!("ssse3");
}
mod ranks {
    crate::kernels::bytes::ranks!("ssse3");
}
mod ternary {
    crate::kernels::bytes::ternary!("ssse3", table_tokens: 8, rows: 4);
}
mod unpack {
    crate::kernels::bytes::unpack!("ssse3");
}

/// The loops of [`lut`](super::lut) for this instruction set.
mod tables {
    use std::arch::x86_64::__m128i;

    use super::super::lut::{Loops, loops};

    /// Those with short entries first, whose tables stay in the nearest cache.
    pub const NEAR: &[Loops] = &[
        loops!("ssse3", [__m128i; 2]),
        loops!("ssse3", [[__m128i; 2]; 2]),
    ];
}

use super::compile::slot;
use super::scalar;
use super::slots::Kernels;

static KERNELS: Kernels = Kernels {
    name: "ssse3",
    table_tokens: || ternary::TABLE_TOKENS - 1,
    gemm_i2: slot!(ternary::gemm_i2(rows, q, q_sums, sums)),
    gemm_t5: slot!(ternary::gemm_t5(rows, q, q_sums, sums)),
    gemm_groups: slot!(groups::gemm(product, y)),
    gemm_q8_0: slot!(dense::gemm_q8_0(product, y)),
    gemm_q4_0: slot!(dense::gemm_q4_0(product, y)),
    gemm_f16: slot!(float::gemm_f16(x, columns, rows, y)),
    plane4: slot!(codes::plane4(product, sums)),
    plane2: slot!(codes::plane2(product, sums)),
    panels_f16: slot!(float::panels_f16(product, y)),
    panels_i8: slot!(panels::panels_i8(product, y)),
    quantize: slot!(float::quantize(x, q)),
    ..scalar::TABLE
};

/// The table, if this CPU runs it.
pub(super) fn detect() -> Option<&'static Kernels> {
    is_x86_feature_detected!("ssse3").then_some(&KERNELS)
}
