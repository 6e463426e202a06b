//! Rows of the embedding by token id. The gradients of a row are added in the order of the tokens.

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor, bail};

use super::parameter::{Parameter, Slot};
use super::{tensor_like, values, with_values};
use crate::timers::{Part, timer};

/// weight (vocabulary, width) and ids (tokens) to (tokens, width).
///
/// # Errors
/// An id outside the vocabulary.
pub fn embedding<'a>(weight: impl Into<Parameter<'a>>, ids: &[u32]) -> Result<Tensor> {
    let Parameter { value, slot } = weight.into();
    let rows = value.dim(0)?;
    if let Some(id) = ids.iter().find(|id| **id as usize >= rows) {
        bail!("token id {id} is outside the vocabulary of {rows}");
    }
    value.apply_op1(Op {
        ids: ids.to_vec(),
        slot,
    })
}

struct Op {
    ids: Vec<u32>,
    slot: Option<Slot>,
}

impl Op {
    /// Adds to the row of each id of dw (vocabulary, width) the sum of its rows of dout (tokens,
    /// width), which are added in the order of the tokens.
    fn add_rows(&self, dout: &[f32], width: usize, dw: &mut [f32]) {
        let mut tokens: Vec<usize> = (0..self.ids.len()).collect();
        tokens.sort_by_key(|token| self.ids[*token]);
        let mut sum = vec![0.0; width];
        for tokens in tokens.chunk_by(|a, b| self.ids[*a] == self.ids[*b]) {
            sum.fill(0.0);
            for token in tokens {
                let row = &dout[token * width..][..width];
                sum.iter_mut().zip(row).for_each(|(sum, d)| *sum += d);
            }
            let dw = &mut dw[self.ids[tokens[0]] as usize * width..][..width];
            dw.iter_mut().zip(&sum).for_each(|(dw, sum)| *dw += sum);
        }
    }
}

impl CustomOp1 for Op {
    fn name(&self) -> &'static str {
        "embedding"
    }

    fn cpu_fwd(&self, w: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let w = values(w, layout)?;
        let width = layout.shape().dims2()?.1;
        let _timer = timer(Part::Elementwise, 8 * self.ids.len() * width);
        let rows = self
            .ids
            .iter()
            .flat_map(|id| &w[*id as usize * width..][..width]);
        let out = rows.copied().collect();
        Ok((CpuStorage::F32(out), Shape::from((self.ids.len(), width))))
    }

    fn bwd(&self, w: &Tensor, _out: &Tensor, dout: &Tensor) -> Result<Option<Tensor>> {
        let width = w.dim(1)?;
        let _timer = timer(Part::Elementwise, 8 * self.ids.len() * width);
        let dout = dout.contiguous()?;
        let Some(slot) = &self.slot else {
            let mut dw = vec![0.0; w.elem_count()];
            with_values(&dout, |dout| self.add_rows(dout, width, &mut dw))?;
            return Ok(Some(tensor_like(dw, w)?));
        };
        // A tied head has a gradient here already, which stays where no token is.
        slot.with(|dw, is_first| {
            if is_first {
                dw.fill(0.0);
            }
            with_values(&dout, |dout| self.add_rows(dout, width, dw))
        })?;
        Ok(None)
    }
}
