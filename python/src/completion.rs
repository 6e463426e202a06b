//! What comes out of a generation, as values.

use std::hash::{DefaultHasher, Hash, Hasher};

use pyo3::prelude::*;
use pyo3::types::{PyIterator, PyString};
use serde_json::json;
use sterna_serve::engine::{End, Event, Failure, Token};
use sterna_serve::http::{Call, Called, Served};

use crate::values;

/// The counts of tokens of a completion.
#[pyclass(frozen, get_all, module = "sterna")]
#[derive(Debug, Clone, Copy, Default)]
pub struct Usage {
    /// Tokens of the prompt.
    prompt_tokens: usize,
    /// Tokens that were generated, the one that ended the text included.
    completion_tokens: usize,
    /// Tokens of the prompt whose keys and values were known from earlier requests.
    cached_tokens: usize,
    /// Tokens that were guessed and computed.
    drafted_tokens: usize,
    /// Tokens that were guessed right.
    accepted_tokens: usize,
}

#[pymethods]
impl Usage {
    fn __repr__(&self) -> String {
        format!(
            "Usage(prompt_tokens={}, completion_tokens={}, cached_tokens={}, drafted_tokens={}, \
             accepted_tokens={})",
            self.prompt_tokens,
            self.completion_tokens,
            self.cached_tokens,
            self.drafted_tokens,
            self.accepted_tokens
        )
    }
}

/// A token and how probable it was to the model, before penalties, temperature and filters.
#[pyclass(frozen, get_all, eq, module = "sterna")]
#[derive(Debug, Clone, PartialEq)]
pub struct TokenLogprob {
    /// The token.
    id: u32,
    /// Natural logarithm of its probability; None for the first token of a prompt.
    logprob: Option<f64>,
    /// 1 if it is the most probable token, 2 for the next one.
    rank: Option<usize>,
    /// The most probable tokens and the logarithms of their probabilities, best first.
    top: Vec<(u32, f64)>,
}

impl TokenLogprob {
    fn of(token: &Token) -> TokenLogprob {
        TokenLogprob {
            id: token.id,
            logprob: token.score.as_ref().map(|score| score.logprob),
            rank: token.score.as_ref().map(|score| score.rank),
            top: token
                .score
                .as_ref()
                .map_or_else(Vec::new, |score| score.top.clone()),
        }
    }
}

#[pymethods]
impl TokenLogprob {
    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        let logprob = self.logprob.into_pyobject(py)?.repr()?.to_string();
        let rank = self.rank.into_pyobject(py)?.to_string();
        Ok(format!(
            "TokenLogprob(id={}, logprob={logprob}, rank={rank}, top=[{} tokens])",
            self.id,
            self.top.len()
        ))
    }

    fn __hash__(&self) -> u64 {
        hash(&(self.id, self.rank))
    }
}

/// A call of a tool.
#[pyclass(frozen, get_all, eq, module = "sterna")]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToolCall {
    /// Its id, which the message with the result repeats.
    id: String,
    /// The name of the tool.
    name: String,
    /// Its arguments: JSON that keeps to the schema of the tool, or the beginning of it where
    /// `max_tokens` ended the answer.
    arguments: String,
}

impl ToolCall {
    fn of(call: Call) -> ToolCall {
        ToolCall {
            id: call.id,
            name: call.name,
            arguments: call.arguments,
        }
    }
}

#[pymethods]
impl ToolCall {
    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        let name = PyString::new(py, &self.name).repr()?.to_string();
        let arguments = PyString::new(py, &self.arguments).repr()?.to_string();
        Ok(format!("ToolCall(name={name}, arguments={arguments})"))
    }

    fn __hash__(&self) -> u64 {
        hash(&(&self.id, &self.name, &self.arguments))
    }
}

/// A text that was generated. Two completions are equal if all but their counts is.
///
/// >>> completion = model.generate("Once", max_tokens=4, logprobs=2)
/// >>> completion.finish_reason
/// 'length'
/// >>> len(completion.tokens), len(completion.logprobs[0].top)
/// (4, 2)
/// >>> str(completion) == completion.text
/// True
#[pyclass(frozen, get_all, module = "sterna")]
#[derive(Debug)]
pub struct Completion {
    /// The text, without the prompt; calls of tools are in it as the model wrote them.
    text: String,
    /// The text without calls of tools.
    content: String,
    /// The calls of tools.
    tool_calls: Vec<ToolCall>,
    /// The tokens of the text, without the one that ended it.
    tokens: Vec<u32>,
    /// `tool_calls` if the model ended it after a call of a tool, `stop` if it or a stop text
    /// ended it otherwise, `length` if no more tokens were allowed.
    finish_reason: &'static str,
    /// The stop text that ended it, or the name of the token that did.
    stop_text: Option<String>,
    /// The token that ended it.
    stop_token: Option<u32>,
    /// The tokens with their probabilities, if `logprobs` was given.
    logprobs: Option<Vec<TokenLogprob>>,
    /// The tokens of the prompt with theirs, if `prompt_logprobs` was given.
    prompt_logprobs: Option<Vec<TokenLogprob>>,
    /// The counts of tokens.
    usage: Usage,
    /// The seed of the random numbers.
    seed: i64,
}

