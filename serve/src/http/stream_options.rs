//! The fields of streams.

use super::error::{ApiError, ApiResult};
use super::read::Reader;

/// Whether and how a reply is a stream.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StreamOptions {
    /// Whether it is one.
    pub is_streamed: bool,
    /// Whether counts of tokens end it.
    pub has_usage: bool,
}

impl StreamOptions {
    /// Reads `stream` and `stream_options`.
    ///
    /// # Errors
    /// 400 for options without a stream.
    pub fn read(fields: Reader) -> ApiResult<StreamOptions> {
        let is_streamed = fields.flag("stream")?;
        let options = fields.object("stream_options")?;
        if options.is_some() && !is_streamed {
            let message = "stream_options is there, and the reply is not a stream; send it with \
                           \"stream\": true";
            return Err(ApiError::invalid("stream_options", message));
        }
        let has_usage = match options {
            Some(options) => Reader(options).flag("include_usage")?,
            None => false,
        };
        Ok(StreamOptions {
            is_streamed,
            has_usage,
        })
    }
}
