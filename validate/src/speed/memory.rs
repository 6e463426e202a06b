//! Resident memory of this process; mapped files count. Only Linux can forget a peak, so elsewhere
//! there is none.

use sterna_ternary::system;

/// Bytes in memory now.
pub(super) fn resident() -> Option<u64> {
    Some(system::process_memory()?.resident)
}

/// The most bytes that were in memory since [`reset_peak`].
pub(super) fn peak() -> Option<u64> {
    Some(system::process_memory()?.peak)
}

/// Forgets the peak and returns the bytes in memory now.
pub(super) fn reset_peak() -> Option<u64> {
    // 5 resets the peak resident set, see proc_pid_clear_refs(5).
    std::fs::write("/proc/self/clear_refs", "5").ok()?;
    resident()
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn the_peak_includes_what_was_freed() {
        if reset_peak().is_none() {
            return; // a kernel without this reset
        }
        let block = std::hint::black_box(vec![1u8; 64 << 20]);
        let with_block = resident().unwrap();
        drop(block);
        let counting_error = 1 << 20; // the kernel sums per-processor counts lazily
        assert!(peak().unwrap() + counting_error >= with_block);
    }
}
