//! Logits have the same bits in every setting: a random walk over caches, in which each step is
//! another setting.
//!
//! A few caches hold parts of a few sequences that begin alike. A step takes some of them in any
//! order, lets each go on, go back, or change to another sequence where the two part, and computes
//! their next tokens in one pass, with the next combination of packing, kernel table and threads.
//! Whatever was computed before, and by which thread, each token's logits are those that it gets
//! when its sequence is computed alone and at once.

mod random_model;

use std::fmt::Write;
use std::path::Path;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use random_model::{Recipe, odd, with_linear_norms, write};
use sterna_runtime::{Kernels, KvCache, KvType, Logits, Model, Options, Part, Screen};
use sterna_ternary::{Activations, Dense, Dtype, LinearType, Packing, Scaling, TableType};

const SEED: u64 = 1;
const THREADS: [usize; 5] = [1, 2, 3, 4, 8];
const VOCAB_SIZE: usize = 67;
/// More tokens than two batches and blocks of a cache have, than one has, and fewer.
const LENGTHS: [usize; 5] = [290, 150, 129, 60, 9];
/// Caches of the walk.
const CACHES: usize = 6;

struct Random(ChaCha8Rng);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0.next_u32() as usize % n
    }

    /// Whether one of `n` cases comes up.
    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    fn shuffle<T>(&mut self, x: &mut [T]) {
        for i in (1..x.len()).rev() {
            x.swap(i, self.below(i + 1));
        }
    }
}

/// A sequence and what its tokens get when it is computed alone.
struct Sequence {
    ids: Vec<u32>,
    bits: Vec<u32>, // (ids, vocab_size)
}

impl Sequence {
    fn bits(&self, token: usize) -> &[u32] {
        &self.bits[token * VOCAB_SIZE..][..VOCAB_SIZE]
    }
}

/// A cache and what it holds.
struct Held {
    cache: KvCache,
    sequence: usize,
    /// Which settings computed what is in it.
    history: String,
}

/// What a step does with a cache.
#[derive(Debug, Clone)]
struct Move {
    cache: usize,
    sequence: usize,
    from: usize,
    tokens: usize,
    wants: Wants,
}

#[derive(Debug, Clone)]
enum Wants {
    Nothing,
    All,
    Last,
    Screened(Screen),
}

impl Wants {
    fn random(random: &mut Random) -> Wants {
        match random.below(4) {
            0 => Wants::Nothing,
            1 => Wants::All,
            2 => Wants::Last,
            _ => Wants::Screened(Screen {
                among: None,
                top: 3,
                within: f32::INFINITY,
                exact: vec![random.below(VOCAB_SIZE) as u32],
            }),
        }
    }

    fn logits(&self) -> Logits<'_> {
        match self {
            Wants::Nothing => Logits::None,
            Wants::All => Logits::All,
            Wants::Last => Logits::Last,
            Wants::Screened(screen) => Logits::Screened(std::slice::from_ref(screen)),
        }
    }
}

fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| x.to_bits()).collect()
}

