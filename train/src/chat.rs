//! The chat template of a model that is trained from scratch.
//!
//! Templates are programs that another crate runs, so the caller gives the renderer. A
//! model that starts from a checkpoint has the template of that checkpoint.

use std::fmt;
use std::sync::Arc;

use sterna_datasets::{Renderer, Template};

/// A chat template, opened.
#[derive(Clone)]
pub struct Chat {
    /// Its source and its special tokens.
    pub template: Template,
    /// The special token that ends an answer.
    pub end_of_turn: String,
    /// Renders conversations with it.
    pub renderer: Arc<Renderer>,
}

impl fmt::Debug for Chat {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.debug_tuple("Chat").field(&self.template).finish()
    }
}

impl PartialEq for Chat {
    fn eq(&self, other: &Chat) -> bool {
        (&self.template, &self.end_of_turn) == (&other.template, &other.end_of_turn)
    }
}
