//! Attention against the formula. That its bits do not depend on the setting, `tests/exact.rs`
//! checks.

use serde_json::json;
use sterna_ternary::Config;

use super::*;
use crate::Error;
use crate::cache::{KvType, PageCount};
use crate::kernels::tests::Noise;

const ALL: [KvType; 3] = [KvType::F32, KvType::F16, KvType::Q8];

/// Heads, kv heads, head_dim.
type Shape = [usize; 3];

/// Groups of 1 to 16 heads, dimensions that fill no panel.
const SHAPES: [Shape; 6] = [
    [3, 3, 16],
    [4, 1, 26],
    [6, 2, 20],
    [15, 3, 2],
    [16, 1, 80],
    [4, 2, 256],
];

fn cache([heads, kv_heads, head_dim]: Shape, kv_type: KvType, capacity: usize) -> KvCache {
    let config = json!({
        "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "hidden_act": "silu",
        "hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 2,
        "num_attention_heads": heads, "num_key_value_heads": kv_heads, "head_dim": head_dim,
        "vocab_size": 64, "max_position_embeddings": 4096, "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0, "tie_word_embeddings": true,
    });
    let config = Config::from_json(&config).unwrap();
    KvCache::new(&config, kv_type, capacity, &PageCount::default()).unwrap()
}

/// Queries, keys and values of some tokens.
struct Input {
    shape: Shape,
    q: Vec<f32>, // (tokens, heads, head_dim)
    k: Vec<f32>, // (tokens, kv_heads, head_dim)
    v: Vec<f32>,
    window: Option<usize>,
    query_pre_attn_scalar: f32,
}

impl Input {
    fn random(shape: Shape, n: usize, seed: u64) -> Input {
        let [heads, kv_heads, d] = shape;
        let mut noise = Noise::new(seed);
        let mut floats = |n: usize, scale: f32| -> Vec<f32> {
            let x = noise.floats(n);
            x.into_iter().map(|x| scale * x).collect()
        };
        Input {
            shape,
            q: floats(n * heads * d, 3.0),
            k: floats(n * kv_heads * d, 2.0),
            v: floats(n * kv_heads * d, 1.0),
            window: None,
            query_pre_attn_scalar: d as f32,
        }
    }

    /// Attention of layer 1, the tokens passed in pieces.
    fn run(
        &self,
        kernels: &'static Kernels,
        pool: &Pool,
        cache: &mut KvCache,
        pieces: &[usize],
    ) -> Vec<f32> {
        let [heads, kv_heads, d] = self.shape;
        let (mut memory, mut y) = (Memory::default(), vec![f32::NAN; self.q.len()]);
        let mut done = 0;
        for n in pieces {
            let kv = done * kv_heads * d..(done + n) * kv_heads * d;
            let at = done * heads * d..(done + n) * heads * d;
            cache
                .store(pool, 1, &self.k[kv.clone()], &self.v[kv])
                .unwrap();
            let q = &self.q[at.clone()];
            let attention = Attention {
                kernels,
                layer: 1,
                heads,
                query_pre_attn_scalar: self.query_pre_attn_scalar,
                window: self.window,
                sequences: &[Sequence { cache, q }],
            };
            attention.compute(pool, &mut memory, &mut y[at]);
            cache.advance(&vec![0; *n]);
            done += n;
        }
        y
    }

    /// The formula in f64.
    fn reference(&self) -> Vec<f64> {
        let [heads, kv_heads, d] = self.shape;
        let mut y = Vec::new();
        for (i, q) in self.q.chunks_exact(d).enumerate() {
            let (t, kv) = (i / heads, i % heads / (heads / kv_heads));
            let at = |s: usize| (s * kv_heads + kv) * d..(s * kv_heads + kv + 1) * d;
            let dot = |k: &[f32]| -> f64 {
                q.iter()
                    .zip(k)
                    .map(|(q, k)| f64::from(*q) * f64::from(*k))
                    .sum()
            };
            let score =
                |s: usize| dot(&self.k[at(s)]) / f64::from(self.query_pre_attn_scalar).sqrt();
            let seen = (t + 1).saturating_sub(self.window.unwrap_or(t + 1))..t + 1;
            let scores: Vec<f64> = seen.clone().map(score).collect();
            let max = scores.iter().copied().fold(f64::MIN, f64::max);
            let weights: Vec<f64> = scores.iter().map(|s| (s - max).exp()).collect();
            let sum: f64 = weights.iter().sum();
            for c in 0..d {
                let values = seen.clone().map(|s| f64::from(self.v[at(s).start + c]));
                y.push(weights.iter().zip(values).map(|(w, v)| w / sum * v).sum());
            }
        }
        y
    }
}

fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| x.to_bits()).collect()
}

#[test]
fn the_result_is_that_of_the_formula() {
    let pool = Pool::new(Some(2)).unwrap();
    for shape in SHAPES {
        let input = Input::random(shape, 300, 1);
        let expected = input.reference();
        for (kv_type, tolerance) in ALL.into_iter().zip([3e-6, 2e-3, 3e-2]) {
            let y = input.run(
                Kernels::best(),
                &pool,
                &mut cache(shape, kv_type, 300),
                &[300],
            );
            let errors = y
                .iter()
                .zip(&expected)
                .map(|(y, e)| (f64::from(*y) - e).abs());
            let largest = errors.fold(0.0, f64::max);
            assert!(largest < tolerance, "{shape:?} {kv_type:?}: {largest:e}");
        }
    }
}

/// Caches of several spans, the last of which is shorter; with and without a window. Some threads
/// take the blocks of a head from the first one on and merge them, others do not.
#[test]
fn a_long_cache_gives_the_same_bits_on_any_threads() {
    const N: usize = 2200;
    let shape = [6, 3, 18];
    let mut input = Input::random(shape, N, 11);
    for (window, kv_type) in [None, Some(1500)]
        .into_iter()
        .zip([KvType::F16, KvType::Q8])
    {
        input.window = window;
        let run = |threads: usize, pieces: &[usize]| {
            let pool = Pool::new(Some(threads)).unwrap();
            let mut cache = cache(shape, kv_type, N + 100);
            input.run(Kernels::best(), &pool, &mut cache, pieces)
        };
        let expected = run(1, &[N]);
        let last = N * shape[0] * shape[2] - 3;
        let largest = (f64::from(expected[last]) - input.reference()[last]).abs();
        assert!(largest < 3e-2, "{kv_type:?}: {largest:e}");
        for threads in [1, 2, 5] {
            for pieces in [&[N - 1, 1][..], &[1025, 1024, 130, 16, 1, 1, 1, 1, 1]] {
                let y = run(threads, pieces);
                assert_eq!(
                    bits(&y),
                    bits(&expected),
                    "{kv_type:?} {threads} {pieces:?}"
                );
            }
        }
    }
}

/// Windows of one position, within a block, across two and across all; divisors of scores that are
/// not head_dim.
#[test]
fn a_window_ends_what_is_seen() {
    let pool = Pool::new(Some(2)).unwrap();
    for (shape, window) in SHAPES.into_iter().zip([1, 5, 127, 128, 129, 200]) {
        let mut input = Input::random(shape, 400, 9);
        input.window = Some(window);
        input.query_pre_attn_scalar = 1.3 * shape[2] as f32;
        let expected = input.reference();
        for (kv_type, tolerance) in ALL.into_iter().zip([3e-6, 2e-3, 3e-2]) {
            let run = |pieces: &[usize]| {
                input.run(
                    Kernels::best(),
                    &pool,
                    &mut cache(shape, kv_type, 400),
                    pieces,
                )
            };
            let y = run(&[400]);
            let errors = y.iter().zip(&expected);
            let errors = errors.map(|(y, e)| (f64::from(*y) - e).abs());
            let largest = errors.fold(0.0, f64::max);
            assert!(
                largest < tolerance,
                "{shape:?} {window} {kv_type:?}: {largest:e}"
            );
            // Tokens one by one, and some of them after a cache of several blocks.
            assert_eq!(
                bits(&run(&[1; 400])),
                bits(&y),
                "{shape:?} {window} {kv_type:?}"
            );
            assert_eq!(
                bits(&run(&[300, 9, 91])),
                bits(&y),
                "{shape:?} {window} {kv_type:?}"
            );
        }
    }
}

