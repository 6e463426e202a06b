//! Ternary products by tiles.
//!
//! A panel, 32 rows of a short stretch of columns, is unpacked into the first-level cache and meets
//! all tokens, 32 at a time: four tiles of sums, for which two tiles of activations and two of
//! digits are loaded every 64 columns. Between two stretches sums wait in memory; Σ q is subtracted
//! at the end, since digits are trits + 1.
//!
//! A panel must leave most of the first-level cache to the packed rows and to activations: with one
//! of twice the size, few tokens take nearly twice the time.

use std::arch::x86_64::__m512i;
use std::cell::RefCell;
use std::ops::Range;

use sterna_ternary::Packing;
use sterna_ternary::packing::BLOCK_BYTES;

use super::super::avx512;
use super::super::avx512::digits::{Rows16, columns, pairs};
use super::super::avx512::registers::fields;
use super::super::avx512::ternary::digits_t5;
use super::super::digits::{Lanes, Line};
use super::super::prefetch::prefetch_second;
use super::super::shape::{GemmShape, Operands};
use super::tiles::{TILE_COLUMNS, TILE_ROWS, TILE_TOKENS, TileProduct, Tiles};

/// Fewest tokens that take less time with tiles.
const FEWEST: usize = 4;
/// Tokens that meet a panel at a time.
const TOKENS: usize = 2 * TILE_TOKENS;
/// Rows of a panel.
const ROWS: usize = 2 * TILE_ROWS;
/// Most blocks of a panel: an even number, since two blocks of `t5` have a whole number of tiles.
const STRETCH: usize = 4;
/// Bytes of a block of 16 rows that are prefetched while a panel is unpacked. The other half is
/// prefetched while it is multiplied, so that memory is asked evenly.
const AHEAD: usize = Rows16::ROWS * BLOCK_BYTES / 2;
/// Steps of four columns of a tile.
const TILE_STEPS: usize = TILE_COLUMNS / 4;

/// The sums of 32 tokens with a panel.
type Sums = [[i32; ROWS]; TOKENS];

/// Working memory of a thread.
#[derive(Default)]
struct Memory {
    digits: Vec<Line>,
    sums: Vec<Line>,
    last_columns: Vec<Line>,
}

thread_local! {
    static MEMORY: RefCell<Memory> = RefCell::default();
}

/// [`Kernels::gemm_i2`](super::super::Kernels::gemm_i2)
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
pub(super) fn gemm_i2(rows: &[u8], q: &[i8], q_sums: &[i32], sums: &mut [i32]) {
    if q_sums.len() < FEWEST {
        return (avx512::KERNELS.gemm_i2)(rows, q, q_sums, sums);
    }
    let operands = Operands::of(Packing::I2, rows, q, q_sums, sums);
    // SAFETY: this function is compiled for AVX-512 F, BW and VNNI, and its table has tiles.
    unsafe { product(operands, sums, |codes| fields(codes)) }
}

/// [`Kernels::gemm_t5`](super::super::Kernels::gemm_t5)
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
pub(super) fn gemm_t5(rows: &[u8], q: &[i8], q_sums: &[i32], sums: &mut [i32]) {
    if q_sums.len() < FEWEST {
        return (avx512::KERNELS.gemm_t5)(rows, q, q_sums, sums);
    }
    let operands = Operands::of(Packing::T5, rows, q, q_sums, sums);
    // SAFETY: this function is compiled for AVX-512 F, BW and VNNI, and its table has tiles.
    unsafe { product(operands, sums, |bytes| digits_t5(bytes)) }
}

