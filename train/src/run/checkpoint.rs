//! Checkpoints: weights, moments, step and other state of a run, in one safetensors file that is
//! written durably.
//!
//! The order of the data, the rates and λ are functions of the step, so no other state is needed to
//! resume. The metadata hold checksums of the contents and of the recipe, so any reader of
//! safetensors opens a checkpoint. A damaged checkpoint is skipped, and the one before it is used.

use std::collections::VecDeque;
use std::ops::Deref;
use std::path::{Path, PathBuf};

use candle_core::{Layout, Storage, Var};
use safetensors::tensor::{Dtype, TensorView};
use safetensors::{SafeTensorError, SafeTensors};
use serde_json::{Value, json};
use sterna_ternary::durable;
use sterna_ternary::sha256::{self, Digest, Sha256};

use super::opened::Run;
use super::statistics::Statistics;
use crate::arena::Arena;
use crate::model::values_of;
use crate::ops;
use crate::optimizer::Moments;
use crate::{Error, NUMERICS, Recipe, Result, Trainer};

const PREFIX: &str = "step-";
const SUFFIX: &str = ".safetensors";
/// The metadata entry: a JSON object with the step and the checksums of contents, recipe and
/// teacher.
const FACTS: &str = "sterna-checkpoint";

/// A checkpoint that was read.
pub struct Checkpoint {
    /// Steps taken when it was written.
    pub step: u64,
    /// Parameters in the order of the model.
    pub parameters: Vec<Vec<f32>>,
    /// State of the optimizer.
    pub moments: Moments,
    /// The losses that spikes are compared with.
    pub losses: VecDeque<f64>,
    /// The [`NUMERICS`] that computed it.
    pub numerics: u64,
    /// SHA-256 of the teacher's weights, if there is a teacher.
    pub teacher: Option<String>,
    /// The trits at the last evaluation, as [`Statistics`] packs them.
    pub(crate) trits: Vec<u8>,
}

/// Writes the state of the trainer into `folder`, removes the checkpoints that the recipe does not
/// keep, and returns the path of the new one.
///
/// # Errors
/// [`Error::Io`].
pub fn save(
    trainer: &Trainer,
    statistics: &Statistics,
    recipe: &Recipe,
    folder: &Path,
) -> Result<PathBuf> {
    std::fs::create_dir_all(folder).map_err(Error::io(folder))?;
    let path = folder.join(format!("{PREFIX}{:08}{SUFFIX}", trainer.step));
    let wrap = |error| Error::io(&path)(error);
    durable::make(&path, wrap, |temporary| {
        write(trainer, statistics, recipe, temporary)
    })?;
    let (train, mut paths) = (&recipe.train, list(folder)?);
    paths.truncate(paths.len().saturating_sub(train.keep_last));
    let is_kept = |path: &PathBuf| {
        train.keep_every > 0 && step_of(path).is_some_and(|s| s.is_multiple_of(train.keep_every))
    };
    for old in paths.iter().filter(|path| !is_kept(path)) {
        std::fs::remove_file(old).map_err(Error::io(old))?;
    }
    Ok(path)
}

/// The step in a checkpoint's name.
fn step_of(path: &Path) -> Option<u64> {
    let name = path.file_name()?.to_str()?;
    name.strip_prefix(PREFIX)?
        .strip_suffix(SUFFIX)?
        .parse()
        .ok()
}

/// The newest undamaged checkpoint in `folder`, and the errors of newer ones.
pub fn latest(run: &Run, folder: &Path) -> Result<(Option<Checkpoint>, Vec<Error>)> {
    let mut warnings = Vec::new();
    for path in list(folder)?.into_iter().rev() {
        match load(&path, run) {
            Ok(checkpoint) => return Ok((Some(checkpoint), warnings)),
            Err(error @ Error::Checkpoint { .. }) => warnings.push(error),
            Err(error) => return Err(error),
        }
    }
    Ok((None, warnings))
}

/// Whether `folder` has a checkpoint, be it damaged.
pub(super) fn has_any(folder: &Path) -> Result<bool> {
    Ok(!list(folder)?.is_empty())
}

