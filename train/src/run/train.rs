//! The training loop.
//!
//! A run is a folder: `recipe.toml` as resolved, `data/` with tokenizer and token shards, `checkpoints/`,
//! `metrics.jsonl` with one line a step, `run.json` with where all came from, and `model/`, the Hugging Face
//! folder, once it is finished. Running the same recipe in the same folder again goes on where it stopped.
//! Of several ranks, which share the folder, the first writes it.

use std::io::Write;
use std::path::{Path, PathBuf};

use candle_core::Device;
use serde_json::json;
use sterna_datasets::chat::Counts;
use sterna_datasets::rows;
use sterna_ternary::{Config, durable};

use super::data::{self, Data};
use super::metrics::Metrics;
use super::statistics::{Layer, Statistics};
use super::{checkpoint, provenance, sample};
use crate::model::{flops_per_token, scored};
use crate::ranks::Ranks;
use crate::schedule::Schedule;
use crate::spikes::Spikes;
use crate::{Error, Model, Place, Recipe, Result, Step, Trainer, export};

/// What the loop reports while it runs.
#[derive(Debug)]
pub enum Event<'a> {
    /// The tokenizer and the shards are being made.
    Preparing,
    /// Conversations were written into rows: those to train on, and those that are held out.
    Packed([Counts; 2]),
    /// Training begins, or goes on, at this step.
    Started {
        /// Values that are trained.
        parameters: usize,
        /// First step.
        step: u64,
        /// Times that the data will be seen.
        epochs: f64,
        /// Multiplications and additions of a step, per token.
        flops_per_token: f64,
    },
    /// There are more ranks than a step has parts.
    Idle {
        /// Ranks without work.
        ranks: usize,
        /// Parts of a step.
        shards: usize,
    },
    /// A damaged checkpoint was passed over.
    Warning(&'a Error),
    /// A step was taken.
    Step {
        /// Its index, counted from 1.
        step: u64,
        /// Loss and gradient.
        of: Step,
        /// Its learning rate.
        learning_rate: f64,
        /// Tokens in it.
        tokens: usize,
    },
    /// Held-out text was scored.
    Evaluated {
        /// After this step.
        step: u64,
        /// What was found.
        of: &'a Evaluation,
    },
    /// A checkpoint was written.
    Saved(&'a Path),
}

/// How good a model is, always as it will be exported.
#[derive(Debug, Clone, PartialEq)]
pub struct Evaluation {
    /// Mean loss on held-out text, nats per token.
    pub loss: f64,
    /// The same per byte of text, which does not depend on the tokenizer.
    pub bits_per_byte: f64,
    /// Every matrix of a linear layer.
    pub layers: Vec<Layer>,
    /// The beginning of a held-out text and what the model writes after it; none if the recipe wants none.
    pub sample: Option<(String, String)>,
}

/// Whether the loop goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Control {
    /// To the next step.
    Continue,
    /// Save a checkpoint and return.
    Stop,
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// Steps taken in all.
    pub step: u64,
    /// Held-out loss at the end, nats per token; none if the run was stopped.
    pub held_out_loss: Option<f64>,
    /// The Hugging Face folder: of the finished model or, if it was stopped, of the model as it was then.
    pub model: PathBuf,
}

/// Tokens of held-out text that a sample goes on from.
const SAMPLE_PROMPT: usize = 8;

