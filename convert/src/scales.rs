//! The scales of a matrix in canonical form, and the factorization of weights that are stored as
//! products trit × scale.
//!
//! The canonical form has as few scales as describe the matrix exactly: one per matrix if all
//! nonzero weights share it, one per row if those of each row do, and one per group if not. The
//! scale of a row or group of zeros is 1. Two sources of the same weights therefore have the same
//! scales, whatever form they store.

use sterna_ternary::scales::{GROUP_COLUMNS, Scaling};

/// The scales of a matrix, each finite and positive.
#[derive(Debug, Clone, PartialEq)]
pub struct Scales {
    /// Which weights share a scale.
    pub scaling: Scaling,
    /// The values, in the shape that [`Scaling::shape`] gives.
    pub values: Vec<f32>,
}

impl Scales {
    /// One scale for the whole matrix.
    pub fn one(scale: f32) -> Scales {
        Scales {
            scaling: Scaling::Matrix,
            values: vec![scale],
        }
    }

    /// The scale, if there is only one.
    pub fn single(&self) -> Option<f32> {
        (self.scaling == Scaling::Matrix).then(|| self.values[0])
    }

    /// The scale or the mean of several, for reports.
    pub fn mean(&self) -> f32 {
        let sum: f64 = self.values.iter().map(|s| f64::from(*s)).sum();
        (sum / self.values.len() as f64) as f32
    }

    /// The canonical form of scales for equal runs of weights, each at most one row. Scales of
    /// all-zero runs are ignored. None if a group has several scales.
    pub(crate) fn of_runs(trits: &[i8], columns: usize, scales: &[f32]) -> Option<Scales> {
        let (rows, span) = (trits.len() / columns, trits.len() / scales.len());
        let mut values = vec![0.0; columns.div_ceil(GROUP_COLUMNS) * rows];
        for (i, (trits, scale)) in trits.chunks_exact(span).zip(scales).enumerate() {
            if trits.iter().all(|t| *t == 0) {
                continue;
            }
            let (row, column) = (i * span / columns, i * span % columns);
            for group in column / GROUP_COLUMNS..(column + span).div_ceil(GROUP_COLUMNS) {
                let value = &mut values[group * rows + row];
                if *value != 0.0 && value != scale {
                    return None;
                }
                *value = *scale;
            }
        }
        Some(Scales::of_groups(trits, columns, values))
    }

    /// The canonical form of scales (groups, rows). Scales of all-zero groups are ignored.
    pub(crate) fn of_groups(trits: &[i8], columns: usize, mut values: Vec<f32>) -> Scales {
        let rows = trits.len() / columns;
        let groups = columns.div_ceil(GROUP_COLUMNS);
        let mut of_rows = vec![None; rows];
        let (mut is_row, mut is_matrix, mut first) = (true, true, None);
        for (row, trits) in trits.chunks_exact(columns).enumerate() {
            for (group, trits) in trits.chunks(GROUP_COLUMNS).enumerate() {
                let value = &mut values[group * rows + row];
                if trits.iter().all(|t| *t == 0) {
                    *value = 1.0;
                    continue;
                }
                is_row &= *of_rows[row].get_or_insert(*value) == *value;
                is_matrix &= *first.get_or_insert(*value) == *value;
            }
        }
        debug_assert_eq!(values.len(), groups * rows);
        if is_matrix {
            return Scales::one(first.unwrap_or(1.0));
        }
        let scaling = if is_row { Scaling::Row } else { Scaling::Group };
        if is_row {
            values = of_rows.into_iter().map(|s| s.unwrap_or(1.0)).collect();
        }
        Scales { scaling, values }
    }
}

/// Weights factored into trits and scales.
pub(crate) struct Factors {
    pub trits: Vec<i8>,
    pub scales: Scales,
    /// Weights that are not exactly trit × scale.
    pub rounded: u64,
}

/// One step of f16, relative to a number. In Bonsai, some groups have two magnitudes that are one
/// step apart.
const STEP: f32 = 1.0 / 1024.0;

/// Factors finite weights into trits and scales.
///
/// # Errors
/// The position of a weight that is neither zero nor within one step of the largest magnitude of
/// its group.
pub(crate) fn factors(weights: &[f32], columns: usize) -> Result<Factors, usize> {
    let rows = weights.len() / columns;
    let groups = columns.div_ceil(GROUP_COLUMNS);
    let mut values = vec![1.0; groups * rows];
    let mut trits = vec![0; weights.len()];
    let mut of_row = vec![0.0; groups];
    let mut rounded = 0;
    let of_rows = weights
        .chunks_exact(columns)
        .zip(trits.chunks_exact_mut(columns));
    for (row, (weights, trits)) in of_rows.enumerate() {
        let found = row_factors(weights, trits, &mut of_row);
        rounded += found.map_err(|column| row * columns + column)?;
        for (group, scale) in of_row.iter().enumerate() {
            values[group * rows + row] = *scale;
        }
    }
    let scales = Scales::of_groups(&trits, columns, values);
    Ok(Factors {
        trits,
        scales,
        rounded,
    })
}

