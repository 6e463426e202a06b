//! The forward pass against a slow one written from the formulas, and what it refuses.

mod random_model;

use std::cell::Cell;
use std::path::{Path, PathBuf};

use random_model::{Plain, Recipe, odd, with_linear_norms, write};
use sterna_runtime::{Error, KvCache, KvType, Logits, Model, Options, Part};
use sterna_ternary::scales::GROUP_COLUMNS;
use sterna_ternary::{Activation, Dense, Dtype, Packing, Scaling, TableType, layout, quantize};

/// Every family, tied and untied, every table type.
fn recipes() -> Vec<Recipe> {
    let tables = [
        TableType::F32,
        TableType::F16,
        TableType::Bf16,
        TableType::Q8,
    ];
    let planes = [
        TableType::Bf16Planes,
        TableType::F16Planes,
        TableType::F32Planes,
        TableType::Bf16Planes,
    ];
    let mut recipes = Vec::new();
    for (i, family) in ["bitnet", "llama", "qwen3", "gemma3_text"]
        .into_iter()
        .enumerate()
    {
        for (j, table) in tables.into_iter().enumerate() {
            let mut recipe = odd(family, (i + j) % 2 == 0, table);
            recipe.embedding = tables[(j + 1) % 4];
            recipe.seed = (10 * i + j) as u64;
            recipes.push(recipe);
        }
        let mut recipe = odd(family, true, TableType::F32);
        recipe.scaling = [Scaling::Row, Scaling::Group, Scaling::Group, Scaling::Row][i];
        recipes.push(recipe);
        let mut recipe = with_linear_norms(odd(family, false, TableType::F32));
        recipe.seed = 50 + i as u64;
        recipes.push(recipe);
        let mut recipe = odd(family, i % 2 == 0, planes[i]);
        (recipe.embedding, recipe.seed) = (planes[3 - i], 70 + i as u64);
        recipes.push(recipe);
        let dense = [Dense::F16, Dense::Q8_0, Dense::Q4_0, Dense::F16][i];
        let mut recipe = odd(family, false, TableType::F32);
        (recipe.dense, recipe.seed) = (Some(dense), 60 + i as u64);
        recipe.number = [Dtype::F32, Dtype::F16, Dtype::F16, Dtype::Bf16][i];
        recipes.push(recipe);
    }
    recipes
}

fn ids(n: usize) -> Vec<u32> {
    (0..n as u32)
        .map(|i| (i * i * 7 + i * 3 + 5) % 67)
        .collect()
}

fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| x.to_bits()).collect()
}

