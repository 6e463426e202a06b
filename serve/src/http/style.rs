//! The shape of errors: each API has its own, and a path belongs to one API.

use serde_json::{Value, json};

use super::error::ApiError;

/// An API by the shape of its errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// OpenAI's, which all routes have that are not another API's.
    OpenAi,
    /// Anthropic's.
    Anthropic,
    /// Ollama's.
    Ollama,
}

impl Style {
    /// The API of a path.
    pub fn of(path: &str) -> Style {
        if path == "/v1/messages" || path.starts_with("/v1/messages/") {
            Style::Anthropic
        } else if path.starts_with("/api/") {
            Style::Ollama
        } else {
            Style::OpenAi
        }
    }

    /// The JSON of an error.
    pub fn body(self, error: &ApiError) -> Value {
        match self {
            Style::OpenAi => error.body(),
            Style::Anthropic => json!({
                "type": "error",
                "error": {"type": kind(error.status.as_u16()), "message": error.message},
            }),
            Style::Ollama => json!({"error": error.message}),
        }
    }
}

/// Anthropic's class of errors with a status.
fn kind(status: u16) -> &'static str {
    match status {
        401 => "authentication_error",
        403 => "permission_error",
        404 => "not_found_error",
        413 => "request_too_large",
        429 => "rate_limit_error",
        503 => "overloaded_error",
        504 => "timeout_error",
        500.. => "api_error",
        _ => "invalid_request_error",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_have_the_shape_of_their_path() {
        let error = ApiError::invalid("system", "system is 3");
        let body = |path| Style::of(path).body(&error);
        let anthropic = json!({"type": "error", "error": {"type": "invalid_request_error",
            "message": "system is 3"}});
        for path in ["/v1/messages", "/v1/messages/count_tokens"] {
            assert_eq!(body(path), anthropic);
        }
        assert_eq!(body("/api/chat"), json!({"error": "system is 3"}));
        for path in ["/v1/chat/completions", "/v1/messagesx", "/", "/apix"] {
            assert_eq!(body(path)["error"]["param"], "system", "{path}");
        }
        assert_eq!(kind(502), "api_error");
        assert_eq!(kind(415), "invalid_request_error");
    }
}
