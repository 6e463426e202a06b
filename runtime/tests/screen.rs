//! A screened head chooses the tokens that the full head chooses, and reads less.

mod random_model;

use random_model::{odd, write};
use sterna_runtime::{Logits, Model, Options, Sampler, Sampling};
use sterna_ternary::{Packing, TableType};

const ALL: Sampling = Sampling {
    temperature: 0.8,
    top_k: 0,
    top_p: 1.0,
    min_p: 0.0,
    repetition_penalty: 1.0,
    seed: 3,
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
    let mut left = [0; 3];
    for (t, table) in [TableType::Q8, TableType::Q6, TableType::Q4]
        .into_iter()
        .enumerate()
    {
        for family in ["bitnet", "llama", "qwen3"] {
            let mut recipe = odd(family, t % 2 == 0, table);
            recipe.config["vocab_size"] = 3001.into();
            recipe.config["hidden_size"] = 300.into();
            let (path, _) = write(&recipe, Packing::I2, folder.path(), "model");
            let options = Options {
                threads: Some(1 + t),
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
                        .forward(&mut other, &pending, Logits::Screened(&screen))
                        .unwrap();
                    for (a, b) in logits.iter().zip(&some) {
                        assert!(a.to_bits() == b.to_bits() || *b == f32::NEG_INFINITY);
                    }
                    left[t] += some.iter().filter(|y| **y == f32::NEG_INFINITY).count();
                    let token = full.sample(&mut logits, &tokens);
                    assert_eq!(screened.sample(&mut some, &tokens), token, "{sampling:?}");
                    tokens.push(token);
                    pending = vec![token];
                }
            }
        }
    }
    assert!(left[0] > 0 && left[1] > 0 && left[2] == 0, "{left:?}");
}

#[test]
fn samplers_that_need_every_logit_say_so() {
    for sampling in [ALL, Sampling { top_p: 0.9, ..ALL }] {
        assert_eq!(sampling.screen(&[]), None);
    }
}
