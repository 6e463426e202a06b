//! Prefill: one addition in place of four multiply-adds, with tables of partial sums shared by 32 tokens.
//!
//! Four trits have 81 values. For a *group* of four columns and one token, all 81 sums ±a₀ ±a₁ ±a₂ ±a₃ can be
//! tabulated once; then each row of the matrix needs one addition for four weights: of the entry that its
//! four trits select, its *rank* 27 d₀ + 9 d₁ + 3 d₂ + d₃ with d = trit + 1. An entry holds that sum for 32
//! tokens, side by side in 16-bit lanes (64 bytes, one cache line), so one rank serves 32 tokens.
//!
//! Eight groups are a *unit*, 32 columns; their tables are 41 KiB and stay in the two nearest caches while
//! all rows pass over them. A pass over a unit adds eight entries to each row's 32 running sums. An entry is
//! at most 4 · 128 = 512 in magnitude and a 16-bit lane holds 63 of them, whatever the activations: after
//! seven units (56 groups) the running sums are added to 32-bit sums and start again. The 32-bit sums lie
//! tokens along the vector as well and are transposed at the end.
//!
//! Ranks are made from packed bytes once for some blocks of all rows and for two
//! sets of tables, and are laid out in the order of the passes: for each unit, for each row, eight ranks in a u64.
//! The groups are chosen so that ranks cost little. `i2` has four units a block: group i of unit k is byte
//! 8 k + i, columns 8 k + i + {0, 32, 64, 96}, and two lookups of four bits turn its bits into the rank. `t5` has
//! five: the same four, whose ranks are the byte's first four digits, and one of the 32 fifth digits, where
//! group i is columns 128 + i + {0, 8, 16, 24}.

use std::arch::x86_64::*;
use std::cell::RefCell;
use std::ops::Range;

use sterna_ternary::packing::BLOCK_BYTES;

use super::super::Shape;
use super::shuffle::{columns, exchange, four_by_four};
use super::{high_bytes, load, table};

/// Tokens of a table entry.
pub(super) const TOKENS: usize = 32;
/// Groups of a unit.
const GROUPS: usize = 8;
/// Ranks of a group.
const RANKS: usize = 81;
/// Units that 16-bit sums hold.
const NARROW_UNITS: usize = 7;
/// Blocks whose ranks are made at a time; units of so many blocks are a multiple of [`NARROW_UNITS`].
const BLOCKS: usize = 7;
/// Most units of a block.
const BLOCK_UNITS: usize = 5;
/// Most rows that pass over one set of tables.
const ROWS: usize = 2048;
/// Times [`TOKENS`] tokens that share one set of ranks.
const TILES: usize = 2;

/// One number for each of 32 tokens.
#[derive(Clone, Copy)]
#[repr(align(64))]
struct Narrow([i16; TOKENS]);

/// The same with room for sums of whole rows.
#[derive(Clone, Copy)]
#[repr(align(64))]
struct Wide([i32; TOKENS]);

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

/// `sums[t][r] = Σ trit[r][c] · q[t][c]` for blocks of `UNITS` units. `ranks` are those of a block of four
/// rows: for each unit, eight bytes a row.
#[target_feature(enable = "avx2")]
#[inline]
pub(super) fn gemm<const UNITS: usize>(
    shape: Shape,
    rows: &[u8],
    q: &[i8],
    sums: &mut [i32],
    ranks: impl Fn([__m256i; 4]) -> [__m256i; UNITS] + Copy,
) {
    let Shape {
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
                        let units = stretch.len() * UNITS;
                        for u in 0..units {
                            // In eights of columns: the first run and the step to the next.
                            let (start, step) = match u % UNITS {
                                4 => (16, 1),
                                k => (k, 4),
                            };
                            let start = (first + u / UNITS) * UNITS * 4 + start;
                            fill_tables(q, q_row, tokens, start, step, &mut scratch.tables);
                            let pass = Pass {
                                tables: &scratch.tables,
                                ranks: &scratch.ranks[u * stride(rows)..][..rows],
                                narrow: &mut scratch.narrow[..rows],
                                wide,
                                first: u % NARROW_UNITS == 0,
                                last: u % NARROW_UNITS == NARROW_UNITS - 1 || u + 1 == units,
                            };
                            // SAFETY: `fill_ranks` makes ranks of the table.
                            unsafe { pass.run() };
                        }
                    }
                }
                for (tile, wide) in wide.chunks_exact(rows).enumerate() {
                    let first_token = first_token + tile * TOKENS;
                    let tokens = TOKENS.min(shape.tokens - first_token);
                    transpose(wide, tokens, n, &mut sums[first_token * n + first_row..]);
                }
            }
        }
    });
}

/// Ranks from those of one unit to those of the next: a little more than the rows, so that the same row of
/// all units does not compete for one place in the caches.
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
    let largest = _mm256_set1_epi8(RANKS as i8 - 1);
    for r in (0..rows).step_by(4) {
        let four: [&[[u8; BLOCK_BYTES]]; 4] = std::array::from_fn(|i| {
            let row = (r + i).min(rows - 1);
            &packed[row * blocks..][stretch.clone()]
        });
        for b in 0..stretch.len() {
            let ranks = ranks(four.map(|row| load(&row[b])));
            for u in 0..UNITS {
                let to = &mut to[(b * UNITS + u) * stride(rows) + r..][..4];
                // Nothing changes where `ranks` is right; with this, nothing breaks where it is not.
                let ranks = _mm256_min_epu8(ranks[u], largest);
                // SAFETY: four ranks; the store may be unaligned.
                unsafe { _mm256_storeu_si256(to.as_mut_ptr().cast(), ranks) };
            }
        }
    }
}

