//! One answer in progress: its tokens, their keys and values, and what its client has seen.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use sterna_runtime::{
    Answer, Drafter, Guess, KvCache, Model, Pace, Sampler, Sampling, Screen, Speculation,
    StopReason, Tokenizer,
};

use super::compute::{Choice, Chosen};
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
    /// Tokens of the prompt that were scored or get no score, as the first one.
    pub scored: usize,
    /// When the last token was chosen.
    pub last_token: Option<Duration>,
    /// Guesses of the next tokens, which the next pass computes after the last token.
    pub drafts: Vec<u32>,
    /// Which logits the choices of the next tokens depend on: a screen for the last token and one
    /// for each guess; all without screens.
    pub screens: Option<Vec<Screen>>,
    /// How an answer goes on; none if the prompt is embedded.
    answer: Option<Continuation<'t>>,
}

struct Continuation<'t> {
    sampler: Sampler,
    /// What guesses next tokens; made with the first guess.
    speculation: Option<Speculation<'static>>,
    /// Tokens that were guessed and computed, and those of them that were right.
    drafted: (usize, usize),
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
        let scored_from = match &request.work {
            Work::Generate(generate) => generate.scored_from,
            Work::Embed => 1,
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
            scored: scored_from.max(1),
            last_token: None,
            drafts: Vec::new(),
            screens: None,
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
            drafts: Vec::new(),
            screens: None,
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

    /// First tokens whose keys and values may be those of others, instead of being computed.
    pub fn adoptable(&self) -> usize {
        match self.request.reads_cache {
            false => 0,
            // The logits of the token before one that is scored must be computed, and for the next
            // token to be known those of the last one.
            true if self.is_scoring() => self.scored - 1,
            true => self.tokens.len() - 1,
        }
    }

    /// While a prompt is scored, the tokens that are computed before the first one whose logits are
    /// needed.
    pub fn before_scores(&self) -> Option<usize> {
        let unscored = || self.scored - 1 - self.cache.len().min(self.scored - 1);
        self.is_scoring().then(unscored)
    }

    /// Tokens that are not computed, guesses aside.
    pub fn left(&self) -> usize {
        // While tokens are chosen, the cache can hold guesses too.
        self.tokens.len().saturating_sub(self.cache.len())
    }

    /// Tokens of the answer.
    pub fn generated(&self) -> usize {
        self.tokens.len() - self.request.prompt.len()
    }

    /// Guesses of the next tokens, the first of which is token `tokens.len()`, in a step of this
    /// number of answers.
    pub fn guess(
        &mut self,
        (pace, answers): (&Pace, usize),
        drafters: impl FnOnce(&Sequence) -> Vec<Box<dyn Drafter>>,
    ) -> Vec<Guess> {
        let max_tokens = self.generate().map_or(0, |generate| generate.max_tokens);
        // After the guesses one more token is chosen, which is not computed.
        let most = max_tokens.saturating_sub(self.generated() + 1);
        // Other answers to the prompt begin with the logits of its last token alone.
        if self.left() != 1 || self.is_scoring() || self.forks > 0 || most == 0 {
            return Vec::new();
        }
        let is_new = |answer: &Continuation| answer.speculation.is_none();
        let new = self
            .answer
            .as_ref()
            .is_some_and(is_new)
            .then(|| drafters(self));
        let answer = self.answer.as_mut().expect("only answers are guessed");
        if let Some(new) = new {
            answer.speculation = Some(Speculation::new(new));
        }
        let speculation = answer.speculation.as_mut().expect("it is made");
        speculation.guess(&self.tokens, &mut answer.sampler, most, (pace, answers))
    }

    /// Finds out which logits the choices of the next tokens depend on, if the guesses are right.
    /// Guesses that the constraint does not allow are taken out.
    ///
    /// # Errors
    /// Those of the constraint.
    pub fn look_ahead(&mut self) -> sterna_runtime::Result<()> {
        self.screens = match &mut self.answer {
            Some(answer) => answer.sampler.screens(&self.tokens, &mut self.drafts)?,
            None => None,
        };
        Ok(())
    }

    /// The error of a drafter, which the answer does without.
    pub fn take_draft_error(&mut self) -> Option<sterna_runtime::Error> {
        self.answer.as_mut()?.speculation.as_mut()?.take_error()
    }

    /// Gives up what its drafters hold in memory; they begin again when they are needed.
    pub fn drop_drafters(&mut self) {
        self.drafts.clear();
        if let Some(answer) = &mut self.answer {
            answer.speculation = None;
        }
    }

    /// Gives up the guesses of the next tokens.
    pub fn forget_guesses(&mut self) {
        if !self.drafts.is_empty() {
            self.drafts.clear();
            if let Some(screens) = &mut self.screens {
                screens.truncate(1);
            }
        }
    }

    /// The choice of the next tokens from the logits in `output`.
    pub fn next_choice(&mut self) -> Option<Choice<'_>> {
        let generate = match &self.request.work {
            Work::Generate(generate) => generate,
            Work::Embed => return None,
        };
        let answer = self.answer.as_mut()?;
        answer.drafted.0 += self.drafts.len();
        Some(Choice {
            sampler: &mut answer.sampler,
            tokens: &self.tokens,
            drafts: &self.drafts,
            logits: &mut self.output,
            is_wanted: generate.max_tokens > 0,
            logprobs: generate.logprobs,
            chosen: Vec::new(),
            error: None,
        })
    }

    /// Takes guesses that were not right out of the cache.
    pub fn settle(&mut self) {
        self.drafts.clear();
        // The last token of an answer is not computed.
        self.cache.truncate(self.tokens.len() - 1);
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
    pub fn push(&mut self, chosen: Chosen) -> Result<bool, Failure> {
        let token = chosen.token;
        let generated = self.generated() + 1;
        let most = self.generate().map_or(0, |generate| generate.max_tokens);
        let answer = self.answer.as_mut().expect("only answers get tokens");
        answer.drafted.1 += usize::from(chosen.is_guessed);
        let drafted = answer.drafted;
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
        let end = match chosen.is_complete {
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
                drafted_tokens: drafted.0,
                accepted_tokens: drafted.1,
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
            drafted_tokens: 0,
            accepted_tokens: 0,
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
            speculation: None,
            drafted: (0, 0),
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