/// The product; `digits` unpacks the `STEPS` digits of each byte.
///
/// # Safety
/// The CPU has tiles, AVX-512 F, BW and VNNI, and what `digits` needs; everything is inlined into
/// the caller.
#[inline(always)]
unsafe fn product<const STEPS: usize>(
    operands: Operands,
    sums: &mut [i32],
    digits: impl Fn(__m512i) -> [__m512i; STEPS] + Copy,
) {
    let GemmShape {
        tokens,
        rows,
        blocks,
    } = operands.shape;
    // The memory is taken out, since code in a closure would not have the instruction set.
    let mut memory = MEMORY.take();
    let stretch = STRETCH.min(blocks);
    // The last tile of a panel may end after its columns do; its activations are zero there.
    let registers = ROWS / Rows16::ROWS * stretch * Panel::<STEPS>::BLOCK_STEPS + TILE_STEPS;
    // SAFETY: registers are vectors of integers.
    let of_panel = unsafe { Line::registers(&mut memory.digits, registers) };
    // SAFETY: integers.
    let begun: &mut [Sums] = unsafe { Line::registers(&mut memory.sums, tokens.div_ceil(TOKENS)) };
    let mut panel = Panel::<STEPS> {
        operands,
        last_columns: last_columns(operands, &mut memory.last_columns),
        digits: of_panel,
        first: 0,
        blocks: 0..0,
    };
    let mut tiles = Tiles::new();
    for first in (0..rows).step_by(ROWS) {
        begun.fill([[0; ROWS]; TOKENS]);
        panel.first = first;
        for start in (0..blocks).step_by(stretch) {
            panel.blocks = start..blocks.min(start + stretch);
            // SAFETY: the caller has the instruction sets.
            unsafe {
                panel.fill(digits);
                panel.multiply(&mut tiles, begun);
            }
        }
        let of_tokens = begun.as_flattened().iter().zip(operands.q_sums);
        for ((from, q_sum), sums) in of_tokens.zip(sums.chunks_exact_mut(rows)) {
            for (sum, from) in sums[first..].iter_mut().zip(from) {
                *sum = from - q_sum;
            }
        }
    }
    drop(tiles);
    MEMORY.set(memory);
}

/// The columns of each token after its last whole tile, and zeros; nothing if there are none.
fn last_columns<'a>(operands: Operands, memory: &'a mut Vec<Line>) -> &'a [[i8; TILE_COLUMNS]] {
    let columns = operands.q.len() / operands.shape.tokens;
    let there = columns % TILE_COLUMNS;
    if there == 0 {
        return &[];
    }
    // SAFETY: bytes.
    let last: &mut [[i8; TILE_COLUMNS]] = unsafe { Line::registers(memory, operands.shape.tokens) };
    for (last, q) in last.iter_mut().zip(operands.q.chunks_exact(columns)) {
        last[there..].fill(0);
        last[..there].copy_from_slice(&q[columns - there..]);
    }
    last
}

/// Some blocks of [`ROWS`] rows.
struct Panel<'a, const STEPS: usize> {
    operands: Operands<'a>,
    /// (tokens), or nothing
    last_columns: &'a [[i8; TILE_COLUMNS]],
    /// (2, steps) of 16 rows
    digits: &'a mut [__m512i],
    /// The first row.
    first: usize,
    blocks: Range<usize>,
}

