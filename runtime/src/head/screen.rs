//! The screened head: only the logits that a sampler needs, with the bits of the full head.
//!
//! All rows are multiplied by their first plane, which is half of the bytes of a code. The most
//! promising rows are computed with all planes: that gives a lower bound for every row that counts.
//! The Cauchy–Schwarz inequality bounds what the other planes can add to a row. Rows that cannot
//! reach the lower bound are dropped; the others go on to the next plane. Where logits are so close
//! to each other that most rows go on, the first two planes are read in one round, which takes less
//! time: rows that lack two bits are dropped just the same.
//!
//! The sums over all planes are the logits of a coded table. For a table with a low plane they are
//! estimates: x · w is off by less than ‖w‖ · ‖x − x̂‖, as the planes are multiplied with x̂, the
//! hidden state rounded to 8 bits, plus ‖w − ŵ‖ · ‖x̂‖, plus the roundings of the sum in f32. So
//! the most promising rows are computed in f32, which raises the lower bound, and then each row
//! that can still reach it.
//!
//! Every token of a batch has its own screen. A block of rows meets all tokens before the next one.
//! Where a CPU multiplies whole codes faster than planes ([`Kernels::codes`](crate::Kernels)), many
//! tokens have one round, with all planes. For a coded table without a low plane that is no screen
//! any more: all logits are known then.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use sterna_ternary::PackedFile;
use sterna_ternary::planes::Planes;
use sterna_ternary::table::{Codes, GROUP, PLANE_BYTES};

use super::HighPlanes;
use crate::constraint::Allowed;
use crate::kernels::codes::Int16;
use crate::kernels::screen::{DROPPED, ROWS, RowBounds, Threshold};
use crate::model::Model;
use crate::state::{Best, HeadState};

/// Passes after which rows are screened by the first plane alone again, to see what that drops.
const PASSES: usize = 64;

/// Which logits a sampler needs.
#[derive(Debug, Clone, PartialEq)]
pub struct Screen {
    /// How many of the largest logits.
    pub top: usize,
    /// How far below the largest logit they may be; −∞ asks for none but `exact`.
    pub within: f32,
    /// Ids that are always computed; they do not count among the largest.
    pub exact: Vec<u32>,
    /// The ids that count, `exact` included; none for all.
    pub among: Option<Allowed>,
}

impl Screen {
    /// The logits of these ids and no others.
    pub fn only(ids: Vec<u32>) -> Screen {
        Screen {
            top: 0,
            within: f32::NEG_INFINITY,
            exact: ids,
            among: None,
        }
    }

    /// The ids of a block of rows that do not count: a bit for each.
    fn excluded(&self, block: usize) -> u64 {
        let among = self.among.as_ref();
        among.map_or(0, |among| !among.word(block))
    }

    fn is_only(&self) -> bool {
        self.within == f32::NEG_INFINITY
    }

    /// Whether the rows are most of the table, before anything is known of their logits.
    fn needs_most(&self) -> bool {
        !self.is_only() && self.among.is_none()
    }
}

