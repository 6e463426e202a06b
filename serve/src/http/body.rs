//! Bodies: those of requests, read with limits, and those of replies that are sent in parts.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::{Body, HttpBody};
use axum::http::HeaderMap;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE, EXPECT};
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::{Duration, timeout};

use super::error::{ApiError, ApiResult};

/// Most bytes of a body.
pub const LARGEST: usize = 8 << 20;
/// Bytes from which a body is a large one.
const LARGE: usize = 256 << 10;
/// Large bodies that are in memory at the same time.
pub const LARGE_BODIES: usize = 8;
/// Longest wait for the next part of a body.
const WAIT: Duration = Duration::from_secs(10);
/// Longest time of a whole body.
const LONGEST: Duration = Duration::from_secs(120);
/// Longest time in which a body is read and thrown away, and the most bytes.
const DRAIN: Duration = Duration::from_secs(5);
const DRAINED: usize = 64 << 20;

/// A body in memory. Few large ones are there at the same time.
pub struct Content {
    /// The bytes.
    pub bytes: Vec<u8>,
    place: Option<OwnedSemaphorePermit>,
}

/// The bytes of a JSON body. `places` are those of large bodies.
///
/// # Errors
/// 415, 413, 408, and 400 for a body that breaks off.
pub async fn read(headers: &HeaderMap, body: Body, places: Arc<Semaphore>) -> ApiResult<Content> {
    let media = headers.get(CONTENT_TYPE).map(|value| value.as_bytes());
    let media = String::from_utf8_lossy(media.unwrap_or_default());
    let kind = media.split(';').next().unwrap_or_default().trim();
    if !kind.eq_ignore_ascii_case("application/json") {
        return Err(ApiError::media(&media));
    }
    let length = headers.get(CONTENT_LENGTH);
    let length = length.and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if length.is_some_and(|length| length > LARGEST as u64) {
        return Err(ApiError::large(LARGEST));
    }
    let collected = timeout(LONGEST, collect(body, places)).await;
    collected.unwrap_or_else(|_| Err(ApiError::slow(LONGEST.as_secs())))
}

async fn collect(mut body: Body, places: Arc<Semaphore>) -> ApiResult<Content> {
    let mut content = Content {
        bytes: Vec::new(),
        place: None,
    };
    loop {
        let frame = timeout(WAIT, body.frame()).await;
        let frame = frame.map_err(|_| ApiError::slow(WAIT.as_secs()))?;
        let Some(frame) = frame else {
            return Ok(content);
        };
        let frame = frame.map_err(|error| {
            let cause = std::error::Error::source(&error).map(ToString::to_string);
            let cause = cause.unwrap_or_else(|| error.to_string());
            ApiError::json(None, format!("the body cannot be read: {cause}"))
        })?;
        // Trailers have no data.
        let data = frame.into_data().unwrap_or_default();
        let size = content.bytes.len() + data.len();
        if size > LARGEST {
            return Err(ApiError::large(LARGEST));
        }
        if size > LARGE && content.place.is_none() {
            content.place = Arc::clone(&places).acquire_owned().await.ok();
        }
        content.bytes.extend_from_slice(&data);
    }
}

/// The body of a request. What is left of it when it is dropped is read and thrown away beside the
/// reply, so that a client that is still sending reads the reply before the connection is closed.
pub struct Drained(Option<Body>);

impl Drained {
    /// The body of a request. A client that asks before it sends is not told to send what would be
    /// thrown away.
    pub fn of(headers: &HeaderMap, body: Body) -> Body {
        match headers.contains_key(EXPECT) {
            true => body,
            false => Body::new(Drained(Some(body))),
        }
    }
}

impl HttpBody for Drained {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        match &mut self.0 {
            Some(body) => Pin::new(body).poll_frame(context),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.0.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        let none = || SizeHint::with_exact(0);
        self.0.as_ref().map_or_else(none, HttpBody::size_hint)
    }
}

impl Drop for Drained {
    fn drop(&mut self) {
        let Some(body) = self.0.take().filter(|body| !body.is_end_stream()) else {
            return;
        };
        // Without a runtime the server has ended.
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(drain(body));
        }
    }
}

async fn drain(mut body: Body) {
    let read = async {
        let mut left = DRAINED;
        while let Some(Ok(frame)) = body.frame().await {
            let size = frame.data_ref().map_or(0, Bytes::len);
            left = left.saturating_sub(size.max(1));
            if left == 0 {
                return;
            }
        }
    };
    // The connection is closed when `body` is dropped, however the reading ended.
    let _late = timeout(DRAIN, read).await;
}

/// A body that is sent in parts, as they come.
pub struct Parts(pub mpsc::Receiver<String>);

impl HttpBody for Parts {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let part = self.0.poll_recv(context);
        part.map(|part| part.map(|text| Ok(Frame::data(text.into()))))
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

/// A body that holds something until it was sent or is dropped.
pub struct Held<T> {
    body: Body,
    _held: T,
}

impl<T> Held<T> {
    /// Holds `held` as long as the body exists.
    pub fn new(body: Body, held: T) -> Held<T> {
        Held { body, _held: held }
    }
}

impl<T: Unpin> HttpBody for Held<T> {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