/// Positions at the beginning that two sequences have in common.
fn common(a: &[u32], b: &[u32]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

/// Random sequences, of which each begins as the first one does.
fn sequences(model: &Model, random: &mut Random) -> Vec<Sequence> {
    let first: Vec<u32> = (0..LENGTHS[0])
        .map(|_| random.below(VOCAB_SIZE) as u32)
        .collect();
    let sequence = |length: usize| {
        let same = random.below(length + 1);
        let rest = (same..length).map(|_| random.below(VOCAB_SIZE) as u32);
        let ids: Vec<u32> = first[..same].iter().copied().chain(rest).collect();
        let mut cache = model.new_cache(length).unwrap();
        let logits = model.forward(&mut cache, &ids, Logits::All).unwrap();
        let bits = bits(&logits);
        Sequence { ids, bits }
    };
    LENGTHS.into_iter().map(sequence).collect()
}

/// Some caches in any order, each with the tokens that come next.
fn moves(held: &[Held], sequences: &[Sequence], random: &mut Random) -> Vec<Move> {
    let mut caches: Vec<usize> = (0..held.len()).collect();
    random.shuffle(&mut caches);
    caches.truncate(1 + random.below(held.len()));
    let next = |cache: usize| {
        let Held {
            cache: kv,
            sequence: now,
            ..
        } = &held[cache];
        let sequence = match random.one_in(4) {
            true => random.below(sequences.len()),
            false => *now,
        };
        let ids = &sequences[sequence].ids;
        let keep = kv.len().min(common(ids, &sequences[*now].ids));
        let from = match random.one_in(4) || keep == ids.len() {
            true => random.below(keep.min(ids.len() - 1) + 1),
            false => keep,
        };
        let most = match random.below(8) {
            0 => ids.len(),
            1..5 => 1,
            _ => 20,
        };
        Move {
            cache,
            sequence,
            from,
            tokens: 1 + random.below(most.min(ids.len() - from)),
            wants: Wants::random(random),
        }
    };
    caches.into_iter().map(next).collect()
}

/// Lets a model make some moves and compares the logits.
fn step(model: &Model, setting: &str, moves: &[Move], held: &mut [Held], sequences: &[Sequence]) {
    for m in moves {
        held[m.cache].cache.truncate(m.from);
        held[m.cache].sequence = m.sequence;
        let tokens = m.from..m.from + m.tokens;
        write!(held[m.cache].history, "\n  {tokens:?} {setting}").unwrap();
    }
    let mut caches: Vec<_> = held.iter_mut().map(|h| Some(&mut h.cache)).collect();
    let parts = moves.iter().map(|m| Part {
        cache: caches[m.cache].take().expect("each is moved once"),
        ids: &sequences[m.sequence].ids[m.from..m.from + m.tokens],
        logits: m.wants.logits(),
    });
    let mut parts: Vec<Part> = parts.collect();
    let logits = bits(&model.forward_many(&mut parts).unwrap());
    let mut rows = logits.chunks_exact(VOCAB_SIZE);
    for m in moves {
        let end = m.from + m.tokens;
        assert_eq!(held[m.cache].cache.len(), end, "{setting}");
        let tokens = match m.wants {
            Wants::Nothing => end..end,
            Wants::All => m.from..end,
            Wants::Last | Wants::Screened(_) => end - 1..end,
        };
        for token in tokens {
            let found = rows
                .next()
                .expect("every token that wants logits gets them");
            let expected = sequences[m.sequence].bits(token);
            let same = match &m.wants {
                Wants::Screened(screen) => same_but_for_screened(found, expected, screen),
                _ => found == expected,
            };
            let history = &held[m.cache].history;
            assert!(
                same,
                "token {token} of {m:?} in {setting} among {moves:#?}, the cache computed \
                 so:{history}"
            );
        }
    }
    assert!(rows.next().is_none(), "{setting}");
}

/// Whether logits are the same but for those that a screen does not ask for.
fn same_but_for_screened(found: &[u32], expected: &[u32], screen: &Screen) -> bool {
    let left = f32::NEG_INFINITY.to_bits();
    let largest = |x: &[u32]| x.iter().map(|x| f32::from_bits(*x)).reduce(f32::max);
    let asked = screen.exact.iter().map(|id| *id as usize);
    found
        .iter()
        .zip(expected)
        .all(|(f, e)| f == e || *f == left)
        && asked.into_iter().all(|id| found[id] == expected[id])
        && largest(found) == largest(expected)
}

fn walk(recipe: &Recipe, folder: &Path, seed: u64) {
    let mut random = Random(ChaCha8Rng::seed_from_u64(seed));
    let ternary = Packing::ALL.into_iter().filter(|p| recipe.scaling.fits(*p));
    let packings: Vec<LinearType> = match recipe.dense {
        Some(dense) => vec![dense.into()],
        None => ternary.map(LinearType::from).collect(),
    };
    let file = |packing: LinearType| (packing, write(recipe, packing, folder, packing.name()).0);
    let files: Vec<_> = packings.into_iter().map(file).collect();
    for kv_type in [KvType::F32, KvType::F16, KvType::Q8] {
        // Shown when something fails.
        println!("{kv_type:?} cache, {recipe:?}");
        let mut settings = Vec::new();
        for (packing, path) in &files {
            for kernels in Kernels::available() {
                for threads in THREADS {
                    let options = Options {
                        threads: Some(threads),
                        kernels: Some(kernels),
                        kv_type,
                        ..Options::default()
                    };
                    settings.push((path, packing, options));
                }
            }
        }
        random.shuffle(&mut settings);
        let options = Options {
            threads: Some(1),
            kv_type,
            ..Options::default()
        };
        let alone = Model::open(&files[0].1, options).unwrap();
        let sequences = sequences(&alone, &mut random);
        let held = |_| Held {
            cache: alone.new_cache(LENGTHS[0]).unwrap(),
            sequence: 0,
            history: String::new(),
        };
        let mut held: Vec<Held> = (0..CACHES).map(held).collect();
        for (path, packing, options) in settings {
            let (kernels, threads) = (options.kernels.unwrap(), options.threads.unwrap());
            let setting = format!("{packing:?}, {kernels:?}, {threads} threads");
            let model = Model::open(path, options).unwrap();
            let moves = moves(&held, &sequences, &mut random);
            step(&model, &setting, &moves, &mut held, &sequences);
        }
    }
}

/// Walks with a family's models: tied and untied, each with heads (heads, kv_heads, head_dim),
/// types of the tables and sizes of the other dimensions that are multiples of nothing.
fn check(family: &str, scaling: Scaling, models: Models) {
    check_with(family, scaling, Activations::Int8, Dtype::F32, models);
}

type Models = [([usize; 3], [TableType; 2], [usize; 2]); 2];

fn check_with(
    family: &str,
    scaling: Scaling,
    activations: Activations,
    group_scales: Dtype,
    models: Models,
) {
    let folder = tempfile::tempdir().unwrap();
    for (seed, (heads, tables, sizes)) in (SEED..).zip(models) {
        let mut recipe = odd(family, seed % 2 == 0, tables[0]);
        recipe.embedding = tables[1];
        recipe.scaling = scaling;
        recipe.activations = activations;
        recipe.group_scales = group_scales;
        let [heads, kv_heads, head_dim] = heads;
        let [hidden_size, intermediate_size] = sizes;
        for (name, size) in [
            ("num_attention_heads", heads),
            ("num_key_value_heads", kv_heads),
            ("head_dim", head_dim),
            ("hidden_size", hidden_size),
            ("intermediate_size", intermediate_size),
        ] {
            recipe.config[name] = size.into();
        }
        if family == "gemma3_text" {
            // A window within a block, and one that reaches over two.
            recipe.config["sliding_window"] = [40, 131][seed as usize % 2].into();
            recipe = with_linear_norms(recipe);
        }
        walk(&recipe, folder.path(), seed);
    }
}

#[test]
fn bitnet() {
    use TableType::{Bf16, F16, Q6};
    check(
        "bitnet",
        Scaling::Matrix,
        [
            ([6, 2, 22], [F16, Bf16], [100, 333]),
            ([4, 1, 26], [Q6, Q6], [37, 51]),
        ],
    );
}

#[test]
fn llama() {
    use TableType::{F16, F32, Q8};
    check(
        "llama",
        Scaling::Matrix,
        [
            ([15, 3, 2], [Q8, F16], [131, 70]),
            ([16, 1, 80], [F32, F32], [65, 129]),
        ],
    );
}

#[test]
fn qwen3() {
    use TableType::{Bf16, Q4, Q8};
    check(
        "qwen3",
        Scaling::Matrix,
        [
            ([3, 3, 16], [Q4, Q8], [257, 33]),
            ([4, 2, 256], [Bf16, Bf16], [90, 111]),
        ],
    );
}

#[test]
fn gemma3_with_norms_in_front_of_linear_layers() {
    use TableType::{Bf16, F16, Q8};
    check(
        "gemma3_text",
        Scaling::Matrix,
        [
            ([4, 1, 32], [F16, F16], [100, 70]),
            ([6, 3, 18], [Q8, Bf16], [65, 129]),
        ],
    );
}

#[test]
fn tables_in_planes() {
    use TableType::{Bf16, Bf16Planes, F16Planes, F32Planes};
    check(
        "bitnet",
        Scaling::Matrix,
        [
            ([6, 2, 22], [Bf16Planes, Bf16Planes], [100, 333]),
            ([4, 1, 26], [F16Planes, Bf16], [257, 51]),
        ],
    );
    check(
        "llama",
        Scaling::Matrix,
        [
            ([15, 3, 2], [F32Planes, F32Planes], [131, 70]),
            ([16, 1, 80], [Bf16Planes, F16Planes], [65, 129]),
        ],
    );
}

#[test]
fn activations_of_sixteen_bits() {
    use TableType::{F16, Ternary};
    let models = [
        ([4, 2, 64], [Ternary, F16], [200, 333]),
        ([2, 1, 80], [F16, F16], [130, 400]),
    ];
    for scaling in Scaling::ALL {
        check_with("llama", scaling, Activations::Int16, Dtype::F16, models);
    }
}

#[test]
fn ternary_tables() {
    use TableType::Ternary;
    let models = [
        ([4, 2, 64], [Ternary, Ternary], [200, 333]),
        ([6, 2, 22], [Ternary, Ternary], [100, 70]),
    ];
    let (int8, int16) = (Activations::Int8, Activations::Int16);
    check_with("qwen3", Scaling::Group, int16, Dtype::F16, models);
    check_with("qwen3", Scaling::Matrix, int8, Dtype::F32, models);
}

#[test]
fn several_scales() {
    use TableType::F16;
    let models = [
        ([4, 2, 64], [F16, F16], [200, 333]),
        ([2, 1, 80], [F16, F16], [130, 400]),
    ];
    check("qwen3", Scaling::Row, models);
    check("qwen3", Scaling::Group, models);
}

/// Sizes for which a tile of rows and of tokens is cut off, and a block is not full.
#[test]
fn baselines() {
    let folder = tempfile::tempdir().unwrap();
    let number = |dtype| (Dense::F16, dtype);
    let packings = [
        number(Dtype::F16),
        number(Dtype::Bf16),
        number(Dtype::F32),
        (Dense::Q8_0, Dtype::F16),
        (Dense::Q4_0, Dtype::F16),
    ];
    for (seed, (dense, dtype)) in (SEED + 20..).zip(packings) {
        let mut recipe = odd(["llama", "qwen3"][seed as usize % 2], false, TableType::F16);
        (recipe.dense, recipe.number, recipe.seed) = (Some(dense), dtype, seed);
        walk(&recipe, folder.path(), seed);
    }
}
