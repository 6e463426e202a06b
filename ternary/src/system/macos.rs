//! macOS: `sysctl`, and what the kernel counts for a process.

use std::ffi::CStr;
use std::mem::size_of;
use std::ptr::null_mut;

use super::{CpuCache, MachineMemory, ProcessMemory};

/// Bytes of memory, and the per cent of them that are free or can be reclaimed.
pub fn machine_memory() -> Option<MachineMemory> {
    let total = number(c"hw.memsize")?;
    let level = number(c"kern.memorystatus_level")?.min(100);
    Some(MachineMemory {
        total,
        available: total / 100 * level,
    })
}

#[allow(unsafe_code)]
pub fn process_memory() -> Option<ProcessMemory> {
    const SIZE: i32 = size_of::<libc::proc_taskinfo>() as i32;
    // SAFETY: both structures are numbers only, for which zeros are valid.
    let (mut task, mut usage): (libc::proc_taskinfo, libc::rusage) =
        unsafe { (std::mem::zeroed(), std::mem::zeroed()) };
    let to = (&raw mut task).cast();
    // SAFETY: the structures have the types and sizes that the two functions fill.
    let (filled, failed) = unsafe {
        let filled = libc::proc_pidinfo(libc::getpid(), libc::PROC_PIDTASKINFO, 0, to, SIZE);
        (filled, libc::getrusage(libc::RUSAGE_SELF, &mut usage))
    };
    (filled == SIZE && failed == 0).then_some(ProcessMemory {
        resident: task.pti_resident_size,
        peak: usage.ru_maxrss.unsigned_abs(), // in bytes here, not in kilobytes
    })
}

/// Threads of a parallel region have equal parts, so slow cores would hold the fast ones up.
pub fn physical_cores() -> Option<usize> {
    let fast = number(c"hw.perflevel0.physicalcpu");
    Some(fast.or_else(|| number(c"hw.physicalcpu"))? as usize)
}

/// There is none on this system.
pub fn affinity() -> Option<String> {
    None
}

pub fn caches(_: usize) -> Vec<CpuCache> {
    let cache = |(level, fast, any): (u32, &CStr, &CStr)| {
        let bytes = number(fast).or_else(|| number(any));
        Some(CpuCache {
            level,
            bytes: bytes.filter(|bytes| *bytes > 0)?,
            shared_by: "unknown".to_owned(),
        })
    };
    let levels = [
        (1, c"hw.perflevel0.l1dcachesize", c"hw.l1dcachesize"),
        (2, c"hw.perflevel0.l2cachesize", c"hw.l2cachesize"),
        (3, c"hw.perflevel0.l3cachesize", c"hw.l3cachesize"),
    ];
    levels.into_iter().filter_map(cache).collect()
}

pub fn last_level_caches() -> Option<usize> {
    None
}

pub fn cpu_name() -> Option<String> {
    let mut bytes = [0; 256];
    ask(c"machdep.cpu.brand_string", &mut bytes)?;
    let text = CStr::from_bytes_until_nul(&bytes).ok()?;
    Some(text.to_string_lossy().into_owned())
}

/// A number of the system, of 32 or 64 bits.
fn number(name: &CStr) -> Option<u64> {
    let mut bytes = [0; 8];
    ask(name, &mut bytes)?;
    Some(u64::from_le_bytes(bytes)) // the rest of a short number is zeros
}

/// Writes what the system says about a name into the beginning of `to`.
#[allow(unsafe_code)]
fn ask(name: &CStr, to: &mut [u8]) -> Option<()> {
    let mut len = to.len();
    // SAFETY: the buffer has the length that is given, and the name ends with a zero.
    let failed = unsafe {
        let to = to.as_mut_ptr().cast();
        libc::sysctlbyname(name.as_ptr(), to, &mut len, null_mut(), 0)
    };
    (failed == 0).then_some(())
}
