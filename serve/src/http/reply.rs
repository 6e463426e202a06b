//! Replies that are one JSON object.

use axum::body::Body;
use axum::http::header::{CONTENT_TYPE, HeaderName};
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;
use serde_json::Value;

/// Fields of a request that had no effect.
pub const IGNORED: HeaderName = HeaderName::from_static("x-sterna-ignored");
/// Tokens of the prompt that were not computed for this request.
pub const CACHED_TOKENS: HeaderName = HeaderName::from_static("x-sterna-cached-tokens");
/// Most characters of one name.
const LONGEST_NAME: usize = 160;
/// Longest list of ignored fields in bytes; further ones are counted.
const LONGEST_LIST: usize = 1000;

/// A JSON reply.
pub fn json(status: StatusCode, body: &Value) -> Response {
    of_type(status, "application/json", body.to_string())
}

/// A reply of any media type.
pub fn of_type(status: StatusCode, media: &'static str, body: impl Into<Body>) -> Response {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(media));
    response
}

/// Names the fields that had no effect in the reply's header. Names that a header cannot hold are
/// escaped.
pub fn name_ignored(response: &mut Response, ignored: &[String]) {
    if ignored.is_empty() {
        return;
    }
    let mut list = String::new();
    for (i, name) in ignored.iter().enumerate() {
        let name: String = name.chars().take(LONGEST_NAME).collect();
        let name = name.escape_default().to_string().replace(',', "\\u{2c}");
        if list.len() + name.len() > LONGEST_LIST {
            list += &format!(" and {} more", ignored.len() - i);
            break;
        }
        let between = if list.is_empty() { "" } else { "," };
        list += &format!("{between}{name}");
    }
    let value = HeaderValue::from_str(&list).expect("escaped text is plain ASCII");
    response.headers_mut().insert(IGNORED, value);
}
