//! Products with panels, the form in which attention reads keys and values.
//!
//! A panel is 16 columns of a matrix, one row after the other: 16 positions of the keys, dimension
//! by dimension, or 16 dimensions of the values, position by position. Every column has a lane of
//! its own that adds the rows in their order, so no sum is ever taken across lanes: registers of
//! any width give the same bits, and a row of x the same result whichever rows are computed with
//! it. What is loaded of a panel serves several rows of x.
//!
//! Panels of int8 interleave pairs of rows, (depth / 2, 16, 2), for the instructions that multiply
//! 16-bit pairs and add the two products. Their sums are exact.

use half::f16;

use super::widen::f16_to_f32;

/// Bytes of a cache line of most machines.
const LINE: usize = 64;

/// Columns of a panel.
pub const LANES: usize = 16;

/// Rows of x times panels; `y` beside it is (rows, width) with 16 columns for each panel, or more.
#[derive(Debug, Clone, Copy)]
pub struct PanelProduct<'a, X, T> {
    /// (rows, depth)
    pub x: &'a [X],
    /// (panels, depth, 16), of int8 (panels, depth / 2, 16, 2)
    pub panels: &'a [T],
    /// Rows of a panel.
    pub depth: usize,
    /// How many of them are added. For int8 an odd number is rounded up.
    pub used: usize,
}

/// A checked product: a step is a row of a panel, or a pair of them.
pub(super) struct Steps<'a, X, R> {
    x: &'a [X],      // (rows, depth)
    panels: &'a [R], // (panels, depth)
    depth: usize,
    used: usize,
    rows: usize,
    width: usize,
}

impl<'a, X, T> PanelProduct<'a, X, T> {
    /// # Panics
    /// If lengths disagree.
    fn steps<X2, const STEP: usize, const COLUMNS: usize>(
        &self,
        x: &'a [X2],
        panels: &'a [[T; COLUMNS]],
        y: &[f32],
    ) -> Steps<'a, X2, [T; COLUMNS]> {
        let depth = self.depth / STEP;
        assert!(depth > 0 && self.depth.is_multiple_of(STEP) && self.used <= self.depth);
        let (rows, count) = (x.len() / depth, panels.len() / depth);
        assert!(rows > 0 && x.len() == rows * depth && y.len().is_multiple_of(rows));
        assert!(panels.len() == count * depth && count * LANES <= y.len() / rows);
        Steps {
            x,
            panels,
            depth,
            used: self.used.div_ceil(STEP),
            rows,
            width: y.len() / rows,
        }
    }
}

impl<'a, T> PanelProduct<'a, f32, T> {
    pub(super) fn singly(&self, y: &[f32]) -> Steps<'a, f32, [T; LANES]> {
        let (panels, rest) = self.panels.as_chunks();
        assert!(rest.is_empty());
        self.steps::<_, 1, LANES>(self.x, panels, y)
    }
}

impl<'a> PanelProduct<'a, i16, i8> {
    pub(super) fn by_pairs(&self, y: &[f32]) -> Steps<'a, [i16; 2], [i8; 2 * LANES]> {
        let ((x, rest_x), (panels, rest)) = (self.x.as_chunks(), self.panels.as_chunks());
        assert!(rest_x.is_empty() && rest.is_empty());
        self.steps::<_, 2, { 2 * LANES }>(x, panels, y)
    }
}

/// How an instruction set handles the 16 lanes of a panel.
#[derive(Clone, Copy)]
pub(super) struct Lanes<S, P, L, A, O> {
    pub zero: S,
    /// Asks for memory that is read soon after this place.
    pub prefetch: P,
    /// A step of a panel.
    pub load: L,
    /// sums + x · step
    pub add: A,
    pub store: O,
}

