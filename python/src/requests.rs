//! Requests: from prompts to the engine, alone or many together, and the scores of continuations.

use std::collections::VecDeque;
use std::ffi::CString;

use pyo3::exceptions::PyUserWarning;
use pyo3::prelude::*;
use serde_json::{Map, Value};
use sterna_runtime::Sampling;
use sterna_serve::engine::{Generate, Request, Work as Kind};

use crate::completion::{Answer, Asked, Completion, Score};
use crate::errors::Fault;
use crate::shared::Shared;
use crate::stream::{Stream, Work};
use crate::values::Prompt;

/// A generation, and keywords of its schema that have no effect.
pub type Begun = (Stream, Vec<String>);

/// Encodes a prompt and gives it to the engine.
pub fn begin(
    shared: &Shared,
    fields: &Map<String, Value>,
    prompt: &Prompt,
) -> Result<Begun, Fault> {
    start(shared, fields, encoded(shared, prompt)?, false)
}

pub fn encoded(shared: &Shared, prompt: &Prompt) -> Result<Vec<u32>, Fault> {
    match prompt {
        Prompt::Text(text) => Ok(shared.tokenizer.encode(text, true)?),
        Prompt::Ids(ids) => Ok(ids.clone()),
    }
}

/// Refuses a prompt that is empty or too long.
pub fn checked(shared: &Shared, prompt: &[u32]) -> Result<(), Fault> {
    match prompt.len() {
        0 => Err(Fault::usage(
            "the prompt has no tokens, expected at least one; begin with the token that begins a \
             text",
        )),
        tokens if tokens > shared.context => Err(Fault::context(tokens, shared.context)),
        _ => Ok(()),
    }
}

pub fn start(
    shared: &Shared,
    fields: &Map<String, Value>,
    prompt: Vec<u32>,
    continues: bool,
) -> Result<Begun, Fault> {
    checked(shared, &prompt)?;
    let (first, prompt_tokens) = (prompt.first().copied(), prompt.len());
    let prepared = shared.request(fields, prompt, continues)?;
    let asked = Asked {
        first,
        prompt_tokens,
        has_logprobs: fields.contains_key("logprobs"),
        has_prompt_logprobs: fields.contains_key("prompt_logprobs"),
        seed: prepared.seed,
        called: prepared.called,
    };
    let work = Work::start(shared, prepared.request)?;
    Ok((Stream::new(work, asked), prepared.unknown))
}

/// Warns of keywords of a schema without effect.
pub fn warned(py: Python<'_>, (stream, unknown): Begun) -> PyResult<Stream> {
    if !unknown.is_empty() {
        let names = unknown.join(", ").replace('\0', "");
        let message = format!("these keywords have no effect by JSON Schema: {names}");
        let message = CString::new(message).expect("it has no NUL");
        PyErr::warn(py, &py.get_type::<PyUserWarning>(), &message, 1)?;
    }
    Ok(stream)
}

/// Calls the helper of asyncio on a stream.
pub fn asynchronous<'py>(
    py: Python<'py>,
    stream: Stream,
    helper: &str,
) -> PyResult<Bound<'py, PyAny>> {
    py.import("sterna._async")?.call_method1(helper, (stream,))
}

/// Gives requests to the engine, not too many at a time, and returns what `read` makes of each
/// answer, in order.
pub fn together<T>(
    py: Python<'_>,
    shared: &Shared,
    requests: Vec<Request>,
    mut read: impl FnMut(usize, &Answer) -> PyResult<T>,
) -> PyResult<Vec<T>> {
    let window = 2 * shared.limits.parallel;
    let mut waiting = requests.into_iter();
    let mut running = VecDeque::new();
    let mut results = Vec::new();
    loop {
        while running.len() < window
            && let Some(request) = waiting.next()
        {
            running.push_back(Work::start(shared, request)?);
        }
        let Some(work) = running.pop_front() else {
            return Ok(results);
        };
        let mut answer = Answer::default();
        work.finish(py, &mut answer)?;
        results.push(read(results.len(), &answer)?);
    }
}

