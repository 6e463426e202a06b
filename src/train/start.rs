//! `from` in [model] and in [teacher] of a recipe: checkpoints of any format that `sterna convert` reads, as the trainer
//! starts from them and learns from them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use sterna_convert::{self as convert, Source, masters};
use sterna_ternary::{Config, Scaling};
use sterna_train::recipe::Text;
use sterna_train::{Precision, Recipe, Start};

use crate::exit::BadInput;
use crate::locate::{self, Want, locate};
use crate::train::answers;

/// Opens the checkpoints that the recipe names, if it names some: the one to start from, and a teacher.
pub fn from(recipe: &mut Recipe) -> anyhow::Result<()> {
    if let Some(name) = recipe.model.from.clone() {
        let (source, path) = open(&name)?;
        let scaling = match recipe.origins.contains_key("model.scaling") {
            true => recipe.model.scaling.into(),
            false => masters::finest(&*source)?,
        };
        let mut config = source.config().clone();
        if recipe.model.insert_sub_norms {
            config.family = config.family.with_sub_norms().ok_or_else(|| {
                let family = config.family.name;
                BadInput(format!(
                    "{name}: `insert_sub_norms`: no family is like {family} and has sub-norms"
                ))
            })?;
        }
        let of_model = config.clone();
        let read = move || masters::read(&path, &of_model, scaling);
        let mut start = start(recipe, &*source, &name, config, read)?;
        start.scaling = scaling;
        recipe.start_from(start);
    }
    if let Some(teacher) = recipe.teacher.clone() {
        let (source, path) = open(&teacher.from)?;
        let config = source.config().clone();
        let scaling = masters::as_it_runs(&*source)?;
        let of_model = config.clone();
        let read = move || match scaling {
            Some(scaling) => masters::read(&path, &of_model, scaling),
            None => masters::read_full_precision(&path, &of_model),
        };
        let mut teacher = start(recipe, &*source, &teacher.from, config, read)?;
        teacher.scaling = scaling.unwrap_or(Scaling::Matrix);
        let precision = match scaling {
            Some(_) => Precision::Ternary,
            None => Precision::Full,
        };
        recipe.taught_by(teacher, precision)?;
    }
    Ok(())
}

/// Puts the folders of data sets of the hub in the place of their names. They are of one commit each, so the resolved
/// recipe of a run says which.
pub fn datasets(recipe: &mut Recipe) -> anyhow::Result<()> {
    let data = &mut recipe.data;
    let texts = data.text.iter_mut().flatten().map(Text::path_mut);
    for path in texts.chain(data.chat.iter_mut().flatten()) {
        *path = locate::texts(path)?;
    }
    Ok(())
}

fn open(name: &str) -> anyhow::Result<(Box<dyn Source>, PathBuf)> {
    let path = locate(Path::new(name), Want::Either)?;
    Ok((convert::open(&path, true)?, path))
}

/// A checkpoint as the trainer takes it, with this config and weights.
fn start(
    recipe: &Recipe,
    source: &dyn Source,
    name: &str,
    config: Config,
    read: impl Fn() -> convert::Result<Vec<Vec<f32>>> + Send + Sync + 'static,
) -> anyhow::Result<Start> {
    // The trainer writes a config.json of its own.
    let files = source.files().iter();
    let files = files.filter(|(name, _)| name != "config.json");
    let files = files.cloned().collect();
    let read = move || read().map_err(|e| e.to_string());
    let mut start = Start::new(PathBuf::from(name), config, files, Arc::new(read));
    if recipe.data.chat.is_some() {
        start.render = answers::renderer(&start.files)?;
    }
    Ok(start)
}
