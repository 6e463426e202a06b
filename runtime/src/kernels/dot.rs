//! The ternary products of CPUs that add products of bytes to 32-bit lanes, written once.
//!
//! An instruction set says how it turns packed bytes into values ([`Unpack`]) and how it multiplies
//! ([`Multiply`]). A step is 32 columns, in one register or two, whatever `V` is. Closures keep the
//! target features of the function that makes them, and everything here is inlined into that
//! function.
//!
//! One token: four rows at once, so that each load of activations serves four rows. More tokens,
//! where rows are not in lanes ([`digits`](super::digits)): a stretch of some rows is unpacked into
//! the first-level cache, then all tokens pass over it in tiles of rows by tokens, whose sums stay
//! in registers.

use sterna_ternary::Packing;
use sterna_ternary::packing::BLOCK_BYTES;

use super::shape::GemmShape;
#[cfg(target_arch = "aarch64")]
use super::shape::Operands;

/// The arguments of a [`super::Gemm`], checked.
pub(super) struct Product<'a> {
    shape: GemmShape,
    rows: &'a [[u8; BLOCK_BYTES]], // (rows, blocks)
    q: &'a [[i8; 32]],             // (tokens, steps)
    q_sums: &'a [i32],
    sums: &'a mut [i32],
}

impl<'a> Product<'a> {
    /// # Panics
    /// If the lengths of the arguments disagree.
    pub(super) fn of(
        packing: Packing,
        rows: &'a [u8],
        q: &'a [i8],
        q_sums: &'a [i32],
        sums: &'a mut [i32],
    ) -> Product<'a> {
        Product {
            shape: GemmShape::of(packing, rows, q, q_sums, sums),
            rows: rows.as_chunks().0,
            q: q.as_chunks().0,
            q_sums,
            sums,
        }
    }

    #[cfg(not(target_arch = "x86_64"))]
    pub(super) fn tokens(&self) -> usize {
        self.shape.tokens
    }

    /// The same arguments for products with rows in lanes, and their result.
    #[cfg(target_arch = "aarch64")]
    pub(super) fn into_operands(self) -> (Operands<'a>, &'a mut [i32]) {
        let operands = Operands {
            shape: self.shape,
            rows: self.rows.as_flattened(),
            q: self.q.as_flattened(),
            q_sums: self.q_sums,
        };
        (operands, self.sums)
    }
}

/// A packing of `STEPS` values a byte, each a trit plus `bias`. `start` turns packed bytes into the
/// state of the first step, `step` turns a state into (values of 32 columns, state of the next
/// step).
#[derive(Clone, Copy)]
pub(super) struct Unpack<const STEPS: usize, Start, Step> {
    pub(super) bias: i32,
    pub(super) start: Start,
    pub(super) step: Step,
}

/// How values meet activations: `dot` adds the products of 32 columns to the lanes of its first
/// argument, `sum` adds the lanes.
#[derive(Clone, Copy)]
pub(super) struct Multiply<A, Load, Dot, Sum> {
    pub(super) zero: A,
    pub(super) load: Load,
    pub(super) dot: Dot,
    pub(super) sum: Sum,
}

/// Steps that [`gemm`] unpacks at a time, whole blocks of every packing: four rows are 8 KiB.
#[cfg(target_arch = "wasm32")]
const CACHED_STEPS: usize = 60;
/// Rows that [`gemm`] unpacks at a time.
#[cfg(target_arch = "wasm32")]
const ROWS: usize = 4;

/// The product in tiles of four rows by `TOKENS` tokens.
#[cfg(target_arch = "wasm32")]
#[inline(always)]
pub(super) fn gemm<const TOKENS: usize, const STEPS: usize, S: Copy, V: Copy, A: Copy>(
    product: Product,
    unpack: Unpack<STEPS, impl Fn(&[u8; 32]) -> S + Copy, impl Fn(S) -> (V, S) + Copy>,
    multiply: Multiply<
        A,
        impl Fn(&[i8; 32]) -> V + Copy,
        impl Fn(A, V, V) -> A + Copy,
        impl Fn(A) -> i32 + Copy,
    >,
) {
    const { assert!(CACHED_STEPS.is_multiple_of(STEPS)) };
    if product.tokens() == 1 {
        return gemv(product, unpack, multiply);
    }
    let Product { shape, q, sums, .. } = product;
    let (n, tokens) = (shape.rows, shape.tokens);
    for (sums, q_sum) in sums.chunks_exact_mut(n).zip(product.q_sums) {
        sums.fill(-unpack.bias * q_sum);
    }
    let mut cache = [[(multiply.load)(&[0; 32]); CACHED_STEPS]; ROWS];
    for first_row in (0..n).step_by(ROWS) {
        let rows = ROWS.min(n - first_row);
        for first in (0..shape.blocks).step_by(CACHED_STEPS / STEPS) {
            let end = shape.blocks.min(first + CACHED_STEPS / STEPS);
            for (r, cache) in cache.iter_mut().take(rows).enumerate() {
                let row = &product.rows[(first_row + r) * shape.blocks..][first..end];
                for (packed, cache) in row.iter().zip(cache.as_chunks_mut::<STEPS>().0) {
                    let mut state = (unpack.start)(packed);
                    for values in cache {
                        (*values, state) = (unpack.step)(state);
                    }
                }
            }
            for t in (0..tokens).step_by(TOKENS) {
                let index: [usize; TOKENS] = std::array::from_fn(|i| (t + i).min(tokens - 1));
                let steps = shape.blocks * STEPS;
                let q = index.map(|t| &q[t * steps..][first * STEPS..end * STEPS]);
                let dots = tile(&cache, q, multiply);
                for (t, dots) in index.iter().zip(dots).take(tokens - t) {
                    for (sum, dot) in sums[t * n + first_row..][..rows].iter_mut().zip(dots) {
                        *sum += dot;
                    }
                }
            }
        }
    }
}