/// Logits of all positions, computed in f64 but for the quantization of activations; and how many
/// positions come before one where an activation is so close to a rounding boundary that either
/// side is right.
fn reference(model: &Plain, ids: &[u32]) -> (Vec<f64>, usize) {
    let c = &model.config;
    let close = Cell::new(false);
    let tensor = |name: &str| &model.tensors[name];
    let norm_with = |x: &[f64], name: &str, eps: f32| -> Vec<f64> {
        let mean = x.iter().map(|x| x * x).sum::<f64>() / x.len() as f64;
        let factor = 1.0 / (mean + f64::from(eps)).sqrt();
        x.iter()
            .zip(tensor(name))
            .map(|(x, w)| x * factor * f64::from(*w))
            .collect()
    };
    let norm = |x: &[f64], name: &str| norm_with(x, name, c.rms_norm_eps);
    let linear = |x: &[f64], name: &str| -> Vec<f64> {
        let own = |eps| norm_with(x, &layout::linear_norm_name(name), eps);
        let x = c.linear_norm_eps.map_or(x.to_vec(), own);
        let x: Vec<f32> = x.iter().map(|x| *x as f32).collect();
        if let Some(dense) = model.dense {
            let x = input(dense, &x, &close);
            let rows = tensor(name).chunks_exact(x.len());
            let dot = |w: &[f32]| w.iter().zip(&x).map(|(w, x)| f64::from(*w) * x).sum();
            return rows.map(dot).collect();
        }
        let mut q = vec![0; x.len()];
        let s = quantize::quantize_activations(&x, &mut q);
        let to_boundary = |x: &f32| ((f64::from(*x) * f64::from(s)).rem_euclid(1.0) - 0.5).abs();
        close.set(close.get() || x.iter().any(|x| to_boundary(x) < 5e-5));
        let scales = &model.scales[name];
        let rows = tensor(name).len() / x.len();
        let shape = |scaling: &Scaling| scaling.shape(rows, x.len()).iter().product::<usize>();
        let scaling = Scaling::ALL.into_iter().find(|s| shape(s) == scales.len());
        let scale = |row: usize, column: usize| match scaling.unwrap() {
            Scaling::Matrix => scales[0],
            Scaling::Row => scales[row],
            Scaling::Group => scales[column / GROUP_COLUMNS * rows + row],
        };
        let dot = |(row, w): (usize, &[f32])| {
            w.iter()
                .zip(&q)
                .enumerate()
                .map(|(i, (w, q))| f64::from(*w) * f64::from(*q) * f64::from(scale(row, i)))
                .sum::<f64>()
        };
        tensor(name)
            .chunks_exact(x.len())
            .enumerate()
            .map(|row| dot(row) / f64::from(s))
            .collect()
    };
    let d = c.head_dim;
    let rotate = |x: &mut [f64], layer: usize, position: usize| {
        let local = c.sliding.as_ref().filter(|s| s.layers[layer]);
        let frequencies = local.map_or(c.rope, |s| s.rope).inverse_frequencies(d);
        for head in x.chunks_exact_mut(d) {
            for i in 0..d / 2 {
                let angle = f64::from(position as f32 * frequencies[i]);
                let (a, b) = (head[i], head[i + d / 2]);
                head[i] = a * angle.cos() - b * angle.sin();
                head[i + d / 2] = b * angle.cos() + a * angle.sin();
            }
        }
    };
    let embedding = tensor("model.embed_tokens.weight");
    let head = if c.tie_word_embeddings {
        embedding
    } else {
        tensor("lm_head.weight")
    };
    let mut keys = vec![Vec::new(); c.num_hidden_layers];
    let mut values = vec![Vec::new(); c.num_hidden_layers];
    let mut logits = Vec::new();
    let mut clear = 0;
    for (position, id) in ids.iter().enumerate() {
        let row = &embedding[*id as usize * c.hidden_size..][..c.hidden_size];
        let mut x: Vec<f64> = row.iter().map(|x| f64::from(*x)).collect();
        if c.family.scales_embeddings {
            x.iter_mut()
                .for_each(|x| *x *= (c.hidden_size as f64).sqrt());
        }
        for layer in 0..c.num_hidden_layers {
            let name = |part: &str| format!("model.layers.{layer}.{part}.weight");
            let h = norm(&x, &name("input_layernorm"));
            let mut q = linear(&h, &name("self_attn.q_proj"));
            let mut k = linear(&h, &name("self_attn.k_proj"));
            if c.family.qk_norm {
                q = q
                    .chunks(d)
                    .flat_map(|q| norm(q, &name("self_attn.q_norm")))
                    .collect();
                k = k
                    .chunks(d)
                    .flat_map(|k| norm(k, &name("self_attn.k_norm")))
                    .collect();
            }
            rotate(&mut q, layer, position);
            rotate(&mut k, layer, position);
            keys[layer].push(k);
            values[layer].push(linear(&h, &name("self_attn.v_proj")));
            let mut attn = Vec::new();
            for (i, q) in q.chunks_exact(d).enumerate() {
                let kv = i / (c.num_attention_heads / c.num_key_value_heads) * d;
                let score = |k: &Vec<f64>| {
                    q.iter()
                        .zip(&k[kv..kv + d])
                        .map(|(q, k)| q * k)
                        .sum::<f64>()
                        / f64::from(c.query_pre_attn_scalar).sqrt()
                };
                let first = (position + 1).saturating_sub(c.window(layer).unwrap_or(usize::MAX));
                let seen = &keys[layer][first..];
                let weights: Vec<f64> = seen.iter().map(|k| score(k).exp()).collect();
                let sum: f64 = weights.iter().sum();
                for j in 0..d {
                    let column = values[layer][first..].iter().map(|v| v[kv + j]);
                    attn.push(weights.iter().zip(column).map(|(w, v)| w / sum * v).sum());
                }
            }
            if let Some(sub) = c.family.attn_sub_norm {
                attn = norm(&attn, &name(&format!("self_attn.{sub}")));
            }
            let mut o = linear(&attn, &name("self_attn.o_proj"));
            if let Some(post) = c.family.attn_post_norm {
                o = norm(&o, &name(post));
            }
            x.iter_mut().zip(o).for_each(|(x, o)| *x += o);
            let h = norm(&x, &name(c.family.ffn_norm));
            let gate = linear(&h, &name("mlp.gate_proj"));
            let up = linear(&h, &name("mlp.up_proj"));
            let act = |g: f64| match c.family.activation {
                Activation::Silu => g / (1.0 + (-g).exp()),
                Activation::Relu2 => g.max(0.0) * g.max(0.0),
                Activation::GeluTanh => {
                    let u = (2.0 / std::f64::consts::PI).sqrt() * (g + 0.044715 * g.powi(3));
                    0.5 * g * (1.0 + u.tanh())
                }
            };
            let mut product: Vec<f64> = gate.iter().zip(&up).map(|(g, u)| act(*g) * u).collect();
            if let Some(sub) = c.family.ffn_sub_norm {
                product = norm(&product, &name(&format!("mlp.{sub}")));
            }
            let mut down = linear(&product, &name("mlp.down_proj"));
            if let Some(post) = c.family.ffn_post_norm {
                down = norm(&down, &name(post));
            }
            x.iter_mut().zip(down).for_each(|(x, d)| *x += d);
        }
        let x = norm(&x, "model.norm.weight");
        let dot = |w: &[f32]| {
            w.iter()
                .zip(&x)
                .map(|(w, x)| f64::from(*w) * x)
                .sum::<f64>()
        };
        logits.extend(head.chunks_exact(c.hidden_size).map(dot));
        clear += usize::from(!close.get());
    }
    (logits, clear)
}

