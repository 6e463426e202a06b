//! The operations of the training step, fused: one candle `CustomOp` each, with its own backward.
//!
//! A step is split into shards of whole sequences that run in parallel, so every operation here is
//! serial: no thread waits for another inside a step, and sums do not depend on the number of
//! threads. All tensors are contiguous f32 on the CPU. [`mod@reference`] has the same operations in
//! plain candle; tests compare the two, and other devices use that one. [`Operations`] is the table
//! from which a model takes one of the two.
//!
//! Gradients of weights go to their place among all gradients of a shard ([`Slot`]) and not through
//! candle's graph. candle's own operations are not used here: each intermediate result would be a
//! tensor in memory, and the fused norms and softmax of candle-nn stop gradients without an error.

mod attention;
mod cross_entropy;
mod distillation;
mod embedding;
mod gate;
mod instructions;
mod linear;
mod lookup;
mod math;
mod matmul;
mod operations;
mod parameter;
pub mod reference;
mod rms_norm;

pub use attention::{AttentionShape, DocumentStarts, RopeTable, attention};
pub(crate) use cross_entropy::chunk_tokens as logits_tokens;
pub use cross_entropy::{Gradients, UNSCORED, cross_entropy};
pub use distillation::{Distillation, Student, distillation};
pub use embedding::embedding;
pub use gate::gate;
pub use instructions::InstructionSet;
pub(crate) use instructions::vectorized;
pub(crate) use linear::products;
pub use linear::{Input, Linear, linear};
pub(crate) use matmul::{Mat, matmul};
pub use operations::{Attention, FUSED, Operations, REFERENCE, Ternarized};
pub use parameter::{Parameter, Slot, Slots};
pub use rms_norm::rms_norm;

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, Layout, Result, Tensor, bail};
use std::sync::Mutex;

/// The values of a contiguous f32 tensor on the CPU, inside an operation.
///
/// # Errors
/// Another element type, or strides.
pub(crate) fn values<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    match (storage, layout.contiguous_offsets()) {
        (CpuStorage::F32(values), Some((start, end))) => Ok(&values[start..end]),
        _ => bail!(
            "expected a contiguous f32 tensor, found {:?} of shape {:?} and strides {:?}",
            storage.dtype(),
            layout.dims(),
            layout.stride()
        ),
    }
}

/// Runs `f` on the values of a contiguous f32 tensor on the CPU.
///
/// # Errors
/// Another device, another element type, or strides.
pub(crate) fn with_values<R>(tensor: &Tensor, f: impl FnOnce(&[f32]) -> R) -> Result<R> {
    let (storage, layout) = tensor.storage_and_layout();
    match &*storage {
        candle_core::Storage::Cpu(storage) => Ok(f(values(storage, layout)?)),
        _ => bail!(
            "expected a tensor on the CPU, found one on {:?}",
            tensor.device().location()
        ),
    }
}

/// A tensor with the shape and device of `like`.
fn tensor_like(values: Vec<f32>, like: &Tensor) -> Result<Tensor> {
    Tensor::from_vec(values, like.shape(), like.device())
}

/// Values that the forward pass keeps for the backward pass. They are freed with the graph.
struct Saved<T>(Mutex<Option<T>>);

impl<T> Saved<T> {
    fn new() -> Self {
        Saved(Mutex::new(None))
    }

    fn set(&self, value: T) {
        *self
            .0
            .lock()
            .expect("no operation panics while it holds its lock") = Some(value);
    }

    fn take(&self) -> Result<T> {
        let value = self
            .0
            .lock()
            .expect("no operation panics while it holds its lock")
            .take();
        value.ok_or_else(|| candle_core::Error::Msg("backward ran twice or before forward".into()))
    }
}