impl Model {
    /// The logits (tokens, vocab_size) that `screens` ask for, -∞ for others. Returns whether any
    /// is not finite.
    pub(super) fn screened(
        &self,
        state: &mut HeadState,
        codes: Codes,
        planes: Option<&Planes>,
        x: &[f32],
        screens: &[&Screen],
        logits: &mut [f32],
    ) -> bool {
        let (columns, rows, n) = (self.config().hidden_size, codes.scales.len(), screens.len());
        let has_one_round = self.has_one_round(state, screens);
        let HeadState {
            x: q,
            sums,
            best,
            forced,
            ..
        } = state;
        // The hidden states as integers, and the rows that each token needs in any case.
        q.resize_with(n.max(q.len()), Int16::default);
        for (q, x) in q.iter_mut().zip(x.chunks_exact(columns)) {
            match planes {
                None => q.fill(x),
                Some(_) => q.fill_high(x),
            }
        }
        let blocks = rows.div_ceil(ROWS);
        forced.clear();
        forced.resize(blocks * n, 0);
        for (t, screen) in screens.iter().enumerate() {
            for id in screen.exact.iter().map(|id| *id as usize) {
                assert!(id < rows, "id {id} is not in the vocabulary");
                forced[id / ROWS * n + t] |= 1 << (id % ROWS);
            }
            if screen.among.is_some() {
                for block in 0..blocks {
                    forced[block * n + t] &= !screen.excluded(block);
                }
            }
        }
        let token = |t: usize| Token {
            screen: screens[t],
            x: &x[t * columns..][..columns],
            q: &q[t],
            threshold: match screens[t].is_only() {
                true => f64::MAX,
                false => f64::NEG_INFINITY,
            },
        };
        let mut tokens: Vec<Token> = (0..n).map(token).collect();
        let high = HighPlanes::new(self.kernels, codes);
        let screening = Screening::new(&self.file, high, planes, &q[..n], forced);
        // A block of sums is (tokens, rows of the block), a block of bests is (tokens).
        sums.clear();
        sums.resize(blocks * n * ROWS, 0);
        best.clear();
        best.resize(blocks * n, (f64::NEG_INFINITY, 0));
        let has_two_at_once = state.passes_of_much > 0 && n == 1 && (self.kernels.prefers_codes)(1);
        let at_once = match (has_one_round, has_two_at_once) {
            (true, _) => codes.planes,
            (_, true) => codes.planes.min(2),
            _ => 1,
        };
        let later = (at_once..codes.planes).map(|plane| plane..plane + 1);
        for planes in std::iter::once(0..at_once).chain(later) {
            self.pool
                .zip_chunks_mut((sums, n * ROWS), (best, n), |i, sums, best| {
                    let of_block = i * ROWS..rows.min((i + 1) * ROWS);
                    screening.round(planes.clone(), of_block, &tokens, sums, best);
                });
            if planes.start == 0 && planes.end < codes.planes {
                for (t, token) in tokens.iter_mut().enumerate() {
                    let rows = most_promising(best, (t, n), token.screen.top);
                    let lowest = rows.iter().map(|row| screening.lowest(token, *row));
                    let lowest: Vec<f64> = lowest.collect();
                    token.raise(lowest.into_iter());
                }
            }
        }
        if planes.is_some() {
            self.raise_exactly(&screening, &mut tokens, best);
        }
        let overflowed = self.remaining(&screening, &tokens, sums, logits);
        let read = screening.bytes.into_inner();
        state.bytes += read;
        if at_once == 1 && screens.iter().all(|screen| screen.needs_most()) {
            let groups = codes.multipliers.len();
            let [first, rest] = [0..1, 1..codes.planes]
                .map(|planes| groups * PLANE_BYTES[planes].iter().sum::<usize>());
            let is_much = read > first + rest / 2;
            state.passes_of_much = if is_much { PASSES } else { 0 };
        }
        overflowed
    }

    /// Whether all planes are multiplied in one round, which takes less time for some tokens that
    /// need most of the rows. Fewer are enough where the rounds of the tokens before have read most
    /// of the table.
    pub(super) fn has_one_round(&self, state: &HeadState, screens: &[&Screen]) -> bool {
        /// Fewest tokens whose whole codes take no more time than their first plane alone, and
        /// where most of the other planes is read too.
        const TOKENS: [usize; 2] = [4, 3];
        let count = screens.iter().filter(|screen| screen.needs_most()).count();
        let fewest = TOKENS[usize::from(state.passes_of_much > 0)];
        count >= fewest && (self.kernels.prefers_codes)(count) && 2 * count >= screens.len()
    }

    /// Raises the thresholds to logits of the most promising rows.
    fn raise_exactly(&self, screening: &Screening, tokens: &mut [Token], best: &[Best]) {
        let n = tokens.len();
        let mut exact = Vec::new();
        for (t, token) in tokens.iter().enumerate() {
            let rows = most_promising(best, (t, n), token.screen.top);
            exact.extend(rows.into_iter().map(|row| (t, row, f64::NEG_INFINITY)));
        }
        let mut scratch = vec![0.0; self.pool.threads() * self.config().hidden_size];
        self.pool
            .chunks_mut_with(&mut exact, 1, &mut scratch, |_, exact, scratch| {
                if let [(t, Some(row), logit)] = exact {
                    let token = &tokens[*t];
                    screening.decode(*row, scratch);
                    let y = screening.product(token, scratch);
                    if y.is_finite() {
                        *logit = f64::from(y) * token.scale();
                    }
                }
            });
        for (t, token) in tokens.iter_mut().enumerate() {
            let of_token = exact.iter().filter(|exact| exact.0 == t);
            token.raise(of_token.map(|exact| exact.2));
        }
    }