/// What matrices of a dense packing are multiplied with.
fn input(dense: Dense, x: &[f32], close: &Cell<bool>) -> Vec<f64> {
    if dense == Dense::F16 {
        return x.iter().map(|x| f64::from(*x)).collect();
    }
    let rounded = x.chunks(32).flat_map(|x| {
        let largest = x.iter().fold(0f64, |m, x| m.max(f64::from(x.abs())));
        let code = move |x: &f32| f64::from(*x) * 127.0 / largest;
        let to_boundary = |x: &f32| (code(x).rem_euclid(1.0) - 0.5).abs();
        close.set(close.get() || x.iter().any(|x| to_boundary(x) < 5e-5));
        x.iter()
            .map(move |x| code(x).round_ties_even() * largest / 127.0)
    });
    rounded.collect()
}

/// Compares the logits of a model with those of the formulas, and returns how many positions are
/// clear.
fn compare(recipe: &Recipe, folder: &Path) -> usize {
    let packing = match recipe.scaling.fits(Packing::T5) {
        true => Packing::T5,
        false => Packing::I2,
    };
    let (path, plain) = write(recipe, packing, folder, "model");
    let options = Options {
        kv_type: KvType::F32,
        ..Options::default()
    };
    let model = Model::open(&path, options).unwrap();
    let (expected, clear) = reference(&plain, &ids(9));
    let mut cache = model.new_cache(9).unwrap();
    let found = model.forward(&mut cache, &ids(9), Logits::All).unwrap();
    assert_eq!(found.len(), expected.len());
    let n = expected.len() as f64;
    let mean = expected.iter().sum::<f64>() / n;
    let deviation = (expected.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n).sqrt();
    let errors: Vec<f64> = found
        .iter()
        .zip(&expected)
        .map(|(found, expected)| (f64::from(*found) - expected).abs() / deviation)
        .collect();
    let largest = errors[..clear * 67].iter().copied().fold(0.0, f64::max);
    // After the first plane, coded heads take the hidden state in 8 bits.
    let bound = match recipe.table.numbers() {
        Some(_) => 1e-4,
        None => 3e-3,
    };
    assert!(largest < bound, "{largest:e} {recipe:?}");
    let mean = errors.iter().sum::<f64>() / n;
    assert!(mean < 0.02, "{mean:e} {recipe:?}");
    clear
}

