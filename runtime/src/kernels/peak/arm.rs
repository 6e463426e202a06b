//! Multiply-adds of NEON, alone and with dot products and matrix products.

use std::arch::aarch64::*;
use std::arch::{asm, is_aarch64_feature_detected};

use super::super::neon::{sdot, smlal, smmla};
use super::{Loops, Peak, accumulate, loops};

pub(super) const NEON: Peak = Peak {
    table: "neon",
    int8: loops!("smull, smlal2 and sadalp", long, 16, [4, 6, 8, 12], true),
    f32: F32,
    fma: FMA,
};

pub(super) const DOTPROD: Peak = Peak {
    table: "neon-dotprod",
    int8: loops!(
        "sdot",
        dot,
        16,
        [8, 12, 16, 24],
        is_aarch64_feature_detected!("dotprod")
    ),
    f32: F32,
    fma: FMA,
};

pub(super) const I8MM: Peak = Peak {
    table: "neon-i8mm",
    int8: loops!(
        "smmla",
        matrix,
        32,
        [8, 12, 16, 24],
        is_aarch64_feature_detected!("i8mm")
    ),
    f32: F32,
    fma: FMA,
};

const F32: Loops = loops!("fmul and fadd", unfused, 4, [8, 12, 16, 24], true);
const FMA: Loops = loops!("fmla", fused, 4, [8, 12, 16, 24], true);

/// The same register with contents that the compiler does not know, so that a product of it is
/// computed each time.
macro_rules! opaque {
    ($x:expr) => {{
        let mut x = $x;
        // SAFETY: no instruction at all.
        unsafe { asm!("/* {0:v} */", inout(vreg) x, options(nomem, nostack, preserves_flags)) };
        x
    }};
}

#[target_feature(enable = "neon")]
fn long<const N: usize>() {
    let one = vdupq_n_s8(1);
    accumulate::<N, _>(vdupq_n_s32(0), |sum| {
        let x = opaque!(one);
        smlal(sum, x, x)
    });
}

#[target_feature(enable = "neon,dotprod")]
fn dot<const N: usize>() {
    let one = opaque!(vdupq_n_s8(1));
    accumulate::<N, _>(vdupq_n_s32(0), |sum| sdot(sum, one, one));
}

#[target_feature(enable = "neon,i8mm")]
fn matrix<const N: usize>() {
    let one = opaque!(vdupq_n_s8(1));
    accumulate::<N, _>(vdupq_n_s32(0), |sum| smmla(sum, one, one));
}

#[target_feature(enable = "neon")]
fn unfused<const N: usize>() {
    let one = vdupq_n_f32(1.0);
    accumulate::<N, _>(vdupq_n_f32(0.0), |sum| {
        let x = opaque!(one);
        vaddq_f32(sum, vmulq_f32(x, x))
    });
}

#[target_feature(enable = "neon")]
fn fused<const N: usize>() {
    let one = opaque!(vdupq_n_f32(1.0));
    accumulate::<N, _>(vdupq_n_f32(0.0), |sum| vfmaq_f32(sum, one, one));
}
