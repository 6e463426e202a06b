//! The table of routes, and the way of a request through it.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::Response;
use axum::routing::{MethodFilter, on};
use serde_json::{Map, Value};

use super::app::App;
use super::error::{ApiError, ApiResult};
use super::fields::{self, Fields};
use super::job::Job;
use super::served::Served;
use super::{
    body, chat, completions, embeddings, guard, json, local, messages, metrics, ollama, openapi,
    reply, responses, status, texts,
};

/// Who may use a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Everybody.
    Open,
    /// Clients with a key, where keys are set.
    Keyed,
}

/// Reads the body of a request, which came with the key of this index. Unknown fields are refused
/// if the last argument says so.
pub type ReadJob = fn(Arc<Served>, Map<String, Value>, usize, bool) -> ApiResult<Job>;

/// What answers a request.
#[derive(Clone, Copy)]
pub enum Answer {
    /// A reply about the server.
    Status(fn(&App) -> ApiResult<Response>),
    /// A reply about the model of a name, which is the rest of the path.
    Named(fn(&App, &str) -> ApiResult<Response>),
    /// A JSON object from the fields of a body, without the engine.
    Object(Fields, fn(&Served, &Map<String, Value>) -> ApiResult<Value>),
    /// Work for the engine.
    Job(ReadJob),
    /// Nothing: what another API has here is not done, and this is why.
    Absent(MethodFilter, &'static str),
}

/// A route.
pub struct Route {
    /// The path.
    pub path: &'static str,
    /// Who may use it.
    pub access: Access,
    /// What answers it: a GET for what is read, a POST for what has a body.
    pub answer: Answer,
}

const fn open(path: &'static str, answer: fn(&App) -> ApiResult<Response>) -> Route {
    Route {
        path,
        access: Access::Open,
        answer: Answer::Status(answer),
    }
}

const fn keyed(path: &'static str, answer: Answer) -> Route {
    Route {
        path,
        access: Access::Keyed,
        answer,
    }
}

/// All routes.
pub static ROUTES: &[Route] = &[
    open("/", status::page),
    open("/health", status::health),
    open("/v1/health", status::health),
    open("/ready", status::ready),
    // Collectors and pickers of endpoints have no keys, and the numbers are no secrets.
    open("/metrics", metrics::text),
    open("/version", status::version),
    open("/openapi.json", openapi::reply),
    // A browser asks for parts of a page without a key; the models need one.
    open("/local", local::page),
    open("/local/", |app| local::file(app, "index.html")),
    open("/local/page.js", |app| local::file(app, "page.js")),
    open("/local/sterna.js", |app| local::file(app, "sterna.js")),
    open("/local/sterna.wasm", |app| local::file(app, "sterna.wasm")),
    open("/local/style.css", |app| local::file(app, "style.css")),
    open("/local/worker.js", |app| local::file(app, "worker.js")),
    keyed("/local/models.json", Answer::Status(local::models)),
    keyed("/local/models/{*name}", Answer::Named(local::model)),
    open("/tokenizer_info", texts::tokenizer_info),
    keyed("/v1/models", Answer::Status(status::models)),
    keyed("/v1/models/{*name}", Answer::Named(status::model)),
    keyed("/props", Answer::Status(status::props)),
    keyed("/slots", Answer::Status(status::slots)),
    keyed("/server_info", Answer::Status(status::server_info)),
    keyed("/get_server_info", Answer::Status(status::server_info)),
    keyed("/model_info", Answer::Status(status::model_info)),
    keyed("/get_model_info", Answer::Status(status::model_info)),
    keyed("/v1/loads", Answer::Status(status::loads)),
    keyed(
        "/tokenize",
        Answer::Object(Fields::Tokenize, texts::tokenize),
    ),
    keyed(
        "/detokenize",
        Answer::Object(Fields::Detokenize, texts::detokenize),
    ),
    keyed(
        "/apply-template",
        Answer::Object(Fields::Template, texts::apply_template),
    ),
    keyed("/v1/chat/completions", Answer::Job(chat::job)),
    keyed("/v1/completions", Answer::Job(completions::job)),
    keyed("/v1/embeddings", Answer::Job(embeddings::job)),
    keyed("/v1/responses", Answer::Job(responses::job)),
    keyed(
        "/v1/responses/input_tokens",
        Answer::Object(Fields::Responses, responses::input_tokens),
    ),
    keyed("/v1/messages", Answer::Job(messages::job)),
    keyed(
        "/v1/messages/count_tokens",
        Answer::Object(Fields::Messages, messages::count_tokens),
    ),
    open("/api/version", ollama::version),
    keyed("/api/tags", Answer::Status(ollama::tags)),
    keyed("/api/ps", Answer::Status(ollama::running)),
    keyed(
        "/api/show",
        Answer::Object(Fields::OllamaShow, ollama::show),
    ),
    keyed("/api/chat", Answer::Job(ollama::chat)),
    keyed("/api/generate", Answer::Job(ollama::generate)),
    keyed("/api/embed", Answer::Job(ollama::embed)),
    keyed("/api/pull", absent(MethodFilter::POST)),
    keyed("/api/push", absent(MethodFilter::POST)),
    keyed("/api/create", absent(MethodFilter::POST)),
    keyed("/api/copy", absent(MethodFilter::POST)),
    keyed("/api/delete", absent(MethodFilter::DELETE)),
];

/// A change of models.
const fn absent(method: MethodFilter) -> Answer {
    let why = "this server does not change its models; start `sterna serve` with others";
    Answer::Absent(method, why)
}

/// The reader of a route for the engine.
pub fn job(path: &str) -> Option<ReadJob> {
    let route = ROUTES.iter().find(|route| route.path == path)?;
    match route.answer {
        Answer::Job(job) => Some(job),
        _ => None,
    }
}

impl Route {
    fn method(&self) -> MethodFilter {
        match self.answer {
            Answer::Status(_) | Answer::Named(_) => MethodFilter::GET,
            Answer::Object(..) | Answer::Job(_) => MethodFilter::POST,
            Answer::Absent(method, _) => method,
        }
    }

