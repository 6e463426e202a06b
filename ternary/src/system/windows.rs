//! Windows. Processors are those of the group that the process began in, at most 64.

use std::mem::size_of;

use windows_sys::Win32::System::ProcessStatus::{K32GetProcessMemoryInfo, PROCESS_MEMORY_COUNTERS};
use windows_sys::Win32::System::SystemInformation::{
    CacheInstruction, GetLogicalProcessorInformation, GlobalMemoryStatusEx, MEMORYSTATUSEX,
    RelationCache, RelationProcessorCore, SYSTEM_LOGICAL_PROCESSOR_INFORMATION,
};
use windows_sys::Win32::System::Threading::{GetCurrentProcess, GetProcessAffinityMask};

use super::{CpuCache, MachineMemory, ProcessMemory};

#[allow(unsafe_code)]
pub fn machine_memory() -> Option<MachineMemory> {
    let mut status = MEMORYSTATUSEX {
        dwLength: size_of::<MEMORYSTATUSEX>() as u32,
        ..Default::default()
    };
    // SAFETY: the structure has the length that it says.
    let is_known = unsafe { GlobalMemoryStatusEx(&mut status) } != 0;
    is_known.then_some(MachineMemory {
        total: status.ullTotalPhys,
        available: status.ullAvailPhys,
    })
}

#[allow(unsafe_code)]
pub fn process_memory() -> Option<ProcessMemory> {
    let mut counters = PROCESS_MEMORY_COUNTERS::default();
    let size = size_of::<PROCESS_MEMORY_COUNTERS>() as u32;
    // SAFETY: the structure has the size that is given, and the handle needs no closing.
    let is_known = unsafe { K32GetProcessMemoryInfo(GetCurrentProcess(), &mut counters, size) };
    (is_known != 0).then_some(ProcessMemory {
        resident: counters.WorkingSetSize as u64,
        peak: counters.PeakWorkingSetSize as u64,
    })
}

pub fn physical_cores() -> Option<usize> {
    let allowed = mask()?;
    let is_core = |part: &&SYSTEM_LOGICAL_PROCESSOR_INFORMATION| {
        part.Relationship == RelationProcessorCore && part.ProcessorMask & allowed != 0
    };
    let cores = processors()?.iter().filter(is_core).count();
    (cores > 0).then_some(cores)
}

pub fn affinity() -> Option<String> {
    mask().map(super::list)
}

pub fn caches(cpu: usize) -> Vec<CpuCache> {
    let mut caches = of_caches();
    caches.retain(|(mask, _)| mask >> cpu & 1 == 1);
    let mut caches: Vec<CpuCache> = caches.into_iter().map(|(_, cache)| cache).collect();
    caches.sort_by_key(|cache| cache.level);
    caches
}

pub fn last_level_caches() -> Option<usize> {
    let allowed = mask()?;
    let caches = of_caches();
    let last = caches.iter().map(|(_, cache)| cache.level).max()?;
    let is_allowed =
        |(mask, cache): &&(usize, CpuCache)| cache.level == last && mask & allowed != 0;
    Some(caches.iter().filter(is_allowed).count())
}

pub fn cpu_name() -> Option<String> {
    #[cfg(target_arch = "x86_64")]
    let name = raw_cpuid::CpuId::new()
        .get_processor_brand_string()
        .map(|name| name.as_str().trim().to_owned());
    #[cfg(not(target_arch = "x86_64"))]
    let name = None;
    name.or_else(|| std::env::var("PROCESSOR_IDENTIFIER").ok())
}

/// Caches for data, each with the mask of the hardware threads that share it.
#[allow(unsafe_code)]
fn of_caches() -> Vec<(usize, CpuCache)> {
    let parts = processors().unwrap_or_default();
    let caches = parts
        .iter()
        .filter(|part| part.Relationship == RelationCache);
    let caches = caches.filter_map(|part| {
        // SAFETY: the relationship says that this is the part of the union that has a value.
        let cache = unsafe { part.Anonymous.Cache };
        (cache.Type != CacheInstruction).then(|| {
            let cache = CpuCache {
                level: cache.Level.into(),
                bytes: cache.Size.into(),
                shared_by: super::list(part.ProcessorMask),
            };
            (part.ProcessorMask, cache)
        })
    });
    caches.collect()
}

/// The hardware threads that this process may use.
#[allow(unsafe_code)]
fn mask() -> Option<usize> {
    let (mut own, mut all) = (0, 0);
    // SAFETY: both pointers are valid, and the handle needs no closing.
    let is_known = unsafe { GetProcessAffinityMask(GetCurrentProcess(), &mut own, &mut all) };
    (is_known != 0 && own != 0).then_some(own)
}

/// Cores and caches.
#[allow(unsafe_code)]
fn processors() -> Option<Vec<SYSTEM_LOGICAL_PROCESSOR_INFORMATION>> {
    const SIZE: usize = size_of::<SYSTEM_LOGICAL_PROCESSOR_INFORMATION>();
    let mut bytes = 0;
    // SAFETY: without a buffer, the function only writes the number of bytes that it needs.
    unsafe { GetLogicalProcessorInformation(std::ptr::null_mut(), &mut bytes) };
    let mut parts = vec![SYSTEM_LOGICAL_PROCESSOR_INFORMATION::default(); bytes as usize / SIZE];
    bytes = (parts.len() * SIZE) as u32;
    // SAFETY: the buffer has the number of bytes that is given.
    let is_known = unsafe { GetLogicalProcessorInformation(parts.as_mut_ptr(), &mut bytes) } != 0;
    parts.truncate(bytes as usize / SIZE);
    is_known.then_some(parts)
}
