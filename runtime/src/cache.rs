//! The KV cache: keys and values of every position, so that a token is computed once.

mod blocks;

use std::sync::Arc;

use half::f16;
use serde::{Deserialize, Serialize};
use sterna_ternary::Config;

use crate::error::Location;
use crate::threads::Pool;
use crate::{Error, Result};
pub(crate) use blocks::{BLOCK, Block, PageCount, padded};
use blocks::{Blocks, CacheShape, Page};

/// Element type of a cache. Logits depend on it, as it says how keys and values are rounded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KvType {
    /// Single precision: nothing is rounded.
    F32,
    /// Half precision, half the memory. A number beyond 65504 is an error.
    #[default]
    F16,
    /// int8 codes with one scale for each key and each value of a head, about a quarter of the
    /// memory.
    Q8,
}

impl KvType {
    /// The name on the command line and in reports.
    pub fn name(self) -> &'static str {
        match self {
            KvType::F32 => "f32",
            KvType::F16 => "f16",
            KvType::Q8 => "q8",
        }
    }
}

/// Keys and values of one sequence.
///
/// A clone continues independently. It shares memory with the original until one of them writes
/// there, so it costs no more than its own tokens.
#[derive(Debug, Clone)]
pub struct KvCache {
    shape: CacheShape,
    tokens: Vec<u32>,
    capacity: usize,
    elements: Elements,
}

#[derive(Debug, Clone)]
enum Elements {
    F32(Blocks<f32>),
    F16(Blocks<f16>),
    Q8(Blocks<i8>),
}

/// Keys and values of [`KvPage::TOKENS`] positions, shared by the caches that begin with the same
/// tokens. A page in a cache that writes to it is copied first.
#[derive(Debug, Clone)]
pub struct KvPage(AnyPage);

#[derive(Debug, Clone)]
enum AnyPage {
    F32(Arc<Page<f32>>),
    F16(Arc<Page<f16>>),
    Q8(Arc<Page<i8>>),
}

impl KvPage {
    /// Positions of a page.
    pub const TOKENS: usize = BLOCK;

    /// Whether a cache or another handle has the page too.
    pub fn is_shared(&self) -> bool {
        let count = match &self.0 {
            AnyPage::F32(page) => Arc::strong_count(page),
            AnyPage::F16(page) => Arc::strong_count(page),
            AnyPage::Q8(page) => Arc::strong_count(page),
        };
        count > 1
    }
}

