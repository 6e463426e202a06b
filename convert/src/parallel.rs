//! Rows of weights on all cores. Each row is computed independently, so the result does not depend
//! on the number of threads.

use sterna_ternary::parallel;

use crate::Result;

/// Work on fewer weights than this stays on one thread.
const WORTHWHILE: usize = 1 << 14;

/// Fills `out`, which consists of rows of `row` elements. `fill` gets the index of a part's first
/// row and the part. `weights` is the total amount of work.
///
/// # Errors
/// The error of the part with the lowest index.
pub(crate) fn rows<T: Send>(
    weights: usize,
    out: &mut [T],
    row: usize,
    fill: impl Fn(usize, &mut [T]) -> Result<()> + Sync,
) -> Result<()> {
    let parts = parallel::cores().min(weights / WORTHWHILE + 1);
    rows_in(parts, out, row, fill)
}

/// The same in at most `parts` parts of whole rows.
fn rows_in<T: Send>(
    parts: usize,
    out: &mut [T],
    row: usize,
    fill: impl Fn(usize, &mut [T]) -> Result<()> + Sync,
) -> Result<()> {
    if parts == 1 {
        return fill(0, out);
    }
    let rows = (out.len() / row).div_ceil(parts).max(1);
    let parts = out.chunks_mut(rows * row).enumerate();
    let filled = parallel::map(parts, |(i, part)| fill(i * rows, part));
    filled.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Error;

    #[test]
    fn any_number_of_parts_gives_the_same() {
        for (rows, row) in [(0, 3), (1, 5), (7, 4), (100, 1)] {
            let expected: Vec<usize> = (0..rows * row).map(|i| i * i).collect();
            for parts in 1..9 {
                let mut out = vec![0; rows * row];
                rows_in(parts, &mut out, row, |first, part| {
                    for (i, x) in part.iter_mut().enumerate() {
                        *x = (first * row + i).pow(2);
                    }
                    Ok(())
                })
                .unwrap();
                assert_eq!(out, expected, "{rows} {row} {parts}");
            }
        }
    }

    #[test]
    fn the_first_error_is_returned() {
        let mut out = [0; 100];
        let error = rows_in(4, &mut out, 1, |first, _| {
            Err(Error::Input {
                path: "".into(),
                why: first.to_string(),
            })
        });
        assert!(matches!(error, Err(Error::Input { why, .. }) if why == "0"));
    }
}
