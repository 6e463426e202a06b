//! The head: the last hidden state times one row a token of the vocabulary.
//!
//! Tables of floats are multiplied in single precision. Coded tables ([`sterna_ternary::table`]) take the hidden
//! state in 16 bits and sum exact integers.
//!
//! A sampler that looks at the most probable tokens only does not need every logit. [`Screen`] says what it
//! needs; then all rows are multiplied with their first plane, half of the bytes. Cauchy–Schwarz bounds what the
//! other planes can add, so rows whose logit cannot reach the ones that count are left there, and the others go
//! on to the next plane. The logits that come out have the bits of the full head's; the rest are -∞.

use std::ops::Range;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use sterna_ternary::file::{Table, Values};
use sterna_ternary::quantize;
use sterna_ternary::table::{Codes, PLANE_BYTES, plane_weights};

use crate::error::Place;
use crate::kernels::Kernels;
use crate::kernels::codes::Int16;
use crate::model::Model;
use crate::{Error, Result};

/// Rows that a thread claims at a time.
const ROWS: usize = 64;

/// Which logits a sampler needs.
#[derive(Debug, Clone, PartialEq)]
pub struct Screen {
    /// So many of the largest.
    pub top: usize,
    /// Of these, only those within this distance of the largest.
    pub within: f32,
    /// These in any case, whatever they are; they are not counted among the largest.
    pub exact: Vec<u32>,
}

/// Working memory.
#[derive(Debug, Default)]
pub(crate) struct HeadState {
    x: Vec<Int16>,     // (tokens)
    sums: Vec<i64>,    // (vocab_size): the planes so far, or [`LEFT`]
    lowest: Vec<f64>,  // (blocks of ROWS rows): the largest lower bound
    forced: Vec<bool>, // (vocab_size)
    /// Bytes of the table that were read since the state was made.
    pub bytes: usize,
}

/// A row that cannot matter.
const LEFT: i64 = i64::MIN;

impl Model {
    /// Bytes of the head that forward passes have read so far.
    pub(crate) fn head_bytes_read(&self) -> usize {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.head.bytes
    }

    /// Logits (tokens, vocab_size) from normed hidden states x (tokens, hidden).
    pub(crate) fn head(
        &self,
        state: &mut HeadState,
        x: &[f32],
        screen: Option<&Screen>,
        logits: &mut [f32],
    ) -> Result<()> {
        let non_finite = |tensor| Error::NonFinite {
            place: Place::End,
            tensor,
        };
        if !x.iter().all(|x| x.is_finite()) {
            return Err(non_finite("the input of the head"));
        }
        let table = self.file.head();
        let overflowed = match (table.values, screen) {
            (Values::Codes(codes), Some(screen)) => self.screened(state, &codes, x, screen, logits),
            _ => self.full(state, &table, x, logits),
        };
        match overflowed {
            true => Err(non_finite("the logits")),
            false => Ok(()),
        }
    }

    /// Every logit. Returns whether any is not finite.
    fn full(&self, state: &mut HeadState, table: &Table, x: &[f32], logits: &mut [f32]) -> bool {
        let n = logits.len() / table.rows;
        state.bytes += self.table_bytes(table);
        if let Values::Codes(_) = table.values {
            state.x.resize_with(n.max(state.x.len()), Int16::default);
            for (q, x) in state.x.iter_mut().zip(x.chunks_exact(table.columns)) {
                q.fill(x);
            }
        }
        let q = &state.x;
        let mut unused = vec![(); self.pool.threads()];
        let matrices = [&mut *logits];
        self.pool
            .tiles_mut(n, (n, ROWS), matrices, &mut unused, |_, mut tile, _| {
                for (t, x) in x.chunks_exact(table.columns).enumerate() {
                    let (rows, y) = (tile.columns(), tile.row(t));
                    match table.values {
                        Values::Codes(codes) => {
                            let coded = Coded::new(self.kernels, codes, &q[t]);
                            let mut sums = [0; ROWS];
                            let sums = &mut sums[..rows.len()];
                            coded.add_planes(0..codes.planes, rows.clone(), sums);
                            for (y, (row, sum)) in y.iter_mut().zip(rows.zip(sums)) {
                                *y = coded.logit(row, *sum);
                            }
                        }
                        _ => self.float_products(table, rows, x, y),
                    }
                }
            });
        !quantize::is_usable(quantize::activation_scale(logits))
    }

