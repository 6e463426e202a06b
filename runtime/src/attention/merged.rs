//! Blocks of positions, merged one after the other.

use crate::kernels::{Kernels, SoftmaxBlock, exp2};

/// The blocks so far of some rows.
#[derive(Debug, Default)]
pub(super) struct Merged {
    width: usize,
    y: Vec<f32>,        // (rows, width): Σ weight · value
    max: Vec<[f32; 2]>, // (rows): the largest score, and Σ weight relative to it
}

impl Merged {
    pub fn clear(&mut self, rows: usize, width: usize) {
        self.width = width;
        self.y.clear();
        self.y.resize(rows * width, 0.0);
        self.max.clear();
        self.max.resize(rows, [f32::NEG_INFINITY, 0.0]);
    }

    /// A row's next block.
    pub fn add(&mut self, kernels: &Kernels, row: usize, block: SoftmaxBlock, sums: &[f32]) {
        let [max, sum] = &mut self.max[row];
        let larger = if block.max > *max { block.max } else { *max };
        let (a, b) = (exp2(*max - larger), exp2(block.max - larger));
        *max = larger;
        *sum = *sum * a + block.sum * b;
        let y = &mut self.y[row * self.width..][..self.width];
        (kernels.merge)(y, sums, [a, block.factor * b]);
    }

    /// Copies what a row has so far into `to` (width + 3).
    pub fn save(&self, row: usize, to: &mut [f32]) {
        let (y, rest) = to.split_at_mut(self.width);
        y.copy_from_slice(&self.y[row * self.width..][..self.width]);
        let [max, sum] = self.max[row];
        rest.copy_from_slice(&[max, sum, 1.0]);
    }

    /// Continues a row from what [`Merged::save`] copied.
    pub fn restore(&mut self, row: usize, from: &[f32]) {
        let (y, rest) = from.split_at(self.width);
        self.y[row * self.width..][..self.width].copy_from_slice(y);
        self.max[row] = [rest[0], rest[1]];
    }

    /// A row's result.
    pub fn finish(&self, row: usize, to: &mut [f32]) {
        let sum = self.max[row][1];
        for (to, y) in to.iter_mut().zip(&self.y[row * self.width..]) {
            *to = y / sum;
        }
    }
}