/// The paths of the checkpoints in the order of their steps; empty if the folder does not exist.
fn list(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(Error::io(folder)(e)),
    };
    let mut paths = Vec::new();
    for entry in entries {
        let name = entry.map_err(Error::io(folder))?.file_name();
        let text = name.to_string_lossy();
        if text.starts_with(PREFIX) && text.ends_with(SUFFIX) {
            paths.push(folder.join(name));
        }
    }
    paths.sort();
    Ok(paths)
}

/// SHA-256 of a recipe without its number of steps, so that a run can be extended, and without
/// folders, so that files can move.
fn recipe_sum(recipe: &Recipe) -> String {
    let mut recipe = recipe.clone().without_folders();
    recipe.train.steps = 0;
    sha256::of(recipe.to_toml().as_bytes())
}

/// SHA-256 of the facts and of every tensor, in the order of their names.
fn contents_sum<'a>(facts: &Value, tensors: impl Iterator<Item = (&'a str, &'a [u8])>) -> String {
    let mut tensors: Vec<_> = tensors.collect();
    tensors.sort_unstable_by_key(|(name, _)| *name);
    let mut sum = Sha256::new_with_prefix(facts.to_string());
    for (name, bytes) in tensors {
        for part in [name.as_bytes(), bytes] {
            sum.update((part.len() as u64).to_le_bytes());
            sum.update(part);
        }
    }
    sum.finalize().iter().map(|b| format!("{b:02x}")).collect()
}

/// The values of a parameter (rows, columns): in place on the CPU, copied from another device.
enum ParameterValues<'a> {
    InPlace(Box<dyn Deref<Target = Storage> + 'a>, &'a Layout),
    Copied(Vec<f32>),
}

impl ParameterValues<'_> {
    fn of(var: &Var) -> Result<ParameterValues<'_>> {
        if !var.device().is_cpu() {
            return Ok(ParameterValues::Copied(values_of(var)?));
        }
        let (storage, layout) = var.storage_and_layout();
        Ok(ParameterValues::InPlace(Box::new(storage), layout))
    }

    fn as_slice(&self) -> Result<&[f32]> {
        match self {
            ParameterValues::Copied(values) => Ok(values),
            ParameterValues::InPlace(storage, layout) => match &***storage {
                Storage::Cpu(storage) => Ok(ops::values(storage, layout)?),
                _ => unreachable!("what is in place is on the CPU"),
            },
        }
    }
}

/// Writes the state of a trainer as one safetensors file. On the CPU only trits and losses are
/// copied; weights and moments are written from the memory where they are.
fn write(trainer: &Trainer, statistics: &Statistics, recipe: &Recipe, path: &Path) -> Result<()> {
    let parameters = trainer
        .model
        .parameters()
        .map(|(_, var)| ParameterValues::of(var));
    let parameters: Vec<ParameterValues> = parameters.collect::<Result<_>>()?;
    let (first, second) = (&trainer.moments.first, &trainer.moments.second);
    let (first, second) = (first.values()?, second.values()?);
    let losses: Vec<f64> = trainer.spikes.losses.iter().copied().collect();
    let trits = statistics.to_bytes();
    // Names, types, shapes and bytes of all tensors.
    let mut tensors: Vec<(&str, Dtype, Vec<usize>, &[u8])> = Vec::new();
    for ((weight, var), values) in trainer.model.parameters().zip(&parameters) {
        let bytes = bytemuck::cast_slice(values.as_slice()?);
        tensors.push((&weight.name, Dtype::F32, var.dims().to_vec(), bytes));
    }
    for (name, values) in [("moments.first", &first), ("moments.second", &second)] {
        let bytes = bytemuck::cast_slice(values);
        tensors.push((name, Dtype::F32, vec![values.len()], bytes));
    }
    let bytes = bytemuck::cast_slice(&losses);
    tensors.push(("losses", Dtype::F64, vec![losses.len()], bytes));
    tensors.push(("trits", Dtype::U8, vec![trits.len()], &trits));
    let teacher = trainer.teacher.as_ref().map(|teacher| &teacher.sum);
    // The checksum covers the other facts, so it is added last.
    let mut facts = json!({"step": trainer.step, "recipe": recipe_sum(recipe), "teacher": teacher,
        "numerics": NUMERICS});
    let sum = contents_sum(
        &facts,
        tensors.iter().map(|(name, _, _, bytes)| (*name, *bytes)),
    );
    facts["sha256"] = sum.into();
    let views = tensors.iter().map(|(name, dtype, shape, bytes)| {
        let view = TensorView::new(*dtype, shape.clone(), bytes);
        (name, view.expect("the shape is that of the values"))
    });
    // A single entry: several would be written in any order.
    let metadata = [(FACTS.to_owned(), facts.to_string())].into();
    let written = safetensors::serialize_to_file(views, Some(metadata), path);
    written.map_err(|error| match error {
        SafeTensorError::IoError(error) => Error::io(path)(error),
        error => unreachable!("valid views serialize: {error}"),
    })
}

