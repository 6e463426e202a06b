//! `/openapi.json`: the description of all routes, for programs that make clients and tests.
//!
//! Paths, methods and keys come from the table of routes; `operations.json` says what each route
//! reads and answers, in terms of the schemas of `requests.json` and `answers.json`. Which errors a
//! route has follows from what answers it; `operations.json` has those of the exceptions.

use std::sync::LazyLock;

use axum::http::StatusCode;
use axum::response::Response;
use serde_json::{Map, Value, json};

use super::app::App;
use super::error::ApiResult;
use super::reply;
use super::routes::{Access, Answer, ROUTES, Route};
use super::style::Style;

/// The document.
static DOCUMENT: LazyLock<Value> = LazyLock::new(document);

const JSON: &str = "application/json";

/// What the statuses of errors mean.
const ERRORS: [(u16, &str); 13] = [
    (400, "The request is wrong."),
    (401, "There is no key, or a wrong one."),
    (403, "The request is for a host that the server is not."),
    (404, "There is no such model, or the route is turned off."),
    (408, "The body came too slowly."),
    (413, "The body is too large."),
    (415, "The body is not JSON."),
    (429, "Too much waits."),
    (431, "Path and headers are too large."),
    (500, "The server has a fault."),
    (501, "What the route stands for is not done."),
    (
        503,
        "The model is loaded, the server ends, or the request waited too long.",
    ),
    (504, "The answer took too long."),
];
/// Errors of every route.
const OF_ALL: [u64; 2] = [403, 431];
/// Errors of routes that need a key.
const OF_KEYED: [u64; 1] = [401];
/// Errors of routes that read a body.
const OF_BODIES: [u64; 7] = [400, 404, 408, 413, 415, 500, 503];
/// Errors of routes that use the engine, beside these.
const OF_JOBS: [u64; 2] = [429, 504];

/// The document.
///
/// # Errors
/// None.
pub fn reply(_: &App) -> ApiResult<Response> {
    Ok(reply::json(StatusCode::OK, &DOCUMENT))
}

/// An object of a file of this folder.
fn object(text: &str) -> Map<String, Value> {
    serde_json::from_str(text).expect("tests read the files of this folder")
}

fn document() -> Value {
    let operations = object(include_str!("operations.json"));
    let mut schemas = object(include_str!("requests.json"));
    schemas.extend(object(include_str!("answers.json")));
    let (mut paths, mut responses) = (Map::new(), Map::new());
    for route in ROUTES {
        let path = route.path.replace("{*", "{");
        let operation = operation(route, &operations[&path], &mut responses);
        paths.insert(path, json!({route.verb(): operation}));
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Sterna",
            "summary": "Ternary language models over HTTP.",
            "version": env!("CARGO_PKG_VERSION"),
        },
        "security": [{}, {"bearer": []}, {"key": []}],
        "paths": paths,
        "components": {
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
            },
            "headers": headers(),
            "responses": responses,
            "schemas": schemas,
        },
    })
}

/// A route as the document describes it. Its errors are added to `responses`.
fn operation(route: &Route, says: &Value, responses: &mut Map<String, Value>) -> Value {
    let text = |name: &str| says[name].as_str();
    let mut operation = json!({"operationId": says["id"], "summary": says["summary"]});
    if route.access == Access::Open {
        operation["security"] = json!([]);
    }
    if route.path.contains('{') {
        let name = json!({"name": "name", "in": "path", "required": true,
            "schema": {"type": "string"}});
        operation["parameters"] = json!([name]);
    }
    if let Some(body) = text("body") {
        let content = json!({JSON: {"schema": reference("schemas", body)}});
        operation["requestBody"] = json!({"required": true, "content": content});
    }
    let mut own = Map::new();
    if let Some(name) = text("answer") {
        let whole = (text("media").unwrap_or(JSON), name);
        let stream = text("stream").map(|media| match media {
            "text/event-stream" => (media, "Event"),
            _ => (media, "Lines"),
        });
        let content = [whole].into_iter().chain(stream);
        let mut headers = vec!["X-Request-Id"];
        match route.answer {
            Answer::Object(..) => headers.push("X-Sterna-Ignored"),
            Answer::Job(_) => headers.extend(["X-Sterna-Ignored", "X-Sterna-Cached-Tokens"]),
            _ => {}
        }
        own.insert("200".into(), answer("The answer.", content, &headers));
    }
    if let Some(where_to) = text("redirect") {
        own.insert("308".into(), answer(where_to, [], &["X-Request-Id"]));
    }
    for status in errors(route, says) {
        let (name, error) = error(Style::of(route.path), status);
        own.insert(status.to_string(), reference("responses", &name));
        responses.insert(name, error);
    }
    operation["responses"] = own.into();
    operation
}

