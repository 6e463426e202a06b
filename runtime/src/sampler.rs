//! From logits to the next token: greedy, or drawn after the filters of `transformers`, in its
//! order.
//!
//! The tokens that a constraint forbids are left out first. Then come bias, repetition penalty,
//! frequency and presence penalty, then temperature, top-k, top-p, min-p.
//! The same logits and seed give the same token on every machine; between equal logits the lower id
//! wins. A token takes one random number, so the number of a token depends on its position alone.
//! A sampler that needs only the most probable tokens says so ([`Sampling::screen`]); the head is
//! then read only in part. The filters are written here, because their order and the treatment of
//! ties must be those of
//! `transformers` and must not change with the version of a crate.

use std::cmp::Ordering;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use sterna_ternary::random::unit;

use crate::constraint::{Allowed, Constraint};
use crate::kernels::exp;
use crate::{Error, Result, Screen};

/// How the next token is chosen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sampling {
    /// Divisor of the logits; 0 always takes the most probable token.
    pub temperature: f32,
    /// Keep only this many of the most probable tokens; 0 keeps all.
    pub top_k: usize,
    /// Keep only the most probable tokens whose probabilities reach this sum; 1 keeps all.
    pub top_p: f32,
    /// Keep only tokens at least this fraction as probable as the most probable one; 0 keeps all.
    pub min_p: f32,
    /// Penalty for tokens that already occurred: positive logits are divided by it, negative ones
    /// multiplied; 1 for none.
    pub repetition_penalty: f32,
    /// Subtracted from a logit for each time that the answer already has the token; 0 for none.
    pub frequency_penalty: f32,
    /// Subtracted once from the logits of tokens that the answer already has; 0 for none.
    pub presence_penalty: f32,
    /// Seed of the random numbers.
    pub seed: u64,
    /// Which of the independent streams of random numbers of the seed.
    pub stream: u64,
}

impl Default for Sampling {
    /// Greedy.
    fn default() -> Sampling {
        Sampling {
            temperature: 0.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            frequency_penalty: 0.0,
            presence_penalty: 0.0,
            seed: 0,
            stream: 0,
        }
    }
}

impl Sampling {
    /// The logits that the choice of the token after `tokens` depends on, where the answer is all
    /// of `tokens`; `None` if it depends on all.
    pub fn screen(&self, tokens: &[u32]) -> Option<Screen> {
        let is_penalized = self.repetition_penalty != 1.0 || self.penalizes_answer();
        let exact = if is_penalized { tokens } else { &[] };
        let screen = |top, within| {
            Some(Screen {
                top,
                within,
                exact: exact.to_vec(),
                among: None,
            })
        };
        if self.temperature == 0.0 {
            return screen(1, f32::INFINITY);
        }
        // top-p comes before min-p and needs the sum of the probabilities that top-k keeps. Alone,
        // min-p is a distance between logits; the slack covers the rounding of exp.
        let within = match (self.top_p < 1.0, self.min_p) {
            (true, _) | (_, 0.0) => f32::INFINITY,
            (false, min_p) => self.temperature * (1e-3 - 1.001 * min_p.ln()),
        };
        match self.top_k {
            0 if within == f32::INFINITY => None,
            top => screen(top, within),
        }
    }

    fn penalizes_answer(&self) -> bool {
        self.frequency_penalty != 0.0 || self.presence_penalty != 0.0
    }
}

/// Chooses tokens one after the other.
#[derive(Debug)]
pub struct Sampler {
    sampling: Sampling,
    /// What is added to logits of tokens, one number a token.
    bias: Vec<(u32, f32)>,
    /// Tokens before the answer.
    before: usize,
    random: ChaCha8Rng,
    candidates: Vec<Candidate>,
    /// The rule for the answer.
    rule: Option<Rule>,
}

/// A rule and the place in it.
#[derive(Debug)]
struct Rule {
    /// The rule at the beginning of the answer.
    begin: Box<dyn Constraint>,
    constraint: Box<dyn Constraint>,
    /// The tokens that it allows next.
    allowed: Allowed,
    /// The tokens that it allows after each of some drafts, the last one first.
    ahead: Vec<(u32, Allowed)>,
}

#[derive(Debug, Clone, Copy)]
struct Candidate {
    id: u32,
    /// Logit, then weight: the probability as a multiple of the most probable token's.
    value: f32,
}

/// First guess of the number of tokens in top-p.
const NUCLEUS: usize = 256;

