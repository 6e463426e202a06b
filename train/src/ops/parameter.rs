//! A trained tensor as an operation sees it: its value, and the place of its gradient.
//!
//! candle would make zeros for each gradient of a weight, add the gradient to them, and leave it in
//! a tensor that is copied to its place among all gradients. In a training step an operation
//! computes it in this place, a [`Slot`], and returns no gradient to candle.

use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard};

use candle_core::{Result, Tensor, Var};

use super::tensor_like;
use crate::Values;

/// A trained tensor.
#[derive(Clone)]
pub struct Parameter<'a> {
    /// Its value.
    pub value: &'a Tensor,
    /// The place of its gradient; none if candle's graph shall hold it.
    pub slot: Option<Slot>,
}

impl<'a> From<&'a Tensor> for Parameter<'a> {
    fn from(value: &'a Tensor) -> Self {
        Parameter { value, slot: None }
    }
}

impl<'a> From<&'a Var> for Parameter<'a> {
    fn from(value: &'a Var) -> Self {
        Parameter::from(value.as_tensor())
    }
}

/// The gradients of all parameters of one shard, concatenated.
pub struct Slots(Mutex<Filled>);

struct Filled {
    values: Values,
    /// Whether each parameter has received a gradient.
    seen: Vec<bool>,
}

impl Slots {
    /// Places for this number of parameters in this memory, whose values mean nothing yet.
    pub(crate) fn new(parameters: usize, values: Values) -> Slots {
        Slots(Mutex::new(Filled {
            values,
            seen: vec![false; parameters],
        }))
    }

    /// The gradients, and whether each parameter has received one. The slots are empty afterwards.
    pub(crate) fn take(&self) -> (Values, Vec<bool>) {
        let Filled { values, seen } = &mut *self.lock();
        (std::mem::take(values), std::mem::take(seen))
    }

    fn lock(&self) -> MutexGuard<'_, Filled> {
        let filled = self.0.lock();
        filled.expect("no operation panics while it writes a gradient")
    }
}

/// The place of the gradient of one parameter.
#[derive(Clone)]
pub struct Slot {
    all: Arc<Slots>,
    index: usize,
    range: Range<usize>,
}

impl Slot {
    /// The place of parameter `index`, whose values are at `range`.
    pub(crate) fn new(all: &Arc<Slots>, index: usize, range: Range<usize>) -> Slot {
        Slot {
            all: all.clone(),
            index,
            range,
        }
    }

    /// Runs `f` on the gradient so far and on whether it is the first: then the values mean nothing
    /// yet, and `f` replaces all of them; else it adds to them.
    pub(super) fn with<R>(&self, f: impl FnOnce(&mut [f32], bool) -> R) -> R {
        let Filled { values, seen } = &mut *self.all.lock();
        let is_first = !std::mem::replace(&mut seen[self.index], true);
        f(&mut values[self.range.clone()], is_first)
    }
}

/// Computes the gradient of a parameter with `f`, which replaces all values that it is given, and
/// puts it into the slot. Without a slot the gradient is returned, in the shape of `like`.
pub(super) fn gradient(
    slot: Option<&Slot>,
    like: &Tensor,
    f: impl FnOnce(&mut [f32]) -> Result<()>,
) -> Result<Option<Tensor>> {
    let Some(slot) = slot else {
        let mut values = vec![0.0; like.elem_count()];
        f(&mut values)?;
        return Ok(Some(tensor_like(values, like)?));
    };
    slot.with(|sum, is_first| {
        if is_first {
            return f(sum);
        }
        let mut values = vec![0.0; sum.len()];
        f(&mut values)?;
        sum.iter_mut().zip(&values).for_each(|(sum, g)| *sum += g);
        Ok(())
    })?;
    Ok(None)
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    #[test]
    fn the_first_gradient_replaces_and_others_are_added() {
        let like = Tensor::zeros(2, candle_core::DType::F32, &Device::Cpu).unwrap();
        let slots = Arc::new(Slots::new(2, vec![9.0; 5].into()));
        let slot = Slot::new(&slots, 1, 3..5);
        let give = |slot: Option<&Slot>, values: [f32; 2]| {
            let fill = |to: &mut [f32]| {
                to.copy_from_slice(&values);
                Ok(())
            };
            gradient(slot, &like, fill).unwrap()
        };
        assert!(give(Some(&slot), [1.0, 2.0]).is_none());
        assert!(give(Some(&slot), [0.5, -2.0]).is_none());
        let returned = give(None, [3.0, 4.0]).unwrap();
        assert_eq!(returned.to_vec1::<f32>().unwrap(), [3.0, 4.0]);
        let (values, seen) = slots.take();
        assert_eq!(*values, [9.0, 9.0, 9.0, 1.5, 0.0]);
        assert_eq!(seen, [false, true]);
    }
}