#[test]
fn logits_are_those_of_the_formulas() {
    let folder = tempfile::tempdir().unwrap();
    let clear = |recipe| compare(&recipe, folder.path());
    let compared: usize = recipes().into_iter().map(clear).sum();
    assert!(
        compared > 60,
        "only {compared} of 288 positions are clear of boundaries"
    );
}

/// A bitnet model whose gates are about 8 · `scale`.
fn with_gates(scale: f32) -> Recipe {
    let mut recipe = odd("bitnet", true, TableType::F16);
    recipe.scales = vec![("gate_proj", scale), ("up_proj", scale)];
    recipe
}

#[test]
fn squares_of_large_gates_are_exact_while_f32_holds_them() {
    let folder = tempfile::tempdir().unwrap();
    for scale in [1e3, 1e4] {
        let clear = |seed| {
            let recipe = with_gates(scale);
            compare(&Recipe { seed, ..recipe }, folder.path())
        };
        assert!((1..5).map(clear).sum::<usize>() > 8);
    }
    let (path, _) = write(&with_gates(1e9), Packing::I2, folder.path(), "model");
    let model = Model::open(&path, Options::default()).unwrap();
    let mut cache = model.new_cache(9).unwrap();
    let error = model.forward(&mut cache, &[1], Logits::Last).unwrap_err();
    assert_starts(&error, "the input of down_proj of layer 0 holds NaN");
}

#[test]
fn threads_may_share_a_model() {
    let folder = tempfile::tempdir().unwrap();
    let (path, _) = write(
        &odd("llama", true, TableType::F16),
        Packing::I2,
        folder.path(),
        "model",
    );
    let model = Model::open(
        &path,
        Options {
            threads: Some(2),
            ..Options::default()
        },
    )
    .unwrap();
    let run = |n: usize| {
        let mut cache = model.new_cache(n).unwrap();
        bits(&model.forward(&mut cache, &ids(n), Logits::Last).unwrap())
    };
    let expected: Vec<_> = (1..5).map(run).collect();
    std::thread::scope(|scope| {
        for n in 1..5 {
            let (run, expected) = (&run, &expected);
            scope.spawn(move || (0..20).for_each(|_| assert_eq!(run(n), expected[n - 1])));
        }
    });
}

#[test]
fn a_clone_of_a_cache_continues_on_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let recipe = odd("llama", true, TableType::F16);
    let (path, _) = write(&recipe, Packing::I2, folder.path(), "model");
    for kv_type in [KvType::F32, KvType::F16, KvType::Q8] {
        let options = Options {
            kv_type,
            ..Options::default()
        };
        let model = Model::open(&path, options).unwrap();
        let next = |cache: &mut KvCache, ids: &[u32]| {
            bits(&model.forward(cache, ids, Logits::Last).unwrap())
        };
        let mut cache = model.new_cache(24).unwrap();
        next(&mut cache, &ids(20));
        let mut clone = cache.clone();
        assert_eq!(clone.tokens(), cache.tokens());
        // Each of them writes position 20.
        let found = [next(&mut cache, &[1]), next(&mut clone, &[2])];
        for (last, found) in [1, 2].into_iter().zip(found) {
            let mut alone = model.new_cache(24).unwrap();
            let ids = [&ids(20)[..], &[last]].concat();
            assert_eq!(found, next(&mut alone, &ids), "{kv_type:?} {last}");
        }
        assert_eq!(next(&mut cache, &[3]), {
            let mut alone = model.new_cache(24).unwrap();
            next(&mut alone, &[&ids(20)[..], &[1, 3]].concat())
        });
    }
}

