//! Independent parts of work on all cores, for work that takes milliseconds or more.
//!
//! Scoped threads of the standard library take one part after another. `rayon` would do the same,
//! but with a second pool in programs that run models: the regions of a forward pass take
//! microseconds and have a pool of their own, `sterna_runtime::threads`.

use std::num::NonZero;
use std::sync::Mutex;
use std::thread;

/// The number of cores that this process may use.
pub fn cores() -> usize {
    thread::available_parallelism().map_or(1, NonZero::get)
}

/// Calls `work` for every part, on all cores. The results are in the order of the parts, so they do
/// not depend on the number of cores.
pub fn map<P, R: Send>(
    parts: impl ExactSizeIterator<Item = P> + Send,
    work: impl Fn(P) -> R + Sync,
) -> Vec<R> {
    map_on(cores(), parts, work)
}

fn map_on<P, R: Send>(
    threads: usize,
    parts: impl ExactSizeIterator<Item = P> + Send,
    work: impl Fn(P) -> R + Sync,
) -> Vec<R> {
    let threads = threads.min(parts.len());
    let queue = Mutex::new(parts.enumerate());
    let next = || queue.lock().ok()?.next();
    let run = || {
        let mut results = Vec::new();
        while let Some((index, part)) = next() {
            results.push((index, work(part)));
        }
        results
    };
    // The calling thread is one of the threads.
    let mut results = thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(run)).collect();
        let mut results = run();
        for other in others {
            let joined = other.join();
            results.extend(joined.unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        }
        results
    });
    results.sort_unstable_by_key(|(index, _)| *index);
    results.into_iter().map(|(_, result)| result).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_in_the_order_of_the_parts() {
        for parts in [0, 1, 2, 7, 100] {
            let expected: Vec<usize> = (0..parts).map(|i| i * i).collect();
            for threads in 1..9 {
                assert_eq!(map_on(threads, 0..parts, |i| i * i), expected);
            }
        }
    }

    #[test]
    fn a_panic_of_a_part_reaches_the_caller() {
        let caught = std::panic::catch_unwind(|| {
            map_on(4, 0..8, |i| assert_ne!(i, 5, "part {i}"));
        });
        let message = caught.unwrap_err();
        assert!(message.downcast_ref::<String>().unwrap().contains("part 5"));
    }
}
