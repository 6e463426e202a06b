//! What threads will read in a later region. A worker that waits asks for it, so that it lies in
//! its second-level cache when the region begins.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::kernels::prefetch_second;

/// Most bytes that a thread asks for: a part of a second-level cache.
const MOST: usize = 256 << 10;
/// Bytes that it asks for between two looks at whether a region began.
const STEP: usize = 512;
/// Bytes of a cache line of most machines.
const LINE: usize = 64;

/// The memory that a thread will read: an address and a length. Addresses are only asked for, so it
/// does no harm if the two do not belong together or if the memory is gone.
#[derive(Default)]
#[repr(align(128))]
pub(super) struct Ahead {
    start: AtomicUsize,
    len: AtomicUsize,
}

/// Gives each thread the beginning of its equal share of slices that follow each other.
pub(super) fn share_out(threads: &[Ahead], slices: &[&[u8]]) {
    let total: usize = slices.iter().map(|slice| slice.len()).sum();
    for (thread, ahead) in threads.iter().enumerate() {
        let mut first = total * thread / threads.len();
        let len = total / threads.len();
        let mut share = &[][..];
        for slice in slices {
            if first < slice.len() {
                share = &slice[first..];
                break;
            }
            first -= slice.len();
        }
        let len = share.len().min(len).min(MOST);
        ahead.start.store(share.as_ptr().addr(), Ordering::Relaxed);
        ahead.len.store(len, Ordering::Relaxed);
    }
}

/// How far a worker has asked for what it will read.
#[derive(Debug, Default)]
pub(super) struct Reader {
    start: usize,
    len: usize,
    asked: usize,
}

impl Reader {
    /// Asks for the next lines of what the worker will read. Returns whether there were any.
    pub fn ask(&mut self, ahead: &Ahead) -> bool {
        let start = ahead.start.load(Ordering::Relaxed);
        if start != self.start {
            *self = Reader {
                start,
                len: ahead.len.load(Ordering::Relaxed),
                asked: 0,
            };
        }
        let lines = self.asked..self.len.min(self.asked + STEP);
        self.asked = lines.end;
        for line in lines.clone().step_by(LINE) {
            prefetch_second(std::ptr::without_provenance(self.start + line));
        }
        !lines.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where in `slices` the share of each thread begins, and how long it is.
    fn shares(threads: usize, slices: &[&[u8]]) -> Vec<(usize, usize, usize)> {
        let aheads: Vec<Ahead> = (0..threads).map(|_| Ahead::default()).collect();
        share_out(&aheads, slices);
        let place = |ahead: &Ahead| {
            let [start, len] = [&ahead.start, &ahead.len].map(|x| x.load(Ordering::Relaxed));
            let at = |slice: &&[u8]| start.checked_sub(slice.as_ptr().addr());
            let holds = |slice: &&[u8]| at(slice).is_some_and(|at| at + len <= slice.len());
            let slice = slices.iter().position(holds).unwrap();
            (slice, at(&slices[slice]).unwrap(), len)
        };
        aheads.iter().map(place).collect()
    }

    #[test]
    fn shares_are_equal_and_end_with_their_slice() {
        let bytes = vec![0; 3 * MOST];
        let slices = [&bytes[..1000], &bytes[1000..1200], &bytes[1300..1700]];
        assert_eq!(shares(2, &slices), [(0, 0, 800), (0, 800, 200)]);
        let of_four = [(0, 0, 400), (0, 400, 400), (0, 800, 200), (2, 0, 400)];
        assert_eq!(shares(4, &slices), of_four);
        assert_eq!(shares(1, &[&bytes]), [(0, 0, MOST)]);
    }

    #[test]
    fn a_worker_asks_for_each_line_once() {
        let bytes = vec![0; 2 * STEP + 1];
        let ahead = [Ahead::default()];
        let mut reader = Reader::default();
        assert!(!reader.ask(&ahead[0]));
        for slice in [&bytes[..], &bytes[STEP..]] {
            share_out(&ahead, &[slice]);
            let times = (0..10).filter(|_| reader.ask(&ahead[0])).count();
            assert_eq!(times, slice.len().div_ceil(STEP));
        }
        share_out(&ahead, &[&[]]);
        assert!(!reader.ask(&ahead[0]));
    }
}
