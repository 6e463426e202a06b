//! Products of several tokens with whole codes of a coded table
//! ([`sterna_ternary::table`]): all planes at once, with rows in the lanes of registers.
//!
//! A code is o = 2u − U, where u has the bits of all planes. So the bytes u, which `vpdpbusd` takes
//! as they are, replace the products with each plane. The first plane also meets the low bytes of
//! the activations; its part of u is a mask. Codes of fewer bits stand in the high bits of u: they
//! are 4 or 16 times as large, and so are the sums, until the end.
//!
//! With the activations 256 h + l and the first plane's p = u & 0xf0, a group gives
//!
//!   Σ o (256 h) + Σ (2p − 240) l = 512 Σ u h + 2 Σ p l − (256 U Σ h + 240 Σ l)
//!
//! where the part with l is for tokens with low bytes. The result is below 2³¹, so 32-bit lanes
//! that wrap on the way give it exactly; times its multiplier it is added in 64 bits.
//!
//! A register of rows is unpacked once, all groups of it, and then meets all tokens in tiles. Each
//! token needs 64 `vpdpbusd` for 16 rows of a group; plane by plane it would need 176.

use std::cell::RefCell;
use std::ops::Range;

use sterna_ternary::packing::BLOCK_BYTES;
use sterna_ternary::table::{GROUP, PLANE_BYTES};

use super::codes::{CodeProduct, Int16};
use super::digits::{Dot, Line, MOST_ROWS, part};
use super::prefetch::prefetch_second;

/// Most tokens of a tile. Each has two registers of sums; with more tokens, the addresses of their
/// activations do not fit the registers.
const MOST: usize = 4;
/// U of codes of one, two or three planes, and how many bits they are too large.
pub(super) const LARGEST: [(i32, u32); 3] = [(240, 4), (252, 2), (255, 0)];
/// Steps of four columns in a run of 32 columns.
pub(super) const STEPS: usize = BLOCK_BYTES / 4;
/// Runs of 32 columns in a group.
pub(super) const RUNS: usize = GROUP / BLOCK_BYTES;

/// How an instruction set multiplies whole codes.
///
/// # Safety
/// Every function of this trait may be called only on a CPU that has the instruction set of the
/// implementing type.
pub(super) trait CodeLanes: Dot<Activations = [i8; 4]> {
    /// The codes u of a step of the runs 2 · `half` and 2 · `half` + 1: `four` are its bytes of the
    /// first plane for both, `two` those of the other planes for all runs.
    unsafe fn codes(
        self,
        half: usize,
        four: Self::Register,
        two: [Self::Register; 2],
    ) -> [Self::Register; 2];

    /// u & 0xf0
    unsafe fn first_plane(self, codes: Self::Register) -> Self::Register;

    /// Adds (512 · `high` + 2 · `low` − `constant`) · `multipliers` to 64-bit sums: those of even
    /// rows, then those of odd ones.
    unsafe fn scale(
        self,
        wide: &mut [Self::Register; 2],
        sums: [Self::Register; 2],
        constant: i32,
        multipliers: &[i32; MOST_ROWS],
    );

    /// Writes the 64-bit sums of every other row.
    unsafe fn store_wide(self, wide: Self::Register, to: &mut [i64; MOST_ROWS / 2]);

    /// [`multiply`] in a function of its own, which has all registers for itself.
    unsafe fn multiply<const TOKENS: usize, const LOW: bool>(
        self,
        rows: CodedRows<Self>,
        x: &[Int16; TOKENS],
    ) -> [[Self::Register; 2]; TOKENS];
}

/// All groups of a register of rows.
#[derive(Clone, Copy)]
pub(super) struct CodedRows<'a, L: CodeLanes> {
    /// (groups, steps, runs)
    codes: &'a [[[L::Register; RUNS]; STEPS]],
    multipliers: &'a [[i32; MOST_ROWS]],
    /// U
    largest: i32,
    /// The planes of the rows after these, which the first tile asks for in the order of their
    /// bytes; null for those that need not be read. Addresses need not be valid.
    next: [*const u8; 3],
}

thread_local! {
    static CODES: RefCell<Vec<Line>> = const { RefCell::new(Vec::new()) };
}