fn load(path: &Path, run: &Run) -> Result<Checkpoint> {
    let fail = |why: &str| Error::Checkpoint {
        path: path.to_owned(),
        why: why.to_owned(),
    };
    // Safetensors checks its own header, and the checksum all contents.
    let file = std::fs::read(path).map_err(Error::io(path))?;
    let cut = "not a whole safetensors file: it is damaged, or an older version of this program \
               wrote it; the checkpoint before it is used";
    let tensors = SafeTensors::deserialize(&file).map_err(|_| fail(cut))?;
    let (_, header) = SafeTensors::read_metadata(&file).map_err(|_| fail(cut))?;
    let facts = header.metadata().as_ref().and_then(|m| m.get(FACTS));
    let facts = facts.and_then(|text| serde_json::from_str::<Value>(text).ok());
    let mut facts = facts.ok_or_else(|| fail("not a checkpoint of this program"))?;
    let sum = facts
        .as_object_mut()
        .and_then(|facts| facts.remove("sha256"));
    let all = tensors.iter().map(|(name, tensor)| (name, tensor.data()));
    if sum != Some(contents_sum(&facts, all).into()) {
        return Err(fail(
            "its checksum does not match; the checkpoint before it is used",
        ));
    }
    // A valid checkpoint of another recipe is an error, not a reason to use an older one.
    if facts["recipe"] != recipe_sum(run.recipe()) {
        let why = "it was made with another recipe; choose another folder or the same recipe";
        return Err(Error::Recipe {
            path: path.to_owned(),
            why: why.into(),
        });
    }
    let step = facts["step"].as_u64();
    let step = step.ok_or_else(|| fail("it has no step"))?;
    // Tensors by name; the parameters are those that the layout of the config lists.
    let data = |name: &str| {
        let tensor = tensors.tensor(name);
        tensor
            .map(|tensor| tensor.data())
            .map_err(|_| fail(&format!("it has no tensor {name}")))
    };
    let values = |name: &str| -> Result<Vec<f32>> {
        let floats = data(name)?.chunks_exact(4);
        Ok(floats
            .map(|b| f32::from_le_bytes(b.try_into().expect("chunks of four")))
            .collect())
    };
    let config = run.config(
        vocab_size(&tensors).ok_or_else(|| fail("it has no embedding"))?,
        0,
        &[],
    )?;
    let weights = sterna_ternary::layout::weights(&config);
    Ok(Checkpoint {
        step,
        parameters: weights
            .iter()
            .map(|w| values(&w.name))
            .collect::<Result<_>>()?,
        moments: Moments {
            first: Arena::Values(values("moments.first")?.into()),
            second: Arena::Values(values("moments.second")?.into()),
        },
        losses: data("losses")?
            .chunks_exact(8)
            .map(|b| f64::from_le_bytes(b.try_into().expect("chunks of eight")))
            .collect(),
        // Checkpoints of the first version do not name it.
        numerics: facts["numerics"].as_u64().unwrap_or(1),
        teacher: facts["teacher"].as_str().map(str::to_owned),
        trits: data("trits")?.to_vec(),
    })
}

