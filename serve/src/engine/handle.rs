//! The thread of the engine, and the handle that other threads hold.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use sterna_runtime::{Model, Tokenizer};

use super::load::{Full, Load};
use super::request::{Failure, Request, Sink};
use super::{Clock, Engine, Limits};
use crate::metrics::Metrics;

/// What the thread of the engine is told.
enum Command {
    Submit(Box<Request>, Box<dyn Sink>),
    /// Fail what is not finished and end.
    Stop,
}

/// A running engine. Dropping it fails the requests that have not ended, and waits for its thread.
pub struct Handle {
    commands: Sender<Command>,
    thread: Option<JoinHandle<()>>,
    load: Arc<Load>,
    metrics: Arc<Metrics>,
}

impl Handle {
    /// Starts the thread of an engine; `draft` guesses tokens.
    ///
    /// # Errors
    /// The thread could not be started.
    pub fn start(
        model: Arc<Model>,
        tokenizer: Arc<Tokenizer>,
        draft: Option<Arc<Model>>,
        limits: Limits,
    ) -> std::io::Result<Handle> {
        let (commands, receiver) = channel();
        let metrics = Arc::new(Metrics::default());
        let load = Arc::new(Load::new(&limits));
        let (shared, counted) = (Arc::clone(&load), Arc::clone(&metrics));
        let thread = std::thread::Builder::new()
            .name("sterna-engine".into())
            .spawn(move || {
                let clock = Machine(Instant::now());
                let engine = Engine::new(&model, &tokenizer, &clock, limits, shared, counted);
                let engine = engine.with_draft(draft);
                run(engine, &receiver);
            })?;
        Ok(Handle {
            commands,
            thread: Some(thread),
            load,
            metrics,
        })
    }

    /// Gives a request to the engine, or refuses it at once if too many wait.
    ///
    /// # Errors
    /// [`Full`]: when to come again.
    pub fn submit(&self, request: Request, sink: Box<dyn Sink>) -> Result<(), Full> {
        self.load.enter(&request)?;
        let command = Command::Submit(Box::new(request), sink);
        // An engine that has ended takes the sink with it, and its receiver sees that.
        let _ended = self.commands.send(command);
        Ok(())
    }

    /// Fails the requests that have not ended, and ends the thread.
    pub fn stop(&self) {
        let _ended = self.commands.send(Command::Stop);
    }

    /// What waits and runs.
    pub fn load(&self) -> &Load {
        &self.load
    }

    /// What was done.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.stop();
        if let Some(thread) = self.thread.take() {
            let _panicked = thread.join();
        }
    }
}

/// The time since the engine began.
struct Machine(Instant);

impl Clock for Machine {
    fn now(&self) -> Duration {
        self.0.elapsed()
    }
}

/// How often sequences are looked at whose clients do not read.
const PARKED: Duration = Duration::from_millis(20);

/// How long a core is left to the threads that send a first token and to the client. A thread that
/// wakes while all cores compute may wait for milliseconds, the slice of a scheduler.
const FIRST: Duration = Duration::from_micros(300);

/// Takes commands and computes until it is told to stop.
fn run(mut engine: Engine, commands: &Receiver<Command>) {
    let mut is_computed = true;
    loop {
        // Without work the thread sleeps; with work it only looks whether a command came.
        let is_idle = engine.is_idle();
        engine.rest(is_idle);
        let command = match (is_idle, is_computed) {
            (true, _) => commands.recv().map_err(|_| RecvTimeoutError::Disconnected),
            (_, false) => commands.recv_timeout(PARKED),
            (_, true) if engine.take_first_sent() => commands.recv_timeout(FIRST),
            (_, true) => commands.recv_timeout(Duration::ZERO),
        };
        match command {
            Ok(Command::Submit(request, sink)) => {
                engine.submit(*request, sink);
                is_computed = true; // others may have come with it, and then a step follows
            }
            Err(RecvTimeoutError::Timeout) => is_computed = engine.step(),
            Ok(Command::Stop) | Err(RecvTimeoutError::Disconnected) => {
                return engine.fail_all(&Failure::Stopped);
            }
        }
    }
}