/// Factors one row of finite weights into trits and one scale per group; the scale of zeros is 1.
/// Returns the number of weights that are not exactly trit × scale.
///
/// # Errors
/// As [`factors`].
pub(crate) fn row_factors(
    weights: &[f32],
    trits: &mut [i8],
    scales: &mut [f32],
) -> Result<u64, usize> {
    let mut rounded = 0;
    for (group, weights) in weights.chunks(GROUP_COLUMNS).enumerate() {
        let scale = weights.iter().fold(0f32, |s, w| s.max(w.abs()));
        let is_far = |w: &f32| *w != 0.0 && w.abs() < scale * (1.0 - STEP);
        if let Some(column) = weights.iter().position(is_far) {
            return Err(group * GROUP_COLUMNS + column);
        }
        let differs = |w: &&f32| **w != 0.0 && w.abs() != scale;
        rounded += weights.iter().filter(differs).count() as u64;
        scales[group] = if scale > 0.0 { scale } else { 1.0 };
    }
    for (trit, w) in trits.iter_mut().zip(weights) {
        *trit = i8::from(*w > 0.0) - i8::from(*w < 0.0);
    }
    Ok(rounded)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Checks two rows of 200 columns with alternating +s and -s; `s` depends on row and group.
    fn check(s: impl Fn(usize, usize) -> f32, scaling: Scaling, values: &[f32]) {
        let weight = |i: usize| s(i / 200, i % 200 / 128) * [1.0, -1.0, 0.0][i % 3];
        let weights: Vec<f32> = (0..400).map(weight).collect();
        let found = factors(&weights, 200).ok().unwrap();
        assert_eq!(found.scales.scaling, scaling);
        assert_eq!(found.scales.values, values);
        assert_eq!(found.rounded, 0);
    }

    #[test]
    fn as_few_scales_as_describe_the_matrix() {
        check(|_, _| 0.5, Scaling::Matrix, &[0.5]);
        check(|_, _| 0.0, Scaling::Matrix, &[1.0]);
        check(|row, _| [0.0, 0.5][row], Scaling::Matrix, &[0.5]);
        check(|row, _| [0.25, 0.5][row], Scaling::Row, &[0.25, 0.5]);
        let columns = |_, group: usize| [0.25, 0.5][group];
        check(columns, Scaling::Group, &[0.25, 0.25, 0.5, 0.5]);
        let mixed = |row: usize, group: usize| [[0.25, 0.0], [0.5, 0.75]][row][group];
        check(mixed, Scaling::Group, &[0.25, 0.5, 1.0, 0.75]);
    }

    #[test]
    fn scales_of_blocks_become_those_of_groups() {
        let mut trits = vec![1; 2 * 256];
        let of = |trits: &[i8], scales: &[f32]| Scales::of_runs(trits, 256, scales);
        let wide = of(&trits, &[0.25, 0.5]).unwrap(); // blocks of 256
        assert_eq!(
            (wide.scaling, &*wide.values),
            (Scaling::Row, &[0.25, 0.5][..])
        );
        let [a, b, c] = [0.25, 0.5, 0.75];
        let narrow = of(&trits, &[a, a, b, b, c, c, a, a]).unwrap(); // of 64
        assert_eq!(narrow.scaling, Scaling::Group);
        assert_eq!(narrow.values, [a, c, b, a]);
        assert_eq!(of(&trits, &[a, b, b, b, c, c, a, a]), None);
        trits[64..128].fill(0);
        let zeros = of(&trits, &[a, b, b, b, c, c, a, a]).unwrap();
        assert_eq!(zeros.values, [a, c, b, a]);
    }

    #[test]
    fn weights_a_step_apart_count_and_others_are_no_products() {
        let mut weights = vec![0.5; 200];
        weights[3] = -0.49976;
        let found = factors(&weights, 200).ok().unwrap();
        assert_eq!((found.rounded, found.trits[3]), (1, -1));
        assert_eq!(found.scales, Scales::one(0.5));
        weights[130] = 0.49;
        assert_eq!(factors(&weights, 200).err(), Some(130));
    }
}
