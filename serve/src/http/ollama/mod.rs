//! Ollama's API as a form of chat: what asks about models, what answers, and the vectors of texts.
//! Models themselves are not pulled, made or deleted.

mod embed;
mod form;
mod generate;
mod models;

pub use embed::embed;
pub use generate::{chat, generate};
pub use models::{running, show, tags, version};
