//! Exports the model of a run that has not ended.

use std::path::Path;

use super::opened::Run;
use super::{checkpoint, data};
use crate::{Error, Place, Result, card, export};

/// Writes the model of the newest checkpoint of a run into the folder `out`, and returns the number
/// of steps of the checkpoint. The run itself does not change.
///
/// # Errors
/// [`Error::Checkpoint`] if there is no readable checkpoint, and the errors of reading it and of
/// writing.
pub fn export_newest(run: &Run, folder: &Path, out: &Path) -> Result<u64> {
    let checkpoints = folder.join("checkpoints");
    let (found, warnings) = checkpoint::latest(run, &checkpoints)?;
    let found = found.ok_or_else(|| {
        let none = Error::Checkpoint {
            path: checkpoints,
            why:
                "there is no checkpoint yet; train for longer or with a smaller `checkpoint_every`"
                    .into(),
        };
        warnings.into_iter().next().unwrap_or(none)
    })?;
    let tokenizer = data::tokenizer(run, &folder.join("data"))?;
    let config = run.config_for(&tokenizer)?;
    let trainer = run.with_parameters(config, found.parameters, &Place::default())?;
    let files = run.tokenizer_from().map(|from| &from.files[..]);
    let template = run.chat().map(|chat| &*chat.template.source);
    export::huggingface(&trainer.model, &tokenizer, files, template, out)?;
    card::write(run, &trainer.model, folder, None, out)?;
    Ok(found.step)
}
