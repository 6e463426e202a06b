//! The scheduler: which tokens of which requests are computed next.
//!
//! One thread repeats a step: it takes the next token of every answer and as many tokens of prompts
//! as fit into the time of a step, computes all of them in one pass over the weights, chooses
//! tokens and tells the clients. The bits of an answer depend on its request alone, because those
//! of [`sterna_runtime::Model::forward_many`] do: neither on other requests, nor on how a prompt is
//! cut, nor on what a cache held.
//!
//! A request waits in the queue until fewer than [`Limits::parallel`] answers run and its pages
//! fit. Its cache then begins with what the prefix tree or a running sequence has of its tokens.
//! When a step needs more pages than there are, the tree gives up its oldest; when that is not
//! enough, the youngest sequence goes back to the queue with its tokens and is computed again
//! later. The oldest one is never sent back, so every request ends.

mod compute;
mod drafters;
mod handle;
mod limits;
mod load;
mod plan;
mod request;
mod sequence;
mod speed;
mod tree;

use std::sync::Arc;
use std::time::Duration;

use sterna_runtime::{Guess, KvPage, Model, Pace, Tokenizer};

pub use handle::Handle;
pub use limits::{BadLimits, Guesses, Limits};
pub use load::{Full, Load, Waiting};
pub use request::{End, Event, Failure, Generate, Reader, Request, Sink, Token, Work};
pub use sterna_runtime::Score;

use crate::metrics::Metrics;
use plan::View;
use sequence::{Client, Sequence};
use speed::Speed;
use tree::{Tree, common};

/// A clock. Answers do not depend on it.
pub trait Clock {
    /// Time since some moment.
    fn now(&self) -> Duration;
}

/// The state of the scheduler.
pub struct Engine<'t> {
    model: &'t Model,
    tokenizer: &'t Tokenizer,
    clock: &'t dyn Clock,
    limits: Limits,
    load: Arc<Load>,
    metrics: Arc<Metrics>,
    speed: Speed,
    pace: Pace,
    /// A small model that guesses tokens.
    draft: Option<Arc<Model>>,
    tree: Tree,
    /// Sequences that wait, in the order of their requests.
    queue: Vec<Sequence<'t>>,
    /// Sequences that are computed, in the order of their requests.
    running: Vec<Sequence<'t>>,
    /// Tokens that each key has had, divided by its weight.
    served: Vec<f64>,
    requests: u64,
    steps: u64,
    /// Whether a client got its first token.
    first_sent: bool,
}

/// Fewest tokens that a prompt gets in a step, beside answers.
const LEAST: usize = 4;
/// Fewest tokens that a prompt gets in a step without answers: enough for each to cost little.
const ALONE: usize = 64;
/// Most prompts that make a step longer.
const CROWD: usize = 8;
/// Most tokens of prompts in a step.
const MOST: usize = 256;
/// Most tokens of a prompt in a step that all get logits: these are large.
const SCORED: usize = 64;
/// Fewest tokens for which a sequence waits until another one has computed them.
const WORTH: usize = 16;
/// Longest time that a client may not read.
const SLOW: Duration = Duration::from_secs(60);

