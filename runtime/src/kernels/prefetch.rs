//! Requests for memory that is read soon. They are hints: no address is wrong.

use std::arch::x86_64::{_MM_HINT_T0, _MM_HINT_T1, _mm_prefetch};

/// How far prefetches run ahead of loads where `rows` neighbours are computed together.
///
/// Rows are too short for the hardware to see a stream in each, but all of them together are read
/// from front to back, and that is the order of the prefetches. The last row is then loaded before
/// the rows that precede it in memory, so the distance is that to the last row plus what a core
/// reads while memory answers.
pub(super) fn prefetch_distance(rows: usize, row_bytes: usize) -> usize {
    /// What a core reads in twice the time that memory takes to answer.
    const LATENCY: usize = 4096;
    (rows - 1) * row_bytes + LATENCY
}

/// Asks for the cache line `offset` bytes after `start`, for the first-level cache.
#[inline(always)]
pub(super) fn prefetch_line(start: *const u8, offset: usize) {
    let at = start.wrapping_add(offset).cast();
    // SAFETY: a hint that reads nothing and accepts any address.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(at) };
}

/// The same for the first-level cache if it is `near`, else for the second-level one.
#[inline(always)]
pub(super) fn prefetch_near(start: *const u8, offset: usize, near: bool) {
    if near {
        prefetch_line(start, offset);
    } else {
        let at = start.wrapping_add(offset).cast();
        // SAFETY: a hint that reads nothing and accepts any address.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(at) };
    }
}

/// Whether the first-level cache can hold the bytes between load and prefetch, and the activations.
pub(super) fn is_near(distance: usize) -> bool {
    distance <= 10 << 10
}
