//! Requests for tests of the scheduler, and their answers as the runtime gives them alone.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use sterna_runtime::sampler::log_sum_exp;
use sterna_runtime::{
    Allowed, Answer, Constraint, Logits, Model, Part, Result, Sampler, Sampling, StopReason,
    Tokenizer,
};
use sterna_serve::engine::{End, Event, Failure, Generate, Request, Score, Token, Work};
use sterna_ternary::{Packing, TableType};

use crate::random_model::tokenizer::tokenizer_json;
use crate::random_model::{odd, write};

pub const VOCAB_SIZE: usize = 261;

/// Writes a random model with a byte-level tokenizer and a context of 600 tokens.
pub fn model(folder: &Path) -> PathBuf {
    let mut recipe = odd("bitnet", true, TableType::F16);
    recipe.config["vocab_size"] = VOCAB_SIZE.into();
    recipe.config["max_position_embeddings"] = 600.into();
    recipe.files = vec![
        ("tokenizer.json", tokenizer_json().to_string().into_bytes()),
        ("tokenizer_config.json", b"{}".to_vec()),
    ];
    write(&recipe, Packing::I2, folder, "model").0
}

/// Allows half of the tokens, a few, or one, by the number of those before.
#[derive(Debug, Clone)]
struct ByPlace {
    accepted: usize,
    most: usize,
}

impl Constraint for ByPlace {
    fn allow(&mut self, allowed: &mut Allowed) -> Result<()> {
        let place = self.accepted as u32;
        let step = [2, 30, VOCAB_SIZE as u32][place as usize % 3];
        let ids = (3..VOCAB_SIZE as u32).filter(|id| (id + place).is_multiple_of(step));
        ids.chain([5]).for_each(|id| allowed.insert(id));
        Ok(())
    }

    fn accept(&mut self, _: u32) -> Result<()> {
        self.accepted += 1;
        Ok(())
    }

    fn rollback(&mut self, n: usize) -> Result<bool> {
        self.accepted -= n;
        Ok(true)
    }

    fn forced(&mut self) -> Vec<u32> {
        match self.accepted % 3 {
            2 => vec![5, 5],
            _ => Vec::new(),
        }
    }

    fn is_complete(&self) -> bool {
        self.accepted == self.most
    }

    fn fork(&self) -> Box<dyn Constraint> {
        Box::new(self.clone())
    }
}

struct Random(ChaCha8Rng);

impl Random {
    fn new(seed: u64) -> Random {
        Random(ChaCha8Rng::seed_from_u64(seed))
    }

    fn below(&mut self, n: usize) -> usize {
        self.0.next_u32() as usize % n
    }

    /// Ids that are not special.
    fn ids(&mut self, n: usize) -> Vec<u32> {
        (0..n)
            .map(|_| 3 + self.below(VOCAB_SIZE - 3) as u32)
            .collect()
    }
}

fn greedy(max_tokens: usize) -> Generate {
    Generate {
        choices: 1,
        max_tokens,
        sampling: Sampling::default(),
        constraint: None,
        bias: Vec::new(),
        stop: Vec::new(),
        stop_tokens: Vec::new(),
        keeps_stop: false,
        continues_text: false,
        ignores_eos: true,
        logprobs: None,
        prompt_logprobs: None,
        scored_from: 1,
        prediction: Vec::new(),
    }
}

fn request(prompt: Vec<u32>, generate: Generate) -> Request {
    Request {
        key: 0,
        prompt,
        work: Work::Generate(Box::new(generate)),
        reads_cache: true,
    }
}

/// A prompt of its own and an answer of exactly this length.
pub fn growing(seed: u64, prompt: usize, max_tokens: usize) -> Request {
    request(Random::new(1000 + seed).ids(prompt), greedy(max_tokens))
}

/// A question after a system prompt that all of them have.
pub fn after_system(system: usize, seed: u64, question: usize) -> Request {
    let mut prompt = Random::new(0).ids(system);
    prompt.extend(Random::new(2000 + seed).ids(question));
    request(prompt, greedy(20))
}

/// Requests of all kinds, of which many begin alike.
pub fn pool(n: u64) -> Vec<Request> {
    let mut random = Random::new(7);
    let beginnings: Vec<Vec<u32>> = [40, 128, 200, 300].map(|n| random.ids(n)).into();
    (0..n).map(|i| any(&mut random, &beginnings, i)).collect()
}