impl Sampler {
    /// Creates a sampler at the start of its random numbers.
    ///
    /// # Errors
    /// [`Error::Sampling`]: a parameter out of range.
    pub fn new(sampling: Sampling) -> Result<Sampler> {
        let s = &sampling;
        let check = |name, expected, found: f32, ok: bool| match ok {
            true => Ok(()),
            false => Err(Error::Sampling {
                name,
                expected,
                found,
            }),
        };
        let positive = |x: f32| x > 0.0 && x.is_finite();
        check(
            "temperature",
            "a number from 0",
            s.temperature,
            s.temperature == 0.0 || positive(s.temperature),
        )?;
        check(
            "top_p",
            "above 0, at most 1",
            s.top_p,
            s.top_p > 0.0 && s.top_p <= 1.0,
        )?;
        check(
            "min_p",
            "from 0 to 1",
            s.min_p,
            (0.0..=1.0).contains(&s.min_p),
        )?;
        check(
            "repetition_penalty",
            "a number above 0",
            s.repetition_penalty,
            positive(s.repetition_penalty),
        )?;
        for (name, penalty) in [
            ("frequency_penalty", s.frequency_penalty),
            ("presence_penalty", s.presence_penalty),
        ] {
            let is_in_range = (-2.0..=2.0).contains(&penalty);
            check(name, "from -2 to 2", penalty, is_in_range)?;
        }
        let mut random = ChaCha8Rng::seed_from_u64(sampling.seed);
        random.set_stream(sampling.stream);
        Ok(Sampler {
            sampling,
            bias: Vec::new(),
            before: 0,
            random,
            candidates: Vec::new(),
            rule: None,
        })
    }

    /// Chooses only tokens that a constraint allows, of a vocabulary of this size.
    ///
    /// # Errors
    /// Those of [`Constraint::allow`].
    pub fn with_constraint(
        self,
        mut constraint: Box<dyn Constraint>,
        vocab_size: usize,
    ) -> Result<Sampler> {
        let mut allowed = Allowed::none(vocab_size);
        let begin = constraint.fork();
        allow(&mut *constraint, &mut allowed)?;
        let rule = Some(Rule {
            begin,
            constraint,
            allowed,
            ahead: Vec::new(),
        });
        Ok(Sampler { rule, ..self })
    }

    /// Whether a constraint allows nothing but the end of the answer.
    pub fn is_complete(&self) -> bool {
        let rule = self.rule.as_ref();
        rule.is_some_and(|rule| rule.constraint.is_complete())
    }

    /// A sampler that would choose the same tokens, if there were no constraint.
    pub fn without_constraint(&self) -> Sampler {
        Sampler {
            sampling: self.sampling,
            bias: self.bias.clone(),
            before: self.before,
            random: self.random.clone(),
            candidates: Vec::new(),
            rule: None,
        }
    }

    /// Whether [`Sampler::screens`] can follow drafts: not if a constraint cannot go back.
    pub fn can_look_ahead(&mut self) -> bool {
        let back = self.rule.as_mut().map(|rule| rule.constraint.rollback(0));
        back.is_none_or(|back| matches!(back, Ok(true)))
    }

    /// Tokens that are likely to come next, because a constraint leaves no other text.
    pub fn forced(&mut self) -> Vec<u32> {
        match &mut self.rule {
            // Where one text must come, few tokens can begin it.
            Some(rule) if rule.allowed.few().is_some() => rule.constraint.forced(),
            _ => Vec::new(),
        }
    }

    /// Adds these numbers to the logits of tokens before anything else; −∞ forbids a token. Each id
    /// may be there once.
    pub fn with_bias(self, bias: Vec<(u32, f32)>) -> Sampler {
        Sampler { bias, ..self }
    }

    /// The answer begins after this number of tokens. Frequency and presence count in the answer.
    pub fn with_answer_after(self, before: usize) -> Sampler {
        Sampler { before, ..self }
    }

    /// The parameters.
    pub fn sampling(&self) -> &Sampling {
        &self.sampling
    }

    /// The logits that the choice of the token after `tokens` depends on; `None` if it depends on
    /// all.
    pub fn screen(&self, tokens: &[u32]) -> Option<Screen> {
        self.screen_among(tokens, self.rule.as_ref().map(|rule| &rule.allowed))
    }

    /// The logits that the choices of the next tokens depend on, if the first of them are `drafts`:
    /// one screen for the token after `tokens`, and one for the token after each draft; `None` if
    /// any depends on all logits. Drafts that a constraint does not allow are taken out, with those
    /// after them.
    ///
    /// # Errors
    /// [`Error::Constraint`].
    pub fn screens(
        &mut self,
        tokens: &[u32],
        drafts: &mut Vec<u32>,
    ) -> Result<Option<Vec<Screen>>> {
        if let Some(rule) = &mut self.rule {
            rule.look_ahead(self.before, tokens, drafts)?;
        }
        let mut screens = vec![self.screen(tokens)];
        if drafts.is_empty() {
            return Ok(screens.into_iter().collect());
        }
        let mut tokens = tokens.to_vec();
        for (i, draft) in drafts.iter().enumerate() {
            tokens.push(*draft);
            let rule = self.rule.as_ref();
            let allowed = rule.map(|rule| &rule.ahead[drafts.len() - 1 - i].1);
            screens.push(self.screen_among(&tokens, allowed));
        }
        Ok(screens.into_iter().collect())
    }

