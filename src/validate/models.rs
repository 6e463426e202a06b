//! The models of the command line as packed files; [`crate::packed`] packs other formats.
//!
//! The model of a run is `model/` or, if the run has not ended, its newest checkpoint. Nothing is
//! rounded, so a folder is judged as it was published. To measure the cost of a smaller head, give
//! a file that was converted with it.

use std::path::{Path, PathBuf};

use sterna_convert::{HeadType, is_gguf};
use sterna_runtime::Options;
use sterna_ternary::{Dense, LinearType, Packing};
use sterna_validate::judge::{Subject, names};

use crate::exit::BadInput;
use crate::locate::{Want, locate};
use crate::packed::{checkpoint, packed_as};

/// Models that are open.
pub struct Models {
    pub subjects: Vec<Subject>,
    /// The argument of each of them.
    pub given: Vec<PathBuf>,
    options: Options,
}

impl Models {
    /// Opens packed files and everything that can be packed. With `has_masters`, the first subject
    /// is the master weights of the first model.
    pub fn open(given: &[PathBuf], has_masters: bool, options: Options) -> anyhow::Result<Models> {
        let mut models = Models {
            subjects: Vec::new(),
            given: Vec::new(),
            options,
        };
        for (given, name) in given.iter().zip(names(given)) {
            let path = checkpoint(given, &locate(given, Want::Either)?)?;
            let pack = |packing: LinearType| packed_as(given, &path, packing, HeadType::Lossless);
            if has_masters && models.subjects.is_empty() {
                check_masters(&path)?;
                let masters = pack(Dense::F16.into())?;
                models.push(given, &masters, format!("{name} masters"))?;
            }
            let packed = match path.is_dir() || is_gguf(&path)? {
                true => pack(Packing::I2.into())?,
                false => path,
            };
            models.push(given, &packed, name)?;
        }
        Ok(models)
    }

    fn push(&mut self, given: &Path, path: &Path, name: String) -> anyhow::Result<()> {
        self.subjects.push(Subject::open(path, name, self.options)?);
        self.given.push(given.to_owned());
        Ok(())
    }
}

/// Refuses a model without master weights.
fn check_masters(path: &Path) -> anyhow::Result<()> {
    let source = sterna_convert::open(path, false)?;
    match source.has_masters() {
        true => Ok(()),
        false => {
            let why = format!(
                "--masters: {}: expected master weights, which are in the folder of a training run \
                 or in a Hugging Face folder with `quantization_mode` online; give one of these as \
                 the first MODEL",
                path.display()
            );
            Err(BadInput(why).into())
        }
    }
}
