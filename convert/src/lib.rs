//! Converts checkpoints to packed files, GGUF files and Hugging Face folders.
//!
//! A reader provides a checkpoint as a [`Source`]: a config, the files to embed, and one tensor at
//! a time in a canonical form. A writer turns any source into a file and then proves the result: it
//! opens the file, reads the source again and compares every trit, scale and value. N readers and M
//! writers thus give N × M conversions. The same comparison serves any two models: [`verify`].
//!
//! [`PackCache`] caches packed files for programs that run models. [`Synthetic`] makes models of
//! random weights. [`repack`] changes the packing of a packed file.
//!
//! A reader is one file in `read/` and one line in [`open`]; a writer is one file in `write/`.
//!
//! ```no_run
//! use std::path::Path;
//!
//! let (folder, packed) = (Path::new("bitnet-2b4t"), Path::new("model.sterna"));
//! let options = sterna_convert::PackedOptions::default();
//! let mut progress = |done, total| println!("{done} of {total} weights");
//! let report = sterna_convert::convert(folder, packed, &options, &mut progress)?;
//! assert_eq!(report.differ, 0); // a difference would have been an error
//!
//! let comparison = sterna_convert::verify(folder, packed, &mut progress)?;
//! println!("{} weights, {} differ", comparison.weights, comparison.differ);
//! # Ok::<(), sterna_convert::Error>(())
//! ```
#![deny(unsafe_code)]

mod blocks;
mod cached;
mod compare;
mod ends;
mod error;
mod gguf;
pub mod masters;
mod parallel;
mod progress;
mod proof;
mod read;
mod report;
mod run_folder;
mod scales;
mod source;
mod stamp;
mod synthesize;
mod target;
mod trit_rows;
mod value_type;
mod words;
mod write;

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

pub use cached::{Cached, LocatedCheckpoint, PackCache};
pub use compare::{Comparison, MatrixComparison, TableComparison};
pub use ends::add_end_of_turn;
pub use error::{Error, Result};
pub use gguf::{GgufHints, I2sOrder, LutKernels, split_rule, split_rule_named};
pub use read::gguf::Gguf;
pub use read::huggingface::HuggingFace;
pub use read::packed::Packed;
pub use report::{ConversionReport, MatrixReport, TableReport};
pub use run_folder::RunFolder;
pub use scales::Scales;
pub use source::{Source, StoredScale, Ternary};
use sterna_ternary::{Activations, LinearType, Output, OutputFolder, Packing, layout};
pub use value_type::ValueType;

use crate::compare::Rule;
use crate::progress::ProgressCounter;
pub use synthesize::{Synthetic, shapes};
pub use target::Target;
pub use write::gguf::{GgufOptions, GgufType};
pub use write::repack::{repack, repack_others};
pub use write::table::HeadType;

/// Options of a conversion to a packed file.
#[derive(Debug, Clone, Copy)]
pub struct PackedOptions {
    /// Packing of the linear layers: of trits, or of the numbers of a baseline.
    pub packing: LinearType,
    /// Type of the head. In a tied model it is also the type of the embedding.
    pub head: HeadType,
    /// Rounding of the inputs of linear layers. Default: [`Source::activations`].
    pub activations: Option<Activations>,
    /// Whether a missing tokenizer or generation config is a warning instead of an error.
    pub allow_missing: bool,
}

impl Default for PackedOptions {
    /// Packing `i2`, automatic head type, activations as the checkpoint says, no missing files.
    fn default() -> PackedOptions {
        PackedOptions {
            packing: Packing::I2.into(),
            head: HeadType::default(),
            activations: None,
            allow_missing: false,
        }
    }
}