    /// The logits of the rows that remain, -∞ for the others. Returns whether any is not finite.
    fn remaining(
        &self,
        screening: &Screening,
        tokens: &[Token],
        sums: &[i64],
        logits: &mut [f32],
    ) -> bool {
        let n = tokens.len();
        let overflowed = AtomicBool::new(false);
        let mut scratch = vec![0.0; self.pool.threads() * self.config().hidden_size];
        self.pool.tiles_mut(
            n,
            (n, ROWS),
            [logits],
            &mut scratch,
            |_, mut tile, scratch| {
                let of_block = tile.columns();
                let sums = &sums[of_block.start * n..of_block.end * n];
                // A coded table without a low plane has its logits already.
                let mut staying = Vec::new();
                if screening.planes.is_some() {
                    let bounds = screening.bounds(of_block.clone(), screening.high.codes.planes);
                    let forced = screening.forced(of_block.start);
                    staying.extend((0..n).map(|t| {
                        let sums = &sums[t * of_block.len()..][..of_block.len()];
                        screening.staying(&bounds, &tokens[t], sums, (of_block.start, forced[t]))
                    }));
                }
                for (i, row) in of_block.clone().enumerate() {
                    let mut is_decoded = false;
                    for (t, token) in tokens.iter().enumerate() {
                        let sum = sums[t * of_block.len() + i];
                        let y = &mut tile.row(t)[i];
                        *y = f32::NEG_INFINITY;
                        if sum == DROPPED {
                            continue;
                        }
                        if screening.planes.is_none() {
                            *y = screening.high.logit(token.q, row, sum);
                        } else if staying[t] >> i & 1 == 1 {
                            if !is_decoded {
                                screening.decode(row, scratch);
                                is_decoded = true;
                            }
                            *y = screening.product(token, scratch);
                        } else {
                            continue;
                        }
                        if !y.is_finite() {
                            overflowed.store(true, Ordering::Relaxed);
                        }
                    }
                }
            },
        );
        overflowed.into_inner()
    }
}

/// A token of a batch. Logits are compared times the factor of its integers, [`Token::scale`].
struct Token<'a> {
    screen: &'a Screen,
    x: &'a [f32],
    q: &'a Int16,
    /// What a row must reach.
    threshold: f64,
}

impl Token<'_> {
    fn scale(&self) -> f64 {
        f64::from(self.q.scale())
    }

    /// Raises the threshold, given lower bounds of the logits of the most promising rows: to the
    /// smallest of `top` of them, as at least `top` rows reach it; and to the largest less
    /// `within`.
    fn raise(&mut self, lowest: impl Iterator<Item = f64>) {
        if self.screen.is_only() {
            return;
        }
        let begin = (0, f64::INFINITY, f64::NEG_INFINITY);
        let (count, smallest, largest) =
            lowest.fold(begin, |(n, a, b), x| (n + 1, a.min(x), b.max(x)));
        let within = largest - f64::from(self.screen.within) * self.scale();
        let top = self.screen.top;
        let lowest = match top > 0 && top == count {
            true => smallest.max(within),
            false => within,
        };
        self.threshold = self.threshold.max(lowest);
    }
}

/// The rows of one token that are most likely to have the `top` largest logits, at least one; best
/// is (blocks, tokens). `None` stands for a block without a row that counts.
fn most_promising(best: &[Best], (t, n): (usize, usize), top: usize) -> Vec<Option<usize>> {
    let mut best: Vec<Best> = best.iter().skip(t).step_by(n).copied().collect();
    let count = top.max(1).min(best.len());
    best.select_nth_unstable_by(count - 1, |a, b| b.0.total_cmp(&a.0));
    let row = |best: &Best| (best.0 > f64::NEG_INFINITY).then_some(best.1);
    best[..count].iter().map(row).collect()
}

/// A table and the tokens that are multiplied with it.
struct Screening<'a> {
    file: &'a PackedFile,
    high: HighPlanes<'a>,
    planes: Option<&'a Planes<'a>>,
    x: &'a [Int16],
    /// The rows that a token needs in any case: a bit for each, (blocks of rows, tokens).
    forced: &'a [u64],
    /// Relative error of a product in f32: of Σ |x| |w|.
    rounding: f64,
    /// Absolute error of a product in f32, where terms are subnormal.
    smallest: f64,
    /// Bytes that were read.
    bytes: AtomicUsize,
}

