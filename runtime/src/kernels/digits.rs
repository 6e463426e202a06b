//! Ternary products of several tokens with rows in the lanes of registers, written once for the
//! instruction sets that add four or eight products of bytes to each 32-bit lane.
//!
//! A register of digits (trit + 1) has a *step*, four columns, of as many rows as it has lanes.
//! Four activations, straight from their int8 rows, meet all of them, so no sum is ever taken
//! across lanes. The sums begin at −Σ q, since digits are one more than trits. Packed bytes are put
//! side by side before they are unpacked: each register of bytes gives `STEPS` registers of digits.
//! So the transposition costs a quarter or a fifth of what it would cost for digits.
//!
//! A matrix product (`smmla` of Arm) has steps of eight columns and lanes for two tokens, whose
//! activations are put side by side first. Tokens that share a register of sums are a *set*.
//!
//! Some tokens ([`few`]): digits are multiplied as soon as they are unpacked. The sums of a tile,
//! one register of rows by at most eight sets, stay in registers for all columns.
//!
//! Many tokens ([`product`]): a *panel*, [`PANEL_ROWS`] rows, is unpacked once into the
//! second-level cache, and all tokens pass over it in tiles of several registers of rows by at most
//! six sets. A load of digits serves all tokens of the tile, and a load of activations all of its
//! rows.

use std::cell::RefCell;
use std::ops::Range;

use bytemuck::Pod;
use sterna_ternary::packing::BLOCK_BYTES;

use super::prefetch::prefetch_second;
use super::shape::{GemmShape, Operands};

/// Rows of a panel.
pub(super) const PANEL_ROWS: usize = 64;
/// Most rows of a register.
pub(super) const MOST_ROWS: usize = 16;
/// Most tokens of a set.
pub(super) const MOST_TOKENS: usize = 2;
/// Most blocks of a panel: 512 KiB of the second-level cache for `i2`.
const FAR_BLOCKS: usize = 64;

/// How an instruction set multiplies digits.
///
/// # Safety
/// Every function of this trait may be called only on a CPU that has the instruction set of the
/// implementing type.
pub(super) trait Lanes: Copy {
    /// The bytes of a step of `ROWS` rows, or a 32-bit sum for each row and each token of a set.
    type Register: Copy;
    /// The activations of a step of a set.
    type Activations: Pod;
    /// The bytes of a block of `ROWS` rows, in steps.
    type Block: IntoIterator<Item = Self::Register>;
    /// Rows of a register.
    const ROWS: usize;
    /// Tokens of a set.
    const TOKENS: usize;
    /// Columns of a step.
    const COLUMNS: usize = size_of::<Self::Activations>() / Self::TOKENS;
    /// Steps of a block and of one digit of its bytes.
    const DIGIT_STEPS: usize = BLOCK_BYTES / Self::COLUMNS;

    /// Sums that begin with the value of each token of a set.
    unsafe fn start(self, values: [i32; MOST_TOKENS]) -> Self::Register;

    /// Writes the sums of one token of a set.
    unsafe fn store(self, sums: Self::Register, token: usize, to: &mut [i32]);

    /// Puts a block of every row side by side.
    unsafe fn side_by_side<'a>(self, row: impl Fn(usize) -> &'a [u8; BLOCK_BYTES]) -> Self::Block;

    /// Adds all blocks of some rows to the sums of `SETS` sets of tokens, in a function of its own,
    /// which has all registers for itself. Rows and sets have as many blocks; `ahead` are bytes
    /// that are prefetched on the way, some for each block.
    unsafe fn direct<const SETS: usize, const STEPS: usize>(
        self,
        rows: &[&[[u8; BLOCK_BYTES]]; MOST_ROWS],
        q: [&[Self::Activations]; SETS],
        digits: impl Fn(Self::Register) -> [Self::Register; STEPS] + Copy,
        sums: &mut [Self::Register; SETS],
        ahead: Ahead,
    );
}

/// How an instruction set multiplies panels.
///
/// # Safety
/// That of [`Lanes`].
pub(super) trait PanelLanes: Lanes {
    /// Adds all steps of some digits (steps, `REGISTERS`) to the sums of `SETS` sets of tokens, in
    /// a function of its own, which has all registers for itself. `ahead` are bytes that are
    /// prefetched on the way, some for each step.
    unsafe fn add<const REGISTERS: usize, const SETS: usize>(
        self,
        digits: &[Self::Register],
        q: [&[Self::Activations]; SETS],
        sums: &mut [[Self::Register; REGISTERS]; SETS],
        ahead: Ahead,
    );
}

