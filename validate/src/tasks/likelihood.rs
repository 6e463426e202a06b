//! How likely continuations of texts are, with the tokens that lm-evaluation-harness would score.
//!
//! Spaces at the end of a context are moved to its continuation; both are encoded together, and the
//! continuation is what follows as many tokens as the context alone has. What does not fit into the
//! context length is cut off on the left. Log-likelihoods are sums in float64 of log-softmax.
//!
//! The requests of an item mostly begin with the same tokens. These are computed once and kept in a
//! [`KvCache`], also from one item to the next. Several items go through the model together, each
//! with a cache of its own; since logits do not depend on the batch composition, neither do
//! results.

use sterna_runtime::sampler::log_sum_exp;
use sterna_runtime::{KvCache, Logits, Model, Part, Tokenizer};

use super::error::{Error, Result};
use super::sample::{Request, is_space};

/// Scores requests with a model.
pub(super) struct Scorer<'a> {
    model: &'a Model,
    tokenizer: &'a Tokenizer,
    bos: Bos,
    max_length: usize,
    /// One for each item of a batch.
    caches: Vec<KvCache>,
}

/// The log-likelihood of a continuation, and whether greedy decoding would write it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Likelihood {
    pub(super) log: f64,
    pub(super) is_greedy: bool,
}

/// The token that begins texts.
struct Bos {
    /// Its id; that of the end of texts where a model has no other.
    id: Option<u32>,
    /// As a context that begins with it writes it.
    text: Option<String>,
}

impl Bos {
    fn of(model: &Model, tokenizer: &Tokenizer) -> Self {
        let settings = model.file().file("tokenizer_config.json");
        let settings = settings.and_then(|bytes| serde_json::from_slice(bytes).ok());
        let settings: serde_json::Value = settings.unwrap_or_default();
        let named = |key: &str| {
            let token = &settings[key];
            let token = token.as_str().or_else(|| token["content"].as_str())?;
            tokenizer.token_to_id(token)
        };
        let config = model.config();
        let bos = named("bos_token").or(config.bos_token_id);
        let id = bos
            .or_else(|| named("eos_token"))
            .or(config.eos_token_id.first().copied());
        Self {
            id,
            text: id.and_then(|id| Some(tokenizer.token(id)?.0)),
        }
    }
}

/// Tokens of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Tokens {
    /// What the model is given: all tokens but the last.
    input: Vec<u32>,
    /// The tokens of the continuation, which the last places of the input predict.
    scored: Vec<u32>,
}

impl<'a> Scorer<'a> {
    /// A scorer of `batch` items at a time. `max_length` is a context shorter than the model's.
    pub(super) fn new(
        model: &'a Model,
        tokenizer: &'a Tokenizer,
        batch: usize,
        max_length: Option<usize>,
    ) -> Result<Self> {
        let longest = model.config().max_position_embeddings;
        let max_length = max_length.unwrap_or(longest).clamp(1, longest);
        let cache = |_| Ok(model.new_cache(max_length)?);
        Ok(Self {
            model,
            tokenizer,
            bos: Bos::of(model, tokenizer),
            max_length,
            caches: (0..batch.max(1)).map(cache).collect::<Result<_>>()?,
        })
    }

    /// Items of a batch.
    pub(super) fn batch(&self) -> usize {
        self.caches.len()
    }

    /// Most tokens of a context and its continuation together.
    pub(super) fn max_length(&self) -> usize {
        self.max_length
    }

    /// The cache that a single sequence may use.
    pub(super) fn cache(&mut self) -> &mut KvCache {
        &mut self.caches[0]
    }

