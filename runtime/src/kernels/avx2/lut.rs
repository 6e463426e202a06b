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

use std::arch::x86_64::*;
use std::cell::RefCell;
use std::ops::Range;

use bytemuck::{Pod, Zeroable};
use sterna_ternary::packing::BLOCK_BYTES;

use super::super::prefetch::prefetch_line;
use super::super::shape::{GemmShape, Operands};
use super::registers::{high_bytes, load, table};
use super::shuffle::{exchange, four_by_four};
use super::sums::Sums;

/// Most tokens of a table entry.
const MOST_TOKENS: usize = 32;
/// Groups of a unit.
const GROUPS: usize = 8;
/// Ranks of a group.
const RANKS: usize = 81;
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
pub(in super::super) struct Loops {
    /// Tokens of an entry.
    pub tokens: usize,
    /// [`fill_tables`]
    pub fill_tables: unsafe fn(Columns, &mut [i16]),
    /// [`Pass::run`]
    pub run: unsafe fn(Pass),
}

/// The loops for entries of type `S`.
macro_rules! loops {
    ($S:ty) => {{
        #[target_feature(enable = "avx2")]
        unsafe fn fill(columns: Columns, tables: &mut [i16]) {
            // SAFETY: this function is compiled for AVX2.
            unsafe { fill_tables::<$S>(columns, tables) }
        }
        #[target_feature(enable = "avx2")]
        unsafe fn run(pass: Pass) {
            // SAFETY: this function is compiled for AVX2, and its caller has made the ranks.
            unsafe { pass.run::<$S>() }
        }
        Loops {
            tokens: <$S as Sums>::TOKENS,
            fill_tables: fill,
            run,
        }
    }};
}

/// Loops of this instruction set, those with short entries first, whose tables stay in the nearest
/// cache.
pub(super) const NEAR: &[Loops] = &[loops!(__m256i), loops!([__m256i; 2])];
/// Those with the longest entries.
pub(in super::super) const LONG: &[Loops] = &[loops!([__m256i; 2])];

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