fn any(random: &mut Random, beginnings: &[Vec<u32>], seed: u64) -> Request {
    let own = 1 + random.below(60);
    let mut prompt = match random.below(3) {
        0 => Vec::new(),
        _ => {
            let beginning = &beginnings[random.below(beginnings.len())];
            beginning[..1 + random.below(beginning.len())].to_vec()
        }
    };
    prompt.extend(random.ids(own));
    if random.below(8) == 0 {
        return Request {
            work: Work::Embed,
            ..request(prompt, greedy(1))
        };
    }
    let mut generate = greedy(random.below(40));
    if random.below(3) > 0 {
        generate.sampling = Sampling {
            temperature: 1.0,
            top_k: [0, 0, 20][random.below(3)],
            top_p: [1.0, 0.9][random.below(2)],
            repetition_penalty: [1.0, 1.2][random.below(2)],
            frequency_penalty: [0.0, 0.5][random.below(2)],
            presence_penalty: [0.0, -0.5][random.below(2)],
            seed,
            ..Sampling::default()
        };
        generate.choices = 1 + random.below(3);
    }
    if random.below(4) == 0 {
        generate.bias = vec![(50, 3.0), (60, f32::NEG_INFINITY)];
    }
    if random.below(3) == 0 {
        generate.logprobs = Some(random.below(4));
    }
    if random.below(4) == 0 {
        generate.prompt_logprobs = Some(random.below(3));
    }
    if random.below(3) == 0 {
        generate.stop = ["e", "a", "th"].map(str::to_owned)[..1 + random.below(3)].to_vec();
        generate.stop_tokens = vec![100];
        generate.keeps_stop = random.below(2) == 0;
    }
    if random.below(4) == 0 {
        generate.constraint = Some(Arc::new(ByPlace {
            accepted: 0,
            most: 1 + random.below(40),
        }));
    }
    if random.below(3) == 0 {
        let most = random.below(prompt.len());
        generate.prediction = prompt[most..].to_vec();
    }
    generate.continues_text = random.below(2) == 0;
    generate.ignores_eos = random.below(2) == 0;
    request(prompt, generate)
}

/// What a client has heard, put together.
#[derive(Debug, Default, PartialEq)]
pub struct Outcome {
    pub prompt: Vec<Token>,
    pub texts: Vec<String>,
    pub tokens: Vec<Vec<Token>>,
    pub ends: Vec<Option<End>>,
    pub vector: Vec<u32>,
    pub failure: Option<Failure>,
}

impl Outcome {
    fn new(choices: usize) -> Outcome {
        Outcome {
            texts: vec![String::new(); choices],
            tokens: vec![Vec::new(); choices],
            ends: vec![None; choices],
            ..Outcome::default()
        }
    }

    pub fn of(events: &[Event]) -> Outcome {
        let mut outcome = Outcome::new(3);
        for event in events {
            match event.clone() {
                Event::Prompt(tokens) => outcome.prompt.extend(tokens),
                Event::Piece {
                    choice,
                    text,
                    tokens,
                } => {
                    assert_eq!(outcome.ends[choice], None, "a piece after the end");
                    assert!(!text.contains('\u{fffd}') || !text.is_empty());
                    outcome.texts[choice] += &text;
                    outcome.tokens[choice].extend(tokens);
                }
                Event::End(end) => {
                    let choice = end.choice;
                    // What a cache held and what was guessed is all that may differ.
                    let end = End {
                        cached_tokens: 0,
                        drafted_tokens: 0,
                        accepted_tokens: 0,
                        ..end
                    };
                    assert_eq!(outcome.ends[choice].replace(end), None, "two ends");
                }
                Event::Embedding { vector, .. } => {
                    outcome.vector = vector.iter().map(|x| x.to_bits()).collect();
                }
                Event::Failed(failure) => outcome.failure = Some(failure),
            }
        }
        outcome
    }

    /// The ids of an answer, without the token that ended it.
    pub fn ids(&self, choice: usize) -> Vec<u32> {
        self.tokens[choice].iter().map(|token| token.id).collect()
    }

    pub fn assert_equal(&self, expected: &Outcome, request: &Request, seed: u64) {
        assert_eq!(self, expected, "seed {seed}: {request:?}");
    }

    /// What a client heard before it left.
    pub fn assert_begins(&self, expected: &Outcome, seed: u64) {
        assert!(expected.prompt.starts_with(&self.prompt), "seed {seed}");
        for (text, whole) in self.texts.iter().zip(&expected.texts) {
            assert!(whole.starts_with(text.as_str()), "seed {seed}");
        }
        for (tokens, whole) in self.tokens.iter().zip(&expected.tokens) {
            assert!(whole.starts_with(tokens), "seed {seed}");
        }
    }
}