#[test]
fn caches_that_do_not_fit_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let open = |layers: usize| {
        let mut recipe = odd("bitnet", true, TableType::F16);
        recipe.config["num_hidden_layers"] = layers.into();
        let (path, _) = write(&recipe, Packing::I2, folder.path(), "model");
        Model::open(&path, Options::default()).unwrap()
    };
    let (model, other) = (open(2), open(3));
    let mut cache = model.new_cache(2).unwrap();
    let error = other.forward(&mut cache, &[1], Logits::Last).unwrap_err();
    assert!(matches!(error, Error::ForeignCache));
    model.forward(&mut cache, &[1, 2], Logits::Last).unwrap();
    let error = model.forward(&mut cache, &[3], Logits::Last).unwrap_err();
    assert_starts(
        &error,
        "2 tokens in the cache and 1 new ones: expected at most 2",
    );
    for context in [0, 301] {
        let error = model.new_cache(context).unwrap_err();
        assert_starts(
            &error,
            &format!("a context of {context} tokens: expected 1 to 300"),
        );
    }
}

fn assert_starts(error: &Error, expected: &str) {
    let error = error.to_string();
    assert!(error.starts_with(expected), "{expected}: {error}");
}

#[test]
fn weights_that_overflow_are_named() {
    let folder = tempfile::tempdir().unwrap();
    for (scale, large, expected) in [
        (
            f32::MAX,
            "0.mlp.down_proj",
            "the input of q_proj, k_proj and v_proj of layer 1",
        ),
        (
            f32::MAX,
            "1.self_attn.q_proj",
            "the input of o_proj of layer 1",
        ),
        (f32::MAX, "1.self_attn.k_proj", "the keys of layer 1"),
        (f32::MAX, "1.self_attn.v_proj", "the values of layer 1"),
        (
            f32::MAX,
            "1.self_attn.o_proj",
            "the input of gate_proj and up_proj of layer 1",
        ),
        (
            f32::MAX,
            "1.mlp.gate_proj",
            "the input of down_proj of layer 1",
        ),
        (
            f32::MAX,
            "1.mlp.up_proj",
            "the input of down_proj of layer 1",
        ),
        (f32::MAX, "1.mlp.down_proj", "the input of the head"),
        // Too much for half precision only.
        (1e6, "1.self_attn.v_proj", "the values of layer 1 holds"),
    ] {
        for family in ["bitnet", "llama"] {
            let mut recipe = odd(family, true, TableType::F16);
            recipe.scales = vec![(large, scale)];
            let (path, _) = write(&recipe, Packing::I2, folder.path(), "model");
            let model = Model::open(&path, Options::default()).unwrap();
            let mut cache = model.new_cache(9).unwrap();
            let error = model.forward(&mut cache, &ids(9), Logits::Last);
            assert_starts(&error.unwrap_err(), expected);
            assert!(cache.is_empty());
        }
    }
}

/// Writes a model whose embedding of token 9 holds a number.
fn with_embedding(bad: f32, tied: bool, folder: &Path) -> PathBuf {
    let mut recipe = odd("llama", tied, TableType::F32);
    recipe.embedding = TableType::F32;
    let (path, _) = write(&recipe, Packing::I2, folder, "model");
    // A table is not checked when a file is opened; it is at the start of the data.
    let mut bytes = std::fs::read(&path).unwrap();
    let start = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let at = start + 9 * 100 * 4;
    bytes[at..at + 4].copy_from_slice(&bad.to_le_bytes());
    std::fs::write(&path, bytes).unwrap();
    path
}

