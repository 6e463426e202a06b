//! Products with numbers in half precision, which the compiler would widen one by one. NEON widens
//! four with `fcvtl`, whose intrinsic is not stable.

use std::arch::aarch64::*;
use std::arch::asm;

use half::f16;

use super::super::panels::{self, LANES, PanelProduct};

pub(super) fn gemm_f16(x: &[f32], columns: usize, rows: &[f16], y: &mut [f32]) {
    super::super::float::gemm::<_, 2, 2>(x, columns, rows, y, widen);
}

pub(super) fn panels_f16(product: PanelProduct<f32, f16>, y: &mut [f32]) {
    panels::float(product, y, widen);
}

#[inline(always)]
fn widen(halves: &[f16; LANES]) -> [f32; LANES] {
    let mut wide = [[0f32; 4]; LANES / 4];
    for (wide, halves) in wide.iter_mut().zip(halves.as_chunks::<4>().0) {
        let widened: float32x4_t;
        // SAFETY: every 64-bit Arm has NEON; four numbers are read and written.
        unsafe {
            let halves = vld1_u16(halves.as_ptr().cast());
            asm!(
                "fcvtl {0:v}.4s, {1:v}.4h",
                out(vreg) widened, in(vreg) halves,
                options(pure, nomem, nostack, preserves_flags)
            );
            vst1q_f32(wide.as_mut_ptr(), widened);
        }
    }
    bytemuck::cast(wide)
}
