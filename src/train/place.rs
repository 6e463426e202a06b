//! Where training computes: the device, and the ranks that `mpirun` started.

use std::rc::Rc;

use sterna_train::ranks::{Collective, Ranks, Reduction, Solo, launcher};
use sterna_train::{Place, Processor};

use crate::choice::choice;
use crate::exit::{self, Interrupted, Usage};

#[derive(clap::Args)]
#[group(id = "place")]
#[command(next_help_heading = "Ranks")]
pub struct Args {
    /// How ranks add gradients.
    ///
    /// `mpirun -np N sterna train` starts N ranks. fixed gives the same weights as one rank. fast
    /// adds in the order of MPI or NCCL, so the last bits depend on the number of ranks.
    #[arg(long, default_value = "fixed", value_parser = choice(REDUCTIONS, Reduction::name))]
    reduce: Reduction,
    /// What each rank computes on.
    ///
    /// cuda needs a build with the feature cuda, and several GPUs one with the feature nccl.
    #[arg(long, value_enum, default_value_t = Device::Cpu)]
    device: Device,
}

const REDUCTIONS: [(Reduction, &str); 2] = [(Reduction::Fixed, ""), (Reduction::Fast, "")];

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Device {
    Cpu,
    Cuda,
}

impl Args {
    /// Whether `--device` is a GPU.
    pub fn is_on_gpu(&self) -> bool {
        self.device != Device::Cpu
    }

    /// Joins the other ranks.
    pub fn join(&self) -> anyhow::Result<Ranks> {
        Ok(Ranks::new(collective()?, self.reduce))
    }

    /// The device of this rank. An error if the ranks have different flags.
    pub fn place(&self, ranks: &Ranks) -> anyhow::Result<Place> {
        let choices = [self.reduce as u8, self.device as u8];
        ranks.agree("--reduce or --device", &choices)?;
        let processor = match self.device {
            Device::Cpu => Processor::Cpu,
            Device::Cuda if cfg!(feature = "cuda") => Processor::Cuda {
                local_rank: launcher::local_rank(ranks).map_err(Usage)?,
            },
            Device::Cuda => return Err(exit::not_built_with("--device cuda", "cuda").into()),
        };
        Ok(Place::new(ranks.clone(), processor)?)
    }
}

/// Refuses to run a verb once per rank, since all ranks would write the same files.
pub fn refuse_ranks(verb: &str) -> anyhow::Result<()> {
    if !launcher::is_mpi() {
        return Ok(launcher::refuse_lone_rank().map_err(Usage)?);
    }
    let why = format!("{verb} runs alone, without mpirun; `sterna train` runs on several ranks");
    Err(Usage(why).into())
}

fn collective() -> anyhow::Result<Rc<dyn Collective>> {
    if launcher::is_mpi() {
        return mpi();
    }
    launcher::refuse_lone_rank().map_err(Usage)?;
    Ok(Rc::new(Solo))
}

#[cfg(feature = "mpi")]
fn mpi() -> anyhow::Result<Rc<dyn Collective>> {
    Ok(Rc::new(sterna_train::ranks::mpi::Mpi::join()?))
}

/// Without MPI every process would train the whole run alone, and all would write the same files.
#[cfg(not(feature = "mpi"))]
fn mpi() -> anyhow::Result<Rc<dyn Collective>> {
    Err(exit::not_built_with("mpirun", "mpi").into())
}

/// The result of a rank. A failure ends all ranks, since the others would wait for this one.
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
