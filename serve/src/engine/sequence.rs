//! One answer in progress: its tokens, their keys and values, and what its client has seen.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use sterna_runtime::{Answer, KvCache, Model, Sampler, Sampling, Screen, StopReason, Tokenizer};

use super::compute::Choice;
use super::request::{End, Event, Failure, Generate, Reader, Request, Sink, Token, Work};

/// The client of a request; all answers of a request have one.
#[derive(Clone)]
pub struct Client(Rc<RefCell<Box<dyn Sink>>>);

impl Client {
    /// A client that hears through this sink.
    pub fn new(sink: Box<dyn Sink>) -> Client {
        Client(Rc::new(RefCell::new(sink)))
    }

    /// Tells the client something.
    pub fn send(&self, event: Event) {
        self.0.borrow_mut().send(event);
    }

    /// Whether the client reads.
    pub fn reader(&self) -> Reader {
        self.0.borrow().reader()
    }
}

/// One answer, or a prompt that is scored or embedded.
pub struct Sequence<'t> {
    /// What was asked.
    pub request: Rc<Request>,
    /// Who asked.
    pub client: Client,
    /// Which answer of the request.
    pub choice: usize,
    /// Counts requests; a lower number came earlier.
    pub order: u64,
    /// When the request came.
    pub since: Duration,
    /// Since when the client does not read.
    pub parked: Option<Duration>,
    /// The prompt, then the answer.
    pub tokens: Vec<u32>,
    /// Keys and values of the first tokens.
    pub cache: KvCache,
    /// What the last pass computed for it: logits (tokens, vocab_size) or a hidden state.
    pub output: Vec<f32>,
    /// Other answers that begin when the prompt is computed.
    pub forks: usize,
    /// Tokens of the prompt that did not have to be computed.
    pub cached: usize,
    /// Whether the first step was taken.
    pub is_begun: bool,
    /// Tokens of the prompt that were scored, the first one included, which has no score.
    pub scored: usize,
    /// When the last token was chosen.
    pub last_token: Option<Duration>,
    /// How an answer goes on; none if the prompt is embedded.
    answer: Option<Continuation<'t>>,
}

struct Continuation<'t> {
    sampler: Sampler,
    text: Answer<'t>,
    /// Tokens that were not sent, with the length of the text before each of them.
    unsent: Vec<(usize, Token)>,
}