/// Trains a recipe in `folder` until its last step, or until `observe` says stop on any rank.
pub fn train(
    recipe: &Recipe,
    folder: &Path,
    place: &Place,
    mut observe: impl FnMut(Event) -> Control,
) -> Result<Outcome> {
    let ranks = &place.ranks;
    let data = prepared(recipe, folder, ranks, &mut observe)?;
    let (mut trainer, mut statistics) = resumed(recipe, folder, place, &data, &mut observe)?;
    trainer.agree("checkpoint")?;
    let mut metrics = match ranks.is_first() {
        true => Metrics::open(&folder.join("metrics.jsonl"), trainer.step)?,
        false => Metrics::discarded(),
    };
    let checkpoints = folder.join("checkpoints");
    let (train, schedule) = (&recipe.train, recipe.schedule());
    if ranks.is_first() {
        provenance::record(recipe, folder, &trainer)?;
    }
    observe(Event::Started {
        parameters: trainer.model.parameter_count(),
        step: trainer.step,
        epochs: data.loader.epochs(train.steps),
        flops_per_token: flops_per_token(&trainer.model.config, train.context),
    });

    let shards = trainer.shards(train.batch * train.accumulate, train.context);
    if ranks.size() > shards {
        observe(Event::Idle {
            ranks: ranks.size() - shards,
            shards,
        });
    }

    let mut held_out_loss = None;
    let mut control = Control::Continue;
    while trainer.step < train.steps && control == Control::Continue {
        let batch = data.loader.batch(trainer.step);
        let learning_rate = schedule.rate(trainer.step);
        trainer.optimizer.weight_decay = schedule.weight_decay(trainer.step);
        trainer.model.lambda = schedule.lambda(trainer.step);
        let step = trainer.step(&batch.ids, train.context, learning_rate)?;
        let (index, last) = (trainer.step, trainer.step == train.steps);
        metrics.push(json!({"step": index, "loss": step.loss, "gradient_norm": step.gradient_norm,
            "learning_rate": learning_rate, "lambda": trainer.model.lambda, "skipped": step.is_skipped}))?;
        control = observe(Event::Step {
            step: index,
            of: step,
            learning_rate,
            tokens: batch.batch * batch.context,
        });
        if ranks.any(control == Control::Stop)? {
            control = Control::Stop;
        }
        if index.is_multiple_of(train.evaluate_every) || last {
            let found = evaluate(&trainer, &data, recipe, &mut statistics)?;
            metrics.push(json!({"step": index, "held_out_loss": found.loss,
                "bits_per_byte": found.bits_per_byte, "sample": found.sample, "layers": found.layers}))?;
            observe(Event::Evaluated {
                step: index,
                of: &found,
            });
            held_out_loss = last.then_some(found.loss);
        }
        if index.is_multiple_of(train.checkpoint_every) || last || control == Control::Stop {
            trainer.agree("result of its steps")?;
            metrics.sync()?;
            if ranks.is_first() {
                let path = checkpoint::save(&trainer, &statistics, recipe, &checkpoints)?;
                observe(Event::Saved(&path));
            }
        }
    }
    if trainer.step == train.steps && held_out_loss.is_none() {
        held_out_loss = Some(trainer.evaluate(&data.held_out, train.context)?);
    }
    let model = folder.join("model");
    if ranks.is_first() {
        let files = recipe.tokenizer_from().map(|start| &start.files[..]);
        export::huggingface(&trainer.model, &data.tokenizer, files, &model)?;
    }
    Ok(Outcome {
        step: trainer.step,
        held_out_loss,
        model,
    })
}

/// Writes the model of a run's newest checkpoint into the folder `out` and returns the steps that
/// it had taken. The run need not be at an end; it is not touched.
///
/// # Errors
/// [`Error::Checkpoint`] where there is none that can be read, and those of reading it and of writing.
pub fn export_newest(recipe: &Recipe, folder: &Path, out: &Path) -> Result<u64> {
    let checkpoints = folder.join("checkpoints");
    let (found, warnings) = checkpoint::latest(recipe, &checkpoints)?;
    let found = found.ok_or_else(|| {
        let none = Error::Checkpoint {
            path: checkpoints,
            why:
                "there is no checkpoint yet; train for longer or with a smaller `checkpoint_every`"
                    .into(),
        };
        warnings.into_iter().next().unwrap_or(none)
    })?;
    let tokenizer = data::tokenizer(recipe, &folder.join("data"))?;
    let eos: Vec<u32> = tokenizer.eos_id().into_iter().collect();
    let config = recipe.config(tokenizer.vocab_size(), tokenizer.bos_id(), &eos)?;
    let (precision, context) = (recipe.train.precision, recipe.train.context);
    let mut model = Model::from_values(config, precision, context, found.parameters, &Device::Cpu)?;
    model.scaling = recipe.model.scaling.into();
    let files = recipe.tokenizer_from().map(|start| &start.files[..]);
    export::huggingface(&model, &tokenizer, files, out)?;
    Ok(found.step)
}