    /// Its method as OpenAPI names it.
    pub fn verb(&self) -> &'static str {
        match self.answer {
            Answer::Status(_) | Answer::Named(_) => "get",
            Answer::Absent(method, _) if method == MethodFilter::DELETE => "delete",
            Answer::Object(..) | Answer::Job(_) | Answer::Absent(..) => "post",
        }
    }

    /// Whether a path is its own.
    fn is_at(&self, path: &str) -> bool {
        match self.path.split_once('{') {
            Some((prefix, _)) => path.starts_with(prefix),
            None => path == self.path,
        }
    }

    /// Answers a request for it.
    async fn answer(&'static self, app: Arc<App>, request: Request) -> Response {
        let method = request.method().clone();
        let path = request.uri().path().to_owned();
        let outcome = self.outcome(&app, request).await;
        let response = outcome.unwrap_or_else(|error| error.reply(&path));
        if method != Method::HEAD {
            app.count(self.path, response.status().as_u16());
        }
        response
    }

    async fn outcome(&self, app: &Arc<App>, request: Request) -> ApiResult<Response> {
        let key = match self.access {
            Access::Open => 0,
            Access::Keyed => guard::key(&app.settings.keys, request.headers())?,
        };
        let (head, body) = request.into_parts();
        match self.answer {
            Answer::Status(answer) => answer(app),
            Answer::Named(answer) => {
                let (prefix, _) = self.path.split_once('{').expect("its path has a name");
                let name = head.uri.path().strip_prefix(prefix).unwrap_or_default();
                answer(app, &decoded(name))
            }
            Answer::Object(fields, answer) => {
                let is_strict = app.settings.is_strict;
                let read = self.read(app, &head.headers, body, move |served, body| {
                    let ignored = fields::ignored(&body, fields, is_strict)?;
                    Ok((answer(&served, &body)?, ignored))
                });
                let (object, ignored) = read.await?;
                let mut response = reply::json(StatusCode::OK, &object);
                reply::name_ignored(&mut response, &ignored);
                Ok(response)
            }
            Answer::Absent(_, why) => Err(ApiError::absent(why)),
            Answer::Job(job) => {
                let is_strict = app.settings.is_strict;
                let read = self.read(app, &head.headers, body, move |served, body| {
                    job(served, body, key, is_strict)
                });
                read.await?.reply(app.settings.log.clone()).await
            }
        }
    }

