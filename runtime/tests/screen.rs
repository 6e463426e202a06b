//! A screened head chooses the tokens that the full head chooses, and reads less.

mod random_model;

use random_model::{odd, write};
use sterna_runtime::{Error, Kernels, Logits, Model, Options, Part, Sampler, Sampling, Screen};
use sterna_ternary::random::{SplitMix64, unit};
use sterna_ternary::{Packing, TableType};

const ALL: Sampling = Sampling {
    temperature: 0.8,
    top_k: 0,
    top_p: 1.0,
    min_p: 0.0,
    repetition_penalty: 1.0,
    frequency_penalty: 0.0,
    presence_penalty: 0.0,
    seed: 3,
    stream: 0,
};

fn samplings() -> Vec<Sampling> {
    let greedy = Sampling {
        temperature: 0.0,
        ..ALL
    };
    let top_k = |top_k| Sampling { top_k, ..ALL };
    let min_p = |min_p| Sampling { min_p, ..ALL };
    let mut all = vec![
        greedy,
        top_k(1),
        top_k(5),
        top_k(40),
        min_p(0.3),
        min_p(0.9),
    ];
    all.push(Sampling {
        top_p: 0.7,
        min_p: 0.1,
        ..top_k(20)
    });
    for repetition_penalty in [0.5, 1.3] {
        let penalized: Vec<Sampling> = all[..6]
            .iter()
            .map(|sampling| Sampling {
                repetition_penalty,
                ..*sampling
            })
            .collect();
        all.extend(penalized);
    }
    all
}

#[test]
fn tokens_are_those_of_the_full_head() {
    let folder = tempfile::tempdir().unwrap();
    let mut left = [0; 4];
    let tables = [
        TableType::Q8,
        TableType::Q6,
        TableType::Q4,
        TableType::Bf16Planes,
    ];
    for (t, table) in tables.into_iter().enumerate() {
        for family in ["bitnet", "llama", "qwen3"] {
            let mut recipe = odd(family, t % 2 == 0, table);
            recipe.config["vocab_size"] = 3001.into();
            recipe.config["hidden_size"] = 300.into();
            let (path, _) = write(&recipe, Packing::I2, folder.path(), "model");
            let options = Options {
                threads: Some(1 + t % 3),
                ..Options::default()
            };
            let model = Model::open(&path, options).unwrap();
            for sampling in samplings() {
                let mut tokens = vec![1, 17, 2999];
                let (mut full, mut screened) =
                    [(); 2].map(|()| Sampler::new(sampling).unwrap()).into();
                let [mut cache, mut other] = [(); 2].map(|()| model.new_cache(60).unwrap());
                let mut pending = tokens.clone();
                for _ in 0..20 {
                    let mut logits = model.forward(&mut cache, &pending, Logits::Last).unwrap();
                    let screen = sampling
                        .screen(&tokens)
                        .expect("these samplers can be screened");
                    let mut some = model
                        .forward(
                            &mut other,
                            &pending,
                            Logits::Screened(std::slice::from_ref(&screen)),
                        )
                        .unwrap();
                    for (a, b) in logits.iter().zip(&some) {
                        assert!(a.to_bits() == b.to_bits() || *b == f32::NEG_INFINITY);
                    }
                    left[t] += some.iter().filter(|y| **y == f32::NEG_INFINITY).count();
                    let token = full.sample(&mut logits, &tokens).unwrap();
                    let other = screened.sample(&mut some, &tokens).unwrap();
                    assert_eq!(other, token, "{sampling:?}");
                    tokens.push(token);
                    pending = vec![token];
                }
            }
        }
    }
    assert!(
        left[0] > 0 && left[1] > 0 && left[2] == 0 && left[3] > 0,
        "{left:?}"
    );
}

