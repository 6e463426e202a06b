//! Reasons for what hyper refuses by itself.
//!
//! Bytes that are not HTTP never reach a route: hyper answers them with a status and without a
//! body. This stream, between hyper and the socket, gives such a reply the JSON of other errors.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use axum::http::StatusCode;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::error::ApiError;
use super::guard::HEAD;

/// A stream whose refusals have reasons.
pub struct Explained<S> {
    stream: S,
    /// The rest of a reply that takes the place of hyper's.
    rest: Vec<u8>,
}

impl<S> Explained<S> {
    /// The stream of a connection.
    pub fn new(stream: S) -> Explained<S> {
        Explained {
            stream,
            rest: Vec::new(),
        }
    }
}

impl<S: AsyncWrite + Unpin> Explained<S> {
    fn poll_rest(&mut self, context: &mut Context) -> Poll<io::Result<()>> {
        while !self.rest.is_empty() {
            let written = ready!(Pin::new(&mut self.stream).poll_write(context, &self.rest))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.rest.drain(..written);
        }
        Poll::Ready(Ok(()))
    }

    /// Takes `bytes` as written if they are a refusal of hyper.
    fn take(&mut self, context: &mut Context, bytes: &[u8]) -> io::Result<bool> {
        let Some(reply) = explained(bytes) else {
            return Ok(false);
        };
        self.rest = reply;
        match self.poll_rest(context) {
            Poll::Ready(written) => written.map(|()| true),
            Poll::Pending => Ok(true),
        }
    }
}

/// The reply with a reason, if the bytes are one without a body.
fn explained(bytes: &[u8]) -> Option<Vec<u8>> {
    let head = bytes.strip_suffix(b"\r\n\r\n")?;
    let head = std::str::from_utf8(head).ok()?;
    let (first, fields) = head.split_once("\r\n")?;
    let error = match first.strip_prefix("HTTP/1.1 ")?.get(..3)? {
        "400" => ApiError::not_http(),
        "414" | "431" => ApiError::head(HEAD),
        _ => return None,
    };
    let mut fields: Vec<&str> = fields.split("\r\n").collect();
    let length = fields
        .iter()
        .position(|field| field.eq_ignore_ascii_case("content-length: 0"))?;
    fields.remove(length);
    let body = error.body().to_string();
    let status = error.status;
    let reason = StatusCode::canonical_reason(&status).unwrap_or_default();
    let mut reply = format!("HTTP/1.1 {} {reason}\r\n", status.as_u16());
    for field in fields {
        reply += field;
        reply += "\r\n";
    }
    reply += &format!(
        "content-type: application/json\r\nx-should-retry: false\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    );
    Some(reply.into_bytes())
}

impl<S: AsyncRead + Unpin> AsyncRead for Explained<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context,
        buffer: &mut ReadBuf,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Explained<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_rest(context))?;
        match self.take(context, bytes)? {
            true => Poll::Ready(Ok(bytes.len())),
            false => Pin::new(&mut self.stream).poll_write(context, bytes),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context,
        slices: &[IoSlice],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_rest(context))?;
        if let [bytes] = slices
            && self.take(context, bytes)?
        {
            return Poll::Ready(Ok(bytes.len()));
        }
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context) -> Poll<io::Result<()>> {
        ready!(self.poll_rest(context))?;
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context) -> Poll<io::Result<()>> {
        ready!(self.poll_rest(context))?;
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    /// What arrives when this is written, through a pipe that takes few bytes at a time.
    async fn arrives(written: &[u8]) -> String {
        let (mut client, server) = duplex(7);
        let mut server = Explained::new(server);
        let write = async {
            server.write_all(written).await.unwrap();
            server.shutdown().await.unwrap();
        };
        let mut text = String::new();
        let read = client.read_to_string(&mut text);
        let ((), read) = tokio::join!(write, read);
        read.unwrap();
        text
    }

    #[tokio::test]
    async fn refusals_without_a_body_get_a_reason() {
        for status in ["400 Bad Request", "431 Request Header Fields Too Large"] {
            let bare = format!(
                "HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: 0\r\ndate: today\r\n\r\n"
            );
            let text = arrives(bare.as_bytes()).await;
            let (head, body) = text.split_once("\r\n\r\n").unwrap();
            assert!(head.starts_with(&format!("HTTP/1.1 {status}\r\nconnection: close\r\n")));
            assert!(head.ends_with(&format!("\r\ncontent-length: {}", body.len())));
            let body: serde_json::Value = serde_json::from_str(body).unwrap();
            assert_eq!(body["error"]["type"], "invalid_request_error");
        }
    }

    #[tokio::test]
    async fn other_replies_do_not_change() {
        for reply in [
            "HTTP/1.1 400 Bad Request\r\ncontent-length: 2\r\n\r\n{}",
            "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
            "HTTP/1.1 400 Bad Request\r\ncontent-length: 07\r\n\r\n",
            "data: HTTP/1.1 400 \r\ncontent-length: 0\r\n\r\n",
        ] {
            assert_eq!(arrives(reply.as_bytes()).await, reply);
        }
    }
}
