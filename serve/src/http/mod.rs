//! The HTTP side: OpenAI's routes, those of other APIs as forms of chat (`meaning.rs`), and those
//! that routers and other clients expect (`openapi.json`).
//!
//! A request passes the guard (`guard.rs`: host, key, origin), is read on one of few threads
//! (`json.rs`, `fields.rs`, then the file of its route) and becomes a `Job`. The engine's
//! events come back through a channel (`events.rs`), are put together (`answers.rs`) and written in
//! the form of the route (`form.rs`), at once or as a stream. When the client leaves, the channel
//! is dropped, and the engine stops its work.

mod answers;
mod app;
mod body;
mod chat;
mod clock;
mod completions;
mod conversation;
#[cfg(test)]
mod docs;
mod embeddings;
mod envelope;
mod error;
mod events;
mod explained;
mod fields;
mod form;
mod generate;
mod guard;
mod in_process;
mod job;
mod json;
mod keys;
mod listen;
mod live;
mod local;
mod log;
mod meaning;
mod messages;
mod metrics;
mod names;
mod ollama;
mod openapi;
mod pace;
mod prompts;
mod read;
mod replay;
mod reply;
mod responses;
mod routes;
mod rule;
mod scores;
mod served;
mod settings;
mod status;
mod stream_options;
mod style;
mod texts;
mod tools;

pub use error::ApiError;
pub use in_process::Prepared;
pub use keys::{BadKey, Keys};
pub use listen::{BadServer, Drain, Server};
pub use live::Live;
pub use local::{BadPage, LocalPage};
pub use log::RequestLog;
pub use names::{BadNames, curl, names};
pub use replay::{BadLine, Replayed, replay};
pub use served::{BadModel, Options, Served};
pub use settings::{Replied, Settings};
pub use tools::{Call, Called};