#[test]
fn a_query_does_not_depend_on_those_of_its_group() {
    let pool = Pool::new(Some(2)).unwrap();
    for [heads, kv_heads, d] in SHAPES {
        let group = heads / kv_heads;
        let input = Input::random([heads, kv_heads, d], 150, 3);
        for kv_type in ALL {
            let run = |input: &Input| {
                let mut cache = cache(input.shape, kv_type, 150);
                input.run(Kernels::best(), &pool, &mut cache, &[140, 10])
            };
            let together = run(&input);
            for member in 0..group {
                let of_member = |x: &[f32]| -> Vec<f32> {
                    let heads = x.chunks_exact(d).skip(member).step_by(group);
                    heads.flatten().copied().collect()
                };
                let alone = run(&Input {
                    shape: [kv_heads, kv_heads, d],
                    q: of_member(&input.q),
                    k: input.k.clone(),
                    v: input.v.clone(),
                    ..input
                });
                assert_eq!(
                    bits(&alone),
                    bits(&of_member(&together)),
                    "{kv_type:?} {heads} {d}"
                );
            }
        }
    }
}

#[test]
fn a_query_that_is_not_finite_shows() {
    let pool = Pool::new(Some(1)).unwrap();
    let shape = [2, 1, 16];
    for kv_type in ALL {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut input = Input::random(shape, 3, 6);
            input.q[2 * 2 * 16 + 5] = bad;
            let y = input.run(Kernels::best(), &pool, &mut cache(shape, kv_type, 3), &[3]);
            assert!(y[..4 * 16].iter().all(|y| y.is_finite()));
            assert!(
                !y[4 * 16..5 * 16].iter().any(|y| y.is_finite()),
                "{kv_type:?} {bad}"
            );
            assert!(y[5 * 16..].iter().all(|y| y.is_finite()));
        }
    }
}

#[test]
fn keys_and_values_are_checked_before_they_are_stored() {
    let pool = Pool::new(Some(2)).unwrap();
    for kv_type in ALL {
        let mut cache = cache([2, 2, 16], kv_type, 20);
        let good = vec![1.0; 20 * 32];
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut x = good.clone();
            x[333] = bad;
            let keys = cache.store(&pool, 1, &x, &good).unwrap_err().to_string();
            let values = cache.store(&pool, 1, &good, &x).unwrap_err().to_string();
            assert!(keys.starts_with("the keys of layer 1"), "{keys}");
            assert!(values.starts_with("the values of layer 1"), "{values}");
        }
        let mut x = good.clone();
        x[333] = -65505.0;
        let stored = cache.store(&pool, 0, &good, &x);
        match kv_type {
            KvType::F16 => assert!(matches!(
                stored.unwrap_err(),
                Error::CacheOverflow {
                    tensor: "the values",
                    found: 65505.0,
                    ..
                }
            )),
            _ => stored.unwrap(),
        }
        x[333] = 65504.0;
        cache.store(&pool, 0, &x, &good).unwrap();
    }
}

#[test]
fn zeros_and_extremes_are_no_special_case() {
    let pool = Pool::new(Some(1)).unwrap();
    let shape = [2, 1, 16];
    for kv_type in ALL {
        // All weights are equal.
        let mut input = Input::random(shape, 4, 7);
        input.k.fill(0.0);
        let y = input.run(Kernels::best(), &pool, &mut cache(shape, kv_type, 4), &[4]);
        let mean: f32 = (0..4).map(|t| input.v[t * 16]).sum::<f32>() / 4.0;
        assert!((y[6 * 16] - mean).abs() < 0.01, "{kv_type:?}");
        input.v.fill(0.0);
        let y = input.run(Kernels::best(), &pool, &mut cache(shape, kv_type, 4), &[4]);
        assert!(y.iter().all(|y| *y == 0.0), "{kv_type:?}");
        input.q.fill(0.0);
        input.v.fill(6e4);
        let y = input.run(Kernels::best(), &pool, &mut cache(shape, kv_type, 4), &[4]);
        assert!(
            y.iter().all(|y| (y / 6e4 - 1.0).abs() < 1e-3),
            "{kv_type:?}"
        );
    }
}

#[test]
fn bytes_are_those_of_whole_blocks() {
    for (kv_type, of_position) in ALL
        .into_iter()
        .zip([4 * (26 + 32), 2 * (26 + 32), 26 + 32 + 8])
    {
        for (capacity, blocks) in [(1, 1), (128, 1), (129, 2), (300, 3)] {
            let cache = cache([4, 2, 26], kv_type, capacity);
            assert_eq!(cache.bytes(), 2 * 2 * blocks * BLOCK * of_position);
        }
    }
}
