//! The KV cache: keys and values of every position, so that a token is computed once.

use half::f16;
use sterna_ternary::Config;

use crate::error::Place;
use crate::kernels::Kernels;
use crate::{Error, Result};

/// Element type of a cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum KvType {
    /// Single precision: logits do not depend on how a prompt is split.
    #[default]
    F32,
    /// Half precision, half the memory. Keys and values are rounded, so logits differ from those with F32;
    /// they do not depend on threads, kernels or splits either.
    F16,
}

/// Keys and values of one sequence.
#[derive(Debug)]
pub struct KvCache {
    shape: Shape,
    len: usize,
    capacity: usize,
    layers: Vec<LayerCache>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Shape {
    layers: usize,
    kv_heads: usize,
    head_dim: usize,
}

/// One layer's keys and values.
#[derive(Debug)]
struct LayerCache {
    keys: Values,   // (kv_heads, capacity, head_dim)
    values: Values, // (kv_heads, capacity, head_dim)
}

#[derive(Debug)]
enum Values {
    F32(Vec<f32>),
    F16(Vec<f16>),
}

/// The largest finite half-precision number.
const F16_MAX: f32 = 65504.0;

impl KvCache {
    /// An empty cache for `capacity` tokens. Memory is taken as it is used.
    pub(crate) fn new(config: &Config, kv_type: KvType, capacity: usize) -> Result<KvCache> {
        let expected = config.max_position_embeddings;
        if !(1..=expected).contains(&capacity) {
            return Err(Error::ContextLength {
                expected,
                found: capacity,
            });
        }
        let shape = Shape::of(config);
        let len = shape.kv_heads * shape.head_dim * capacity;
        let values = || match kv_type {
            KvType::F32 => Values::F32(vec![0.0; len]),
            KvType::F16 => Values::F16(vec![f16::ZERO; len]),
        };
        let layer = |_| LayerCache {
            keys: values(),
            values: values(),
        };
        Ok(KvCache {
            shape,
            len: 0,
            capacity,
            layers: (0..shape.layers).map(layer).collect(),
        })
    }

    /// Tokens in the cache.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether no token is in the cache.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Tokens that fit.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Bytes when full.
    pub fn bytes(&self) -> usize {
        let bytes = |values: &Values| match values {
            Values::F32(v) => size_of_val(v.as_slice()),
            Values::F16(v) => size_of_val(v.as_slice()),
        };
        self.layers
            .iter()
            .map(|l| bytes(&l.keys) + bytes(&l.values))
            .sum()
    }

    /// Keeps the first `len` tokens, so that another continuation can follow them.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    /// Forgets every token.
    pub fn clear(&mut self) {
        self.len = 0;
    }

    /// Whether `new` tokens of a model with this config may follow.
    pub(crate) fn check(&self, config: &Config, new: usize) -> Result<()> {
        if self.shape != Shape::of(config) {
            return Err(Error::ForeignCache);
        }
        if new > self.capacity - self.len {
            return Err(Error::ContextFull {
                cached: self.len,
                new,
                capacity: self.capacity,
            });
        }
        Ok(())
    }

    pub(crate) fn advance(&mut self, tokens: usize) {
        self.len += tokens;
    }

    /// Stores keys and values (tokens, kv_heads · head_dim) behind the last token, without counting them.
    pub(crate) fn store(&mut self, layer: usize, keys: &[f32], values: &[f32]) -> Result<()> {
        let (shape, at, capacity) = (self.shape, self.len, self.capacity);
        let cache = &mut self.layers[layer];
        for (tensor, from, to) in [
            ("the keys", keys, &mut cache.keys),
            ("the values", values, &mut cache.values),
        ] {
            check_range(Place::Layer(layer), tensor, from, to)?;
            for (t, heads) in from
                .chunks_exact(shape.kv_heads * shape.head_dim)
                .enumerate()
            {
                for (h, head) in heads.chunks_exact(shape.head_dim).enumerate() {
                    to.write((h * capacity + at + t) * shape.head_dim, head);
                }
            }
        }
        Ok(())
    }

    /// Attention of one query head over the first `len` positions: y = softmax(q · k · scale) · v.
    ///
    /// `q` and `y` are (head_dim), `scores` has at least `len` elements.
    #[allow(clippy::too_many_arguments)]
    pub(crate) fn attend(
        &self,
        kernels: &Kernels,
        layer: usize,
        kv_head: usize,
        len: usize,
        q: &[f32],
        scores: &mut [f32],
        y: &mut [f32],
    ) {
        let d = self.shape.head_dim;
        let range = kv_head * self.capacity * d..(kv_head * self.capacity + len) * d;
        let scores = &mut scores[..len];
        let LayerCache { keys, values } = &self.layers[layer];
        match keys {
            Values::F32(keys) => (kernels.gemv_f32)(q, &keys[range.clone()], scores),
            Values::F16(keys) => (kernels.gemv_f16)(q, &keys[range.clone()], scores),
        }
        (kernels.softmax)(scores, 1.0 / (d as f32).sqrt());
        match values {
            Values::F32(values) => (kernels.weighted_sum_f32)(scores, &values[range], y),
            Values::F16(values) => (kernels.weighted_sum_f16)(scores, &values[range], y),
        }
    }
}

impl Shape {
    fn of(config: &Config) -> Shape {
        Shape {
            layers: config.num_hidden_layers,
            kv_heads: config.num_key_value_heads,
            head_dim: config.head_dim,
        }
    }
}

impl Values {
    fn write(&mut self, at: usize, from: &[f32]) {
        match self {
            Values::F32(to) => to[at..at + from.len()].copy_from_slice(from),
            Values::F16(to) => {
                for (to, from) in to[at..].iter_mut().zip(from) {
                    *to = f16::from_f32(*from);
                }
            }
        }
    }
}

/// Softmax would hide an infinite key, so keys and values are checked before they are stored.
fn check_range(place: Place, tensor: &'static str, x: &[f32], to: &Values) -> Result<()> {
    let finite = x.iter().fold(true, |finite, x| finite & x.is_finite());
    if !finite {
        return Err(Error::NonFinite { place, tensor });
    }
    let found = x.iter().fold(0f32, |max, x| max.max(x.abs()));
    match to {
        Values::F16(_) if found > F16_MAX => Err(Error::CacheOverflow {
            place,
            tensor,
            found,
        }),
        _ => Ok(()),
    }
}
