//! `from` in [model] and in [teacher] of a recipe: checkpoints of any format that `sterna convert` reads, as the trainer
//! starts from them and learns from them.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sterna_convert::{self as convert, Scales, Source, StoredScale, Ternary};
use sterna_ternary::layout::{self, Role, Weight};
use sterna_ternary::{Activations, Config, Scaling};
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
            false => finest(&*source)?,
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
        let read = move || weights(&path, &of_model, scaling);
        let mut start = start(recipe, &*source, &name, config, read)?;
        start.scaling = scaling;
        recipe.start_from(start);
    }
    if let Some(teacher) = recipe.teacher.clone() {
        let (source, path) = open(&teacher.from)?;
        let config = source.config().clone();
        let (precision, scaling) = as_it_runs(&*source)?;
        let of_model = config.clone();
        let read = move || match precision {
            Precision::Ternary => weights(&path, &of_model, scaling),
            Precision::Full => of_full_precision(&path, &of_model),
        };
        let mut teacher = start(recipe, &*source, &teacher.from, config, read)?;
        teacher.scaling = scaling;
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
    // config.json comes first and is written anew.
    let files = source.files()[1..].to_vec();
    let read = move || read().map_err(|e| e.to_string());
    let mut start = Start::new(PathBuf::from(name), config, files, Arc::new(read));
    if recipe.data.chat.is_some() {
        start.render = answers::renderer(&start.files)?;
    }
    Ok(start)
}

/// The scaling that describes every linear layer of a checkpoint; one scale a matrix of what is in full precision.
fn finest(source: &dyn Source) -> convert::Result<Scaling> {
    let mut finest = Scaling::Matrix;
    for weight in layout::weights(source.config()) {
        if weight.role != Role::Linear {
            continue;
        }
        match (finest, source.scaling(&weight)) {
            (_, Err(convert::Error::Tensor { .. })) => return Ok(Scaling::Matrix),
            (_, Err(error)) => return Err(error),
            (_, Ok(Scaling::Group)) => return Ok(Scaling::Group),
            (_, Ok(Scaling::Row)) => finest = Scaling::Row,
            (_, Ok(Scaling::Matrix)) => {}
        }
    }
    Ok(finest)
}

/// What a teacher multiplies with, so that it computes what the runtime does: trits with int8 activations, or, where
/// activations are not quantized so, the weights as they are.
fn as_it_runs(source: &dyn Source) -> convert::Result<(Precision, Scaling)> {
    match source.activations() {
        Activations::Int8 => Ok((Precision::Ternary, finest(source)?)),
        Activations::Int16 => Ok((Precision::Full, Scaling::Matrix)),
    }
}

/// All weights of a model that trains in ternary from them; norms that the checkpoint does not have are 1.
fn weights(path: &Path, config: &Config, scaling: Scaling) -> convert::Result<Vec<Vec<f32>>> {
    read(path, config, &move |source, weight| {
        // What cannot be taken apart into trits and scales is in full precision.
        match source.linear(weight) {
            Ok(ternary) if ternary.stored != StoredScale::Masters => {
                Ok(masters(&ternary, weight.columns, scaling))
            }
            Ok(_) | Err(convert::Error::Tensor { .. }) => source.masters(weight),
            Err(error) => Err(error),
        }
    })
}

/// All weights of a model, trits times their scales where it is ternary.
fn of_full_precision(path: &Path, config: &Config) -> convert::Result<Vec<Vec<f32>>> {
    read(
        path,
        config,
        &|source, weight| match source.linear(weight) {
            Ok(ternary) => Ok(products(&ternary, weight.columns)),
            Err(convert::Error::Tensor { .. }) => source.masters(weight),
            Err(error) => Err(error),
        },
    )
}

fn products(ternary: &Ternary, columns: usize) -> Vec<f32> {
    let Scales { scaling, values } = &ternary.scales;
    let rows = ternary.trits.len() / columns;
    let scale = |i: usize| values[scaling.index(i / columns, i % columns, rows)];
    let product = |(i, trit): (usize, &i8)| f32::from(*trit) * scale(i);
    ternary.trits.iter().enumerate().map(product).collect()
}

/// Values that ternarize to these trits and, where a part of `scaling` has one scale, to it: the products, larger by
/// 1 / mean|trit| of their part.
fn masters(ternary: &Ternary, columns: usize, scaling: Scaling) -> Vec<f32> {
    let rows = ternary.trits.len() / columns;
    let part = |i: usize| scaling.index(i / columns, i % columns, rows);
    let parts = scaling.shape(rows, columns).iter().product();
    let (mut all, mut nonzero) = (vec![0u32; parts], vec![0u32; parts]);
    for (i, trit) in ternary.trits.iter().enumerate() {
        all[part(i)] += 1;
        nonzero[part(i)] += u32::from(*trit != 0);
    }
    let larger = |i: usize| f64::from(all[part(i)]) / f64::from(nonzero[part(i)].max(1));
    let products = products(ternary, columns).into_iter().enumerate();
    products.map(|(i, w)| w * larger(i) as f32).collect()
}

/// Reads a linear layer.
type ReadLinear = dyn Fn(&dyn Source, &Weight) -> convert::Result<Vec<f32>>;

/// All weights in the order of the model, those of linear layers as `linear` reads them.
fn read(path: &Path, config: &Config, linear: &ReadLinear) -> convert::Result<Vec<Vec<f32>>> {
    let source = convert::open(path, true)?;
    let stored = layout::weights(source.config()).into_iter();
    let stored: HashMap<String, Weight> = stored.map(|w| (w.name.clone(), w)).collect();
    let values = |weight: &Weight| match (stored.get(&weight.name), weight.role) {
        (None, _) => Ok(vec![1.0; weight.columns]),
        (Some(weight), Role::Linear) => linear(&*source, weight),
        (Some(weight), Role::Norm) => source.vector(weight),
        (Some(weight), Role::Table) => {
            let mut values = vec![0.0; weight.rows * weight.columns];
            source.rows(weight, 0, &mut values)?;
            Ok(values)
        }
    };
    layout::weights(config).iter().map(values).collect()
}
