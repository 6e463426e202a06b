//! A packed model in a browser: what JavaScript can ask of the runtime.
//!
//! The module is a WASI reactor with plain functions ([`exports`]). Texts go in and out as UTF-8 in
//! two buffers, mostly JSON; the model's file is written straight into the memory where it stays.
//! [`Host`] is the same without pointers. Why not wasm-bindgen: its program must have the version
//! of its crate, and it wants a target without WASI; these functions run in node as they are.
//!
//! An instance has one model for its whole life. The memory of WebAssembly never shrinks, so another
//! model gets another instance.

mod error;
pub mod exports;
mod host;
mod opened;
mod request;
mod writing;

pub use error::{Error, Result};
pub use host::Host;