#[pymethods]
impl Completion {
    /// The answer as a message of a conversation, which `chat` takes.
    #[getter]
    fn message<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let mut message = json!({"role": "assistant", "content": self.content});
        if !self.tool_calls.is_empty() {
            let calls = self.tool_calls.iter().map(|call| {
                let function = json!({"name": call.name, "arguments": call.arguments});
                json!({"id": call.id, "type": "function", "function": function})
            });
            message["tool_calls"] = calls.collect();
        }
        values::python(py, &message)
    }

    fn __str__(&self) -> &str {
        &self.text
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        let text = PyString::new(py, &self.text).repr()?.to_string();
        Ok(format!(
            "Completion(text={text}, finish_reason='{}', {} tokens)",
            self.finish_reason,
            self.tokens.len()
        ))
    }

    fn __eq__(&self, other: &Bound<'_, PyAny>) -> bool {
        let Ok(other) = other.cast::<Completion>() else {
            return false;
        };
        let other = other.get();
        self.text == other.text
            && self.tool_calls == other.tool_calls
            && self.tokens == other.tokens
            && self.finish_reason == other.finish_reason
            && self.stop_text == other.stop_text
            && self.stop_token == other.stop_token
            && self.logprobs == other.logprobs
            && self.prompt_logprobs == other.prompt_logprobs
            && self.seed == other.seed
    }

    fn __hash__(&self) -> u64 {
        hash(&(&self.text, &self.tokens))
    }
}

/// How probable a continuation is. It unpacks into logprob and is_greedy.
#[pyclass(frozen, get_all, eq, module = "sterna")]
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Score {
    /// Sum of the natural logarithms of the probabilities of its tokens.
    pub logprob: f64,
    /// Whether each token is the most probable one.
    pub is_greedy: bool,
    /// Tokens of the continuation.
    pub num_tokens: usize,
}

#[pymethods]
impl Score {
    /// Iterates over logprob and is_greedy.
    fn __iter__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyIterator>> {
        let pair = (self.logprob, self.is_greedy).into_pyobject(py)?;
        pair.try_iter()
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        let logprob = self.logprob.into_pyobject(py)?.repr()?.to_string();
        let is_greedy = if self.is_greedy { "True" } else { "False" };
        Ok(format!(
            "Score(logprob={logprob}, is_greedy={is_greedy}, num_tokens={})",
            self.num_tokens
        ))
    }

    fn __hash__(&self) -> u64 {
        hash(&(self.logprob.to_bits(), self.is_greedy, self.num_tokens))
    }
}

impl Score {
    /// The score of the tokens of a continuation, from scores in their order.
    pub fn of<'a>(tokens: impl Iterator<Item = &'a Token>) -> Score {
        let mut sum = Score {
            logprob: 0.0,
            is_greedy: true,
            num_tokens: 0,
        };
        for score in tokens.filter_map(|token| token.score.as_ref()) {
            sum.logprob += score.logprob;
            sum.is_greedy &= score.rank == 1;
            sum.num_tokens += 1;
        }
        sum
    }
}

fn hash(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

/// What a request has given so far.
#[derive(Debug, Default)]
pub struct Answer {
    pub text: String,
    /// Tokens of the text.
    pub tokens: Vec<Token>,
    /// Tokens of the prompt that were scored.
    pub prompt: Vec<Token>,
    pub end: Option<End>,
    pub vector: Option<Vec<f32>>,
}

impl Answer {
    /// Adds an event. Returns its text.
    pub fn add(&mut self, event: Event) -> Result<String, Failure> {
        match event {
            Event::Prompt(tokens) => self.prompt.extend(tokens),
            Event::Piece { text, tokens, .. } => {
                self.text += &text;
                self.tokens.extend(tokens);
                return Ok(text);
            }
            Event::End(end) => self.end = Some(end),
            Event::Embedding { vector, .. } => self.vector = Some(vector),
            Event::Failed(failure) => return Err(failure),
        }
        Ok(String::new())
    }

    /// Whether nothing follows.
    pub fn is_whole(&self) -> bool {
        self.end.is_some() || self.vector.is_some()
    }

    /// The completion, once the answer is whole.
    pub fn completion(&self, served: &Served, asked: &Asked) -> Option<Completion> {
        let end = self.end.as_ref()?;
        let mut parts = asked.called.answer(0);
        parts.push(served, &self.text, &self.tokens);
        parts.finish();
        let first = asked.first.map(|id| Token { id, score: None });
        Some(Completion {
            text: self.text.clone(),
            tokens: self.tokens.iter().map(|token| token.id).collect(),
            finish_reason: parts.finish_reason(end),
            content: parts.content,
            tool_calls: parts.calls.into_iter().map(ToolCall::of).collect(),
            stop_text: end.stop_text.clone(),
            stop_token: end.last.as_ref().map(|token| token.id),
            logprobs: asked
                .has_logprobs
                .then(|| self.tokens.iter().map(TokenLogprob::of).collect()),
            prompt_logprobs: asked.has_prompt_logprobs.then(|| {
                let tokens = first.iter().chain(&self.prompt);
                tokens.map(TokenLogprob::of).collect()
            }),
            usage: Usage {
                prompt_tokens: asked.prompt_tokens,
                completion_tokens: end.generated_tokens,
                cached_tokens: end.cached_tokens,
                drafted_tokens: end.drafted_tokens,
                accepted_tokens: end.accepted_tokens,
            },
            seed: asked.seed,
        })
    }
}

/// What of a request its completion depends on.
#[derive(Debug, Clone)]
pub struct Asked {
    /// The first token of the prompt.
    pub first: Option<u32>,
    pub prompt_tokens: usize,
    pub has_logprobs: bool,
    pub has_prompt_logprobs: bool,
    pub seed: i64,
    /// How calls of tools are found.
    pub called: Called,
}
