//! Generations in progress, and the iterator over their pieces.

use std::sync::{Mutex, TryLockError};
use std::time::Duration;

use pyo3::prelude::*;
use sterna_serve::engine::Request;

use crate::completion::{Answer, Asked, Completion};
use crate::errors::Fault;
use crate::inbox::{Inbox, Next, inbox};
use crate::shared::Shared;

/// How often Ctrl-C is looked for while nothing comes.
const LOOK: Duration = Duration::from_millis(50);

/// A request that the engine has.
pub struct Work {
    shared: Shared,
    inbox: Inbox,
}

impl Work {
    /// Gives a request to the engine.
    pub fn start(shared: &Shared, request: Request) -> Result<Work, Fault> {
        let (sender, inbox) = inbox();
        shared.engine.submit(request, Box::new(sender))?;
        Ok(Work {
            shared: shared.clone(),
            inbox,
        })
    }

    /// Waits for the next piece of text, which is not empty; `None` at the end. The GIL is
    /// released, and Ctrl-C raises KeyboardInterrupt.
    fn next(&self, py: Python<'_>, answer: &mut Answer) -> PyResult<Option<String>> {
        while !answer.is_whole() {
            self.shared.check_process()?;
            let next = py.detach(|| self.inbox.next(LOOK));
            py.check_signals()?;
            if let Some(piece) = take(next, answer)? {
                return Ok(Some(piece));
            }
        }
        Ok(None)
    }

    /// Waits for the whole answer.
    pub fn finish(&self, py: Python<'_>, answer: &mut Answer) -> PyResult<()> {
        while self.next(py, answer)?.is_some() {}
        Ok(())
    }
}

/// Adds what came to the answer, and returns its text if there is some.
fn take(next: Next, answer: &mut Answer) -> PyResult<Option<String>> {
    let piece = match next {
        Next::Event(event) => answer.add(event).map_err(Fault::from)?,
        Next::Nothing => String::new(),
        Next::Closed => {
            let why = "the generation was closed before its end";
            return Err(Fault::closed(why).into());
        }
    };
    Ok(Some(piece).filter(|piece| !piece.is_empty()))
}

/// The pieces of a text, as they are generated.
///
/// A piece is never empty and never ends inside a character. The rest is not computed when the
/// stream is closed or dropped.
///
/// >>> with model.stream("Once", max_tokens=16) as stream:
/// ...     pieces = list(stream)
/// >>> "".join(pieces) == stream.result().text
/// True
#[pyclass(frozen, module = "sterna")]
pub struct Stream {
    work: Work,
    asked: Asked,
    answer: Mutex<State>,
}

#[derive(Default)]
struct State {
    answer: Answer,
    /// Whether it was closed, or ended with an error.
    is_over: bool,
}

impl Stream {
    pub fn new(work: Work, asked: Asked) -> Stream {
        Stream {
            work,
            asked,
            answer: Mutex::default(),
        }
    }

    /// Does something with the answer, unless another thread does.
    fn with<T>(&self, act: impl FnOnce(&mut State) -> PyResult<T>) -> PyResult<T> {
        self.work.shared.check_process()?;
        let mut state = match self.answer.try_lock() {
            Ok(state) => state,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => {
                let why = "the stream is in use by another thread";
                return Err(Fault::closed(why).into());
            }
        };
        let result = act(&mut state);
        if result.is_err() {
            state.is_over = true;
            self.work.inbox.leave();
        }
        result
    }

    /// Waits for the end.
    pub fn whole(&self, py: Python<'_>) -> PyResult<Completion> {
        self.with(|state| {
            if !(state.is_over && state.answer.end.is_none()) {
                self.work.finish(py, &mut state.answer)?;
            }
            let why = || Fault::closed("the stream was closed before its end");
            let completion = state.answer.completion(&self.work.shared, &self.asked);
            Ok(completion.ok_or_else(why)?)
        })
    }
}

#[pymethods]
impl Stream {
    /// The stream itself.
    fn __iter__(this: Py<Self>) -> Py<Self> {
        this
    }

    /// The next piece.
    fn __next__(&self, py: Python<'_>) -> PyResult<Option<String>> {
        self.with(|state| match state.is_over {
            true => Ok(None),
            false => self.work.next(py, &mut state.answer),
        })
    }

    /// Waits for the end and returns the whole text with its counts.
    ///
    /// Pieces that were read are part of it. After `close` it raises ClosedError.
    fn result(&self, py: Python<'_>) -> PyResult<Completion> {
        self.whole(py)
    }

    /// Ends the generation. Pieces that were not read are lost.
    fn close(&self) {
        // Another thread may wait for a piece: it hears that nothing follows.
        self.work.inbox.leave();
        if let Ok(mut state) = self.answer.try_lock() {
            state.is_over = true;
        }
    }

    /// The stream itself.
    fn __enter__(this: Py<Self>) -> Py<Self> {
        this
    }

    /// Closes the stream, unless it has ended.
    #[pyo3(signature = (exc_type, exc, traceback))]
    fn __exit__(
        &self,
        exc_type: &Bound<'_, PyAny>,
        exc: &Bound<'_, PyAny>,
        traceback: &Bound<'_, PyAny>,
    ) {
        let _ = (exc_type, exc, traceback);
        self.close();
    }

    /// The next piece if it is there; None if it is not, or at the end. For `AsyncStream`.
    fn _poll(&self) -> PyResult<Option<String>> {
        self.with(|state| {
            while !state.is_over && !state.answer.is_whole() {
                let next = self.work.inbox.next(Duration::ZERO);
                let is_nothing = matches!(next, Next::Nothing);
                let piece = take(next, &mut state.answer)?;
                if piece.is_some() || is_nothing {
                    return Ok(piece);
                }
            }
            Ok(None)
        })
    }

    /// Whether nothing follows.
    fn _is_over(&self) -> PyResult<bool> {
        self.with(|state| Ok(state.is_over || state.answer.is_whole()))
    }

    /// Calls `waker` when there is something to poll.
    fn _wake_with(&self, waker: Py<PyAny>) {
        self.work.inbox.wake_with(waker);
    }
}
