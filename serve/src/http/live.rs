//! The page of a run that is trained: its curves so far, for people at this machine.
//!
//! One thread answers, and it never has what training waits for: the curves are a closure, which is
//! called when the page asks.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use axum::routing::get;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{Semaphore, watch};

use super::listen::{BadServer, accept};
use super::settings::Settings;
use super::{guard, reply, status};
use crate::page;

/// Most connections.
const CONNECTIONS: usize = 64;
const TEXT: &str = "text/plain; charset=utf-8";

/// A page about one run. It is closed when this is dropped.
pub struct Live {
    address: SocketAddr,
    _close: watch::Sender<bool>,
    _runtime: Runtime,
}

/// What the page shows.
type Curves = Arc<Mutex<dyn FnMut() -> Value + Send>>;

impl Live {
    /// Opens a page about `curves` on this port of the loopback address; 0 is any free port.
    ///
    /// # Errors
    /// The port is taken, or the thread cannot be started.
    pub fn open(
        port: u16,
        curves: impl FnMut() -> Value + Send + 'static,
    ) -> Result<Live, BadServer> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let mut runtime = Builder::new_multi_thread();
        runtime.worker_threads(1).thread_name("sterna-watch");
        let runtime = runtime.enable_all().build().map_err(BadServer::Threads)?;
        let bad = |source| BadServer::Address { address, source };
        let listener = runtime.block_on(TcpListener::bind(address)).map_err(bad)?;
        let address = listener.local_addr().map_err(bad)?;
        let router = router(Settings::new(address), Arc::new(Mutex::new(curves)));
        let (close, closing) = watch::channel(false);
        let places = Arc::new(Semaphore::new(CONNECTIONS));
        runtime.spawn(accept(listener, router, places, closing));
        Ok(Live {
            address,
            _close: close,
            _runtime: runtime,
        })
    }

    /// Where the page is.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

fn router(settings: Settings, curves: Curves) -> Router {
    Router::new()
        .route("/", get(|| async { status::document(page::live()) }))
        .route("/curves", get(shown))
        .fallback(|| async {
            reply::of_type(StatusCode::NOT_FOUND, TEXT, "no such page: open /\n")
        })
        .layer(from_fn_with_state(Arc::new(settings), check))
        .with_state(curves)
}

async fn shown(State(curves): State<Curves>) -> Response {
    // Curves whose writing panicked are still numbers.
    let mut curves = curves.lock().unwrap_or_else(PoisonError::into_inner);
    reply::json(StatusCode::OK, &curves())
}

/// Refuses hosts that this machine is not, and gives replies their headers.
async fn check(State(settings): State<Arc<Settings>>, request: Request, next: Next) -> Response {
    let host = guard::host(&request);
    let mut response = match guard::check_size(&request) {
        Err(error) => error.reply(request.uri().path()),
        Ok(()) if settings.answers_for(&host) => next.run(request).await,
        Ok(()) => {
            let (host, address) = (sterna_ternary::json::shown(&host), settings.address);
            let why = format!(
                "the request is for the host {host:?}, and this page is for its own machine: open \
                 http://{address}/\n"
            );
            reply::of_type(StatusCode::FORBIDDEN, TEXT, why)
        }
    };
    let headers = response.headers_mut();
    let mut say = |name, value| headers.insert(name, HeaderValue::from_static(value));
    say(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    say(header::CACHE_CONTROL, "no-store");
    response
}
