//! Many tokens: one addition in place of four multiply-adds, with tables of partial sums shared by
//! 16 or 32 tokens.
//!
//! Four trits have 81 values. For a *group* of four columns and one token, all 81 sums ±a₀ ±a₁ ±a₂
//! ±a₃ can be tabulated once; then each row of the matrix needs one addition for four weights: of
//! the entry that its four trits select, its *rank* 27 d₀ + 9 d₁ + 3 d₂ + d₃ with d = trit + 1. An
//! entry holds that sum for several tokens, side by side in 16-bit lanes, so one rank serves them
//! all: 32 tokens (64 bytes, one cache line), or 16 where there are no more. Fewer would not pay, as
//! to find an entry takes more time than to add it.
//!
//! Eight groups are a *unit*, 32 columns. While all rows pass over its tables, these stay in the two
//! nearest caches (41 KiB), with 16 tokens in the nearest one (20 KiB). A pass over a unit adds
//! eight entries to each row's running sums. An entry is at most 4 · 128 = 512 in magnitude and a
//! 16-bit lane holds 63 of them, whatever the activations: after seven units (56 groups) the running
//! sums are added to 32-bit sums and start again. The 32-bit sums lie tokens along the vector as
//! well and are transposed at the end. With one scale per group of columns the running sums are
//! scaled and added to sums in f32 instead, after the four units of each block of `i2`.
//!
//! Ranks are made from packed bytes once for some blocks of all rows and for two sets of tables,
//! and are laid out in the order of the passes: for each unit, for each row, eight ranks in a u64.
//! The groups are chosen so that ranks cost little. `i2` has four units per block: group i of unit
//! k is byte 8 k + i, columns 8 k + i + {0, 32, 64, 96}, and two lookups of four bits turn its bits
//! into the rank. `t5` has five: the same four, whose ranks are the byte's first four digits, and
//! one of the 32 fifth digits, where group i is columns 128 + i + {0, 8, 16, 24}.

use std::cell::RefCell;
use std::ops::Range;

use bytemuck::{Pod, Zeroable};
use sterna_ternary::packing::BLOCK_BYTES;

use super::shape::{GemmShape, Operands};
use super::sums::{Sixteen, Sums, four_by_four, interleave, load_eight, no_bytes};

/// Most tokens of a table entry.
const MOST_TOKENS: usize = 32;
/// Groups of a unit.
const GROUPS: usize = 8;
/// Ranks of a group.
pub(super) const RANKS: usize = 81;
/// Units that 16-bit sums hold.
const NARROW_UNITS: usize = 7;
/// Blocks whose ranks are made at a time; the units of this many blocks are a multiple of
/// [`NARROW_UNITS`].
const BLOCKS: usize = 7;
/// Most units of a block.
const BLOCK_UNITS: usize = 5;
/// Most rows that pass over one set of tables.
const ROWS: usize = 2048;
/// Tokens that share one set of ranks.
const SHARING: usize = 128;

