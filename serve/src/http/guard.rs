//! What every request passes: its host, its key, its origin, an id.

use std::sync::Arc;
use std::time::Instant;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;

use super::app::App;
use super::body::Held;
use super::error::{ApiError, ApiResult};
use super::job::unique;
use super::keys::Keys;
use super::settings::{Replied, Settings};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Headers that pages of allowed origins may send: those of the API and of clients in browsers.
const SENT: &str = "accept, authorization, content-type, idempotency-key, user-agent, x-api-key, \
                    x-client-request-id, x-request-id, x-session";
/// Beginnings of names that they may send, too. Clients send their versions and settings in them.
const SENT_PREFIXES: [&str; 3] = ["anthropic-", "openai-", "x-stainless-"];
/// Headers of replies that they may read.
const READ: &str = "retry-after, x-request-id, x-should-retry, x-sterna-cached-tokens, \
                    x-sterna-ignored";
/// Longest id of a request that is taken from the client.
const LONGEST_ID: usize = 128;
/// Most bytes of path and headers. The connection's own bound is looser.
pub const HEAD: usize = 32 << 10;

/// The index of the client's key.
///
/// # Errors
/// 401.
pub fn key(keys: &Keys, headers: &HeaderMap) -> ApiResult<usize> {
    if keys.is_empty() {
        return Ok(0);
    }
    let bearer = headers
        .get(header::AUTHORIZATION)
        .map(HeaderValue::as_bytes);
    let bearer = bearer.and_then(|value| {
        let (scheme, key) = value.split_at_checked("bearer ".len())?;
        scheme.eq_ignore_ascii_case(b"bearer ").then_some(key)
    });
    let other = headers.get("x-api-key").map(HeaderValue::as_bytes);
    let given = bearer.or(other);
    given
        .and_then(|key| keys.find(key.trim_ascii()))
        .ok_or_else(ApiError::key)
}

/// Checks the host, answers preflights, gives the reply its headers and counts it.
pub async fn guard(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let start = Instant::now();
    let permit = app.begin();
    let id = id(request.headers());
    let origin = allowed_origin(&app.settings, request.headers());
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let mut response = match check(&app.settings, &request) {
        Err(error) => error.reply(&path),
        Ok(()) if method == Method::OPTIONS && origin.is_some() => preflight(request.headers()),
        Ok(()) => next.run(request).await,
    };
    let headers = response.headers_mut();
    if let Some(origin) = origin {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.insert(
            header::ACCESS_CONTROL_EXPOSE_HEADERS,
            HeaderValue::from_static(READ),
        );
    }
    if !app.settings.origins.is_empty() {
        headers.append(header::VARY, HeaderValue::from_static("origin"));
    }
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    let shown = id.to_str().unwrap_or_default().to_owned();
    headers.insert(REQUEST_ID, id);
    if let Some(on_reply) = &app.settings.on_reply {
        on_reply(&Replied {
            id: shown,
            method: method.to_string(),
            path,
            status: response.status().as_u16(),
            time: start.elapsed(),
        });
    }
    response.map(|body| Body::new(Held::new(body, permit)))
}

/// The id that the client gave, or a new one.
fn id(headers: &HeaderMap) -> HeaderValue {
    let given = headers.get(REQUEST_ID).filter(|id| {
        let bytes = id.as_bytes();
        (1..=LONGEST_ID).contains(&bytes.len()) && bytes.iter().all(u8::is_ascii_graphic)
    });
    given.cloned().unwrap_or_else(|| {
        let id = unique().unwrap_or_else(|_| "unknown".into());
        HeaderValue::from_str(&id).expect("hexadecimal digits are ASCII")
    })
}

/// Refuses heads that are too large, and hosts that the server is not.
fn check(settings: &Settings, request: &Request) -> ApiResult<()> {
    check_size(request)?;
    let host = host(request);
    match settings.answers_for(&host) {
        true => Ok(()),
        false => Err(ApiError::host(&host)),
    }
}

/// Refuses heads that are too large.
///
/// # Errors
/// 431.
pub fn check_size(request: &Request) -> ApiResult<()> {
    let lines = request.headers().iter();
    let size: usize = lines
        .map(|(name, value)| name.as_str().len() + value.len() + ": \r\n".len())
        .sum();
    let path = request.uri().path_and_query();
    if size + path.map_or(0, |path| path.as_str().len()) > HEAD {
        return Err(ApiError::head(HEAD));
    }
    Ok(())
}

/// The host that a request is for; empty if it names none.
pub fn host(request: &Request) -> String {
    match request.headers().get(header::HOST) {
        Some(host) => String::from_utf8_lossy(host.as_bytes()).into_owned(),
        // The target of a request may be a whole address.
        None => request
            .uri()
            .authority()
            .map_or(String::new(), ToString::to_string),
    }
}

/// The origin of a request, if its pages may read answers.
fn allowed_origin(settings: &Settings, headers: &HeaderMap) -> Option<HeaderValue> {
    let origin = headers.get(header::ORIGIN)?;
    let is_it = |allowed: &String| allowed == "*" || allowed.as_bytes() == origin.as_bytes();
    let is_allowed = settings.origins.iter().any(is_it);
    is_allowed.then(|| origin.clone())
}

/// Says which methods and headers a page may send. A browser compares every header that it asks
/// for, and `*` would not stand for `authorization`.
fn preflight(asks: &HeaderMap) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    let headers = response.headers_mut();
    let mut say = |name, value| headers.insert(name, HeaderValue::from_static(value));
    say(header::ACCESS_CONTROL_ALLOW_METHODS, "GET, POST");
    say(header::ACCESS_CONTROL_MAX_AGE, "600");
    headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, sendable(asks));
    response
}

/// Those of the headers that a page asks for that it may send, beside those that it always may.
fn sendable(asks: &HeaderMap) -> HeaderValue {
    let asked = asks.get_all(header::ACCESS_CONTROL_REQUEST_HEADERS).iter();
    let asked = asked.flat_map(|names| names.as_bytes().split(|byte| *byte == b','));
    let names = asked.filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok());
    let is_known = |name: &HeaderName| SENT_PREFIXES.iter().any(|p| name.as_str().starts_with(p));
    let mut list = SENT.to_owned();
    for name in names.filter(is_known) {
        list += ", ";
        list += name.as_str();
    }
    HeaderValue::from_str(&list).expect("names of headers are ASCII")
}
