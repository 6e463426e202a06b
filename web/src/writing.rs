//! An answer in progress, one token a step. Tokens and texts are those of the server for the same
//! request: both have the runtime's sampler and its [`Answer`].

use serde_json::{Value, json};
use sterna_runtime::{Answer, KvCache, Logits, Sampler, Score, StopReason};

use crate::Result;
use crate::opened::Opened;
use crate::request::Request;

/// Tokens of a prompt that one step computes, so that a long prompt can be stopped.
const PROMPT_STEP: usize = 64;

/// An answer in progress.
pub struct Writing {
    opened: &'static Opened,
    sampler: Sampler,
    answer: Answer<'static>,
    /// The prompt, then the answer.
    tokens: Vec<u32>,
    prompt_tokens: usize,
    cached_tokens: usize,
    max_tokens: usize,
    seed: i64,
    /// Tokens that are listed beside each one, if scores are wanted.
    top: Option<usize>,
    /// Tokens that are not shown yet, with their scores and the bytes of text before each.
    unsent: Vec<(usize, u32, Option<Score>)>,
    is_ended: bool,
}

impl Writing {
    /// Prepares an answer. `cache` keeps what the prompt shares with the last one.
    pub fn new(opened: &'static Opened, cache: &mut KvCache, request: &Request) -> Result<Writing> {
        let prompt = request.prompt(opened)?;
        let (prompt_tokens, tokens) = (prompt.tokens.len(), prompt.tokens);
        let sampler = Sampler::new(request.sampling(&opened.sampling))?;
        let mut answer = Answer::new(&opened.tokenizer, request.stop.clone())?;
        if prompt.is_continued {
            answer = answer.after(&tokens)?;
        }
        // The last token of an answer is not computed, so it needs no room.
        let room = opened.context + 1 - prompt_tokens;
        Ok(Writing {
            opened,
            sampler: sampler.with_answer_after(prompt_tokens),
            answer,
            cached_tokens: cache.keep_prefix(&tokens),
            tokens,
            prompt_tokens,
            max_tokens: request.max_tokens.unwrap_or(room).clamp(1, room),
            seed: request.seed,
            top: request.top_logprobs,
            unsent: Vec::new(),
            is_ended: false,
        })
    }

    /// Whether the answer is complete.
    pub fn is_ended(&self) -> bool {
        self.is_ended
    }

    /// Computes a part of the prompt, or the next token. Returns an event in the form of the
    /// server's streams.
    pub fn step(&mut self, cache: &mut KvCache) -> Result<Value> {
        let left = self.tokens.len() - cache.len();
        if left > PROMPT_STEP {
            let ids = &self.tokens[cache.len()..][..PROMPT_STEP];
            self.opened.model.forward(cache, ids, Logits::None)?;
            let progress = json!({"computed": cache.len(), "of": self.tokens.len()});
            return Ok(json!({"prompt": progress}));
        }
        // Scores are sums over all logits; choices alone often need a few.
        let screen = match self.top {
            Some(_) => None,
            None => self.sampler.screen(&self.tokens),
        };
        let wanted = screen.as_ref().map_or(Logits::Last, |screen| {
            Logits::Screened(std::slice::from_ref(screen))
        });
        let ids = &self.tokens[cache.len()..];
        let mut logits = self.opened.model.forward(cache, ids, wanted)?;
        // Scores are those before penalties and filters, which change the logits.
        let before = self.top.map(|_| logits.clone());
        let id = self.sampler.sample(&mut logits, &self.tokens)?;
        let score = before.map(|logits| Score::of(&logits, id, self.top.unwrap_or(0)));
        self.push(id, score)
    }

    /// Adds a token and says what can be shown.
    fn push(&mut self, id: u32, score: Option<Score>) -> Result<Value> {
        self.tokens.push(id);
        let generated = self.tokens.len() - self.prompt_tokens;
        let before = self.answer.decoded();
        let mut text = self.answer.push(id)?;
        // A token that ends an answer has no text.
        if !self.answer.ended_by_token() {
            self.unsent.push((before, id, score));
        }
        let end = (generated == self.max_tokens).then_some(StopReason::Length);
        if self.answer.stop().is_none() && end.is_some() {
            text += &self.answer.end()?;
        }
        let reason = self.answer.stop().or(end);
        self.is_ended = reason.is_some();
        let finish = reason.map(|reason| match reason {
            StopReason::Eos | StopReason::StopText => "stop",
            StopReason::Length => "length",
        });
        let tokens = self.sendable();
        let scores: Vec<Value> = tokens
            .iter()
            .filter_map(|token| self.scored(token))
            .collect();
        let usage = self.is_ended.then(|| {
            json!({
                "prompt_tokens": self.prompt_tokens,
                "completion_tokens": generated,
                "total_tokens": self.prompt_tokens + generated,
                "prompt_tokens_details": {"cached_tokens": self.cached_tokens},
            })
        });
        Ok(json!({
            "choices": [{
                "delta": {"content": text},
                "logprobs": self.top.map(|_| json!({"content": scores})),
                "finish_reason": finish,
            }],
            "tokens": tokens.iter().map(|(_, id, _)| id).collect::<Vec<_>>(),
            "usage": usage,
            "sterna": {"seed": self.seed},
        }))
    }

    /// The tokens whose text is shown. At the end these are all, but for those of a stop text.
    fn sendable(&mut self) -> Vec<(usize, u32, Option<Score>)> {
        let (shown, decoded) = (self.answer.shown(), self.answer.decoded());
        let is_all = self.is_ended && shown == decoded;
        let is_shown = |(at, _, _): &&(usize, u32, Option<Score>)| is_all || *at < shown;
        let count = self.unsent.iter().take_while(is_shown).count();
        self.unsent.drain(..count).collect()
    }

    /// A token as chat completions list it.
    fn scored(&self, (_, id, score): &(usize, u32, Option<Score>)) -> Option<Value> {
        let entry = |id: u32, logprob: f64| {
            let bytes = self.opened.tokenizer.bytes(id);
            json!({
                "token": String::from_utf8_lossy(bytes),
                "bytes": bytes,
                // JSON has no infinities.
                "logprob": logprob.max(-9999.0),
            })
        };
        let score = score.as_ref()?;
        let mut token = entry(*id, score.logprob);
        let top = score.top.iter().map(|(id, logprob)| entry(*id, *logprob));
        token["top_logprobs"] = top.collect();
        Some(token)
    }
}
