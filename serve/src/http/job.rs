//! A request that was read and checked, on its way through the engine to a reply.

use std::sync::Arc;

use axum::body::Body;
use axum::http::header::CACHE_CONTROL;
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;
use serde_json::{Map, Value};
use tokio::sync::mpsc;
use tokio::time::{Duration, sleep};

use super::answers::Answers;
use super::body::Parts;
use super::error::{ApiError, ApiResult};
use super::events::Running;
use super::form::{Form, Piece};
use super::log::RequestLog;
use super::reply;
use super::served::Served;
use crate::engine::{Event, Request, Work};

/// A request that was read and checked.
pub struct Job {
    /// The model.
    pub served: Arc<Served>,
    /// The path of the route.
    pub route: &'static str,
    /// What the engine computes: one request for each prompt.
    pub requests: Vec<Request>,
    /// What the reply looks like.
    pub form: Box<dyn Form>,
    /// Whether the reply is a stream.
    pub is_streamed: bool,
    /// Fields without effect.
    pub ignored: Vec<String>,
    /// The body, with the seed that was drawn.
    pub body: Map<String, Value>,
}

/// Silence after which a stream says that it lives.
const PING: Duration = Duration::from_secs(15);
/// Parts of a stream that wait for the connection.
const PARTS: usize = 8;

impl Job {
    /// Computes the answer without a client.
    ///
    /// # Errors
    /// What a client would hear.
    pub async fn compute(&self) -> ApiResult<Answers> {
        let mut running = Running::start(Arc::clone(&self.served), self.requests.clone())?;
        let mut answers = self.answers();
        while let Some((request, event)) = running.next().await? {
            answers.add(request, &event);
        }
        Ok(answers)
    }

    /// The reply. Work ends when it is dropped.
    ///
    /// # Errors
    /// What the engine objects to before the reply has begun.
    pub async fn reply(self, log: Option<Arc<RequestLog>>) -> ApiResult<Response> {
        let ignored = self.ignored.clone();
        let mut response = match self.is_streamed {
            true => self.stream(log)?,
            false => self.whole(log).await?,
        };
        reply::name_ignored(&mut response, &ignored);
        Ok(response)
    }

    fn answers(&self) -> Answers {
        let prompts = self.requests.iter().map(|request| request.prompt.clone());
        let choices = self
            .requests
            .first()
            .map_or(1, |request| match &request.work {
                Work::Generate(generate) => generate.choices,
                Work::Embed => 0,
            });
        Answers::new(prompts.collect(), choices)
    }

    async fn whole(self, log: Option<Arc<RequestLog>>) -> ApiResult<Response> {
        let answers = self.compute().await?;
        self.form.check(&self.served, &answers)?;
        let body = self.form.whole(&self.served, &answers);
        let mut response = reply::json(StatusCode::OK, &body);
        let cached = HeaderValue::from(answers.cached_tokens());
        response.headers_mut().insert(reply::CACHED_TOKENS, cached);
        if let Some(log) = log {
            log.write(&self, &answers)?;
        }
        Ok(response)
    }

    fn stream(self, log: Option<Arc<RequestLog>>) -> ApiResult<Response> {
        let running = Running::start(Arc::clone(&self.served), self.requests.clone())?;
        let media = self.form.media();
        let (sender, receiver) = mpsc::channel(PARTS);
        tokio::spawn(Stream { job: self, sender }.send(running, log));
        let body = Body::new(Parts(receiver));
        let mut response = reply::of_type(StatusCode::OK, media, body);
        let headers = response.headers_mut();
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        // nginx would collect the parts.
        headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
        Ok(response)
    }
}

/// The connection of a stream is closed.
struct Closed;

/// A reply that is sent in parts.
struct Stream {
    job: Job,
    sender: mpsc::Sender<String>,
}

impl Stream {
    /// Sends all parts. It ends early when the connection is closed, and `running` with it.
    async fn send(mut self, mut running: Running, log: Option<Arc<RequestLog>>) {
        let mut answers = self.job.answers();
        // An error here is a closed connection, of which nobody can be told.
        let _closed = self.send_all(&mut running, &mut answers, log).await;
    }

