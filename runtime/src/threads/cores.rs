//! The number of threads that are worth starting.

/// Physical cores that this process may use: affinity and container limits are respected, and two
/// hardware threads of one core count once.
pub fn physical_cores() -> usize {
    let available = std::thread::available_parallelism().map_or(1, |n| n.get());
    sterna_ternary::system::physical_cores().map_or(available, |cores| cores.clamp(1, available))
}
