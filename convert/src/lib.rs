//! Checkpoints in, packed files out.
//!
//! A reader gives a checkpoint as a [`Source`]: a config, the files to embed, and one tensor at a time in a
//! canonical form. A writer turns any source into a file and then proves it: it opens the result, reads the
//! source again and compares every trit, scale and value. So N readers and M writers make N × M conversions.
//!
//! [`Synthetic`] makes models of random weights, [`repack`] changes the packing of a packed file.
//!
//! A reader is one file and one line in [`open`]; a writer is one file beside `packed.rs`.
#![deny(unsafe_code)]

mod embedded;
mod error;
mod huggingface;
mod packed;
mod parallel;
mod proof;
mod repack;
mod report;
mod safetensors_files;
mod source;
mod stream;
mod synthesize;
mod table;

use std::path::{Path, PathBuf};

pub use error::{Error, Result};
pub use huggingface::HuggingFace;
pub use repack::repack;
pub use report::{MatrixReport, Report, TableReport};
pub use source::{Source, StoredScale, Ternary};
use sterna_ternary::{Packing, durable};
pub use synthesize::Synthetic;
pub use table::HeadType;

/// What a conversion makes.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// How the trits are packed.
    pub packing: Packing,
    /// Type of the head, and of the embedding of a tied model.
    pub head: HeadType,
    /// Whether a checkpoint without tokenizer or generation settings gives a warning instead of an error.
    pub allow_missing: bool,
}

/// Converts the checkpoint at `source` to the packed file `out` and proves the result.
///
/// `out` appears only after its proof; until then, and on any error, what was there before stays.
/// `progress` is called with (done, total), counted in weights, once a pass over each.
pub fn convert(
    source: &Path,
    out: &Path,
    options: &Options,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Report> {
    check_output(out)?;
    let source = open(source, options.allow_missing)?;
    refuse_to_overwrite(out, &source.inputs())?;
    packed::write(&*source, out, options, progress)
}

/// Opens a checkpoint of any readable format.
///
/// # Errors
/// [`Error::MissingFile`] where a file that belongs to every model is absent, unless `allow_missing`.
pub fn open(path: &Path, allow_missing: bool) -> Result<Box<dyn Source>> {
    let metadata = path.metadata().map_err(Error::io(path))?;
    if metadata.is_dir() {
        return Ok(Box::new(HuggingFace::open(path, allow_missing)?));
    }
    Err(Error::Input {
        path: path.to_owned(),
        why: "is a file".into(),
    })
}

/// Refuses a place where no file can be written, before anything else is done for it.
///
/// # Errors
/// [`Error::Output`] says what is wrong with it.
pub fn check_output(out: &Path) -> Result<()> {
    let refuse = |why: String| {
        Err(Error::Output {
            path: out.to_owned(),
            why,
        })
    };
    let folder = durable::folder_of(out);
    if out.file_name().is_none() || out.is_dir() {
        return refuse("is a folder; give the name of a file in it".into());
    }
    if !folder.is_dir() {
        return refuse(format!(
            "the folder {} does not exist; make it first",
            folder.display()
        ));
    }
    Ok(())
}

fn refuse_to_overwrite(out: &Path, inputs: &[PathBuf]) -> Result<()> {
    let place = |path: &Path| {
        let folder = durable::folder_of(path).canonicalize().ok()?;
        Some(folder.join(path.file_name()?))
    };
    let target = |path: &Path| path.canonicalize().ok();
    let is_out = |input: &&PathBuf| {
        place(input) == place(out) || (target(input).is_some() && target(input) == target(out))
    };
    match inputs.iter().find(is_out) {
        Some(input) => Err(Error::Output {
            path: out.to_owned(),
            why: format!(
                "is the input {}; give another name, conversion never changes its source",
                input.display()
            ),
        }),
        None => Ok(()),
    }
}
