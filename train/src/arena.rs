//! One value for each trained parameter, concatenated in the order of the model: gradients and
//! moments.
//!
//! They are in the memory where the model computes: [`Values`] for the fused operations, and a flat
//! tensor on the device for plain candle operations. A tensor is copied to the CPU only for a
//! checkpoint and for ranks that communicate through the CPU.

use std::borrow::Cow;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, MutexGuard};

use candle_core::{DType, Device, Tensor};

use crate::{Model, Result};

/// f32 values in the memory of the CPU.
#[derive(Debug, Default)]
pub struct Values {
    values: Vec<f32>,
    /// Where the memory goes when the values are dropped.
    home: Option<Arc<Spare>>,
}

/// Memory for the gradients of the next shards. New memory would cost more than what is done with
/// it: the system clears each page when it is first written.
#[derive(Debug)]
pub(crate) struct Spare(Mutex<Vec<Vec<f32>>>);

impl Spare {
    /// No memory yet.
    ///
    /// Activations come from the allocator. glibc gives free memory back once it is more than twice
    /// the largest block below 32 MiB that was freed. Freeing a block just below that size, which
    /// is never written, makes it keep the memory of activations.
    pub fn new() -> Spare {
        drop(std::hint::black_box(Vec::<u8>::with_capacity(31 << 20)));
        Spare(Mutex::default())
    }

    /// Memory for `len` values, which are those of before or zeros. All calls have the same `len`.
    pub fn values(self: &Arc<Spare>, len: usize) -> Values {
        let spare = self.lock().pop();
        let values = spare.unwrap_or_else(|| vec![0.0; len]);
        assert_eq!(values.len(), len, "one model's gradients are equally long");
        Values {
            values,
            home: Some(self.clone()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Vec<f32>>> {
        self.0.lock().expect("nothing panics between push and pop")
    }
}

impl Drop for Values {
    fn drop(&mut self) {
        if let Some(home) = &self.home {
            home.lock().push(std::mem::take(&mut self.values));
        }
    }
}

impl Values {
    /// Zeros.
    pub fn zeros(len: usize) -> Values {
        vec![0.0; len].into()
    }

    /// The values as a vector.
    pub fn into_vec(mut self) -> Vec<f32> {
        self.home = None;
        std::mem::take(&mut self.values)
    }
}

impl From<Vec<f32>> for Values {
    fn from(values: Vec<f32>) -> Self {
        Values { values, home: None }
    }
}

impl Clone for Values {
    fn clone(&self) -> Self {
        Values::from(self.to_vec())
    }
}

impl Deref for Values {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        &self.values
    }
}

impl DerefMut for Values {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.values
    }
}

/// The values of all parameters (parameter_count).
#[derive(Debug, Clone)]
pub enum Arena {
    /// In the memory of the CPU.
    Values(Values),
    /// A flat f32 tensor on the model's device.
    Tensor(Tensor),
}

impl Arena {
    /// Zeros in the memory where this model's gradients are.
    pub fn zeros(model: &Model) -> Result<Arena> {
        let len = model.parameter_count();
        Ok(match model.plain_device() {
            None => Arena::Values(Values::zeros(len)),
            Some(device) => Arena::Tensor(Tensor::zeros(len, DType::F32, device)?),
        })
    }

    /// The number of values.
    pub(crate) fn len(&self) -> usize {
        match self {
            Arena::Values(values) => values.len(),
            Arena::Tensor(tensor) => tensor.elem_count(),
        }
    }

    /// The values: borrowed on the CPU, copied from another device.
    pub fn values(&self) -> Result<Cow<'_, [f32]>> {
        Ok(match self {
            Arena::Values(values) => Cow::Borrowed(values),
            Arena::Tensor(tensor) => Cow::Owned(tensor.to_vec1()?),
        })
    }

    /// The values: moved on the CPU, copied from another device.
    pub fn into_values(self) -> Result<Vec<f32>> {
        Ok(match self {
            Arena::Values(values) => values.into_vec(),
            Arena::Tensor(tensor) => tensor.to_vec1()?,
        })
    }

    /// The values in the memory of the CPU; a tensor is converted in place.
    pub(crate) fn as_values(&mut self) -> Result<&mut [f32]> {
        if let Arena::Tensor(tensor) = self {
            *self = Arena::Values(tensor.to_vec1()?.into());
        }
        match self {
            Arena::Values(values) => Ok(values),
            Arena::Tensor(_) => unreachable!("it became values"),
        }
    }

    /// The values as a tensor on this device; those on the CPU are converted in place.
    pub(crate) fn as_tensor(&mut self, device: &Device) -> Result<&mut Tensor> {
        if let Arena::Values(values) = self {
            *self = Arena::Tensor(Tensor::from_slice(values, values.len(), device)?);
        }
        match self {
            Arena::Tensor(tensor) => Ok(tensor),
            Arena::Values(_) => unreachable!("it became a tensor"),
        }
    }

    /// Adds other values of the same model.
    pub(crate) fn add(&mut self, other: &Arena) -> Result<()> {
        match (self, other) {
            (Arena::Tensor(sum), Arena::Tensor(other)) => *sum = (&*sum + other)?,
            (sum, other) => {
                let (sum, other) = (sum.as_values()?, other.values()?);
                sum.iter_mut().zip(&*other).for_each(|(sum, x)| *sum += x);
            }
        }
        Ok(())
    }

    /// The Euclidean norm of each parameter's part. Only the norms are copied from a device.
    pub(crate) fn norms(&self, model: &Model) -> Result<Vec<f64>> {
        let mut start = 0;
        let parts = model.parameters().map(|(weight, var)| {
            let part = (start, weight.rows, weight.columns);
            start += var.elem_count();
            part
        });
        match self {
            Arena::Values(values) => Ok(parts
                .map(|(start, rows, columns)| norm(&values[start..start + rows * columns]))
                .collect()),
            Arena::Tensor(values) => {
                let square = |(start, rows, columns)| {
                    let part = values.narrow(0, start, rows * columns)?;
                    // Sums per row first: a GPU computes them in parallel.
                    let rows = part.reshape((rows, columns))?.sqr()?.sum(1)?;
                    rows.sum_all()?.reshape(1)
                };
                let squares = parts.map(square).collect::<candle_core::Result<Vec<_>>>()?;
                let squares = Tensor::cat(&squares, 0)?.to_vec1::<f32>()?;
                Ok(squares.iter().map(|x| f64::from(*x).sqrt()).collect())
            }
        }
    }

    /// The norm of all values, given that of each part.
    pub(crate) fn norm(&self, parts: &[f64]) -> f64 {
        match self {
            Arena::Values(values) => norm(values),
            Arena::Tensor(_) => parts.iter().map(|norm| norm * norm).sum::<f64>().sqrt(),
        }
    }
}

/// Euclidean norm, in f64, with a fixed order of additions over eight lanes.
fn norm(values: &[f32]) -> f64 {
    let mut lanes = [0f64; 8];
    for chunk in values.chunks(8) {
        for (lane, x) in lanes.iter_mut().zip(chunk) {
            *lane += f64::from(*x) * f64::from(*x);
        }
    }
    lanes.iter().sum::<f64>().sqrt()
}
