//! Where a run computes: its device, and the ranks that share its work.

use candle_core::Device;

use super::Ranks;
use crate::Result;

/// The kind of device of a rank.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Processor {
    /// The fused operations of this crate.
    #[default]
    Cpu,
    /// An Nvidia GPU with plain candle operations; needs a build with the feature `cuda`. With the
    /// feature `nccl` several ranks exchange gradients from GPU to GPU.
    Cuda {
        /// Number of this rank on its machine, from 0. Ranks are assigned to the visible GPUs in
        /// turn.
        local_rank: usize,
    },
}

/// Where a run computes. On CPUs its weights do not depend on the number of ranks, except with
/// [`super::Reduction::Fast`].
#[derive(Clone)]
pub struct Place {
    /// The ranks that share the work.
    pub ranks: Ranks,
    pub(crate) device: Device,
}

impl Place {
    /// These ranks, each with a device of its own.
    ///
    /// # Errors
    /// The device does not exist, or this build does not support it.
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

/// Without the feature, candle returns an error that says so.
#[cfg(not(feature = "cuda"))]
fn gpu(_: usize) -> Result<Device> {
    Ok(Device::new_cuda(0)?)
}

/// Ranks with GPUs communicate through NCCL.
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

/// Without NCCL they communicate through the memory of the CPU.
#[cfg(not(feature = "nccl"))]
fn joined(ranks: Ranks, _: &Device) -> Result<Ranks> {
    Ok(ranks)
}

impl Default for Place {
    /// One rank on the CPU.
    fn default() -> Place {
        Place {
            ranks: Ranks::default(),
            device: Device::Cpu,
        }
    }
}