/// The answer of the runtime: each token from one forward pass of its sequence alone.
pub fn expected(model: &Model, tokenizer: &Tokenizer, request: &Request) -> Outcome {
    let mut outcome = Outcome::new(3);
    let mut cache = model.new_cache(request.positions().max(1)).unwrap();
    let generate = match &request.work {
        Work::Generate(generate) => generate,
        Work::Embed => {
            let part = Part {
                cache: &mut cache,
                ids: &request.prompt,
                logits: Logits::Last,
            };
            let hidden = model.hidden_many(&mut [part]).unwrap();
            let squares: f64 = hidden.iter().map(|x| f64::from(*x).powi(2)).sum();
            let unit = |x: &f32| ((f64::from(*x) / squares.sqrt()) as f32).to_bits();
            outcome.vector = hidden.iter().map(unit).collect();
            return outcome;
        }
    };
    let logits = model
        .forward(&mut cache, &request.prompt, Logits::All)
        .unwrap();
    let rows: Vec<&[f32]> = logits.chunks_exact(VOCAB_SIZE).collect();
    if let Some(top) = generate.prompt_logprobs {
        let predicted = rows.iter().zip(&request.prompt[1..]);
        outcome.prompt = predicted
            .map(|(row, id)| scored(row, *id, Some(top)))
            .collect();
    }
    for choice in 0..generate.choices {
        let last = rows[rows.len() - 1].to_vec();
        cache.truncate(request.prompt.len());
        answer(
            model,
            tokenizer,
            request,
            &mut cache.clone(),
            (choice, last),
            &mut outcome,
        );
    }
    outcome
}

fn answer(
    model: &Model,
    tokenizer: &Tokenizer,
    request: &Request,
    cache: &mut sterna_runtime::KvCache,
    (choice, mut logits): (usize, Vec<f32>),
    outcome: &mut Outcome,
) {
    let Work::Generate(generate) = &request.work else {
        unreachable!("embeddings have no answers");
    };
    let sampling = Sampling {
        stream: choice as u64,
        ..generate.sampling
    };
    let mut sampler = Sampler::new(sampling)
        .unwrap()
        .with_bias(generate.bias.clone())
        .with_answer_after(request.prompt.len());
    let mut text = Answer::new(tokenizer, generate.stop.clone()).unwrap();
    text = text.with_stop_tokens(&generate.stop_tokens);
    if generate.keeps_stop {
        text = text.with_stop_kept();
    }
    if generate.continues_text {
        text = text.after(&request.prompt).unwrap();
    }
    if generate.ignores_eos {
        text = text.without_eos();
    }
    let mut tokens = request.prompt.clone();
    let mut answered = Vec::new();
    let mut starts = Vec::new();
    let mut last = None;
    if let Some(constraint) = &generate.constraint {
        let constrained = sampler.with_constraint(constraint.fork(), VOCAB_SIZE);
        sampler = constrained.unwrap();
    }
    let goes_on = |answered: usize, text: &Answer, sampler: &Sampler| {
        answered < generate.max_tokens && text.stop().is_none() && !sampler.is_complete()
    };
    while goes_on(answered.len(), &text, &sampler) {
        let before = logits.clone();
        let id = sampler.sample(&mut logits, &tokens).unwrap();
        let token = scored(&before, id, generate.logprobs);
        tokens.push(id);
        starts.push(text.decoded());
        outcome.texts[choice] += &text.push(id).unwrap();
        answered.push(token.clone());
        if text.ended_by_token() {
            last = Some(token);
        }
        if goes_on(answered.len(), &text, &sampler) {
            logits = model.forward(cache, &[id], Logits::Last).unwrap();
        }
    }
    let generated_tokens = answered.len();
    if text.stop().is_none() {
        outcome.texts[choice] += &text.end().unwrap();
    }
    if last.is_some() {
        answered.pop();
    }
    // Tokens whose text begins in the stop text are not part of the answer.
    if text.shown() < text.decoded() {
        let kept = starts
            .iter()
            .take_while(|start| **start < text.shown())
            .count();
        answered.truncate(kept);
    }
    outcome.tokens[choice] = answered;
    outcome.ends[choice] = Some(End {
        choice,
        reason: text.stop().unwrap_or(match sampler.is_complete() {
            true => StopReason::Eos,
            false => StopReason::Length,
        }),
        stop_text: text.stop_text().map(str::to_owned),
        last,
        cached_tokens: 0,
        generated_tokens,
        drafted_tokens: 0,
        accepted_tokens: 0,
    });
}

/// A token with its score, if it is wanted.
fn scored(logits: &[f32], id: u32, top: Option<usize>) -> Token {
    let sum = log_sum_exp(logits);
    let logprob = |id: u32| f64::from(logits[id as usize]) - sum;
    let mut best: Vec<u32> = (0..logits.len() as u32).collect();
    best.sort_by(|a, b| {
        logits[*b as usize]
            .total_cmp(&logits[*a as usize])
            .then(a.cmp(b))
    });
    Token {
        id,
        score: top.map(|top| Score {
            logprob: logprob(id),
            rank: 1 + best.iter().position(|other| *other == id).unwrap(),
            top: best[..top].iter().map(|id| (*id, logprob(*id))).collect(),
        }),
    }
}
