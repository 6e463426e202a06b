//! `/openapi.json`: the description of all routes, for programs that make clients and tests.
//!
//! Paths, methods and keys come from the table of routes; `operations.json` says what each route
//! reads and answers, in terms of the schemas of `requests.json` and `answers.json`.

use std::sync::LazyLock;

use axum::http::StatusCode;
use axum::response::Response;
use serde_json::{Map, Value, json};

use super::app::App;
use super::error::ApiResult;
use super::reply;
use super::routes::{Access, ROUTES, Route};
use super::style::Style;

/// The document.
static DOCUMENT: LazyLock<Value> = LazyLock::new(document);

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
    let mut paths = Map::new();
    for route in ROUTES {
        let path = route.path.replace("{*", "{");
        let operation = operation(route, &operations[&path]);
        paths.insert(path, json!({route.verb(): operation}));
    }
    let errors = ["Error", "AnthropicError", "OllamaError"];
    let errors = errors.map(|name| (name.to_owned(), answer("The error.", [(JSON, name)])));
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
            "responses": Map::from_iter(errors),
            "schemas": schemas,
        },
    })
}

const JSON: &str = "application/json";

/// A route as the document describes it.
fn operation(route: &Route, says: &Value) -> Value {
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
        let content = json!({JSON: {"schema": schema(body)}});
        operation["requestBody"] = json!({"required": true, "content": content});
    }
    let error = match Style::of(route.path) {
        Style::OpenAi => "Error",
        Style::Anthropic => "AnthropicError",
        Style::Ollama => "OllamaError",
    };
    let error = json!({"$ref": format!("#/components/responses/{error}")});
    let mut responses = json!({"4XX": error, "5XX": error});
    if let Some(name) = text("answer") {
        let whole = (text("media").unwrap_or(JSON), name);
        let stream = text("stream").map(|media| (media, "Stream"));
        responses["200"] = answer("The answer.", [whole].into_iter().chain(stream));
    }
    operation["responses"] = responses;
    operation
}

/// A reply with these schemas by media type.
fn answer<'a>(says: &str, content: impl IntoIterator<Item = (&'a str, &'a str)>) -> Value {
    let content = content.into_iter();
    let content = content.map(|(media, name)| (media.to_owned(), json!({"schema": schema(name)})));
    json!({"description": says, "content": content.collect::<Map<_, _>>()})
}

fn schema(name: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{name}")})
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::fields::{self, Fields};
    use super::super::routes::Answer;
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
            let is_absent = matches!(route.answer, Answer::Absent(..));
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
        for kind in ["schemas", "responses"] {
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