impl<const STEPS: usize> Panel<'_, STEPS> {
    /// Steps of a block.
    const BLOCK_STEPS: usize = STEPS * Rows16::DIGIT_STEPS;

    /// Unpacks the rows. After the last row, that row is repeated.
    ///
    /// # Safety
    /// The CPU has AVX-512 F, BW and VNNI, and what `digits` needs; everything is inlined into the
    /// caller.
    #[inline(always)]
    unsafe fn fill(&mut self, digits: impl Fn(__m512i) -> [__m512i; STEPS] + Copy) {
        let GemmShape { rows, blocks, .. } = self.operands.shape;
        let (packed, _) = self.operands.rows.as_chunks::<BLOCK_BYTES>(); // (rows, blocks)
        let count = self.blocks.len();
        let mut ahead = self.ahead();
        let of_registers = self
            .digits
            .chunks_exact_mut(count * Self::BLOCK_STEPS)
            .take(2);
        for (first, to) in (self.first..rows).step_by(Rows16::ROWS).zip(of_registers) {
            let start = packed[first * blocks + self.blocks.start..].as_ptr();
            let last = rows - 1 - first;
            // SAFETY: the caller has the instruction sets, and there are as many blocks of these
            // rows.
            unsafe {
                if last >= Rows16::ROWS - 1 {
                    unpack(count, |r| start.add(r * blocks), digits, to, ahead);
                } else {
                    unpack(
                        count,
                        |r| start.add(r.min(last) * blocks),
                        digits,
                        to,
                        ahead,
                    );
                }
            }
            ahead = ahead.wrapping_add(count * AHEAD);
        }
    }

    /// The packed bytes of the panel after this one, in their order.
    fn ahead(&self) -> *const u8 {
        let (packed, _) = self.operands.rows.as_chunks::<BLOCK_BYTES>(); // (rows, blocks)
        let rows = packed
            .as_ptr()
            .wrapping_add((self.first + ROWS) * self.operands.shape.blocks);
        rows.wrapping_add(self.blocks.start * ROWS).cast()
    }

    /// Multiplies with all tokens and adds the products to `sums` (32 tokens).
    ///
    /// # Safety
    /// The CPU has tiles.
    #[inline(always)]
    unsafe fn multiply(&self, tiles: &mut Tiles, sums: &mut [Sums]) {
        let Operands { shape, q, .. } = self.operands;
        let columns = q.len() / shape.tokens;
        let block_columns = columns / shape.blocks;
        let steps = self.blocks.len() * Self::BLOCK_STEPS;
        let digits = [0, steps].map(|start| self.digits[start..].as_ptr());
        let whole = steps / TILE_STEPS;
        // Later tokens ask for bytes that are at hand.
        let mut ahead = self.ahead().wrapping_add(2 * self.blocks.len() * AHEAD);
        for (token, sums) in (0..shape.tokens).step_by(TOKENS).zip(sums) {
            let tokens = TOKENS.min(shape.tokens - token);
            let product = TileProduct {
                q: q[token * columns + self.blocks.start * block_columns..].as_ptr(),
                q_stride: columns,
                digits,
                tiles: whole,
                sums,
                ahead,
            };
            ahead = digits[0].cast();
            // SAFETY: the caller has tiles. All tokens have the columns of the panel, and the panel
            // has a tile more than it has digits.
            unsafe {
                if whole > 0 {
                    product.add(tokens, tiles);
                }
                if whole * TILE_STEPS < steps {
                    let last = TileProduct {
                        q: self.last_columns[token..].as_flattened().as_ptr(),
                        q_stride: TILE_COLUMNS,
                        digits: digits.map(|digits| digits.add(whole * TILE_STEPS)),
                        tiles: 1,
                        sums,
                        ahead,
                    };
                    last.add(tokens, tiles);
                }
            }
        }
    }
}

/// Unpacks some blocks of 16 rows, each from its address on, to (blocks, steps).
///
/// # Safety
/// The CPU has AVX-512 F, BW and VNNI, and what `digits` needs; everything is inlined into the
/// caller. There are as many blocks at each address. Those at `ahead`, which are prefetched, need
/// not exist.
#[inline(always)]
unsafe fn unpack<const STEPS: usize>(
    blocks: usize,
    row: impl Fn(usize) -> *const [u8; BLOCK_BYTES],
    digits: impl Fn(__m512i) -> [__m512i; STEPS],
    to: &mut [__m512i],
    ahead: *const u8,
) {
    let of_blocks = to
        .as_chunks_mut::<{ Rows16::DIGIT_STEPS }>()
        .0
        .as_chunks_mut::<STEPS>()
        .0;
    for (b, to) in of_blocks.iter_mut().enumerate().take(blocks) {
        for line in (0..AHEAD).step_by(64) {
            prefetch_second(ahead.wrapping_add(b * AHEAD + line));
        }
        // SAFETY: the caller has the instruction sets, and there is the block.
        let columns = unsafe { columns(pairs(|r| &*row(r).add(b))) };
        for (d, bytes) in columns.into_iter().enumerate() {
            for (n, digits) in digits(bytes).into_iter().enumerate() {
                to[n][d] = digits;
            }
        }
    }
}