impl<'a> Screening<'a> {
    fn new(
        file: &'a PackedFile,
        high: HighPlanes<'a>,
        planes: Option<&'a Planes<'a>>,
        x: &'a [Int16],
        forced: &'a [u64],
    ) -> Self {
        let columns = (high.groups * GROUP) as f64;
        Screening {
            file,
            high,
            planes,
            x,
            forced,
            // A term passes through a product, the sum of its lane and four sums of lanes.
            rounding: (columns / 16.0 + 6.0) * f64::from(f32::EPSILON),
            smallest: columns * f64::from(f32::from_bits(1)),
            bytes: AtomicUsize::new(0),
        }
    }

    /// Drops the rows of a block that cannot matter, adds some planes to the others, and notes the
    /// best row of each token.
    fn round(
        &self,
        planes: Range<usize>,
        rows: Range<usize>,
        tokens: &[Token],
        sums: &mut [i64],
        best: &mut [Best],
    ) {
        let sums = &mut sums[..tokens.len() * rows.len()];
        let plane_bytes: usize = PLANE_BYTES[planes.clone()].iter().sum();
        let row_bytes = self.high.groups * (plane_bytes + 1);
        let read = match planes.start {
            0 => self.first_round(planes.clone(), rows.clone(), tokens, sums),
            _ => self.later_round(planes.clone(), rows.clone(), tokens, sums),
        };
        self.bytes.fetch_add(read * row_bytes, Ordering::Relaxed);
        // After the last plane, sums are already the logits of a coded table.
        let has_rest = planes.end < self.high.codes.planes;
        if planes.start == 0 && has_rest || self.planes.is_some() {
            // The most promising row of the block, of those that are counted.
            let scales = &self.high.codes.scales[rows.clone()];
            let of_tokens = tokens.iter().zip(self.forced(rows.start)).zip(best);
            for (((token, forced), best), sums) in of_tokens.zip(sums.chunks_exact(rows.len())) {
                let skipped = forced | token.screen.excluded(rows.start / ROWS);
                let (estimate, place) = (self.high.kernels.largest)(sums, scales, skipped);
                *best = (estimate, rows.start + place);
            }
        }
    }

    /// A round after the first. Returns how many rows of the planes were read.
    fn later_round(
        &self,
        planes: Range<usize>,
        rows: Range<usize>,
        tokens: &[Token],
        sums: &mut [i64],
    ) -> usize {
        let (first, len) = (rows.start, rows.len());
        let bounds = self.bounds(rows, planes.start);
        let of_tokens = tokens.iter().zip(self.forced(first));
        for ((token, forced), sums) in of_tokens.zip(sums.chunks_exact_mut(len)) {
            let staying = self.staying(&bounds, token, sums, (first, *forced));
            // Whole blocks are read faster than single rows.
            if staying.count_ones() as usize <= len / 2 || sums.contains(&DROPPED) {
                for (i, sum) in sums.iter_mut().enumerate() {
                    if staying >> i & 1 == 0 {
                        *sum = DROPPED;
                    }
                }
            }
        }
        self.add_to_staying(planes, first..first + len, sums)
    }

    /// The first round. Returns how many rows of the planes were read.
    fn first_round(
        &self,
        planes: Range<usize>,
        rows: Range<usize>,
        tokens: &[Token],
        sums: &mut [i64],
    ) -> usize {
        let (first, len) = (rows.start, rows.len());
        let of_block = u64::MAX >> (ROWS - len);
        let candidates = |(token, forced): (&Token, &u64)| match token.screen.is_only() {
            true => *forced,
            false => of_block & !token.screen.excluded(first / ROWS),
        };
        let of_tokens = || tokens.iter().zip(self.forced(first)).map(candidates);
        let of_any = of_tokens().fold(0, |any, of_token| any | of_token);
        // Whole blocks are read faster than single rows.
        if of_any.count_ones() as usize <= len / 2 {
            for (candidates, sums) in of_tokens().zip(sums.chunks_exact_mut(len)) {
                for (i, sum) in sums.iter_mut().enumerate() {
                    if candidates >> i & 1 == 0 {
                        *sum = DROPPED;
                    }
                }
            }
        }
        self.add_to_staying(planes, rows, sums)
    }

    /// Adds some planes to the rows of a block that were not dropped. Returns how many rows of the
    /// planes were read.
    fn add_to_staying(&self, planes: Range<usize>, rows: Range<usize>, sums: &mut [i64]) -> usize {
        let (first, len) = (rows.start, rows.len());
        if !sums.contains(&DROPPED) {
            self.high.add(planes, self.x, first, sums);
            return len;
        }
        // Runs of neighbouring rows that stayed are read together.
        let mut needed = [false; ROWS];
        for (t, sums) in sums.chunks_exact_mut(len).enumerate() {
            let mut at = 0;
            for run in sums.chunk_by_mut(|a, b| (*a == DROPPED) == (*b == DROPPED)) {
                if run[0] != DROPPED {
                    self.high
                        .add(planes.clone(), &self.x[t..=t], first + at, run);
                    needed[at..at + run.len()].fill(true);
                }
                at += run.len();
            }
        }
        needed.iter().filter(|needed| **needed).count()
    }

