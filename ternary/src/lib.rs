//! Definitions of a ternary language model: its [`Config`], the table of model families
//! ([`family`]), the two quantizers ([`quantize`]), the packings of trits into bytes ([`packing`]),
//! the types of embedding and head ([`table`], [`trits`]) and the packed file ([`mod@file`]).
//!
//! Every other crate of Sterna uses these definitions, so that trainer, converter and runtime
//! cannot disagree about a weight, a scale or a byte.
//!
//! ```
//! use sterna_ternary::{Packing, quantize};
//!
//! let weights = [1.0, -0.125, -1.0, 0.375];
//! let mut trits = [0; 4];
//! let scale = quantize::ternarize(&weights, &mut trits);
//! assert_eq!(scale, 0.625); // the mean of |weight|
//! assert_eq!(trits, [1, 0, -1, 1]); // weight / scale is 1.6, -0.2, -1.6, 0.6
//!
//! let mut bytes = vec![0; Packing::T5.row_bytes(trits.len())];
//! Packing::T5.pack_row(&trits, &mut bytes); // five trits in a byte
//! let mut unpacked = [0; 4];
//! Packing::T5.unpack_row(&bytes, &mut unpacked)?;
//! assert_eq!(unpacked, trits);
//! # Ok::<(), sterna_ternary::Error>(())
//! ```
#![deny(unsafe_code)]

pub mod card;
pub mod claim;
pub mod config;
pub mod durable;
mod error;
pub mod family;
pub mod file;
mod header;
pub mod json;
pub mod layout;
pub mod memory;
pub mod output;
pub mod packing;
pub mod parallel;
pub mod planes;
pub mod quantize;
pub mod random;
pub mod rope;
pub mod scales;
pub mod sha256;
pub mod system;
pub mod table;
pub mod temporary;
pub mod tokenizer_files;
pub mod trits;
pub mod units;

pub use claim::Claim;
pub use config::Config;
pub use error::{Error, Result};
pub use family::{Activation, Family};
pub use file::{PackedFile, PackedWriter};
pub use layout::{Dtype, Layout, Role};
pub use memory::{AlignedBytes, HugePages, Memory};
pub use output::{Output, OutputFolder};
pub use packing::{Dense, LinearType, Packing};
pub use quantize::Activations;
pub use scales::Scaling;
pub use table::TableType;
pub use temporary::TemporaryFolder;
