//! What guesses of next tokens gain with a model, by how often they are right.
//!
//! `cargo bench -p sterna-runtime --bench speculation -- MODEL [TOKENS]`. Guesses are made from the
//! answer itself, and each is right with a given probability: so any model will do, also one of
//! random weights. Then the answer is expected to be a text that it equals but for an edit in every
//! 20 or 50 tokens, as edited code is, and last nothing is known about it. Generations with and
//! without guesses alternate; the fastest of each kind counts.

use std::time::Instant;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use sterna_runtime::{
    Drafter, Generation, Guess, Lookup, Model, Options, Pace, Result, Sampler, Settings, Summary,
    Tokenizer,
};

/// Probabilities that a guess is right.
const RIGHT: [f32; 6] = [0.0, 0.3, 0.5, 0.7, 0.9, 1.0];
/// Tokens of a copy, of which one is edited.
const COPIES: [usize; 2] = [20, 50];
/// Generations of a kind.
const ROUNDS: usize = 3;
/// Length of the prompt.
const PROMPT: usize = 64;

/// Knows the answer, and errs.
#[derive(Debug)]
struct Known<'a> {
    answer: &'a [u32],
    right: f32,
    random: ChaCha8Rng,
}

impl Drafter for Known<'_> {
    fn propose(&mut self, tokens: &[u32], _: &Sampler, most: usize) -> Result<Vec<Guess>> {
        let next = self.answer[tokens.len() - PROMPT..].iter().take(most);
        let mut probability = 1.0;
        let guesses = next.map(|id| {
            probability *= self.right;
            let is_right = (self.random.next_u32() >> 8) as f32 / ((1 << 24) as f32) < self.right;
            let id = id ^ u32::from(!is_right);
            Guess { id, probability }
        });
        Ok(guesses.collect())
    }
}

struct Bench {
    model: Model,
    tokenizer: Tokenizer,
    prompt: Vec<u32>,
    tokens: usize,
}

impl Bench {
    /// Tokens and counts of an answer with these drafters; `pace` knows the passes before.
    fn run(&self, drafters: Option<Vec<Box<dyn Drafter + '_>>>) -> (Vec<u32>, Summary) {
        let settings = Settings {
            max_tokens: Some(self.tokens),
            ..Settings::default()
        };
        let mut cache = self.model.new_cache(PROMPT + self.tokens).expect("a cache");
        let (model, tokenizer) = (&self.model, &self.tokenizer);
        let generation = Generation::new(model, tokenizer, &mut cache, &self.prompt, settings);
        let mut generation = generation.expect("the prompt fits");
        if let Some(drafters) = drafters {
            generation = generation.with_drafters(drafters, Pace::new());
        }
        generation
            .by_ref()
            .for_each(|piece| drop(piece.expect("a token")));
        (generation.generated().to_vec(), generation.summary())
    }
}

fn seconds(summary: &Summary) -> f64 {
    summary.generated_time.as_secs_f64() / summary.generated_tokens as f64
}

fn main() {
    let arguments = std::env::args()
        .skip(1)
        .filter(|argument| argument != "--bench");
    let arguments: Vec<String> = arguments.collect();
    let Some(path) = arguments.first() else {
        println!("no model is given: nothing is measured");
        return;
    };
    let model = Model::open(path.as_ref(), Options::default()).expect("a packed model");
    let tokens = arguments
        .get(1)
        .map_or(96, |n| n.parse().expect("a number of tokens"));
    let bench = Bench {
        tokenizer: model.tokenizer().expect("a tokenizer"),
        prompt: (0..PROMPT as u32).map(|i| 1000 + i * 37).collect(),
        model,
        tokens,
    };
    println!(
        "{} kernels, {} threads",
        bench.model.kernels().name,
        bench.model.threads()
    );
    let start = Instant::now();
    let (answer, _) = bench.run(None);
    println!(
        "{} tokens in the answer, {:.1?}",
        answer.len(),
        start.elapsed()
    );
    let measure = |name: &str, drafters: &dyn Fn(u64) -> Box<dyn Drafter>| {
        let mut best = [f64::INFINITY; 2];
        let mut last = Summary::default();
        for round in 0..ROUNDS {
            best[0] = best[0].min(seconds(&bench.run(None).1));
            let (found, summary) = bench.run(Some(vec![drafters(round as u64)]));
            assert_eq!(found, answer, "guesses changed the answer");
            best[1] = best[1].min(seconds(&summary));
            last = summary;
        }
        println!(
            "{name:>8}: {:.1} tokens/s, {:.1} without: {:.2} x; {} of {} guesses were right",
            1.0 / best[1],
            1.0 / best[0],
            best[0] / best[1],
            last.accepted_tokens,
            last.drafted_tokens,
        );
    };
    let answer: &'static [u32] = Vec::leak(answer.clone());
    for right in RIGHT {
        let known = |seed| -> Box<dyn Drafter> {
            Box::new(Known {
                answer,
                right,
                random: ChaCha8Rng::seed_from_u64(seed),
            })
        };
        measure(&format!("{:.0} %", 100.0 * right), &known);
    }
    for every in COPIES {
        let edited = |(at, id): (usize, &u32)| id ^ u32::from(at % every == every - 1);
        let text: Vec<u32> = answer.iter().enumerate().map(edited).collect();
        measure(&format!("1 in {every}"), &|_| {
            Box::new(Lookup::new(PROMPT).with_expected(&text))
        });
    }
    measure("lookup", &|_| Box::new(Lookup::new(PROMPT)));
}