/// A cache line of tables or of sums.
#[derive(Clone, Copy)]
#[repr(align(64))]
struct Line(#[allow(dead_code)] [i32; 16]);

// SAFETY: sixteen numbers, for which any bytes are right, without padding.
unsafe impl Zeroable for Line {}
// SAFETY: as above.
unsafe impl Pod for Line {}

/// The two inner loops for one size of entries, compiled for an instruction set.
#[derive(Clone, Copy)]
pub(super) struct Loops {
    /// Tokens of an entry.
    pub tokens: usize,
    /// [`fill_tables`]
    pub fill_tables: unsafe fn(Columns, &mut [i16]),
    /// [`Pass::run`]
    pub run: unsafe fn(Pass),
}

/// The loops for entries of type `$S`, compiled for the target features `$features`.
macro_rules! loops {
    ($features:literal, $S:ty) => {{
        use $crate::kernels::lut::{self, Loops};

        #[target_feature(enable = $features)]
        unsafe fn fill(columns: lut::Columns, tables: &mut [i16]) {
            // SAFETY: this function is compiled for `$features`.
            unsafe { lut::fill_tables::<$S>(columns, tables) }
        }
        #[target_feature(enable = $features)]
        unsafe fn run(pass: lut::Pass) {
            // SAFETY: this function is compiled for `$features`, and its caller has made the ranks.
            unsafe { pass.run::<$S>() }
        }
        Loops {
            tokens: <$S as $crate::kernels::sums::Sums>::TOKENS,
            fill_tables: fill,
            run,
        }
    }};
}
pub(super) use loops;

/// How an instruction set makes the ranks of a packing.
pub(super) struct Ranks {
    /// Units of a block.
    pub units: usize,
    /// Makes the ranks of a stretch: (units, stride), all of them below [`RANKS`].
    pub fill: unsafe fn(Stretch, &mut [u64]),
}

/// Some of the blocks of each row.
pub(super) struct Stretch<'a> {
    /// (rows, blocks)
    pub packed: &'a [[u8; BLOCK_BYTES]],
    pub blocks: usize,
    pub range: Range<usize>,
}