/// Scores held-out text, looks at the layers and lets the model write.
fn evaluate(
    trainer: &Trainer,
    data: &Data,
    recipe: &Recipe,
    statistics: &mut Statistics,
) -> Result<Evaluation> {
    let (held_out, context) = (&data.held_out, recipe.train.context);
    let loss = trainer.evaluate(held_out, context)?;
    let tokens = scored(held_out, context);
    let nats_per_byte = loss * tokens as f64 / data.held_out_bytes.max(1) as f64;
    let (count, tokenizer) = (recipe.train.sample_tokens, &data.tokenizer);
    let mut sample = None;
    if count > 0 {
        let prompt = prompt(&held_out[..context]);
        let ids = sample::greedy(&trainer.model, &prompt, count, context, tokenizer.eos_id())?;
        sample = Some((tokenizer.decode(&prompt)?, tokenizer.decode(&ids)?));
    }
    Ok(Evaluation {
        loss,
        bits_per_byte: nats_per_byte / std::f64::consts::LN_2,
        layers: statistics.look(trainer)?,
        sample,
    })
}

/// What a sample goes on from: the first few tokens of a text, or of a conversation all that comes before its first
/// answer.
fn prompt(row: &[u32]) -> Vec<u32> {
    let is_scored = |token: &u32| token & rows::UNSCORED == 0;
    let length = match row.iter().position(is_scored) {
        Some(answer) if answer > 0 => answer,
        _ => SAMPLE_PROMPT.min(row.len()),
    };
    row[..length].iter().copied().map(rows::id).collect()
}

/// The data of the run, which the first rank makes while the others wait.
fn prepared(
    recipe: &Recipe,
    folder: &Path,
    ranks: &Ranks,
    observe: &mut impl FnMut(Event) -> Control,
) -> Result<Data> {
    ranks.agree("recipe", recipe.to_toml().as_bytes())?;
    if ranks.is_first() {
        claim(recipe, folder, observe)?;
    }
    ranks.barrier()?;
    data::open(recipe, &folder.join("data"))
}

/// Makes the data if the folder is new, and refuses a folder that belongs to another recipe; more steps of the same are
/// fine where those that were taken stay what they were.
fn claim(recipe: &Recipe, folder: &Path, observe: &mut impl FnMut(Event) -> Control) -> Result<()> {
    let path = folder.join("recipe.toml");
    match std::fs::read_to_string(&path) {
        Ok(there) if there == recipe.to_toml() => Ok(()),
        Ok(there) => {
            other_steps(recipe, &there, folder).map_err(|why| Error::Recipe {
                path: path.clone(),
                why,
            })?;
            let text = recipe.to_toml();
            durable::write(&path, |w| w.write_all(text.as_bytes())).map_err(Error::io(&path))
        }
        Err(_) => {
            observe(Event::Preparing);
            if let Some(counts) = data::prepare(recipe, &folder.join("data"))? {
                observe(Event::Packed(counts));
            }
            let text = recipe.to_toml();
            durable::write(&path, |w| w.write_all(text.as_bytes())).map_err(Error::io(&path))
        }
    }
}

/// Whether the run of the recipe `there` can go on as this one: only `steps` may differ, and what the schedule was for
/// the steps so far may not.
fn other_steps(recipe: &Recipe, there: &str, folder: &Path) -> std::result::Result<(), String> {
    let another = "this folder belongs to a run of another recipe; choose another folder, or remove this one to start \
                   over";
    let before = toml::from_str::<Recipe>(there).map_err(|_| another)?;
    let mut same = recipe.clone();
    same.train.steps = before.train.steps;
    if same.to_toml() != before.to_toml() {
        return Err(another.into());
    }
    let checkpoints = folder.join("checkpoints");
    let (found, _) = checkpoint::latest(recipe, &checkpoints).map_err(|e| e.to_string())?;
    let (taken, steps) = (found.map_or(0, |found| found.step), recipe.train.steps);
    let (old, new) = (before.schedule(), recipe.schedule());
    let at = |s: &Schedule, step| (s.rate(step), s.weight_decay(step), s.lambda(step));
    let differs = |step: &u64| *step >= steps || at(&old, *step) != at(&new, *step);
    match (0..taken).find(differs) {
        None => Ok(()),
        Some(step) => Err(format!(
            "this run took {taken} steps of {}, and a schedule over {steps} is another one from step {} on; remove the \
             newer checkpoints to go on from an older one (`keep_every` keeps some), choose the first number of steps \
             again, or start another run from its model with --from",
            before.train.steps,
            step + 1
        )),
    }
}

