//! Ternary products of several tokens with rows in the lanes of registers, written once for the
//! instruction sets that add four products of bytes to each 32-bit lane.
//!
//! A register of digits (trit + 1) has four columns of as many rows as it has lanes. Four
//! activations, broadcast straight from their int8 rows, meet all of them, so no sum is ever taken
//! across lanes. The sums begin at −Σ q, since digits are one more than trits. Packed bytes are put
//! side by side before they are unpacked: eight registers, each with four bytes of every row, give
//! `STEPS` registers of digits each. So the transposition costs a quarter or a fifth of what it
//! would cost for digits.
//!
//! Some tokens ([`few`]): digits are multiplied as soon as they are unpacked. The sums of a tile,
//! one register of rows by at most eight tokens, stay in registers for all columns.
//!
//! Many tokens ([`product`]): a *panel*, [`PANEL_ROWS`] rows, is unpacked once into the
//! second-level cache, and all tokens pass over it in tiles of several registers of rows by at most
//! six tokens. A load of digits serves all tokens of the tile, and a broadcast of activations all
//! of its rows.

use std::cell::RefCell;
use std::ops::Range;

use sterna_ternary::packing::BLOCK_BYTES;

use super::shape::{GemmShape, Operands};

/// Rows of a panel.
pub(super) const PANEL_ROWS: usize = 64;
/// Steps of a block and of one digit of its bytes, each four columns.
pub(super) const DIGIT_STEPS: usize = BLOCK_BYTES / 4;
/// Most lanes of a register.
pub(super) const MOST_LANES: usize = 16;
/// Most blocks of a panel: 512 KiB of the second-level cache for `i2`.
const FAR_BLOCKS: usize = 64;

/// How an instruction set multiplies digits.
///
/// # Safety
/// Every function of this trait may be called only on a CPU that has the instruction set of the
/// implementing type.
pub(super) trait Lanes: Copy {
    /// A register with a 32-bit lane for each row: a sum, or the bytes of four columns.
    type Register: Copy;
    /// Rows of a register.
    const ROWS: usize;

    /// `value` in every lane.
    unsafe fn splat(self, value: i32) -> Self::Register;

    /// Writes one sum for each lane.
    unsafe fn store(self, sums: Self::Register, to: &mut [i32]);

    /// Adds the products of four columns with four activations to each lane.
    unsafe fn dot(self, sums: Self::Register, digits: Self::Register, q: [i8; 4])
    -> Self::Register;

    /// Puts a block of every row side by side: register d has bytes 4d to 4d + 3 of each row.
    unsafe fn side_by_side<'a>(
        self,
        row: impl Fn(usize) -> &'a [u8; BLOCK_BYTES],
    ) -> [Self::Register; DIGIT_STEPS];

    /// [`direct`], as a function of its own, which has all registers for itself.
    unsafe fn direct<const TOKENS: usize, const STEPS: usize>(
        self,
        rows: &[&[[u8; BLOCK_BYTES]]; MOST_LANES],
        q: [&[[[[i8; 4]; DIGIT_STEPS]; STEPS]]; TOKENS],
        digits: impl Fn(Self::Register) -> [Self::Register; STEPS] + Copy,
        sums: &mut [Self::Register; TOKENS],
        ahead: Ahead,
    );

    /// a + b of each lane.
    unsafe fn plus(self, a: Self::Register, b: Self::Register) -> Self::Register;

    /// Asks the second-level cache for the line at `at`, an address that need not be valid.
    unsafe fn prefetch(self, at: *const u8);
}

/// How an instruction set multiplies panels.
///
/// # Safety
/// That of [`Lanes`].
pub(super) trait PanelLanes: Lanes {
    /// Reads one sum for each lane.
    unsafe fn load(self, from: &[i32]) -> Self::Register;

    /// [`add`], as a function of its own, which has all registers for itself.
    unsafe fn add<const REGISTERS: usize, const TOKENS: usize>(
        self,
        digits: &[Self::Register],
        q: [&[[i8; 4]]; TOKENS],
        sums: &mut [[Self::Register; REGISTERS]; TOKENS],
        ahead: Ahead,
    );
}

