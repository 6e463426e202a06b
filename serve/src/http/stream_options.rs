//! The fields of streams.

use super::error::{ApiError, ApiResult};
use super::read::Reader;

/// Options that are known and do not change an answer: vLLM's counts in every part of a stream, and
/// OpenAI's padding of parts.
const NEUTRAL: [&str; 2] = ["continuous_usage_stats", "include_obfuscation"];

/// Whether and how a reply is a stream.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StreamOptions {
    /// Whether it is one.
    pub is_streamed: bool,
    /// Whether counts of tokens end it.
    pub has_usage: bool,
}

impl StreamOptions {
    /// Reads `stream` and `stream_options`. Adds options without effect to `ignored`.
    ///
    /// # Errors
    /// 400 for options without a stream, and with `is_strict` for unknown ones.
    pub fn read(
        fields: Reader,
        ignored: &mut Vec<String>,
        is_strict: bool,
    ) -> ApiResult<StreamOptions> {
        let is_streamed = fields.flag("stream")?;
        let options = fields.object("stream_options")?;
        if options.is_some() && !is_streamed {
            let message = "stream_options is there, and the reply is not a stream; send it with \
                           \"stream\": true";
            return Err(ApiError::invalid("stream_options", message));
        }
        let mut has_usage = false;
        if let Some(options) = options {
            has_usage = Reader(options).flag("include_usage")?;
            for name in options.keys().filter(|name| *name != "include_usage") {
                let full = format!("stream_options.{name}");
                if is_strict && !NEUTRAL.contains(&name.as_str()) {
                    return Err(ApiError::unknown(&full));
                }
                ignored.push(full);
            }
        }
        Ok(StreamOptions {
            is_streamed,
            has_usage,
        })
    }
}