/// Converts the checkpoint at `source` to the packed file `out` and proves the result.
///
/// `out` is replaced only after the proof. On any error an existing file stays unchanged.
/// `progress` is called with (done, total), counted in weights of every pass.
pub fn convert(
    source: &Path,
    out: &Path,
    options: &PackedOptions,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<ConversionReport> {
    let out = Output::new(out)?;
    write_packed(
        &*open(source, options.allow_missing)?,
        &out,
        options,
        progress,
    )
}

/// Converts an open checkpoint, like [`convert`].
pub fn write_packed(
    source: &dyn Source,
    out: &Output,
    options: &PackedOptions,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<ConversionReport> {
    out.refuse_inputs(&source.inputs())?;
    write::packed::write(source, out, options, progress)
}

/// Converts an open checkpoint to a GGUF file and proves the result, like [`convert`].
pub fn write_gguf(
    source: &dyn Source,
    out: &Output,
    options: &GgufOptions,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<ConversionReport> {
    out.refuse_inputs(&source.inputs())?;
    write::gguf::write(source, out, options, progress)
}

/// Writes an open checkpoint as the packed Hugging Face folder `out` and proves the result.
pub fn write_huggingface(
    source: &dyn Source,
    out: &OutputFolder,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<ConversionReport> {
    write::huggingface::write(source, out, progress)
}

/// Opens a checkpoint of any readable format.
///
/// # Errors
/// [`Error::MissingFile`] if a file that every model needs is absent, unless `allow_missing`.
pub fn open(path: &Path, allow_missing: bool) -> Result<Box<dyn Source>> {
    open_with(path, &GgufHints::default(), allow_missing)
}

/// [`open`] with properties that a GGUF file does not state.
pub fn open_with(path: &Path, hints: &GgufHints, allow_missing: bool) -> Result<Box<dyn Source>> {
    let metadata = path.metadata().map_err(Error::io(path))?;
    if metadata.is_dir() {
        return Ok(Box::new(HuggingFace::open(path, allow_missing)?));
    }
    if !metadata.is_file() {
        return Err(Error::Input {
            path: path.to_owned(),
            why: "is neither a file nor a folder".into(), // opening a pipe would wait forever
        });
    }
    if is_gguf(path)? {
        return Ok(Box::new(Gguf::open(path, hints, allow_missing)?));
    }
    match Packed::open(path, allow_missing) {
        Err(Error::Packed(sterna_ternary::Error::NotPacked { why, .. })) => Err(Error::Input {
            path: path.to_owned(),
            why: format!("is a file of another kind ({why})"),
        }),
        packed => Ok(Box::new(packed?)),
    }
}

/// Compares two models of any formats.
///
/// # Errors
/// Errors of [`open`], and [`Error::Shapes`] if the shapes differ. Different weights are not an
/// error.
pub fn verify(a: &Path, b: &Path, progress: &mut dyn FnMut(u64, u64)) -> Result<Comparison> {
    verify_open(&*open(a, true)?, &*open(b, true)?, progress)
}

/// Compares two open models, like [`verify`].
pub fn verify_open(
    a: &dyn Source,
    b: &dyn Source,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Comparison> {
    let weights = layout::weights(a.config());
    let total = weights.iter().map(|w| (w.rows * w.columns) as u64).sum();
    let mut progress = ProgressCounter::new(total, progress);
    let rule = Rule {
        scales: ValueType::F32,
        is_made: false,
    };
    compare::compare(a, b, rule, &mut progress)
}

/// Whether a file starts with the magic bytes of GGUF.
pub fn is_gguf(path: &Path) -> Result<bool> {
    starts_with(path, b"GGUF")
}

fn starts_with(path: &Path, magic: &[u8]) -> Result<bool> {
    // Reading a pipe would block until another process writes to it.
    if !path.metadata().map_err(Error::io(path))?.is_file() {
        return Ok(false);
    }
    let mut start = vec![0; magic.len()];
    let read = File::open(path).and_then(|mut file| file.read_exact(&mut start));
    match read {
        Ok(()) => Ok(start == magic),
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(e) => Err(Error::io(path)(e)),
    }
}
