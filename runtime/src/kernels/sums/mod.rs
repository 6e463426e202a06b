//! Sums of as many tokens as an entry of a table of [`lut`](super::lut) has, in registers.

#[cfg(target_arch = "aarch64")]
mod arm;
#[cfg(target_arch = "x86_64")]
mod x86;

#[cfg(target_arch = "aarch64")]
pub(super) use arm::{Sixteen, four_by_four, interleave, load_eight, no_bytes, upper_half};
#[cfg(target_arch = "x86_64")]
pub(super) use x86::{Sixteen, four_by_four, interleave, load_eight, no_bytes, upper_half};

/// One 16-bit number for each token of an entry, in registers.
///
/// # Safety
/// Every function of this trait may be called only on a CPU that has the instruction set of the
/// implementing type: SSE2 or NEON for registers of 128 bits, AVX2 for those of 256, AVX-512 F and
/// BW for those of 512. Addresses are aligned to 16 bytes.
pub(super) trait Sums: Copy {
    /// Tokens of an entry: 16 or 32, or 8 in a part of it.
    const TOKENS: usize;

    /// All sums zero.
    unsafe fn zero() -> Self;
    /// The bytes of the first and of the last 16 tokens, as 16-bit numbers.
    unsafe fn widen(bytes: [Sixteen; 2]) -> Self;
    /// Reads the sums of an entry.
    unsafe fn load(from: *const i16) -> Self;
    /// Writes the sums of an entry.
    unsafe fn store(self, to: *mut i16);
    /// The sums of lanes, modulo 2¹⁶.
    unsafe fn add(self, other: Self) -> Self;
    /// The differences of lanes, modulo 2¹⁶.
    unsafe fn sub(self, other: Self) -> Self;
    /// Adds the lanes to as many 32-bit sums.
    unsafe fn add_to(self, to: *mut i32);
    /// Adds the lanes, as f32 times `scale`, to as many sums in f32.
    unsafe fn add_scaled_to(self, scale: f32, to: *mut f32);
}

/// Two registers, or twice as many.
impl<S: Sums> Sums for [S; 2] {
    const TOKENS: usize = 2 * S::TOKENS;

    #[inline(always)]
    unsafe fn zero() -> Self {
        // SAFETY: the caller has the instruction set, as the trait demands.
        unsafe { [S::zero(); 2] }
    }

    #[inline(always)]
    unsafe fn widen([a, b]: [Sixteen; 2]) -> Self {
        let second = match S::TOKENS {
            8 => upper_half(a),
            _ => b,
        };
        // SAFETY: the caller has the instruction set, as the trait demands.
        unsafe { [S::widen([a, a]), S::widen([second, second])] }
    }

    #[inline(always)]
    unsafe fn load(from: *const i16) -> Self {
        // SAFETY: the caller has the instruction set and gives a whole entry.
        unsafe { [S::load(from), S::load(from.add(S::TOKENS))] }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut i16) {
        // SAFETY: the caller has the instruction set and gives a whole entry.
        unsafe {
            self[0].store(to);
            self[1].store(to.add(S::TOKENS));
        }
    }

    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        // SAFETY: the caller has the instruction set, as the trait demands.
        unsafe { [self[0].add(other[0]), self[1].add(other[1])] }
    }

    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        // SAFETY: the caller has the instruction set, as the trait demands.
        unsafe { [self[0].sub(other[0]), self[1].sub(other[1])] }
    }

    #[inline(always)]
    unsafe fn add_to(self, to: *mut i32) {
        // SAFETY: the caller has the instruction set and gives as many sums.
        unsafe {
            self[0].add_to(to);
            self[1].add_to(to.add(S::TOKENS));
        }
    }

    #[inline(always)]
    unsafe fn add_scaled_to(self, scale: f32, to: *mut f32) {
        // SAFETY: the caller has the instruction set and gives as many sums.
        unsafe {
            self[0].add_scaled_to(scale, to);
            self[1].add_scaled_to(scale, to.add(S::TOKENS));
        }
    }
}
