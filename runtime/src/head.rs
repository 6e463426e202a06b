//! The head: the last hidden state times one row for each token of the vocabulary.
//!
//! Tables of numbers are multiplied in single precision, also those in planes
//! ([`sterna_ternary::planes`]), which give the same bits as plain ones. Coded tables
//! ([`sterna_ternary::table`]) take the hidden state in 16 bits and sum exact integers. Ternary
//! tables ([`sterna_ternary::trits`]) are linear layers with one scale per group and 16-bit
//! activations; all of their logits are computed, whatever the screen.
//!
//! A sampler that looks at the most probable tokens only does not need every logit. [`Screen`] says
//! which ones it needs, and `screen` computes those of a table with codes; if that takes more time
//! than all logits, all are computed. The rows of a table are read once for all tokens of a batch.

mod screen;

use std::ops::Range;
use std::sync::PoisonError;

use sterna_ternary::file::{Table, Values};
use sterna_ternary::planes::Planes;
use sterna_ternary::table::{Codes, PLANE_BYTES, plane_weights};
use sterna_ternary::{layout, quantize};

use crate::error::Location;
use crate::kernels::codes::{CodeProduct, Int16};
use crate::kernels::screen::ROWS;
use crate::kernels::{GemmFloat, Kernels};
use crate::model::Model;
use crate::state::HeadState;
use crate::{Error, Result};

pub use screen::Screen;

/// Rows of planes that are decoded at a time: those for few tokens fit a first-level cache, those
/// for many a second-level one.
const DECODED_ROWS: [usize; 2] = [4, 16];
/// Rows of codes in a tile of all logits: many, as kernels put the activations of all tokens in
/// order for each.
const TILE_ROWS: usize = 4 * ROWS;
/// Tokens that meet the same rows of numbers at a time.
const TOKENS: usize = 32;

impl Model {
    /// Bytes of the head that forward passes have read so far.
    pub fn head_bytes_read(&self) -> usize {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.head.bytes
    }

    /// Logits (tokens, vocab_size) from normed hidden states x (tokens, hidden): all of them, or
    /// those that the screen of each token asks for.
    pub(crate) fn head(
        &self,
        state: &mut HeadState,
        x: &[f32],
        screens: Option<&[&Screen]>,
        logits: &mut [f32],
    ) -> Result<()> {
        let non_finite = |tensor| Error::NonFinite {
            place: Location::End,
            tensor,
        };
        if !x.iter().all(|x| x.is_finite()) {
            return Err(non_finite("the input of the head"));
        }
        state.passes_of_much = state.passes_of_much.saturating_sub(1);
        let table = self.file.head();
        let high_planes = match &table.values {
            Values::Codes(codes) => Some((*codes, None)),
            Values::Planes(planes) => Some((planes.codes, Some(planes))),
            _ => None,
        };
        let overflowed = match (high_planes, screens) {
            (Some((codes, planes)), Some(screens))
                if planes.is_some() || !self.has_one_round(state, screens) =>
            {
                self.screened(state, codes, planes, x, screens, logits)
            }
            _ => {
                state.bytes += self.table_bytes(&table);
                let k = self.kernels;
                match table.values {
                    Values::Trits(_) => self.ternary(state, x, logits),
                    Values::Codes(codes) => self.all_codes(state, codes, x, logits),
                    Values::Planes(planes) => {
                        self.announce(state);
                        self.all_planes(&planes, x, logits)
                    }
                    Values::F32(rows) => self.all_numbers(rows, k.gemm_f32, x, logits),
                    Values::F16(rows) => self.all_numbers(rows, k.gemm_f16, x, logits),
                    Values::Bf16(rows) => self.all_numbers(rows, k.gemm_bf16, x, logits),
                }
            }
        };
        match overflowed {
            true => Err(non_finite("the logits")),
            false => Ok(()),
        }
    }

    /// What the first round over the head reads of each row; empty where that is not known.
    pub(crate) fn first_of_head(&self) -> &[u8] {
        match self.file.head().values {
            Values::Codes(codes) => codes.bits[0],
            Values::Planes(planes) => planes.codes.bits[0],
            Values::Trits(trits) => trits.bytes,
            Values::F32(_) | Values::F16(_) | Values::Bf16(_) => &[],
        }
    }

