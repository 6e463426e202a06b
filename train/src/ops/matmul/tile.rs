//! The tile of outputs that stays in registers during a block of k.

use pulp::{NullaryFnOnce, Simd};

/// Rows of the largest tile.
pub(super) const MOST_ROWS: usize = 14;

/// Rows of the left operand where they are: element (r, k) is `data[r * row_stride + k *
/// k_stride]`.
#[derive(Clone, Copy)]
pub(super) struct Rows<'a> {
    pub data: &'a [f32],
    pub row_stride: usize,
    pub k_stride: usize,
}

/// Adds the products of `a` (rows, k) and a panel of `b` (k, columns) to `rows` ≤ `R` rows of
/// `out`, which are `stride` apart. The columns are in `V` registers. `from_zero` ignores what
/// `out` holds.
#[inline(always)]
pub(super) fn tile<S: Simd, const R: usize, const V: usize>(
    simd: S,
    rows: usize,
    (a, b): (Rows, &[f32]),
    out: &mut [f32],
    stride: usize,
    from_zero: bool,
) {
    // A function for each number of rows, so that no row is computed in vain.
    macro_rules! of_rows {
        ($($rows:literal)*) => {
            match rows {
                $($rows if $rows <= R => simd.vectorize(Tile::<S, $rows, V> {
                    simd,
                    a,
                    b,
                    out,
                    stride,
                    from_zero,
                }),)*
                _ => unreachable!("a tile has 1 to {R} rows"),
            }
        };
    }
    of_rows!(1 2 3 4 5 6 7 8 9 10 11 12 13 14)
}

struct Tile<'a, S, const R: usize, const V: usize> {
    simd: S,
    a: Rows<'a>,
    b: &'a [f32],
    out: &'a mut [f32],
    stride: usize,
    from_zero: bool,
}

impl<S: Simd, const R: usize, const V: usize> NullaryFnOnce for Tile<'_, S, R, V> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let Tile {
            simd,
            a,
            out,
            stride,
            ..
        } = self;
        let width = V * S::F32_LANES;
        let mut sums = [[simd.splat_f32s(0.0); V]; R];
        if !self.from_zero {
            for (row, sums) in sums.iter_mut().enumerate() {
                sums.copy_from_slice(S::as_simd_f32s(&out[row * stride..][..width]).0);
            }
        }
        let b = S::as_simd_f32s(self.b).0.as_chunks::<V>().0;
        assert!((R - 1) * a.row_stride + (b.len() - 1) * a.k_stride < a.data.len());
        for (k, b) in b.iter().enumerate() {
            for (row, sums) in sums.iter_mut().enumerate() {
                let at = row * a.row_stride + k * a.k_stride;
                // SAFETY: the assertion above says that the last element is in the slice, and
                // indices grow with row and k.
                #[allow(unsafe_code)]
                let a = simd.splat_f32s(unsafe { *a.data.get_unchecked(at) });
                for (sum, b) in sums.iter_mut().zip(b) {
                    *sum = simd.mul_add_f32s(a, *b, *sum);
                }
            }
        }
        for (row, sums) in sums.iter().enumerate() {
            S::as_mut_simd_f32s(&mut out[row * stride..][..width])
                .0
                .copy_from_slice(sums);
        }
    }
}