    /// A lower bound of the logit of a row.
    fn lowest(&self, token: &Token, row: Option<usize>) -> f64 {
        let Some(row) = row else {
            return f64::NEG_INFINITY;
        };
        let (mut sum, planes) = ([0], self.high.codes.planes);
        let x = std::slice::from_ref(token.q);
        self.high.add(0..planes, x, row, &mut sum);
        let bounds = self.bounds(row..row + 1, planes);
        sum[0] as f64 * bounds.scales[0] - self.error(&bounds, token)
    }

    /// The values of a row of a table in planes.
    fn decode(&self, row: usize, values: &mut [f32]) {
        let planes = self.planes.expect("only tables in planes are decoded");
        self.file.count_seldom_read();
        self.bytes
            .fetch_add(planes.low_bytes(row), Ordering::Relaxed);
        (self.high.kernels.decode_planes)(planes, row, values);
    }

    /// The logit of a row of values.
    fn product(&self, token: &Token, values: &[f32]) -> f32 {
        let mut y = [0.0];
        (self.high.kernels.gemm_f32)(token.x, values.len(), values, &mut y);
        y[0]
    }

    /// The rows that the tokens need in any case, of the block from `first` on.
    fn forced(&self, first: usize) -> &'a [u64] {
        let n = self.x.len();
        &self.forced[first / ROWS * n..][..n]
    }

    /// The bounds of at most [`ROWS`] rows, of which `known` planes are in the sums.
    fn bounds(&self, rows: Range<usize>, known: usize) -> RowBounds {
        let codes = &self.high.codes;
        let mut bounds = RowBounds {
            scales: [0.0; ROWS],
            terms: [0.0; ROWS],
            rest: [0.0; ROWS],
        };
        for (to, scale) in bounds.scales.iter_mut().zip(&codes.scales[rows.clone()]) {
            *to = f64::from(*scale);
        }
        if let Some(planes) = self.planes {
            for (i, row) in rows.enumerate() {
                let norms = planes.norms_of(row);
                bounds.terms[i] = bounds.scales[i] * f64::from(norms[0]);
                bounds.rest[i] = bounds.scales[i] * f64::from(norms[known]);
            }
        } else if known < codes.planes {
            let each = codes.planes - 1;
            let remainders = &codes.remainders[rows.start * each..rows.end * each];
            let of_rows = remainders.chunks_exact(each).zip(bounds.scales);
            for (to, (remainders, scale)) in bounds.rest.iter_mut().zip(of_rows) {
                *to = scale * f64::from(remainders[known - 1]);
            }
        }
        bounds
    }

    /// The largest error of a logit of the first row.
    fn error(&self, bounds: &RowBounds, token: &Token) -> f64 {
        let Threshold {
            factors: [a, b, c],
            largest_norm,
            ..
        } = self.threshold(token);
        match bounds.terms[0] > largest_norm {
            true => f64::INFINITY,
            false => bounds.terms[0] * a + bounds.rest[0] * b + c,
        }
    }

    /// What a row must reach for a token.
    fn threshold(&self, token: &Token) -> Threshold {
        let (q, scale) = (token.q, token.scale());
        let a = q.high_error() + self.rounding * q.norm();
        let largest = f64::from(f32::MAX) / 4.0;
        Threshold {
            factors: [a, q.high_norm(), self.smallest * scale],
            // Logits are rounded and divided by a temperature before they are compared: rows this
            // close to the threshold stay, so that neither can make a tie with a row that was
            // dropped.
            least: token.threshold - token.threshold.abs() * 1e-6,
            largest_norm: largest * scale / q.norm(),
        }
    }

    /// The rows, one bit each, of the block from `first` on that can still reach the threshold or
    /// are needed in any case.
    fn staying(
        &self,
        bounds: &RowBounds,
        token: &Token,
        sums: &[i64],
        (first, forced): (usize, u64),
    ) -> u64 {
        let reaching = (self.high.kernels.reaching)(sums, bounds, self.threshold(token));
        forced | reaching & !token.screen.excluded(first / ROWS)
    }
}
