//! Rows of blocks side by side in the lanes of registers: the product of `dense`, written once. An
//! instruction set says how it multiplies ([`Lanes`]).
//!
//! The blocks of `ROWS` rows become a [`Panel`]: lane r of its register c has the codes of columns
//! 4c to 4c + 3 of row r. One token meets each panel as it is made. For more tokens a stretch of
//! panels is kept in the first-level cache, and all tokens pass over it in tiles, whose sums stay
//! in registers.

use super::dense::Checked;

impl<'a, const BYTES: usize> Checked<'a, BYTES> {
    /// The blocks of rows from `first` on. After the last row, that row is repeated.
    #[inline(always)]
    fn rows<const ROWS: usize>(&self, first: usize) -> [&'a [[u8; BYTES]]; ROWS] {
        let mut rows = [self.rows; ROWS];
        for (r, row) in (first..).zip(&mut rows) {
            *row = &self.rows[r.min(self.n - 1) * self.blocks..][..self.blocks];
        }
        rows
    }
}

/// One block of as many rows as a register has lanes.
#[derive(Clone, Copy)]
pub(super) struct Panel<V, F> {
    /// Register c: columns 4c to 4c + 3.
    pub codes: [V; 8],
    pub scales: F,
}

/// How an instruction set multiplies blocks of `BYTES` bytes of `ROWS` rows, each row in its own
/// lane.
///
/// # Safety
/// Every function of this trait may be called only on a CPU that has the instruction set of the
/// implementing type.
pub(super) trait Lanes<const ROWS: usize, const BYTES: usize>: Copy {
    /// A register of codes: four columns of each row.
    type Codes: Copy;
    /// A register of sums of products, before they are scaled.
    type Sums: Copy;
    /// A register of f32, one for each row.
    type Floats: Copy;

    /// Asks for memory that is read some time after the cache line at `at`, an address that need
    /// not be valid.
    unsafe fn prefetch(self, at: *const u8);

    /// Puts one block of each row side by side.
    unsafe fn unpack(self, blocks: [&[u8; BYTES]; ROWS]) -> Panel<Self::Codes, Self::Floats>;

    /// The sums before the first columns of a block whose activations add up to `q_sum`.
    unsafe fn start(self, q_sum: i32) -> Self::Sums;

    /// Adds the products of four columns.
    unsafe fn dot(self, sums: Self::Sums, codes: Self::Codes, q: [i8; 4]) -> Self::Sums;

    /// y + sums · (scales of the rows · scale of the activations).
    unsafe fn add(
        self,
        y: Self::Floats,
        sums: Self::Sums,
        scales: Self::Floats,
        scale: f32,
    ) -> Self::Floats;

    /// Reads one f32 for each row.
    unsafe fn load(self, from: &[f32; ROWS]) -> Self::Floats;

    /// Writes one f32 for each row.
    unsafe fn store(self, floats: Self::Floats, to: &mut [f32; ROWS]);
}

/// Blocks of a stretch that is cached: 18 KiB of panels of 16 rows.
const CACHED: usize = 32;

/// The product in tiles of `ROWS` rows by at most `TOKENS` tokens, eight or four.
///
/// # Safety
/// The CPU has the instruction set of `lanes`; everything is inlined into the caller.
#[inline(always)]
pub(super) unsafe fn product<const ROWS: usize, const TOKENS: usize, const BYTES: usize, L>(
    product: Checked<BYTES>,
    y: &mut [f32],
    lanes: L,
) where
    L: Lanes<ROWS, BYTES>,
{
    const { assert!(TOKENS == 8 || TOKENS == 4) };
    let (blocks, tokens) = (product.blocks, product.x.len() / product.blocks);
    if product.n == 0 || tokens == 0 {
        return;
    }
    // SAFETY: the caller has the instruction set of `lanes`.
    let mut cache = [unsafe { lanes.unpack([&[0; BYTES]; ROWS]) }; CACHED];
    for first in (0..product.n).step_by(ROWS) {
        let rows = product.rows::<ROWS>(first);
        let tile = RowTile {
            product,
            first,
            lanes,
        };
        if tokens == 1 {
            // SAFETY: the caller has the instruction set of `lanes`.
            unsafe { tile.add::<ROWS, 1>(0..blocks, 0, y, |b| panel(rows, b, lanes)) };
            continue;
        }
        for begin in (0..blocks).step_by(CACHED) {
            let stretch = begin..blocks.min(begin + CACHED);
            for (b, cached) in stretch.clone().zip(&mut cache) {
                // SAFETY: the caller has the instruction set of `lanes`.
                *cached = unsafe { panel(rows, b, lanes) };
            }
            let cached = |b: usize| cache[b - begin];
            let mut t = 0;
            while t < tokens {
                let stretch = stretch.clone();
                // SAFETY: the caller has the instruction set of `lanes`.
                t += unsafe {
                    match tokens - t {
                        8.. if TOKENS == 8 => tile.add::<ROWS, 8>(stretch, t, y, cached),
                        4.. => tile.add::<ROWS, 4>(stretch, t, y, cached),
                        2.. => tile.add::<ROWS, 2>(stretch, t, y, cached),
                        _ => tile.add::<ROWS, 1>(stretch, t, y, cached),
                    }
                };
            }
        }
    }
}