#[test]
fn numbers_that_are_not_finite_are_named() {
    let folder = tempfile::tempdir().unwrap();
    // The square of the last one overflows.
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 1e30] {
        let path = with_embedding(bad, true, folder.path());
        let model = Model::open(&path, Options::default()).unwrap();
        let mut cache = model.new_cache(10).unwrap();
        let error = model.forward(&mut cache, &[1, 9], Logits::Last);
        let expected = "the input of q_proj, k_proj and v_proj of layer 0";
        assert_starts(&error.unwrap_err(), expected);
        // The head sees the row as well.
        match model.forward(&mut cache, &[1], Logits::Last) {
            Ok(_) => assert_eq!(bad, 1e30),
            Err(error) => assert_starts(&error, "the logits of the end of the model"),
        }
    }
}

#[test]
fn an_error_changes_no_cache() {
    let folder = tempfile::tempdir().unwrap();
    let path = with_embedding(f32::NAN, false, folder.path());
    let model = Model::open(&path, Options::default()).unwrap();
    // More than one batch, so the first sequence is ahead when the second one fails.
    let long: Vec<u32> = ids(150).into_iter().filter(|id| *id != 9).collect();
    let all = |ids: &[u32]| {
        let mut cache = model.new_cache(200).unwrap();
        let logits = model.forward(&mut cache, ids, Logits::Last).unwrap();
        (cache, logits)
    };
    let ((mut a, _), (mut b, _)) = (all(&long[..5]), all(&[1, 2, 3]));
    let both = |a: &mut KvCache, b: &mut KvCache, ids: &[u32]| {
        let part = |cache, ids, logits| Part { cache, ids, logits };
        let mut parts = [
            part(a, &long[5..], Logits::Last),
            part(b, ids, Logits::Last),
        ];
        model.forward_many(&mut parts)
    };
    for (ids, expected) in [
        (
            &[4, 9][..],
            "the input of q_proj, k_proj and v_proj of layer 0",
        ),
        (&[4, 67], "token id 67 at position 1"),
        (&[], "no tokens"),
        (
            &[4; 198],
            "3 tokens in the cache and 198 new ones: expected at most 200",
        ),
    ] {
        assert_starts(&both(&mut a, &mut b, ids).unwrap_err(), expected);
        assert_eq!((a.len(), b.len()), (5, 3));
    }
    let together = both(&mut a, &mut b, &[4, 5]).unwrap();
    let alone = [all(&long).1, all(&[1, 2, 3, 4, 5]).1].concat();
    assert_eq!(bits(&together), bits(&alone));
    assert!(model.forward_many(&mut []).unwrap().is_empty());
}

#[test]
fn smaller_caches_are_close() {
    let folder = tempfile::tempdir().unwrap();
    let (path, _) = write(
        &odd("qwen3", true, TableType::F16),
        Packing::T5,
        folder.path(),
        "model",
    );
    let run = |kv_type| {
        let model = Model::open(
            &path,
            Options {
                kv_type,
                ..Options::default()
            },
        )
        .unwrap();
        let mut cache = model.new_cache(40).unwrap();
        let logits = model.forward(&mut cache, &ids(40), Logits::Last).unwrap();
        (cache.bytes(), logits)
    };
    let (bytes, exact) = run(KvType::F32);
    let of_position = bytes / (22 + 32); // a value takes whole panels of 16
    assert_eq!(of_position, 2 * 2 * 128 * 4); // a block of positions
    for (kv_type, expected, most) in [
        (KvType::F16, bytes / 2, 0.5),
        (KvType::Q8, bytes / 4 + of_position / 4 * 8, 1.0),
    ] {
        let (bytes, rounded) = run(kv_type);
        assert_eq!(bytes, expected, "{kv_type:?}");
        let errors = exact.iter().zip(&rounded).map(|(a, b)| (a - b).abs());
        let error = errors.sum::<f32>() / 67.0;
        println!("{kv_type:?}: {error}");
        assert!(error > 0.0 && error < most, "{kv_type:?}: {error}");
    }
}