/// Working memory of one thread, 1.8 MB.
#[derive(Default)]
struct Scratch {
    tables: Vec<Line>, // i16 (GROUPS, RANKS, tokens of an entry)
    narrow: Vec<Line>, // i16 (rows, tokens of an entry)
    wide: Vec<Line>,   // i32 (tiles, rows, tokens of an entry)
    ranks: Vec<u64>,   // (units, stride)
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// `sums[t][r] = Σ trit[r][c] · q[t][c]`. With `scales` (blocks, rows) each block's sum is
/// multiplied by its own and the sums are bits of f32.
///
/// # Safety
/// The CPU has the instruction sets of `ranks` and `loops`.
pub(super) unsafe fn gemm(
    operands: Operands,
    sums: &mut [i32],
    ranks: &Ranks,
    loops: &[Loops],
    scales: Option<&[f32]>,
) {
    let widest = loops[loops.len() - 1];
    let Operands { shape, rows, q, .. } = operands;
    // Units whose sums stay in 16 bits.
    let narrow_units = if scales.is_some() {
        ranks.units
    } else {
        NARROW_UNITS
    };
    let GemmShape {
        tokens,
        rows: n,
        blocks,
    } = shape;
    let (packed, _) = rows.as_chunks::<BLOCK_BYTES>(); // (rows, blocks)
    let (q, _) = q.as_chunks::<8>();
    let q_row = q.len() / tokens;
    SCRATCH.with_borrow_mut(|scratch| {
        let zero = Line::zeroed();
        scratch
            .tables
            .resize(GROUPS * RANKS * MOST_TOKENS / 32, zero);
        scratch.narrow.resize(ROWS * MOST_TOKENS / 32, zero);
        scratch.wide.resize(ROWS * SHARING / 16, zero);
        let tables: &mut [i16] = bytemuck::cast_slice_mut(&mut scratch.tables);
        let narrow: &mut [i16] = bytemuck::cast_slice_mut(&mut scratch.narrow);
        let wide: &mut [i32] = bytemuck::cast_slice_mut(&mut scratch.wide);
        let units = BLOCKS * BLOCK_UNITS;
        scratch.ranks.resize(units * stride(ROWS), 0);
        // Equal parts of at most ROWS, whole cache lines of results.
        let part = n.div_ceil(n.div_ceil(ROWS)).next_multiple_of(16);
        for first_row in (0..n).step_by(part) {
            let rows = part.min(n - first_row);
            let packed = &packed[first_row * blocks..][..rows * blocks];
            // Some tiles of tokens share the ranks of a stretch of blocks.
            for shared in (0..tokens).step_by(SHARING) {
                let tiles = || {
                    let tokens = shared..tokens.min(shared + SHARING);
                    let starts = tokens.clone().step_by(widest.tokens);
                    starts.map(move |t| (t, widest.tokens.min(tokens.end - t)))
                };
                wide[..tiles().count() * rows * widest.tokens].fill(0);
                for first in (0..blocks).step_by(BLOCKS) {
                    let range = first..blocks.min(first + BLOCKS);
                    let length = range.len();
                    let stretch = Stretch {
                        packed,
                        blocks,
                        range,
                    };
                    // SAFETY: the caller has the instructions.
                    unsafe { (ranks.fill)(stretch, &mut scratch.ranks) };
                    let of_tiles = wide.chunks_exact_mut(rows * widest.tokens);
                    for ((token, tokens), wide) in tiles().zip(of_tiles) {
                        let loops = fitting(loops, tokens);
                        // Each unit: make its tables, then let all rows pass over them.
                        let units = length * ranks.units;
                        for u in 0..units {
                            // In eights of columns: the first run and the step to the next.
                            let (start, step) = match u % ranks.units {
                                4 => (16, 1),
                                k => (k, 4),
                            };
                            let start = (first + u / ranks.units) * ranks.units * 4 + start;
                            let columns = Columns {
                                q: &q[token * q_row..],
                                q_row,
                                tokens,
                                start,
                                step,
                            };
                            // SAFETY: the caller has the instructions.
                            unsafe { (loops.fill_tables)(columns, tables) };
                            let pass = Pass {
                                tables,
                                ranks: &scratch.ranks[u * stride(rows)..][..rows],
                                narrow: &mut narrow[..rows * loops.tokens],
                                wide: &mut wide[..rows * loops.tokens],
                                first: u % narrow_units == 0,
                                last: u % narrow_units == narrow_units - 1 || u + 1 == units,
                                scales: scales.map(|scales| {
                                    let block = first + u / ranks.units;
                                    &scales[block * n + first_row..][..rows]
                                }),
                            };
                            // SAFETY: the caller has the instructions, and `Ranks::fill` makes no
                            // rank of RANKS or more.
                            unsafe { (loops.run)(pass) };
                        }
                    }
                }
                // The sums (rows, tokens of an entry) become results (tokens, rows).
                let of_tiles = wide.chunks_exact(rows * widest.tokens);
                for ((token, tokens), wide) in tiles().zip(of_tiles) {
                    let width = fitting(loops, tokens).tokens;
                    let sums = &mut sums[token * n + first_row..];
                    transpose(&wide[..rows * width], width, tokens, n, sums);
                }
            }
        }
    });
}

/// The loops with the shortest entries that hold some tokens.
fn fitting(loops: &[Loops], tokens: usize) -> Loops {
    let fitting = loops.iter().find(|loops| loops.tokens >= tokens);
    *fitting.expect("tiles have as many tokens as the longest entries")
}

/// Ranks from those of one unit to those of the next: a little more than the rows, so that the same
/// row of all units does not compete for one place in the caches.
pub(super) fn stride(rows: usize) -> usize {
    rows.next_multiple_of(4) + 8
}

/// One pass of rows over a unit: adds eight entries to each row's running sums.
pub(super) struct Pass<'a> {
    tables: &'a [i16],     // (GROUPS, RANKS, tokens of an entry)
    ranks: &'a [u64],      // (rows)
    narrow: &'a mut [i16], // (rows, tokens of an entry): the running sums
    wide: &'a mut [i32],   // (rows, tokens of an entry): where they go
    /// Running sums start here.
    first: bool,
    /// Running sums are added to the wide sums.
    last: bool,
    /// What they are multiplied by before, (rows); the wide sums are then bits of f32.
    scales: Option<&'a [f32]>,
}