    /// Every logit of a ternary head. Returns whether any is not finite.
    fn ternary(&self, state: &mut HeadState, x: &[f32], logits: &mut [f32]) -> bool {
        let head = self.weights.head.as_ref();
        let head = head.expect("a ternary table is a linear layer too");
        let n = x.len() / head.columns;
        let is_finite = self.quantize_finely(x, n, &mut state.quantized);
        let (quantized, memory) = (&state.quantized, &mut state.memory);
        self.linear(n, [head], quantized, [&mut *logits], memory);
        !is_finite || has_overflowed(logits)
    }

    /// Every logit of a coded table. Returns whether any is not finite.
    fn all_codes(
        &self,
        state: &mut HeadState,
        codes: Codes,
        x: &[f32],
        logits: &mut [f32],
    ) -> bool {
        let columns = self.config().hidden_size;
        let n = x.len() / columns;
        state.x.resize_with(n.max(state.x.len()), Int16::default);
        for (q, x) in state.x.iter_mut().zip(x.chunks_exact(columns)) {
            q.fill(x);
        }
        let high = HighPlanes::new(self.kernels, codes);
        let q = &state.x[..n];
        let mut sums = vec![0; self.pool.threads() * n * TILE_ROWS];
        let (size, matrices) = ((n, TILE_ROWS), [&mut *logits]);
        self.pool
            .tiles_mut(n, size, matrices, &mut sums, |_, mut tile, sums| {
                let rows = tile.columns();
                let sums = &mut sums[..n * rows.len()];
                sums.fill(0);
                high.add(0..codes.planes, q, rows.start, sums);
                for (t, sums) in sums.chunks_exact(rows.len()).enumerate() {
                    for (y, (row, sum)) in tile.row(t).iter_mut().zip(rows.clone().zip(sums)) {
                        *y = high.logit(&q[t], row, *sum);
                    }
                }
            });
        has_overflowed(logits)
    }

    /// Every logit of a table of plain numbers. Returns whether any is not finite.
    fn all_numbers<T: Sync>(
        &self,
        rows: &[T],
        gemm: GemmFloat<T>,
        x: &[f32],
        logits: &mut [f32],
    ) -> bool {
        let columns = self.config().hidden_size;
        self.float_logits(
            x,
            logits,
            (ROWS, 0),
            |_, _| {},
            |some, x, _, y| {
                gemm(
                    x,
                    columns,
                    &rows[some.start * columns..some.end * columns],
                    y,
                );
            },
        )
    }

    /// Announces to the system that the low plane is read whole, once.
    fn announce(&self, state: &mut HeadState) {
        if !std::mem::replace(&mut state.is_announced, true) {
            self.file
                .will_read(match self.config().tie_word_embeddings {
                    true => layout::EMBEDDING,
                    false => layout::HEAD,
                });
        }
    }

    /// Every logit of a table in planes. Returns whether any is not finite.
    fn all_planes(&self, planes: &Planes, x: &[f32], logits: &mut [f32]) -> bool {
        let (kernels, columns) = (self.kernels, self.config().hidden_size);
        let decode = |some: Range<usize>, values: &mut [f32]| {
            for (row, values) in some.zip(values.chunks_exact_mut(columns)) {
                (kernels.decode_planes)(planes, row, values);
            }
        };
        let step = DECODED_ROWS[usize::from(x.len() > 4 * columns)];
        self.float_logits(x, logits, (step, columns), decode, |_, x, rows, y| {
            (kernels.gemm_f32)(x, columns, rows, y);
        })
    }

