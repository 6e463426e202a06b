//! The head: the last hidden state times one row for each token of the vocabulary.
//!
//! Tables of floats are multiplied in single precision. Coded tables ([`sterna_ternary::table`])
//! take the hidden state in 16 bits and sum exact integers. Ternary tables
//! ([`sterna_ternary::trits`]) are linear layers with one scale per group and 16-bit activations;
//! all of their logits are computed, whatever the screen.
//!
//! A sampler that looks at the most probable tokens only does not need every logit. [`Screen`] says
//! which ones it needs. All rows are then multiplied by their first plane only, which is half of
//! the bytes. The most promising rows are computed completely: their logits are a lower bound for
//! every row that counts. The Cauchy–Schwarz inequality bounds what the other planes can add to a
//! row. Rows that cannot reach the lower bound are dropped; the others go on to the next plane. The
//! remaining logits have the same bits as those of the full head; the others are −∞.

use std::ops::Range;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use sterna_ternary::file::{Table, Values};
use sterna_ternary::quantize;
use sterna_ternary::table::{Codes, PLANE_BYTES, plane_weights};

use crate::error::Location;
use crate::kernels::Kernels;
use crate::kernels::codes::Int16;
use crate::model::Model;
use crate::state::{Best, HeadState};
use crate::{Error, Result};

/// Rows that a thread claims at a time.
const ROWS: usize = 64;

/// Which logits a sampler needs.
#[derive(Debug, Clone, PartialEq)]
pub struct Screen {
    /// How many of the largest logits.
    pub top: usize,
    /// How far below the largest logit they may be.
    pub within: f32,
    /// Ids that are always computed; they do not count among the largest.
    pub exact: Vec<u32>,
}

/// Marks a row that was dropped: it cannot matter.
const LEFT: i64 = i64::MIN;

