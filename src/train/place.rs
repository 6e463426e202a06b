//! Where training computes: the device, and the ranks that `mpirun` started.

use std::rc::Rc;

use sterna_train::collective::{Collective, Ranks, Reduction, Solo};
use sterna_train::{Place, Processor};

use crate::exit::{self, Interrupted, Usage};

#[derive(clap::Args)]
#[group(id = "place")]
pub struct Args {
    /// How several ranks (`mpirun -np N sterna train`) add their gradients: fixed gives the very weights of one
    /// rank, fast is MPI's own way, whose last bits depend on the number of ranks
    #[arg(long, value_enum, default_value_t = Reduce::Fixed)]
    reduce: Reduce,
    /// What forward and backward pass run on; cuda needs a build with that feature
    #[arg(long, value_enum, default_value_t = Device::Cpu)]
    device: Device,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Reduce {
    Fixed,
    Fast,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Device {
    Cpu,
    Cuda,
}

impl Args {
    /// Whether more is asked for than the CPU.
    pub fn is_on_gpu(&self) -> bool {
        self.device != Device::Cpu
    }

    /// Joins the other ranks.
    pub fn join(&self) -> anyhow::Result<Ranks> {
        let reduction = match self.reduce {
            Reduce::Fixed => Reduction::Fixed,
            Reduce::Fast => Reduction::Fast,
        };
        Ok(Ranks::new(collective()?, reduction))
    }

    /// The device of this rank, if all have the same kind and add alike.
    pub fn place(&self, ranks: &Ranks) -> anyhow::Result<Place> {
        let choices = [self.reduce as u8, self.device as u8];
        ranks.agree("--reduce or --device", &choices)?;
        let processor = match self.device {
            Device::Cpu => Processor::Cpu,
            Device::Cuda if cfg!(feature = "cuda") => Processor::Cuda,
            Device::Cuda => return Err(not_built_with("cuda")),
        };
        Ok(Place::new(ranks.clone(), processor)?)
    }
}

fn not_built_with(feature: &str) -> anyhow::Error {
    let why =
        format!("this program was built without {feature}; build it with --features {feature}");
    Usage(why).into()
}

/// Variables by which launchers tell a process that it is a rank: Open MPI, MPICH and Intel, PMIx.
const LAUNCHED: [&str; 3] = ["OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "PMIX_RANK"];

fn is_launched() -> bool {
    LAUNCHED.iter().any(|name| std::env::var_os(name).is_some())
}

/// Refuses to run a verb once for each rank: all would write the same files.
pub fn refuse_ranks(verb: &str) -> anyhow::Result<()> {
    if !is_launched() {
        return Ok(());
    }
    let why = format!("{verb} runs alone, without mpirun; `sterna train` runs on several ranks");
    Err(Usage(why).into())
}

#[cfg(feature = "mpi")]
fn collective() -> anyhow::Result<Rc<dyn Collective>> {
    Ok(match is_launched() {
        true => Rc::new(sterna_train::mpi::Mpi::join()?),
        false => Rc::new(Solo),
    })
}

/// Without MPI every process would take itself for the only one and write the same files.
#[cfg(not(feature = "mpi"))]
fn collective() -> anyhow::Result<Rc<dyn Collective>> {
    match is_launched() {
        true => Err(not_built_with("mpi")),
        false => Ok(Rc::new(Solo)),
    }
}

/// The result of a rank; its failure ends all of them, since the others would wait for it.
pub fn end(ranks: &Ranks, result: anyhow::Result<()>) -> anyhow::Result<()> {
    match result {
        Err(error) if ranks.size() > 1 && !error.is::<Interrupted>() => {
            let code = exit::code(&error);
            exit::report(&error.context(format!("rank {}", ranks.rank())));
            ranks.abort(code)
        }
        result => result,
    }
}
