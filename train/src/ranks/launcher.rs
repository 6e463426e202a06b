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
fn number(name: &str) -> Result<Option<usize>, String> {
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
/// What is wrong with a variable.
pub fn local_rank(ranks: &Ranks) -> Result<usize, String> {
    for name in LOCAL {
        if let Some(rank) = number(name)? {
            return Ok(rank);
        }
    }
    Ok(ranks.rank())
}

/// Refuses a process that a launcher other than MPI's started as one of several ranks: each process
/// would train the whole run alone, and all would write the same files.
///
/// # Errors
/// What to do instead, or what is wrong with a variable.
pub fn refuse_lone_rank() -> Result<(), String> {
    let (rank, size) = (number("RANK")?, number("WORLD_SIZE")?);
    if size.unwrap_or(1) <= 1 && rank.unwrap_or(0) == 0 {
        return Ok(());
    }
    let (name, value) = match size {
        Some(size) => ("WORLD_SIZE", size),
        None => ("RANK", rank.unwrap_or(0)),
    };
    Err(format!(
        "{name} is {value}, but ranks find each other through MPI: start them with \
         `mpirun -np N sterna train …`, or unset RANK and WORLD_SIZE to train in one process"
    ))
}