/// A cache line of a panel.
#[derive(Clone, Copy)]
#[repr(align(64))]
struct Line(#[allow(dead_code)] [u8; 64]);

thread_local! {
    static PANEL: RefCell<Vec<Line>> = const { RefCell::new(Vec::new()) };
}

/// The product of two or more tokens, in tiles of `REGISTERS` registers of rows by at most six
/// tokens. `digits` unpacks the `STEPS` digits of each byte.
///
/// # Safety
/// The CPU has the instruction set of `lanes` and that of `digits`; everything is inlined into the
/// caller.
#[inline(always)]
pub(super) unsafe fn product<const REGISTERS: usize, const STEPS: usize, L: PanelLanes>(
    operands: Operands,
    sums: &mut [i32],
    lanes: L,
    digits: impl Fn(L::Register) -> [L::Register; STEPS] + Copy,
) {
    let GemmShape { rows, blocks, .. } = operands.shape;
    let stretch = FAR_BLOCKS.min(blocks);
    let bytes = stretch * BLOCK_BYTES * STEPS * PANEL_ROWS;
    // The lines are taken out, since code in a closure would not have the instruction set.
    let mut memory = PANEL.take();
    memory.resize(
        memory.len().max(bytes.div_ceil(size_of::<Line>())),
        Line([0; 64]),
    );
    // SAFETY: the lines have as many bytes, are aligned for every register, and any bytes are a
    // register.
    let of_panel: &mut [L::Register] = unsafe {
        let registers = bytes / size_of::<L::Register>();
        std::slice::from_raw_parts_mut(memory.as_mut_ptr().cast(), registers)
    };
    let mut panel = Panel::<REGISTERS, STEPS, L> {
        operands,
        lanes,
        digits: of_panel,
        first: 0,
        blocks: 0..0,
    };
    for first in (0..rows).step_by(PANEL_ROWS) {
        for start in (0..blocks).step_by(stretch) {
            panel.first = first;
            panel.blocks = start..blocks.min(start + stretch);
            // SAFETY: the caller has the instruction sets.
            unsafe {
                panel.fill(digits);
                panel.multiply(sums);
            }
        }
    }
    PANEL.set(memory);
}

/// The product of two or more tokens without a panel: all digits are multiplied as soon as they are
/// unpacked, in tiles of one register of rows by at most eight tokens.
///
/// # Safety
/// The CPU has the instruction set of `lanes` and that of `digits`; everything is inlined into the
/// caller.
#[inline(always)]
pub(super) unsafe fn few<const STEPS: usize, L: Lanes>(
    operands: Operands,
    sums: &mut [i32],
    lanes: L,
    digits: impl Fn(L::Register) -> [L::Register; STEPS] + Copy,
) {
    let GemmShape {
        tokens,
        rows,
        blocks,
    } = operands.shape;
    let (packed, _) = operands.rows.as_chunks::<BLOCK_BYTES>(); // (rows, blocks)
    for first in (0..rows).step_by(L::ROWS) {
        let mut of_lanes = [packed; MOST_LANES];
        for (r, row) in (first..).zip(&mut of_lanes) {
            *row = &packed[r.min(rows - 1) * blocks..][..blocks];
        }
        let tile = DirectTile {
            operands,
            rows: of_lanes,
            first,
        };
        let mut t = 0;
        while t < tokens {
            let count = part(tokens - t, DIRECT_TOKENS);
            // SAFETY: the caller has the instruction sets.
            unsafe {
                match count {
                    1 => tile.multiply::<1, _, _>(t, sums, lanes, digits),
                    2 => tile.multiply::<2, _, _>(t, sums, lanes, digits),
                    3 => tile.multiply::<3, _, _>(t, sums, lanes, digits),
                    4 => tile.multiply::<4, _, _>(t, sums, lanes, digits),
                    5 => tile.multiply::<5, _, _>(t, sums, lanes, digits),
                    6 => tile.multiply::<6, _, _>(t, sums, lanes, digits),
                    7 => tile.multiply::<7, _, _>(t, sums, lanes, digits),
                    _ => tile.multiply::<DIRECT_TOKENS, _, _>(t, sums, lanes, digits),
                }
            }
            t += count;
        }
    }
}

/// The first of the fewest parts of at most `most` tokens, all of them of equal size or one less.
fn part(tokens: usize, most: usize) -> usize {
    tokens.div_ceil(tokens.div_ceil(most))
}

/// Most tokens of a tile whose digits go straight from their unpacking to the products.
const DIRECT_TOKENS: usize = 8;

/// A register of rows.
struct DirectTile<'a> {
    operands: Operands<'a>,
    /// The blocks of each row; after the last row, that row is repeated.
    rows: [&'a [[u8; BLOCK_BYTES]]; MOST_LANES],
    first: usize,
}

impl DirectTile<'_> {
    /// Multiplies with `TOKENS` tokens from `t` on. `sums` is (all tokens, all rows).
    ///
    /// # Safety
    /// The CPU has the instruction sets of `lanes` and of `digits`.
    #[inline(always)]
    unsafe fn multiply<const TOKENS: usize, const STEPS: usize, L: Lanes>(
        &self,
        t: usize,
        sums: &mut [i32],
        lanes: L,
        digits: impl Fn(L::Register) -> [L::Register; STEPS] + Copy,
    ) {
        let Operands {
            shape, q, q_sums, ..
        } = self.operands;
        let (q, _) = q.as_chunks::<4>();
        let (q, _) = q.as_chunks::<DIGIT_STEPS>();
        let (q, _) = q.as_chunks::<STEPS>(); // (tokens, blocks)
        let q = std::array::from_fn(|i| &q[(t + i) * shape.blocks..][..shape.blocks]);
        // The first tokens ask for the rows after these, in the order of their bytes.
        let bytes = L::ROWS * BLOCK_BYTES;
        let ahead = Ahead {
            start: self.rows[0]
                .as_ptr()
                .cast::<u8>()
                .wrapping_add(bytes * shape.blocks),
            step: if t == 0 { bytes } else { 0 },
        };
        let there = L::ROWS.min(shape.rows - self.first);
        // SAFETY: the caller has the instruction sets.
        unsafe {
            let mut tile: [L::Register; TOKENS] =
                std::array::from_fn(|i| lanes.splat(-q_sums[t + i]));
            lanes.direct(&self.rows, q, digits, &mut tile, ahead);
            for (i, tile) in tile.into_iter().enumerate() {
                write(
                    lanes,
                    [tile],
                    &mut sums[(t + i) * shape.rows + self.first..][..there],
                );
            }
        }
    }
}

