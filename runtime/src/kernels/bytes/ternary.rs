//! Ternary products with `pmaddubsw`, on unsigned digits (trit + 1) and signed activations, for
//! registers of 128 and of 256 bits.
//!
//! Σ trit · q = Σ digit · q − Σ q. A pair of products is at most 2 · 2 · 128 = 512 in magnitude, so
//! 63 of them fit 16 bits for any int8, and 64 reach exactly -32768: sums stay in 16-bit lanes for
//! at most 64 of them, `NARROW_STEPS` steps of 32 columns, and are then widened.
//!
//! One token: some rows at once, so that several streams are read. `i2` leaves every other code at
//! its place, two bits up: its products are four times as large and have sums of their own.
//!
//! A few tokens of `i2`: the digits of one row go straight from their unpacking to the products of
//! up to eight tokens, whose sums stay in registers. The digits of `t5` take longer to unpack:
//! those of four rows go to the first-level cache once for all tokens, and tiles of four rows by
//! two tokens keep their sums in registers.

/// The products for the target features `$features` and the registers of the module beside this
/// one. From `$table_tokens` tokens on, tables of partial sums take less time. One token is
/// multiplied with `$rows` rows at once, four or two: as many as the compiler unrolls.
macro_rules! ternary {
    ($features:literal, table_tokens: $table_tokens:literal, rows: $rows:literal) => {
        use sterna_ternary::Packing;
        use sterna_ternary::packing::BLOCK_BYTES;

        use $crate::kernels::lut::{self, Loops, Ranks};
        use $crate::kernels::prefetch::{Prefetch, prefetch_line};
        use $crate::kernels::shape::{GemmShape, Operands};

        use super::ranks;
        use super::registers::*;
        use super::tables::NEAR;
        use super::unpack::digits_t5;

        /// [`Kernels::gemm_i2`](super::super::Kernels::gemm_i2)
        #[target_feature(enable = $features)]
        pub(super) fn gemm_i2(rows: &[u8], q: &[i8], q_sums: &[i32], sums: &mut [i32]) {
            let operands = Operands::of(Packing::I2, rows, q, q_sums, sums);
            product_i2(operands, sums, NEAR);
        }

        /// The product for `i2`; `loops` are those of `lut` for the instruction set at hand.
        #[target_feature(enable = $features)]
        pub(in super::super) fn product_i2(operands: Operands, sums: &mut [i32], loops: &[Loops]) {
            let (low, high) = (splat(0b11), splat(0b1100));
            if operands.shape.tokens == 1 {
                let add = |[once, four_times]: [Sum; 2], codes: Bytes, q: &[[i8; 32]; 4]| {
                    let upper = shift_right::<4>(codes);
                    let once = add_products(once, and(codes, low), load(&q[0]));
                    let four_times = add_products(four_times, and(codes, high), load(&q[1]));
                    [
                        add_products(once, and(upper, low), load(&q[2])),
                        add_products(four_times, and(upper, high), load(&q[3])),
                    ]
                };
                return gemv::<4, { NARROW_STEPS / 8 }>(operands, sums, add);
            }
            let few = |operands: Operands, sums: &mut [i32]| {
                rows(operands, sums, |codes| digits_i2(codes));
            };
            gemm(operands, sums, TABLE_TOKENS, few, &ranks::I2, loops);
        }

        #[target_feature(enable = $features)]
        #[inline]
        pub(in super::super) fn digits_i2(codes: Bytes) -> [Bytes; 4] {
            let mask = splat(3);
            // What a 16-bit shift carries over is masked.
            [
                and(codes, mask),
                and(shift_right::<2>(codes), mask),
                and(shift_right::<4>(codes), mask),
                and(shift_right::<6>(codes), mask),
            ]
        }

        /// [`Kernels::gemm_t5`](super::super::Kernels::gemm_t5)
        #[target_feature(enable = $features)]
        pub(super) fn gemm_t5(rows: &[u8], q: &[i8], q_sums: &[i32], sums: &mut [i32]) {
            let operands = Operands::of(Packing::T5, rows, q, q_sums, sums);
            product_t5(operands, sums, NEAR);
        }

        /// The product for `t5`; `loops` are those of `lut` for the instruction set at hand.
        #[target_feature(enable = $features)]
        pub(in super::super) fn product_t5(operands: Operands, sums: &mut [i32], loops: &[Loops]) {
            if operands.shape.tokens == 1 {
                let add = |[mut once, unused]: [Sum; 2], bytes: Bytes, q: &[[i8; 32]; 5]| {
                    for (digits, q) in digits_t5(bytes).into_iter().zip(q) {
                        once = add_products(once, digits, load(q));
                    }
                    [once, unused]
                };
                return gemv::<5, { NARROW_STEPS / 5 }>(operands, sums, add);
            }
            let few = |operands: Operands, sums: &mut [i32]| {
                tiles(operands, sums, |bytes| digits_t5(bytes));
            };
            gemm(operands, sums, TABLE_TOKENS - 1, few, &ranks::T5, loops);
        }

        /// Rows that are computed together.
        const ROWS: usize = 4;
        /// Rows between a load and the prefetch that runs ahead of it.
        const AHEAD: usize = 8;

        /// One token. A packing has `STEPS` digits per byte and `add`, which adds the products of a
        /// block to two sums, of digits and of four times digits, whose 16-bit lanes hold `NARROW`
        /// blocks.
        #[target_feature(enable = $features)]
        #[inline]
        fn gemv<const STEPS: usize, const NARROW: usize>(
            operands: Operands,
            sums: &mut [i32],
            add: impl Fn([Sum; 2], Bytes, &[[i8; 32]; STEPS]) -> [Sum; 2] + Copy,
        ) {
            let (shape, q_sum) = (operands.shape, operands.q_sums[0]);
            let (packed, _) = operands.rows.as_chunks::<BLOCK_BYTES>(); // (rows, blocks)
            let (q, _) = operands.q.as_chunks::<32>();
            let (q, _) = q.as_chunks::<STEPS>(); // (blocks, steps)
            let row = |r: usize| &packed[r * shape.blocks..][..shape.blocks];
            let (some, rest) = sums.as_chunks_mut::<$rows>();
            for (i, sums) in some.iter_mut().enumerate() {
                let mut rows = [packed; $rows];
                for (r, to) in rows.iter_mut().enumerate() {
                    *to = row(i * $rows + r);
                }
                *sums = dots::<STEPS, NARROW, $rows>(rows, q, add).map(|sum| sum - q_sum);
            }
            for (i, sum) in rest.iter_mut().enumerate() {
                let [dot] = dots::<STEPS, NARROW, 1>([row(some.len() * $rows + i)], q, add);
                *sum = dot - q_sum;
            }
        }

        /// Σ digit · q of each row.
        #[target_feature(enable = $features)]
        #[inline]
        fn dots<const STEPS: usize, const NARROW: usize, const N: usize>(
            rows: [&[[u8; BLOCK_BYTES]]; N],
            q: &[[[i8; 32]; STEPS]],
            add: impl Fn([Sum; 2], Bytes, &[[i8; 32]; STEPS]) -> [Sum; 2] + Copy,
        ) -> [i32; N] {
            let rows = rows.map(|row| &row[..q.len()]);
            let prefetch = Prefetch::of(N, q.len() * BLOCK_BYTES);
            let mut wide = [zero(); 4]; // four times the sums of N rows
            for first in (0..q.len()).step_by(NARROW) {
                let end = q.len().min(first + NARROW);
                let mut narrow = [[zero(); 2]; N];
                for b in first..end {
                    if N > 1 {
                        for line in (0..N * BLOCK_BYTES).step_by(64) {
                            prefetch.after(rows[0].as_ptr().cast(), b * N * BLOCK_BYTES + line);
                        }
                    }
                    for r in 0..N {
                        narrow[r] = add(narrow[r], load(&rows[r][b]), &q[b]);
                    }
                }
                for (wide, [once, four_times]) in wide.iter_mut().zip(narrow) {
                    *wide = widen(widen(*wide, once, 4), four_times, 1);
                }
            }
            let sums = four_sums(wide);
            std::array::from_fn(|r| sums[r] >> 2)
        }

        /// Fewest rows that are worth a table of partial sums.
        const TABLE_ROWS: usize = 192;
        /// Fewest tokens that are: one less for `t5`, whose digits take longer to unpack.
        pub(in super::super) const TABLE_TOKENS: usize = $table_tokens;
        /// Most tokens, beyond those of short entries, that take less time without a longer entry.
        const MORE_TOKENS: usize = 7;

        /// How many of the tokens tables compute: those of whole entries, and the rest if it has as
        /// many as `fewest`.
        pub(in super::super) fn tokens_for_tables(
            shape: GemmShape,
            loops: &[Loops],
            fewest: usize,
        ) -> usize {
            let [short, long] = [0, loops.len() - 1].map(|i| loops[i].tokens);
            let rest = shape.tokens % long;
            let whole = shape.tokens - rest;
            match rest {
                _ if shape.rows < TABLE_ROWS => 0,
                _ if rest < fewest => whole,
                _ if (short + 1..=short + MORE_TOKENS).contains(&rest) => whole + short,
                _ => shape.tokens,
            }
        }

        /// Several tokens: by tables from `fewest` on, and by `few` where there are less.
        #[target_feature(enable = $features)]
        #[inline]
        fn gemm(
            operands: Operands,
            sums: &mut [i32],
            fewest: usize,
            few: impl Fn(Operands, &mut [i32]),
            ranks: &Ranks,
            loops: &[Loops],
        ) {
            let tokens = tokens_for_tables(operands.shape, loops, fewest);
            let (sums, rest_sums) = sums.split_at_mut(operands.shape.rows * tokens);
            let [operands, rest] = operands.split_at(tokens);
            if tokens > 0 {
                // SAFETY: a table of kernels has loops and ranks that its CPUs run.
                unsafe { lut::gemm(operands, sums, ranks, loops, None) };
            }
            if rest.shape.tokens > 0 {
                few(rest, rest_sums);
            }
        }

        /// A few tokens of a packing whose digits take long to unpack: [`NARROW_STEPS`] steps of
        /// four rows are unpacked, then all tokens pass over them by twos.
        #[target_feature(enable = $features)]
        #[inline]
        fn tiles<const STEPS: usize>(
            operands: Operands,
            sums: &mut [i32],
            unpack: impl Fn(Bytes) -> [Bytes; STEPS] + Copy,
        ) {
            let Operands {
                shape,
                rows,
                q,
                q_sums,
            } = operands;
            let GemmShape {
                tokens,
                rows: n,
                blocks,
            } = shape;
            for (sums, q_sum) in sums.chunks_exact_mut(n).zip(q_sums) {
                sums.fill(-q_sum);
            }
            let (packed, _) = rows.as_chunks::<BLOCK_BYTES>(); // (rows, blocks)
            let (q, _) = q.as_chunks::<32>(); // (tokens, steps)
            let steps = blocks * STEPS;
            let mut digits = [[splat(0); NARROW_STEPS]; ROWS];
            for first in (0..n).step_by(ROWS) {
                let rows = ROWS.min(n - first);
                for first_block in (0..blocks).step_by(NARROW_STEPS / STEPS) {
                    let end = blocks.min(first_block + NARROW_STEPS / STEPS);
                    for r in 0..rows {
                        let row = &packed[(first + r) * blocks..][first_block..end];
                        for (b, packed) in row.iter().enumerate() {
                            digits[r][b * STEPS..][..STEPS].copy_from_slice(&unpack(load(packed)));
                        }
                    }
                    let token = |t: usize| &q[t * steps..][first_block * STEPS..end * STEPS];
                    for t in (0..tokens).step_by(2) {
                        let second = (t + 1).min(tokens - 1);
                        let tile = tile(&digits, token(t), token(second));
                        for (t, tile) in [t, second].iter().zip(tile).take(tokens - t) {
                            let sums = &mut sums[t * n + first..][..rows];
                            for (sum, dot) in sums.iter_mut().zip(tile) {
                                *sum += dot;
                            }
                        }
                    }
                }
            }
        }

        /// Σ digit · q for four rows and two tokens over at most [`NARROW_STEPS`] steps.
        #[target_feature(enable = $features)]
        #[inline]
        fn tile(
            digits: &[[Bytes; NARROW_STEPS]; ROWS],
            q0: &[[i8; 32]],
            q1: &[[i8; 32]],
        ) -> [[i32; ROWS]; 2] {
            let steps = q0.len().min(q1.len()).min(NARROW_STEPS);
            let mut narrow = [[zero(); ROWS]; 2];
            for i in 0..steps {
                let q = [load(&q0[i]), load(&q1[i])];
                for r in 0..ROWS {
                    for t in 0..2 {
                        narrow[t][r] = add_products(narrow[t][r], digits[r][i], q[t]);
                    }
                }
            }
            let mut sums = [[0; ROWS]; 2];
            for t in 0..2 {
                let mut wide = [zero(); ROWS];
                for r in 0..ROWS {
                    wide[r] = widen(zero(), narrow[t][r], 1);
                }
                sums[t] = four_sums(wide);
            }
            sums
        }

        /// Most tokens that meet the digits of a row together.
        const TOKENS: usize = 8;
        /// Steps of all these tokens that the first-level cache holds beside some rows: 28 KiB.
        const NEAR_STEPS: usize = 28 << 5;

        /// A few tokens of a packing whose digits are quickly unpacked, in the fewest tiles of at
        /// most [`TOKENS`].
        #[target_feature(enable = $features)]
        #[inline]
        fn rows<const STEPS: usize>(
            operands: Operands,
            sums: &mut [i32],
            unpack: impl Fn(Bytes) -> [Bytes; STEPS] + Copy,
        ) {
            let shape = operands.shape;
            let tiles = shape.tokens.div_ceil(TOKENS);
            let of_tile = shape.tokens.div_ceil(tiles);
            let q = operands.q.chunks(operands.q.len() / shape.tokens * of_tile);
            let of_tiles = q.zip(operands.q_sums.chunks(of_tile));
            for ((q, q_sums), sums) in of_tiles.zip(sums.chunks_mut(of_tile * shape.rows)) {
                let tile = Operands {
                    shape: GemmShape {
                        tokens: q_sums.len(),
                        ..shape
                    },
                    q,
                    q_sums,
                    ..operands
                };
                match q_sums.len() {
                    1 => row_tile::<1, STEPS>(tile, sums, unpack),
                    2 => row_tile::<2, STEPS>(tile, sums, unpack),
                    3 => row_tile::<3, STEPS>(tile, sums, unpack),
                    4 => row_tile::<4, STEPS>(tile, sums, unpack),
                    5 => row_tile::<5, STEPS>(tile, sums, unpack),
                    6 => row_tile::<6, STEPS>(tile, sums, unpack),
                    7 => row_tile::<7, STEPS>(tile, sums, unpack),
                    _ => row_tile::<TOKENS, STEPS>(tile, sums, unpack),
                }
            }
        }

        /// `T` tokens. Digits go from their unpacking to the products of all tokens, whose sums
        /// stay in registers while 16-bit lanes hold them. All rows meet the activations of as many
        /// columns, which are in the first-level cache, before the next columns.
        #[target_feature(enable = $features)]
        #[inline]
        fn row_tile<const T: usize, const STEPS: usize>(
            operands: Operands,
            sums: &mut [i32],
            unpack: impl Fn(Bytes) -> [Bytes; STEPS],
        ) {
            let GemmShape { rows, blocks, .. } = operands.shape;
            let (packed, _) = operands.rows.as_chunks::<BLOCK_BYTES>(); // (rows, blocks)
            let (q, _) = operands.q.as_chunks::<32>().0.as_chunks::<STEPS>(); // (tokens, blocks)
            for (sums, q_sum) in sums.chunks_exact_mut(rows).zip(operands.q_sums) {
                sums.fill(-q_sum);
            }
            // As many columns as the activations of all tokens leave in the first-level cache.
            let narrow_blocks = NARROW_STEPS / STEPS;
            let stretch = (NEAR_STEPS / T / NARROW_STEPS).max(1) * narrow_blocks;
            for first in (0..blocks).step_by(stretch) {
                let end = blocks.min(first + stretch);
                let q: [_; T] = std::array::from_fn(|t| &q[t * blocks..][first..end]);
                for (r, row) in packed.chunks_exact(blocks).enumerate() {
                    let row = &row[first..end];
                    let mut wide = [zero(); TOKENS];
                    for first in (0..row.len()).step_by(narrow_blocks) {
                        let mut narrow = [zero(); T];
                        for b in first..row.len().min(first + narrow_blocks) {
                            prefetch_line(row[b].as_ptr(), AHEAD * blocks * BLOCK_BYTES);
                            let digits = unpack(load(&row[b]));
                            for t in 0..T {
                                for (digits, q) in digits.into_iter().zip(&q[t][b]) {
                                    narrow[t] = add_products(narrow[t], digits, load(q));
                                }
                            }
                        }
                        for (wide, narrow) in wide.iter_mut().zip(narrow) {
                            *wide = widen(*wide, narrow, 1);
                        }
                    }
                    let [a, b, c, d, e, f, g, h] = wide;
                    let dots = [four_sums([a, b, c, d]), four_sums([e, f, g, h])];
                    for (t, dot) in dots.as_flattened()[..T].iter().enumerate() {
                        sums[t * rows + r] += dot;
                    }
                }
            }
        }
    };
}

pub(in super::super) use ternary;