    /// y[r] = x · row r of a table of floats, for some rows.
    fn float_products(&self, table: &Table, rows: Range<usize>, x: &[f32], y: &mut [f32]) {
        let range = rows.start * table.columns..rows.end * table.columns;
        match table.values {
            Values::F32(values) => (self.kernels.gemv_f32)(x, &values[range], y),
            Values::F16(values) => (self.kernels.gemv_f16)(x, &values[range], y),
            Values::Bf16(values) => (self.kernels.gemv_bf16)(x, &values[range], y),
            Values::Codes(_) => unreachable!("codes have products of their own"),
        }
    }

    /// The logits that `screen` asks for, -∞ for others. Returns whether any is not finite.
    fn screened(
        &self,
        state: &mut HeadState,
        codes: &Codes,
        x: &[f32],
        screen: &Screen,
        logits: &mut [f32],
    ) -> bool {
        let rows = codes.scales.len();
        state.x.resize_with(state.x.len().max(1), Int16::default);
        state.x[0].fill(x);
        let coded = Coded::new(self.kernels, *codes, &state.x[0]);
        state.sums.clear();
        state.sums.resize(rows, 0);
        state.forced.resize(rows, false);
        for id in &screen.exact {
            state.forced[*id as usize] = true;
        }
        let forced = &state.forced;
        state.lowest.resize(rows.div_ceil(ROWS), 0.0);
        let within = f64::from(screen.within) * f64::from(state.x[0].scale());
        let mut threshold = f64::NEG_INFINITY;
        let bytes = AtomicUsize::new(0);
        let last = codes.planes - 1;
        for plane in 0..last {
            let lowest = (&mut state.lowest[..], 1);
            self.pool
                .zip_chunks_mut((&mut state.sums, ROWS), lowest, |i, sums, lowest| {
                    let read = coded.round(plane, i * ROWS, threshold, forced, sums);
                    bytes.fetch_add(read, Ordering::Relaxed);
                    lowest[0] = coded.largest_lower_bound(plane, i * ROWS, forced, sums);
                });
            threshold = screen.threshold(&state.lowest, within).max(threshold);
        }
        let overflowed = AtomicBool::new(false);
        self.pool
            .zip_chunks_mut((&mut state.sums, ROWS), (logits, ROWS), |i, sums, y| {
                let read = coded.round(last, i * ROWS, threshold, forced, sums);
                bytes.fetch_add(read, Ordering::Relaxed);
                for (row, (y, sum)) in (i * ROWS..).zip(y.iter_mut().zip(sums)) {
                    *y = match *sum {
                        LEFT => f32::NEG_INFINITY,
                        sum => coded.logit(row, sum),
                    };
                    if *sum != LEFT && !y.is_finite() {
                        overflowed.store(true, Ordering::Relaxed);
                    }
                }
            });
        for id in &screen.exact {
            state.forced[*id as usize] = false;
        }
        state.bytes += bytes.into_inner();
        overflowed.into_inner()
    }

    fn table_bytes(&self, table: &Table) -> usize {
        let values = table.rows * table.columns;
        match table.values {
            Values::F32(_) => values * 4,
            Values::F16(_) | Values::Bf16(_) => values * 2,
            Values::Codes(codes) => {
                let planes: usize = PLANE_BYTES[..codes.planes].iter().sum();
                codes.multipliers.len() * (planes + 1) + 4 * table.rows
            }
        }
    }
}

