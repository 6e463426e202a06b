//! Resident memory of this process, from Linux's /proc; `None` elsewhere. Mapped files count. The
//! crate `sysinfo` is not used, because it does not report the peak.

use std::fs;

/// Bytes in memory now.
pub(super) fn resident() -> Option<u64> {
    status("VmRSS:")
}

/// The most bytes that were in memory since [`reset_peak`].
pub(super) fn peak() -> Option<u64> {
    status("VmHWM:")
}

/// Forgets the peak and returns the bytes in memory now.
pub(super) fn reset_peak() -> Option<u64> {
    // 5 resets the peak resident set, see proc_pid_clear_refs(5).
    fs::write("/proc/self/clear_refs", "5").ok()?;
    resident()
}

fn status(key: &str) -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(key))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024)
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
