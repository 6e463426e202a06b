//! Prefill: one addition in place of four multiply-adds, with tables of partial sums shared by 32
//! tokens.
//!
//! Four trits have 81 values. For a *group* of four columns and one token, all 81 sums ±a₀ ±a₁ ±a₂
//! ±a₃ can be tabulated once; then each row of the matrix needs one addition for four weights: of
//! the entry that its four trits select, its *rank* 27 d₀ + 9 d₁ + 3 d₂ + d₃ with d = trit + 1. An
//! entry holds that sum for 32 tokens, side by side in 16-bit lanes (64 bytes, one cache line), so
//! one rank serves 32 tokens.
//!
//! Eight groups are a *unit*, 32 columns; their tables are 41 KiB and stay in the two nearest
//! caches while all rows pass over them. A pass over a unit adds eight entries to each row's 32
//! running sums. An entry is at most 4 · 128 = 512 in magnitude and a 16-bit lane holds 63 of them,
//! whatever the activations: after seven units (56 groups) the running sums are added to 32-bit
//! sums and start again. The 32-bit sums lie tokens along the vector as well and are transposed at
//! the end. With one scale per group of columns the running sums are scaled and added to sums in
//! f32 instead, after the four units of each block of `i2`.
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

use sterna_ternary::packing::BLOCK_BYTES;

use super::super::prefetch::prefetch_line;
use super::super::shape::{GemmShape, Operands};
use super::registers::{high_bytes, load, table};
use super::shuffle::{exchange, four_by_four};

/// Tokens of a table entry.
pub(super) const TOKENS: usize = 32;
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
/// Times [`TOKENS`] tokens that share one set of ranks.
const TILES: usize = 4;

/// One number for each of 32 tokens.
#[derive(Clone, Copy)]
#[repr(align(64))]
pub(in super::super) struct Narrow(pub [i16; TOKENS]);

/// The same with room for sums of whole rows.
#[derive(Clone, Copy)]
#[repr(align(64))]
pub(in super::super) struct Wide(pub [i32; TOKENS]);

/// A [`Narrow`] in registers.
///
/// # Safety
/// Every function of this trait may be called only on a CPU that has the instruction set of the
/// implementing type: AVX2 for two registers of 256 bits, AVX-512 F and BW for one of 512 bits.
pub(in super::super) trait Sums: Copy {
    /// All sums zero.
    unsafe fn zero() -> Self;
    /// The bytes of the first and of the last 16 tokens, as 16-bit numbers.
    unsafe fn widen(bytes: [__m128i; 2]) -> Self;
    /// Reads 32 sums.
    unsafe fn load(from: &Narrow) -> Self;
    /// Writes 32 sums.
    unsafe fn store(self, to: &mut Narrow);
    /// The sums of lanes, modulo 2¹⁶.
    unsafe fn add(self, other: Self) -> Self;
    /// The differences of lanes, modulo 2¹⁶.
    unsafe fn sub(self, other: Self) -> Self;
    /// Adds the lanes to 32-bit sums.
    unsafe fn add_to(self, to: &mut Wide);
    /// Adds the lanes, as f32 times `scale`, to sums whose bits are those of f32.
    unsafe fn add_scaled_to(self, scale: f32, to: &mut Wide);
}

/// The two inner loops, compiled for an instruction set.
#[derive(Clone, Copy)]
pub(in super::super) struct Loops {
    /// [`fill_tables`]
    pub fill_tables: unsafe fn(Columns, &mut [Narrow]),
    /// [`Pass::run`]
    pub run: unsafe fn(Pass),
}

/// The loops of this instruction set.
pub(in super::super) const LOOPS: Loops = {
    #[target_feature(enable = "avx2")]
    unsafe fn fill(columns: Columns, tables: &mut [Narrow]) {
        // SAFETY: this function is compiled for AVX2.
        unsafe { fill_tables::<[__m256i; 2]>(columns, tables) }
    }
    #[target_feature(enable = "avx2")]
    unsafe fn run(pass: Pass) {
        // SAFETY: this function is compiled for AVX2, and its caller has made the ranks.
        unsafe { pass.run::<[__m256i; 2]>() }
    }
    Loops {
        fill_tables: fill,
        run,
    }
};

