//! What waits and runs, seen by every thread, and the bounds of the queue.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::Limits;
use super::request::Request;

/// Counts of requests and tokens that the engine has.
#[derive(Debug)]
pub struct Load {
    most_choices: usize,
    most_tokens: usize,
    waiting: Mutex<Waiting>,
    running: AtomicU64,
    /// Microseconds that a token of a prompt takes, when many are computed at once.
    prompt_token: AtomicU64,
    is_idle: AtomicBool,
    /// When the engine last began a step.
    beat: Mutex<Instant>,
}

/// What waits to be begun.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Waiting {
    /// Answers.
    pub choices: usize,
    /// Tokens of prompts.
    pub tokens: usize,
}

/// The queue has no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the queue is full: {} answers and {} tokens of prompts wait; come again in {} s",
    waiting.choices, waiting.tokens, retry_after.as_secs()
)]
pub struct Full {
    /// What waits.
    pub waiting: Waiting,
    /// When there may be room, in whole seconds from 1 to 60.
    pub retry_after: Duration,
}

impl Load {
    /// Nothing waits or runs.
    pub fn new(limits: &Limits) -> Load {
        Load {
            most_choices: limits.queue,
            most_tokens: limits.queue_tokens,
            waiting: Mutex::default(),
            running: AtomicU64::new(0),
            prompt_token: AtomicU64::new(0),
            is_idle: AtomicBool::new(true),
            beat: Mutex::new(Instant::now()),
        }
    }

    /// Takes a place in the queue. A request that finds the queue empty always gets one, whatever
    /// its size.
    ///
    /// # Errors
    /// [`Full`].
    pub fn enter(&self, request: &Request) -> Result<(), Full> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let after = Waiting {
            choices: waiting.choices + request.choices(),
            tokens: waiting.tokens + request.prompt.len(),
        };
        let fits = after.choices <= self.most_choices && after.tokens <= self.most_tokens;
        if waiting.choices > 0 && !fits {
            return Err(Full {
                waiting: *waiting,
                retry_after: self.retry_after(waiting.tokens),
            });
        }
        *waiting = after;
        Ok(())
    }

    /// Gives a place back: the request is begun, or it is gone.
    pub(super) fn leave(&self, request: &Request) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.choices -= request.choices();
        waiting.tokens -= request.prompt.len();
    }

    /// What waits.
    pub fn waiting(&self) -> Waiting {
        *self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Answers that are computed at the moment.
    pub fn running(&self) -> u64 {
        self.running.load(Ordering::Relaxed)
    }

    /// Whether the engine does what it should: it has nothing to do, or has begun a step within
    /// this time.
    pub fn is_alive(&self, within: Duration) -> bool {
        let beat = *self.beat.lock().unwrap_or_else(PoisonError::into_inner);
        self.is_idle.load(Ordering::Relaxed) || beat.elapsed() <= within
    }

    pub(super) fn beat(&self, running: usize, prompt_token: Duration) {
        *self.beat.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        self.running.store(running as u64, Ordering::Relaxed);
        let micros = prompt_token.as_micros() as u64;
        self.prompt_token.store(micros, Ordering::Relaxed);
    }

    pub(super) fn rest(&self, is_idle: bool) {
        self.is_idle.store(is_idle, Ordering::Relaxed);
        if is_idle {
            self.running.store(0, Ordering::Relaxed);
        }
    }

    /// The time in which these tokens are computed, in whole seconds from 1 to 60.
    fn retry_after(&self, tokens: usize) -> Duration {
        let micros = self.prompt_token.load(Ordering::Relaxed) * tokens as u64;
        Duration::from_secs(micros.div_ceil(1_000_000).clamp(1, 60))
    }
}