/// The product, by tiles of a panel and at most `ROWS` ≤ 16 rows of x.
#[inline(always)]
pub(super) fn product<const ROWS: usize, X: Copy, R, S: Copy, V: Copy>(
    steps: Steps<X, R>,
    y: &mut [f32],
    lanes: Lanes<
        S,
        impl Fn(*const R) + Copy,
        impl Fn(&R) -> V + Copy,
        impl Fn(S, X, V) -> S + Copy,
        impl Fn(S, &mut [f32; LANES]) + Copy,
    >,
) {
    const { assert!(ROWS <= 16) };
    for panel in 0..steps.panels.len() / steps.depth {
        let mut row = 0;
        while row < steps.rows {
            // `ROWS` is a constant, so higher tiles leave no code.
            let n = match steps.rows - row {
                16.. if ROWS >= 16 => rows::<16, _, _, _, _>(&steps, row, panel, y, lanes),
                8.. if ROWS >= 8 => rows::<8, _, _, _, _>(&steps, row, panel, y, lanes),
                4.. if ROWS >= 4 => rows::<4, _, _, _, _>(&steps, row, panel, y, lanes),
                3.. if ROWS >= 3 => rows::<3, _, _, _, _>(&steps, row, panel, y, lanes),
                2.. => rows::<2, _, _, _, _>(&steps, row, panel, y, lanes),
                _ => rows::<1, _, _, _, _>(&steps, row, panel, y, lanes),
            };
            row += n;
        }
    }
}

/// `N` rows of x, from `row` on, times a panel. Returns `N`.
#[inline(always)]
fn rows<const N: usize, X: Copy, R, S: Copy, V: Copy>(
    steps: &Steps<X, R>,
    row: usize,
    panel: usize,
    y: &mut [f32],
    lanes: Lanes<
        S,
        impl Fn(*const R) + Copy,
        impl Fn(&R) -> V + Copy,
        impl Fn(S, X, V) -> S + Copy,
        impl Fn(S, &mut [f32; LANES]) + Copy,
    >,
) -> usize {
    let Steps {
        depth, used, width, ..
    } = *steps;
    let x: [&[X]; N] = std::array::from_fn(|n| &steps.x[(row + n) * depth..][..used]);
    let panel_rows = &steps.panels[panel * depth..][..used];
    let mut sums = [lanes.zero; N];
    // Lines are asked for, and a row can be half a line.
    let per_line = (LINE / size_of::<R>()).max(1);
    for i in 0..used {
        if i % per_line == 0 {
            (lanes.prefetch)(&panel_rows[i]);
        }
        let step = (lanes.load)(&panel_rows[i]);
        for n in 0..N {
            sums[n] = (lanes.add)(sums[n], x[n][i], step);
        }
    }
    for n in 0..N {
        let y = &mut y[(row + n) * width + panel * LANES..];
        let y = y.first_chunk_mut().expect("y is wide enough");
        (lanes.store)(sums[n], y);
    }
    N
}

#[inline(always)]
pub(super) fn panels_f32(panels: PanelProduct<f32, f32>, y: &mut [f32]) {
    float(panels, y, |row| *row);
}

#[inline(always)]
pub(super) fn panels_f16(panels: PanelProduct<f32, f16>, y: &mut [f32]) {
    float(panels, y, |row| row.map(f16_to_f32));
}

#[inline(always)]
pub(super) fn float<T: Copy>(
    panels: PanelProduct<f32, T>,
    y: &mut [f32],
    load: impl Fn(&[T; LANES]) -> [f32; LANES] + Copy,
) {
    let lanes = Lanes {
        zero: [0f32; LANES],
        prefetch: |_| (),
        load,
        add: |mut sums: [f32; LANES], x: f32, row: [f32; LANES]| {
            for l in 0..LANES {
                sums[l] += x * row[l];
            }
            sums
        },
        store: |sums, y: &mut [f32; LANES]| *y = sums,
    };
    product::<ROWS, _, _, _, _>(panels.singly(y), y, lanes);
}

#[inline(always)]
pub(super) fn panels_i8(panels: PanelProduct<i16, i8>, y: &mut [f32]) {
    let lanes = Lanes {
        zero: [0i32; LANES],
        prefetch: |_| (),
        load: |pairs: &[i8; 2 * LANES]| pairs.map(i16::from),
        add: |mut sums: [i32; LANES], x: [i16; 2], pairs: [i16; 2 * LANES]| {
            let x = x.map(i32::from);
            for l in 0..LANES {
                sums[l] += x[0] * i32::from(pairs[2 * l]) + x[1] * i32::from(pairs[2 * l + 1]);
            }
            sums
        },
        store: |sums: [i32; LANES], y: &mut [f32; LANES]| *y = sums.map(|sum| sum as f32),
    };
    product::<ROWS, _, _, _, _>(panels.by_pairs(y), y, lanes);
}

/// Rows of x whose sums fit the registers: 16 of 128 bits, or 32 on Arm.
const ROWS: usize = if cfg!(target_arch = "aarch64") { 4 } else { 2 };
