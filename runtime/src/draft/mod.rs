//! Guesses of the next tokens, so that one pass over the weights can give several.
//!
//! A [`Drafter`] proposes tokens. A pass computes them together with the last token; then each one
//! is chosen as it would be without guesses, from the same logits and with the same random number.
//! A guess that equals the choice is a token gained; from the first one that differs on, the rest
//! was computed in vain. So guesses change the speed of an answer and nothing else.
//!
//! Whether a guess is worth its computation depends on how probable it is and on what a further
//! token of a pass costs on this machine: [`Pace`] learns the cost and decides.

mod lookup;
mod model;
mod pace;

pub use lookup::Lookup;
pub use model::{ModelDrafter, check_tokens};
pub use pace::Pace;

use std::fmt::Debug;

use crate::{Error, Result, Sampler};

/// Most tokens that are guessed at a time.
pub const MOST: usize = 32;

/// A guess of a token.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Guess {
    /// The token.
    pub id: u32,
    /// How probable it is that this guess and all before it are right, 0 to 1.
    pub probability: f32,
}

/// Something that guesses how a text goes on.
pub trait Drafter: Debug + Send {
    /// Guesses of the tokens after `tokens`, at most `most`; empty where it has none. From call to
    /// call, `tokens` is a text that grows. `sampler` chooses the tokens of the answer.
    ///
    /// # Errors
    /// Those of a model that makes the guesses.
    fn propose(&mut self, tokens: &[u32], sampler: &Sampler, most: usize) -> Result<Vec<Guess>>;

    /// What a guess takes; `None` if it costs next to nothing.
    fn cost(&self) -> Option<Cost> {
        None
    }
}

/// What a guess takes before it is computed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Cost {
    /// Seconds.
    pub seconds: f64,
    /// How probable it is that the first guess will be right.
    pub probability: f32,
}

/// The drafters of one answer.
#[derive(Debug)]
pub struct Speculation<'a> {
    /// They are asked in this order, until one has a guess that is probable.
    drafters: Vec<Box<dyn Drafter + 'a>>,
    /// Tokens that a constraint forces are guesses, because other tokens can have the same text.
    forced: Record,
    /// Steps since a drafter was left out for its cost.
    unasked: usize,
    /// The error of a drafter, which then is asked no more.
    error: Option<Error>,
}

/// A first guess this probable ends the search for better ones.
const PROBABLE: f32 = 0.6;
/// Steps after which a drafter that did not pay is asked once more.
const AGAIN: usize = 64;

impl<'a> Speculation<'a> {
    /// Guesses of these drafters, and of constraints.
    pub fn new(drafters: Vec<Box<dyn Drafter + 'a>>) -> Speculation<'a> {
        Speculation {
            drafters,
            forced: Record::new(0.9),
            unasked: 0,
            error: None,
        }
    }

    /// The error of a drafter since the last call. The answer does without that drafter.
    pub fn take_error(&mut self) -> Option<Error> {
        self.error.take()
    }

    /// Guesses of the tokens after `tokens`, at most `most`, where passes compute `answers` tokens
    /// without guesses.
    pub fn guess(
        &mut self,
        tokens: &[u32],
        sampler: &mut Sampler,
        most: usize,
        (pace, answers): (&Pace, usize),
    ) -> Vec<Guess> {
        let most = most.min(MOST);
        if most == 0 || !sampler.can_look_ahead() {
            return Vec::new();
        }
        self.forced.learn(tokens);
        let mut forced = sampler.forced();
        forced.truncate(most);
        let mut best = self.forced.guess(tokens.len(), forced);
        let mut broken = None;
        for (index, drafter) in self.drafters.iter_mut().enumerate() {
            let first = best.first();
            if first.is_some_and(|guess| guess.probability >= PROBABLE) {
                break;
            }
            let mut most = most;
            if let Some(cost) = drafter.cost() {
                let powers = (1..=most as i32).map(|i| cost.probability.powi(i));
                let powers: Vec<f32> = powers.collect();
                self.unasked += 1;
                most = pace.choose(answers, &powers, cost.seconds);
                if most == 0 && self.unasked < AGAIN {
                    continue;
                }
                most = most.max(1);
                self.unasked = 0;
            }
            let mut guesses = match drafter.propose(tokens, sampler, most) {
                Ok(guesses) => guesses,
                Err(error) => {
                    broken = Some(index);
                    self.error = Some(error);
                    break;
                }
            };
            guesses.truncate(most);
            let tokens = |guesses: &[Guess]| guesses.iter().map(|g| g.probability).sum::<f32>();
            if tokens(&guesses) > tokens(&best) {
                best = guesses;
            }
        }
        if let Some(index) = broken {
            self.drafters.remove(index);
        }
        best
    }
}

/// The last guesses of a kind, and how often such guesses were right.
#[derive(Debug)]
struct Record {
    rate: Rate,
    /// Length of the text before the guesses.
    at: usize,
    guessed: Vec<u32>,
}

impl Record {
    /// Before the first guess, with an estimate of how often one is right.
    fn new(probability: f32) -> Record {
        Record {
            rate: Rate::new(probability, 4.0),
            at: 0,
            guessed: Vec::new(),
        }
    }

    /// Compares the last guesses with the tokens that came.
    fn learn(&mut self, tokens: &[u32]) {
        let came = tokens.get(self.at..).unwrap_or_default();
        for (guess, token) in self.guessed.iter().zip(came) {
            self.rate.learn(guess == token);
            if guess != token {
                break;
            }
        }
        self.guessed.clear();
    }

    /// Notes guesses of the tokens from `at` on.
    fn guess(&mut self, at: usize, ids: Vec<u32>) -> Vec<Guess> {
        let each = self.rate.probability();
        let guesses = ids.iter().zip(1..).map(|(id, i)| Guess {
            id: *id,
            probability: each.powi(i),
        });
        let guesses = guesses.collect();
        (self.at, self.guessed) = (at, ids);
        guesses
    }
}

/// How often guesses of a kind were right.
#[derive(Debug, Clone, Copy)]
struct Rate {
    right: f32,
    of: f32,
}

/// Guesses after which the older ones count half.
const MEMORY: f32 = 32.0;

impl Rate {
    /// A first estimate, which counts as much as `of` guesses.
    fn new(probability: f32, of: f32) -> Rate {
        let right = probability * of;
        Rate { right, of }
    }

    fn learn(&mut self, is_right: bool) {
        if self.of >= MEMORY {
            self.right /= 2.0;
            self.of /= 2.0;
        }
        self.right += f32::from(u8::from(is_right));
        self.of += 1.0;
    }

    fn probability(&self) -> f32 {
        self.right / self.of
    }
}