/// Block b of some rows, which are neighbours and will be read from front to back.
///
/// # Safety
/// The CPU has the instruction set of `lanes`.
#[inline(always)]
unsafe fn panel<const ROWS: usize, const BYTES: usize, L: Lanes<ROWS, BYTES>>(
    rows: [&[[u8; BYTES]]; ROWS],
    b: usize,
    lanes: L,
) -> Panel<L::Codes, L::Floats> {
    let start: *const u8 = rows[0].as_ptr().cast();
    let mut of_rows = [&[0; BYTES]; ROWS];
    for (block, row) in of_rows.iter_mut().zip(rows) {
        *block = &row[b];
    }
    // SAFETY: the caller has the instruction set of `lanes`.
    unsafe {
        for line in 0..(ROWS * BYTES).div_ceil(64) {
            lanes.prefetch(start.wrapping_add(b * ROWS * BYTES + line * 64));
        }
        lanes.unpack(of_rows)
    }
}

/// The rows from `first` on.
#[derive(Clone, Copy)]
struct RowTile<'a, const BYTES: usize, L> {
    product: Checked<'a, BYTES>,
    first: usize,
    lanes: L,
}

impl<const BYTES: usize, L> RowTile<'_, BYTES, L> {
    /// Adds a stretch of blocks for `TOKENS` tokens from `t` on and returns `TOKENS`; the first
    /// stretch begins at zero.
    ///
    /// # Safety
    /// The CPU has the instruction set of the lanes.
    #[inline(always)]
    unsafe fn add<const ROWS: usize, const TOKENS: usize>(
        self,
        stretch: std::ops::Range<usize>,
        t: usize,
        y: &mut [f32],
        panel: impl Fn(usize) -> Panel<L::Codes, L::Floats>,
    ) -> usize
    where
        L: Lanes<ROWS, BYTES>,
    {
        let lanes = self.lanes;
        let Checked { blocks, n, x, .. } = self.product;
        let there = (n - self.first).min(ROWS);
        // SAFETY: the caller has the instruction set of the lanes.
        unsafe {
            // The sums so far, one register for each token.
            let mut floats = [lanes.load(&[0.0; ROWS]); TOKENS];
            let mut tokens = [x; TOKENS];
            for i in 0..TOKENS {
                tokens[i] = &x[(t + i) * blocks..][stretch.clone()];
                if stretch.start > 0 {
                    let mut before = [0.0; ROWS];
                    before[..there].copy_from_slice(&y[(t + i) * n + self.first..][..there]);
                    floats[i] = lanes.load(&before);
                }
            }
            let count = stretch.len();
            let tokens = tokens.map(|x| &x[..count]);
            for b in 0..count {
                // An exact sum for each token and row, then one addition in f32.
                let Panel { codes, scales } = panel(stretch.start + b);
                let mut sums = [lanes.start(0); TOKENS];
                for (sum, x) in sums.iter_mut().zip(tokens) {
                    *sum = lanes.start(x[b].sum);
                }
                for (c, codes) in codes.into_iter().enumerate() {
                    for (sum, x) in sums.iter_mut().zip(tokens) {
                        *sum = lanes.dot(*sum, codes, x[b].q.as_chunks().0[c]);
                    }
                }
                for i in 0..TOKENS {
                    floats[i] = lanes.add(floats[i], sums[i], scales, tokens[i][b].scale);
                }
            }
            // Lanes after the last row are left out.
            for (i, floats) in floats.into_iter().enumerate() {
                let y = &mut y[(t + i) * n + self.first..][..there];
                let mut after = [0.0; ROWS];
                lanes.store(floats, &mut after);
                y.copy_from_slice(&after[..there]);
            }
        }
        TOKENS
    }
}

/// The bits of the scales of blocks.
#[inline(always)]
pub(super) fn scale_bits<const ROWS: usize, const BYTES: usize>(
    blocks: [&[u8; BYTES]; ROWS],
) -> [u16; ROWS] {
    let mut bits = [0; ROWS];
    for (bits, block) in bits.iter_mut().zip(blocks) {
        *bits = u16::from_le_bytes([block[0], block[1]]);
    }
    bits
}

/// The last columns of a row of numbers, then zeros.
#[inline(always)]
pub(super) fn padded<T: Copy + Default>(last: &[T]) -> [T; 16] {
    let mut padded = [T::default(); 16];
    padded[..last.len()].copy_from_slice(last);
    padded
}
