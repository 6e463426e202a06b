//! NEON alone: products of bytes are added to 16-bit lanes ([`bytes`](super::super::bytes)), and
//! many tokens share tables of partial sums ([`lut`](super::super::lut)).

pub(super) mod registers;
mod unpack;

mod codes {
    crate::kernels::bytes::codes!("neon");
}
mod groups {
    crate::kernels::bytes::groups!("neon");
}
pub(super) mod ranks {
    crate::kernels::bytes::ranks!("neon");
}
pub(super) mod ternary {
    crate::kernels::bytes::ternary!("neon", table_tokens: 8, rows: 2);
}

/// The loops of [`lut`](super::super::lut) for this instruction set.
pub(super) mod tables {
    use std::arch::aarch64::int16x8_t;

    use super::super::super::lut::{Loops, loops};

    /// Those with short entries first, whose tables stay in the nearest cache.
    pub const NEAR: &[Loops] = &[
        loops!("neon", [int16x8_t; 2]),
        loops!("neon", [[int16x8_t; 2]; 2]),
    ];
}

use super::super::compile::slot;
use super::super::slots::Kernels;
use super::COMMON;

pub(super) use unpack::times;

pub(super) static KERNELS: Kernels = Kernels {
    name: "neon",
    table_tokens: || ternary::TABLE_TOKENS - 1,
    gemm_i2: slot!(ternary::gemm_i2(rows, q, q_sums, sums)),
    gemm_t5: slot!(ternary::gemm_t5(rows, q, q_sums, sums)),
    gemm_groups: slot!(groups::gemm(product, y)),
    plane4: slot!(codes::plane4(product, sums)),
    plane2: slot!(codes::plane2(product, sums)),
    ..COMMON
};