impl Pass<'_> {
    /// # Safety
    /// Every byte of the ranks is below [`RANKS`], and the CPU has the instructions of `S`.
    #[inline(always)]
    pub unsafe fn run<S: Sums>(self) {
        // SAFETY: the caller gives ranks below RANKS and has the instructions of `S`.
        unsafe {
            match (self.first, self.last) {
                (true, true) => self.rows::<S, true, true>(),
                (true, false) => self.rows::<S, true, false>(),
                (false, true) if self.scales.is_some() => self.scaled_rows::<S>(),
                (false, true) => self.rows::<S, false, true>(),
                (false, false) => self.rows::<S, false, false>(),
            }
        }
    }

    /// # Safety
    /// Every byte of the ranks is below [`RANKS`], and the CPU has the instructions of `S`.
    #[inline(always)]
    unsafe fn rows<S: Sums, const FIRST: bool, const LAST: bool>(self) {
        assert!(self.tables.len() >= GROUPS * RANKS * S::TOKENS);
        let narrow = self.narrow.chunks_exact_mut(S::TOKENS);
        let sums = narrow.zip(self.wide.chunks_exact_mut(S::TOKENS));
        for (ranks, (narrow, wide)) in self.ranks.iter().zip(sums) {
            // SAFETY: the caller gives ranks below RANKS and has the instructions of `S`; there are
            // GROUPS · RANKS entries, and sums of as many tokens.
            unsafe {
                let sum = match FIRST {
                    true => S::zero(),
                    false => S::load(narrow.as_ptr()),
                };
                let sum = add_entries(self.tables, *ranks, sum);
                match LAST {
                    true => sum.add_to(wide.as_mut_ptr()),
                    false => sum.store(narrow.as_mut_ptr()),
                }
            }
        }
    }

    /// The last pass over a block whose sums have scales.
    ///
    /// # Safety
    /// Every byte of the ranks is below [`RANKS`], and the CPU has the instructions of `S`.
    #[inline(always)]
    unsafe fn scaled_rows<S: Sums>(self) {
        assert!(self.tables.len() >= GROUPS * RANKS * S::TOKENS);
        let scales = self.scales.unwrap_or_default();
        let narrow = self.narrow.chunks_exact_mut(S::TOKENS);
        let sums = narrow.zip(self.wide.chunks_exact_mut(S::TOKENS));
        for ((ranks, scale), (narrow, wide)) in self.ranks.iter().zip(scales).zip(sums) {
            // SAFETY: the caller gives ranks below RANKS and has the instructions of `S`; there are
            // GROUPS · RANKS entries, and sums of as many tokens.
            unsafe {
                add_entries(self.tables, *ranks, S::load(narrow.as_ptr()))
                    .add_scaled_to(*scale, wide.as_mut_ptr().cast());
            }
        }
    }
}

/// Adds the entries that the ranks of a unit select.
///
/// # Safety
/// Every byte of the ranks is below [`RANKS`], there are `GROUPS * RANKS` entries, and the CPU has
/// the instructions of `S`.
#[inline(always)]
unsafe fn add_entries<S: Sums>(tables: &[i16], ranks: u64, mut sum: S) -> S {
    for g in 0..GROUPS {
        let entry = tables.as_ptr().wrapping_byte_add(offset::<S>(ranks, g));
        // SAFETY: rank g is below RANKS, so its entry is in table g; the caller has the
        // instructions of `S`.
        sum = unsafe { sum.add(S::load(entry)) };
    }
    sum
}

/// The bytes before the entry that rank `g` of a unit selects: a shift and a mask, no load.
#[inline(always)]
fn offset<S: Sums>(ranks: u64, g: usize) -> usize {
    let bytes = S::TOKENS * size_of::<i16>();
    let shift = bytes.ilog2() as usize;
    let rank = if 8 * g < shift {
        ranks << (shift - 8 * g)
    } else {
        ranks >> (8 * g - shift)
    };
    (rank as usize & 0xff << shift) + g * RANKS * bytes
}

/// The columns of a unit: four runs of eight, `step` eights apart.
#[derive(Clone, Copy)]
pub(super) struct Columns<'a> {
    q: &'a [[i8; 8]], // (tokens, q_row)
    q_row: usize,
    tokens: usize,
    start: usize,
    step: usize,
}

