//! Where a run computes: its device, and the ranks that share the work.

use candle_core::Device;

use super::Ranks;
use crate::Result;

/// What a rank computes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Processor {
    /// The fused operations of this crate.
    #[default]
    Cpu,
    /// An Nvidia GPU, on plain candle operations; for builds with the feature `cuda`. With the feature `nccl` several
    /// ranks exchange gradients from GPU to GPU.
    Cuda {
        /// Which rank this is on its machine, from 0: ranks take turns with the GPUs that they may use.
        local_rank: usize,
    },
}

/// Where a run computes. On CPUs its weights do not depend on the number of ranks, unless they reduce fast.
#[derive(Clone)]
pub struct Place {
    /// Who shares the work.
    pub ranks: Ranks,
    pub(crate) device: Device,
}

impl Place {
    /// These ranks, each on a processor of its own.
    ///
    /// # Errors
    /// No such processor, or none in this build.
    pub fn new(ranks: Ranks, processor: Processor) -> Result<Place> {
        let device = match processor {
            Processor::Cpu => Device::Cpu,
            Processor::Cuda { local_rank } => gpu(local_rank)?,
        };
        let ranks = joined(ranks, &device)?;
        Ok(Place { ranks, device })
    }
}

#[cfg(feature = "cuda")]
fn gpu(local_rank: usize) -> Result<Device> {
    use candle_core::cuda_backend::cudarc::driver::CudaContext;
    let count = CudaContext::device_count().map_err(candle_core::Error::wrap)?;
    let ordinal = local_rank.checked_rem(count.max(0) as usize);
    Ok(Device::new_cuda(ordinal.unwrap_or(0))?)
}

/// candle refuses this with a message of its own.
#[cfg(not(feature = "cuda"))]
fn gpu(_: usize) -> Result<Device> {
    Ok(Device::new_cuda(0)?)
}

/// The ranks of GPUs, which talk through NCCL.
#[cfg(feature = "nccl")]
fn joined(ranks: Ranks, device: &Device) -> Result<Ranks> {
    use std::rc::Rc;
    match device {
        Device::Cuda(device) if ranks.size() > 1 => {
            ranks.through(|control| Ok(Rc::new(super::nccl::Nccl::join(control, device)?)))
        }
        _ => Ok(ranks),
    }
}

/// Without NCCL they talk through the memory of the CPU.
#[cfg(not(feature = "nccl"))]
fn joined(ranks: Ranks, _: &Device) -> Result<Ranks> {
    Ok(ranks)
}

impl Default for Place {
    /// The CPU of one rank.
    fn default() -> Place {
        Place {
            ranks: Ranks::default(),
            device: Device::Cpu,
        }
    }
}
