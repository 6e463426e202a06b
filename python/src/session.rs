//! `Session`: keys and values of one sequence, for samplers and searches of one's own.

use std::sync::{Mutex, TryLockError};

use numpy::{PyArray1, PyArray2};
use pyo3::prelude::*;
use sterna_runtime::{KvCache, Logits};

use crate::arrays::{array, room, table};
use crate::errors::{Fault, Kind};
use crate::shared::Shared;
use crate::values;

/// Tokens of a pass. Between two passes Ctrl-C is looked for.
const PASS: usize = 64;

/// Keys and values of one sequence, for samplers and searches of your own.
///
/// >>> session = model.session()
/// >>> session.feed(model.tokenizer.encode("Once"))
/// >>> logits = session.next_logits()
/// >>> logits.shape == (model.vocab_size,)
/// True
/// >>> branch = session.fork()
/// >>> branch.feed([int(logits.argmax())])
/// >>> len(branch) - len(session)
/// 1
///
/// A session belongs to one thread at a time: a call during another call raises ClosedError.
#[pyclass(frozen, module = "sterna")]
pub struct Session {
    shared: Shared,
    /// Empty after `close`.
    state: Mutex<Option<State>>,
}

struct State {
    cache: KvCache,
    /// Logits of the token that follows, if they are known.
    next: Option<Vec<f32>>,
}

impl Session {
    pub fn new(shared: Shared, capacity: usize) -> PyResult<Session> {
        let cache = shared.model.new_uncounted_cache(capacity);
        let cache = cache.map_err(Fault::from)?;
        Ok(Session {
            shared,
            state: Mutex::new(Some(State { cache, next: None })),
        })
    }

    /// Does something with the state, unless another thread does.
    fn with<T>(&self, act: impl FnOnce(&mut State) -> PyResult<T>) -> PyResult<T> {
        self.shared.check_process()?;
        let mut state = match self.state.try_lock() {
            Ok(state) => state,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => {
                let why = "the session is in use by another thread; fork it for each thread";
                return Err(Fault::closed(why).into());
            }
        };
        match &mut *state {
            Some(state) => act(state),
            None => Err(Fault::closed("the session is closed").into()),
        }
    }

    /// Computes tokens after those of the cache. If it fails or is interrupted, the session stays
    /// as it was. `all` gets the logits after each token, if they are wanted.
    fn advance(
        &self,
        py: Python<'_>,
        state: &mut State,
        ids: &[u32],
        mut all: Option<&mut Vec<f32>>,
    ) -> PyResult<()> {
        let (before, capacity) = (state.cache.len(), state.cache.capacity());
        if ids.len() > capacity - before {
            let why = format!(
                "there are {before} tokens in the session and {} new ones, and it holds \
                 {capacity}; make a session with a larger capacity",
                ids.len()
            );
            return Err(Fault::new(Kind::Context, why).into());
        }
        let mut last = Vec::new();
        let mut done = 0;
        for part in ids.chunks(PASS) {
            done += part.len();
            let wanted = match (all.is_some(), done == ids.len()) {
                (true, _) => Logits::All,
                (false, true) => Logits::Last,
                (false, false) => Logits::None,
            };
            let (model, cache) = (&self.shared.model, &mut state.cache);
            let computed = py.detach(|| model.forward(cache, part, wanted));
            let computed: PyResult<_> = computed.map_err(|error| Fault::from(error).into());
            match computed.and_then(|logits| py.check_signals().map(|()| logits)) {
                Ok(logits) => last = logits,
                Err(error) => {
                    state.cache.truncate(before);
                    return Err(error);
                }
            }
            if let Some(all) = &mut all {
                all.extend_from_slice(&last);
            }
        }
        let row = last.len() - self.shared.vocab_size();
        state.next = Some(last.split_off(row));
        Ok(())
    }
}

