//! Planes of coded tables: `pmaddubsw` of unsigned digits h with both bytes of the activations.
//!
//! Σ (2h − 15) q = 2 Σ h q − 15 Σ q. The sums of q over groups are known, so the second term takes
//! one `pmaddwd` for sixteen groups. 16-bit lanes hold at most 15 · 128 · 16 = 30720 in magnitude,
//! those of registers of 256 bits half of that.
//! The multiplier of the group takes the place of the ones with which `pmaddwd` widens.
//!
//! The digits of a group of one row are unpacked once for four tokens. These meet all rows, mostly
//! from the second-level cache, before the next four, so that activations stay in the first-level
//! one.

/// The planes for the target features `$features` and the registers of the module beside this one.
macro_rules! codes {
    ($features:literal) => {
        use $crate::kernels::codes::{Int16, PlaneProduct};
        use $crate::kernels::prefetch::Prefetch;

        use super::registers::*;

        /// Most tokens that are computed together.
        const TOKENS: usize = 4;

        #[target_feature(enable = $features)]
        pub(in super::super) fn plane4(product: PlaneProduct, sums: &mut [i64]) {
            let nibble = splat(15);
            let digits = |bytes: &[u8; 64]| {
                let (halves, _) = bytes.as_chunks::<32>();
                let (first, second) = (load(&halves[0]), load(&halves[1]));
                [
                    and(first, nibble),
                    and(shift_right::<4>(first), nibble),
                    and(second, nibble),
                    and(shift_right::<4>(second), nibble),
                ]
            };
            match product.x[0].is_high() {
                true => plane::<64, 15, 1>(product, sums, digits),
                false => plane::<64, 15, 2>(product, sums, digits),
            }
        }

        #[target_feature(enable = $features)]
        pub(in super::super) fn plane2(product: PlaneProduct, sums: &mut [i64]) {
            let low = splat(3);
            let digits = |bytes: &[u8; 32]| {
                // What a 16-bit shift carries over is masked.
                let bytes = load(bytes);
                [
                    and(bytes, low),
                    and(shift_right::<2>(bytes), low),
                    and(shift_right::<4>(bytes), low),
                    and(shift_right::<6>(bytes), low),
                ]
            };
            plane::<32, 3, 1>(product, sums, digits);
        }

        /// `LARGEST` is the largest odd digit, `PARTS` how many bytes of the activations count.
        #[target_feature(enable = $features)]
        #[inline]
        fn plane<const BYTES: usize, const LARGEST: i64, const PARTS: usize>(
            product: PlaneProduct,
            sums: &mut [i64],
            digits: impl Fn(&[u8; BYTES]) -> [Bytes; 4] + Copy,
        ) {
            let (bytes, n) = product.checked::<BYTES>(sums);
            if n == 0 {
                return;
            }
            let tiles = sums.chunks_mut(TOKENS * n).zip(product.x.chunks(TOKENS));
            for (i, (sums, x)) in tiles.enumerate() {
                let tile = Tile {
                    x,
                    bytes,
                    multipliers: product.multipliers,
                    weight: product.weight,
                    prefetches: i == 0,
                };
                match x.len() {
                    1 => tile.rows::<LARGEST, PARTS, 1>(sums, digits),
                    2 => tile.rows::<LARGEST, PARTS, 2>(sums, digits),
                    3 => tile.rows::<LARGEST, PARTS, 3>(sums, digits),
                    _ => tile.rows::<LARGEST, PARTS, TOKENS>(sums, digits),
                }
            }
        }

        /// Some tokens with all rows.
        struct Tile<'a, const BYTES: usize> {
            x: &'a [Int16],
            bytes: &'a [[u8; BYTES]], // (rows, groups)
            multipliers: &'a [u8],    // (rows, groups)
            weight: i64,
            /// Whether these tokens are the first to read the rows.
            prefetches: bool,
        }

        impl<const BYTES: usize> Tile<'_, BYTES> {
            /// Adds the products to sums (T tokens, rows).
            #[target_feature(enable = $features)]
            #[inline]
            fn rows<const LARGEST: i64, const PARTS: usize, const T: usize>(
                &self,
                sums: &mut [i64],
                digits: impl Fn(&[u8; BYTES]) -> [Bytes; 4],
            ) {
                let (groups, n) = (self.x[0].groups(), sums.len() / T);
                let prefetch = Prefetch::of(1, 0);
                let x: [&Int16; T] = std::array::from_fn(|t| &self.x[t]);
                let q: [[_; PARTS]; T] =
                    x.map(|x| std::array::from_fn(|part| &[&x.high, &x.low][part][..groups]));
                let sixteens = groups.div_ceil(16);
                let group_sums: [[_; PARTS]; T] =
                    x.map(|x| std::array::from_fn(|part| &x.group_sums[part][..sixteens]));
                let rows = self.bytes.chunks_exact(groups);
                let rows = rows.zip(self.multipliers.chunks_exact(groups));
                for (r, (row, multipliers)) in rows.enumerate() {
                    let mut wide = [[zero(); PARTS]; T];
                    for (g, (bytes, multiplier)) in row.iter().zip(multipliers).enumerate() {
                        if self.prefetches && (g * BYTES).is_multiple_of(64) {
                            prefetch.after(bytes.as_ptr(), 0);
                        }
                        let digits = digits(bytes);
                        let multiplier = i16::from(*multiplier);
                        for t in 0..T {
                            for part in 0..PARTS {
                                let (q, _) = q[t][part][g].as_chunks::<32>();
                                let mut narrow = zero();
                                for (digits, q) in digits.into_iter().zip(q) {
                                    narrow = add_products(narrow, digits, load(q));
                                }
                                wide[t][part] = widen(wide[t][part], narrow, multiplier);
                            }
                        }
                    }
                    let mut free = [[zero(); PARTS]; T]; // Σ multiplier · Σ q
                    for (i, multipliers) in multipliers.chunks(16).enumerate() {
                        let mut sixteen = [0; 16];
                        sixteen[..multipliers.len()].copy_from_slice(multipliers);
                        let multipliers = numbers(sixteen);
                        for t in 0..T {
                            for part in 0..PARTS {
                                let sums: &[i8; 32] = bytemuck::cast_ref(&group_sums[t][part][i]);
                                free[t][part] = add_pairs(free[t][part], load(sums), multipliers);
                            }
                        }
                    }
                    for t in 0..T {
                        let mut sum = 0;
                        for part in 0..PARTS {
                            let wide = horizontal(wide[t][part]);
                            let free = horizontal(free[t][part]);
                            sum += [256, 1][part] * (2 * wide - LARGEST * free);
                        }
                        sums[t * n + r] += self.weight * sum;
                    }
                }
            }
        }
    };
}

pub(in super::super) use codes;