impl<'t> Sequence<'t> {
    /// The first answer of a request. Its cache is empty.
    ///
    /// # Errors
    /// Settings that the runtime refuses.
    pub fn new(
        model: &Model,
        tokenizer: &'t Tokenizer,
        request: Request,
        client: Client,
        (order, since): (u64, Duration),
    ) -> Result<Sequence<'t>, Failure> {
        let refused = |error: sterna_runtime::Error| Failure::Refused(error.to_string());
        let answer = match &request.work {
            Work::Generate(generate) => {
                let answer = Continuation::new(model, tokenizer, generate, &request.prompt, 0);
                Some(answer.map_err(refused)?)
            }
            Work::Embed => None,
        };
        Ok(Sequence {
            cache: model.new_cache(request.positions()).map_err(refused)?,
            output: Vec::new(),
            forks: request.choices() - 1,
            tokens: request.prompt.clone(),
            request: Rc::new(request),
            client,
            choice: 0,
            order,
            since,
            parked: None,
            cached: 0,
            is_begun: false,
            scored: 1,
            last_token: None,
            answer,
        })
    }

    /// Another answer to the same prompt, which is computed.
    pub fn fork(&self, model: &Model, tokenizer: &'t Tokenizer, choice: usize) -> Sequence<'t> {
        let prompt = &self.request.prompt;
        let answer = self.generate().map(|generate| {
            Continuation::new(model, tokenizer, generate, prompt, choice)
                .expect("the settings of the first answer were fine")
        });
        Sequence {
            request: Rc::clone(&self.request),
            client: self.client.clone(),
            choice,
            forks: 0,
            tokens: self.tokens.clone(),
            cache: self.cache.clone(),
            output: self.output.clone(),
            answer,
            ..*self
        }
    }

    /// What is generated; `None` if the prompt is embedded.
    pub fn generate(&self) -> Option<&Generate> {
        match &self.request.work {
            Work::Generate(generate) => Some(generate),
            Work::Embed => None,
        }
    }

    /// Answers that run or will run.
    pub fn places(&self) -> usize {
        1 + self.forks
    }

    /// Whether keys and values of others may take the place of computing tokens.
    pub fn can_adopt(&self) -> bool {
        self.request.reads_cache && !self.is_scoring()
    }

    /// Tokens that are not computed.
    pub fn left(&self) -> usize {
        self.tokens.len() - self.cache.len()
    }

    /// Tokens of the answer.
    pub fn generated(&self) -> usize {
        self.tokens.len() - self.request.prompt.len()
    }

    /// The logits that the next token depends on; `None` for all.
    pub fn screen(&self) -> Option<Screen> {
        self.answer.as_ref()?.sampler.screen(&self.tokens)
    }

    /// The choice of the next token from the logits in `output`.
    pub fn next_choice(&mut self) -> Option<Choice<'_>> {
        let generate = match &self.request.work {
            Work::Generate(generate) => generate,
            Work::Embed => return None,
        };
        Some(Choice {
            sampler: &mut self.answer.as_mut()?.sampler,
            tokens: &self.tokens,
            logits: &mut self.output,
            is_wanted: generate.max_tokens > 0,
            logprobs: generate.logprobs,
            token: None,
        })
    }

    /// Whether tokens of the prompt have no scores yet that were asked for.
    pub fn is_scoring(&self) -> bool {
        let is_wanted = self.generate().is_some_and(|g| g.prompt_logprobs.is_some());
        is_wanted && self.scored < self.request.prompt.len()
    }

    /// Adds a token and tells the client. Returns whether the answer is complete.
    ///
    /// # Errors
    /// The tokenizer cannot decode it.
    pub fn push(&mut self, token: Token) -> Result<bool, Failure> {
        let generated = self.generated() + 1;
        let most = self.generate().map_or(0, |generate| generate.max_tokens);
        let answer = self.answer.as_mut().expect("only answers get tokens");
        self.tokens.push(token.id);
        let failed = |error: sterna_runtime::Error| Failure::Decoding(error.to_string());
        let before = answer.text.decoded();
        let mut text = answer.text.push(token.id).map_err(failed)?;
        // A token that ends an answer has no text, and the text before it is complete.
        let ends = answer.text.ended_by_token();
        let mut last = None;
        match ends {
            true => last = Some(token),
            false => answer.unsent.push((before, token)),
        }
        // Nothing can follow what a constraint calls complete.
        let end = match answer.sampler.is_complete() {
            true => Some(StopReason::Eos),
            false => (generated == most).then_some(StopReason::Length),
        };
        if answer.text.stop().is_none() && end.is_some() {
            text += &answer.text.end().map_err(failed)?;
        }
        let reason = answer.text.stop().or(end);
        let stop_text = answer.text.stop_text().map(str::to_owned);
        let tokens = answer.sendable(reason);
        if !text.is_empty() || !tokens.is_empty() {
            let choice = self.choice;
            self.client.send(Event::Piece {
                choice,
                text,
                tokens,
            });
        }
        if let Some(reason) = reason {
            self.client.send(Event::End(End {
                choice: self.choice,
                reason,
                stop_text,
                last,
                cached_tokens: self.cached,
                generated_tokens: generated,
            }));
        }
        Ok(reason.is_some())
    }

    /// Ends an answer without tokens.
    pub fn end_empty(&self) {
        self.client.send(Event::End(End {
            choice: self.choice,
            reason: StopReason::Length,
            stop_text: None,
            last: None,
            cached_tokens: self.cached,
            generated_tokens: 0,
        }));
    }
}

impl<'t> Continuation<'t> {
    fn new(
        model: &Model,
        tokenizer: &'t Tokenizer,
        generate: &Generate,
        prompt: &[u32],
        choice: usize,
    ) -> sterna_runtime::Result<Continuation<'t>> {
        let sampling = Sampling {
            stream: choice as u64,
            ..generate.sampling
        };
        let mut sampler = Sampler::new(sampling)?
            .with_bias(generate.bias.clone())
            .with_answer_after(prompt.len());
        if let Some(constraint) = &generate.constraint {
            sampler = sampler.with_constraint(constraint.fork(), model.config().vocab_size)?;
        }
        let mut text = Answer::new(tokenizer, generate.stop.clone())?;
        text = text.with_stop_tokens(&generate.stop_tokens);
        if generate.keeps_stop {
            text = text.with_stop_kept();
        }
        if generate.continues_text {
            text = text.after(prompt)?;
        }
        if generate.ignores_eos {
            text = text.without_eos();
        }
        Ok(Continuation {
            sampler,
            text,
            unsent: Vec::new(),
        })
    }

    /// The tokens whose text is shown. At the end these are all, but for those of a stop text.
    fn sendable(&mut self, reason: Option<StopReason>) -> Vec<Token> {
        let (shown, decoded) = (self.text.shown(), self.text.decoded());
        let is_all = reason.is_some() && shown == decoded;
        let count = self.unsent.iter();
        let count = count.take_while(|(at, _)| is_all || *at < shown).count();
        self.unsent.drain(..count).map(|(_, token)| token).collect()
    }
}