#[pymethods]
impl Session {
    /// Computes tokens after those of the session.
    fn feed(&self, py: Python<'_>, ids: &Bound<'_, PyAny>) -> PyResult<()> {
        let ids = values::ids("ids", ids, self.shared.vocab_size())?;
        self.with(|state| match ids.is_empty() {
            true => Ok(()),
            false => self.advance(py, state, &ids, None),
        })
    }

    /// The same, and returns the logits after each of these tokens, (n, vocab_size).
    fn feed_logits<'py>(
        &self,
        py: Python<'py>,
        ids: &Bound<'_, PyAny>,
    ) -> PyResult<Bound<'py, PyArray2<f32>>> {
        let vocab_size = self.shared.vocab_size();
        let ids = values::ids("ids", ids, vocab_size)?;
        let all = self.with(|state| {
            let mut all = room(ids.len().checked_mul(vocab_size))?;
            if !ids.is_empty() {
                self.advance(py, state, &ids, Some(&mut all))?;
            }
            Ok(all)
        })?;
        table(py, all, ids.len(), vocab_size)
    }

    /// The logits of the token that follows, (vocab_size,).
    fn next_logits<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyArray1<f32>>> {
        let logits = self.with(|state| {
            if let Some(next) = &state.next {
                return Ok(next.clone());
            }
            // After `truncate` the last token is computed once more.
            let Some(last) = state.cache.tokens().last().copied() else {
                let why = "the session has no tokens; feed at least one";
                return Err(Fault::usage(why).into());
            };
            state.cache.truncate(state.cache.len() - 1);
            self.advance(py, state, &[last], None)?;
            Ok(state.next.clone().unwrap_or_default())
        })?;
        array(py, logits)
    }

    /// Keeps the first tokens, so that another continuation can follow them.
    fn truncate(&self, length: &Bound<'_, PyAny>) -> PyResult<()> {
        self.with(|state| {
            let length = values::count("length", length, (0, state.cache.len()))?;
            if length < state.cache.len() {
                state.cache.truncate(length);
                state.cache.shrink();
                state.next = None;
            }
            Ok(())
        })
    }

    /// A session with the same tokens, which shares memory until one of them changes.
    fn fork(&self) -> PyResult<Session> {
        let state = self.with(|state| {
            Ok(State {
                cache: state.cache.clone(),
                next: state.next.clone(),
            })
        })?;
        Ok(Session {
            shared: self.shared.clone(),
            state: Mutex::new(Some(state)),
        })
    }

    /// Frees the memory.
    fn close(&self) -> PyResult<()> {
        self.shared.check_process()?;
        match self.state.try_lock() {
            Ok(mut state) => *state = None,
            Err(TryLockError::Poisoned(poisoned)) => *poisoned.into_inner() = None,
            Err(TryLockError::WouldBlock) => {
                let why = "the session is in use by another thread";
                return Err(Fault::closed(why).into());
            }
        }
        Ok(())
    }

    /// The tokens so far.
    #[getter]
    fn tokens(&self) -> PyResult<Vec<u32>> {
        self.with(|state| Ok(state.cache.tokens().to_vec()))
    }

    /// Most tokens.
    #[getter]
    fn capacity(&self) -> PyResult<usize> {
        self.with(|state| Ok(state.cache.capacity()))
    }

    /// The number of tokens so far.
    fn __len__(&self) -> PyResult<usize> {
        self.with(|state| Ok(state.cache.len()))
    }

    // A session without tokens is one too.
    fn __bool__(&self) -> bool {
        true
    }

    /// The session itself.
    fn __enter__(this: Py<Self>) -> Py<Self> {
        this
    }

    /// Closes the session.
    #[pyo3(signature = (exc_type, exc, traceback))]
    fn __exit__(
        &self,
        exc_type: &Bound<'_, PyAny>,
        exc: &Bound<'_, PyAny>,
        traceback: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        let _ = (exc_type, exc, traceback);
        self.close()
    }
}