/// The statuses of a route's errors.
fn errors(route: &Route, says: &Value) -> Vec<u64> {
    let mut statuses = OF_ALL.to_vec();
    if route.access == Access::Keyed {
        statuses.extend(OF_KEYED);
    }
    match route.answer {
        Answer::Object(..) => statuses.extend(OF_BODIES),
        Answer::Job(_) => statuses.extend(OF_BODIES.into_iter().chain(OF_JOBS)),
        Answer::Absent(..) => statuses.push(501),
        Answer::Named(_) => statuses.extend([404, 503]),
        Answer::Status(_) => match says["errors"].as_array() {
            Some(own) => statuses.extend(own.iter().filter_map(Value::as_u64)),
            None => statuses.push(503),
        },
    }
    statuses.sort_unstable();
    statuses
}

/// The name and the description of an error of an API.
fn error(style: Style, status: u64) -> (String, Value) {
    let schema = match style {
        Style::OpenAi => "Error",
        Style::Anthropic => "AnthropicError",
        Style::Ollama => "OllamaError",
    };
    let known = ERRORS.iter().find(|(known, _)| u64::from(*known) == status);
    let (_, says) = known.expect("tests read the statuses of all routes");
    let headers: &[&str] = match status {
        401 => &["X-Request-Id", "X-Should-Retry", "WWW-Authenticate"],
        429 | 503 => &["X-Request-Id", "Retry-After"],
        400..500 => &["X-Request-Id", "X-Should-Retry"],
        _ => &["X-Request-Id"],
    };
    let name = format!("{schema}{status}");
    (name, answer(says, [(JSON, schema)], headers))
}

/// The headers of replies. Those that may be absent say when they are there.
fn headers() -> Value {
    let text = json!({"type": "string"});
    let count = json!({"type": "integer", "minimum": 0});
    json!({
        "X-Request-Id": {
            "description": "The id of the request, which it may bring along.",
            "required": true, "schema": text,
        },
        "X-Sterna-Ignored": {
            "description": "Fields of the request that had no effect, if there were any.",
            "schema": text,
        },
        "X-Sterna-Cached-Tokens": {
            "description": "Tokens of prompts that were not computed. Streams do not have it.",
            "schema": count,
        },
        "X-Should-Retry": {
            "description": "The same request would fail again.",
            "required": true, "schema": {"const": "false"},
        },
        "Retry-After": {
            "description": "Seconds after which the request may succeed.",
            "required": true, "schema": {"type": "integer", "minimum": 1, "maximum": 60},
        },
        "WWW-Authenticate": {
            "description": "How keys are sent.", "required": true, "schema": {"const": "Bearer"},
        },
    })
}

/// A reply with these schemas by media type, and these headers.
fn answer<'a>(
    says: &str,
    content: impl IntoIterator<Item = (&'a str, &'a str)>,
    headers: &[&str],
) -> Value {
    let content = content.into_iter();
    let schema = |name| json!({"schema": reference("schemas", name)});
    let content = content.map(|(media, name)| (media.to_owned(), schema(name)));
    let headers = headers.iter();
    let headers = headers.map(|name| (name.to_string(), reference("headers", name)));
    json!({
        "description": says,
        "headers": headers.collect::<Map<_, _>>(),
        "content": content.collect::<Map<_, _>>(),
    })
}