/// Adds all blocks of some rows to the sums of `TOKENS` tokens. `ahead` are bytes that the
/// second-level cache is asked for on the way, some for each block.
///
/// # Safety
/// The CPU has the instruction set of the lanes and that of `digits`; everything is inlined into
/// the caller.
#[inline(always)]
pub(super) unsafe fn direct<const TOKENS: usize, const STEPS: usize, L: Lanes>(
    lanes: L,
    rows: &[&[[u8; BLOCK_BYTES]]; MOST_LANES],
    q: [&[[[[i8; 4]; DIGIT_STEPS]; STEPS]]; TOKENS],
    digits: impl Fn(L::Register) -> [L::Register; STEPS] + Copy,
    sums: &mut [L::Register; TOKENS],
    ahead: Ahead,
) {
    let blocks = rows[0].len();
    assert!(rows.iter().all(|row| row.len() == blocks));
    assert!(q.iter().all(|q| q.len() == blocks));
    // Up to four tokens have two sums each: a product takes as long as four need to begin.
    let mut registers = [*sums; 2];
    // SAFETY: the caller has the instruction sets, and rows and tokens have as many blocks.
    unsafe {
        registers[1] = [lanes.splat(0); TOKENS];
        for b in 0..blocks {
            if ahead.step > 0 {
                for line in (0..ahead.step).step_by(64) {
                    lanes.prefetch(ahead.start.wrapping_add(b * ahead.step + line));
                }
            }
            let bytes = lanes.side_by_side(|r| rows[r].get_unchecked(b));
            for (d, bytes) in bytes.into_iter().enumerate() {
                for (n, digits) in digits(bytes).into_iter().enumerate() {
                    let registers = &mut registers[if TOKENS <= 4 { n % 2 } else { 0 }];
                    for t in 0..TOKENS {
                        let q = q[t].get_unchecked(b)[n][d];
                        registers[t] = lanes.dot(registers[t], digits, q);
                    }
                }
            }
        }
        for (t, sum) in sums.iter_mut().enumerate() {
            *sum = lanes.plus(registers[0][t], registers[1][t]);
        }
    }
}

/// Most tokens of a tile.
const TILE_TOKENS: usize = 6;

