//! Packed file to logits and text.
//!
//! [`Model::open`] maps a packed file, [`Model::forward`] computes logits, [`Model::forward_many`]
//! those of several sequences at once, [`Model::hidden_many`] their hidden states, [`Generation`]
//! streams text. Logits have the same bits for every number of threads, instruction set, packing,
//! split of a prompt into calls and batch composition: integer sums are exact, and float loops keep
//! one order of operations.
//!
//! ```no_run
//! use sterna_runtime::{Generation, Model, Options, Settings};
//!
//! let model = Model::open("model.sterna".as_ref(), Options::default())?;
//! let tokenizer = model.tokenizer()?;
//! let mut cache = model.new_cache(512)?;
//! let prompt = tokenizer.encode("the tern flies", true)?;
//! for text in Generation::new(&model, &tokenizer, &mut cache, &prompt, Settings::default())? {
//!     print!("{}", text?);
//! }
//! # Ok::<(), sterna_runtime::Error>(())
//! ```
#![deny(missing_docs)]

mod answer;
mod attention;
mod cache;
pub mod calls;
pub mod chat;
mod constraint;
pub mod draft;
pub mod embed;
mod error;
mod forward;
pub mod generate;
mod generation_config;
mod head;
pub mod kernels;
mod linear;
mod model;
mod rotary;
pub mod sampler;
mod score;
mod state;
pub mod threads;
pub mod tokenizer;
mod words;

pub use answer::{Answer, StopReason};
pub use cache::{KvCache, KvPage, KvType};
pub use chat::{ChatTemplate, Message};
pub use constraint::{Allowed, Constraint};
pub use draft::{Drafter, Guess, Lookup, ModelDrafter, Pace, Speculation};
pub use error::{Error, Location, Result};
pub use forward::{Logits, Part};
pub use generate::{Generation, Settings, Summary};
pub use generation_config::GenerationConfig;
pub use head::Screen;
pub use kernels::Kernels;
pub use model::{Model, Options};
pub use sampler::{Sampler, Sampling};
pub use score::Score;
pub use tokenizer::{TextStream, Tokenizer};

/// The version of the order of float operations in logits and of the choice of tokens. Two programs
/// with the same number compute the same answers.
pub const NUMERICS: u32 = 2;
