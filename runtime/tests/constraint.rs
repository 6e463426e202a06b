//! Constraints: tokens are chosen from those allowed, as from the logits of the full head.

mod random_model;

use random_model::{odd, write};
use sterna_runtime::{
    Allowed, Constraint, Error, Logits, Model, Options, Result, Sampler, Sampling,
};
use sterna_ternary::{Packing, TableType};

/// Allows tokens by their place: 7 of them, all but some, or one; then the answer is complete.
#[derive(Debug, Clone)]
struct ByPlace {
    accepted: Vec<u32>,
    most: usize,
}

const VOCAB_SIZE: u32 = 3001;

fn by_place(most: usize) -> Box<dyn Constraint> {
    let accepted = Vec::new();
    Box::new(ByPlace { accepted, most })
}

impl ByPlace {
    fn ids(place: usize) -> Vec<u32> {
        let place = place as u32;
        match place % 3 {
            0 => (0..7)
                .map(|i| (i * 433 + place * 97) % VOCAB_SIZE)
                .collect(),
            1 => (0..VOCAB_SIZE)
                .filter(|id| !(id + place).is_multiple_of(3))
                .collect(),
            _ => vec![VOCAB_SIZE - 1 - place],
        }
    }
}

impl Constraint for ByPlace {
    fn allow(&mut self, allowed: &mut Allowed) -> Result<()> {
        let ids = Self::ids(self.accepted.len());
        ids.into_iter().for_each(|id| allowed.insert(id));
        Ok(())
    }

    fn accept(&mut self, id: u32) -> Result<()> {
        match Self::ids(self.accepted.len()).contains(&id) {
            true => self.accepted.push(id),
            false => return Err(Error::Constraint(format!("{id} is not allowed"))),
        }
        Ok(())
    }

    fn rollback(&mut self, n: usize) -> Result<bool> {
        self.accepted.truncate(self.accepted.len() - n);
        Ok(true)
    }

    fn forced(&mut self) -> Vec<u32> {
        let places = self.accepted.len()..self.most;
        let only = places.map(Self::ids).take_while(|ids| ids.len() == 1);
        only.flatten().collect()
    }

    fn is_complete(&self) -> bool {
        self.accepted.len() == self.most
    }

    fn fork(&self) -> Box<dyn Constraint> {
        Box::new(self.clone())
    }
}

#[test]
fn tokens_are_those_of_the_full_head_without_the_others() {
    let folder = tempfile::tempdir().unwrap();
    let samplings = [(0.0, 0), (0.9, 0), (0.9, 5)].map(|(temperature, top_k)| Sampling {
        temperature,
        top_k,
        repetition_penalty: 1.2,
        seed: 5,
        ..Sampling::default()
    });
    for table in [
        TableType::Q8,
        TableType::Q4,
        TableType::Bf16Planes,
        TableType::F16,
    ] {
        let mut recipe = odd("bitnet", false, table);
        recipe.config["vocab_size"] = VOCAB_SIZE.into();
        recipe.config["hidden_size"] = 300.into();
        let (path, _) = write(&recipe, Packing::I2, folder.path(), "model");
        let model = Model::open(&path, Options::default()).unwrap();
        for sampling in samplings {
            let mut sampler = Sampler::new(sampling).unwrap();
            sampler = sampler
                .with_constraint(by_place(12), VOCAB_SIZE as usize)
                .unwrap();
            let mut plain = Sampler::new(sampling).unwrap();
            let is_screened = sampling.temperature == 0.0 || sampling.top_k > 0;
            let [mut cache, mut other] = [(); 2].map(|()| model.new_cache(60).unwrap());
            let mut tokens = vec![1, 17, 2999];
            let mut pending = tokens.clone();
            let mut few_bytes = Vec::new();
            for place in 0..12 {
                assert!(!sampler.is_complete());
                let mut full = model.forward(&mut cache, &pending, Logits::Last).unwrap();
                let ids = ByPlace::ids(place);
                for (id, logit) in full.iter_mut().enumerate() {
                    if !ids.contains(&(id as u32)) {
                        *logit = f32::NEG_INFINITY;
                    }
                }
                let expected = plain.sample(&mut full, &tokens).unwrap();

                let before = model.head_bytes_read();
                let screen = sampler.screen(&tokens);
                assert_eq!(screen.is_some(), ids.len() <= 512 || is_screened);
                let wanted = match screen.as_slice() {
                    [] => Logits::Last,
                    screens => Logits::Screened(screens),
                };
                let mut some = model.forward(&mut other, &pending, wanted).unwrap();
                if ids.len() <= 512 {
                    few_bytes.push(model.head_bytes_read() - before);
                }
                let token = sampler.sample(&mut some, &tokens).unwrap();
                assert_eq!(token, expected, "{table:?} {sampling:?} {place}");
                tokens.push(token);
                pending = vec![token];
            }
            assert!(sampler.is_complete());
            // Of the few allowed tokens, only their rows were read: 7 or 1 of 3,001.
            let whole = {
                let before = model.head_bytes_read();
                let mut cache = model.new_cache(4).unwrap();
                model.forward(&mut cache, &[1], Logits::Last).unwrap();
                model.head_bytes_read() - before
            };
            if table != TableType::F16 {
                assert!(
                    few_bytes.iter().all(|bytes| bytes * 50 < whole),
                    "{few_bytes:?}"
                );
            }
        }
    }
}

#[test]
fn a_constraint_that_allows_nothing_is_an_error() {
    #[derive(Debug, Clone)]
    struct Nothing;
    impl Constraint for Nothing {
        fn allow(&mut self, _: &mut Allowed) -> Result<()> {
            Ok(())
        }
        fn accept(&mut self, _: u32) -> Result<()> {
            Ok(())
        }
        fn rollback(&mut self, _: usize) -> Result<bool> {
            Ok(false)
        }
        fn forced(&mut self) -> Vec<u32> {
            Vec::new()
        }
        fn is_complete(&self) -> bool {
            false
        }
        fn fork(&self) -> Box<dyn Constraint> {
            Box::new(Nothing)
        }
    }
    let sampler = Sampler::new(Sampling::default()).unwrap();
    let error = sampler.with_constraint(Box::new(Nothing), 10).unwrap_err();
    assert!(matches!(error, Error::Constraint(_)), "{error}");
}
