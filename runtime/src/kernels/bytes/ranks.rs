//! The ranks of [`lut`](super::lut), for registers of 128 and of 256 bits.

/// The ranks of both packings for the target features `$features` and the registers of the module
/// beside this one.
macro_rules! ranks {
    ($features:literal) => {
        use sterna_ternary::packing::BLOCK_BYTES;

        use $crate::kernels::lut::{self, Ranks, Stretch};
        use $crate::kernels::prefetch::prefetch_line;

        use super::registers::*;
        use super::unpack::four_and_fifth;

        pub(in super::super) const I2: Ranks = Ranks {
            units: 4,
            fill: fill_i2,
        };
        pub(in super::super) const T5: Ranks = Ranks {
            units: 5,
            fill: fill_t5,
        };

        #[target_feature(enable = $features)]
        fn fill_i2(stretch: Stretch, to: &mut [u64]) {
            fill_ranks(stretch, to, |rows| ranks_i2(rows));
        }

        #[target_feature(enable = $features)]
        fn fill_t5(stretch: Stretch, to: &mut [u64]) {
            fill_ranks(stretch, to, |rows| ranks_t5(rows));
        }

        /// Makes the ranks of a stretch of blocks: (units, stride), all of them below
        /// [`lut::RANKS`].
        #[target_feature(enable = $features)]
        #[inline]
        fn fill_ranks<const UNITS: usize>(
            stretch: Stretch,
            to: &mut [u64],
            ranks: impl Fn([Bytes; 4]) -> [Bytes; UNITS],
        ) {
            let Stretch {
                packed,
                blocks,
                range,
            } = stretch;
            let rows = packed.len() / blocks;
            /// Rows between a load and the prefetch that runs ahead of it.
            const AHEAD: usize = 16;
            let largest = splat(lut::RANKS as i8 - 1);
            for r in (0..rows).step_by(4) {
                let four: [&[[u8; BLOCK_BYTES]]; 4] = std::array::from_fn(|i| {
                    let row = (r + i).min(rows - 1);
                    &packed[row * blocks..][range.clone()]
                });
                // A stretch of a row is too short for the hardware to see it coming.
                for row in four {
                    for line in (0..range.len() * BLOCK_BYTES).step_by(64) {
                        prefetch_line(row.as_ptr().cast(), AHEAD * blocks * BLOCK_BYTES + line);
                    }
                }
                for b in 0..range.len() {
                    let ranks = ranks(four.map(|row| load(&row[b])));
                    for u in 0..UNITS {
                        let to = &mut to[(b * UNITS + u) * lut::stride(rows) + r..];
                        let to = to
                            .first_chunk_mut()
                            .expect("a stride is longer than the rows");
                        // Nothing changes where `ranks` is right; with this, nothing breaks where
                        // it is not.
                        store(min(ranks[u], largest), to);
                    }
                }
            }
        }

        /// The ranks of a block of four rows of `i2`: of each byte, 27 d₀ + 9 d₁ of the low four
        /// bits and 3 d₂ + d₃ of the high.
        #[target_feature(enable = $features)]
        #[inline]
        fn ranks_i2(rows: [Bytes; 4]) -> [Bytes; 4] {
            // Codes that no packer writes select some entry that exists.
            let low = table([0, 27, 54, 0, 9, 36, 63, 0, 18, 45, 72, 0, 0, 0, 0, 0]);
            let high = table([0, 3, 6, 0, 1, 4, 7, 0, 2, 5, 8, 0, 0, 0, 0, 0]);
            let nibble = splat(15);
            exchange(rows.map(|bytes| {
                add(
                    shuffle(low, and(bytes, nibble)),
                    shuffle(high, and(shift_right::<4>(bytes), nibble)),
                )
            }))
        }

        /// The ranks of a block of four rows of `t5`: four digits of each byte, and the fifth ones
        /// of four bytes.
        #[target_feature(enable = $features)]
        #[inline]
        fn ranks_t5(rows: [Bytes; 4]) -> [Bytes; 5] {
            let [mut first, mut fifth] = [rows; 2];
            for r in 0..4 {
                [first[r], fifth[r]] = four_and_fifth(rows[r]);
            }
            let [a, b, c, d] = exchange(first);
            let [w, x, y, z] = exchange(fifth);
            let three_times_and = |x, y| add(add(x, x), add(x, y));
            let fifth = three_times_and(three_times_and(three_times_and(w, x), y), z);
            [a, b, c, d, fifth]
        }
    };
}

pub(in super::super) use ranks;