    async fn send_all(
        &mut self,
        running: &mut Running,
        answers: &mut Answers,
        log: Option<Arc<RequestLog>>,
    ) -> Result<(), Closed> {
        let mut out = String::new();
        self.job.form.begin(&self.job.served, answers, &mut out);
        loop {
            self.part(&mut out).await?;
            let written = match self.next(running).await? {
                Ok(Some((request, event))) => self.write(answers, request, &event, &mut out),
                Ok(None) => break,
                Err(error) => Err(error),
            };
            if let Err(error) = written {
                self.job.form.fail(&error, &mut out);
                return self.part(&mut out).await;
            }
        }
        if let Some(log) = log
            && let Err(error) = log.write(&self.job, answers)
        {
            self.job.form.fail(&error, &mut out);
            return self.part(&mut out).await;
        }
        self.job.form.finish(&self.job.served, answers, &mut out);
        self.part(&mut out).await
    }

    /// Sends what was written.
    async fn part(&self, out: &mut String) -> Result<(), Closed> {
        if out.is_empty() {
            return Ok(());
        }
        let sent = self.sender.send(std::mem::take(out)).await;
        sent.map_err(|_| Closed)
    }

    /// The next event. Pings are sent while there is none.
    async fn next(
        &self,
        running: &mut Running,
    ) -> Result<ApiResult<Option<(usize, Event)>>, Closed> {
        wait(running.next(), self.job.form.ping(), &self.sender).await
    }

    fn write(
        &mut self,
        answers: &mut Answers,
        request: usize,
        event: &Event,
        out: &mut String,
    ) -> ApiResult<()> {
        answers.add(request, event);
        let (form, served) = (&mut self.job.form, &self.job.served);
        match event {
            Event::Prompt(_) => form.prompt(served, answers, request, out),
            Event::Piece {
                choice,
                text,
                tokens,
            } => {
                let index = answers.index(request, *choice);
                let piece = Piece {
                    index,
                    text,
                    tokens,
                };
                form.piece(served, answers, piece, out);
            }
            Event::End(end) => {
                form.check(served, answers)?;
                let index = answers.index(request, end.choice);
                form.end(served, answers, index, end, out);
            }
            Event::Embedding { .. } | Event::Failed(_) => {}
        }
        Ok(())
    }
}

/// Waits for something, and sends a ping after each silence.
async fn wait<T>(
    next: impl Future<Output = T>,
    ping: &str,
    sender: &mpsc::Sender<String>,
) -> Result<T, Closed> {
    tokio::pin!(next);
    loop {
        tokio::select! {
            () = sender.closed() => return Err(Closed),
            next = &mut next => return Ok(next),
            () = sleep(PING), if !ping.is_empty() => {
                let sent = sender.send(ping.to_owned()).await;
                sent.map_err(|_| Closed)?;
            }
        }
    }
}

/// A part of an id that no other reply has.
///
/// # Errors
/// A system without random numbers.
pub fn unique() -> ApiResult<String> {
    let mut bytes = [0; 12];
    let drawn = getrandom::fill(&mut bytes);
    drawn.map_err(|error| ApiError::internal(format!("no random id: {error}")))?;
    Ok(sterna_ternary::sha256::hex(&bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_silent_stream_says_that_it_lives() {
        let (sender, mut receiver) = mpsc::channel(PARTS);
        let slow = async {
            sleep(2 * PING + Duration::from_secs(1)).await;
            7
        };
        assert!(matches!(wait(slow, ": ping\n\n", &sender).await, Ok(7)));
        assert_eq!(receiver.try_recv().unwrap(), ": ping\n\n");
        assert_eq!(receiver.try_recv().unwrap(), ": ping\n\n");
        assert!(receiver.try_recv().is_err());
        drop(receiver);
        let never = std::future::pending::<()>();
        assert!(wait(never, "", &sender).await.is_err());
    }
}
