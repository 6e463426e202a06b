//! Connections: accepted, bounded, read with limits, and drained.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{Semaphore, watch};
use tokio::time::{sleep, timeout};

use super::app::App;
use super::body::Drained;
use super::explained::Explained;
use super::guard::HEAD;
use super::pace::Paced;
use super::routes::router;
use super::served::Served;
use super::settings::Settings;

/// Most connections.
const CONNECTIONS: usize = 1024;
/// Threads of all connections. They mostly wait.
const THREADS: usize = 2;
/// Time for the last parts of replies after the drain.
const FLUSH: Duration = Duration::from_secs(1);
/// What a connection hears that is one too many.
const TOO_MANY: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\n\
    retry-after: 1\r\nconnection: close\r\ncontent-length: 121\r\n\r\n{\"error\":{\"message\":\
    \"there are too many connections; come again later\",\"type\":\"server_error\",\
    \"param\":null,\"code\":\"busy\"}}";

/// A server that cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum BadServer {
    /// An address that others reach, and no key.
    #[error(
        "{0} can be reached from other machines, and no key is set: expected keys \
         (--api-key-file), or --no-key to answer everybody"
    )]
    Open(SocketAddr),
    /// The address.
    #[error("listening on {address}: {source}")]
    Address {
        /// The address.
        address: SocketAddr,
        /// The cause.
        source: std::io::Error,
    },
    /// The threads of the connections.
    #[error("starting the threads of the connections: {0}")]
    Threads(std::io::Error),
}

/// A running server.
pub struct Server {
    app: Arc<App>,
    address: SocketAddr,
    drain: watch::Sender<bool>,
    ended: Receiver<usize>,
    runtime: Runtime,
}

impl Server {
    /// Listens. Until [`Server::serve`] is called, work is answered with 503.
    ///
    /// # Errors
    /// [`BadServer`].
    pub fn start(settings: Settings) -> Result<Server, BadServer> {
        let address = settings.address;
        if !address.ip().is_loopback() && settings.keys.is_empty() && !settings.is_open {
            return Err(BadServer::Open(address));
        }
        let mut runtime = Builder::new_multi_thread();
        runtime.worker_threads(THREADS).thread_name("sterna-http");
        let runtime = runtime.enable_all().build().map_err(BadServer::Threads)?;
        let bad = |source| BadServer::Address { address, source };
        let listener = runtime.block_on(TcpListener::bind(address)).map_err(bad)?;
        let address = listener.local_addr().map_err(bad)?;
        let app = Arc::new(App::new(settings));
        let (drain, draining) = watch::channel(false);
        let (end, ended) = channel();
        runtime.spawn(run(listener, Arc::clone(&app), draining, end));
        Ok(Server {
            app,
            address,
            drain,
            ended,
            runtime,
        })
    }

    /// Where the server listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers requests for these models from now on.
    pub fn serve(&self, models: Vec<Served>) {
        self.app.serve(models);
    }

    /// What can begin the drain from another thread, such as a signal's.
    pub fn drain(&self) -> Drain {
        Drain(self.drain.clone())
    }

    /// Waits for the end of the drain. Returns the number of requests that it cut off.
    pub fn wait(self) -> usize {
        // The sender is dropped only with the runtime.
        let cut = self.ended.recv().unwrap_or(0);
        self.runtime.shutdown_timeout(FLUSH);
        cut
    }
}

/// Begins the drain of a server.
#[derive(Debug, Clone)]
pub struct Drain(watch::Sender<bool>);

impl Drain {
    /// Refuses new work, waits for answers and then ends the server.
    pub fn begin(&self) {
        self.0.send_replace(true);
    }
}

/// Answers connections until the drain is over.
async fn run(
    listener: TcpListener,
    app: Arc<App>,
    mut draining: watch::Receiver<bool>,
    end: Sender<usize>,
) {
    let router = router(Arc::clone(&app));
    let (close, closing) = watch::channel(false);
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let drained = async {
        // An error means that the server was dropped.
        let _dropped = draining.changed().await;
        app.drain();
        let is_finished = timeout(app.settings.drain, app.finished()).await.is_ok();
        let cut = if is_finished { 0 } else { app.in_flight() };
        app.stop();
        // Answers that were cut off say so before their connections are closed.
        let _late = timeout(FLUSH, app.finished()).await;
        close.send_replace(true);
        let _late = timeout(FLUSH, places.acquire_many(CONNECTIONS as u32)).await;
        cut
    };
    tokio::select! {
        cut = drained => {
            // Nobody may wait for it.
            let _gone = end.send(cut);
        }
        () = accept(listener, router, Arc::clone(&places), closing) => {}
    }
}

/// Accepts connections without end, as many at a time as there are places.
pub async fn accept(
    listener: TcpListener,
    router: Router,
    places: Arc<Semaphore>,
    closing: watch::Receiver<bool>,
) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            // The process has no more file descriptors, or the client was gone at once.
            sleep(Duration::from_millis(10)).await;
            continue;
        };
        match Arc::clone(&places).try_acquire_owned() {
            Ok(place) => {
                let (router, closing) = (router.clone(), closing.clone());
                tokio::spawn(async move {
                    connection(stream, router, closing).await;
                    drop(place);
                });
            }
            Err(_) => {
                // As much as the socket takes.
                let _ = stream.try_write(TOO_MANY);
            }
        }
    }
}

/// Answers the requests of a connection.
async fn connection(stream: TcpStream, router: Router, mut closing: watch::Receiver<bool>) {
    // Parts of a stream are small and must not wait for each other; without it they only do.
    let _slower = stream.set_nodelay(true);
    let paced = Paced::new(stream);
    let pace = paced.pace();
    let service = service_fn(|request: hyper::Request<hyper::body::Incoming>| {
        let (mut router, pace) = (router.clone(), pace.clone());
        async move {
            pace.begin();
            let (head, body) = request.into_parts();
            let body = Drained::of(&head.headers, Body::new(body));
            let request = hyper::Request::from_parts(head, body);
            let response = tower_service::Service::call(&mut router, request).await;
            Ok::<_, Infallible>(match response {
                Ok(response) => response.map(|body| pace.until_sent(body)),
                Err(never) => match never {},
            })
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(None)
        .max_buf_size(HEAD)
        .serve_connection(TokioIo::new(Explained::new(paced)), service);
    tokio::pin!(connection);
    let mut is_closing = false;
    loop {
        tokio::select! {
            // Errors are the client's: it left, or it did not speak HTTP.
            _ended = connection.as_mut() => return,
            () = pace.expired() => return,
            _changed = closing.changed(), if !is_closing => {
                is_closing = true;
                connection.as_mut().graceful_shutdown();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reply_to_one_connection_too_many_is_well_formed() {
        let text = std::str::from_utf8(TOO_MANY).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("\r\ncontent-length: {}", body.len())));
        let error: serde_json::Value = serde_json::from_str(body).unwrap();
        assert_eq!(error["error"]["code"], "busy");
    }
}