/// Σ value · q of the steps in the cache, for some tokens with as many steps.
#[cfg(target_arch = "wasm32")]
#[inline(always)]
fn tile<const TOKENS: usize, V: Copy, A: Copy>(
    values: &[[V; CACHED_STEPS]; ROWS],
    q: [&[[i8; 32]]; TOKENS],
    multiply: Multiply<
        A,
        impl Fn(&[i8; 32]) -> V + Copy,
        impl Fn(A, V, V) -> A + Copy,
        impl Fn(A) -> i32 + Copy,
    >,
) -> [[i32; ROWS]; TOKENS] {
    let steps = q[0].len().min(CACHED_STEPS);
    let q = q.map(|q| &q[..steps]);
    let mut sums = [[multiply.zero; ROWS]; TOKENS];
    for i in 0..steps {
        let q = q.map(|q| (multiply.load)(&q[i]));
        for r in 0..ROWS {
            for t in 0..TOKENS {
                sums[t][r] = (multiply.dot)(sums[t][r], values[r][i], q[t]);
            }
        }
    }
    sums.map(|sums| sums.map(multiply.sum))
}

/// The product with one token.
#[inline(always)]
pub(super) fn gemv<const STEPS: usize, S: Copy, V: Copy, A: Copy>(
    product: Product,
    unpack: Unpack<STEPS, impl Fn(&[u8; 32]) -> S + Copy, impl Fn(S) -> (V, S) + Copy>,
    multiply: Multiply<
        A,
        impl Fn(&[i8; 32]) -> V + Copy,
        impl Fn(A, V, V) -> A + Copy,
        impl Fn(A) -> i32 + Copy,
    >,
) {
    let (q, blocks) = (product.q, product.shape.blocks);
    let row = |r: usize| &product.rows[r * blocks..][..blocks];
    let base = unpack.bias * product.q_sums[0];
    let (fours, rest) = product.sums.as_chunks_mut::<4>();
    for (i, sums) in fours.iter_mut().enumerate() {
        let rows = [0, 1, 2, 3].map(|r| row(i * 4 + r));
        *sums = dots(rows, q, unpack, multiply).map(|sum| sum - base);
    }
    for (i, sum) in rest.iter_mut().enumerate() {
        let [dot] = dots([row(fours.len() * 4 + i)], q, unpack, multiply);
        *sum = dot - base;
    }
}

/// Σ value · q of each row for one token.
#[inline(always)]
fn dots<const N: usize, const STEPS: usize, S: Copy, V: Copy, A: Copy>(
    rows: [&[[u8; BLOCK_BYTES]]; N],
    q: &[[i8; 32]],
    unpack: Unpack<STEPS, impl Fn(&[u8; 32]) -> S + Copy, impl Fn(S) -> (V, S) + Copy>,
    multiply: Multiply<
        A,
        impl Fn(&[i8; 32]) -> V + Copy,
        impl Fn(A, V, V) -> A + Copy,
        impl Fn(A) -> i32 + Copy,
    >,
) -> [i32; N] {
    let (q, _) = q.as_chunks::<STEPS>(); // (blocks, steps)
    let rows = rows.map(|row| &row[..q.len()]);
    let mut sums = [multiply.zero; N];
    let mut states = [(unpack.start)(&[0; 32]); N];
    for (b, q) in q.iter().enumerate() {
        for (state, row) in states.iter_mut().zip(rows) {
            *state = (unpack.start)(&row[b]);
        }
        for q in q {
            let q = (multiply.load)(q);
            for (sum, state) in sums.iter_mut().zip(&mut states) {
                let (values, next) = (unpack.step)(*state);
                *state = next;
                *sum = (multiply.dot)(*sum, values, q);
            }
        }
    }
    sums.map(multiply.sum)
}
