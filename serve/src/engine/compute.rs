//! One pass over the weights for the tokens of a plan, and what follows from its results.

use sterna_runtime::embed::normalize;
use sterna_runtime::{Error, Logits, Model, Part, Sampler, Score, Screen};

use super::Engine;
use super::request::{Event, Failure, Token, Work};
use super::sequence::Sequence;

/// What a sequence needs of a pass.
enum Wanted {
    /// Its tokens are the beginning of a longer prompt.
    Nothing,
    /// Logits (1 + drafts, vocab_size) of the last token and of each draft; with screens, those
    /// that they ask for.
    Next(Option<Vec<Screen>>),
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
        let pairs = self.running.iter().zip(tokens);
        let ids: Vec<Vec<u32>> = pairs.map(|(sequence, n)| sequence.next_ids(*n)).collect();
        let (mut logits, mut hidden) = (Vec::new(), Vec::new());
        for (index, (sequence, wanted)) in self.running.iter_mut().zip(&wanted).enumerate() {
            let part = Part {
                ids: &ids[index],
                cache: &mut sequence.cache,
                logits: wanted.logits(sequence.drafts.len()),
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
        for (index, mut result) in results {
            let sequence = &mut self.running[index];
            // The error can be that of a draft, which the answer may not have.
            if result.is_err() && !sequence.drafts.is_empty() {
                result = sequence.compute_without_drafts(self.model);
            }
            match result {
                Ok(output) => sequence.output = output,
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

    /// Chooses the next tokens of every sequence that has logits. Adds those that end to `ends`.
    fn choose(&mut self, ends: &mut Vec<(u64, usize)>) {
        let with_logits = |s: &&mut Sequence| !s.output.is_empty() && s.left() == 0;
        let ready = self.running.iter_mut().filter(with_logits);
        let mut choices: Vec<Choice> = ready.filter_map(Sequence::next_choice).collect();
        // Filters sort, and scores sum over the vocabulary: that is work for all threads.
        let pool = self.model.pool();
        pool.chunks_mut(&mut choices, 1, |_, choice| choice[0].choose());
        let chosen = choices.into_iter();
        let chosen: Vec<_> = chosen.map(|choice| (choice.chosen, choice.error)).collect();

        let now = self.clock.now();
        let mut failed = Vec::new();
        let ready = self.running.iter_mut().filter(with_logits);
        for (sequence, (chosen, error)) in ready.zip(chosen) {
            sequence.output.clear();
            let end = (sequence.order, sequence.choice);
            if chosen.is_empty() && error.is_none() {
                sequence.end_empty();
                ends.push(end);
                continue;
            }
            let mut is_end = false;
            self.metrics
                .drafts
                .add(usize::from(!sequence.drafts.is_empty()));
            self.metrics.drafted_tokens.add(sequence.drafts.len());
            for (place, chosen) in chosen.into_iter().enumerate() {
                match sequence.last_token.replace(now) {
                    Some(last) => self.metrics.next_token.observe(now.saturating_sub(last)),
                    None => {
                        let took = now.saturating_sub(sequence.since);
                        self.metrics.first_token.observe(took);
                        self.first_sent = true;
                    }
                }
                self.metrics.generated_tokens.add(1);
                if chosen.is_guessed {
                    self.metrics.accepted_tokens[place].add(1);
                }
                match sequence.push(chosen) {
                    Ok(false) => continue,
                    Ok(true) => ends.push(end),
                    Err(failure) => failed.push((sequence.order, failure)),
                }
                is_end = true;
                break;
            }
            sequence.settle();
            if let Some(error) = error.filter(|_| !is_end) {
                failed.push((sequence.order, Failure::Constraint(error.to_string())));
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
            token[0].score = Some(Score::of(row, token[0].id, top.unwrap_or(0)));
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
        // The logits of a token score the next one.
        if self.is_scoring() && n > 0 && self.cache.len() + n >= self.scored {
            return Wanted::Scores;
        }
        match &self.request.work {
            _ if !reaches_end => Wanted::Nothing,
            Work::Embed => Wanted::Vector,
            // Scores are sums over all logits.
            Work::Generate(generate) if generate.logprobs.is_some() => Wanted::Next(None),
            Work::Generate(_) => Wanted::Next(self.screens.take()),
        }
    }

    /// The next `n` tokens, and guesses after them.
    fn next_ids(&self, n: usize) -> Vec<u32> {
        let from = self.cache.len();
        let n = n.min(self.left());
        [&self.tokens[from..from + n], &self.drafts[..]].concat()
    }

    /// Computes the last token alone. Its guesses are given up.
    fn compute_without_drafts(&mut self, model: &Model) -> Result<Vec<f32>, Error> {
        self.drafts.clear();
        self.look_ahead()?; // the screens were taken
        let wanted = self.wanted(1);
        let ids = self.next_ids(1);
        model.forward(&mut self.cache, &ids, wanted.logits(0))
    }
}

impl Wanted {
    /// The same for the runtime, where this number of guesses is computed.
    fn logits(&self, drafts: usize) -> Logits<'_> {
        match self {
            Wanted::Nothing => Logits::None,
            Wanted::Next(Some(screens)) => Logits::Screened(screens),
            // One token and its guesses.
            Wanted::Next(None) if drafts > 0 => Logits::All,
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

/// The choice of next tokens, as work for any thread.
pub(super) struct Choice<'a> {
    pub sampler: &'a mut Sampler,
    pub tokens: &'a [u32],
    /// Guesses of the next tokens.
    pub drafts: &'a [u32],
    /// (1 + drafts, vocab_size)
    pub logits: &'a mut [f32],
    /// Whether tokens are wanted, or only the prompt was.
    pub is_wanted: bool,
    pub logprobs: Option<usize>,
    pub chosen: Vec<Chosen>,
    /// Why no more could be chosen.
    pub error: Option<Error>,
}

/// A token that was chosen.
pub(super) struct Chosen {
    pub token: Token,
    /// Whether it was guessed, so that the logits after it are there.
    pub is_guessed: bool,
    /// Whether the constraint allows nothing after it.
    pub is_complete: bool,
}

impl Choice<'_> {
    /// Chooses the next token, and as many more as guesses were right.
    fn choose(&mut self) {
        if !self.is_wanted {
            return;
        }
        let width = self.logits.len() / (1 + self.drafts.len());
        let mut tokens = std::borrow::Cow::Borrowed(self.tokens);
        for (i, logits) in self.logits.chunks_exact_mut(width).enumerate() {
            // Scores are those before penalties and filters.
            let before = self.logprobs.map(|_| logits.to_vec());
            let top = self.logprobs.unwrap_or(0);
            let id = match self.sampler.sample(logits, &tokens) {
                Ok(id) => id,
                Err(error) => {
                    self.error = Some(error);
                    return;
                }
            };
            let is_guessed = self.drafts.get(i) == Some(&id);
            self.chosen.push(Chosen {
                token: Token {
                    id,
                    score: before.map(|logits| Score::of(&logits, id, top)),
                },
                is_guessed,
                is_complete: self.sampler.is_complete(),
            });
            if !is_guessed || self.sampler.is_complete() {
                return;
            }
            tokens.to_mut().push(id);
        }
    }
}
