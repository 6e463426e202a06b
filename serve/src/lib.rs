//! Ternary language models over HTTP.
//!
//! [`engine`] decides which tokens of which requests are computed next; [`http`] is what clients
//! see of it.
#![forbid(unsafe_code)]

pub mod engine;
pub mod http;
pub mod memory;
pub mod metrics;
pub mod page;
