//! Guesses change the speed of an answer and nothing else: text, ids and cache have the same bits.

mod random_model;

use std::path::{Path, PathBuf};

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use random_model::tokenizer::tokenizer_json as small;
use random_model::{odd, write};
use serde_json::Value;
use sterna_runtime::draft::{MOST, check_tokens};
use sterna_runtime::{
    Allowed, Constraint, Drafter, Generation, Guess, KvCache, KvType, Logits, Lookup, Model,
    ModelDrafter, Options, Pace, Result, Sampler, Sampling, Settings, Summary,
};
use sterna_ternary::{Packing, TableType};

/// More than the tokens of which single rows of the head are read.
const VOCAB_SIZE: u32 = 1061;

/// The small tokenizer with words of four letters.
fn tokenizer_json() -> Value {
    let mut json = small();
    let vocab = json["model"]["vocab"].as_object_mut().unwrap();
    for id in vocab.len() as u32..VOCAB_SIZE {
        vocab.insert(format!("w{id:03}"), id.into());
    }
    json
}

fn write_model(
    folder: &Path,
    name: &str,
    table: TableType,
    seed: u64,
    tokenizer: Value,
) -> PathBuf {
    let mut recipe = odd("bitnet", true, table);
    recipe.config["vocab_size"] = VOCAB_SIZE.into();
    recipe.config["num_hidden_layers"] = 1.into();
    recipe.seed = seed;
    recipe.files = vec![("tokenizer.json", tokenizer.to_string().into_bytes())];
    write(&recipe, Packing::I2, folder, name).0
}

fn model(folder: &Path, name: &str, table: TableType, seed: u64, kv_type: KvType) -> Model {
    let path = write_model(folder, name, table, seed, tokenizer_json());
    let options = Options {
        threads: Some(1),
        kv_type,
        ..Options::default()
    };
    Model::open(&path, options).unwrap()
}

/// Knows the answer, and errs at some places.
#[derive(Debug)]
struct Oracle {
    prompt: usize,
    answer: Vec<u32>,
    /// One of this many guesses is wrong.
    wrong: u32,
    random: ChaCha8Rng,
}

impl Drafter for Oracle {
    fn propose(&mut self, tokens: &[u32], _: &Sampler, most: usize) -> Result<Vec<Guess>> {
        let next = self.answer.iter().skip(tokens.len() - self.prompt);
        let guesses = next.take(most).map(|id| {
            let id = match self.random.next_u32() % self.wrong {
                0 => self.random.next_u32() % VOCAB_SIZE,
                _ => *id,
            };
            Guess {
                id,
                probability: 0.5,
            }
        });
        Ok(guesses.collect())
    }
}

/// Allows tokens by those that came: most of them, half, a few, or one.
#[derive(Debug, Clone)]
struct ByPlace {
    accepted: Vec<u32>,
    most: usize,
    /// How it answers [`Constraint::rollback`], and after how many tokens it fails.
    can_rollback: bool,
    fails_after: usize,
}

impl ByPlace {
    fn allows(&self, id: u32) -> bool {
        let (place, sum) = (self.accepted.len() as u32, self.sum());
        match place % 5 {
            0 => !(id + sum).is_multiple_of(2),
            1 => (id + sum).is_multiple_of(50),
            2 => id == self.only(),
            3 => !(id + sum).is_multiple_of(7),
            _ => true,
        }
    }

    fn sum(&self) -> u32 {
        self.accepted.iter().sum()
    }

    fn only(&self) -> u32 {
        3 + self.sum() % 200
    }
}

impl Constraint for ByPlace {
    fn allow(&mut self, allowed: &mut Allowed) -> Result<()> {
        if self.accepted.len() > self.fails_after {
            return Err(sterna_runtime::Error::Constraint("too far".into()));
        }
        let ids = (0..VOCAB_SIZE).filter(|id| self.allows(*id));
        ids.for_each(|id| allowed.insert(id));
        Ok(())
    }

