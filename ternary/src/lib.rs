//! What a ternary language model is: its [`Config`], the model [`family`] rows, the two quantizers
//! ([`quantize`]), the packings of trits into bytes ([`packing`]), the types of embedding and head ([`table`],
//! [`trits`]) and the packed file ([`mod@file`]).
//!
//! Every other crate of Sterna calls the definitions here, so that trainer, converter and runtime cannot
//! disagree about a weight, a scale or a byte.
#![deny(unsafe_code)]

pub mod config;
pub mod durable;
mod error;
pub mod family;
pub mod file;
mod header;
pub mod json;
pub mod layout;
pub mod memory;
pub mod packing;
pub mod quantize;
pub mod rope;
pub mod scales;
pub mod table;
pub mod trits;

pub use config::Config;
pub use error::{Error, Result};
pub use family::{Activation, Family};
pub use file::{PackedFile, PackedWriter};
pub use layout::{Dtype, Layout, Role};
pub use memory::Memory;
pub use packing::{Dense, LinearType, Packing};
pub use quantize::Activations;
pub use scales::Scaling;
pub use table::TableType;