fn reference(kind: &str, name: &str) -> Value {
    json!({"$ref": format!("#/components/{kind}/{name}")})
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::fields::{self, Fields};
    use super::*;

    #[test]
    fn every_route_is_described_and_nothing_else() {
        let operations = object(include_str!("operations.json"));
        let described: BTreeSet<&str> = operations.keys().map(|path| path.as_str()).collect();
        let routes: Vec<String> = ROUTES.iter().map(|r| r.path.replace("{*", "{")).collect();
        assert_eq!(described, routes.iter().map(|path| path.as_str()).collect());
        for route in ROUTES {
            let operation = &operations[&route.path.replace("{*", "{")];
            let has_body = matches!(route.answer, Answer::Object(..) | Answer::Job(_));
            assert_eq!(operation.get("body").is_some(), has_body, "{}", route.path);
            let is_absent =
                matches!(route.answer, Answer::Absent(..)) || operation.get("redirect").is_some();
            assert_eq!(
                operation.get("answer").is_none(),
                is_absent,
                "{}",
                route.path
            );
        }
        let ids = operations
            .values()
            .map(|operation| operation["id"].as_str().unwrap());
        assert_eq!(ids.collect::<BTreeSet<_>>().len(), operations.len());
    }

    /// Names of schemas that a value refers to.
    fn references(value: &Value, found: &mut BTreeSet<String>) {
        match value {
            Value::Object(members) => {
                if let Some(Value::String(name)) = members.get("$ref") {
                    found.insert(name.clone());
                }
                members.values().for_each(|value| references(value, found));
            }
            Value::Array(items) => items.iter().for_each(|value| references(value, found)),
            _ => {}
        }
    }

    #[test]
    fn every_schema_is_used_and_exists() {
        let document = &*DOCUMENT;
        let mut found = BTreeSet::new();
        references(document, &mut found);
        for kind in ["headers", "schemas", "responses"] {
            for name in document["components"][kind].as_object().unwrap().keys() {
                let name = format!("#/components/{kind}/{name}");
                assert!(found.remove(&name), "{name} is not used");
            }
        }
        assert_eq!(found, BTreeSet::new());
    }

    /// The properties of a schema, with those of the schemas that it consists of.
    fn properties(document: &Value, schema: &Value) -> Map<String, Value> {
        let mut found = schema["properties"]
            .as_object()
            .cloned()
            .unwrap_or_default();
        if let Some(name) = schema["$ref"].as_str() {
            let pointer = name.strip_prefix('#').unwrap();
            found.extend(properties(document, document.pointer(pointer).unwrap()));
        }
        for part in schema["allOf"].as_array().into_iter().flatten() {
            found.extend(properties(document, part));
        }
        found
    }

    #[test]
    fn bodies_have_the_fields_that_have_an_effect() {
        let document = &*DOCUMENT;
        for (path, route) in [
            ("/v1/chat/completions", Fields::Chat),
            ("/v1/completions", Fields::Completions),
            ("/v1/embeddings", Fields::Embeddings),
            ("/tokenize", Fields::Tokenize),
            ("/detokenize", Fields::Detokenize),
            ("/apply-template", Fields::Template),
            ("/v1/responses", Fields::Responses),
            ("/v1/responses/input_tokens", Fields::Responses),
            ("/v1/messages", Fields::Messages),
            ("/v1/messages/count_tokens", Fields::Messages),
            ("/api/chat", Fields::OllamaChat),
            ("/api/generate", Fields::OllamaGenerate),
            ("/api/show", Fields::OllamaShow),
            ("/api/embed", Fields::OllamaEmbed),
        ] {
            let body = &document["paths"][path]["post"]["requestBody"];
            let schema = &body["content"]["application/json"]["schema"];
            let described: BTreeSet<String> = properties(document, schema)
                .into_iter()
                .map(|(name, _)| name)
                .collect();
            let done = fields::done(route).into_iter().map(str::to_owned);
            assert_eq!(described, done.collect(), "{path}");
        }
        let options = &document["components"]["schemas"]["OllamaOptions"];
        let described: BTreeSet<String> = properties(document, options)
            .into_iter()
            .map(|(name, _)| name)
            .collect();
        let done = fields::done(Fields::OllamaOptions)
            .into_iter()
            .map(str::to_owned);
        assert_eq!(described, done.collect());
    }

    #[test]
    fn open_routes_need_no_key() {
        let document = &*DOCUMENT;
        for route in ROUTES {
            let item = &document["paths"][route.path.replace("{*", "{")];
            let operation = item.as_object().unwrap().values().next().unwrap();
            let is_open = route.access == Access::Open;
            let needs_none = operation["security"] == serde_json::json!([]);
            assert_eq!(is_open, needs_none, "{}", route.path);
        }
    }
}
