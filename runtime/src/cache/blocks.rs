//! The memory of keys and values.
//!
//! It is cut into blocks of [`BLOCK`] positions of one head: scales if the type has any, the keys
//! in panels of 16 positions, the values in panels of 16 dimensions, as `kernels::panels`
//! multiplies them. [`SPAN`] consecutive blocks of a head lie beside each other, so attention reads
//! long stretches from front to back, and a cache with room for many tokens does not spread few of
//! them over all its memory. Dimensions that fill up the last panel are zero.

use bytemuck::Pod;
use half::f16;
use half::slice::HalfFloatSliceExt;
use sterna_ternary::{Config, quantize};

use crate::kernels::LANES;
use crate::threads::Pool;

/// Positions of a block. 16-bit weights times int8 values fit 32 bits up to 256 of them.
pub(crate) const BLOCK: usize = 128;

/// Blocks of a head that lie beside each other.
const SPAN: usize = 8;

/// A type in which keys and values are stored.
pub(crate) trait Element: Pod + Send + Sync {
    /// Rows of a panel that are interleaved.
    const STEP: usize = 1;
    /// Elements that hold the two scales of one position.
    const SCALES: usize = 0;

    /// Stores one head's key or value and returns its scale.
    fn encode(x: &[f32], to: &mut [Self]) -> f32;
}

impl Element for f32 {
    fn encode(x: &[f32], to: &mut [f32]) -> f32 {
        to.copy_from_slice(x);
        1.0
    }
}

impl Element for f16 {
    fn encode(x: &[f32], to: &mut [f16]) -> f32 {
        to.convert_from_f32_slice(x);
        1.0
    }
}

impl Element for i8 {
    const STEP: usize = 2;
    const SCALES: usize = 2 * size_of::<f32>();

    fn encode(x: &[f32], to: &mut [i8]) -> f32 {
        quantize::quantize_row(x, to)
    }
}

/// What the memory of a cache depends on, beside its capacity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CacheShape {
    pub layers: usize,
    pub kv_heads: usize,
    pub head_dim: usize,
}

impl CacheShape {
    pub fn of(config: &Config) -> CacheShape {
        CacheShape {
            layers: config.num_hidden_layers,
            kv_heads: config.num_key_value_heads,
            head_dim: config.head_dim,
        }
    }
}

/// (layers, spans, kv_heads, blocks of the span); the last span of a layer can be shorter.
#[derive(Debug)]
pub(crate) struct Blocks<T> {
    memory: Vec<T>,
    /// Unused elements at the start, for alignment.
    skip: usize,
    /// Blocks per layer.
    blocks: usize,
    kv_heads: usize,
    head_dim: usize,
}

/// One head's keys and values of [`BLOCK`] positions.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Block<'a, T> {
    /// Scales of the keys and of the values, (BLOCK) each; empty for floats.
    pub scales: [&'a [f32]; 2],
    /// (BLOCK / 16, head_dim, 16), of int8 (BLOCK / 16, head_dim / 2, 16, 2)
    pub keys: &'a [T],
    /// (padded head_dim / 16, BLOCK, 16), of int8 (padded head_dim / 16, BLOCK / 2, 16, 2)
    pub values: &'a [T],
}

/// Fewest tokens that threads store together.
const MANY: usize = 8;

impl<T: Element> Blocks<T> {
    /// Zeros, for which the operating system finds memory when they are first written.
    pub fn new(shape: CacheShape, capacity: usize) -> Blocks<T> {
        let (memory, skip) = aligned_zeros(Self::elements(shape, capacity));
        Blocks {
            memory,
            skip,
            blocks: capacity.div_ceil(BLOCK),
            kv_heads: shape.kv_heads,
            head_dim: shape.head_dim,
        }
    }

    /// Numbers in a cache for `capacity` tokens.
    pub fn elements(shape: CacheShape, capacity: usize) -> usize {
        let blocks = shape.layers * capacity.div_ceil(BLOCK) * shape.kv_heads;
        blocks * block_len::<T>(shape.head_dim)
    }

    pub fn bytes(&self) -> usize {
        size_of_val(&self.memory[self.skip..])
    }

