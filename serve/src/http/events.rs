//! Events on their way from the thread of an engine to the task of a connection.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::error::{ApiError, ApiResult};
use super::served::Served;
use crate::engine::{Event, Reader, Request, Sink};

/// Unread events at which a client counts as slow.
const MOST_EVENTS: usize = 1024;
/// Unread bytes of text at which a client counts as slow.
const MOST_BYTES: usize = 256 << 10;
/// Requests of one list that are in the engine at the same time, so that a long list does not fill
/// the queue alone.
const TOGETHER: usize = 8;

/// What is unread.
#[derive(Debug, Default)]
struct Unread {
    events: AtomicUsize,
    bytes: AtomicUsize,
}

/// An event of the request with this index in its list; `None` when the engine has let go of it.
type Sent = (usize, Option<Event>);

struct ToClient {
    index: usize,
    sender: UnboundedSender<Sent>,
    unread: Arc<Unread>,
}

impl Drop for ToClient {
    fn drop(&mut self) {
        let _gone = self.sender.send((self.index, None));
    }
}

impl Sink for ToClient {
    fn send(&mut self, event: Event) {
        self.unread.events.fetch_add(1, Ordering::Relaxed);
        self.unread.bytes.fetch_add(size(&event), Ordering::Relaxed);
        // A receiver that is gone is seen by `reader`.
        let _gone = self.sender.send((self.index, Some(event)));
    }

    fn reader(&self) -> Reader {
        let unread = |count: &AtomicUsize| count.load(Ordering::Relaxed);
        if self.sender.is_closed() {
            Reader::Gone
        } else if unread(&self.unread.events) > MOST_EVENTS
            || unread(&self.unread.bytes) > MOST_BYTES
        {
            Reader::Slow
        } else {
            Reader::Ready
        }
    }
}

/// Bytes of an event, about.
fn size(event: &Event) -> usize {
    match event {
        Event::Prompt(tokens) => 64 * tokens.len(),
        Event::Piece { text, tokens, .. } => text.len() + 64 * tokens.len(),
        Event::Embedding { vector, .. } => 4 * vector.len(),
        Event::End(_) | Event::Failed(_) => 64,
    }
}

/// The requests of a list while the engine computes them. Dropping it cancels what has not ended.
pub struct Running {
    served: Arc<Served>,
    /// What the engine does not have yet.
    waiting: VecDeque<(usize, Request)>,
    /// Answers that the engine still owes, by request.
    owed: Vec<usize>,
    sender: UnboundedSender<Sent>,
    receiver: UnboundedReceiver<Sent>,
    unread: Arc<Unread>,
}

impl Running {
    /// Gives the first requests to the engine.
    ///
    /// # Errors
    /// 429 if the engine takes none.
    pub fn start(served: Arc<Served>, requests: Vec<Request>) -> ApiResult<Running> {
        let (sender, receiver) = unbounded_channel();
        let mut running = Running {
            owed: vec![0; requests.len()],
            waiting: requests.into_iter().enumerate().collect(),
            unread: Arc::default(),
            served,
            sender,
            receiver,
        };
        running.submit()?;
        Ok(running)
    }

    /// Gives the engine what it takes. A list whose first requests were taken waits for them when
    /// the queue is full.
    fn submit(&mut self) -> ApiResult<()> {
        while let Some((index, request)) = self.waiting.front() {
            let running = self.owed.iter().filter(|owed| **owed > 0).count();
            if running >= TOGETHER {
                break;
            }
            let sink = ToClient {
                index: *index,
                sender: self.sender.clone(),
                unread: Arc::clone(&self.unread),
            };
            let choices = request.choices();
            match self.served.engine.submit(request.clone(), Box::new(sink)) {
                Ok(()) => self.owed[*index] = choices,
                Err(_) if running > 0 => break,
                Err(full) => return Err(full.into()),
            }
            self.waiting.pop_front();
        }
        Ok(())
    }

    /// The next event with the index of its request; `None` after the last one.
    ///
    /// # Errors
    /// The failure of one of the requests, and an engine that has ended.
    pub async fn next(&mut self) -> ApiResult<Option<(usize, Event)>> {
        while self.owed.iter().any(|owed| *owed > 0) {
            let received = self.receiver.recv().await;
            let (index, event) = received.expect("this struct has a sender");
            let Some(event) = event else {
                match self.owed[index] {
                    0 => continue,
                    _ => return Err(ApiError::internal("the engine has ended")),
                }
            };
            self.unread.events.fetch_sub(1, Ordering::Relaxed);
            self.unread.bytes.fetch_sub(size(&event), Ordering::Relaxed);
            match &event {
                Event::End(_) => self.owed[index] -= 1,
                Event::Embedding { .. } => self.owed[index] = 0,
                Event::Failed(failure) => return Err(failure.clone().into()),
                Event::Prompt(_) | Event::Piece { .. } => {}
            }
            if self.owed[index] == 0 {
                self.submit()?;
            }
            return Ok(Some((index, event)));
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_that_does_not_read_is_slow_and_one_that_left_is_gone() {
        let (sender, mut receiver) = unbounded_channel();
        let unread: Arc<Unread> = Arc::default();
        let mut sink = ToClient {
            index: 0,
            sender,
            unread: Arc::clone(&unread),
        };
        let piece = |text: String| Event::Piece {
            choice: 0,
            text,
            tokens: Vec::new(),
        };
        assert_eq!(sink.reader(), Reader::Ready);
        sink.send(piece("x".repeat(MOST_BYTES + 1)));
        assert_eq!(sink.reader(), Reader::Slow);
        let event = receiver.try_recv().unwrap().1.unwrap();
        unread.events.fetch_sub(1, Ordering::Relaxed);
        unread.bytes.fetch_sub(size(&event), Ordering::Relaxed);
        assert_eq!(sink.reader(), Reader::Ready);
        for _ in 0..=MOST_EVENTS {
            sink.send(piece(String::new()));
        }
        assert_eq!(sink.reader(), Reader::Slow);
        drop(receiver);
        assert_eq!(sink.reader(), Reader::Gone);
        sink.send(piece("x".into()));
    }
}