/// Adds the products of all tokens with all rows to `sums` (tokens, rows).
///
/// # Safety
/// The CPU has the instruction set of `lanes`; everything is inlined into the caller.
#[inline(always)]
pub(super) unsafe fn product<L: CodeLanes>(product: CodeProduct, sums: &mut [i64], lanes: L) {
    let n = product.checked(sums);
    let (x, groups) = (product.x, product.x[0].groups());
    let (largest, excess) = LARGEST[product.planes.len() - 1];
    // The memory is taken out, since code in a closure would not have the instruction set.
    let mut memory = CODES.take();
    // SAFETY: registers are vectors of integers.
    let codes: &mut [[[L::Register; RUNS]; STEPS]] =
        unsafe { Line::registers(&mut memory, groups) };
    let mut multipliers = vec![[0; MOST_ROWS]; groups];
    for first in (0..n).step_by(L::ROWS) {
        let there = L::ROWS.min(n - first);
        for r in 0..there {
            let of_row = &product.multipliers[(first + r) * groups..][..groups];
            for (to, multiplier) in multipliers.iter_mut().zip(of_row) {
                to[r] = i32::from(*multiplier);
            }
        }
        // SAFETY: the caller has the instruction set.
        unsafe {
            unpack(
                product,
                (n, first),
                0..groups,
                lanes,
                [std::ptr::null(); 3],
                |[g, step, run], register| {
                    codes[g][step][run] = register;
                },
            );
        }
        let mut rows = CodedRows {
            codes,
            multipliers: &multipliers,
            largest,
            next: [std::ptr::null(); 3],
        };
        for (i, (next, plane)) in rows.next.iter_mut().zip(product.planes).enumerate() {
            let start = (first + L::ROWS) * groups * PLANE_BYTES[i];
            *next = plane.as_ptr().wrapping_add(start);
        }
        let mut t = 0;
        while t < x.len() {
            let rest = &x[t..];
            let mut write = |i: usize, wide: [L::Register; 2]| {
                let mut halves = [[0; MOST_ROWS / 2]; 2];
                for (wide, to) in wide.into_iter().zip(&mut halves) {
                    // SAFETY: the caller has the instruction set.
                    unsafe { lanes.store_wide(wide, to) };
                }
                let sums = &mut sums[(t + i) * n + first..][..there];
                for (r, sum) in sums.iter_mut().enumerate() {
                    *sum += product.weight * (halves[r % 2][r / 2] >> excess);
                }
            };
            // SAFETY: the caller has the instruction set.
            t += unsafe {
                match part(rest.len(), MOST) {
                    1 => tile::<1, L>(lanes, rows, rest, &mut write),
                    2 => tile::<2, L>(lanes, rows, rest, &mut write),
                    3 => tile::<3, L>(lanes, rows, rest, &mut write),
                    _ => tile::<MOST, L>(lanes, rows, rest, &mut write),
                }
            };
            rows.next = [std::ptr::null(); 3];
        }
    }
    CODES.set(memory);
}

/// Unpacks some groups of the rows from `first` on and hands the codes of each step of four columns
/// to `write` (group of these, step, run). After the last row, that row is repeated. The planes at
/// `next`, null or not, are prefetched, as many bytes as are read; they need not exist.
///
/// # Safety
/// The CPU has the instruction set of the lanes; everything is inlined into the caller. The product
/// is checked and has `n` rows, more than `first`, and these groups.
#[inline(always)]
pub(super) unsafe fn unpack<L: CodeLanes>(
    product: CodeProduct,
    (n, first): (usize, usize),
    groups: Range<usize>,
    lanes: L,
    next: [*const u8; 3],
    write: impl FnMut([usize; 3], L::Register),
) {
    let last = n - 1 - first;
    // SAFETY: the caller has the instruction set, and every row has as many groups.
    unsafe {
        if last >= L::ROWS - 1 {
            unpack_rows(product, first, |r| r, groups, lanes, next, write);
        } else {
            unpack_rows(product, first, |r| r.min(last), groups, lanes, next, write);
        }
    }
}