/// The trainer at its last checkpoint, or fresh.
fn resumed(
    recipe: &Recipe,
    folder: &Path,
    place: &Place,
    data: &Data,
    observe: &mut impl FnMut(Event) -> Control,
) -> Result<(Trainer, Statistics)> {
    let tokenizer = &data.tokenizer;
    let eos: Vec<u32> = tokenizer.eos_id().into_iter().collect();
    let config = recipe.config(tokenizer.vocab_size(), tokenizer.bos_id(), &eos)?;
    let checkpoints = folder.join("checkpoints");
    let (found, warnings) = checkpoint::latest(recipe, &checkpoints)?;
    for warning in &warnings {
        observe(Event::Warning(warning));
    }
    let Some(found) = found else {
        let trainer = placed(fresh(recipe, config)?, place)?;
        let statistics = Statistics::new(&trainer.model)?;
        return Ok((trainer, statistics));
    };
    let (precision, context) = (recipe.train.precision, recipe.train.context);
    let model = Model::from_values(config, precision, context, found.parameters, &Device::Cpu)?;
    let mut trainer = placed(with_settings(recipe, model)?, place)?;
    check_teacher(&trainer.model, found.teacher, recipe)?;
    let statistics = Statistics::from_bytes(&trainer.model, &found.trits);
    let statistics = statistics.ok_or_else(|| Error::Checkpoint {
        path: checkpoints,
        why: "the trits of the last evaluation are of another model; remove the newest".into(),
    })?;
    trainer.moments = found.moments;
    trainer.step = found.step;
    trainer.spikes.losses = found.losses;
    Ok((trainer, statistics))
}

/// A recipe's trainer before its first step: with fresh weights or those of the checkpoint that it starts from.
pub(super) fn fresh(recipe: &Recipe, config: Config) -> Result<Trainer> {
    let (deviation, train) = (recipe.model.initializer_range, &recipe.train);
    let (precision, context) = (train.precision, train.context);
    let model = match &recipe.start {
        Some(start) => {
            Model::from_values(config, precision, context, start.weights()?, &Device::Cpu)?
        }
        None => Model::new(config, precision, context, deviation, train.seed)?,
    };
    with_settings(recipe, model)
}

/// Refuses to go on with another teacher than the one so far.
fn check_teacher(model: &Model, so_far: Option<String>, recipe: &Recipe) -> Result<()> {
    let now = model.teacher.as_ref().map(|teacher| &teacher.sum);
    if now == so_far.as_ref() {
        return Ok(());
    }
    let teacher = recipe.teacher.as_ref();
    Err(Error::Start {
        path: teacher.map_or_else(PathBuf::new, |t| (&t.from).into()),
        why: "its weights are not those of the teacher that this run had so far; bring that one back, or start a new \
              run"
            .into(),
    })
}

fn with_settings(recipe: &Recipe, mut model: Model) -> Result<Trainer> {
    let train = &recipe.train;
    model.teacher = recipe.teacher()?;
    model.scaling = recipe.model.scaling.into();
    model.z_loss = train.z_loss as f32;
    if train.mask_documents {
        model.document_start = model.config.bos_token_id;
    }
    let mut trainer = Trainer::new(model, recipe.optimizer(), train.clip);
    trainer.accumulate = train.accumulate;
    trainer.reduction = train.loss;
    trainer.activations = train.activations;
    trainer.spikes = Spikes::new(train.skip_spikes, train.spike_window);
    Ok(trainer)
}

fn placed(mut trainer: Trainer, place: &Place) -> Result<Trainer> {
    trainer.model = trainer.model.on(&place.device)?;
    trainer.ranks = place.ranks.clone();
    Ok(trainer)
}
