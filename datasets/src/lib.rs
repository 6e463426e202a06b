//! Text to training tokens.
//!
//! Text comes from [`generate`] (seeded tasks with known entropy and known answers) or from
//! [`read`] (files of text and of [`records`]). [`bpe`] trains a tokenizer on it, [`prepare`]
//! encodes it into [`shard`] files, and [`loader`] cuts those into training batches.
//! Conversations ([`conversation`], [`chat`]) become [`rows`], in which the tokens to learn are
//! marked. Every step is a pure function of its inputs and a seed: the same command writes the same
//! bytes, and the batch of step `n` does not depend on how the run reached step `n`.
//!
//! ```
//! use sterna_datasets::{Corpus, Loader, Mix, Rows, Split, prepare, train_bpe};
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mix: Mix = "addition2=0.6,stories=0.4".parse()?;
//! let corpus = Corpus { mix, seed: 1, split: Split::Train };
//! let tokenizer = train_bpe(corpus.texts().take(200), 300, &[])?;
//! let folder = tempfile::tempdir()?;
//! let text = corpus.texts().take(200).map(Ok);
//! let prepared = prepare::held_out_share(text, &tokenizer, folder.path(), 0.05)?;
//! let loader = Loader::open(&[prepared.train.path], 4, 128, 1, Rows::Documents)?;
//! assert_eq!(loader.batch(0).ids.len(), 4 * (128 + 1));
//! # Ok(())
//! # }
//! ```

#![deny(unsafe_code)]

pub mod answers;
pub mod bpe;
pub mod chat;
pub mod conversation;
mod encoder;
mod error;
mod files;
pub mod generate;
mod json;
pub mod loader;
mod mapped;
pub mod notes;
mod parquet;
pub mod prepare;
mod random;
pub mod read;
pub mod records;
pub mod rows;
pub mod shard;
pub mod sources;
pub mod template;
pub mod tokenizer;

pub use answers::Renderer;
pub use bpe::train_bpe;
pub use conversation::{Layout, Message};
pub use encoder::texts::TextEncoder;
pub use error::Error;
pub use generate::mix::{Corpus, Mix};
pub use generate::{Document, Problem, Split, Task};
pub use loader::{Batch, Loader, Rows};
pub use prepare::Prepared;
pub use shard::{Shard, ShardWriter};
pub use sources::Sources;
pub use template::Template;
pub use tokenizer::Tokenizer;

/// The result of a function of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;