/// What the loops [`direct`] and [`add`] need of an instruction set.
///
/// # Safety
/// That of [`Lanes`].
pub(super) trait Dot: Lanes {
    /// Adds the products of a step to each lane.
    unsafe fn dot(
        self,
        sums: Self::Register,
        digits: Self::Register,
        q: Self::Activations,
    ) -> Self::Register;

    /// a + b of each lane.
    unsafe fn plus(self, a: Self::Register, b: Self::Register) -> Self::Register;
}

/// A cache line of a panel.
#[derive(Clone, Copy)]
#[repr(align(64))]
pub(super) struct Line(#[allow(dead_code)] [u8; 64]);

impl Line {
    /// `n` registers, or arrays of them, in memory that grows if need be. Their content is
    /// unspecified.
    ///
    /// # Safety
    /// Any bytes are a `T`.
    pub unsafe fn registers<T: Copy>(memory: &mut Vec<Line>, n: usize) -> &mut [T] {
        const { assert!(align_of::<T>() <= align_of::<Line>()) };
        let lines = (n * size_of::<T>()).div_ceil(size_of::<Line>());
        memory.resize(memory.len().max(lines), Line([0; 64]));
        // SAFETY: the lines have as many bytes and are aligned, and any bytes are a `T`.
        unsafe { std::slice::from_raw_parts_mut(memory.as_mut_ptr().cast(), n) }
    }
}

thread_local! {
    static PANEL: RefCell<Vec<Line>> = const { RefCell::new(Vec::new()) };
    static SETS: RefCell<Vec<i8>> = const { RefCell::new(Vec::new()) };
}

/// The activations in sets of tokens (sets, steps, tokens, columns of a step), the last set filled
/// up with zeros. Sets of one token are the activations themselves.
#[inline(always)]
fn in_sets<'a, L: Lanes>(operands: Operands<'a>, memory: &'a mut Vec<i8>) -> &'a [L::Activations] {
    if L::TOKENS == 1 {
        return bytemuck::cast_slice(operands.q);
    }
    let columns = operands.q.len() / operands.shape.tokens;
    let bytes = operands.shape.tokens.next_multiple_of(L::TOKENS) * columns;
    memory.resize(memory.len().max(bytes), 0);
    let of_sets = memory[..bytes].chunks_exact_mut(L::TOKENS * columns);
    for (to, from) in of_sets.zip(operands.q.chunks(L::TOKENS * columns)) {
        to.fill(0);
        for (t, token) in from.chunks_exact(columns).enumerate() {
            let steps = to.chunks_exact_mut(L::TOKENS * L::COLUMNS);
            for (to, step) in steps.zip(token.chunks_exact(L::COLUMNS)) {
                to[t * L::COLUMNS..][..L::COLUMNS].copy_from_slice(step);
            }
        }
    }
    bytemuck::cast_slice(&memory[..bytes])
}

/// What the sums of a set begin with: −Σ q of each token.
#[inline(always)]
fn minus_sums<L: Lanes>(q_sums: &[i32], set: usize) -> [i32; MOST_TOKENS] {
    let mut values = [0; MOST_TOKENS];
    for (value, q_sum) in values.iter_mut().zip(&q_sums[set * L::TOKENS..]) {
        *value = -q_sum;
    }
    values
}

/// The product of two or more tokens, in tiles of `REGISTERS` registers of rows by at most six
/// sets. `digits` unpacks the `STEPS` digits of each byte.
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
    let registers = stretch * BLOCK_BYTES * STEPS * PANEL_ROWS / size_of::<L::Register>();
    // The memory is taken out, since code in a closure would not have the instruction set.
    let (mut memory, mut sets) = (PANEL.take(), SETS.take());
    // SAFETY: registers are vectors of integers.
    let of_panel = unsafe { Line::registers(&mut memory, registers) };
    let mut panel = Panel::<REGISTERS, STEPS, L> {
        operands,
        q: in_sets::<L>(operands, &mut sets),
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
    SETS.set(sets);
}

/// The product of two or more tokens without a panel: all digits are multiplied as soon as they are
/// unpacked, in tiles of one register of rows by at most eight sets.
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
    let mut memory = SETS.take();
    let q = in_sets::<L>(operands, &mut memory);
    let sets = tokens.div_ceil(L::TOKENS);
    for first in (0..rows).step_by(L::ROWS) {
        let mut of_lanes = [packed; MOST_ROWS];
        for (r, row) in (first..).zip(&mut of_lanes) {
            *row = &packed[r.min(rows - 1) * blocks..][..blocks];
        }
        let tile = DirectTile::<L> {
            operands,
            q,
            rows: of_lanes,
            first,
        };
        let mut set = 0;
        while set < sets {
            let count = part(sets - set, DIRECT_SETS);
            // SAFETY: the caller has the instruction sets.
            unsafe {
                match count {
                    1 => tile.multiply::<1, _>(set, sums, lanes, digits),
                    2 => tile.multiply::<2, _>(set, sums, lanes, digits),
                    3 => tile.multiply::<3, _>(set, sums, lanes, digits),
                    4 => tile.multiply::<4, _>(set, sums, lanes, digits),
                    5 => tile.multiply::<5, _>(set, sums, lanes, digits),
                    6 => tile.multiply::<6, _>(set, sums, lanes, digits),
                    7 => tile.multiply::<7, _>(set, sums, lanes, digits),
                    _ => tile.multiply::<DIRECT_SETS, _>(set, sums, lanes, digits),
                }
            }
            set += count;
        }
    }
    SETS.set(memory);
}

