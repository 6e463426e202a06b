//! One pass over the weights for the tokens of a plan, and what follows from its results.

use sterna_runtime::embed::normalize;
use sterna_runtime::sampler::log_sum_exp;
use sterna_runtime::{Error, Logits, Part, Sampler, Screen};

use super::Engine;
use super::request::{Event, Failure, Score, Token, Work};
use super::sequence::Sequence;

/// What a sequence needs of a pass.
enum Wanted {
    /// Its tokens are the beginning of a longer prompt.
    Nothing,
    /// Logits (vocab_size) of the last token; with a screen, those that it asks for.
    Next(Option<Screen>),
    /// Logits of every token, (tokens, vocab_size).
    Scores,
    /// The hidden state (hidden_size) of the last token.
    Vector,
}

impl<'t> Engine<'t> {
    /// Computes this number of tokens of each running sequence, in one pass, and a second one for
    /// hidden states if any are wanted. Then chooses tokens and tells the clients.
    pub(super) fn compute(&mut self, tokens: &[usize]) {
        let pairs = self.running.iter_mut().zip(tokens);
        let wanted: Vec<Wanted> = pairs.map(|(sequence, n)| sequence.wanted(*n)).collect();
        let (mut logits, mut hidden) = (Vec::new(), Vec::new());
        for (index, (sequence, wanted)) in self.running.iter_mut().zip(&wanted).enumerate() {
            let from = sequence.cache.len();
            let part = Part {
                ids: &sequence.tokens[from..from + tokens[index]],
                cache: &mut sequence.cache,
                logits: wanted.logits(),
            };
            match wanted {
                _ if part.ids.is_empty() => {}
                Wanted::Vector => hidden.push((index, part)),
                _ => logits.push((index, part)),
            }
        }
        let mut results = pass(logits, |parts| self.model.forward_many(parts));
        results.extend(pass(hidden, |parts| self.model.hidden_many(parts)));
        self.count(tokens);

        let (mut failed, mut ends, mut forks) = (Vec::new(), Vec::new(), Vec::new());
        for (index, result) in results {
            match result {
                Ok(output) => self.running[index].output = output,
                Err(error) => failed.push((index, error.to_string())),
            }
            match wanted[index] {
                Wanted::Scores => self.score_prompt(index),
                Wanted::Vector => ends.extend(self.embedded(index)),
                _ => {}
            }
            forks.extend(self.forks(index));
        }
        // Only now, because the indices are those of the plan.
        let order = |index: usize| self.running[index].order;
        let failed: Vec<(u64, String)> = failed.into_iter().map(|(i, e)| (order(i), e)).collect();
        forks.into_iter().for_each(|fork| self.insert_running(fork));
        for (order, error) in failed {
            self.fail(|s| (s.order == order).then(|| Failure::Numeric(error.clone())));
        }
        self.choose(&mut ends);
        self.finish(&ends);
    }

    /// Adds what was computed to the counts.
    fn count(&mut self, tokens: &[usize]) {
        for (sequence, n) in self.running.iter().zip(tokens) {
            let key = sequence.request.key;
            self.served[key] += *n as f64 / self.limits.weights[key];
            if sequence.generated() == 0 {
                self.metrics.prompt_tokens.add(*n);
            }
        }
    }