/// One pass of rows over a unit: adds eight entries to each row's running sums.
struct Pass<'a> {
    tables: &'a [Narrow],     // (GROUPS, RANKS)
    ranks: &'a [u64],         // (rows)
    narrow: &'a mut [Narrow], // (rows): the running sums
    wide: &'a mut [Wide],     // (rows): where they go
    /// Running sums start here.
    first: bool,
    /// Running sums are added to the wide sums.
    last: bool,
}

impl Pass<'_> {
    /// # Safety
    /// Every byte of the ranks is below [`RANKS`].
    #[target_feature(enable = "avx2")]
    unsafe fn run(self) {
        // SAFETY: as here.
        unsafe {
            match (self.first, self.last) {
                (true, true) => self.rows::<true, true>(),
                (true, false) => self.rows::<true, false>(),
                (false, true) => self.rows::<false, true>(),
                (false, false) => self.rows::<false, false>(),
            }
        }
    }

    /// # Safety
    /// Every byte of the ranks is below [`RANKS`].
    #[target_feature(enable = "avx2")]
    #[inline]
    unsafe fn rows<const FIRST: bool, const LAST: bool>(self) {
        assert!(self.tables.len() == GROUPS * RANKS);
        let tables = self.tables.as_ptr().cast::<u8>();
        let sums = self.narrow.iter_mut().zip(self.wide);
        for (ranks, (narrow, wide)) in self.ranks.iter().zip(sums) {
            let narrow = narrow.0.as_mut_ptr().cast::<__m256i>();
            let mut sum = [_mm256_setzero_si256(); 2];
            if !FIRST {
                // SAFETY: the two halves of an entry, which is aligned to 64 bytes.
                sum = unsafe { [_mm256_load_si256(narrow), _mm256_load_si256(narrow.add(1))] };
            }
            for g in 0..GROUPS {
                let entry = tables.wrapping_add(offset(*ranks, g));
                for (half, sum) in sum.iter_mut().enumerate() {
                    // SAFETY: half of an entry of the table, since the rank is below RANKS.
                    let entry = unsafe { _mm256_load_si256(entry.add(half * 32).cast()) };
                    *sum = _mm256_add_epi16(*sum, entry);
                }
            }
            if LAST {
                let (eights, _) = wide.0.as_chunks_mut::<8>();
                for half in 0..2 {
                    let low = _mm256_cvtepi16_epi32(_mm256_castsi256_si128(sum[half]));
                    let high = _mm256_cvtepi16_epi32(_mm256_extracti128_si256::<1>(sum[half]));
                    add(&mut eights[half * 2], low);
                    add(&mut eights[half * 2 + 1], high);
                }
            } else {
                // SAFETY: as above.
                unsafe {
                    _mm256_store_si256(narrow, sum[0]);
                    _mm256_store_si256(narrow.add(1), sum[1]);
                }
            }
        }
    }
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

#[target_feature(enable = "avx2")]
#[inline]
fn add(to: &mut [i32; 8], sums: __m256i) {
    let to = to.as_mut_ptr().cast();
    // SAFETY: eight sums; the load and the store may be unaligned.
    unsafe { _mm256_storeu_si256(to, _mm256_add_epi32(_mm256_loadu_si256(to), sums)) };
}

/// The tables of a unit: its columns are four runs of eight, `step` eights apart.
///
/// Tokens that are not there get the entries of the last one.
#[target_feature(enable = "avx2")]
fn fill_tables(
    q: &[[i8; 8]],
    q_row: usize,
    tokens: usize,
    start: usize,
    step: usize,
    tables: &mut [Narrow],
) {
    let token = |t: usize| &q[t.min(tokens - 1) * q_row + start..];
    let mut a = [[[_mm_setzero_si128(); GROUPS]; 2]; 4]; // (run, half of the tokens, column)
    for half in 0..2 {
        let tokens: [&[[i8; 8]]; 16] = std::array::from_fn(|t| token(half * 16 + t));
        for (run, a) in a.iter_mut().enumerate() {
            a[half] = columns(tokens.map(|q| &q[run * step]));
        }
    }
    let (tables, _) = tables.as_chunks_mut::<RANKS>();
    for (g, table) in tables.iter_mut().enumerate() {
        let high = nine(a[0].map(|a| a[g]), a[1].map(|a| a[g]));
        let low = nine(a[2].map(|a| a[g]), a[3].map(|a| a[g]));
        for i in 0..9 {
            for j in 0..9 {
                let to = table[i * 9 + j].0.as_mut_ptr().cast::<__m256i>();
                // SAFETY: the two halves of an entry, which is aligned to 64 bytes.
                unsafe {
                    _mm256_store_si256(to, _mm256_add_epi16(high[i][0], low[j][0]));
                    _mm256_store_si256(to.add(1), _mm256_add_epi16(high[i][1], low[j][1]));
                }
            }
        }
    }
}

/// The nine sums ±a ± b, for both halves of the tokens.
#[target_feature(enable = "avx2")]
#[inline]
fn nine(a: [__m128i; 2], b: [__m128i; 2]) -> [[__m256i; 2]; 9] {
    let zero = _mm256_setzero_si256();
    let mut sums = [[zero; 2]; 9];
    for half in 0..2 {
        let (a, b) = (_mm256_cvtepi8_epi16(a[half]), _mm256_cvtepi8_epi16(b[half]));
        let a = [_mm256_sub_epi16(zero, a), zero, a];
        let b = [_mm256_sub_epi16(zero, b), zero, b];
        for i in 0..9 {
            sums[i][half] = _mm256_add_epi16(a[i / 3], b[i % 3]);
        }
    }
    sums
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
/// With the byte B = ⌈256 v / 243⌉, 81 B is the rank of the first four digits in its high byte and a fraction in
/// its low byte, of which three times is the fifth digit in the high byte.
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
