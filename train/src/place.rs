//! Where a run computes: its device, and the ranks that share the work.

use candle_core::Device;

use crate::Result;
use crate::collective::Ranks;

/// What forward and backward pass run on. The optimizer and its state stay on the CPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Processor {
    /// The fused operations of this crate.
    #[default]
    Cpu,
    /// The first Nvidia GPU that this process may use, on plain candle operations; for builds with the feature
    /// `cuda`.
    Cuda,
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
            Processor::Cuda => Device::new_cuda(0)?,
        };
        Ok(Place { ranks, device })
    }
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