    /// Reads a body and makes something of it, for the model that it names.
    async fn read<T: Send + 'static>(
        &self,
        app: &Arc<App>,
        headers: &HeaderMap,
        body: Body,
        make: impl FnOnce(Arc<Served>, Map<String, Value>) -> ApiResult<T> + Send + 'static,
    ) -> ApiResult<T> {
        app.check_open()?;
        let content = body::read(headers, body, app.large_bodies()).await?;
        let shared = Arc::clone(app);
        app.read(move || {
            let body = json::object(&content.bytes)?;
            drop(content);
            make(Arc::clone(shared.model(&body)?), body)
        })
        .await
    }
}

/// The service of all routes.
pub fn router(app: Arc<App>) -> Router {
    let mut router = Router::new();
    for route in ROUTES {
        let answer =
            move |State(app): State<Arc<App>>, request: Request| route.answer(app, request);
        router = router.route(route.path, on(route.method(), answer));
    }
    router
        .fallback(unknown)
        .method_not_allowed_fallback(not_allowed)
        .layer(axum::middleware::from_fn_with_state(
            Arc::clone(&app),
            guard::guard,
        ))
        .with_state(app)
}

async fn unknown(State(app): State<Arc<App>>, request: Request) -> Response {
    app.count("other", 404);
    let path = request.uri().path();
    ApiError::route(path).reply(path)
}

async fn not_allowed(State(app): State<Arc<App>>, request: Request) -> Response {
    app.count("other", 405);
    let path = request.uri().path();
    let mut response = ApiError::method(request.method().as_str(), path).reply(path);
    let route = ROUTES.iter().find(|route| route.is_at(path));
    let allowed = match route.map_or("get", Route::verb) {
        "get" => "GET, HEAD",
        "delete" => "DELETE",
        _ => "POST",
    };
    let allowed = header::HeaderValue::from_static(allowed);
    response.headers_mut().insert(header::ALLOW, allowed);
    response
}

/// A part of a path with its `%20` read.
fn decoded(part: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = part.as_bytes();
    while let [first, tail @ ..] = rest {
        let escaped = (*first == b'%').then(|| tail.get(..2)).flatten();
        let digits = escaped.and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            None => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::super::docs;
    use super::*;

    #[test]
    fn paths_are_unique_and_names_are_decoded() {
        for (i, route) in ROUTES.iter().enumerate() {
            assert!(ROUTES[..i].iter().all(|other| other.path != route.path));
        }
        assert_eq!(decoded("org%2Fname%20%"), "org/name %");
        let verb = |path| {
            ROUTES
                .iter()
                .find(|route| route.is_at(path))
                .map(Route::verb)
        };
        assert_eq!(verb("/v1/models/x"), Some("get"));
        assert_eq!(verb("/tokenize"), Some("post"));
        assert_eq!(verb("/api/delete"), Some("delete"));
        assert_eq!(verb("/v1/model"), None);
    }

    #[test]
    fn the_page_has_every_route() {
        let page = docs::page();
        let rows = docs::table(&page, "| route | what |");
        let named = rows.iter().flat_map(|row| docs::quoted(row[0]));
        let paths = named.map(|route| route.split_once(' ').unwrap().1.to_owned());
        let paths: std::collections::BTreeSet<String> = paths.collect();
        let routes = ROUTES
            .iter()
            .map(|route| route.path.replace("{*name}", "{name}"));
        assert_eq!(paths, routes.collect());
    }
}