/// Some blocks of [`PANEL_ROWS`] rows.
struct Panel<'a, const REGISTERS: usize, const STEPS: usize, L: Lanes> {
    operands: Operands<'a>,
    lanes: L,
    /// (groups of `REGISTERS` registers, steps, `REGISTERS`)
    digits: &'a mut [L::Register],
    /// The first row.
    first: usize,
    blocks: Range<usize>,
}

impl<const REGISTERS: usize, const STEPS: usize, L: PanelLanes> Panel<'_, REGISTERS, STEPS, L> {
    /// Rows of a tile.
    const TILE_ROWS: usize = REGISTERS * L::ROWS;

    /// Steps of four columns.
    fn steps(&self) -> usize {
        self.blocks.len() * STEPS * DIGIT_STEPS
    }

    /// Unpacks the rows. After the last row, that row is repeated.
    ///
    /// # Safety
    /// The CPU has the instruction sets of the lanes and of `digits`.
    #[inline(always)]
    unsafe fn fill(&mut self, digits: impl Fn(L::Register) -> [L::Register; STEPS]) {
        let GemmShape { rows, blocks, .. } = self.operands.shape;
        let (packed, _) = self.operands.rows.as_chunks::<BLOCK_BYTES>(); // (rows, blocks)
        let steps = self.steps();
        for register in 0..PANEL_ROWS / L::ROWS {
            let first = self.first + register * L::ROWS;
            if first >= rows {
                break;
            }
            let (group, register) = (register / REGISTERS, register % REGISTERS);
            let to = &mut self.digits[group * steps * REGISTERS..][..steps * REGISTERS];
            let (of_blocks, _) = to.as_chunks_mut::<REGISTERS>();
            let of_blocks = of_blocks.chunks_exact_mut(STEPS * DIGIT_STEPS);
            for (b, to) in self.blocks.clone().zip(of_blocks) {
                let row = |r: usize| &packed[(first + r).min(rows - 1) * blocks + b];
                // SAFETY: the caller has the instruction sets.
                let bytes = unsafe { self.lanes.side_by_side(row) };
                for (d, bytes) in bytes.into_iter().enumerate() {
                    for (n, digits) in digits(bytes).into_iter().enumerate() {
                        to[n * DIGIT_STEPS + d][register] = digits;
                    }
                }
            }
        }
    }

    /// Multiplies with all tokens. `sums` is (all tokens, all rows).
    ///
    /// # Safety
    /// The CPU has the instruction set of the lanes.
    #[inline(always)]
    unsafe fn multiply(&self, sums: &mut [i32]) {
        let tokens = self.operands.shape.tokens;
        let mut t = 0;
        while t < tokens {
            let count = part(tokens - t, TILE_TOKENS);
            // SAFETY: the caller has the instruction set.
            unsafe {
                match count {
                    1 => self.tiles::<1>(t, sums),
                    2 => self.tiles::<2>(t, sums),
                    3 => self.tiles::<3>(t, sums),
                    4 => self.tiles::<4>(t, sums),
                    5 => self.tiles::<5>(t, sums),
                    _ => self.tiles::<TILE_TOKENS>(t, sums),
                }
            }
            t += count;
        }
    }

    /// Multiplies with `TOKENS` tokens from `t` on.
    ///
    /// # Safety
    /// The CPU has the instruction set of the lanes.
    #[inline(always)]
    unsafe fn tiles<const TOKENS: usize>(&self, t: usize, sums: &mut [i32]) {
        let GemmShape { rows, blocks, .. } = self.operands.shape;
        let steps = self.steps();
        let (q, _) = self.operands.q.as_chunks::<4>();
        let q: [&[[i8; 4]]; TOKENS] = std::array::from_fn(|i| {
            let token = &q[(t + i) * blocks * STEPS * DIGIT_STEPS..];
            &token[self.blocks.start * STEPS * DIGIT_STEPS..][..steps]
        });
        // The first tile asks for the panel after this one, in the order of its bytes.
        let panel_bytes = PANEL_ROWS * blocks * BLOCK_BYTES;
        let next = self.operands.rows.as_ptr();
        let next = next.wrapping_add((self.first / PANEL_ROWS + 1) * panel_bytes);
        let next = next.wrapping_add(self.blocks.start * PANEL_ROWS * BLOCK_BYTES);
        for (group, first) in (self.first..rows.min(self.first + PANEL_ROWS))
            .step_by(Self::TILE_ROWS)
            .enumerate()
        {
            let digits = &self.digits[group * steps * REGISTERS..][..steps * REGISTERS];
            let tile_bytes = self.blocks.len() * Self::TILE_ROWS * BLOCK_BYTES;
            let ahead = Ahead {
                start: next.wrapping_add(group * tile_bytes),
                step: match t {
                    0 => Self::TILE_ROWS * BLOCK_BYTES / (STEPS * DIGIT_STEPS),
                    _ => 0,
                },
            };
            let there = Self::TILE_ROWS.min(rows - first);
            // SAFETY: the caller has the instruction set.
            unsafe {
                let mut tile = [[self.lanes.splat(0); REGISTERS]; TOKENS];
                for (i, tile) in tile.iter_mut().enumerate() {
                    if self.blocks.start == 0 {
                        let q_sum = self.operands.q_sums[t + i];
                        *tile = [self.lanes.splat(-q_sum); REGISTERS];
                    } else {
                        let sums = &sums[(t + i) * rows + first..][..there];
                        *tile = read(self.lanes, sums);
                    }
                }
                self.lanes.add(digits, q, &mut tile, ahead);
                for (i, tile) in tile.into_iter().enumerate() {
                    let sums = &mut sums[(t + i) * rows + first..][..there];
                    write(self.lanes, tile, sums);
                }
            }
        }
    }
}

