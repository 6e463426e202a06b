//! An engine with a held clock, and clients that note what they hear.

use std::cell::{Cell, RefCell};
use std::path::Path;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use sterna_runtime::{Model, Options, Tokenizer};
use sterna_serve::engine::{Clock, Engine, Event, Guesses, Limits, Load, Reader, Request, Sink};
use sterna_serve::metrics::Metrics;

/// A clock that goes on by up to `most` at each look.
pub struct Held {
    now: Cell<Duration>,
    most: Duration,
    random: RefCell<ChaCha8Rng>,
}

impl Held {
    pub fn new(seed: u64, most: Duration) -> Held {
        Held {
            now: Cell::default(),
            most,
            random: RefCell::new(ChaCha8Rng::seed_from_u64(seed)),
        }
    }
}

impl Clock for Held {
    fn now(&self) -> Duration {
        let part = f64::from(self.random.borrow_mut().next_u32()) / f64::from(u32::MAX);
        self.now.set(self.now.get() + self.most.mul_f64(part));
        self.now.get()
    }
}

/// A client: what it heard, and whether it reads.
#[derive(Clone, Default)]
pub struct Ear {
    heard: Arc<Mutex<Vec<Event>>>,
    reader: Arc<AtomicU8>,
}

impl Ear {
    pub fn set(&self, reader: Reader) {
        self.reader.store(reader as u8, Ordering::Relaxed);
    }

    pub fn events(&self) -> Vec<Event> {
        self.heard.lock().unwrap().clone()
    }
}

impl Sink for Ear {
    fn send(&mut self, event: Event) {
        self.heard.lock().unwrap().push(event);
    }

    fn reader(&self) -> Reader {
        match self.reader.load(Ordering::Relaxed) {
            0 => Reader::Ready,
            1 => Reader::Slow,
            _ => Reader::Gone,
        }
    }
}

pub fn below(random: &mut ChaCha8Rng, n: usize) -> usize {
    random.next_u32() as usize % n
}

pub fn limits(parallel: usize, pages: usize) -> Limits {
    Limits {
        parallel,
        step: Some(Duration::from_millis(50)),
        pages,
        queue: 1000,
        queue_tokens: 1_000_000,
        queue_timeout: Duration::from_secs(1_000_000),
        timeout: Duration::from_secs(1_000_000),
        weights: vec![1.0, 2.0],
        guesses: Guesses::No,
    }
}

/// An engine with what it shares.
pub struct Bench<'t> {
    pub engine: Engine<'t>,
    pub load: Arc<Load>,
    pub metrics: Arc<Metrics>,
}

impl<'t> Bench<'t> {
    pub fn new(
        model: &'t Model,
        tokenizer: &'t Tokenizer,
        clock: &'t dyn Clock,
        limits: &Limits,
    ) -> Bench<'t> {
        let (load, metrics) = (Arc::new(Load::new(limits)), Arc::<Metrics>::default());
        let shared = (Arc::clone(&load), Arc::clone(&metrics));
        let engine = Engine::new(model, tokenizer, clock, limits.clone(), shared.0, shared.1);
        Bench {
            engine,
            load,
            metrics,
        }
    }

    pub fn submit(&mut self, request: &Request) -> Ear {
        let ear = Ear::default();
        self.load.enter(request).unwrap();
        self.engine.submit(request.clone(), Box::new(ear.clone()));
        ear
    }

    /// Steps until nothing is left.
    pub fn finish(&mut self) {
        for _ in 0..100_000 {
            if self.engine.is_idle() {
                return;
            }
            self.engine.step();
        }
        panic!("the engine does not come to an end");
    }
}

pub fn open(path: &Path, threads: usize) -> (Model, Tokenizer) {
    let options = Options {
        threads: Some(threads),
        ..Options::default()
    };
    let model = Model::open(path, options).unwrap();
    let tokenizer = model.tokenizer().unwrap();
    (model, tokenizer)
}