fn vocab_size(tensors: &SafeTensors) -> Option<usize> {
    tensors
        .tensor(sterna_ternary::layout::EMBEDDING)
        .ok()?
        .shape()
        .first()
        .copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::optimizer::{Method, Optimizer};
    use crate::recipe::tests::SMALL;
    use crate::{Model, Opened, Origins, Precision};

    fn trainer(run: &Run) -> Trainer {
        let config = run.config(300, 0, &[1]).unwrap();
        let model = Model::new(config, Precision::Ternary, 16, 0.02, 1).unwrap();
        let optimizer = Optimizer {
            method: Method::AdamW,
            betas: (0.9, 0.95),
            eps: 1e-8,
            weight_decay: 0.1,
        };
        let mut trainer = Trainer::new(model, optimizer, 1.0);
        let rows: Vec<u32> = (0..34).map(|i| i * 7 % 300).collect();
        trainer.step(&rows, 16, 1e-3).unwrap();
        trainer
    }

    /// The same checkpoint as the first version would have written it, without the number.
    fn without_numerics(file: &[u8]) -> Vec<u8> {
        let (_, header) = SafeTensors::read_metadata(file).unwrap();
        let text = &header.metadata().as_ref().unwrap()[FACTS];
        let mut facts: Value = serde_json::from_str(text).unwrap();
        let object = facts.as_object_mut().unwrap();
        object.remove("sha256");
        assert_eq!(object.remove("numerics"), Some(NUMERICS.into()));
        let tensors = SafeTensors::deserialize(file).unwrap();
        let all = tensors.iter().map(|(name, tensor)| (name, tensor.data()));
        facts["sha256"] = contents_sum(&facts, all).into();
        let metadata = [(FACTS.to_owned(), facts.to_string())].into();
        safetensors::serialize(tensors.tensors(), Some(metadata)).unwrap()
    }

    #[test]
    fn a_run_of_another_numerics_version_does_not_go_on() {
        let recipe = SMALL.replace("steps = 10", "steps = 2");
        let recipe = recipe.replace("[train]", "documents = 300\n[train]");
        let recipe = Recipe::parse(&recipe, Path::new("small.toml")).unwrap();
        let run = Run::new(recipe, Origins::default(), Opened::default()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let train = || {
            let place = crate::Place::default();
            crate::train(&run, folder.path(), &place, |_| crate::Control::Continue)
        };
        train().unwrap();
        train().unwrap();
        let path = folder.path().join("checkpoints/step-00000002.safetensors");
        let old = without_numerics(&std::fs::read(&path).unwrap());
        std::fs::write(&path, old).unwrap();
        let error = train().err().unwrap();
        assert!(error.is_bad_input());
        let error = error.to_string();
        assert!(error.contains("numerics version 1"), "{error}");
    }

    #[test]
    fn a_checkpoint_is_a_safetensors_file_and_a_damaged_one_is_refused() {
        let recipe = Recipe::parse(SMALL, Path::new("small.toml")).unwrap();
        let run = Run::new(recipe.clone(), Origins::default(), Opened::default()).unwrap();
        let trainer = trainer(&run);
        let statistics = Statistics::new(&trainer.model).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = save(&trainer, &statistics, &recipe, folder.path()).unwrap();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);

        let good = std::fs::read(&path).unwrap();
        let tensors = SafeTensors::deserialize(&good).unwrap();
        let parameters = trainer.parameters().unwrap();
        for ((weight, var), values) in trainer.model.parameters().zip(&parameters) {
            let tensor = tensors.tensor(&weight.name).unwrap();
            assert_eq!(tensor.shape(), var.dims());
            assert_eq!(tensor.data(), bytemuck::cast_slice::<f32, u8>(values));
        }
        let read = load(&path, &run).unwrap();
        assert_eq!((read.step, read.parameters), (1, parameters));
        let second = |moments: &Moments| moments.second.values().unwrap().to_vec();
        assert!(second(&trainer.moments).iter().any(|v| *v > 0.0));
        assert_eq!(second(&read.moments), second(&trainer.moments));

        // One bit of a value: the file still opens as safetensors, and only the checksum can tell.
        let mut damaged = good.clone();
        *damaged.last_mut().unwrap() ^= 1;
        std::fs::write(&path, &damaged).unwrap();
        let error = load(&path, &run).err().unwrap().to_string();
        assert!(error.contains("its checksum does not match"), "{error}");
        std::fs::write(&path, &good[..good.len() - 1]).unwrap();
        let error = load(&path, &run).err().unwrap().to_string();
        assert!(error.contains("not a whole safetensors file"), "{error}");
    }
}