/// Adds all steps of some digits (steps, `REGISTERS`) to the sums of `TOKENS` tokens. `ahead` are
/// bytes that the second-level cache is asked for on the way, some for each step.
///
/// # Safety
/// The CPU has the instruction set of the lanes; everything is inlined into the caller.
#[inline(always)]
pub(super) unsafe fn add<const REGISTERS: usize, const TOKENS: usize, L: PanelLanes>(
    lanes: L,
    digits: &[L::Register],
    q: [&[[i8; 4]]; TOKENS],
    sums: &mut [[L::Register; REGISTERS]; TOKENS],
    ahead: Ahead,
) {
    let (digits, _) = digits.as_chunks::<REGISTERS>();
    for q in q {
        assert!(q.len() == digits.len());
    }
    let mut registers = *sums;
    for (s, digits) in digits.iter().enumerate() {
        let digits = *digits;
        // SAFETY: the caller has the instruction set, and there are as many steps of each token.
        unsafe {
            lanes.prefetch(ahead.start.wrapping_add(s * ahead.step));
            for t in 0..TOKENS {
                let q = *q[t].get_unchecked(s);
                for r in 0..REGISTERS {
                    registers[t][r] = lanes.dot(registers[t][r], digits[r], q);
                }
            }
        }
    }
    *sums = registers;
}

/// Bytes that are read soon: `step` more at each step. They need not exist.
#[derive(Clone, Copy)]
pub(super) struct Ahead {
    pub start: *const u8,
    pub step: usize,
}

/// Reads the sums of rows, whose last register may have fewer rows than lanes.
///
/// # Safety
/// The CPU has the instruction set of the lanes.
#[inline(always)]
unsafe fn read<const REGISTERS: usize, L: PanelLanes>(
    lanes: L,
    sums: &[i32],
) -> [L::Register; REGISTERS] {
    // SAFETY: the caller has the instruction set.
    let mut registers = [unsafe { lanes.splat(0) }; REGISTERS];
    for (register, sums) in registers.iter_mut().zip(sums.chunks(L::ROWS)) {
        let mut padded = [0; MOST_LANES];
        padded[..sums.len()].copy_from_slice(sums);
        // SAFETY: the caller has the instruction set.
        *register = unsafe { lanes.load(&padded[..L::ROWS]) };
    }
    registers
}

/// Writes the sums of rows, whose last register may have fewer rows than lanes.
///
/// # Safety
/// The CPU has the instruction set of the lanes.
#[inline(always)]
unsafe fn write<const REGISTERS: usize, L: Lanes>(
    lanes: L,
    registers: [L::Register; REGISTERS],
    sums: &mut [i32],
) {
    for (register, sums) in registers.into_iter().zip(sums.chunks_mut(L::ROWS)) {
        let mut padded = [0; MOST_LANES];
        // SAFETY: the caller has the instruction set.
        unsafe {
            if sums.len() == L::ROWS {
                lanes.store(register, sums);
            } else {
                lanes.store(register, &mut padded[..L::ROWS]);
                sums.copy_from_slice(&padded[..sums.len()]);
            }
        }
    }
}