/// Working memory of one thread, 1.3 MB.
#[derive(Default)]
struct Scratch {
    tables: Vec<Narrow>, // (GROUPS, RANKS)
    narrow: Vec<Narrow>, // (rows)
    wide: Vec<Wide>,     // (TILES, rows)
    ranks: Vec<u64>,     // (units, stride)
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
    loops: Loops,
    scales: Option<&[f32]>,
) {
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
        scratch.tables.resize(GROUPS * RANKS, Narrow([0; TOKENS]));
        scratch.narrow.resize(ROWS, Narrow([0; TOKENS]));
        scratch.wide.resize(TILES * ROWS, Wide([0; TOKENS]));
        let units = BLOCKS * BLOCK_UNITS;
        scratch.ranks.resize(units * stride(ROWS), 0);
        // Equal parts of at most ROWS, whole cache lines of results.
        let part = n.div_ceil(n.div_ceil(ROWS)).next_multiple_of(16);
        for first_row in (0..n).step_by(part) {
            let rows = part.min(n - first_row);
            let packed = &packed[first_row * blocks..][..rows * blocks];
            // Up to TILES tiles of TOKENS tokens share the ranks of a stretch of blocks.
            for first_token in (0..tokens).step_by(TILES * TOKENS) {
                let tokens = (TILES * TOKENS).min(tokens - first_token);
                let wide = &mut scratch.wide[..tokens.div_ceil(TOKENS) * rows];
                wide.fill(Wide([0; TOKENS]));
                for first in (0..blocks).step_by(BLOCKS) {
                    let stretch = first..blocks.min(first + BLOCKS);
                    fill_ranks(packed, blocks, stretch.clone(), &mut scratch.ranks, ranks);
                    for (tile, wide) in wide.chunks_exact_mut(rows).enumerate() {
                        let q = &q[(first_token + tile * TOKENS) * q_row..];
                        let tokens = TOKENS.min(tokens - tile * TOKENS);
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
                                q,
                                q_row,
                                tokens,
                                start,
                                step,
                            };
                            // SAFETY: a table of kernels has loops that its CPUs run.
                            unsafe { (loops.fill_tables)(columns, &mut scratch.tables) };
                            let pass = Pass {
                                tables: &scratch.tables,
                                ranks: &scratch.ranks[u * stride(rows)..][..rows],
                                narrow: &mut scratch.narrow[..rows],
                                wide,
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
                // The sums (rows, tokens) become results (tokens, rows).
                for (tile, wide) in wide.chunks_exact(rows).enumerate() {
                    let first_token = first_token + tile * TOKENS;
                    let tokens = TOKENS.min(shape.tokens - first_token);
                    transpose(wide, tokens, n, &mut sums[first_token * n + first_row..]);
                }
            }
        }
    });
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
    tables: &'a [Narrow],     // (GROUPS, RANKS)
    ranks: &'a [u64],         // (rows)
    narrow: &'a mut [Narrow], // (rows): the running sums
    wide: &'a mut [Wide],     // (rows): where they go
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
        assert!(self.tables.len() == GROUPS * RANKS);
        let sums = self.narrow.iter_mut().zip(self.wide);
        for (ranks, (narrow, wide)) in self.ranks.iter().zip(sums) {
            // SAFETY: the caller gives ranks below RANKS and has the instructions of `S`; there are
            // GROUPS · RANKS entries.
            unsafe {
                let sum = if FIRST { S::zero() } else { S::load(narrow) };
                let sum = add_entries(self.tables, *ranks, sum);
                if LAST {
                    sum.add_to(wide);
                } else {
                    sum.store(narrow);
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
        assert!(self.tables.len() == GROUPS * RANKS);
        let scales = self.scales.unwrap_or_default();
        let sums = self.narrow.iter_mut().zip(self.wide);
        for ((ranks, scale), (narrow, wide)) in self.ranks.iter().zip(scales).zip(sums) {
            // SAFETY: the caller gives ranks below RANKS and has the instructions of `S`; there are
            // GROUPS · RANKS entries.
            unsafe {
                add_entries(self.tables, *ranks, S::load(narrow)).add_scaled_to(*scale, wide)
            };
        }
    }
}

/// Adds the entries that the ranks of a unit select.
///
/// # Safety
/// Every byte of the ranks is below [`RANKS`], there are `GROUPS * RANKS` entries, and the CPU has
/// the instructions of `S`.
#[inline(always)]
unsafe fn add_entries<S: Sums>(tables: &[Narrow], ranks: u64, mut sum: S) -> S {
    for g in 0..GROUPS {
        let entry = tables.as_ptr().wrapping_byte_add(offset(ranks, g));
        // SAFETY: rank g is below RANKS, so its entry is in table g; the caller has the
        // instructions of `S`.
        sum = unsafe { sum.add(S::load(&*entry)) };
    }
    sum
}

/// The bytes before the entry that rank `g` of a unit selects: a shift and a mask, no load.
#[inline(always)]
fn offset(ranks: u64, g: usize) -> usize {
    const ENTRY_BITS: usize = size_of::<Narrow>().ilog2() as usize;
    let rank = if g == 0 {
        ranks << ENTRY_BITS
    } else {
        ranks >> (8 * g - ENTRY_BITS)
    };
    (rank as usize & 0xff << ENTRY_BITS) + g * RANKS * size_of::<Narrow>()
}

impl Sums for [__m256i; 2] {
    #[inline(always)]
    unsafe fn zero() -> Self {
        // SAFETY: the caller has AVX2, as the trait demands.
        unsafe { [_mm256_setzero_si256(); 2] }
    }

    #[inline(always)]
    unsafe fn widen([a, b]: [__m128i; 2]) -> Self {
        // SAFETY: the caller has AVX2, as the trait demands.
        unsafe { [_mm256_cvtepi8_epi16(a), _mm256_cvtepi8_epi16(b)] }
    }

    #[inline(always)]
    unsafe fn load(from: &Narrow) -> Self {
        let from = from.0.as_ptr().cast::<__m256i>();
        // SAFETY: the caller has AVX2, as the trait demands. These are the halves of an entry,
        // which is aligned to 64 bytes.
        unsafe { [_mm256_load_si256(from), _mm256_load_si256(from.add(1))] }
    }

    #[inline(always)]
    unsafe fn store(self, to: &mut Narrow) {
        let to = to.0.as_mut_ptr().cast::<__m256i>();
        // SAFETY: the caller has AVX2, as the trait demands. These are the halves of an entry,
        // which is aligned to 64 bytes.
        unsafe {
            _mm256_store_si256(to, self[0]);
            _mm256_store_si256(to.add(1), self[1]);
        }
    }

    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        // SAFETY: the caller has AVX2, as the trait demands.
        unsafe {
            [
                _mm256_add_epi16(self[0], other[0]),
                _mm256_add_epi16(self[1], other[1]),
            ]
        }
    }

    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        // SAFETY: the caller has AVX2, as the trait demands.
        unsafe {
            [
                _mm256_sub_epi16(self[0], other[0]),
                _mm256_sub_epi16(self[1], other[1]),
            ]
        }
    }

    #[inline(always)]
    unsafe fn add_to(self, to: &mut Wide) {
        let to = to.0.as_mut_ptr().cast::<__m256i>();
        for (half, sums) in self.into_iter().enumerate() {
            // SAFETY: the caller has AVX2, as the trait demands. These are quarters of sums that
            // are aligned to 64 bytes.
            unsafe {
                let low = _mm256_cvtepi16_epi32(_mm256_castsi256_si128(sums));
                let high = _mm256_cvtepi16_epi32(_mm256_extracti128_si256::<1>(sums));
                let to = to.add(2 * half);
                _mm256_store_si256(to, _mm256_add_epi32(_mm256_load_si256(to), low));
                let to = to.add(1);
                _mm256_store_si256(to, _mm256_add_epi32(_mm256_load_si256(to), high));
            }
        }
    }

    #[inline(always)]
    unsafe fn add_scaled_to(self, scale: f32, to: &mut Wide) {
        let to = to.0.as_mut_ptr().cast::<f32>();
        for (half, sums) in self.into_iter().enumerate() {
            // SAFETY: the caller has AVX2, as the trait demands. These are eighths of sums that are
            // aligned to 64 bytes.
            unsafe {
                let scale = _mm256_set1_ps(scale);
                let low = _mm256_cvtepi16_epi32(_mm256_castsi256_si128(sums));
                let high = _mm256_cvtepi16_epi32(_mm256_extracti128_si256::<1>(sums));
                for (i, sums) in [low, high].into_iter().enumerate() {
                    let to = to.add(16 * half + 8 * i);
                    let scaled = _mm256_mul_ps(_mm256_cvtepi32_ps(sums), scale);
                    _mm256_store_ps(to, _mm256_add_ps(_mm256_load_ps(to), scaled));
                }
            }
        }
    }
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
pub(in super::super) unsafe fn fill_tables<S: Sums>(columns: Columns, tables: &mut [Narrow]) {
    let Columns { q, q_row, .. } = columns;
    // SAFETY: every x86-64 CPU has SSE2.
    let zero = unsafe { _mm_setzero_si128() };
    let mut a = [[[zero; 2]; GROUPS]; 4]; // (run, column, half of the tokens)
    for half in 0..2 {
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
    let (tables, _) = tables.as_chunks_mut::<RANKS>();
    for (g, table) in tables.iter_mut().enumerate() {
        // SAFETY: the caller has the instructions of `S`.
        unsafe {
            let high = nine::<S>(a[0][g], a[1][g]);
            let low = nine::<S>(a[2][g], a[3][g]);
            for i in 0..9 {
                for j in 0..9 {
                    high[i].add(low[j]).store(&mut table[i * 9 + j]);
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

/// Writes sums (rows, [`TOKENS`]) as (tokens, stride).
#[target_feature(enable = "avx2")]
fn transpose(wide: &[Wide], tokens: usize, stride: usize, sums: &mut [i32]) {
    let (wide_lines, rest) = wide.as_chunks::<16>();
    for (i, wide) in wide_lines.iter().enumerate() {
        for t in (0..tokens).step_by(4) {
            let mut columns = [[_mm_setzero_si128(); 4]; 4]; // (quarter of the rows, token)
            for (columns, wide) in columns.iter_mut().zip(wide.as_chunks::<4>().0) {
                *columns = four_by_four(wide.each_ref().map(|wide| &wide.0.as_chunks().0[t / 4]));
            }
            for j in 0..4.min(tokens - t) {
                let (to, _) = sums[(t + j) * stride + i * 16..][..16].as_chunks_mut::<4>();
                for (to, columns) in to.iter_mut().zip(&columns) {
                    // SAFETY: four sums; the store may be unaligned.
                    unsafe { _mm_storeu_si128(to.as_mut_ptr().cast(), columns[j]) };
                }
            }
        }
    }
    for (r, wide) in (wide_lines.len() * 16..).zip(rest) {
        for (t, sum) in wide.0[..tokens].iter().enumerate() {
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
