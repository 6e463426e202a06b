//! The memory of keys and values, in pages of [`BLOCK`] positions.
//!
//! A page holds all layers and heads of its positions. In it each head of a layer has a block:
//! scales if the type has any, the keys in panels of 16 positions, the values in panels of 16
//! dimensions, as `kernels::panels` multiplies them. Dimensions that fill up the last panel are
//! zero. Caches that begin with the same tokens share pages; a page that is shared is copied before
//! it is written.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytemuck::Pod;
use half::f16;
use half::slice::HalfFloatSliceExt;
use sterna_ternary::{Config, quantize};

use crate::kernels::LANES;
use crate::threads::Pool;

/// Positions of a block. 16-bit weights times int8 values fit 32 bits up to 256 of them.
pub(crate) const BLOCK: usize = 128;

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

/// How many pages there are, in all caches of a model.
#[derive(Debug, Clone, Default)]
pub(crate) struct PageCount(Arc<AtomicUsize>);

impl PageCount {
    pub fn get(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

/// The pages of one sequence, as many as were written.
#[derive(Debug, Clone)]
pub(crate) struct Blocks<T> {
    pages: Vec<Arc<Page<T>>>,
    shape: CacheShape,
    count: PageCount,
}

/// Keys and values of [`BLOCK`] positions: (layers, kv_heads, block).
#[derive(Debug)]
pub(crate) struct Page<T> {
    memory: Vec<T>,
    /// Unused elements at the start, for alignment.
    skip: usize,
    count: PageCount,
}

impl<T> Drop for Page<T> {
    fn drop(&mut self) {
        self.count.0.fetch_sub(1, Ordering::Relaxed);
    }
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
    /// No pages.
    pub fn new(shape: CacheShape, count: PageCount) -> Blocks<T> {
        Blocks {
            pages: Vec::new(),
            shape,
            count,
        }
    }

    /// Adds a page of another cache.
    pub fn push(&mut self, page: Arc<Page<T>>) {
        self.pages.push(page);
    }

    /// The page of the positions from `index` · [`BLOCK`] on, if it was written.
    pub fn page(&self, index: usize) -> Option<Arc<Page<T>>> {
        self.pages.get(index).cloned()
    }

    /// Frees the pages of positions from `len` on.
    pub fn shrink(&mut self, len: usize) {
        self.pages.truncate(len.div_ceil(BLOCK));
    }

    /// Pages that `new` tokens from position `first` on take: those that are not there, and copies
    /// of shared ones.
    pub fn new_pages(&self, first: usize, new: usize) -> usize {
        let written = first / BLOCK..(first + new).div_ceil(BLOCK);
        let is_new = |index: &usize| match self.pages.get(*index) {
            None => true,
            Some(page) => Arc::strong_count(page) > 1,
        };
        written.filter(is_new).count()
    }

    /// Bytes of all pages of a cache for `capacity` tokens.
    pub fn bytes_for(shape: CacheShape, capacity: usize) -> usize {
        capacity.div_ceil(BLOCK) * Page::<T>::len(shape) * size_of::<T>()
    }

    pub fn block(&self, layer: usize, kv_head: usize, index: usize) -> Block<'_, T> {
        let d = self.shape.head_dim;
        let len = block_len::<T>(d);
        let Page { memory, skip, .. } = &*self.pages[index];
        let at = skip + (layer * self.shape.kv_heads + kv_head) * len;
        let (scales, rest) = memory[at..][..len].split_at(BLOCK * T::SCALES);
        let (keys, values) = rest.split_at(BLOCK * d);
        let scales: &[f32] = bytemuck::cast_slice(scales);
        let (key_scales, value_scales) = scales.split_at(scales.len() / 2);
        Block {
            scales: [key_scales, value_scales],
            keys,
            values,
        }
    }

    /// Stores a layer's keys and values (tokens, kv_heads · head_dim) from position `first` on.
    pub fn store(&mut self, pool: &Pool, layer: usize, first: usize, keys: &[f32], values: &[f32]) {
        let CacheShape {
            kv_heads,
            head_dim: d,
            ..
        } = self.shape;
        let end = first + keys.len() / (kv_heads * d);
        let len = block_len::<T>(d);
        let written = first / BLOCK..end.div_ceil(BLOCK);
        for index in written.clone() {
            self.make_writable(index, first > index * BLOCK);
        }
        let store = |start: usize, h: usize, block: &mut [T]| {
            let mut encoded = vec![T::zeroed(); 2 * d];
            let (key, value) = encoded.split_at_mut(d);
            for position in first.max(start)..end.min(start + BLOCK) {
                let from = ((position - first) * kv_heads + h) * d;
                let scales = [
                    T::encode(&keys[from..from + d], key),
                    T::encode(&values[from..from + d], value),
                ];
                write(block, position - start, [key, value], scales);
            }
        };
        // The blocks of this layer, with their first positions and heads.
        let starts = written.clone().map(|index| index * BLOCK);
        let blocks = starts
            .zip(&mut self.pages[written])
            .flat_map(|(start, page)| {
                let page = Arc::get_mut(page).expect("the page was made writable");
                let Page { memory, skip, .. } = page;
                let of_layer = &mut memory[*skip + layer * kv_heads * len..][..kv_heads * len];
                let blocks = of_layer.chunks_exact_mut(len).enumerate();
                blocks.map(move |(h, block)| (start, h, block))
            });
        if end - first < MANY {
            blocks.for_each(|(start, h, block)| store(start, h, block));
        } else {
            let mut blocks: Vec<(usize, usize, &mut [T])> = blocks.collect();
            pool.chunks_mut(&mut blocks, 1, |_, one| {
                let (start, h, block) = &mut one[0];
                store(*start, *h, block);
            });
        }
    }

    /// Makes a page one that no other cache has. Positions of a shared page are kept if `is_begun`.
    fn make_writable(&mut self, index: usize, is_begun: bool) {
        if index == self.pages.len() {
            let page = Page::zeros(self.shape, &self.count);
            self.pages.push(Arc::new(page));
        }
        let page = &mut self.pages[index];
        if Arc::get_mut(page).is_none() {
            let own = match is_begun {
                true => page.copy(),
                false => Page::zeros(self.shape, &self.count),
            };
            *page = Arc::new(own);
        }
    }
}

impl<T: Element> Page<T> {
    /// Elements of a page.
    fn len(shape: CacheShape) -> usize {
        shape.layers * shape.kv_heads * block_len::<T>(shape.head_dim)
    }

