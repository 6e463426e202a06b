//! `[model] from` of a recipe: a checkpoint of any format that `sterna convert` reads, as the trainer starts from it.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sterna_convert::{self as convert, Source};
use sterna_ternary::layout::{self, Role, Weight};
use sterna_ternary::{Config, Scaling};
use sterna_train::{Recipe, Start};

use crate::exit::BadInput;
use crate::locate::{Want, locate};
use crate::train::answers;

/// Opens the checkpoint that the recipe names, if it names one.
pub fn from(recipe: &mut Recipe) -> anyhow::Result<()> {
    let Some(name) = &recipe.model.from else {
        return Ok(());
    };
    let path = locate(Path::new(name), Want::Either)?;
    let source = convert::open(&path, true)?;
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
    // config.json comes first and is written anew.
    let files = source.files()[1..].to_vec();
    let of_model = config.clone();
    let weights = move || weights(&path, &of_model).map_err(|e| e.to_string());
    let mut start = Start::new(PathBuf::from(name), config, files, Arc::new(weights));
    if recipe.data.chat.is_some() {
        start.render = answers::renderer(&start.files)?;
    }
    recipe.start_from(start);
    Ok(())
}

/// All weights of the model; norms that the checkpoint does not have are 1.
fn weights(path: &Path, config: &Config) -> convert::Result<Vec<Vec<f32>>> {
    let source = convert::open(path, true)?;
    let stored = layout::weights(source.config()).into_iter();
    let stored: HashMap<String, Weight> = stored.map(|w| (w.name.clone(), w)).collect();
    let values = |weight: &Weight| match stored.get(&weight.name) {
        Some(weight) => values(&*source, weight),
        None => Ok(vec![1.0; weight.columns]),
    };
    layout::weights(config).iter().map(values).collect()
}

fn values(source: &dyn Source, weight: &Weight) -> convert::Result<Vec<f32>> {
    match weight.role {
        Role::Linear => source.masters(weight),
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
    let weights = layout::weights(source.config());
    let linear = weights.iter().find(|w| w.role == Role::Linear);
    // A matrix in full precision has no scale, and that is no error here.
    if let Some(Ok(scaling @ (Scaling::Row | Scaling::Group))) =
        linear.map(|weight| source.scaling(weight))
    {
        eprintln!(
            "warning: {}: a scale for each {} of a matrix; training starts with one for all, so with other trits",
            source.path().display(),
            scaling.name()
        );
    }
}