/// With a large value in each group, the other values of a row are lost in its first plane. So most
/// rows need the second one, and some CPUs then read both at once.
#[test]
fn logits_that_the_first_plane_cannot_tell_apart() {
    let folder = tempfile::tempdir().unwrap();
    let (rows, columns) = (1001, 300);
    let mut random = SplitMix64(5);
    let values = (0..rows * columns).map(|i| {
        let value = unit(random.next()) as f32 - 0.5;
        if i % columns % 40 == 7 {
            value.signum()
        } else {
            0.1 * value
        }
    });
    let values: Vec<f32> = values.collect();
    let screen = Screen {
        among: None,
        top: 3,
        within: f32::INFINITY,
        exact: vec![9, 800],
    };
    for table in [TableType::Q8, TableType::Q6, TableType::Bf16Planes] {
        let mut recipe = odd("llama", false, table);
        recipe.head_values = Some(values.clone());
        recipe.config["vocab_size"] = rows.into();
        recipe.config["hidden_size"] = columns.into();
        let (path, _) = write(&recipe, Packing::I2, folder.path(), table.name());
        let model = Model::open(&path, Options::default()).unwrap();
        let [mut cache, mut other] = [(); 2].map(|()| model.new_cache(80).unwrap());
        let mut bytes = Vec::new();
        for id in 0..80 {
            let full = model.forward(&mut cache, &[id], Logits::Last).unwrap();
            let before = model.head_bytes_read();
            let screened = Logits::Screened(std::slice::from_ref(&screen));
            let some = model.forward(&mut other, &[id], screened).unwrap();
            bytes.push(model.head_bytes_read() - before);
            for ((full, some), is_asked) in full.iter().zip(&some).zip(asked(&full, &screen)) {
                let is_left = *some == f32::NEG_INFINITY && !is_asked;
                assert!(
                    is_left || some.to_bits() == full.to_bits(),
                    "{table:?} {id}"
                );
            }
        }
        // Codes of four and of two bits, and a multiplier, of three groups.
        let [first, two] = [64 + 1, 64 + 32 + 1].map(|bytes| rows * 3 * bytes);
        assert!(
            bytes.iter().all(|bytes| *bytes > first),
            "{table:?} {bytes:?}"
        );
        if (Kernels::best().prefers_codes)(1) && table != TableType::Bf16Planes {
            let at_once = bytes.iter().filter(|bytes| **bytes >= two).count();
            assert!(at_once > 70, "{table:?} {bytes:?}");
        }
    }
}

#[test]
fn samplers_that_need_every_logit_say_so() {
    for sampling in [ALL, Sampling { top_p: 0.9, ..ALL }] {
        assert_eq!(sampling.screen(&[]), None);
    }
}

/// Values of a head (rows, columns): normal; equal rows, whose logits tie; rows of all magnitudes
/// and of zeros; subnormal ones; one huge column; and rows that are almost equal.
fn heads(rows: usize, columns: usize) -> Vec<Vec<f32>> {
    let mut random = SplitMix64(11);
    let mut normal = move || ((0..6).map(|_| unit(random.next())).sum::<f64>() - 3.0) as f32;
    let mut head = |f: &dyn Fn(usize, usize, f32) -> f32| -> Vec<f32> {
        let cell = |i| f(i / columns, i % columns, normal());
        (0..rows * columns).map(cell).collect()
    };
    vec![
        head(&|_, _, x| 0.05 * x),
        head(&|_, column, _| (column % 7) as f32 / 8.0 - 0.3),
        head(&|row, _, x| {
            if row % 5 == 0 {
                0.0
            } else {
                x * 2f32.powi(-(row as i32 % 30))
            }
        }),
        head(&|_, _, x| 1e-6 * x),
        head(&|_, _, x| 1e-41 * x),
        head(&|_, column, x| if column == 3 { 30_000.0 * x } else { 0.01 * x }),
        head(&|row, column, _| {
            let ulp = f32::from(u8::from(row % columns == column)) / 128.0;
            ((column * 37 % 11) as f32 / 5.0 - 1.0) * (1.0 + ulp)
        }),
    ]
}

/// Which of the logits a screen asks for.
fn asked(logits: &[f32], screen: &Screen) -> Vec<bool> {
    let is_exact = |id: usize| screen.exact.contains(&(id as u32));
    if screen.within == f32::NEG_INFINITY {
        return (0..logits.len()).map(is_exact).collect();
    }
    let mut counted: Vec<f32> = (0..logits.len())
        .filter(|id| !is_exact(*id))
        .map(|id| logits[id])
        .collect();
    counted.sort_by(|a, b| b.total_cmp(a));
    let lowest = match screen.top {
        0 => f32::NEG_INFINITY,
        top => counted[top.min(counted.len()) - 1],
    };
    let lowest = lowest.max(counted[0] - screen.within);
    (0..logits.len())
        .map(|id| is_exact(id) || logits[id] >= lowest)
        .collect()
}

