//! Guesses of a small model with the same tokens.

use std::fmt::Debug;
use std::ops::Deref;
use std::time::Instant;

use super::{Cost, Drafter, Guess, Record};
use crate::{Error, KvCache, Logits, Model, Result, Sampler, Tokenizer};

/// Most tokens that the model computes in one call, so that a long prompt delays no answer.
const PIECE: usize = 256;
/// Weight of a new measurement.
const NEW: f64 = 0.25;

/// Guesses what a small model would answer. It draws with the random numbers of the answer, so that
/// the same draws fall on the same tokens where the two models agree.
#[derive(Debug)]
pub struct ModelDrafter<M> {
    model: M,
    cache: KvCache,
    record: Record,
    /// Seconds of a guess.
    seconds: f64,
}

/// Checks that a model of these tokens can guess for another one.
///
/// # Errors
/// [`Error::Draft`]: the vocabularies differ.
pub fn check_tokens(tokenizer: &Tokenizer, draft: &Tokenizer, sizes: [usize; 2]) -> Result<()> {
    let [size, draft_size] = sizes;
    let differs = |why: String| Err(Error::Draft(why));
    if size != draft_size {
        return differs(format!(
            "its vocabulary has {draft_size} tokens, the model's has {size}"
        ));
    }
    match (0..size as u32).find(|id| tokenizer.token(*id) != draft.token(*id)) {
        Some(id) => differs(format!("its token {id} is another one than the model's")),
        None => Ok(()),
    }
}

impl<M: Deref<Target = Model>> ModelDrafter<M> {
    /// A drafter for texts of at most `capacity` tokens; beyond the model's own context it has no
    /// guesses.
    ///
    /// # Errors
    /// Those of [`Model::new_cache`].
    pub fn new(model: M, capacity: usize) -> Result<ModelDrafter<M>> {
        let most = model.config().max_position_embeddings;
        Ok(ModelDrafter {
            cache: model.new_cache(capacity.min(most))?,
            model,
            record: Record::new(0.6),
            seconds: 0.0,
        })
    }
}

impl<M: Deref<Target = Model> + Debug + Send> Drafter for ModelDrafter<M> {
    fn propose(&mut self, tokens: &[u32], sampler: &Sampler, most: usize) -> Result<Vec<Guess>> {
        self.record.learn(tokens);
        self.cache.keep_prefix(tokens);
        let room = self.cache.capacity().saturating_sub(tokens.len());
        if room == 0 {
            return Ok(Vec::new());
        }
        if tokens.len() - self.cache.len() > PIECE {
            let piece = &tokens[self.cache.len()..][..PIECE];
            self.model.forward(&mut self.cache, piece, Logits::None)?;
            return Ok(Vec::new());
        }
        let mut sampler = sampler.without_constraint();
        let mut text = tokens.to_vec();
        for _ in 0..most.min(room) {
            let start = Instant::now();
            let mut drafts = Vec::new();
            let screens = sampler.screens(&text, &mut drafts)?;
            let wanted = screens.as_deref().map_or(Logits::Last, Logits::Screened);
            let new = &text[self.cache.len()..];
            let is_first = new.len() > 1;
            let mut logits = self.model.forward(&mut self.cache, new, wanted)?;
            let id = sampler.sample(&mut logits, &text)?;
            text.push(id);
            if !is_first {
                let took = start.elapsed().as_secs_f64();
                self.seconds += NEW * (took - self.seconds);
            }
        }
        Ok(self
            .record
            .guess(tokens.len(), text.split_off(tokens.len())))
    }

    fn cost(&self) -> Option<Cost> {
        Some(Cost {
            seconds: self.seconds,
            probability: self.record.rate.probability(),
        })
    }
}