impl Screen {
    /// The bound below which no row matters, from the largest lower bound of every block.
    ///
    /// The largest `top` of these belong to as many rows, so at least `top` rows reach the last of them.
    fn threshold(&self, lowest: &[f64], within: f64) -> f64 {
        let mut lowest = lowest.to_vec();
        let largest = lowest.iter().fold(f64::NEG_INFINITY, |m, x| m.max(*x));
        if self.top == 0 || self.top > lowest.len() {
            return largest - within;
        }
        let (_, last, _) = lowest.select_nth_unstable_by(self.top - 1, |a, b| b.total_cmp(a));
        last.max(largest - within)
    }
}

/// A coded table with one hidden state.
#[derive(Clone, Copy)]
struct Coded<'a> {
    kernels: &'a Kernels,
    codes: Codes<'a>,
    x: &'a Int16,
    groups: usize,
    weights: [i32; 3],
}

impl<'a> Coded<'a> {
    fn new(kernels: &'a Kernels, codes: Codes<'a>, x: &'a Int16) -> Coded<'a> {
        Coded {
            kernels,
            codes,
            x,
            groups: codes.groups(),
            weights: plane_weights(codes.planes),
        }
    }

    fn add_planes(&self, planes: Range<usize>, rows: Range<usize>, sums: &mut [i64]) {
        let range = |bytes: usize| rows.start * bytes..rows.end * bytes;
        let multipliers = &self.codes.multipliers[range(self.groups)];
        for plane in planes {
            let bytes = &self.codes.bits[plane][range(self.groups * PLANE_BYTES[plane])];
            let product = match plane {
                0 => self.kernels.plane4,
                _ => self.kernels.plane2,
            };
            product(self.x, bytes, multipliers, self.weights[plane].into(), sums);
        }
    }

    fn logit(&self, row: usize, sum: i64) -> f32 {
        (sum as f64 * f64::from(self.codes.scales[row]) / f64::from(self.x.scale())) as f32
    }

    /// Leaves the rows from `first` on that stay below the threshold and adds a plane to the others. Returns
    /// the bytes that were read.
    fn round(
        &self,
        plane: usize,
        first: usize,
        threshold: f64,
        forced: &[bool],
        sums: &mut [i64],
    ) -> usize {
        // Logits are rounded and divided by a temperature before they are compared: rows this close to the
        // threshold stay, so that neither can make a tie with a row that was left.
        let threshold = threshold - threshold.abs() * 1e-6;
        if plane > 0 {
            for (row, sum) in (first..).zip(sums.iter_mut()) {
                if *sum != LEFT && !forced[row] && self.bounds(plane - 1, row, *sum)[1] < threshold
                {
                    *sum = LEFT;
                }
            }
        }
        let mut read = 0;
        let mut at = 0;
        for run in sums.chunk_by_mut(|a, b| (*a == LEFT) == (*b == LEFT)) {
            let rows = first + at..first + at + run.len();
            at += run.len();
            if run[0] != LEFT {
                read += run.len() * self.groups * (PLANE_BYTES[plane] + 1);
                self.add_planes(plane..plane + 1, rows, run);
            }
        }
        read
    }

    fn largest_lower_bound(
        &self,
        plane: usize,
        first: usize,
        forced: &[bool],
        sums: &[i64],
    ) -> f64 {
        let rows = (first..).zip(sums);
        let counted = rows.filter(|(row, sum)| **sum != LEFT && !forced[*row]);
        let bounds = counted.map(|(row, sum)| self.bounds(plane, row, *sum)[0]);
        bounds.fold(f64::NEG_INFINITY, f64::max)
    }

    /// Between which a row's logit, times the factor of x, lies when planes 0 to `plane` are in the sum.
    fn bounds(&self, plane: usize, row: usize, sum: i64) -> [f64; 2] {
        let behind = self.codes.planes - 1;
        let rest = match plane < behind {
            true => f64::from(self.codes.remainders[row * behind + plane]) * self.x.high_norm(),
            false => 0.0,
        };
        [sum as f64 - rest, sum as f64 + rest].map(|sum| sum * f64::from(self.codes.scales[row]))
    }
}
