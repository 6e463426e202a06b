//! The number of threads that are worth starting. The crate `num_cpus` counts the physical cores of
//! the whole machine, without the affinity of this process.

#[cfg(target_os = "linux")]
use rustix::thread::CpuSet;

/// Physical cores that this process may use: affinity and container limits are respected, and two
/// hardware threads of one core count once.
pub fn physical_cores() -> usize {
    let available = std::thread::available_parallelism().map_or(1, |n| n.get());
    cores_in_affinity_mask().map_or(available, |cores| cores.clamp(1, available))
}

#[cfg(target_os = "linux")]
fn cores_in_affinity_mask() -> Option<usize> {
    let set = rustix::thread::sched_getaffinity(None).ok()?;
    let allowed = (0..CpuSet::MAX_CPU).filter(|cpu| set.is_set(*cpu));
    let mut cores = std::collections::HashSet::new();
    for cpu in allowed {
        let path = format!("/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list");
        cores.insert(std::fs::read_to_string(path).ok()?);
    }
    Some(cores.len())
}

#[cfg(not(target_os = "linux"))]
fn cores_in_affinity_mask() -> Option<usize> {
    None
}