    /// Zeros, for which the operating system finds memory when they are first written.
    fn zeros(shape: CacheShape, count: &PageCount) -> Page<T> {
        Page::of_len(Self::len(shape), count)
    }

    fn of_len(len: usize, count: &PageCount) -> Page<T> {
        let (memory, skip) = aligned_zeros(len);
        count.0.fetch_add(1, Ordering::Relaxed);
        Page {
            memory,
            skip,
            count: count.clone(),
        }
    }

    fn copy(&self) -> Page<T> {
        // Another vector has another alignment.
        let mut copy = Page::of_len(self.memory.len() - self.skip, &self.count);
        let skip = copy.skip;
        copy.memory[skip..].copy_from_slice(&self.memory[self.skip..]);
        copy
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

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: CacheShape = CacheShape {
        layers: 2,
        kv_heads: 3,
        head_dim: 5,
    };

    /// Stores `tokens` positions from `first` on in all layers. All numbers of a position are
    /// `value` + position.
    fn store(blocks: &mut Blocks<f32>, first: usize, tokens: usize, value: f32) {
        let pool = Pool::new(Some(2)).unwrap();
        let row = SHAPE.kv_heads * SHAPE.head_dim;
        let x: Vec<f32> = (0..tokens * row)
            .map(|i| value + (first + i / row) as f32)
            .collect();
        for layer in 0..SHAPE.layers {
            blocks.store(&pool, layer, first, &x, &x);
        }
    }

    /// The first dimension of the key at a position of the last head and layer.
    fn key(blocks: &Blocks<f32>, position: usize) -> f32 {
        let block = blocks.block(SHAPE.layers - 1, SHAPE.kv_heads - 1, position / BLOCK);
        let i = position % BLOCK;
        block.keys[i / LANES * LANES * SHAPE.head_dim + i % LANES]
    }

    #[test]
    fn clones_share_pages_until_one_of_them_writes() {
        let count = PageCount::default();
        let mut one = Blocks::new(SHAPE, count.clone());
        store(&mut one, 0, 2 * BLOCK + 10, 0.0);
        let mut two = one.clone();
        let is_shared = |one: &Blocks<f32>, two: &Blocks<f32>, index: usize| {
            Arc::ptr_eq(&one.pages[index], &two.pages[index])
        };
        assert!((0..3).all(|index| is_shared(&one, &two, index)));
        // The page that has begun is copied, full ones stay shared.
        assert_eq!((count.get(), two.new_pages(2 * BLOCK + 10, 5)), (3, 1));
        store(&mut two, 2 * BLOCK + 10, 5, 1000.0);
        let shared: Vec<bool> = (0..3).map(|index| is_shared(&one, &two, index)).collect();
        assert_eq!(shared, [true, true, false]);
        assert_eq!((count.get(), two.new_pages(2 * BLOCK + 15, 5)), (4, 0));
        assert_eq!(two.new_pages(2 * BLOCK + 15, BLOCK), 1);
        let at = 2 * BLOCK + 9;
        assert_eq!([key(&one, at), key(&two, at)], [at as f32; 2]);
        assert_eq!(key(&two, at + 1), 1000.0 + (at + 1) as f32);
        assert_eq!(key(&one, at + 1), 0.0);
        // So it is where the original goes on, and where a clone goes back.
        store(&mut one, BLOCK, 1, 7.0);
        assert_eq!(key(&one, BLOCK), 7.0 + BLOCK as f32);
        assert_eq!([key(&two, BLOCK), key(&two, BLOCK + 1)], [128.0, 129.0]);
        // Each has two pages of its own, beside the first one.
        assert_eq!(count.get(), 5);
        two.shrink(BLOCK);
        assert_eq!(count.get(), 3);
        drop((one, two));
        assert_eq!(count.get(), 0);
    }
}
