//! Ranks with an Nvidia GPU each: NCCL exchanges what is in the memory of the GPUs.
//!
//! <https://docs.nvidia.com/deeplearning/nccl/user-guide/docs/>. Everything in the memory of the
//! CPU goes through another [`Collective`]; its rank 0 sends the id of the NCCL communicator to the
//! others. Calls of NCCL are queued on the stream of the device like all its operations. So they
//! wait for the operations that compute their values, and later readers wait for them.

use std::rc::Rc;

use candle_core::cuda_backend::cudarc::nccl::result::NcclError;
use candle_core::cuda_backend::cudarc::nccl::safe::{Comm, Id, ReduceOp};
use candle_core::{
    CpuStorage, CudaDevice, CudaStorage, DType, Device, InplaceOp1, Layout, Tensor, bail,
};

use super::Collective;
use crate::{Error, Result};

/// All ranks of another collective, with one GPU each.
pub struct Nccl {
    comm: Comm,
    device: CudaDevice,
    /// For bytes that are not on a GPU.
    control: Rc<dyn Collective>,
}

fn failed(what: &str) -> impl FnOnce(NcclError) -> Error {
    move |NcclError(code)| Error::Collective(format!("NCCL cannot {what}: {code:?}"))
}

impl Nccl {
    /// Connects the GPUs of all ranks of `control`. All ranks call it together, on the thread that
    /// trains.
    ///
    /// # Errors
    /// [`Error::Collective`] where NCCL cannot connect them, for example because two ranks have the
    /// same GPU.
    pub fn join(control: Rc<dyn Collective>, device: &CudaDevice) -> Result<Nccl> {
        let stream = device.cuda_stream();
        // NCCL uses the current GPU of the calling thread.
        let bound = stream.context().bind_to_thread();
        bound.map_err(|e| Error::Collective(format!("the GPU cannot be used: {e}")))?;
        let mut id = [0; 128];
        if control.rank() == 0 {
            let own = Id::new().map_err(failed("make an id"))?;
            id = *own.internal();
        }
        control.broadcast(bytemuck::cast_slice_mut(&mut id))?;
        let (rank, size) = (control.rank(), control.size());
        let comm = Comm::from_rank(stream, rank, size, Id::uninit(id));
        Ok(Nccl {
            comm: comm.map_err(failed("connect the GPUs of the ranks"))?,
            device: device.clone(),
            control,
        })
    }

    fn call(&self, values: &Tensor, call: Call) -> Result<()> {
        let comm = &self.comm;
        Ok(values.inplace_op1(&InPlace { comm, call })?)
    }
}

impl Drop for Nccl {
    /// Waits until nothing is queued on any GPU, because dropping a communicator aborts it.
    fn drop(&mut self) {
        if !std::thread::panicking() {
            use candle_core::backend::BackendDevice;
            // If this fails, the ranks end anyway.
            let _ = self.device.synchronize();
            let _ = self.control.barrier();
        }
    }
}

fn as_rank(rank: usize) -> i32 {
    i32::try_from(rank).expect("NCCL numbers its ranks with i32")
}

/// A call of NCCL on the values of a tensor, in place.
#[derive(Debug, Clone, Copy)]
enum Call {
    Send { to: i32 },
    Receive { from: i32 },
    Broadcast,
    AllReduce,
}

struct InPlace<'a> {
    comm: &'a Comm,
    call: Call,
}

impl InplaceOp1 for InPlace<'_> {
    fn name(&self) -> &'static str {
        "nccl"
    }

    fn cpu_fwd(&self, _: &mut CpuStorage, _: &Layout) -> candle_core::Result<()> {
        bail!("NCCL needs a tensor in the memory of a GPU; this one is on the CPU")
    }

    fn cuda_fwd(&self, storage: &mut CudaStorage, layout: &Layout) -> candle_core::Result<()> {
        let Some((start, end)) = layout.contiguous_offsets() else {
            bail!("NCCL needs a contiguous tensor; this one has strides")
        };
        let mut values = storage.as_cuda_slice_mut::<f32>()?.slice_mut(start..end);
        let done = match self.call {
            Call::Send { to } => self.comm.send(&values, to),
            Call::Receive { from } => self.comm.recv(&mut values, from).map(|_| ()),
            Call::Broadcast => self.comm.broadcast_in_place(&mut values, 0).map(|_| ()),
            Call::AllReduce => {
                let sum = self.comm.all_reduce_in_place(&mut values, &ReduceOp::Sum);
                sum.map(|_| ())
            }
        };
        done.map_err(|NcclError(code)| {
            candle_core::Error::Msg(format!("NCCL: {:?} failed: {code:?}", self.call))
        })
    }
}

impl Collective for Nccl {
    fn rank(&self) -> usize {
        self.control.rank()
    }

    fn size(&self) -> usize {
        self.control.size()
    }

    fn send(&self, bytes: &[u8], to: usize) -> Result<()> {
        self.control.send(bytes, to)
    }

    fn receive(&self, bytes: &mut [u8], from: usize) -> Result<()> {
        self.control.receive(bytes, from)
    }

    fn broadcast(&self, bytes: &mut [u8]) -> Result<()> {
        self.control.broadcast(bytes)
    }

    fn all_reduce(&self, values: &mut [f32]) -> Result<()> {
        self.control.all_reduce(values)
    }

    fn barrier(&self) -> Result<()> {
        self.control.barrier()
    }

    fn abort(&self, code: u8) -> ! {
        self.control.abort(code)
    }

    fn send_tensor(&self, values: &Tensor, to: usize) -> Result<()> {
        self.call(values, Call::Send { to: as_rank(to) })
    }

    fn receive_tensor(&self, len: usize, device: &Device, from: usize) -> Result<Tensor> {
        let values = Tensor::zeros(len, DType::F32, device)?;
        let from = as_rank(from);
        self.call(&values, Call::Receive { from })?;
        Ok(values)
    }

    fn broadcast_tensor(&self, values: Tensor) -> Result<Tensor> {
        self.call(&values, Call::Broadcast)?;
        Ok(values)
    }

    fn all_reduce_tensor(&self, values: Tensor) -> Result<Tensor> {
        self.call(&values, Call::AllReduce)?;
        Ok(values)
    }
}