/// The completions of prompts with the same options, not too many at a time.
pub fn batch(
    py: Python<'_>,
    shared: &Shared,
    fields: &Map<String, Value>,
    prompts: &[Prompt],
) -> PyResult<Vec<Completion>> {
    // As many as the engine computes at the same time, and as many that wait.
    let window = 2 * shared.limits.parallel;
    let mut waiting = prompts.iter();
    let mut running = VecDeque::new();
    let mut completions = Vec::with_capacity(prompts.len());
    loop {
        while running.len() < window
            && let Some(prompt) = waiting.next()
        {
            let begun = py.detach(|| begin(shared, fields, prompt))?;
            running.push_back(warned(py, begun)?);
        }
        match running.pop_front() {
            Some(stream) => completions.push(stream.whole(py)?),
            None => return Ok(completions),
        }
    }
}

/// A prompt and a continuation, after the beginning of the messages about them.
pub type Pair<'py> = (String, (Bound<'py, PyAny>, Bound<'py, PyAny>));

/// The scores of pairs.
pub fn scores(py: Python<'_>, shared: &Shared, pairs: Vec<Pair<'_>>) -> PyResult<Vec<Score>> {
    let vocab_size = shared.vocab_size();
    let mut prompts = Vec::with_capacity(pairs.len());
    for (at, (prompt, continuation)) in pairs {
        let prompt = Prompt::of(&format!("{at}prompt"), &prompt, vocab_size)?;
        let name = format!("{at}continuation");
        let continuation = Prompt::of(&name, &continuation, vocab_size)?;
        prompts.push((at, prompt, continuation));
    }
    let requests = py.detach(|| {
        let request = |(at, prompt, continuation): &(String, Prompt, Prompt)| {
            let scored = scored(shared, prompt, continuation);
            scored.map_err(|fault| Fault::new(fault.kind, format!("{at}{}", fault.message)))
        };
        prompts
            .iter()
            .map(request)
            .collect::<Result<Vec<_>, Fault>>()
    })?;
    together(py, shared, requests, |_, answer| {
        let last = answer.end.as_ref().and_then(|end| end.last.as_ref());
        let tokens = answer.prompt.iter().chain(&answer.tokens).chain(last);
        Ok(Score::of(tokens))
    })
}

/// A request that scores a continuation. All its tokens but the last are scored as tokens of the
/// prompt, so that their beginning may be known from earlier requests. The last one is chosen by a
/// bias, which its score does not see: it needs no computation and no room in the context.
fn scored(shared: &Shared, prompt: &Prompt, continuation: &Prompt) -> Result<Request, Fault> {
    const BIAS: f32 = 1e30;
    let (mut tokens, from) = pair(shared, prompt, continuation)?;
    if from == 0 {
        return Err(Fault::usage(
            "the prompt has no tokens, and the first token of a text has no probability; give a \
             prompt, such as the token that begins a text",
        ));
    }
    if tokens.len() - from == 0 {
        return Err(Fault::usage(
            "the continuation has no tokens, expected at least one",
        ));
    }
    let last = tokens.pop().expect("there is at least one");
    checked(shared, &tokens)?;
    let generate = Generate {
        choices: 1,
        max_tokens: 1,
        sampling: Sampling::default(),
        constraint: None,
        bias: vec![(last, BIAS)],
        stop: Vec::new(),
        stop_tokens: Vec::new(),
        keeps_stop: false,
        continues_text: false,
        ignores_eos: true,
        prediction: Vec::new(),
        logprobs: Some(0),
        prompt_logprobs: Some(0),
        scored_from: from,
    };
    Ok(Request {
        key: 0,
        prompt: tokens,
        work: Kind::Generate(Box::new(generate)),
        reads_cache: true,
    })
}

/// The tokens of a prompt and its continuation, and where the continuation begins.
fn pair(
    shared: &Shared,
    prompt: &Prompt,
    continuation: &Prompt,
) -> Result<(Vec<u32>, usize), Fault> {
    let tokenizer = &shared.tokenizer;
    if let (Prompt::Text(prompt), Prompt::Text(continuation)) = (prompt, continuation) {
        let whole = tokenizer.encode(&format!("{prompt}{continuation}"), true)?;
        let from = tokenizer.encode(prompt, true)?.len();
        let from = from.min(whole.len());
        return Ok((whole, from));
    }
    let mut tokens = encoded(shared, prompt)?;
    let from = tokens.len();
    tokens.extend(match continuation {
        Prompt::Text(text) => tokenizer.encode(text, false)?,
        Prompt::Ids(ids) => ids.clone(),
    });
    Ok((tokens, from))
}
