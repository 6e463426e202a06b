//! From f16 to f32. The conversion of the crate `half` tests a CPU flag for every value; this one
//! is a few operations without a branch, which compilers vectorize.

use half::f16;

/// Exact, including subnormal numbers.
#[inline(always)]
pub(super) fn f16_to_f32(x: f16) -> f32 {
    let bits = u32::from(x.to_bits());
    let magnitude = (bits & 0x7fff) << 13;
    // Moved by the difference of the two exponent biases, 112.
    let finite = (f32::from_bits(magnitude) * f32::from_bits((112 + 127) << 23)).to_bits();
    let special = magnitude | 0x7f80_0000;
    let magnitude = if bits & 0x7c00 == 0x7c00 {
        special
    } else {
        finite
    };
    f32::from_bits(magnitude | (bits & 0x8000) << 16)
}
