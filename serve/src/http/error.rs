//! What a client hears when its request is not answered: OpenAI's shape, whatever the cause.

use axum::http::header::{RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;
use serde_json::{Value, json};
use sterna_runtime::Error as RuntimeError;

use super::style::Style;
use crate::engine::{Failure, Full};

/// A request that is not answered, and why.
#[derive(Debug, Clone, PartialEq)]
pub struct ApiError {
    /// The status of the reply.
    pub status: StatusCode,
    /// OpenAI's class of errors.
    pub kind: &'static str,
    /// A word for programs.
    pub code: Option<&'static str>,
    /// The field that is wrong.
    pub param: Option<String>,
    /// What happened, what was expected, what to do.
    pub message: String,
    /// Seconds after which the request may succeed.
    pub retry_after: Option<u64>,
}

/// A result of a route.
pub type ApiResult<T> = Result<T, ApiError>;

const INVALID: &str = "invalid_request_error";

impl ApiError {
    fn new(status: StatusCode, kind: &'static str, message: impl Into<String>) -> ApiError {
        ApiError {
            status,
            kind,
            code: None,
            param: None,
            message: message.into(),
            retry_after: None,
        }
    }

    fn coded(self, code: &'static str) -> ApiError {
        ApiError {
            code: Some(code),
            ..self
        }
    }

    fn of(self, param: impl Into<String>) -> ApiError {
        ApiError {
            param: Some(param.into()),
            ..self
        }
    }

    /// 400: a field has a value that it cannot have.
    pub fn invalid(param: impl Into<String>, message: impl Into<String>) -> ApiError {
        ApiError::bad(message).of(param).coded("invalid_value")
    }

    /// 400 for the request as a whole.
    pub fn bad(message: impl Into<String>) -> ApiError {
        ApiError::new(StatusCode::BAD_REQUEST, INVALID, message)
    }

    /// 400: the body is not the JSON that was expected.
    pub fn json(param: Option<String>, message: impl Into<String>) -> ApiError {
        let error = ApiError::bad(message).coded("invalid_json");
        ApiError { param, ..error }
    }

    /// 400: the bytes are not a request.
    pub fn not_http() -> ApiError {
        let message = "this is not a request of HTTP/1.1; check its first line, its headers and \
                       the length of the body before it";
        ApiError::bad(message).coded("invalid_http")
    }

    /// 400: a field that changes answers and is not supported.
    pub fn unsupported(param: impl Into<String>, message: impl Into<String>) -> ApiError {
        let error = ApiError::bad(message).of(param);
        error.coded("unsupported_parameter")
    }

    /// 400: a field that no route has, where such fields are refused.
    pub fn unknown(name: &str) -> ApiError {
        let name = sterna_ternary::json::shown(name);
        let message = format!("{name} is not a field of this route; the server is strict");
        ApiError::unsupported(name, message)
    }

    /// 400: the prompt is longer than the context.
    pub fn context(param: &str, tokens: &str, context: usize) -> ApiError {
        let message = format!(
            "the prompt has {tokens} tokens, and the context holds {context}; send a shorter \
             prompt, or start the server with a larger --context"
        );
        let error = ApiError::bad(message).of(param);
        error.coded("context_length_exceeded")
    }

    /// 400: the chat template refuses the conversation.
    pub fn template(message: String) -> ApiError {
        ApiError::bad(message)
            .of("messages")
            .coded("template_error")
    }

    /// 401.
    pub fn key() -> ApiError {
        let message = "no valid key: send one of the server's keys as `Authorization: Bearer KEY`";
        let error = ApiError::new(StatusCode::UNAUTHORIZED, "authentication_error", message);
        error.coded("invalid_api_key")
    }

    /// 403: the request names a host that the server is not.
    pub fn host(host: &str) -> ApiError {
        let host = sterna_ternary::json::shown(super::settings::host_name(host));
        let message = format!(
            "the request is for the host {host:?}, and the server answers for loopback names; \
             start it with --allow-host {host}, or with a key"
        );
        ApiError::new(StatusCode::FORBIDDEN, "permission_error", message).coded("host_not_allowed")
    }

    /// 404 for a path.
    pub fn route(path: &str) -> ApiError {
        let path = sterna_ternary::json::shown(path);
        let message = format!("there is no route {path}; GET /openapi.json lists all of them");
        ApiError::new(StatusCode::NOT_FOUND, INVALID, message).coded("route_not_found")
    }

    /// 404: the page that runs models in the browser is off.
    pub fn no_local_page() -> ApiError {
        let message = "the page that runs the model in the browser is off: build it with \
                       `web/build` of the repository, and start `sterna serve --local target/web`";
        let error = ApiError::new(StatusCode::NOT_FOUND, INVALID, message);
        error.coded("route_not_found")
    }

    /// 404 for a model.
    pub fn model(name: &str, known: &[&str]) -> ApiError {
        let name = sterna_ternary::json::shown(name);
        let known = known.join(", ");
        let message = format!("the model {name:?} is not served here; served are: {known}");
        let error = ApiError::new(StatusCode::NOT_FOUND, INVALID, message);
        error.of("model").coded("model_not_found")
    }

    /// 405.
    pub fn method(method: &str, path: &str) -> ApiError {
        let path = sterna_ternary::json::shown(path);
        let message = format!("{path} does not answer {method}");
        let error = ApiError::new(StatusCode::METHOD_NOT_ALLOWED, INVALID, message);
        error.coded("method_not_allowed")
    }

    /// 408: the body did not come.
    pub fn slow(seconds: u64) -> ApiError {
        let message = format!("no part of the body came for {seconds} s");
        ApiError::new(StatusCode::REQUEST_TIMEOUT, INVALID, message).coded("request_timeout")
    }

    /// 413.
    pub fn large(limit: usize) -> ApiError {
        let message = format!("the body is larger than {limit} bytes; send less in one request");
        let error = ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, INVALID, message);
        error.coded("request_too_large")
    }

    /// 415.
    pub fn media(found: &str) -> ApiError {
        let found = sterna_ternary::json::shown(found);
        let message = format!(
            "the content type is {found:?}; send JSON with `Content-Type: application/json`"
        );
        let error = ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, INVALID, message);
        error.coded("unsupported_media_type")
    }

    /// 431.
    pub fn head(limit: usize) -> ApiError {
        let message = format!("path and headers are larger than {limit} bytes; send fewer of them");
        let status = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
        ApiError::new(status, INVALID, message).coded("headers_too_large")
    }

    /// 500: a fault of the server.
    pub fn internal(message: impl Into<String>) -> ApiError {
        let error = ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "server_error", message);
        error.coded("internal_error")
    }

    /// 503: not yet, or no longer.
    pub fn unavailable(code: &'static str, message: &str) -> ApiError {
        let error = ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "server_error", message);
        ApiError {
            retry_after: Some(1),
            ..error.coded(code)
        }
    }

    /// What the model or its files say about a request.
    pub fn runtime(param: &str, error: &RuntimeError) -> ApiError {
        match error {
            RuntimeError::Sampling { name, .. } => ApiError::invalid(*name, error.to_string()),
            RuntimeError::StopText { .. } => ApiError::invalid("stop", error.to_string()),
            RuntimeError::ChatTemplate { .. } => ApiError::template(error.to_string()),
            RuntimeError::NoChatTemplate => {
                let message = "the model has no chat template; it continues texts: POST \
                               /v1/completions";
                ApiError::bad(message).of(param).coded("no_chat_template")
            }
            other => ApiError::invalid(param, other.to_string()),
        }
    }

    /// The JSON of the reply.
    pub fn body(&self) -> Value {
        json!({"error": {
            "message": self.message,
            "type": self.kind,
            "param": self.param,
            "code": self.code,
        }})
    }
}

