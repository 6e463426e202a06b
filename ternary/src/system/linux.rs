//! Linux: the files of `/proc` and `/sys`.

use std::collections::HashSet;
use std::fs;

use rustix::thread::CpuSet;

use super::{CpuCache, MachineMemory, ProcessMemory};

pub fn machine_memory() -> Option<MachineMemory> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let total = kilobytes(&text, "MemTotal:")?;
    Some(MachineMemory {
        total,
        available: kilobytes(&text, "MemAvailable:").unwrap_or(total), // before Linux 3.14
    })
}

pub fn process_memory() -> Option<ProcessMemory> {
    let text = fs::read_to_string("/proc/self/status").ok()?;
    Some(ProcessMemory {
        resident: kilobytes(&text, "VmRSS:")?,
        peak: kilobytes(&text, "VmHWM:")?,
    })
}

pub fn physical_cores() -> Option<usize> {
    let set = rustix::thread::sched_getaffinity(None).ok()?;
    let allowed = (0..CpuSet::MAX_CPU).filter(|cpu| set.is_set(*cpu));
    let siblings = |cpu| read(&format!("cpu{cpu}/topology/thread_siblings_list"));
    let cores: HashSet<String> = allowed.map(siblings).collect::<Option<_>>()?;
    Some(cores.len())
}

pub fn affinity() -> Option<String> {
    value("/proc/self/status", "Cpus_allowed_list")
}

pub fn caches(cpu: usize) -> Vec<CpuCache> {
    let cache = |index| {
        let read = |file: &str| read(&format!("cpu{cpu}/cache/index{index}/{file}"));
        let is_data = read("type")? != "Instruction";
        let cache = CpuCache {
            level: read("level")?.parse().ok()?,
            bytes: read("size")?.strip_suffix('K')?.parse::<u64>().ok()? * 1024,
            shared_by: read("shared_cpu_list")?,
        };
        Some(is_data.then_some(cache))
    };
    (0..).map_while(cache).flatten().collect()
}

pub fn last_level_caches() -> Option<usize> {
    let set = rustix::thread::sched_getaffinity(None).ok()?;
    let allowed = (0..CpuSet::MAX_CPU).filter(|cpu| set.is_set(*cpu));
    let last = |cpu| {
        let last = caches(cpu).into_iter().max_by_key(|cache| cache.level)?;
        Some(last.shared_by)
    };
    let shared: HashSet<String> = allowed.filter_map(last).collect();
    (!shared.is_empty()).then_some(shared.len())
}

pub fn cpu_name() -> Option<String> {
    let name = |key| value("/proc/cpuinfo", key).filter(|name| !name.is_empty());
    // The kernels of Arm give numbers only.
    let arm = || {
        let (implementer, part) = (name("CPU implementer")?, name("CPU part")?);
        Some(format!("ARM implementer {implementer}, part {part}"))
    };
    name("model name").or_else(arm)
}

/// A file below the folder of the processors.
fn read(path: &str) -> Option<String> {
    let text = fs::read_to_string(format!("/sys/devices/system/cpu/{path}")).ok()?;
    Some(text.trim().to_owned())
}

/// The first value of a key in a file of lines `key : value`.
fn value(path: &str, key: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let value = |line: &str| {
        let rest = line.strip_prefix(key)?.trim_start();
        Some(rest.strip_prefix(':')?.trim().to_owned())
    };
    text.lines().find_map(value)
}

/// A value in bytes that the kernel gives in units of 1024, from its line.
fn kilobytes(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let kilobytes: u64 = line?.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_in_bytes() {
        let text = "MemTotal:       2 kB\nMemFree: 1 kB\n";
        assert_eq!(kilobytes(text, "MemTotal:"), Some(2048));
        assert_eq!(kilobytes(text, "MemAvailable:"), None);
    }
}
