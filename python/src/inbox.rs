//! Events on their way from the thread of the engine to a thread of Python, or to an event loop.
//!
//! The engine never waits for Python: it puts events into the inbox of a request. A thread of
//! Python waits there without the GIL. An event loop is woken by a thread for that.

use std::collections::VecDeque;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pyo3::prelude::*;
use sterna_serve::engine::{Event, Reader, Sink};

/// The two ends of an inbox.
pub fn inbox() -> (EventSender, Inbox) {
    let shared = Arc::new(Shared::default());
    let inbox = Inbox {
        shared: Arc::clone(&shared),
        process: std::process::id(),
    };
    (EventSender(shared), inbox)
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    arrived: Condvar,
}

#[derive(Default)]
struct State {
    events: VecDeque<Event>,
    /// Nothing follows: the engine has let go of the request.
    is_closed: bool,
    /// Nobody reads.
    is_gone: bool,
    /// What wakes an event loop with the next event.
    waker: Option<Py<PyAny>>,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the state and wakes the thread that waits for it.
    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.state();
        change(&mut state);
        let waker = state.waker.take();
        drop(state);
        self.arrived.notify_all();
        waker.into_iter().for_each(wake);
    }
}

/// The end of the engine.
pub struct EventSender(Arc<Shared>);

impl Sink for EventSender {
    fn send(&mut self, event: Event) {
        self.0.change(|state| state.events.push_back(event));
    }

    // An answer is not longer than the context, so what is unread is bounded, and a program that
    // does not read for an hour must not lose it.
    fn reader(&self) -> Reader {
        match self.0.state().is_gone {
            true => Reader::Gone,
            false => Reader::Ready,
        }
    }
}

impl Drop for EventSender {
    fn drop(&mut self) {
        self.0.change(|state| state.is_closed = true);
    }
}

/// The end of the reader. The engine ends its work when it is dropped.
pub struct Inbox {
    shared: Arc<Shared>,
    /// In a fork another thread may have held the lock, which is then never free.
    process: u32,
}

/// What an inbox has.
pub enum Next {
    Event(Event),
    /// Nothing yet.
    Nothing,
    /// Nothing, and nothing follows.
    Closed,
}

impl Inbox {
    /// The next event, waiting for it at most this long.
    pub fn next(&self, most: Duration) -> Next {
        let state = self.shared.state();
        let is_empty =
            |state: &mut State| state.events.is_empty() && !state.is_closed && !state.is_gone;
        let waited = self
            .shared
            .arrived
            .wait_timeout_while(state, most, is_empty);
        let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        match state.events.pop_front() {
            _ if state.is_gone => Next::Closed,
            Some(event) => Next::Event(event),
            None if state.is_closed => Next::Closed,
            None => Next::Nothing,
        }
    }

    /// Calls `waker` from a thread of its own when there is something to read.
    pub fn wake_with(&self, waker: Py<PyAny>) {
        let mut state = self.shared.state();
        match state.events.is_empty() && !state.is_closed && !state.is_gone {
            true => state.waker = Some(waker),
            false => {
                drop(state);
                wake(waker);
            }
        }
    }

    /// Ends the work. A reader that waits hears that nothing follows.
    pub fn leave(&self) {
        if std::process::id() == self.process {
            self.shared.change(|state| {
                state.is_gone = true;
                state.events.clear();
            });
        }
    }
}

impl Drop for Inbox {
    fn drop(&mut self) {
        self.leave();
    }
}

/// The thread that calls wakers, by the process that it belongs to: a fork has no threads.
static WAKING: Mutex<Option<(u32, Sender<Py<PyAny>>)>> = Mutex::new(None);

/// Calls a waker. A loop that was closed needs none, and neither does an interpreter that ends.
fn call(waker: Py<PyAny>) {
    Python::try_attach(move |py| drop(waker.call0(py)));
}

/// Calls a waker from the thread for that. The engine would have to wait for the GIL.
fn wake(waker: Py<PyAny>) {
    let mut waking = WAKING.lock().unwrap_or_else(PoisonError::into_inner);
    let process = std::process::id();
    if waking.as_ref().is_none_or(|(of, _)| *of != process) {
        let (sender, receiver) = channel::<Py<PyAny>>();
        let thread = std::thread::Builder::new().name("sterna-wake".into());
        let started = thread.spawn(move || {
            for waker in receiver {
                call(waker);
            }
        });
        // Without a thread it is called here, which is slower.
        if started.is_err() {
            drop(waking);
            return call(waker);
        }
        *waking = Some((process, sender));
    }
    if let Some((_, sender)) = waking.as_ref() {
        let _ended = sender.send(waker);
    }
}