    /// Every logit as a product in f32: `prepare` fills (rows, `width`) for at most `step` rows,
    /// and `multiply` makes (tokens, rows) of that and of some tokens. Returns whether any is not
    /// finite.
    fn float_logits(
        &self,
        x: &[f32],
        logits: &mut [f32],
        (step, width): (usize, usize),
        prepare: impl Fn(Range<usize>, &mut [f32]) + Sync,
        multiply: impl Fn(Range<usize>, &[f32], &[f32], &mut [f32]) + Sync,
    ) -> bool {
        let columns = self.config().hidden_size;
        let n = x.len() / columns;
        let mut scratch = vec![0.0; self.pool.threads() * step * (width + TOKENS)];
        let matrices = [&mut *logits];
        self.pool.tiles_mut(
            n,
            (n, ROWS),
            matrices,
            &mut scratch,
            |_, mut tile, scratch| {
                let (rows, products) = scratch.split_at_mut(step * width);
                let of_tile = tile.columns();
                for start in of_tile.clone().step_by(step) {
                    let some = start..of_tile.end.min(start + step);
                    let rows = &mut rows[..some.len() * width];
                    prepare(some.clone(), rows);
                    for (i, x) in x.chunks(TOKENS * columns).enumerate() {
                        let y = &mut products[..x.len() / columns * some.len()];
                        multiply(some.clone(), x, rows, y);
                        for (t, y) in (i * TOKENS..).zip(y.chunks_exact(some.len())) {
                            let at = some.start - of_tile.start;
                            tile.row(t)[at..at + y.len()].copy_from_slice(y);
                        }
                    }
                }
            },
        );
        has_overflowed(logits)
    }

    fn table_bytes(&self, table: &Table) -> usize {
        let values = table.rows * table.columns;
        let coded = |codes: Codes| {
            let planes: usize = PLANE_BYTES[..codes.planes].iter().sum();
            codes.multipliers.len() * (planes + 1) + 4 * table.rows
        };
        match table.values {
            Values::F32(_) => values * 4,
            Values::F16(_) | Values::Bf16(_) => values * 2,
            Values::Trits(trits) => {
                let dtype = self.file.group_scales;
                trits.bytes.len() + trits.scales.len() * dtype.bytes()
            }
            Values::Codes(codes) => coded(codes),
            Values::Planes(planes) => {
                let low = (0..table.rows).map(|row| planes.low_bytes(row));
                coded(planes.codes) + low.sum::<usize>()
            }
        }
    }
}

fn has_overflowed(logits: &[f32]) -> bool {
    !quantize::is_usable(quantize::activation_scale(logits))
}

/// The planes of codes.
#[derive(Clone, Copy)]
struct HighPlanes<'a> {
    kernels: &'a Kernels,
    codes: Codes<'a>,
    groups: usize,
}

impl<'a> HighPlanes<'a> {
    fn new(kernels: &'a Kernels, codes: Codes<'a>) -> HighPlanes<'a> {
        HighPlanes {
            kernels,
            codes,
            groups: codes.groups(),
        }
    }

    /// Adds the products of some planes of the rows from `first` on to sums (tokens, rows).
    fn add(&self, planes: Range<usize>, x: &[Int16], first: usize, sums: &mut [i64]) {
        let rows = first..first + sums.len() / x.len();
        let range = |bytes: usize| rows.start * bytes..rows.end * bytes;
        let bits: [&[u8]; 3] = std::array::from_fn(|plane| match plane < self.codes.planes {
            true => &self.codes.bits[plane][range(self.groups * PLANE_BYTES[plane])],
            false => &[],
        });
        let product = CodeProduct {
            x,
            planes: &bits[..self.codes.planes],
            multipliers: &self.codes.multipliers[range(self.groups)],
            weight: 1,
        };
        if planes.start == 0 && planes.len() > 1 && (self.kernels.prefers_codes)(x.len()) {
            // A code of fewer planes counts as often as the last of them.
            let product = CodeProduct {
                planes: &bits[..planes.end],
                weight: plane_weights(self.codes.planes)[planes.end - 1].into(),
                ..product
            };
            return (self.kernels.codes)(product, sums);
        }
        for (plane, product) in product.of_planes().enumerate() {
            if planes.contains(&plane) {
                self.kernels.plane(plane)(product, sums);
            }
        }
    }

    /// The logit of a sum over all planes.
    fn logit(&self, x: &Int16, row: usize, sum: i64) -> f32 {
        (sum as f64 * f64::from(self.codes.scales[row]) / f64::from(x.scale())) as f32
    }
}
