//! Runs work on rows with all cores. Each row is computed independently, so the result does not
//! depend on the number of threads.
//!
//! This uses scoped threads of the standard library instead of rayon: a part takes milliseconds,
//! and a pool with work stealing would gain nothing.

use std::num::NonZero;
use std::thread;

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
    let cores = thread::available_parallelism().map_or(1, NonZero::get);
    rows_on(cores.min(weights / WORTHWHILE + 1), out, row, fill)
}

fn rows_on<T: Send>(
    threads: usize,
    out: &mut [T],
    row: usize,
    fill: impl Fn(usize, &mut [T]) -> Result<()> + Sync,
) -> Result<()> {
    let part = (out.len() / row).div_ceil(threads).max(1);
    if threads == 1 {
        return fill(0, out);
    }
    let fill = &fill;
    thread::scope(|scope| {
        let parts = out.chunks_mut(part * row).enumerate();
        let threads: Vec<_> = parts
            .map(|(i, out)| scope.spawn(move || fill(i * part, out)))
            .collect();
        threads.into_iter().try_for_each(|t| {
            t.join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Error;

    #[test]
    fn any_number_of_threads_gives_the_same() {
        for (rows, row) in [(0, 3), (1, 5), (7, 4), (100, 1)] {
            let expected: Vec<usize> = (0..rows * row).map(|i| i * i).collect();
            for threads in 1..9 {
                let mut out = vec![0; rows * row];
                rows_on(threads, &mut out, row, |first, part| {
                    for (i, x) in part.iter_mut().enumerate() {
                        *x = (first * row + i).pow(2);
                    }
                    Ok(())
                })
                .unwrap();
                assert_eq!(out, expected, "{rows} {row} {threads}");
            }
        }
    }

    #[test]
    fn the_first_error_is_returned() {
        let mut out = [0; 100];
        let error = rows_on(4, &mut out, 1, |first, _| {
            Err(Error::Input {
                path: "".into(),
                why: first.to_string(),
            })
        });
        assert!(matches!(error, Err(Error::Input { why, .. }) if why == "0"));
    }
}
