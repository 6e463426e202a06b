//! The digits of `t5`, with the instructions of x86.
//!
//! A byte is an unsigned fraction of 256: nine times it is two digits, 3 d₀ + d₁, in the high byte
//! and the fraction of the next ones in the low byte. So even and odd bytes live in 16-bit lanes,
//! one `pmaddubsw` with 9 steps to the next two digits, and `pshufb` tells the two apart.

/// The digits for the target features `$features` and the registers of the module beside this one.
macro_rules! unpack {
    ($features:literal) => {
        use super::registers::*;

        #[target_feature(enable = $features)]
        #[inline]
        pub(in super::super) fn digits_t5(bytes: Bytes) -> [Bytes; 5] {
            let (nine, three) = (splat_16(9), splat_16(3));
            let first = table([0, 0, 0, 1, 1, 1, 2, 2, 2, 0, 0, 0, 0, 0, 0, 0]);
            let second = table([0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 0, 0, 0, 0, 0, 0]);
            let bytes = xor(bytes, splat(-128));
            let (even, odd) = (maddubs(bytes, nine), maddubs(bytes, splat_16(9 << 8)));
            let two = high_bytes(even, odd);
            let (even, odd) = (maddubs(even, nine), maddubs(odd, nine));
            let next_two = high_bytes(even, odd);
            let (even, odd) = (maddubs(even, three), maddubs(odd, three));
            [
                shuffle(first, two),
                shuffle(second, two),
                shuffle(first, next_two),
                shuffle(second, next_two),
                high_bytes(even, odd),
            ]
        }

        /// With the byte B = ⌈256 v / 243⌉, 81 B is the rank of the first four digits in its high
        /// byte and a fraction in its low byte, of which three times is the fifth digit in the high
        /// byte.
        #[target_feature(enable = $features)]
        #[inline]
        pub(super) fn four_and_fifth(bytes: Bytes) -> [Bytes; 2] {
            let bytes = xor(bytes, splat(-128));
            let (even, odd) = (
                maddubs(bytes, splat_16(81)),
                maddubs(bytes, splat_16(81 << 8)),
            );
            let three = splat_16(3);
            let fifth = high_bytes(maddubs(even, three), maddubs(odd, three));
            [high_bytes(even, odd), fifth]
        }
    };
}

pub(in super::super) use unpack;