/// Fills the tables of a unit. Missing tokens get the entries of the last one.
///
/// # Safety
/// The CPU has the instructions of `S`.
#[inline(always)]
pub(super) unsafe fn fill_tables<S: Sums>(columns: Columns, tables: &mut [i16]) {
    let Columns { q, q_row, .. } = columns;
    let mut a = [[[no_bytes(); 2]; GROUPS]; 4]; // (run, column, half of the tokens)
    for half in 0..S::TOKENS.div_ceil(16) {
        for (run, a) in a.iter_mut().enumerate() {
            let mut tokens = [&q[0]; 16];
            for (t, token) in tokens.iter_mut().enumerate() {
                let t = (half * 16 + t).min(columns.tokens - 1);
                *token = &q[t * q_row + columns.start + run * columns.step];
            }
            for (a, register) in a.iter_mut().zip(token_columns(tokens)) {
                a[half] = register;
            }
        }
    }
    let tables = tables.chunks_exact_mut(RANKS * S::TOKENS).take(GROUPS);
    for (g, table) in tables.enumerate() {
        // SAFETY: the caller has the instructions of `S`, and a table has RANKS entries.
        unsafe {
            let high = nine::<S>(a[0][g], a[1][g]);
            let low = nine::<S>(a[2][g], a[3][g]);
            for (i, high) in high.into_iter().enumerate() {
                for (j, low) in low.into_iter().enumerate() {
                    let entry = table.as_mut_ptr().add((i * 9 + j) * S::TOKENS);
                    high.add(low).store(entry);
                }
            }
        }
    }
}

/// The nine sums ±a ± b.
///
/// # Safety
/// The CPU has the instructions of `S`.
#[inline(always)]
unsafe fn nine<S: Sums>(a: [Sixteen; 2], b: [Sixteen; 2]) -> [S; 9] {
    // SAFETY: the caller has the instructions of `S`.
    unsafe {
        let zero = S::zero();
        let (a, b) = (S::widen(a), S::widen(b));
        let a = [zero.sub(a), zero, a];
        let b = [zero.sub(b), zero, b];
        let mut sums = [zero; 9];
        for (i, sum) in sums.iter_mut().enumerate() {
            *sum = a[i / 3].add(b[i % 3]);
        }
        sums
    }
}

/// Writes sums (rows, `width`) as (tokens, stride).
fn transpose(wide: &[i32], width: usize, tokens: usize, stride: usize, sums: &mut [i32]) {
    let rows = wide.len() / width;
    let lines = rows / 16 * 16;
    for first in (0..lines).step_by(16) {
        for t in (0..tokens).step_by(4) {
            let mut columns = [[[0; 4]; 4]; 4]; // (quarter of the rows, token)
            for (quarter, columns) in columns.iter_mut().enumerate() {
                let row = |r: usize| &wide[(first + quarter * 4 + r) * width + t..];
                let four = |r: usize| row(r).first_chunk().expect("entries are whole fours");
                *columns = four_by_four([four(0), four(1), four(2), four(3)]);
            }
            for j in 0..4.min(tokens - t) {
                let (to, _) = sums[(t + j) * stride + first..][..16].as_chunks_mut::<4>();
                for (to, columns) in to.iter_mut().zip(&columns) {
                    *to = columns[j];
                }
            }
        }
    }
    for r in lines..rows {
        for (t, sum) in wide[r * width..][..tokens].iter().enumerate() {
            sums[t * stride + r] = *sum;
        }
    }
}

/// Eight columns of 16 tokens: one register per column, one byte per token.
#[inline(always)]
fn token_columns(tokens: [&[i8; 8]; 16]) -> [Sixteen; 8] {
    // Each step interleaves register i with the one half of them away: four perfect shuffles of the
    // 128 bytes (token, column) exchange the two.
    let mut x = [no_bytes(); 8];
    for i in 0..8 {
        [x[i], _] = interleave(load_eight(tokens[i]), load_eight(tokens[i + 8]));
    }
    for _ in 0..3 {
        let before = x;
        for i in 0..4 {
            [x[2 * i], x[2 * i + 1]] = interleave(before[i], before[i + 4]);
        }
    }
    x
}