    fn accept(&mut self, id: u32) -> Result<()> {
        self.accepted.push(id);
        Ok(())
    }

    fn rollback(&mut self, n: usize) -> Result<bool> {
        if self.can_rollback {
            self.accepted.truncate(self.accepted.len() - n);
        }
        Ok(self.can_rollback)
    }

    fn forced(&mut self) -> Vec<u32> {
        match self.accepted.len() % 5 {
            2 => vec![self.only(), 7],
            _ => Vec::new(),
        }
    }

    fn is_complete(&self) -> bool {
        self.accepted.len() == self.most
    }

    fn fork(&self) -> Box<dyn Constraint> {
        Box::new(self.clone())
    }
}

/// What an answer was: its text, its error, its tokens, and counts.
type Answer = (String, Option<String>, Vec<u32>, Summary);

fn answer(generation: Generation) -> Answer {
    let mut generation = generation;
    let (mut text, mut error) = (String::new(), None);
    for piece in generation.by_ref() {
        match piece {
            Ok(piece) => text += &piece,
            Err(e) => error = Some(e.to_string()),
        }
    }
    let ids = generation.generated().to_vec();
    (text, error, ids, generation.summary())
}

/// The logits after one more token, which depend on everything in the cache.
fn next(model: &Model, cache: &mut KvCache) -> (Vec<u32>, Vec<u32>) {
    let tokens = cache.tokens().to_vec();
    let logits = model.forward(cache, &[5], Logits::Last).unwrap();
    (tokens, logits.into_iter().map(f32::to_bits).collect())
}

#[test]
fn answers_are_the_same_with_and_without_guesses() {
    let folder = tempfile::tempdir().unwrap();
    let kinds = [
        (TableType::Q8, KvType::F16),
        (TableType::Bf16Planes, KvType::F32),
        (TableType::F16, KvType::Q8),
    ];
    let open = |i: usize| model(folder.path(), &i.to_string(), kinds[i].0, 1, kinds[i].1);
    let models = [0, 1, 2].map(open);
    let draft = model(folder.path(), "draft", TableType::Q8, 2, KvType::F16);
    let tokenizer = models[0].tokenizer().unwrap();
    let mut random = ChaCha8Rng::seed_from_u64(3);
    let mut below = |n: u32| random.next_u32() % n;
    let (mut accepted, mut rejected, mut failed) = (0, 0, 0);
    for case in 0..5000 {
        let model = &models[case % 3];
        // A small alphabet repeats itself.
        let alphabet = [3, 10, 258][below(3) as usize];
        let prompt: Vec<u32> = (0..1 + below(30)).map(|_| 3 + below(alphabet)).collect();
        let sampling = Sampling {
            temperature: [0.0, 0.05, 1.0][below(3) as usize],
            top_k: [0, 2, 40][below(3) as usize],
            top_p: [1.0, 0.8][below(2) as usize],
            repetition_penalty: [1.0, 1.0, 1.3][below(3) as usize],
            frequency_penalty: [0.0, 0.0, 0.5][below(3) as usize],
            seed: case as u64,
            ..Sampling::default()
        };
        let max_tokens = 1 + below(24) as usize;
        let constraint = (below(3) == 0).then(|| ByPlace {
            accepted: Vec::new(),
            most: 1 + below(30) as usize,
            can_rollback: below(4) > 0,
            fails_after: [usize::MAX, 9][below(2) as usize],
        });
        let settings = Settings {
            max_tokens: (below(4) > 0).then_some(max_tokens),
            sampling,
            stop: vec!["th".into(), "<s>".into()],
            constraint: constraint.map(|c| Box::new(c) as Box<dyn Constraint>),
        };
        let capacity = prompt.len() + max_tokens;
        let [mut plain, mut other] = [(); 2].map(|()| model.new_cache(capacity).unwrap());
        let generation =
            |cache| Generation::new(model, &tokenizer, cache, &prompt, settings.clone()).unwrap();
        let (text, error, ids, summary) = answer(generation(&mut plain));

        let oracle = Oracle {
            prompt: prompt.len(),
            answer: ids.clone(),
            wrong: 2 + below(6),
            random: ChaCha8Rng::seed_from_u64(case as u64),
        };
        let lookup = || Box::new(Lookup::new(prompt.len()).with_expected(&ids));
        let drafters: Vec<Box<dyn Drafter>> = match below(4) {
            0 => vec![Box::new(Lookup::new(prompt.len()))],
            1 => vec![lookup()],
            2 => vec![Box::new(ModelDrafter::new(&draft, capacity).unwrap())],
            _ => vec![Box::new(oracle)],
        };
        let pace = [Pace::eager(), Pace::eager(), Pace::new()][below(3) as usize].clone();
        let speculating = generation(&mut other).with_drafters(drafters, pace);
        let (found, found_error, found_ids, counts) = answer(speculating);
        failed += usize::from(error.is_some());
        assert_eq!((&found, &found_ids), (&text, &ids), "{case} {settings:?}");
        assert_eq!(found_error, error, "{case}");
        assert_eq!(counts.stop, summary.stop, "{case}");
        assert_eq!(counts.generated_tokens, ids.len(), "{case}");
        accepted += counts.accepted_tokens;
        rejected += counts.drafted_tokens - counts.accepted_tokens;
        assert_eq!(plain.tokens(), other.tokens(), "{case}");
        if plain.len() < capacity {
            let (plain, other) = (next(model, &mut plain), next(model, &mut other));
            assert_eq!(plain, other, "{case}");
        }
    }
    // All of it was tried.
    assert!(accepted > 10_000, "{accepted}");
    assert!(rejected > 10_000, "{rejected}");
    assert!(failed > 20, "{failed}");
}

