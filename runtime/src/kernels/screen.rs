//! The loops of a screened head over a block of rows: which rows can still matter, and which is the
//! most promising one.

/// Rows of a block.
pub const ROWS: usize = 64;
/// The sum of a row that was dropped.
pub const DROPPED: i64 = i64::MIN;

/// What bounds the logits of a block of rows. A logit is at most sum · scale + terms · a + rest · b
/// + c, with a, b and c of the token.
#[derive(Debug, Clone)]
pub struct RowBounds {
    /// What a sum is multiplied with.
    pub scales: [f64; ROWS],
    /// The norms of the rows; zero in a coded table, whose sums lack planes only.
    pub terms: [f64; ROWS],
    /// The norms of what the planes in the sum lack.
    pub rest: [f64; ROWS],
}

/// What a row must reach.
#[derive(Debug, Clone, Copy)]
pub struct Threshold {
    /// a, b and c of the token.
    pub factors: [f64; 3],
    /// The smallest upper bound that counts.
    pub least: f64,
    /// Rows with a larger norm can overflow, so they count.
    pub largest_norm: f64,
}

/// The rows that reach the threshold, one bit each. Dropped rows do not.
#[inline(always)]
pub(super) fn reaching(sums: &[i64], bounds: &RowBounds, threshold: Threshold) -> u64 {
    assert!(sums.len() <= ROWS);
    let [a, b, c] = threshold.factors;
    let mut bits = 0;
    for (i, sum) in sums.iter().enumerate() {
        let error = bounds.terms[i] * a + bounds.rest[i] * b + c;
        let upper = *sum as f64 * bounds.scales[i] + error;
        let counts = (upper >= threshold.least) | (bounds.terms[i] > threshold.largest_norm);
        bits |= u64::from(counts & (*sum != DROPPED)) << i;
    }
    bits
}

/// [`Largest`](super::slots::Largest)
#[inline(always)]
pub(super) fn largest(sums: &[i64], scales: &[f32], skipped: u64) -> (f64, usize) {
    assert!(sums.len() <= ROWS && sums.len() == scales.len());
    let mut estimates = [f64::NEG_INFINITY; ROWS];
    for (i, estimate) in estimates[..sums.len()].iter_mut().enumerate() {
        let counts = (sums[i] != DROPPED) & (skipped >> i & 1 == 0);
        let value = sums[i] as f64 * f64::from(scales[i]);
        *estimate = if counts { value } else { f64::NEG_INFINITY };
    }
    let larger = |a: f64, b: f64| if b > a { b } else { a };
    let (eights, _) = estimates.as_chunks::<8>();
    let mut lanes = [f64::NEG_INFINITY; 8];
    for eight in eights {
        for l in 0..8 {
            lanes[l] = larger(lanes[l], eight[l]);
        }
    }
    let largest = lanes.into_iter().fold(f64::NEG_INFINITY, larger);
    let place = estimates.iter().position(|estimate| *estimate == largest);
    (largest, place.unwrap_or(0))
}