/// `sums[t][r] = Σ trit[r][c] · q[t][c]` for blocks of `UNITS` units. `ranks` are those of a block
/// of four rows: for each unit, eight bytes per row. With `scales` (blocks, rows) each block's sum
/// is multiplied by its own and the sums are bits of f32.
#[target_feature(enable = "avx2")]
#[inline]
pub(super) fn gemm<const UNITS: usize>(
    operands: Operands,
    sums: &mut [i32],
    ranks: impl Fn([__m256i; 4]) -> [__m256i; UNITS] + Copy,
    loops: &[Loops],
    scales: Option<&[f32]>,
) {
    let widest = loops[loops.len() - 1];
    let Operands { shape, rows, q, .. } = operands;
    // Units whose sums stay in 16 bits.
    let narrow_units = if scales.is_some() {
        UNITS
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
                    let stretch = first..blocks.min(first + BLOCKS);
                    fill_ranks(packed, blocks, stretch.clone(), &mut scratch.ranks, ranks);
                    let of_tiles = wide.chunks_exact_mut(rows * widest.tokens);
                    for ((token, tokens), wide) in tiles().zip(of_tiles) {
                        let loops = fitting(loops, tokens);
                        // Each unit: make its tables, then let all rows pass over them.
                        let units = stretch.len() * UNITS;
                        for u in 0..units {
                            // In eights of columns: the first run and the step to the next.
                            let (start, step) = match u % UNITS {
                                4 => (16, 1),
                                k => (k, 4),
                            };
                            let start = (first + u / UNITS) * UNITS * 4 + start;
                            let columns = Columns {
                                q: &q[token * q_row..],
                                q_row,
                                tokens,
                                start,
                                step,
                            };
                            // SAFETY: a table of kernels has loops that its CPUs run.
                            unsafe { (loops.fill_tables)(columns, tables) };
                            let pass = Pass {
                                tables,
                                ranks: &scratch.ranks[u * stride(rows)..][..rows],
                                narrow: &mut narrow[..rows * loops.tokens],
                                wide: &mut wide[..rows * loops.tokens],
                                first: u % narrow_units == 0,
                                last: u % narrow_units == narrow_units - 1 || u + 1 == units,
                                scales: scales.map(|scales| {
                                    let block = first + u / UNITS;
                                    &scales[block * n + first_row..][..rows]
                                }),
                            };
                            // SAFETY: a table of kernels has loops that its CPUs run, and
                            // `fill_ranks` makes no rank of RANKS or more.
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
fn stride(rows: usize) -> usize {
    rows.next_multiple_of(4) + 8
}

/// Makes the ranks of a stretch of blocks: (units, stride), all of them below [`RANKS`].
#[target_feature(enable = "avx2")]
#[inline]
fn fill_ranks<const UNITS: usize>(
    packed: &[[u8; BLOCK_BYTES]],
    blocks: usize,
    stretch: Range<usize>,
    to: &mut [u64],
    ranks: impl Fn([__m256i; 4]) -> [__m256i; UNITS],
) {
    let rows = packed.len() / blocks;
    /// Rows between a load and the prefetch that runs ahead of it.
    const AHEAD: usize = 16;
    let largest = _mm256_set1_epi8(RANKS as i8 - 1);
    for r in (0..rows).step_by(4) {
        let four: [&[[u8; BLOCK_BYTES]]; 4] = std::array::from_fn(|i| {
            let row = (r + i).min(rows - 1);
            &packed[row * blocks..][stretch.clone()]
        });
        // A stretch of a row is too short for the hardware to see it coming.
        for row in four {
            for line in (0..stretch.len() * BLOCK_BYTES).step_by(64) {
                prefetch_line(row.as_ptr().cast(), AHEAD * blocks * BLOCK_BYTES + line);
            }
        }
        for b in 0..stretch.len() {
            let ranks = ranks(four.map(|row| load(&row[b])));
            for u in 0..UNITS {
                let to = &mut to[(b * UNITS + u) * stride(rows) + r..][..4];
                // Nothing changes where `ranks` is right; with this, nothing breaks where it is
                // not.
                let ranks = _mm256_min_epu8(ranks[u], largest);
                // SAFETY: four ranks; the store may be unaligned.
                unsafe { _mm256_storeu_si256(to.as_mut_ptr().cast(), ranks) };
            }
        }
    }
}

/// One pass of rows over a unit: adds eight entries to each row's running sums.
pub(in super::super) struct Pass<'a> {
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
pub(in super::super) struct Columns<'a> {
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
pub(in super::super) unsafe fn fill_tables<S: Sums>(columns: Columns, tables: &mut [i16]) {
    let Columns { q, q_row, .. } = columns;
    // SAFETY: every x86-64 CPU has SSE2.
    let zero = unsafe { _mm_setzero_si128() };
    let mut a = [[[zero; 2]; GROUPS]; 4]; // (run, column, half of the tokens)
    for half in 0..S::TOKENS.div_ceil(16) {
        for (run, a) in a.iter_mut().enumerate() {
            let mut tokens = [&q[0]; 16];
            for (t, token) in tokens.iter_mut().enumerate() {
                let t = (half * 16 + t).min(columns.tokens - 1);
                *token = &q[t * q_row + columns.start + run * columns.step];
            }
            // SAFETY: the caller has the instructions of `S`, and AVX2 is one of them or comes with
            // them.
            let registers = unsafe { super::shuffle::columns(tokens) };
            for (a, register) in a.iter_mut().zip(registers) {
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
unsafe fn nine<S: Sums>(a: [__m128i; 2], b: [__m128i; 2]) -> [S; 9] {
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
#[target_feature(enable = "avx2")]
fn transpose(wide: &[i32], width: usize, tokens: usize, stride: usize, sums: &mut [i32]) {
    let rows = wide.len() / width;
    let lines = rows / 16 * 16;
    for first in (0..lines).step_by(16) {
        for t in (0..tokens).step_by(4) {
            let mut columns = [[_mm_setzero_si128(); 4]; 4]; // (quarter of the rows, token)
            for (quarter, columns) in columns.iter_mut().enumerate() {
                let row = |r: usize| &wide[(first + quarter * 4 + r) * width + t..];
                let four = |r: usize| row(r).first_chunk().expect("entries are whole fours");
                *columns = four_by_four([four(0), four(1), four(2), four(3)]);
            }
            for j in 0..4.min(tokens - t) {
                let (to, _) = sums[(t + j) * stride + first..][..16].as_chunks_mut::<4>();
                for (to, columns) in to.iter_mut().zip(&columns) {
                    // SAFETY: four sums; the store may be unaligned.
                    unsafe { _mm_storeu_si128(to.as_mut_ptr().cast(), columns[j]) };
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

/// The ranks of a block of four rows of `i2`: of each byte, 27 d₀ + 9 d₁ of the low four bits and
/// 3 d₂ + d₃ of the high.
#[target_feature(enable = "avx2")]
#[inline]
pub(super) fn ranks_i2(rows: [__m256i; 4]) -> [__m256i; 4] {
    // Codes that no packer writes select some entry that exists.
    let low = table([0, 27, 54, 0, 9, 36, 63, 0, 18, 45, 72, 0, 0, 0, 0, 0]);
    let high = table([0, 3, 6, 0, 1, 4, 7, 0, 2, 5, 8, 0, 0, 0, 0, 0]);
    let nibble = _mm256_set1_epi8(15);
    exchange(rows.map(|bytes| {
        _mm256_add_epi8(
            _mm256_shuffle_epi8(low, _mm256_and_si256(bytes, nibble)),
            _mm256_shuffle_epi8(
                high,
                _mm256_and_si256(_mm256_srli_epi16::<4>(bytes), nibble),
            ),
        )
    }))
}

/// The ranks of a block of four rows of `t5`.
///
/// With the byte B = ⌈256 v / 243⌉, 81 B is the rank of the first four digits in its high byte and
/// a fraction in its low byte, of which three times is the fifth digit in the high byte.
#[target_feature(enable = "avx2")]
#[inline]
pub(super) fn ranks_t5(rows: [__m256i; 4]) -> [__m256i; 5] {
    let [mut first, mut fifth] = [[_mm256_setzero_si256(); 4]; 2];
    let (low_byte, high_byte) = (_mm256_set1_epi16(81), _mm256_set1_epi16(81 << 8));
    let three = _mm256_set1_epi16(3);
    for r in 0..4 {
        let bytes = _mm256_xor_si256(rows[r], _mm256_set1_epi8(-128));
        let even = _mm256_maddubs_epi16(bytes, low_byte);
        let odd = _mm256_maddubs_epi16(bytes, high_byte);
        first[r] = high_bytes(even, odd);
        fifth[r] = high_bytes(
            _mm256_maddubs_epi16(even, three),
            _mm256_maddubs_epi16(odd, three),
        );
    }
    let [a, b, c, d] = exchange(first);
    let [w, x, y, z] = exchange(fifth);
    let three_times_and = |x, y| _mm256_add_epi8(_mm256_add_epi8(x, x), _mm256_add_epi8(x, y));
    let fifth = three_times_and(three_times_and(three_times_and(w, x), y), z);
    [a, b, c, d, fifth]
}