impl<'t> Engine<'t> {
    /// An engine without requests. `load` has the bounds of the same `limits`.
    pub fn new(
        model: &'t Model,
        tokenizer: &'t Tokenizer,
        clock: &'t dyn Clock,
        limits: Limits,
        load: Arc<Load>,
        metrics: Arc<Metrics>,
    ) -> Engine<'t> {
        Engine {
            model,
            tokenizer,
            clock,
            served: vec![0.0; limits.weights.len()],
            load,
            metrics,
            speed: Speed::new(),
            pace: match limits.guesses {
                Guesses::All => Pace::eager(),
                Guesses::No | Guesses::Worth => Pace::new(),
            },
            draft: None,
            limits,
            tree: Tree::new(),
            queue: Vec::new(),
            running: Vec::new(),
            requests: 0,
            steps: 0,
            first_sent: false,
        }
    }

    /// Lets a small model of the same tokens guess what answers are.
    #[must_use]
    pub fn with_draft(self, draft: Option<Arc<Model>>) -> Engine<'t> {
        Engine { draft, ..self }
    }

    /// Whether nothing waits or runs.
    pub fn is_idle(&self) -> bool {
        self.queue.is_empty() && self.running.is_empty()
    }

    /// Takes a request that [`Load::enter`] let in.
    pub fn submit(&mut self, request: Request, sink: Box<dyn Sink>) {
        let client = Client::new(sink);
        let key = request.key;
        self.requests += 1;
        let arrival = (self.requests, self.clock.now());
        let places = request.clone();
        let pages = request.positions().div_ceil(KvPage::TOKENS) + 1;
        let sequence = match pages > self.limits.pages {
            true => Err(Failure::Refused(format!(
                "prompt and answer need {pages} pages of keys and values, there are {}; ask for \
                 fewer tokens",
                self.limits.pages
            ))),
            false => Sequence::new(self.model, self.tokenizer, request, client.clone(), arrival),
        };
        match sequence {
            Ok(sequence) => {
                self.wake(key);
                self.queue.push(sequence);
            }
            Err(failure) => {
                self.load.leave(&places);
                self.metrics.failed.add(1);
                client.send(Event::Failed(failure));
            }
        }
    }

    /// A key that had nothing to do gets no more than the others for it.
    fn wake(&mut self, key: usize) {
        let keys = || {
            self.queue
                .iter()
                .chain(&self.running)
                .map(|s| s.request.key)
        };
        if keys().any(|busy| busy == key) {
            return;
        }
        let least = keys().map(|busy| self.served[busy]).reduce(f64::min);
        self.served[key] = self.served[key].max(least.unwrap_or(0.0));
    }

    /// Computes the next tokens. Returns whether there were any: there are none while clients do
    /// not read.
    pub fn step(&mut self) -> bool {
        self.steps += 1;
        self.drop_gone();
        self.admit();
        let mut tokens = self.plan();
        let failed = self.speculate(&mut tokens);
        let start = self.clock.now();
        self.make_room(&mut tokens);
        let drafts: usize = self.running.iter().map(|s| s.drafts.len()).sum();
        let answers = tokens.iter().filter(|tokens| **tokens == 1).count() + drafts;
        let prompts: usize = tokens.iter().filter(|tokens| **tokens > 1).sum();
        let is_computed = answers + prompts > 0;
        if is_computed {
            self.compute(&tokens);
            self.hold_back();
            let took = self.clock.now().saturating_sub(start);
            self.speed.learn(answers, prompts, took);
            if prompts == 0 {
                self.pace.learn(answers, took.as_secs_f64());
            }
            self.metrics.steps.add(1);
            self.metrics.step.observe(took);
        }
        for (order, failure) in failed {
            self.fail(|s| (s.order == order).then(|| failure.clone()));
        }
        self.metrics.pages.set(self.model.pages());
        self.metrics.tree_pages.set(self.tree.len());
        let prompt_token = self.speed.prompt_token();
        self.load.beat(self.running.len(), prompt_token);
        is_computed
    }

    /// Says whether the engine has nothing to do.
    pub(crate) fn rest(&self, is_idle: bool) {
        self.load.rest(is_idle);
    }

    /// Whether a client got its first token since this was asked.
    pub(crate) fn take_first_sent(&mut self) -> bool {
        std::mem::take(&mut self.first_sent)
    }

    /// Fails every request.
    pub fn fail_all(&mut self, failure: &Failure) {
        self.fail(|_| Some(failure.clone()));
    }

    /// Drops sequences whose client is gone, and those that took too long.
    fn drop_gone(&mut self) {
        let now = self.clock.now();
        for sequence in &mut self.running {
            sequence.parked = match sequence.client.reader() {
                Reader::Slow => Some(sequence.parked.unwrap_or(now)),
                _ => None,
            };
        }
        let mut gone: Vec<u64> = self
            .queue
            .iter()
            .chain(&self.running)
            .filter(|s| s.client.reader() == Reader::Gone)
            .map(|s| s.order)
            .collect();
        gone.sort_unstable();
        gone.dedup();
        for order in gone {
            self.metrics.cancelled.add(1);
            self.remove(order);
        }
        let (queue, whole) = (self.limits.queue_timeout, self.limits.timeout);
        self.fail(|s| {
            let waited = now.saturating_sub(s.since);
            let is_slow = |since: Duration| now.saturating_sub(since) > SLOW;
            if !s.is_begun && waited > queue {
                Some(Failure::QueueTimeout(queue.as_secs()))
            } else if waited > whole {
                Some(Failure::Timeout(whole.as_secs()))
            } else if s.parked.is_some_and(is_slow) {
                Some(Failure::SlowReader(SLOW.as_secs()))
            } else {
                None
            }
        });
    }

    /// Fails the requests of the sequences for which there is a failure.
    fn fail(&mut self, failure: impl Fn(&Sequence) -> Option<Failure>) {
        let all = self.queue.iter().chain(&self.running);
        let failed = all.filter_map(|s| Some((s.order, s.client.clone(), failure(s)?)));
        let mut failed: Vec<(u64, Client, Failure)> = failed.collect();
        failed.sort_by_key(|(order, ..)| *order);
        failed.dedup_by_key(|(order, ..)| *order);
        for (order, client, failure) in failed {
            if self.remove(order) {
                self.metrics.failed.add(1);
                client.send(Event::Failed(failure));
            }
        }
    }

    /// Removes all sequences of a request. Returns whether there were any.
    fn remove(&mut self, order: u64) -> bool {
        let waiting = self.queue.iter().find(|s| s.order == order && !s.is_begun);
        if let Some(sequence) = waiting {
            self.load.leave(&sequence.request);
        }
        let before = self.queue.len() + self.running.len();
        self.queue.retain(|s| s.order != order);
        let (gone, running) = std::mem::take(&mut self.running)
            .into_iter()
            .partition(|s| s.order == order);
        self.running = running;
        let gone: Vec<Sequence> = gone;
        gone.iter().for_each(|s| self.tree.insert(&s.cache));
        before > self.queue.len() + self.running.len()
    }

    /// Begins sequences of the queue while there is room for them.
    fn admit(&mut self) {
        while let Some(index) = self.next_waiting() {
            let running: usize = self.running.iter().map(Sequence::places).sum();
            let is_full = running + self.queue[index].places() > self.limits.parallel;
            if is_full && !self.running.is_empty() {
                match self.yield_place(self.queue[index].request.key) {
                    true => continue,
                    false => return,
                }
            }
            // What running sequences have not taken yet is not free; what only the tree has is.
            let promised: usize = self.running.iter().map(missing_pages).sum();
            let pages = self.model.pages() + promised + sequence_pages(&self.queue[index]);
            let most = self.limits.pages;
            let fits = || pages <= most || pages <= most + self.tree.evictable();
            if !self.running.is_empty() && !fits() {
                return;
            }
            let mut sequence = self.queue.remove(index);
            if !sequence.is_begun {
                sequence.is_begun = true;
                self.load.leave(&sequence.request);
                let waited = self.clock.now().saturating_sub(sequence.since);
                self.metrics.queue.observe(waited);
            }
            self.insert_running(sequence);
        }
    }

    /// The sequence of the queue that comes next: the oldest one of a key without running ones, or
    /// of the key that was served least.
    fn next_waiting(&self) -> Option<usize> {
        let rank = |index: &usize| {
            let key = self.queue[*index].request.key;
            (self.running_of(key) > 0, self.served[key], *index)
        };
        (0..self.queue.len()).min_by(|a, b| {
            let (a, b) = (rank(a), rank(b));
            (a.0.cmp(&b.0))
                .then(a.1.total_cmp(&b.1))
                .then(a.2.cmp(&b.2))
        })
    }

    fn running_of(&self, key: usize) -> usize {
        self.running.iter().filter(|s| s.request.key == key).count()
    }

    /// Sends a sequence back to the queue for a key that has none running, if another key has
    /// several. Returns whether one was sent.
    fn yield_place(&mut self, key: usize) -> bool {
        let most = (0..self.served.len()).max_by_key(|key| self.running_of(*key));
        match most {
            Some(most) if self.running_of(key) == 0 && self.running_of(most) > 1 => {
                let youngest = self.running.iter().rposition(|s| s.request.key == most);
                self.preempt(youngest.expect("the key has sequences"));
                true
            }
            _ => false,
        }
    }

    /// Sends answers back to the queue that are more than may run. A request for more answers than
    /// that is begun when nothing else runs, and has all of them once its prompt is computed.
    fn hold_back(&mut self) {
        while self.running.len() > self.limits.parallel {
            self.send_back(self.running.len() - 1);
        }
    }

    /// Takes the place of a sequence for others.
    fn preempt(&mut self, index: usize) {
        self.send_back(index);
        self.metrics.preemptions.add(1);
    }

    /// Sends a sequence back to the queue. The tree keeps its pages as long as there is room.
    fn send_back(&mut self, index: usize) {
        let mut sequence = self.running.remove(index);
        self.tree.insert(&sequence.cache);
        sequence.cache.clear();
        sequence.cache.shrink();
        sequence.drop_drafters();
        let at = self.queue.partition_point(|s| s.order < sequence.order);
        self.queue.insert(at, sequence);
    }

    fn insert_running(&mut self, sequence: Sequence<'t>) {
        let key = (sequence.order, sequence.choice);
        let at = self.running.partition_point(|s| (s.order, s.choice) < key);
        self.running.insert(at, sequence);
    }

    /// Tokens of each running sequence in the next step.
    fn plan(&mut self) -> Vec<usize> {
        let views: Vec<View> = (0..self.running.len()).map(|i| self.view(i)).collect();
        let answers = views.iter().filter(|v| v.left == 1 && !v.is_parked).count();
        let prompts = views.iter().filter(|v| v.left > 1 && !v.is_parked).count();
        let step = self.limits.step.unwrap_or_else(|| self.speed.step());
        // Without answers nobody waits for a next token, so a step may be twice as long. The more
        // clients wait for a first token, the longer answers may pause for them.
        let (step, least) = match answers {
            0 => (step * 2, ALONE),
            _ => (step * prompts.clamp(1, CROWD) as u32, LEAST),
        };
        let room = self.speed.room(step, answers).min(MOST);
        let tokens = plan::plan(&views, room, least, &self.served, self.steps);
        // A sequence that begins looks once more for tokens that others have computed meanwhile.
        for (index, n) in tokens.iter().enumerate() {
            if *n > 0 && self.running[index].left() > 1 {
                self.adopt(index);
            }
        }
        let sequences = self.running.iter();
        tokens
            .into_iter()
            .zip(sequences.map(|sequence| sequence.left().min(most(sequence))))
            .map(|(n, most)| n.min(most))
            .collect()
    }

    fn view(&self, index: usize) -> View {
        let sequence = &self.running[index];
        let is_behind = |earlier: &Sequence| {
            if earlier.left() == 1 || earlier.parked.is_some() {
                return false;
            }
            let common = common(&sequence.tokens, &earlier.tokens).min(sequence.adoptable());
            common >= sequence.cache.len() + WORTH && earlier.cache.len() < common
        };
        View {
            left: sequence.left(),
            key: sequence.request.key,
            waits_for: match sequence.left() {
                1 => None,
                _ => self.running[..index].iter().position(is_behind),
            },
            most: most(sequence),
            is_parked: sequence.parked.is_some(),
        }
    }

    /// Gives a sequence the keys and values of its first tokens, if the tree or another sequence
    /// has more of them than its own cache.
    fn adopt(&mut self, index: usize) {
        let sequence = &self.running[index];
        let (tokens, most) = (&sequence.tokens, sequence.adoptable());
        if most <= sequence.cache.len() {
            return;
        }
        let others = self.running.iter().enumerate().filter(|(i, _)| *i != index);
        let shared = others.map(|(_, s)| (common(tokens, s.cache.tokens()).min(most), &s.cache));
        let mut best = self.tree.find(tokens, most);
        if let Some((len, cache)) = shared
            .max_by_key(|(len, _)| *len)
            .filter(|s| s.0 > best.len)
        {
            let pages = (0..len.div_ceil(KvPage::TOKENS)).map(|page| cache.page(page));
            best = tree::Prefix {
                len,
                pages: pages
                    .map(|page| page.expect("its tokens are there"))
                    .collect(),
            };
        }
        let sequence = &mut self.running[index];
        let before = sequence.cache.len();
        if best.len > before {
            sequence.cache.clear();
            sequence
                .cache
                .fill(&sequence.tokens[..best.len], &best.pages);
            let of_prompt = |len: usize| len.min(sequence.request.prompt.len());
            let more = of_prompt(best.len) - of_prompt(before);
            if sequence.generated() == 0 {
                sequence.cached += more;
                self.metrics.cached_tokens.add(more);
            }
        }
    }

    /// Guesses tokens of the sequences that get their next one: as many as make the step faster for
    /// each token that it gives. Sequences that fail get no tokens; returns why.
    fn speculate(&mut self, tokens: &mut [usize]) -> Vec<(u64, Failure)> {
        let answers = tokens.iter().filter(|tokens| **tokens == 1).count();
        // Guesses with their probabilities and the sequences that they are for.
        let mut guesses: Vec<(Guess, usize)> = Vec::new();
        let (tree, draft) = (&self.tree, self.draft.as_ref());
        for (index, sequence) in self.running.iter_mut().enumerate() {
            sequence.drafts.clear();
            if self.limits.guesses == Guesses::No || tokens[index] != 1 {
                continue;
            }
            // The draft model has as many pages for keys and values as the model.
            let has_room = |sequence: &Sequence, draft: &Model| {
                let needed = sequence.cache.capacity().div_ceil(KvPage::TOKENS);
                draft.pages() + needed <= self.limits.pages
            };
            let drafters = |sequence: &Sequence| {
                let draft = draft.filter(|draft| has_room(sequence, draft));
                drafters::of(sequence, tree, draft)
            };
            let of_sequence = sequence.guess((&self.pace, answers), drafters);
            guesses.extend(of_sequence.into_iter().map(|guess| (guess, index)));
            if sequence.take_draft_error().is_some() {
                self.metrics.draft_errors.add(1);
            }
        }
        // Guesses of a sequence stay in order: an earlier one is at least as probable.
        guesses.sort_by(|a, b| b.0.probability.total_cmp(&a.0.probability));
        let probabilities: Vec<f32> = guesses.iter().map(|guess| guess.0.probability).collect();
        let worth = self.pace.choose(answers, &probabilities, 0.0);
        for (guess, index) in guesses.into_iter().take(worth) {
            self.running[index].drafts.push(guess.id);
        }
        let mut failed = Vec::new();
        for (sequence, tokens) in self.running.iter_mut().zip(tokens) {
            let is_next = *tokens > 0 && *tokens == sequence.left();
            if is_next && let Err(error) = sequence.look_ahead() {
                failed.push((sequence.order, Failure::Constraint(error.to_string())));
                sequence.drafts.clear();
                *tokens = 0;
            }
        }
        failed
    }

    /// Makes room for the pages that these tokens need. Sequences that go back to the queue are
    /// taken out of `tokens`.
    fn make_room(&mut self, tokens: &mut Vec<usize>) {
        loop {
            let pairs = self.running.iter().zip(&*tokens);
            let new = pairs.map(|(s, n)| s.cache.new_pages(n + s.drafts.len()));
            if self.model.pages() + new.sum::<usize>() <= self.limits.pages {
                return;
            }
            if self.running.iter().any(|s| !s.drafts.is_empty()) {
                self.running.iter_mut().for_each(Sequence::forget_guesses);
            } else if self.tree.evict() {
                self.metrics.evictions.add(1);
            } else if self.running.len() > 1 {
                let youngest = self.running.len() - 1;
                self.preempt(youngest);
                tokens.pop();
            } else {
                // The pages of one sequence fit, by the check of requests.
                return;
            }
        }
    }
}

/// Most tokens of a prompt that a step computes.
fn most(sequence: &Sequence) -> usize {
    match sequence.before_scores() {
        Some(0) => SCORED,
        Some(tokens) => tokens.min(MOST),
        None => MOST,
    }
}

/// Pages that a running sequence will take for its tokens.
fn missing_pages(sequence: &Sequence) -> usize {
    let held = sequence.cache.len().div_ceil(KvPage::TOKENS);
    sequence_pages(sequence).saturating_sub(held)
}

/// Pages that a sequence needs for its tokens and the next one, and a copy of a shared page.
fn sequence_pages(sequence: &Sequence) -> usize {
    (sequence.tokens.len() + 1).div_ceil(KvPage::TOKENS) + 1
}
