//! AVX-512 with VNNI: the table, and where its functions are. `vpdpbusd` adds four products of
//! unsigned digits and signed activations to 32-bit lanes (`ternary`); many tokens go the way of
//! `avx2`, with wider registers (`lut`).

mod codes;
mod dense;
pub(super) mod digits;
mod groups;
mod lut;
mod panels;
mod planes;
pub(super) mod registers;
pub(super) mod ternary;
mod whole;

use super::avx2;
use super::compile::{compiled_loops, slot};
use super::slots::{Kernels, MANY};

/// A table whose products of many tokens use tables of partial sums or not.
macro_rules! table {
    ($table:ident, $name:literal, $uses_tables:expr) => {
        pub(super) static $table: Kernels = Kernels {
            name: $name,
            table_tokens: || if $uses_tables() { MANY } else { usize::MAX },
            gemm_i2: |rows, q, q_sums, sums| {
                // SAFETY: only a table calls this, and `detect` hands it out only where it found
                // every feature that the function is compiled for.
                unsafe { ternary::gemm_i2(rows, q, q_sums, sums, $uses_tables()) }
            },
            gemm_t5: |rows, q, q_sums, sums| {
                // SAFETY: only a table calls this, and `detect` hands it out only where it found
                // every feature that the function is compiled for.
                unsafe { ternary::gemm_t5(rows, q, q_sums, sums, $uses_tables()) }
            },
            gemm_groups: slot!(groups::gemm(product, y)),
            gemm_q8_0: slot!(dense::gemm_q8_0(product, y)),
            gemm_q4_0: slot!(dense::gemm_q4_0(product, y)),
            gemm_f32: slot!(dense::gemm_f32(x, columns, rows, y)),
            gemm_f16: slot!(dense::gemm_f16(x, columns, rows, y)),
            gemm_bf16: slot!(dense::gemm_bf16(x, columns, rows, y)),
            plane4: slot!(codes::plane4(product, sums)),
            plane2: slot!(codes::plane2(product, sums)),
            codes: slot!(whole::codes(product, sums)),
            // One token has a product of its own; rows in lanes gain from three tokens on.
            prefers_codes: |tokens| tokens != 2,
            decode_planes: slot!(planes::decode(planes, row, values)),
            panels_f32: slot!(panels::panels_f32(product, y)),
            panels_f16: slot!(panels::panels_f16(product, y)),
            panels_i8: slot!(panels::panels_i8(product, y)),
            quantize: avx2::KERNELS.quantize,
            ..compiled_loops!("avx512f,avx512bw,avx512vl,avx512dq")
        };
    };
}

table!(KERNELS, "avx512", ternary::uses_tables);
#[cfg(test)]
table!(PANELS, "avx512 with panels", || false);
#[cfg(test)]
table!(TABLES, "avx512 with tables", || true);

/// The tables that this CPU runs: one, and in tests those of other CPUs of this instruction set.
pub(super) fn detect() -> impl Iterator<Item = &'static Kernels> {
    let detected = is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vnni")
        && is_x86_feature_detected!("popcnt")
        && avx2::detect().is_some();
    static ALL: &[&Kernels] = &[
        #[cfg(test)]
        &PANELS,
        #[cfg(test)]
        &TABLES,
        &KERNELS,
    ];
    ALL.iter().copied().filter(move |_| detected)
}