    /// The tokens of a text with those that the tokenizer puts around it, unless it begins with one
    /// already.
    pub(super) fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let begins = self
            .bos
            .text
            .as_ref()
            .is_some_and(|bos| text.starts_with(bos));
        Ok(self.tokenizer.encode(text, !begins)?)
    }

    fn tokens(&self, request: &Request) -> Result<Tokens> {
        let (context, scored) = self.pair(&request.context, &request.continuation)?;
        if context.is_empty() {
            return Err(Error::NoBos);
        }
        if scored.is_empty() || scored.len() > self.max_length {
            return Err(Error::Continuation {
                text: request.continuation.clone(),
                tokens: scored.len(),
                most: self.max_length,
            });
        }
        let mut input = [context, scored.clone()].concat();
        input.drain(..input.len().saturating_sub(self.max_length + 1));
        input.pop();
        Ok(Tokens { input, scored })
    }

    fn pair(&self, context: &str, continuation: &str) -> Result<(Vec<u32>, Vec<u32>)> {
        if context.is_empty() {
            let bos = self.bos.id.ok_or(Error::NoBos)?;
            let scored = self.tokenizer.encode(continuation, false)?;
            return Ok(match scored.first() == Some(&bos) {
                true => (vec![bos], scored[1..].to_vec()),
                false => (vec![bos], scored),
            });
        }
        let kept = context.trim_end_matches(is_space);
        let whole = self.encode(&format!("{context}{continuation}"))?;
        let before = self.encode(kept)?.len().min(whole.len());
        Ok((whole[..before].to_vec(), whole[before..].to_vec()))
    }

    /// Scores the requests of items, at most as many as a batch has: (items, requests).
    pub(super) fn score(&mut self, items: &[&[Request]]) -> Result<Vec<Vec<Likelihood>>> {
        let tokens = |item: &&[Request]| item.iter().map(|request| self.tokens(request)).collect();
        let items: Vec<Vec<Tokens>> = items.iter().map(tokens).collect::<Result<_>>()?;
        let mut results: Vec<Vec<Option<Likelihood>>> =
            items.iter().map(|item| vec![None; item.len()]).collect();
        loop {
            // The first open request of each item; requests with the same input are answered with
            // it.
            let open = |row: &Vec<Option<Likelihood>>| row.iter().position(Option::is_none);
            let round: Vec<(usize, usize)> = results
                .iter()
                .enumerate()
                .filter_map(|(item, row)| Some((item, open(row)?)))
                .collect();
            if round.is_empty() {
                let known = |row: Vec<Option<Likelihood>>| row.into_iter().flatten().collect();
                return Ok(results.into_iter().map(known).collect());
            }
            let logits = self.pass(&items, &round)?;
            for ((item, request), logits) in round.into_iter().zip(logits) {
                let input = &items[item][request].input;
                for (tokens, result) in items[item].iter().zip(&mut results[item]) {
                    // The longest continuation of an input may not be the one that was computed.
                    if tokens.input == *input && tokens.scored.len() <= logits.rows() {
                        *result = Some(logits.likelihood(&tokens.scored));
                    }
                }
            }
        }
    }

    /// Computes one request of each item of a round: the logits of its continuation.
    fn pass(&mut self, items: &[Vec<Tokens>], round: &[(usize, usize)]) -> Result<Vec<LogitRows>> {
        let vocab_size = self.model.config().vocab_size;
        let mut first = Vec::new();
        let mut scored = Vec::new();
        let requests = |(item, request): &(usize, usize)| &items[*item][*request];
        let in_round = |slot: usize| round.iter().position(|(item, _)| *item == slot);
        let caches = self.caches.iter_mut().enumerate();
        let caches = caches.filter_map(|(slot, cache)| Some((cache, in_round(slot)?)));
        let mut kept: Vec<&mut KvCache> = Vec::new();
        for (cache, place) in caches {
            let tokens = requests(&round[place]);
            let start = tokens.input.len() - tokens.scored.len();
            let known = cache.keep_prefix(&tokens.input[..start + 1]);
            first.push(&tokens.input[known..start]);
            scored.push(&tokens.input[start..]);
            kept.push(cache);
        }
        forward(self.model, &mut kept, &first, Logits::None)?;
        let logits = forward(self.model, &mut kept, &scored, Logits::All)?;
        let mut rest = logits.as_slice();
        let rows = |ids: &&[u32]| {
            let (rows, after) = rest.split_at(ids.len() * vocab_size);
            rest = after;
            LogitRows {
                logits: rows.to_vec(),
                vocab_size,
            }
        };
        Ok(scored.iter().map(rows).collect())
    }
}

/// Computes tokens of several sequences, some of which may have none.
fn forward<'a, 'b>(
    model: &Model,
    caches: &'b mut [&'a mut KvCache],
    ids: &'b [&'b [u32]],
    logits: Logits<'b>,
) -> Result<Vec<f32>> {
    let parts = caches
        .iter_mut()
        .zip(ids)
        .filter(|(_, ids)| !ids.is_empty());
    let part = |(cache, ids): (&'b mut &'a mut KvCache, &'b &'b [u32])| Part { cache, ids, logits };
    let mut parts: Vec<Part<'_>> = parts.map(part).collect();
    match parts.is_empty() {
        true => Ok(Vec::new()),
        false => Ok(model.forward_many(&mut parts)?),
    }
}

/// Logits of consecutive places, (places, vocab_size).
struct LogitRows {
    logits: Vec<f32>,
    vocab_size: usize,
}

impl LogitRows {
    fn rows(&self) -> usize {
        self.logits.len() / self.vocab_size
    }

    /// The likelihood of the tokens that the last places predict.
    fn likelihood(&self, tokens: &[u32]) -> Likelihood {
        let rows = self.logits.chunks_exact(self.vocab_size);
        let rows = rows.skip(self.rows() - tokens.len());
        let mut sum = Likelihood {
            log: 0.0,
            is_greedy: true,
        };
        for (row, token) in rows.zip(tokens) {
            sum.log += f64::from(row[*token as usize]) - log_sum_exp(row);
            let best = (0..row.len())
                .rev()
                .max_by(|a, b| row[*a].total_cmp(&row[*b]));
            sum.is_greedy &= best == Some(*token as usize);
        }
        sum
    }
}