    fn screen_among(&self, tokens: &[u32], allowed: Option<&Allowed>) -> Option<Screen> {
        if let Some(few) = allowed.and_then(Allowed::few) {
            return Some(Screen::only(few));
        }
        // The repetition penalty counts in all tokens, the others in the answer.
        let counted = match self.sampling.repetition_penalty {
            1.0 => self.answer(tokens),
            _ => tokens,
        };
        let mut screen = self.sampling.screen(counted)?;
        screen.exact.extend(self.bias.iter().map(|(id, _)| id));
        screen.among = allowed.cloned();
        Some(screen)
    }

    fn answer<'t>(&self, tokens: &'t [u32]) -> &'t [u32] {
        &tokens[self.before.min(tokens.len())..]
    }

    /// The next token after `tokens`, from the logits (vocab_size) of the last one, at least those
    /// that [`Sampler::screen`] asks for.
    ///
    /// # Errors
    /// [`Error::Constraint`].
    ///
    /// # Panics
    /// If `logits` is empty or has fewer elements than an id in `tokens` needs.
    pub fn sample(&mut self, logits: &mut [f32], tokens: &[u32]) -> Result<u32> {
        if let Some(rule) = &self.rule {
            rule.allowed.forbid_others(logits);
        }
        let id = self.choose(logits, tokens);
        if let Some(rule) = &mut self.rule {
            rule.accept(id)?;
        }
        Ok(id)
    }

    fn choose(&mut self, logits: &mut [f32], tokens: &[u32]) -> u32 {
        for (id, bias) in &self.bias {
            logits[*id as usize] += bias;
        }
        penalize(logits, tokens, self.sampling.repetition_penalty);
        if self.sampling.penalizes_answer() {
            penalize_answer(logits, self.answer(tokens), &self.sampling);
        }
        if self.sampling.temperature == 0.0 {
            return greedy(logits);
        }
        let temperature = self.sampling.temperature;
        let candidates = &mut self.candidates;
        candidates.clear();
        candidates.extend(logits.iter().zip(0..).map(|(logit, id)| Candidate {
            id,
            value: logit / temperature,
        }));
        if self.sampling.top_k > 0 {
            best(candidates, self.sampling.top_k);
            candidates.truncate(self.sampling.top_k);
        }
        if !weigh(candidates) {
            return greedy(logits);
        }
        if self.sampling.top_p < 1.0 {
            nucleus(candidates, self.sampling.top_p);
        }
        if self.sampling.min_p > 0.0 {
            candidates.retain(|c| c.value >= self.sampling.min_p);
        }
        // 53 random bits are a uniform number in 0..1.
        let uniform = unit(self.random.next_u64());
        draw(candidates, uniform)
    }
}

impl Rule {
    /// Goes on by a token, and finds out which ones may follow it.
    fn accept(&mut self, id: u32) -> Result<()> {
        self.constraint.accept(id)?;
        match self.ahead.pop() {
            Some((draft, allowed)) if draft == id => self.allowed = allowed,
            _ => {
                self.ahead.clear();
                if !self.constraint.is_complete() {
                    allow(&mut *self.constraint, &mut self.allowed)?;
                }
            }
        }
        Ok(())
    }

    /// Cuts `drafts` to the tokens that may follow, and finds out which ones may follow each. The
    /// answer begins after the first `before` of `tokens`.
    fn look_ahead(&mut self, before: usize, tokens: &[u32], drafts: &mut Vec<u32>) -> Result<()> {
        self.ahead.clear();
        if drafts.is_empty() || !self.constraint.rollback(0)? {
            drafts.clear();
            return Ok(());
        }
        let mut is_broken = false;
        for id in drafts.iter() {
            let allowed = self.ahead.last().map_or(&self.allowed, |ahead| &ahead.1);
            if self.constraint.is_complete() || !allowed.contains(*id) {
                break;
            }
            let mut next = self.allowed.clone();
            next.clear();
            let followed = match self.constraint.accept(*id) {
                Ok(()) if self.constraint.is_complete() => Ok(()),
                Ok(()) => allow(&mut *self.constraint, &mut next),
                Err(error) => Err(error),
            };
            if followed.is_err() {
                is_broken = true;
                break;
            }
            self.ahead.push((*id, next));
        }
        if is_broken || self.constraint.rollback(self.ahead.len()).is_err() {
            // Only a draft leads to where the rule cannot be followed; the answer may go elsewhere.
            self.constraint = self.begin.fork();
            let answer = tokens.iter().skip(before);
            answer
                .into_iter()
                .try_for_each(|id| self.constraint.accept(*id))?;
            allow(&mut *self.constraint, &mut self.allowed)?;
            self.ahead.clear();
        }
        drafts.truncate(self.ahead.len());
        self.ahead.reverse();
        Ok(())
    }
}