#[test]
fn a_model_guesses_for_itself_without_error() {
    let folder = tempfile::tempdir().unwrap();
    let model = model(folder.path(), "model", TableType::Q8, 1, KvType::F16);
    let tokenizer = model.tokenizer().unwrap();
    // The same random numbers fall on the same tokens.
    for temperature in [0.0, 1.0] {
        let settings = Settings {
            max_tokens: Some(100),
            sampling: Sampling {
                temperature,
                ..Sampling::default()
            },
            ..Settings::default()
        };
        let mut cache = model.new_cache(200).unwrap();
        let drafter = Box::new(ModelDrafter::new(&model, 200).unwrap());
        let generation = Generation::new(&model, &tokenizer, &mut cache, &[9, 8], settings);
        let generation = generation.unwrap();
        let (.., summary) = answer(generation.with_drafters(vec![drafter], Pace::eager()));
        assert!(summary.accepted_tokens > 0);
        let missed = summary.drafted_tokens - summary.accepted_tokens;
        // Only those after the end of the answer.
        assert!(missed < MOST, "{summary:?}");
    }
}

#[test]
fn models_of_other_tokens_do_not_guess() {
    let mut other = tokenizer_json();
    let vocab = other["model"]["vocab"].as_object_mut().unwrap();
    vocab.remove("the");
    vocab.insert("thh".into(), 260.into());
    other["model"]["merges"] = serde_json::json!(["t h", "th h"]);
    let folder = tempfile::tempdir().unwrap();
    let of = |name: &str, tokenizer| {
        let model = write_model(folder.path(), name, TableType::Q8, 1, tokenizer);
        Model::open(&model, Options::default())
            .unwrap()
            .tokenizer()
            .unwrap()
    };
    let (tokenizer, other) = (of("model", tokenizer_json()), of("other", other));
    let check = |draft, sizes| check_tokens(&tokenizer, draft, sizes).map_err(|e| e.to_string());
    assert_eq!(check(&tokenizer, [1061; 2]), Ok(()));
    let error = check(&other, [1061; 2]).unwrap_err();
    assert!(error.contains("token 260"), "{error}");
    let error = check(&tokenizer, [1061, 1300]).unwrap_err();
    assert!(error.contains("1300 tokens"), "{error}");
}