/// [`unpack`] of the rows `row(0)` to `row(L::ROWS - 1)` after `first`.
///
/// # Safety
/// That of [`unpack`]; there are these rows and groups.
#[inline(always)]
unsafe fn unpack_rows<L: CodeLanes>(
    product: CodeProduct,
    first: usize,
    row: impl Fn(usize) -> usize,
    groups: Range<usize>,
    lanes: L,
    next: [*const u8; 3],
    mut write: impl FnMut([usize; 3], L::Register),
) {
    let all = product.x[0].groups();
    let start = first * all + groups.start;
    // The bytes of a plane of a row's group, counted from the first row and group.
    let four = product.planes[0].as_ptr().cast::<[[u8; BLOCK_BYTES]; 2]>();
    let two = [1, 2].map(|plane| product.planes.get(plane).map(|bytes| bytes.as_ptr().cast()));
    let ask = |plane: usize, place: usize, bytes: usize| {
        let next: *const u8 = next[plane];
        if !next.is_null() {
            for line in (0..bytes).step_by(64) {
                prefetch_second(next.wrapping_add(place * bytes + line));
            }
        }
    };
    // SAFETY: as the caller promised.
    unsafe {
        for g in 0..groups.len() {
            // No register is stored before it has its codes: stores are what takes longest here.
            let mut bits = [[lanes.start([0; 2]); STEPS]; 2];
            for (i, (bits, two)) in bits.iter_mut().zip(two).enumerate() {
                if let Some(two) = two {
                    let two: *const [u8; BLOCK_BYTES] = two;
                    ask(1 + i, g, L::ROWS * PLANE_BYTES[1]);
                    let steps = lanes.side_by_side(|r| &*two.add(start + row(r) * all + g));
                    for (to, bytes) in bits.iter_mut().zip(steps) {
                        *to = bytes;
                    }
                }
            }
            for half in 0..2 {
                ask(0, 2 * g + half, L::ROWS * PLANE_BYTES[0] / 2);
                let four = lanes.side_by_side(|r| &(*four.add(start + row(r) * all + g))[half]);
                for (step, four) in four.into_iter().enumerate() {
                    let two = [bits[0][step], bits[1][step]];
                    let [first, second] = lanes.codes(half, four, two);
                    write([g, step, 2 * half], first);
                    write([g, step, 2 * half + 1], second);
                }
            }
        }
    }
}

/// Multiplies the first `TOKENS` of `x` and hands the sums of each to `write`. Returns `TOKENS`.
///
/// # Safety
/// The CPU has the instruction set of the lanes.
#[inline(always)]
unsafe fn tile<const TOKENS: usize, L: CodeLanes>(
    lanes: L,
    rows: CodedRows<L>,
    x: &[Int16],
    write: &mut impl FnMut(usize, [L::Register; 2]),
) -> usize {
    let x: &[Int16; TOKENS] = x.first_chunk().expect("no more than there are");
    // SAFETY: the caller has the instruction set.
    let wide = unsafe {
        match x[0].is_high() {
            true => lanes.multiply::<TOKENS, false>(rows, x),
            false => lanes.multiply::<TOKENS, true>(rows, x),
        }
    };
    for (i, wide) in wide.into_iter().enumerate() {
        write(i, wide);
    }
    TOKENS
}

/// The 64-bit sums of `TOKENS` tokens over all groups.
///
/// # Safety
/// The CPU has the instruction set of the lanes; everything is inlined into the caller.
#[inline(always)]
pub(super) unsafe fn multiply<const TOKENS: usize, const LOW: bool, L: CodeLanes>(
    lanes: L,
    rows: CodedRows<L>,
    x: &[Int16; TOKENS],
) -> [[L::Register; 2]; TOKENS] {
    let groups = rows.codes.len();
    let parts = x.each_ref().map(|x| {
        let low = if LOW { &x.low[..groups] } else { &[] };
        [&x.high[..groups], low]
    });
    // SAFETY: the caller has the instruction set, and all parts have as many groups.
    unsafe {
        let zero = lanes.start([0; 2]);
        let mut wide = [[zero; 2]; TOKENS];
        for (g, codes) in rows.codes.iter().enumerate() {
            let mut sums = [[zero; 2]; TOKENS];
            for (step, codes) in codes.iter().enumerate() {
                for (next, bytes) in rows.next.into_iter().zip(PLANE_BYTES) {
                    let lines = L::ROWS * bytes / STEPS;
                    if !next.is_null() {
                        for line in (0..lines).step_by(64) {
                            prefetch_second(next.wrapping_add((g * STEPS + step) * lines + line));
                        }
                    }
                }
                for (run, codes) in codes.iter().enumerate() {
                    let first = lanes.first_plane(*codes);
                    let q = |bytes: &[i8; GROUP]| -> [i8; 4] {
                        bytes.as_chunks().0[run * STEPS + step]
                    };
                    for t in 0..TOKENS {
                        let [high, low] = &mut sums[t];
                        *high = lanes.dot(*high, *codes, q(parts[t][0].get_unchecked(g)));
                        if LOW {
                            *low = lanes.dot(*low, first, q(parts[t][1].get_unchecked(g)));
                        }
                    }
                }
            }
            for t in 0..TOKENS {
                let [high, low] = x[t].group_sums(g);
                let constant = 256 * rows.largest * high + 240 * low;
                lanes.scale(&mut wide[t], sums[t], constant, &rows.multipliers[g]);
            }
        }
        wide
    }
}
