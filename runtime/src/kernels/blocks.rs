//! Rows of blocks side by side in the lanes of registers: the product of `dense`, written once; an instruction set says
//! how it multiplies ([`Lanes`]).
//!
//! The blocks of `ROWS` rows become a [`Panel`]: lane r of its register c has the codes of columns 4c to 4c + 3 of row r.
//! One token meets each panel as it is made. For more tokens a stretch of panels is kept in the first-level cache, and all
//! tokens pass over it in tiles, whose sums stay in registers.

use super::dense::Checked;

impl<'a, const BYTES: usize> Checked<'a, BYTES> {
    /// The blocks of rows from `first` on; behind the last row it is repeated.
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

/// How an instruction set multiplies `ROWS` rows. `V` are codes, `I` sums of their products, `F` floats.
#[derive(Clone, Copy)]
pub(super) struct Lanes<Prefetch, Unpack, Start, Dot, Add, Load, Store> {
    /// Asks for the cache line at an address, which need not be valid.
    pub prefetch: Prefetch,
    /// Blocks to a panel.
    pub unpack: Unpack,
    /// The sums before the first columns, given Σ q.
    pub start: Start,
    /// Adds the products of four columns.
    pub dot: Dot,
    /// Adds to floats the sums times scales of rows and of activations.
    pub add: Add,
    pub load: Load,
    pub store: Store,
}

/// Blocks of a stretch that is cached: 18 KiB of panels of 16 rows.
const CACHED: usize = 32;

/// The product in tiles of `ROWS` rows by at most `TOKENS` tokens, eight or four.
#[inline(always)]
pub(super) fn product<const ROWS: usize, const TOKENS: usize, const BYTES: usize, V, I, F>(
    product: Checked<BYTES>,
    y: &mut [f32],
    lanes: Lanes<
        impl Fn(*const u8) + Copy,
        impl Fn([&[u8; BYTES]; ROWS]) -> Panel<V, F> + Copy,
        impl Fn(i32) -> I + Copy,
        impl Fn(I, V, [i8; 4]) -> I + Copy,
        impl Fn(F, I, F, f32) -> F + Copy,
        impl Fn(&[f32; ROWS]) -> F + Copy,
        impl Fn(F, &mut [f32; ROWS]) + Copy,
    >,
) where
    V: Copy,
    I: Copy,
    F: Copy,
{
    const { assert!(TOKENS == 8 || TOKENS == 4) };
    let (blocks, tokens) = (product.blocks, product.x.len() / product.blocks);
    if product.n == 0 || tokens == 0 {
        return;
    }
    let mut cache = [(lanes.unpack)([&[0; BYTES]; ROWS]); CACHED];
    for first in (0..product.n).step_by(ROWS) {
        let rows = product.rows::<ROWS>(first);
        let tile = Tile { product, first };
        if tokens == 1 {
            let panel = |b| panel(rows, b, lanes.prefetch, lanes.unpack);
            tile.add::<ROWS, 1, V, I, F>(0..blocks, 0, y, lanes, panel);
            continue;
        }
        for begin in (0..blocks).step_by(CACHED) {
            let stretch = begin..blocks.min(begin + CACHED);
            for (b, cached) in stretch.clone().zip(&mut cache) {
                *cached = panel(rows, b, lanes.prefetch, lanes.unpack);
            }
            let cached = |b: usize| cache[b - begin];
            let mut t = 0;
            while t < tokens {
                let stretch = stretch.clone();
                t += match tokens - t {
                    8.. if TOKENS == 8 => {
                        tile.add::<ROWS, 8, V, I, F>(stretch, t, y, lanes, cached)
                    }
                    4.. => tile.add::<ROWS, 4, V, I, F>(stretch, t, y, lanes, cached),
                    2.. => tile.add::<ROWS, 2, V, I, F>(stretch, t, y, lanes, cached),
                    _ => tile.add::<ROWS, 1, V, I, F>(stretch, t, y, lanes, cached),
                };
            }
        }
    }
}

/// Block b of some rows, which are neighbours and will be read from front to back.
#[inline(always)]
fn panel<const ROWS: usize, const BYTES: usize, P>(
    rows: [&[[u8; BYTES]]; ROWS],
    b: usize,
    prefetch: impl Fn(*const u8),
    unpack: impl Fn([&[u8; BYTES]; ROWS]) -> P,
) -> P {
    let start: *const u8 = rows[0].as_ptr().cast();
    for line in 0..(ROWS * BYTES).div_ceil(64) {
        prefetch(start.wrapping_add(b * ROWS * BYTES + line * 64));
    }
    let mut of_rows = [&[0; BYTES]; ROWS];
    for (block, row) in of_rows.iter_mut().zip(rows) {
        *block = &row[b];
    }
    unpack(of_rows)
}

/// The rows from `first` on.
#[derive(Clone, Copy)]
struct Tile<'a, const BYTES: usize> {
    product: Checked<'a, BYTES>,
    first: usize,
}

impl<const BYTES: usize> Tile<'_, BYTES> {
    /// Adds a stretch of blocks for `TOKENS` tokens from `t` on and returns `TOKENS`; the first stretch begins at zero.
    #[inline(always)]
    fn add<const ROWS: usize, const TOKENS: usize, V: Copy, I: Copy, F: Copy>(
        self,
        stretch: std::ops::Range<usize>,
        t: usize,
        y: &mut [f32],
        lanes: Lanes<
            impl Fn(*const u8) + Copy,
            impl Fn([&[u8; BYTES]; ROWS]) -> Panel<V, F> + Copy,
            impl Fn(i32) -> I + Copy,
            impl Fn(I, V, [i8; 4]) -> I + Copy,
            impl Fn(F, I, F, f32) -> F + Copy,
            impl Fn(&[f32; ROWS]) -> F + Copy,
            impl Fn(F, &mut [f32; ROWS]) + Copy,
        >,
        panel: impl Fn(usize) -> Panel<V, F>,
    ) -> usize {
        let Checked { blocks, n, x, .. } = self.product;
        let there = (n - self.first).min(ROWS);
        let mut floats = [(lanes.load)(&[0.0; ROWS]); TOKENS];
        let mut tokens = [x; TOKENS];
        for i in 0..TOKENS {
            tokens[i] = &x[(t + i) * blocks..][stretch.clone()];
            if stretch.start > 0 {
                let mut before = [0.0; ROWS];
                before[..there].copy_from_slice(&y[(t + i) * n + self.first..][..there]);
                floats[i] = (lanes.load)(&before);
            }
        }
        let count = stretch.len();
        let tokens = tokens.map(|x| &x[..count]);
        for b in 0..count {
            let Panel { codes, scales } = panel(stretch.start + b);
            let mut sums = [(lanes.start)(0); TOKENS];
            for (sum, x) in sums.iter_mut().zip(tokens) {
                *sum = (lanes.start)(x[b].sum);
            }
            for (c, codes) in codes.into_iter().enumerate() {
                for (sum, x) in sums.iter_mut().zip(tokens) {
                    *sum = (lanes.dot)(*sum, codes, x[b].q.as_chunks().0[c]);
                }
            }
            for i in 0..TOKENS {
                floats[i] = (lanes.add)(floats[i], sums[i], scales, tokens[i][b].scale);
            }
        }
        for (i, floats) in floats.into_iter().enumerate() {
            let y = &mut y[(t + i) * n + self.first..][..there];
            let mut after = [0.0; ROWS];
            (lanes.store)(floats, &mut after);
            y.copy_from_slice(&after[..there]);
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
