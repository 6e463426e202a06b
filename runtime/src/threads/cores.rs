//! How many threads are worth starting.

/// Physical cores that this process may use: affinity and container limits are respected, and two hardware
/// threads of one core count once.
pub fn physical_cores() -> usize {
    let available = std::thread::available_parallelism().map_or(1, |n| n.get());
    cores_in_affinity_mask().map_or(available, |cores| cores.clamp(1, available))
}

#[cfg(target_os = "linux")]
fn cores_in_affinity_mask() -> Option<usize> {
    // SAFETY: a set of bits; all zeros is the empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: the size is that of the set, which the call fills for this thread (0).
    if unsafe { libc::sched_getaffinity(0, size_of_val(&set), &mut set) } != 0 {
        return None;
    }
    // SAFETY: the index is below CPU_SETSIZE.
    let allowed =
        (0..libc::CPU_SETSIZE as usize).filter(|cpu| unsafe { libc::CPU_ISSET(*cpu, &set) });
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
