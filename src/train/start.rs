//! `from` in [model] and in [teacher] of a recipe: checkpoints of any format that `sterna convert` reads, as the trainer
//! starts from them and learns from them.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sterna_convert::{self as convert, Source};
use sterna_ternary::layout::{self, Role, Weight};
use sterna_ternary::{Activations, Config, Scaling};
use sterna_train::{Precision, Recipe, Start};

use crate::exit::BadInput;
use crate::locate::{Want, locate};
use crate::train::answers;

/// Opens the checkpoints that the recipe names, if it names some: the one to start from, and a teacher.
pub fn from(recipe: &mut Recipe) -> anyhow::Result<()> {
    if let Some(name) = recipe.model.from.clone() {
        let (source, path) = open(&name)?;
        warn_of_many_scales(&*source);
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
        let read = move || weights(&path, &of_model, masters);
        recipe.start_from(start(recipe, &*source, &name, config, read)?);
    }
    if let Some(teacher) = recipe.teacher.clone() {
        let (source, path) = open(&teacher.from)?;
        let (config, precision) = (source.config().clone(), precision(&*source)?);
        let of_model = config.clone();
        let read = move || weights(&path, &of_model, as_it_runs);
        let teacher = start(recipe, &*source, &teacher.from, config, read)?;
        recipe.taught_by(teacher, precision)?;
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
    // config.json comes first and is written anew.
    let files = source.files()[1..].to_vec();
    let read = move || read().map_err(|e| e.to_string());
    let mut start = Start::new(PathBuf::from(name), config, files, Arc::new(read));
    if recipe.data.chat.is_some() {
        start.render = answers::renderer(&start.files)?;
    }
    Ok(start)
}

/// The linear layer that tells what all are like; every model has one.
fn first_linear(source: &dyn Source) -> Weight {
    let mut weights = layout::weights(source.config()).into_iter();
    let first = weights.find(|w| w.role == Role::Linear);
    first.expect("a config has at least one layer")
}

/// What a teacher multiplies with, so that it computes what the runtime does: trits of its masters with int8
/// activations if it is BitNet; else, of whatever scales, the products themselves, as those of full precision.
fn precision(source: &dyn Source) -> convert::Result<Precision> {
    let is_bitnet = match source.scaling(&first_linear(source)) {
        Ok(scaling) => scaling == Scaling::Matrix && source.activations() == Activations::Int8,
        // What declares nothing and cannot be taken apart into trits and scales is in full precision.
        Err(convert::Error::Tensor { .. }) => false,
        Err(error) => return Err(error),
    };
    Ok(match is_bitnet {
        true => Precision::Ternary,
        false => Precision::Full,
    })
}

/// A matrix of a teacher for [`precision`].
fn as_it_runs(source: &dyn Source, weight: &Weight) -> convert::Result<Vec<f32>> {
    if precision(source)? == Precision::Full
        && let Ok(ternary) = source.linear(weight)
        && let Some(scale) = ternary.scales.single()
    {
        return Ok(ternary
            .trits
            .iter()
            .map(|t| f32::from(*t) * scale)
            .collect());
    }
    source.masters(weight)
}

fn masters(source: &dyn Source, weight: &Weight) -> convert::Result<Vec<f32>> {
    source.masters(weight)
}

/// Which values a matrix of a linear layer has.
type OfLinear = fn(&dyn Source, &Weight) -> convert::Result<Vec<f32>>;

/// All weights of the model; norms that the checkpoint does not have are 1.
fn weights(path: &Path, config: &Config, linear: OfLinear) -> convert::Result<Vec<Vec<f32>>> {
    let source = convert::open(path, true)?;
    let stored = layout::weights(source.config()).into_iter();
    let stored: HashMap<String, Weight> = stored.map(|w| (w.name.clone(), w)).collect();
    let values = |weight: &Weight| match stored.get(&weight.name) {
        Some(weight) => values(&*source, weight, linear),
        None => Ok(vec![1.0; weight.columns]),
    };
    layout::weights(config).iter().map(values).collect()
}

fn values(source: &dyn Source, weight: &Weight, linear: OfLinear) -> convert::Result<Vec<f32>> {
    match weight.role {
        Role::Linear => linear(source, weight),
        Role::Norm => source.vector(weight),
        Role::Table => {
            let mut values = vec![0.0; weight.rows * weight.columns];
            source.rows(weight, 0, &mut values)?;
            Ok(values)
        }
    }
}

/// The trainer's matrices have one scale each; a checkpoint with more starts from other trits than it had.
fn warn_of_many_scales(source: &dyn Source) {
    // A matrix in full precision has no scale, and that is no error here.
    if let Ok(scaling @ (Scaling::Row | Scaling::Group)) = source.scaling(&first_linear(source)) {
        eprintln!(
            "warning: {}: a scale for each {} of a matrix; training starts with one for all, so with other trits",
            source.path().display(),
            scaling.name()
        );
    }
}