/// Sets `allowed` to the tokens that a constraint allows.
fn allow(constraint: &mut dyn Constraint, allowed: &mut Allowed) -> Result<()> {
    allowed.clear();
    constraint.allow(allowed)?;
    match allowed.count() {
        0 => Err(Error::Constraint(
            "it allows no token of the vocabulary".into(),
        )),
        _ => Ok(()),
    }
}

/// The id of the largest logit, the lowest among equals.
///
/// # Panics
/// If `logits` is empty.
pub fn greedy(logits: &[f32]) -> u32 {
    let best = logits
        .iter()
        .zip(0..)
        .reduce(|best, x| if x.0 > best.0 { x } else { best });
    best.expect("a vocabulary has tokens").1
}

/// ln Σ exp(x), summed in f64 in the order of x; −∞ counts as a probability of zero.
///
/// The log-probability of token `i` is `logits[i]` less this, in nats.
pub fn log_sum_exp(logits: &[f32]) -> f64 {
    let max = f64::from(logits.iter().copied().fold(f32::NEG_INFINITY, f32::max));
    let sum: f64 = logits.iter().map(|x| (f64::from(*x) - max).exp()).sum();
    max + sum.ln()
}

fn penalize(logits: &mut [f32], tokens: &[u32], penalty: f32) {
    if penalty == 1.0 {
        return;
    }
    let mut seen = tokens.to_vec();
    seen.sort_unstable();
    seen.dedup();
    for id in seen {
        let logit = &mut logits[id as usize];
        *logit = if *logit > 0.0 {
            *logit / penalty
        } else {
            *logit * penalty
        };
    }
}

/// OpenAI's penalties: `frequency_penalty` · (times in the answer) + `presence_penalty`.
fn penalize_answer(logits: &mut [f32], answer: &[u32], sampling: &Sampling) {
    let mut seen = answer.to_vec();
    seen.sort_unstable();
    for same in seen.chunk_by(|a, b| a == b) {
        let penalty = sampling.frequency_penalty * same.len() as f32;
        logits[same[0] as usize] -= penalty + sampling.presence_penalty;
    }
}

fn order(a: &Candidate, b: &Candidate) -> Ordering {
    b.value.total_cmp(&a.value).then(a.id.cmp(&b.id))
}

/// Moves the `k` best candidates to the front, in order.
fn best(candidates: &mut [Candidate], k: usize) {
    let k = k.min(candidates.len());
    if k < candidates.len() {
        candidates.select_nth_unstable_by(k, order);
    }
    candidates[..k].sort_unstable_by(order);
}

/// Turns logits into weights. Returns false where the largest one is not finite, as after a
/// division by a very small temperature or penalty: then no weight is a number.
fn weigh(candidates: &mut [Candidate]) -> bool {
    let max = candidates
        .iter()
        .fold(f32::NEG_INFINITY, |max, c| c.value.max(max));
    for c in candidates.iter_mut() {
        c.value = exp(c.value - max);
    }
    max.is_finite()
}

/// Keeps the fewest most probable candidates whose probabilities reach `top_p`.
fn nucleus(candidates: &mut Vec<Candidate>, top_p: f32) {
    let total: f64 = candidates.iter().map(|c| f64::from(c.value)).sum();
    let enough = f64::from(top_p) * total;
    let mut sorted = NUCLEUS;
    loop {
        best(candidates, sorted);
        let mut sum = 0.0;
        let reached = candidates.iter().take(sorted).position(|c| {
            sum += f64::from(c.value);
            sum >= enough
        });
        match reached {
            Some(last) => return candidates.truncate(last + 1),
            None if sorted >= candidates.len() => return,
            None => sorted *= 8,
        }
    }
}

/// The candidate at `uniform` (0..1) of the total probability.
fn draw(candidates: &[Candidate], uniform: f64) -> u32 {
    let total: f64 = candidates.iter().map(|c| f64::from(c.value)).sum();
    let mut left = uniform * total;
    for c in candidates {
        left -= f64::from(c.value);
        if left < 0.0 {
            return c.id;
        }
    }
    let last = candidates.iter().rfind(|c| c.value > 0.0);
    last.expect("the most probable candidate is never filtered out")
        .id
}

#[cfg(test)]
mod tests;
