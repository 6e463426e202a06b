//! The pace of a client: a head of a request must come in seconds, a connection may be idle for a
//! minute, and a reply must be read.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::body::Held;

/// Longest time of the head of a request.
pub const HEAD: Duration = Duration::from_secs(10);
/// Longest time without a request.
pub const IDLE: Duration = Duration::from_secs(75);
/// Longest time in which nothing of a reply is read.
pub const BLOCKED: Duration = Duration::from_secs(75);

/// What a connection does, and since when.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Phase {
    /// It waits for the first byte of a request.
    Idle(Instant),
    /// It waits for the rest of a head.
    Head(Instant),
    /// A request is answered.
    Busy,
    /// The client does not read the reply.
    Blocked(Instant),
}

/// The pace of a connection; clones belong to the same one.
#[derive(Debug, Clone)]
pub struct Pace(Arc<watch::Sender<Phase>>);

impl Pace {
    fn new() -> Pace {
        Pace(Arc::new(watch::Sender::new(Phase::Head(Instant::now()))))
    }

    /// A request has come.
    pub fn begin(&self) {
        self.0.send_replace(Phase::Busy);
    }

    /// The connection is idle when the body of the reply was sent or is dropped.
    pub fn until_sent(self, body: Body) -> Body {
        Body::new(Held::new(body, Replying(self)))
    }

    /// Waits until the client was too slow.
    pub async fn expired(&self) {
        let mut phases = self.0.subscribe();
        loop {
            let phase = *phases.borrow_and_update();
            let deadline = match phase {
                Phase::Idle(since) => Some(since + IDLE),
                Phase::Head(since) => Some(since + HEAD),
                Phase::Blocked(since) => Some(since + BLOCKED),
                Phase::Busy => None,
            };
            let expiry = async {
                match deadline {
                    Some(deadline) => sleep_until(deadline).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = expiry => return,
                // `self` keeps the sender.
                _changed = phases.changed() => {}
            }
        }
    }

    /// Replaces the phase where there is another one.
    fn pass(&self, next: impl FnOnce(Phase) -> Option<Phase>) {
        self.0.send_if_modified(|phase| match next(*phase) {
            Some(next) => {
                *phase = next;
                true
            }
            None => false,
        });
    }
}

/// A reply that is being sent.
struct Replying(Pace);

impl Drop for Replying {
    fn drop(&mut self) {
        self.0.0.send_replace(Phase::Idle(Instant::now()));
    }
}

/// A stream with a pace.
pub struct Paced<S> {
    stream: S,
    pace: Pace,
}

impl<S> Paced<S> {
    /// A new connection, which owes the head of a request.
    pub fn new(stream: S) -> Paced<S> {
        Paced {
            stream,
            pace: Pace::new(),
        }
    }

    /// Its pace.
    pub fn pace(&self) -> Pace {
        self.pace.clone()
    }

    fn wrote(&self, is_pending: bool) {
        self.pace.pass(|phase| match (phase, is_pending) {
            (Phase::Busy | Phase::Idle(_), true) => Some(Phase::Blocked(Instant::now())),
            (Phase::Blocked(_), false) => Some(Phase::Busy),
            _ => None,
        });
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Paced<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context,
        buffer: &mut ReadBuf,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(context, buffer);
        if polled.is_ready() && buffer.filled().len() > before {
            self.pace.pass(|phase| match phase {
                Phase::Idle(_) => Some(Phase::Head(Instant::now())),
                _ => None,
            });
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Paced<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.wrote(polled.is_pending());
        polled
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context,
        slices: &[io::IoSlice],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.wrote(polled.is_pending());
        polled
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    /// How long it takes until the client was too slow, in the time of the test.
    async fn expires(pace: &Pace) -> Duration {
        let start = Instant::now();
        pace.expired().await;
        start.elapsed()
    }

    fn is_about(found: Duration, expected: Duration) -> bool {
        (expected..expected + Duration::from_millis(10)).contains(&found)
    }

    #[tokio::test(start_paused = true)]
    async fn heads_and_idle_connections_have_their_times() {
        let (mut client, server) = duplex(16);
        let mut server = Paced::new(server);
        let pace = server.pace();
        assert!(is_about(expires(&pace).await, HEAD));
        pace.begin();
        let busy = tokio::time::timeout(Duration::from_secs(3600), pace.expired()).await;
        assert!(busy.is_err());
        drop(pace.clone().until_sent(Body::empty()));
        assert!(is_about(expires(&pace).await, IDLE));
        drop(pace.clone().until_sent(Body::empty()));
        client.write_all(b"G").await.unwrap();
        server.read_u8().await.unwrap();
        assert!(is_about(expires(&pace).await, HEAD));
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_does_not_read_is_left() {
        let (_client, server) = duplex(16);
        let mut server = Paced::new(server);
        let pace = server.pace();
        pace.begin();
        let reply = [0; 64];
        tokio::select! {
            _ = server.write_all(&reply) => panic!("nobody reads"),
            took = expires(&pace) => assert!(is_about(took, BLOCKED)),
        }
    }
}