/// The first of the fewest parts of at most `most` sets, all of them of equal size or one less.
pub(super) fn part(sets: usize, most: usize) -> usize {
    sets.div_ceil(sets.div_ceil(most))
}

/// Most sets of a tile whose digits go straight from their unpacking to the products.
const DIRECT_SETS: usize = 8;

/// A register of rows.
struct DirectTile<'a, L: Lanes> {
    operands: Operands<'a>,
    q: &'a [L::Activations], // (sets, steps)
    /// The blocks of each row; after the last row, that row is repeated.
    rows: [&'a [[u8; BLOCK_BYTES]]; MOST_ROWS],
    first: usize,
}

impl<L: Lanes> DirectTile<'_, L> {
    /// Multiplies with `SETS` sets from `set` on. `sums` is (all tokens, all rows).
    ///
    /// # Safety
    /// The CPU has the instruction sets of `lanes` and of `digits`.
    #[inline(always)]
    unsafe fn multiply<const SETS: usize, const STEPS: usize>(
        &self,
        set: usize,
        sums: &mut [i32],
        lanes: L,
        digits: impl Fn(L::Register) -> [L::Register; STEPS] + Copy,
    ) {
        let Operands { shape, q_sums, .. } = self.operands;
        let steps = shape.blocks * STEPS * L::DIGIT_STEPS;
        let q = std::array::from_fn(|i| &self.q[(set + i) * steps..][..steps]);
        // The first tokens ask for the rows after these, in the order of their bytes.
        let bytes = L::ROWS * BLOCK_BYTES;
        let ahead = Ahead {
            start: self.rows[0]
                .as_ptr()
                .cast::<u8>()
                .wrapping_add(bytes * shape.blocks),
            step: if set == 0 { bytes } else { 0 },
        };
        // SAFETY: the caller has the instruction sets.
        unsafe {
            let mut tile: [L::Register; SETS] =
                std::array::from_fn(|i| lanes.start(minus_sums::<L>(q_sums, set + i)));
            lanes.direct(&self.rows, q, digits, &mut tile, ahead);
            for (i, tile) in tile.into_iter().enumerate() {
                write(lanes, [tile], set + i, shape, self.first, false, sums);
            }
        }
    }
}

