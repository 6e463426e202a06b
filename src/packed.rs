//! A model in any format as a packed file, which the runtime maps.

use std::path::{Path, PathBuf};

use anyhow::Context;
use sterna_convert::{Cached, HeadType, PackCache, PackedOptions};
use sterna_ternary::{LinearType, Packing, units};
use sterna_train::{Origins, Recipe};

use crate::locate::{Want, locate};
use crate::output::{detail, note, warning};
use crate::terminal;
use crate::train::start;

/// The packed file of the model that a user named: the file itself, `model.sterna` of a run, or a
/// file of the cache.
pub fn packed(given: &Path) -> anyhow::Result<PathBuf> {
    let model = locate(given, Want::Runnable)?;
    let options = options(Packing::I2.into(), HeadType::default());
    show(&model, |show| {
        cache(given, &model).packed(&model, &options, export, show)
    })
}

/// A Hugging Face folder, a GGUF file or a run as a packed file of the cache, with this packing and
/// head.
pub fn packed_as(
    given: &Path,
    checkpoint: &Path,
    packing: LinearType,
    head: HeadType,
) -> anyhow::Result<PathBuf> {
    let options = options(packing, head);
    show(checkpoint, |show| {
        Ok(cache(given, checkpoint).cached(checkpoint, &options, show)?)
    })
}

/// The model of a run as a Hugging Face folder; every other path is itself.
pub fn checkpoint(given: &Path, model: &Path) -> anyhow::Result<PathBuf> {
    let found = cache(given, model).checkpoint(model, export)?;
    if let Some(step) = found.step {
        let run = model.display();
        note!("{run}: the run has not ended; its checkpoint of step {step} is used");
    }
    Ok(found.path)
}

fn options(packing: LinearType, head: HeadType) -> PackedOptions {
    PackedOptions {
        packing,
        head,
        ..PackedOptions::default()
    }
}

/// The cache for a model that the user named `given` and that is at `model`. Nothing is written
/// into the hub's cache, because other programs share it.
fn cache(given: &Path, model: &Path) -> PackCache {
    PackCache {
        beside: model.starts_with(given),
        user: dirs::cache_dir().map(|folder| folder.join("sterna")),
    }
}

/// Packs with a progress bar and says in one line what was written.
fn show(
    model: &Path,
    pack: impl FnOnce(&mut dyn FnMut(u64, u64)) -> anyhow::Result<Cached>,
) -> anyhow::Result<PathBuf> {
    let bar = terminal::bar(0, "  packing {wide_bar} {percent}%");
    let cached = pack(&mut |done, total| {
        bar.set_length(total);
        bar.set_position(done);
    });
    bar.finish_and_clear();
    let Cached { path, report } = cached?;
    if report.is_none() && path != model {
        detail!(
            "{} was packed before as {}",
            model.display(),
            path.display()
        );
    }
    if let Some(report) = report {
        for warning in &report.warnings {
            warning!("{warning}");
        }
        note!(
            "packed {} ({}, {}); the packed file is kept as {}",
            model.display(),
            report.packing,
            units::bytes(report.bytes_out),
            path.display()
        );
    }
    Ok(path)
}

/// Writes the newest checkpoint of a run as a Hugging Face folder and returns its step.
fn export(run: &Path, out: &Path) -> anyhow::Result<u64> {
    let path = run.join("recipe.toml");
    let text = std::fs::read_to_string(&path)
        .with_context(|| format!("cannot read {}", path.display()))?;
    let opened = start::open(Recipe::parse(&text, &path)?, Origins::default())?;
    Ok(sterna_train::export_newest(&opened, run, out)?)
}
