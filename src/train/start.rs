//! `from` in [model] and in [teacher] of a recipe: checkpoints in any format that `sterna convert`
//! reads, which the trainer starts from and learns from.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use sterna_convert::{self as convert, Source, masters};
use sterna_ternary::{Config, Scaling};
use sterna_train::recipe::Text;
use sterna_train::{Opened, Origins, Precision, Pretrained, Recipe, Run};

use crate::exit::BadInput;
use crate::locate::{self, Want, locate};
use crate::train::{answers, template};

/// Opens what a recipe names: the checkpoint to start from, the teacher, the chat template.
pub fn open(recipe: Recipe, origins: Origins) -> anyhow::Result<Run> {
    let base = recipe
        .model
        .from
        .as_ref()
        .map(|name| to_start_from(name, &recipe));
    let base = base.transpose()?;
    let teacher = recipe
        .teacher
        .as_ref()
        .map(|teacher| to_learn_from(&teacher.from));
    let teacher = teacher.transpose()?;
    let taught = teacher.as_ref().map(|(teacher, _)| teacher);
    let (mut renderer, mut end_of_turn) = (None, None);
    if let Some(of) = base.as_ref().or(taught)
        && recipe.has_conversations()
        && let Some(template) = answers::template(&of.files)?
    {
        end_of_turn = answers::end_of_turn(&template, &of.config, &of.files);
        renderer = Some(answers::renderer(template));
    }
    let opened = Opened {
        base,
        teacher,
        renderer,
        end_of_turn,
        chat: template::open(&recipe)?,
    };
    Ok(Run::new(recipe, origins, opened)?)
}

fn to_start_from(name: &str, recipe: &Recipe) -> anyhow::Result<Pretrained> {
    let (source, path) = source(name)?;
    let scaling = match recipe.model.scaling {
        Some(scaling) => scaling.into(),
        None => masters::finest(&*source)?,
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
    Ok(pretrained(&*source, name, config, scaling, read))
}

fn to_learn_from(name: &str) -> anyhow::Result<(Pretrained, Precision)> {
    let (source, path) = source(name)?;
    let config = source.config().clone();
    let scaling = masters::as_it_runs(&*source)?;
    let of_model = config.clone();
    let read = move || match scaling {
        Some(scaling) => masters::read(&path, &of_model, scaling),
        None => masters::read_full_precision(&path, &of_model),
    };
    let precision = match scaling {
        Some(_) => Precision::Ternary,
        None => Precision::Full,
    };
    let scaling = scaling.unwrap_or(Scaling::Matrix);
    Ok((pretrained(&*source, name, config, scaling, read), precision))
}

/// Replaces the names of data sets of the hub with their folders. A folder belongs to one commit,
/// so the resolved recipe of a run states the commit.
pub fn datasets(recipe: &mut Recipe) -> anyhow::Result<()> {
    let data = &mut recipe.data;
    let texts = data.text.iter_mut().flatten().map(Text::path_mut);
    for path in texts.chain(data.chat.iter_mut().flatten()) {
        *path = locate::texts(path)?;
    }
    Ok(())
}

fn source(name: &str) -> anyhow::Result<(Box<dyn Source>, PathBuf)> {
    let path = locate(Path::new(name), Want::Either)?;
    Ok((convert::open(&path, true)?, path))
}

/// A checkpoint in the form that the trainer takes, with this config and these weights.
fn pretrained(
    source: &dyn Source,
    name: &str,
    config: Config,
    scaling: Scaling,
    read: impl Fn() -> convert::Result<Vec<Vec<f32>>> + Send + Sync + 'static,
) -> Pretrained {
    // The trainer writes a config.json of its own.
    let files = source.files().iter();
    let files = files.filter(|(name, _)| name != "config.json").cloned();
    let read = move || read().map_err(|e| e.to_string());
    let mut checkpoint = Pretrained::new(name.into(), config, files.collect(), Arc::new(read));
    checkpoint.scaling = scaling;
    checkpoint.hub_name = sterna_ternary::card::hub_name(source.path(), "models");
    checkpoint
}