/// [`Lanes::direct`] for an instruction set with [`Dot`].
///
/// # Safety
/// The CPU has the instruction set of the lanes and that of `digits`; everything is inlined into
/// the caller.
#[inline(always)]
pub(super) unsafe fn direct<const SETS: usize, const STEPS: usize, L: Dot>(
    lanes: L,
    rows: &[&[[u8; BLOCK_BYTES]]; MOST_ROWS],
    q: [&[L::Activations]; SETS],
    digits: impl Fn(L::Register) -> [L::Register; STEPS] + Copy,
    sums: &mut [L::Register; SETS],
    ahead: Ahead,
) {
    let blocks = same_blocks::<SETS, STEPS, L>(rows, q);
    // Up to four sets have two sums each: a product takes as long as four need to begin.
    let mut registers = [*sums; 2];
    // SAFETY: the caller has the instruction sets, and rows and sets have as many blocks.
    unsafe {
        registers[1] = [lanes.start([0; MOST_TOKENS]); SETS];
        for b in 0..blocks {
            ahead.prefetch::<L>(b);
            let bytes = lanes.side_by_side(|r| rows[r].get_unchecked(b));
            for (d, bytes) in bytes.into_iter().enumerate() {
                for (n, digits) in digits(bytes).into_iter().enumerate() {
                    let registers = &mut registers[if SETS <= 4 { n % 2 } else { 0 }];
                    for t in 0..SETS {
                        let q = q[t].get_unchecked((b * STEPS + n) * L::DIGIT_STEPS + d);
                        registers[t] = lanes.dot(registers[t], digits, *q);
                    }
                }
            }
        }
        for (t, sum) in sums.iter_mut().enumerate() {
            *sum = lanes.plus(registers[0][t], registers[1][t]);
        }
    }
}

/// The blocks of every row and of every set.
///
/// # Panics
/// If they are not equally many.
#[inline(always)]
pub(super) fn same_blocks<const SETS: usize, const STEPS: usize, L: Lanes>(
    rows: &[&[[u8; BLOCK_BYTES]]; MOST_ROWS],
    q: [&[L::Activations]; SETS],
) -> usize {
    let blocks = rows[0].len();
    assert!(rows.iter().all(|row| row.len() == blocks));
    assert!(q.iter().all(|q| q.len() == blocks * STEPS * L::DIGIT_STEPS));
    blocks
}

/// Most sets of a tile.
const TILE_SETS: usize = 6;