/// Some positions of one head.
#[derive(Debug, Clone, Copy)]
pub(crate) enum AnyBlock<'a> {
    F32(Block<'a, f32>),
    F16(Block<'a, f16>),
    Q8(Block<'a, i8>),
}

/// The largest finite half-precision number.
const F16_MAX: f32 = 65504.0;

impl KvCache {
    /// An empty cache for `capacity` tokens. Memory is taken as it is used.
    pub(crate) fn new(
        config: &Config,
        kv_type: KvType,
        capacity: usize,
        count: &PageCount,
    ) -> Result<KvCache> {
        let expected = config.max_position_embeddings;
        if !(1..=expected).contains(&capacity) {
            return Err(Error::ContextLength {
                expected,
                found: capacity,
            });
        }
        let shape = CacheShape::of(config);
        let count = count.clone();
        let elements = match kv_type {
            KvType::F32 => Elements::F32(Blocks::new(shape, count)),
            KvType::F16 => Elements::F16(Blocks::new(shape, count)),
            KvType::Q8 => Elements::Q8(Blocks::new(shape, count)),
        };
        Ok(KvCache {
            shape,
            tokens: Vec::new(),
            capacity,
            elements,
        })
    }

    /// Fills an empty cache with `tokens`, whose keys and values are in `pages`. Where the last
    /// page holds more positions than there are tokens, the others are ignored.
    ///
    /// # Panics
    /// If the cache is not empty, if the tokens do not fit into it or into the pages, or if pages
    /// are of another element type.
    pub fn fill(&mut self, tokens: &[u32], pages: &[KvPage]) {
        assert!(self.is_empty() && tokens.len() <= self.capacity);
        assert_eq!(pages.len(), tokens.len().div_ceil(BLOCK));
        self.shrink();
        for KvPage(page) in pages {
            match (&mut self.elements, page) {
                (Elements::F32(blocks), AnyPage::F32(page)) => blocks.push(page.clone()),
                (Elements::F16(blocks), AnyPage::F16(page)) => blocks.push(page.clone()),
                (Elements::Q8(blocks), AnyPage::Q8(page)) => blocks.push(page.clone()),
                _ => panic!("pages of another element type"),
            }
        }
        self.tokens.extend_from_slice(tokens);
    }

    /// A handle to the page of the positions from `index` · [`KvPage::TOKENS`] on.
    pub fn page(&self, index: usize) -> Option<KvPage> {
        let page = match &self.elements {
            Elements::F32(blocks) => AnyPage::F32(blocks.page(index)?),
            Elements::F16(blocks) => AnyPage::F16(blocks.page(index)?),
            Elements::Q8(blocks) => AnyPage::Q8(blocks.page(index)?),
        };
        Some(KvPage(page))
    }

    /// Pages of memory that `new` more tokens take: those that are not there yet, and copies of
    /// pages that others share.
    pub fn new_pages(&self, new: usize) -> usize {
        let first = self.len();
        match &self.elements {
            Elements::F32(blocks) => blocks.new_pages(first, new),
            Elements::F16(blocks) => blocks.new_pages(first, new),
            Elements::Q8(blocks) => blocks.new_pages(first, new),
        }
    }

    /// Frees pages that hold none of the tokens.
    pub fn shrink(&mut self) {
        let len = self.len();
        match &mut self.elements {
            Elements::F32(blocks) => blocks.shrink(len),
            Elements::F16(blocks) => blocks.shrink(len),
            Elements::Q8(blocks) => blocks.shrink(len),
        }
    }

    /// Tokens in the cache.
    pub fn len(&self) -> usize {
        self.tokens.len()
    }

    /// The tokens in the cache.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// Whether no token is in the cache.
    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }

    /// Tokens that fit.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Bytes of a full cache for `capacity` tokens.
    pub fn bytes_for(config: &Config, kv_type: KvType, capacity: usize) -> usize {
        let shape = CacheShape::of(config);
        match kv_type {
            KvType::F32 => Blocks::<f32>::bytes_for(shape, capacity),
            KvType::F16 => Blocks::<f16>::bytes_for(shape, capacity),
            KvType::Q8 => Blocks::<i8>::bytes_for(shape, capacity),
        }
    }

    /// Bytes of a page, which holds [`KvPage::TOKENS`] positions.
    pub fn page_bytes(config: &Config, kv_type: KvType) -> usize {
        KvCache::bytes_for(config, kv_type, BLOCK)
    }

    /// Bytes when full.
    pub fn bytes(&self) -> usize {
        let (shape, capacity) = (self.shape, self.capacity);
        match &self.elements {
            Elements::F32(_) => Blocks::<f32>::bytes_for(shape, capacity),
            Elements::F16(_) => Blocks::<f16>::bytes_for(shape, capacity),
            Elements::Q8(_) => Blocks::<i8>::bytes_for(shape, capacity),
        }
    }

    /// Keeps the first `len` tokens, so that another continuation can follow them.
    pub fn truncate(&mut self, len: usize) {
        self.tokens.truncate(len);
    }

    /// Keeps the tokens that a prompt begins with, all but its last one at most, because some token
    /// must be computed for the next to be known. Returns how many.
    pub fn keep_prefix(&mut self, prompt: &[u32]) -> usize {
        let pairs = self.tokens.iter().zip(prompt);
        let common = pairs.take_while(|(a, b)| a == b).count();
        self.truncate(common.min(prompt.len().saturating_sub(1)));
        self.len()
    }

    /// Forgets every token.
    pub fn clear(&mut self) {
        self.tokens.clear();
    }

    /// Whether `new` tokens of a model with this config may follow.
    pub(crate) fn check(&self, config: &Config, new: usize) -> Result<()> {
        if self.shape != CacheShape::of(config) {
            return Err(Error::ForeignCache);
        }
        if new > self.capacity - self.len() {
            return Err(Error::ContextFull {
                cached: self.len(),
                new,
                capacity: self.capacity,
            });
        }
        Ok(())
    }

    pub(crate) fn advance(&mut self, tokens: &[u32]) {
        self.tokens.extend_from_slice(tokens);
    }

    pub(crate) fn kv_heads(&self) -> usize {
        self.shape.kv_heads
    }

    pub(crate) fn head_dim(&self) -> usize {
        self.shape.head_dim
    }

    /// Positions from `index` · [`BLOCK`] on.
    pub(crate) fn block(&self, layer: usize, kv_head: usize, index: usize) -> AnyBlock<'_> {
        match &self.elements {
            Elements::F32(blocks) => AnyBlock::F32(blocks.block(layer, kv_head, index)),
            Elements::F16(blocks) => AnyBlock::F16(blocks.block(layer, kv_head, index)),
            Elements::Q8(blocks) => AnyBlock::Q8(blocks.block(layer, kv_head, index)),
        }
    }

    /// Stores keys and values (tokens, kv_heads · head_dim) after the last token. They count only
    /// after `advance`.
    ///
    /// # Errors
    /// Numbers that are not finite, or too large for half precision. Attention relies on it: what
    /// lies behind a query's position gets the weight zero, and zero times a finite number is zero.
    pub(crate) fn store(
        &mut self,
        pool: &Pool,
        layer: usize,
        keys: &[f32],
        values: &[f32],
    ) -> Result<()> {
        for (tensor, x) in [("the keys", keys), ("the values", values)] {
            check_range(Location::Layer(layer), tensor, x, &self.elements)?;
        }
        let first = self.len();
        match &mut self.elements {
            Elements::F32(blocks) => blocks.store(pool, layer, first, keys, values),
            Elements::F16(blocks) => blocks.store(pool, layer, first, keys, values),
            Elements::Q8(blocks) => blocks.store(pool, layer, first, keys, values),
        }
        Ok(())
    }
}

fn check_range(place: Location, tensor: &'static str, x: &[f32], to: &Elements) -> Result<()> {
    // Bit patterns of absolute values order like the values, with infinity and NaN on top.
    let largest = x
        .iter()
        .fold(0, |m: u32, x| m.max(x.to_bits() & 0x7fff_ffff));
    let found = f32::from_bits(largest);
    match to {
        _ if !found.is_finite() => Err(Error::NonFinite { place, tensor }),
        Elements::F16(_) if found > F16_MAX => Err(Error::CacheOverflow {
            place,
            tensor,
            found,
        }),
        _ => Ok(()),
    }
}