impl From<Full> for ApiError {
    fn from(full: Full) -> ApiError {
        let status = StatusCode::TOO_MANY_REQUESTS;
        let error = ApiError::new(status, "rate_limit_error", full.to_string());
        ApiError {
            retry_after: Some(full.retry_after.as_secs().clamp(1, 60)),
            ..error.coded("queue_full")
        }
    }
}

impl From<Failure> for ApiError {
    fn from(failure: Failure) -> ApiError {
        let message = failure.to_string();
        let server = |status| ApiError::new(status, "server_error", message.clone());
        match failure {
            Failure::Refused(_) => ApiError::bad(message),
            Failure::Constraint(_) | Failure::Decoding(_) => ApiError::internal(message),
            Failure::Numeric(_) => ApiError::internal(message).coded("numeric_error"),
            Failure::QueueTimeout(_) => ApiError {
                retry_after: Some(5),
                ..server(StatusCode::SERVICE_UNAVAILABLE).coded("queue_timeout")
            },
            Failure::Timeout(_) => server(StatusCode::GATEWAY_TIMEOUT).coded("timeout"),
            Failure::SlowReader(_) => server(StatusCode::REQUEST_TIMEOUT).coded("slow_reader"),
            Failure::Stopped => ApiError::unavailable("draining", &message),
        }
    }
}

/// Whether sending the same request again cannot help. OpenAI's clients read it.
const SHOULD_RETRY: &str = "x-should-retry";

impl ApiError {
    /// 501: what a route stands for is not done here.
    pub fn absent(message: &str) -> ApiError {
        let error = ApiError::new(StatusCode::NOT_IMPLEMENTED, INVALID, message);
        error.coded("not_implemented")
    }

    /// The reply for a path, whose API has its own shape of errors.
    pub fn reply(&self, path: &str) -> Response {
        let mut response = super::reply::json(self.status, &Style::of(path).body(self));
        let headers = response.headers_mut();
        if let Some(seconds) = self.retry_after {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if self.status.is_client_error() && self.retry_after.is_none() {
            headers.insert(SHOULD_RETRY, HeaderValue::from_static("false"));
        }
        response
    }
}