/// Some blocks of [`PANEL_ROWS`] rows.
struct Panel<'a, const REGISTERS: usize, const STEPS: usize, L: Lanes> {
    operands: Operands<'a>,
    q: &'a [L::Activations], // (sets, all steps)
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

    /// Steps of a block.
    const BLOCK_STEPS: usize = STEPS * L::DIGIT_STEPS;

    fn steps(&self) -> usize {
        self.blocks.len() * Self::BLOCK_STEPS
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
            let of_blocks = of_blocks.chunks_exact_mut(Self::BLOCK_STEPS);
            for (b, to) in self.blocks.clone().zip(of_blocks) {
                let row = |r: usize| &packed[(first + r).min(rows - 1) * blocks + b];
                // SAFETY: the caller has the instruction sets.
                let bytes = unsafe { self.lanes.side_by_side(row) };
                for (d, bytes) in bytes.into_iter().enumerate() {
                    for (n, digits) in digits(bytes).into_iter().enumerate() {
                        to[n * L::DIGIT_STEPS + d][register] = digits;
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
        let sets = self.operands.shape.tokens.div_ceil(L::TOKENS);
        let mut set = 0;
        while set < sets {
            let count = part(sets - set, TILE_SETS);
            // SAFETY: the caller has the instruction set.
            unsafe {
                match count {
                    1 => self.tiles::<1>(set, sums),
                    2 => self.tiles::<2>(set, sums),
                    3 => self.tiles::<3>(set, sums),
                    4 => self.tiles::<4>(set, sums),
                    5 => self.tiles::<5>(set, sums),
                    _ => self.tiles::<TILE_SETS>(set, sums),
                }
            }
            set += count;
        }
    }

    /// Multiplies with `SETS` sets from `set` on.
    ///
    /// # Safety
    /// The CPU has the instruction set of the lanes.
    #[inline(always)]
    unsafe fn tiles<const SETS: usize>(&self, set: usize, sums: &mut [i32]) {
        let Operands { shape, q_sums, .. } = self.operands;
        let GemmShape { rows, blocks, .. } = shape;
        let steps = self.steps();
        let q: [&[L::Activations]; SETS] = std::array::from_fn(|i| {
            let set = &self.q[(set + i) * blocks * Self::BLOCK_STEPS..];
            &set[self.blocks.start * Self::BLOCK_STEPS..][..steps]
        });
        // The first tile asks for the panel after this one, in the order of its bytes.
        let panel_bytes = PANEL_ROWS * blocks * BLOCK_BYTES;
        let next = self.operands.rows.as_ptr();
        let next = next.wrapping_add((self.first / PANEL_ROWS + 1) * panel_bytes);
        let next = next.wrapping_add(self.blocks.start * PANEL_ROWS * BLOCK_BYTES);
        let begun = self.blocks.start > 0;
        for (group, first) in (self.first..rows.min(self.first + PANEL_ROWS))
            .step_by(Self::TILE_ROWS)
            .enumerate()
        {
            let digits = &self.digits[group * steps * REGISTERS..][..steps * REGISTERS];
            let tile_bytes = self.blocks.len() * Self::TILE_ROWS * BLOCK_BYTES;
            let ahead = Ahead {
                start: next.wrapping_add(group * tile_bytes),
                step: match set {
                    0 => Self::TILE_ROWS * BLOCK_BYTES / Self::BLOCK_STEPS,
                    _ => 0,
                },
            };
            // SAFETY: the caller has the instruction set.
            unsafe {
                let mut tile = [[self.lanes.start([0; MOST_TOKENS]); REGISTERS]; SETS];
                if !begun {
                    for (i, tile) in tile.iter_mut().enumerate() {
                        let values = minus_sums::<L>(q_sums, set + i);
                        *tile = [self.lanes.start(values); REGISTERS];
                    }
                }
                self.lanes.add(digits, q, &mut tile, ahead);
                for (i, tile) in tile.into_iter().enumerate() {
                    write(self.lanes, tile, set + i, shape, first, begun, sums);
                }
            }
        }
    }
}

/// [`PanelLanes::add`] for an instruction set with [`Dot`].
///
/// # Safety
/// The CPU has the instruction set of the lanes; everything is inlined into the caller.
#[inline(always)]
pub(super) unsafe fn add<const REGISTERS: usize, const SETS: usize, L: Dot>(
    lanes: L,
    digits: &[L::Register],
    q: [&[L::Activations]; SETS],
    sums: &mut [[L::Register; REGISTERS]; SETS],
    ahead: Ahead,
) {
    let (digits, _) = digits.as_chunks::<REGISTERS>();
    for q in q {
        assert!(q.len() == digits.len());
    }
    let mut registers = *sums;
    for (s, digits) in digits.iter().enumerate() {
        let digits = *digits;
        // SAFETY: the caller has the instruction set, and there are as many steps of each set.
        unsafe {
            prefetch_second(ahead.start.wrapping_add(s * ahead.step));
            for t in 0..SETS {
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

impl Ahead {
    /// Asks for the bytes of block `b` of [`Lanes::direct`], as many as a register of rows has.
    #[inline(always)]
    pub fn prefetch<L: Lanes>(self, b: usize) {
        if self.step > 0 {
            let bytes = L::ROWS * BLOCK_BYTES;
            for line in (0..bytes).step_by(64) {
                prefetch_second(self.start.wrapping_add(b * bytes + line));
            }
        }
    }
}

/// Writes the sums of a set with rows from `first` on, or adds them if there are sums of columns
/// before these. The last set and the last register may have fewer tokens and rows. `sums` is (all
/// tokens, all rows).
///
/// # Safety
/// The CPU has the instruction set of the lanes.
#[inline(always)]
unsafe fn write<const REGISTERS: usize, L: Lanes>(
    lanes: L,
    registers: [L::Register; REGISTERS],
    set: usize,
    shape: GemmShape,
    first: usize,
    add: bool,
    sums: &mut [i32],
) {
    let rows = first..shape.rows.min(first + REGISTERS * L::ROWS);
    for t in 0..L::TOKENS.min(shape.tokens - set * L::TOKENS) {
        let sums = &mut sums[(set * L::TOKENS + t) * shape.rows..][rows.clone()];
        for (register, sums) in registers.into_iter().zip(sums.chunks_mut(L::ROWS)) {
            // SAFETY: the caller has the instruction set.
            unsafe {
                if sums.len() == L::ROWS && !add {
                    lanes.store(register, t, sums);
                } else {
                    let mut padded = [0; MOST_ROWS];
                    lanes.store(register, t, &mut padded[..L::ROWS]);
                    for (sum, more) in sums.iter_mut().zip(padded) {
                        *sum = if add { *sum + more } else { more };
                    }
                }
            }
        }
    }
}
