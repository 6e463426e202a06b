//! Products with one scale per group ([`groups`](super::super::groups)): four rows at once, whose
//! sums over a block meet in one register, one lane per row. Many tokens: tables, whose sums are
//! scaled after each block.

/// The product for the target features `$features` and the registers of the module beside this one.
macro_rules! groups {
    ($features:literal) => {
        use $crate::kernels::groups::GroupProduct;
        use $crate::kernels::lut::{self, Loops};
        use $crate::kernels::prefetch::Prefetch;
        use $crate::kernels::shape::{GemmShape, Operands};

        use super::ranks;
        use super::registers::*;
        use super::tables::NEAR;
        use super::ternary::{TABLE_TOKENS, tokens_for_tables};

        /// Rows that are computed together.
        const ROWS: usize = 4;

        #[target_feature(enable = $features)]
        pub(in super::super) fn gemm(product: GroupProduct, y: &mut [f32]) {
            let (tokens, rows) = product.shape(y);
            let done = by_tables(product, y, TABLE_TOKENS, NEAR);
            for first in (0..rows).step_by(ROWS) {
                for t in (done..tokens).step_by(2) {
                    match tokens - t {
                        1 => tile::<1>(product, rows, first, t, y),
                        _ => tile::<2>(product, rows, first, t, y),
                    }
                }
            }
        }

        /// Computes as many of the first tokens by tables as pay for them, and returns how many.
        #[target_feature(enable = $features)]
        pub(in super::super) fn by_tables(
            product: GroupProduct,
            y: &mut [f32],
            fewest: usize,
            loops: &[Loops],
        ) -> usize {
            let (tokens, rows) = product.shape(y);
            let shape = GemmShape {
                tokens,
                rows,
                blocks: product.groups,
            };
            let tokens = tokens_for_tables(shape, loops, fewest);
            if tokens > 0 {
                let operands = Operands {
                    shape: GemmShape { tokens, ..shape },
                    rows: product.rows,
                    q: &product.q[..tokens * product.groups * 128],
                    q_sums: &[], // tables hold sums of trits, which need no Σ q
                };
                let sums = bytemuck::cast_slice_mut(&mut y[..tokens * rows]);
                // SAFETY: a table of kernels has loops and ranks that its CPUs run.
                unsafe { lut::gemm(operands, sums, &ranks::I2, loops, Some(product.scales)) };
            }
            tokens
        }

        /// Some rows with some tokens; y is (all tokens, all rows).
        #[target_feature(enable = $features)]
        fn tile<const TOKENS: usize>(
            product: GroupProduct,
            rows: usize,
            first: usize,
            token: usize,
            y: &mut [f32],
        ) {
            let groups = product.groups;
            let there = (rows - first).min(ROWS);
            let (packed, _) = product.rows.as_chunks::<32>(); // (rows, groups)
            let row = |r: usize| &packed[(first + r.min(there - 1)) * groups..][..groups];
            let packed = [0, 1, 2, 3].map(row);
            let (q, _) = product.q.as_chunks::<32>();
            let (q, _) = q.as_chunks::<4>(); // (tokens, groups)
            let q: [_; TOKENS] = std::array::from_fn(|t| &q[(token + t) * groups..][..groups]);
            let start = packed[0].as_ptr().cast();
            let prefetch = Prefetch::of(ROWS, groups * 32);
            let low = splat(0b11);
            let mut y_sums = [[0f32; ROWS]; TOKENS];
            for g in 0..groups {
                if token == 0 {
                    for line in 0..ROWS / 2 {
                        prefetch.after(start, (g * ROWS / 2 + line) * 64);
                    }
                }
                let mut sums = [[zero(); ROWS]; TOKENS];
                for r in 0..ROWS {
                    let codes = load(&packed[r][g]);
                    // What a 16-bit shift carries over is masked.
                    let digits = [
                        codes,
                        shift_right::<2>(codes),
                        shift_right::<4>(codes),
                        shift_right::<6>(codes),
                    ];
                    for t in 0..TOKENS {
                        let mut narrow = zero();
                        for (digits, q) in digits.into_iter().zip(&q[t][g]) {
                            narrow = add_products(narrow, and(digits, low), load(q));
                        }
                        sums[t][r] = widen(zero(), narrow, 1);
                    }
                }
                let mut scales = [0.0; ROWS];
                scales[..there].copy_from_slice(&product.scales[g * rows + first..][..there]);
                for t in 0..TOKENS {
                    let q_sum = product.q_sums[(token + t) * groups + g];
                    let dots = four_sums(sums[t]);
                    for r in 0..ROWS {
                        y_sums[t][r] += (dots[r] - q_sum) as f32 * scales[r];
                    }
                }
            }
            for (t, y_sums) in y_sums.iter().enumerate() {
                y[(token + t) * rows + first..][..there].copy_from_slice(&y_sums[..there]);
            }
        }
    };
}

pub(in super::super) use groups;
