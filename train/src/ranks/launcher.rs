//! What the launcher of a process says in the environment.

use super::Ranks;

/// Variables that MPI launchers set for each rank: Open MPI, MPICH and Intel, PMIx.
const LAUNCHED: [&str; 3] = ["OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "PMIX_RANK"];

/// Variables with the rank of a process on its machine: PyTorch, Open MPI, MPICH and Intel.
const LOCAL: [&str; 3] = [
    "LOCAL_RANK",
    "OMPI_COMM_WORLD_LOCAL_RANK",
    "MPI_LOCALRANKID",
];

/// Whether MPI started this process.
pub fn is_mpi() -> bool {
    LAUNCHED.iter().any(|name| std::env::var_os(name).is_some())
}

/// A number in the environment; `None` if the variable is not set.
///
/// # Errors
/// What is wrong with the variable.
pub fn number(name: &str) -> Result<Option<usize>, String> {
    let Some(value) = std::env::var_os(name) else {
        return Ok(None);
    };
    let number = value.to_str().and_then(|value| value.parse().ok());
    let number = number.ok_or_else(|| format!("{name} is {value:?}, expected a number"))?;
    Ok(Some(number))
}

/// The rank on this machine. Without a variable that says it, all ranks are on one machine.
///
/// # Errors
/// Those of [`number`].
pub fn local_rank(ranks: &Ranks) -> Result<usize, String> {
    for name in LOCAL {
        if let Some(rank) = number(name)? {
            return Ok(rank);
        }
    }
    Ok(ranks.rank())
}