    /// The further answers to a prompt that is computed; they begin with its logits.
    fn forks(&mut self, index: usize) -> Vec<Sequence<'t>> {
        let (model, tokenizer) = (self.model, self.tokenizer);
        let sequence = &mut self.running[index];
        if sequence.forks == 0 || sequence.left() > 0 || sequence.output.is_empty() {
            return Vec::new();
        }
        let choices = 1..=std::mem::take(&mut sequence.forks);
        choices
            .map(|choice| sequence.fork(model, tokenizer, choice))
            .collect()
    }

    /// Chooses the next token of every sequence that has logits. Adds those that end to `ends`.
    fn choose(&mut self, ends: &mut Vec<(u64, usize)>) {
        let with_logits = |s: &&mut Sequence| !s.output.is_empty() && s.left() == 0;
        let ready = self.running.iter_mut().filter(with_logits);
        let mut choices: Vec<Choice> = ready.filter_map(Sequence::next_choice).collect();
        // Filters sort, and scores sum over the vocabulary: that is work for all threads.
        let pool = self.model.pool();
        pool.chunks_mut(&mut choices, 1, |_, choice| choice[0].choose());
        let tokens: Vec<_> = choices.into_iter().map(|choice| choice.token).collect();

        let now = self.clock.now();
        let mut failed = Vec::new();
        let ready = self.running.iter_mut().filter(with_logits);
        for (sequence, token) in ready.zip(tokens) {
            sequence.output.clear();
            let end = (sequence.order, sequence.choice);
            let token = match token {
                None => {
                    sequence.end_empty();
                    ends.push(end);
                    continue;
                }
                Some(Ok(token)) => token,
                Some(Err(error)) => {
                    failed.push((sequence.order, Failure::Constraint(error.to_string())));
                    continue;
                }
            };
            match sequence.last_token.replace(now) {
                Some(last) => self.metrics.next_token.observe(now.saturating_sub(last)),
                None => self
                    .metrics
                    .first_token
                    .observe(now.saturating_sub(sequence.since)),
            }
            self.metrics.generated_tokens.add(1);
            match sequence.push(token) {
                Ok(true) => ends.push(end),
                Ok(false) => {}
                Err(failure) => failed.push((sequence.order, failure)),
            }
        }
        for (order, failure) in failed {
            self.fail(|s| (s.order == order).then(|| failure.clone()));
        }
        // Logits of the beginning of a prompt that was scored.
        self.running.iter_mut().for_each(|s| s.output.clear());
    }

    /// Sends the scores of tokens of a prompt, from the logits (tokens, vocab_size) of the last
    /// tokens in the cache. The last row stays, for the next token.
    fn score_prompt(&mut self, index: usize) {
        let vocab_size = self.model.config().vocab_size;
        let sequence = &mut self.running[index];
        let (rows, prompt) = (&sequence.output, &sequence.request.prompt);
        let first = sequence.cache.len() - rows.len() / vocab_size;
        let top = sequence.generate().and_then(|g| g.prompt_logprobs);
        // Row i predicts token i + 1. Some were scored before the sequence was sent back.
        let from = sequence.scored.max(first + 1);
        let to = prompt.len().min(sequence.cache.len() + 1);
        let mut tokens: Vec<Token> = (from..to.max(from))
            .map(|at| Token {
                id: prompt[at],
                score: None,
            })
            .collect();
        self.model.pool().chunks_mut(&mut tokens, 1, |i, token| {
            let row = &rows[(from + i - 1 - first) * vocab_size..][..vocab_size];
            token[0].score = Some(score(row, token[0].id, top.unwrap_or(0)));
        });
        sequence.scored += tokens.len();
        if !tokens.is_empty() {
            sequence.client.send(Event::Prompt(tokens));
        }
        let last = sequence.output.len().saturating_sub(vocab_size);
        sequence.output.drain(..last);
    }

    /// Sends the vector of a prompt, if it could be computed.
    fn embedded(&mut self, index: usize) -> Option<(u64, usize)> {
        let sequence = &mut self.running[index];
        let mut vector = std::mem::take(&mut sequence.output);
        if vector.is_empty() {
            return None;
        }
        normalize(&mut vector);
        sequence.client.send(Event::Embedding {
            vector,
            cached_tokens: sequence.cached,
        });
        Some((sequence.order, sequence.choice))
    }

    /// Removes sequences that have ended; the tree keeps their pages.
    fn finish(&mut self, ends: &[(u64, usize)]) {
        let is_end = |s: &Sequence| ends.contains(&(s.order, s.choice));
        let now = self.clock.now();
        for sequence in self.running.extract_if(.., |s| is_end(s)) {
            self.tree.insert(&sequence.cache);
            self.metrics.finished.add(1);
            let took = now.saturating_sub(sequence.since);
            self.metrics.request.observe(took);
        }
    }
}

