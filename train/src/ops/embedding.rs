//! Rows of the embedding by token id. The gradients of a row are added in the order of the tokens.

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor, bail};

use super::{tensor_like, values, with_values};
use crate::timers::{Part, timer};

/// weight (vocabulary, width) and ids (tokens) to (tokens, width).
///
/// # Errors
/// An id outside the vocabulary.
pub fn embedding(weight: &Tensor, ids: &[u32]) -> Result<Tensor> {
    let rows = weight.dim(0)?;
    if let Some(id) = ids.iter().find(|id| **id as usize >= rows) {
        bail!("token id {id} is outside the vocabulary of {rows}");
    }
    weight.apply_op1(Op { ids: ids.to_vec() })
}

struct Op {
    ids: Vec<u32>,
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
        let touched = 8 * self.ids.len() * width + 4 * w.elem_count();
        let _timer = timer(Part::Elementwise, touched);
        let mut dw = vec![0.0; w.elem_count()];
        with_values(&dout.contiguous()?, |dout| {
            for (id, row) in self.ids.iter().zip(dout.chunks_exact(width)) {
                let sums = &mut dw[*id as usize * width..][..width];
                sums.iter_mut().zip(row).for_each(|(sum, d)| *sum += d);
            }
        })?;
        Ok(Some(tensor_like(dw, w)?))
    }
}