impl Model {
    /// Bytes of the head that forward passes have read so far.
    pub fn head_bytes_read(&self) -> usize {
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
            place: Location::End,
            tensor,
        };
        if !x.iter().all(|x| x.is_finite()) {
            return Err(non_finite("the input of the head"));
        }
        let table = self.file.head();
        let overflowed = match (table.values, screen) {
            (Values::Trits(_), _) => self.ternary(state, x, logits),
            (Values::Codes(codes), Some(screen)) => self.screened(state, &codes, x, screen, logits),
            _ => self.full(state, &table, x, logits),
        };
        match overflowed {
            true => Err(non_finite("the logits")),
            false => Ok(()),
        }
    }

    /// Every logit of a ternary head. Returns whether any is not finite.
    fn ternary(&self, state: &mut HeadState, x: &[f32], logits: &mut [f32]) -> bool {
        let head = self.weights.head.as_ref();
        let head = head.expect("a ternary table is a linear layer too");
        let n = x.len() / head.columns;
        state.bytes += self.table_bytes(&self.file.head());
        let is_finite = self.quantize_finely(x, n, &mut state.quantized);
        let (quantized, memory) = (&state.quantized, &mut state.memory);
        self.linear(n, [head], quantized, [&mut *logits], memory);
        !is_finite || !quantize::is_usable(quantize::activation_scale(logits))
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
            Values::F32(values) => (self.kernels.gemm_f32)(x, x.len(), &values[range], y),
            Values::F16(values) => (self.kernels.gemm_f16)(x, x.len(), &values[range], y),
            Values::Bf16(values) => (self.kernels.gemm_bf16)(x, x.len(), &values[range], y),
            Values::Codes(_) | Values::Trits(_) => {
                unreachable!("integers have products of their own")
            }
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
        // The hidden state as 16 bits; sums per row of the head, and the rows whose logits must be
        // exact.
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
        // One candidate for the threshold from each block of ROWS rows.
        state.best.resize(rows.div_ceil(ROWS), (0.0, 0));
        let bytes = AtomicUsize::new(0);
        let last = codes.planes - 1;
        // The first plane is computed for every row; after it the threshold is known, and later
        // planes are computed only for rows that can still reach it.
        let mut threshold = f64::NEG_INFINITY;
        for plane in 0..last {
            let best = (&mut state.best[..], 1);
            self.pool
                .zip_chunks_mut((&mut state.sums, ROWS), best, |i, sums, best| {
                    let read = coded.round(plane, i * ROWS, threshold, forced, sums);
                    bytes.fetch_add(read, Ordering::Relaxed);
                    if plane == 0 {
                        best[0] = coded.best(i * ROWS, forced, sums);
                    }
                });
            if plane == 0 {
                let within = f64::from(screen.within) * f64::from(state.x[0].scale());
                threshold = coded.threshold(&mut state.best, screen.top, within);
            }
        }
        // The last plane completes the sums, and logits are written.
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
            Values::Trits(trits) => {
                let dtype = self.file.group_scales;
                trits.bytes.len() + trits.scales.len() * dtype.bytes()
            }
            Values::Codes(codes) => {
                let planes: usize = PLANE_BYTES[..codes.planes].iter().sum();
                codes.multipliers.len() * (planes + 1) + 4 * table.rows
            }
        }
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

    /// Drops the rows from `first` on that cannot reach the threshold and adds a plane to the
    /// others. Returns the bytes that were read.
    fn round(
        &self,
        plane: usize,
        first: usize,
        threshold: f64,
        forced: &[bool],
        sums: &mut [i64],
    ) -> usize {
        // Logits are rounded and divided by a temperature before they are compared: rows this close
        // to the threshold stay, so that neither can make a tie with a row that was left.
        let threshold = threshold - threshold.abs() * 1e-6;
        if plane > 0 {
            let matters = |row: usize, sum: i64| {
                sum != LEFT && (forced[row] || self.upper_bound(plane - 1, row, sum) >= threshold)
            };
            let rows = (first..).zip(&*sums);
            let staying = rows.filter(|(row, sum)| matters(*row, **sum)).count();
            // Whole blocks are read faster than single rows.
            if staying <= sums.len() / 2 || sums.contains(&LEFT) {
                for (row, sum) in (first..).zip(sums.iter_mut()) {
                    if !matters(row, *sum) {
                        *sum = LEFT;
                    }
                }
            }
        }
        // Runs of neighbouring rows that stayed are read together.
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

    /// The most promising row of a block after the first plane, of those that are counted.
    fn best(&self, first: usize, forced: &[bool], sums: &[i64]) -> Best {
        let mut best = (f64::NEG_INFINITY, first);
        for (row, sum) in (first..).zip(sums) {
            let estimate = *sum as f64 * f64::from(self.codes.scales[row]);
            if estimate > best.0 && !forced[row] {
                best = (estimate, row);
            }
        }
        best
    }

    /// The lower bound, times the factor of x, that a row must reach. The best row of each block is
    /// computed completely; the bound is the smallest of the `top` best of them (at least `top`
    /// rows reach it), and at least the largest less `within`.
    fn threshold(&self, best: &mut [Best], top: usize, within: f64) -> f64 {
        let counted = match top {
            0 => 1,
            top => top.min(best.len()),
        };
        best.select_nth_unstable_by(counted - 1, |a, b| b.0.total_cmp(&a.0));
        let exact = best[..counted].iter().map(|(estimate, row)| {
            let mut sum = [0];
            self.add_planes(0..self.codes.planes, *row..row + 1, &mut sum);
            let logit = sum[0] as f64 * f64::from(self.codes.scales[*row]);
            if *estimate == f64::NEG_INFINITY {
                *estimate
            } else {
                logit
            }
        });
        let [smallest, largest] = exact.fold([f64::INFINITY, f64::NEG_INFINITY], |[a, b], x| {
            [a.min(x), b.max(x)]
        });
        match top {
            top if top > 0 && top == counted => smallest.max(largest - within),
            _ => largest - within,
        }
    }

    /// An upper bound of a row's logit, times the factor of x, when planes 0 to `plane` are in the
    /// sum.
    fn upper_bound(&self, plane: usize, row: usize, sum: i64) -> f64 {
        let remainders = self.codes.planes - 1;
        let rest = f64::from(self.codes.remainders[row * remainders + plane]) * self.x.high_norm();
        (sum as f64 + rest) * f64::from(self.codes.scales[row])
    }
}