#[test]
fn tables_in_planes_give_the_logits_of_plain_tables() {
    let folder = tempfile::tempdir().unwrap();
    let screen = |top, within, exact: &[u32]| Screen {
        among: None,
        top,
        within,
        exact: exact.to_vec(),
    };
    let screens = [
        screen(1, f32::INFINITY, &[]),
        screen(5, f32::INFINITY, &[0, 700]),
        screen(0, 0.5, &[3]),
        screen(40, 2.0, &[]),
        screen(2000, f32::INFINITY, &[]),
        Screen::only(vec![0, 1, 2, 63, 64, 300, 900]),
    ];
    let (rows, mut left) = (901, 0);
    for (i, columns) in [100, 257, 300].into_iter().enumerate() {
        for (kind, values) in heads(rows, columns).into_iter().enumerate() {
            let plain = [TableType::F32, TableType::F16, TableType::Bf16][(kind + i) % 3];
            let models = [plain, plain.in_planes()].map(|table| {
                let mut recipe = odd("bitnet", false, table);
                recipe.head_values = Some(values.clone());
                recipe.config["vocab_size"] = rows.into();
                recipe.config["hidden_size"] = columns.into();
                let (path, _) = write(&recipe, Packing::I2, folder.path(), table.name());
                let options = Options {
                    threads: Some(1 + i),
                    ..Options::default()
                };
                Model::open(&path, options).unwrap()
            });
            let ids = [5, 17, 200, 899, 0, 1, 2, 3, 44];
            let all = models.each_ref().map(|model| {
                let mut cache = model.new_cache(9).unwrap();
                model.forward(&mut cache, &ids, Logits::All).unwrap()
            });
            let bits = |x: &[f32]| x.iter().map(|x| x.to_bits()).collect::<Vec<u32>>();
            assert_eq!(bits(&all[0]), bits(&all[1]), "{plain:?} {kind}");
            // Every sequence has a prefix of the ids and a screen of its own.
            let model = &models[1];
            for n in [1, 2, 9] {
                let mut caches: Vec<_> = (0..n).map(|_| model.new_cache(9).unwrap()).collect();
                let parts = caches.iter_mut().enumerate().map(|(t, cache)| Part {
                    cache,
                    ids: &ids[..=t],
                    logits: Logits::Screened(std::slice::from_ref(
                        &screens[(t + kind) % screens.len()],
                    )),
                });
                let mut parts: Vec<Part> = parts.collect();
                let found = model.forward_many(&mut parts).unwrap();
                for (t, found) in found.chunks_exact(rows).enumerate() {
                    let full = &all[0][t * rows..][..rows];
                    let asked = asked(full, &screens[(t + kind) % screens.len()]);
                    for (id, (found, full)) in found.iter().zip(full).enumerate() {
                        let is_left = *found == f32::NEG_INFINITY && !asked[id];
                        left += usize::from(is_left);
                        assert!(
                            is_left || found.to_bits() == full.to_bits(),
                            "{plain:?} {kind} {t} {id}: {found} {full}"
                        );
                    }
                }
            }
        }
    }
    assert!(left > 50_000, "{left}");
}

#[test]
fn logits_that_overflow_are_refused_by_every_head() {
    let folder = tempfile::tempdir().unwrap();
    for table in [TableType::F32, TableType::F32Planes, TableType::Bf16Planes] {
        let mut recipe = odd("llama", false, table);
        recipe.head_values = Some(
            (0..67 * 100)
                .map(|i| [3e38, 1.0][(i / 100 + 66) % 67 / 66])
                .collect(),
        );
        let (path, _) = write(&recipe, Packing::I2, folder.path(), table.name());
        let model = Model::open(&path, Options::default()).unwrap();
        let screen = Screen {
            among: None,
            top: 1,
            within: f32::INFINITY,
            exact: Vec::new(),
        };
        for logits in [Logits::All, Logits::Screened(std::slice::from_ref(&screen))] {
            let mut cache = model.new_cache(3).unwrap();
            let error = model.forward(&mut cache, &[1, 2], logits).unwrap_err();
            assert!(
                matches!(error, Error::NonFinite { .. }),
                "{table:?}: {error}"
            );
        }
    }
}
