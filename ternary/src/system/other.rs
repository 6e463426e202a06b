//! A system that is not known here, such as WASI: it says nothing.

use super::{CpuCache, MachineMemory, ProcessMemory};

pub fn machine_memory() -> Option<MachineMemory> {
    None
}

pub fn process_memory() -> Option<ProcessMemory> {
    None
}

pub fn physical_cores() -> Option<usize> {
    None
}

pub fn affinity() -> Option<String> {
    None
}

pub fn caches(_: usize) -> Vec<CpuCache> {
    Vec::new()
}

pub fn last_level_caches() -> Option<usize> {
    None
}

pub fn cpu_name() -> Option<String> {
    None
}
