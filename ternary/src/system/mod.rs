//! What the operating system says about memory and processors.
//!
//! There is one file per system, with the same functions. They return `None` for what the system
//! does not say. The crate `sysinfo` knows neither the peak of a process nor caches, and the crate
//! `num_cpus` does not respect the affinity of a process.

#[cfg(target_os = "linux")]
mod linux;
#[cfg(target_os = "macos")]
mod macos;
#[cfg(not(any(target_os = "linux", target_os = "macos", windows)))]
mod other;
#[cfg(windows)]
mod windows;

#[cfg(target_os = "linux")]
use linux as this;
#[cfg(target_os = "macos")]
use macos as this;
#[cfg(not(any(target_os = "linux", target_os = "macos", windows)))]
use other as this;
#[cfg(windows)]
use windows as this;

/// Memory of the machine.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MachineMemory {
    /// Bytes of all of it.
    pub total: u64,
    /// Bytes that are free or can be reclaimed.
    pub available: u64,
}

/// Memory of this process. Pages of mapped files count.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ProcessMemory {
    /// Bytes that are in memory now.
    pub resident: u64,
    /// The most bytes that were in memory at a time.
    pub peak: u64,
}

/// A cache of the processor for data.
#[derive(Debug, Clone, PartialEq)]
pub struct CpuCache {
    /// 1 is the nearest.
    pub level: u32,
    /// Its size.
    pub bytes: u64,
    /// The hardware threads that share it, like `0-3`.
    pub shared_by: String,
}

/// The memory of the machine. Limits of containers are not in it.
pub fn machine_memory() -> Option<MachineMemory> {
    this::machine_memory()
}

/// The memory of this process.
pub fn process_memory() -> Option<ProcessMemory> {
    this::process_memory()
}

/// Physical cores that the affinity of this process allows. Two hardware threads of one core count
/// once. On macOS these are the fast cores of the machine.
pub fn physical_cores() -> Option<usize> {
    this::physical_cores()
}

/// Hardware threads that the affinity of this process allows, like `0-3`.
pub fn affinity() -> Option<String> {
    this::affinity()
}

/// Caches for data of the first hardware thread, the nearest first.
pub fn caches() -> Vec<CpuCache> {
    this::caches(0)
}

/// Last-level caches of the hardware threads that the affinity of this process allows.
pub fn last_level_caches() -> Option<usize> {
    this::last_level_caches()
}

/// The name of the processor.
pub fn cpu_name() -> Option<String> {
    this::cpu_name().filter(|name| !name.is_empty())
}

/// The numbers of the bits that are set, like `0-3,8`.
#[cfg(any(windows, test))]
fn list(mask: usize) -> String {
    let is_set = |bit: &u32| *bit < usize::BITS && mask >> bit & 1 == 1;
    let mut parts = Vec::new();
    let mut bits = (0..usize::BITS).filter(is_set).peekable();
    while let Some(first) = bits.next() {
        let mut last = first;
        while let Some(next) = bits.next_if_eq(&(last + 1)) {
            last = next;
        }
        parts.push(match first == last {
            true => first.to_string(),
            false => format!("{first}-{last}"),
        });
    }
    parts.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_system_is_understood() {
        if cfg!(not(any(target_os = "linux", target_os = "macos", windows))) {
            return;
        }
        let machine = machine_memory().unwrap();
        assert!(machine.available > 1 << 20 && machine.available <= machine.total);
        let block = std::hint::black_box(vec![1u8; 64 << 20]);
        let with_block = process_memory().unwrap();
        drop(block);
        let counting_error = 1 << 20; // Linux sums counts of processors lazily
        assert!(with_block.resident > 64 << 20 && with_block.resident < machine.total);
        assert!(process_memory().unwrap().peak + counting_error >= with_block.resident);
        let threads = std::thread::available_parallelism().unwrap().get();
        assert!((1..=threads).contains(&physical_cores().unwrap()));
    }

    #[test]
    fn masks_are_shown_as_lists() {
        assert_eq!(list(0), "");
        assert_eq!(list(0b1), "0");
        assert_eq!(list(0b1101_1101_1111), "0-4,6-8,10-11");
        assert_eq!(list(1 << (usize::BITS - 1)), (usize::BITS - 1).to_string());
    }
}