impl Sequence<'_> {
    /// What is needed when the next `n` tokens are computed.
    fn wanted(&mut self, n: usize) -> Wanted {
        let reaches_end = n > 0 && n == self.left();
        if self.is_scoring() && n > 0 {
            return Wanted::Scores;
        }
        match &self.request.work {
            _ if !reaches_end => Wanted::Nothing,
            Work::Embed => Wanted::Vector,
            // Scores are sums over all logits.
            Work::Generate(generate) if generate.logprobs.is_some() => Wanted::Next(None),
            Work::Generate(_) => Wanted::Next(self.screen()),
        }
    }
}

impl Wanted {
    fn logits(&self) -> Logits<'_> {
        match self {
            Wanted::Nothing => Logits::None,
            Wanted::Next(Some(screen)) => Logits::Screened(screen),
            Wanted::Next(None) | Wanted::Vector => Logits::Last,
            Wanted::Scores => Logits::All,
        }
    }
}

/// Runs a pass over the parts of sequences, given by their indices, and divides its result. If it
/// fails, each part is computed alone, so that only the guilty ones fail: the bits are the same.
fn pass(
    parts: Vec<(usize, Part)>,
    compute: impl Fn(&mut [Part]) -> Result<Vec<f32>, Error>,
) -> Vec<(usize, Result<Vec<f32>, Error>)> {
    let (indices, mut parts): (Vec<usize>, Vec<Part>) = parts.into_iter().unzip();
    if parts.is_empty() {
        return Vec::new();
    }
    let rows: Vec<usize> = parts
        .iter()
        .map(|part| part.logits.count(part.ids.len()))
        .collect();
    let results: Vec<Result<Vec<f32>, Error>> = match compute(&mut parts) {
        Ok(values) => {
            let width = values.len() / rows.iter().sum::<usize>().max(1);
            let mut values = &values[..];
            let mut next = |rows: &usize| values.split_off(..rows * width).map(<[f32]>::to_vec);
            rows.iter()
                .map(|rows| Ok(next(rows).expect("every row is there")))
                .collect()
        }
        Err(_) => parts
            .iter_mut()
            .map(|part| compute(std::slice::from_mut(part)))
            .collect(),
    };
    indices.into_iter().zip(results).collect()
}

/// The choice of a next token, as work for any thread.
pub(super) struct Choice<'a> {
    pub sampler: &'a mut Sampler,
    pub tokens: &'a [u32],
    /// (vocab_size)
    pub logits: &'a mut [f32],
    /// Whether a token is wanted, or only its prompt was.
    pub is_wanted: bool,
    pub logprobs: Option<usize>,
    /// What was chosen.
    pub token: Option<Result<Token, Error>>,
}

impl Choice<'_> {
    fn choose(&mut self) {
        if !self.is_wanted {
            return;
        }
        // Scores are those before penalties and filters.
        let before = self.logprobs.map(|_| self.logits.to_vec());
        let top = self.logprobs.unwrap_or(0);
        let id = self.sampler.sample(self.logits, self.tokens);
        self.token = Some(id.map(|id| Token {
            id,
            score: before.map(|logits| score(&logits, id, top)),
        }));
    }
}

/// How probable a token is, beside the `top` most probable ones.
fn score(logits: &[f32], id: u32, top: usize) -> Score {
    let sum = log_sum_exp(logits);
    let logprob = |id: u32| f64::from(logits[id as usize]) - sum;
    let order = |a: &u32, b: &u32| {
        let (x, y) = (logits[*a as usize], logits[*b as usize]);
        y.total_cmp(&x).then(a.cmp(b))
    };
    let mut best: Vec<u32> = Vec::new();
    if top > 0 {
        best.extend(0..logits.len() as u32);
        let top = top.min(best.len());
        if top < best.len() {
            best.select_nth_unstable_by(top, order);
        }
        best.truncate(top);
        best.sort_unstable_by(order);
    }
    let is_better = |other: &u32| order(other, &id).is_lt();
    Score {
        logprob: logprob(id),
        rank: 1 + (0..logits.len() as u32).filter(is_better).count(),
        top: best.into_iter().map(|id| (id, logprob(id))).collect(),
    }
}