    pub fn block(&self, layer: usize, kv_head: usize, index: usize) -> Block<'_, T> {
        let d = self.head_dim;
        let len = block_len::<T>(d);
        let (first, span) = self.span(index);
        let at = (layer * self.blocks + first) * self.kv_heads + kv_head * span + index - first;
        let block = &self.memory[self.skip + at * len..][..len];
        let (scales, rest) = block.split_at(BLOCK * T::SCALES);
        let (keys, values) = rest.split_at(BLOCK * d);
        let scales: &[f32] = bytemuck::cast_slice(scales);
        let (key_scales, value_scales) = scales.split_at(scales.len() / 2);
        Block {
            scales: [key_scales, value_scales],
            keys,
            values,
        }
    }

    /// The first block of the span with block `index`, and the number of its blocks.
    fn span(&self, index: usize) -> (usize, usize) {
        let first = index / SPAN * SPAN;
        (first, SPAN.min(self.blocks - first))
    }

    /// Stores a layer's keys and values (tokens, kv_heads · head_dim) from position `first` on.
    pub fn store(&mut self, pool: &Pool, layer: usize, first: usize, keys: &[f32], values: &[f32]) {
        let (d, kv_heads) = (self.head_dim, self.kv_heads);
        let end = first + keys.len() / (kv_heads * d);
        let len = block_len::<T>(d);
        for start in (first / BLOCK / SPAN * SPAN..end.div_ceil(BLOCK)).step_by(SPAN) {
            let (_, span) = self.span(start);
            let at = self.skip + (layer * self.blocks + start) * kv_heads * len;
            let of_span = &mut self.memory[at..][..kv_heads * span * len];
            let store = |i: usize, block: &mut [T]| {
                let (h, start) = (i / span, (start + i % span) * BLOCK);
                let positions = first.max(start)..end.min(start + BLOCK);
                if positions.is_empty() {
                    return;
                }
                let mut encoded = vec![T::zeroed(); 2 * d];
                let (key, value) = encoded.split_at_mut(d);
                for position in positions {
                    let from = ((position - first) * kv_heads + h) * d;
                    let scales = [
                        T::encode(&keys[from..from + d], key),
                        T::encode(&values[from..from + d], value),
                    ];
                    write(block, position - start, [key, value], scales);
                }
            };
            if end - first < MANY {
                let blocks = of_span.chunks_exact_mut(len).enumerate();
                blocks.for_each(|(i, block)| store(i, block));
            } else {
                pool.chunks_mut(of_span, len, store);
            }
        }
    }
}

impl<T: Element> Clone for Blocks<T> {
    fn clone(&self) -> Blocks<T> {
        // Another vector has another alignment.
        let (mut memory, skip) = aligned_zeros(self.memory.len() - self.skip);
        memory[skip..].copy_from_slice(&self.memory[self.skip..]);
        Blocks {
            memory,
            skip,
            ..*self
        }
    }
}

/// `len` zeros after the elements to skip.
fn aligned_zeros<T: Element>(len: usize) -> (Vec<T>, usize) {
    let align = match len * size_of::<T>() >= 2 * HUGE_PAGE {
        true => HUGE_PAGE,
        false => LINE,
    };
    let mut memory: Vec<T> = bytemuck::zeroed_vec(len + align / size_of::<T>());
    let skip = memory.as_ptr().align_offset(align);
    memory.truncate(skip + len);
    if align == HUGE_PAGE {
        advise_huge_pages(&memory[skip..]);
    }
    (memory, skip)
}

/// Elements of one head's block.
fn block_len<T: Element>(head_dim: usize) -> usize {
    BLOCK * (head_dim + padded(head_dim) + T::SCALES)
}

/// Dimensions of a value with those that fill up the last panel.
pub(crate) fn padded(head_dim: usize) -> usize {
    head_dim.next_multiple_of(LANES)
}

/// Writes position `i` of a block.
fn write<T: Element>(block: &mut [T], i: usize, [key, value]: [&[T]; 2], scales: [f32; 2]) {
    let in_panel =
        |row: usize, column: usize| (row / T::STEP * LANES + column) * T::STEP + row % T::STEP;
    let d = key.len();
    let (to_scales, rest) = block.split_at_mut(BLOCK * T::SCALES);
    let (keys, values) = rest.split_at_mut(BLOCK * d);
    let panel = &mut keys[i / LANES * LANES * d..][..LANES * d];
    for (c, k) in key.iter().enumerate() {
        panel[in_panel(c, i % LANES)] = *k;
    }
    let panels = values.chunks_exact_mut(BLOCK * LANES);
    for (panel, v) in panels.zip(value.chunks(LANES)) {
        for (l, v) in v.iter().enumerate() {
            panel[in_panel(i, l)] = *v;
        }
    }
    let to_scales: &mut [f32] = bytemuck::cast_slice_mut(to_scales);
    for (to, scale) in to_scales.chunks_exact_mut(BLOCK).zip(scales) {
        to[i] = scale;
    }
}

/// Bytes of a cache line.
const LINE: usize = 64;
/// Bytes of a large page of most machines.
const HUGE_PAGE: usize = 2 << 20;

/// Large pages are read faster by half: the addresses of small ones do not stay in the processor's
/// buffer.
#[cfg(target_os = "linux")]
fn advise_huge_pages<T>(memory: &[T]) {
    let len = size_of_val(memory) / HUGE_PAGE * HUGE_PAGE;
    let start = memory.as_ptr().cast_mut().cast();
    // SAFETY: the pages are whole and ours, and advice changes nothing that a program sees.
    let _refused_is_slower =
        unsafe { rustix::mm::madvise(start, len, rustix::mm::Advice::LinuxHugepage) };
}

#[cfg(not(target_os = "linux"))]
fn advise_huge_pages<T>(_: &[T]) {}
