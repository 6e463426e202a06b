//! The training loop.
//!
//! A run is a folder: `recipe.toml` as resolved, `data/` with tokenizer and token shards, `checkpoints/`,
//! `metrics.jsonl` with one line a step, and `model/`, the Hugging Face folder, once it is finished. Running
//! the same recipe in the same folder again goes on where it stopped.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use candle_core::Device;
use serde_json::{Value, json};
use sterna_ternary::durable;

use crate::data::{self, Data};
use crate::{Error, Model, Recipe, Result, Trainer, checkpoint, export};

/// What the loop reports while it runs.
#[derive(Debug)]
pub enum Event<'a> {
    /// The tokenizer and the shards are being made.
    Preparing,
    /// Training begins, or goes on, at this step.
    Started {
        /// Values that are trained.
        parameters: usize,
        /// First step.
        step: u64,
        /// Times that the data will be seen.
        epochs: f64,
    },
    /// A damaged checkpoint was passed over.
    Warning(&'a Error),
    /// A step was taken.
    Step {
        /// Its index, counted from 1.
        step: u64,
        /// Mean loss of its batch, nats per token.
        loss: f64,
        /// Tokens in it.
        tokens: usize,
    },
    /// Held-out text was scored.
    Evaluated {
        /// After this step.
        step: u64,
        /// Nats per token.
        loss: f64,
    },
    /// A checkpoint was written.
    Saved(&'a Path),
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

/// Trains a recipe in `folder` until its last step, or until `observe` says stop.
pub fn train(
    recipe: &Recipe,
    folder: &Path,
    mut observe: impl FnMut(Event) -> Control,
) -> Result<Outcome> {
    let data = prepared(recipe, folder, &mut observe)?;
    let mut trainer = resumed(recipe, folder, &data, &mut observe)?;
    let mut metrics = Metrics::open(&folder.join("metrics.jsonl"), trainer.step)?;
    let checkpoints = folder.join("checkpoints");
    let (train, schedule) = (&recipe.train, recipe.schedule());
    observe(Event::Started {
        parameters: trainer.model.parameter_count(),
        step: trainer.step,
        epochs: data.loader.epochs(train.steps),
    });

    let mut held_out_loss = None;
    let mut control = Control::Continue;
    while trainer.step < train.steps && control == Control::Continue {
        let batch = data.loader.batch(trainer.step);
        let rate = schedule.rate(trainer.step);
        let step = trainer.step(&batch.ids, train.context, rate)?;
        let (index, last) = (trainer.step, trainer.step == train.steps);
        metrics.push(json!({"step": index, "loss": step.loss,
            "gradient_norm": step.gradient_norm, "learning_rate": rate}))?;
        let tokens = batch.batch * batch.context;
        control = observe(Event::Step {
            step: index,
            loss: step.loss,
            tokens,
        });
        if index.is_multiple_of(train.evaluate_every) || last {
            let loss = trainer.evaluate(&data.held_out, train.context)?;
            metrics.push(json!({"step": index, "held_out_loss": loss}))?;
            observe(Event::Evaluated { step: index, loss });
            held_out_loss = last.then_some(loss);
        }
        if index.is_multiple_of(train.checkpoint_every) || last || control == Control::Stop {
            metrics.sync()?;
            let path = checkpoint::save(&trainer, recipe, &checkpoints)?;
            observe(Event::Saved(&path));
        }
    }
    if trainer.step == train.steps && held_out_loss.is_none() {
        held_out_loss = Some(trainer.evaluate(&data.held_out, train.context)?);
    }
    let model = folder.join("model");
    export::huggingface(&trainer.model, &data.tokenizer, &model)?;
    Ok(Outcome {
        step: trainer.step,
        held_out_loss,
        model,
    })
}

/// The data of the run; made if the folder is new, refused if it belongs to another recipe.
fn prepared(
    recipe: &Recipe,
    folder: &Path,
    observe: &mut impl FnMut(Event) -> Control,
) -> Result<Data> {
    let path = folder.join("recipe.toml");
    match std::fs::read_to_string(&path) {
        Ok(there) if there == recipe.to_toml() => {}
        Ok(_) => {
            let why = "this folder belongs to a run of another recipe; choose another folder, or \
                       remove this one to start over";
            return Err(Error::Recipe {
                path,
                why: why.into(),
            });
        }
        Err(_) => {
            observe(Event::Preparing);
            data::prepare(recipe, &folder.join("data"))?;
            let text = recipe.to_toml();
            durable::write(&path, |w| w.write_all(text.as_bytes())).map_err(Error::io(&path))?;
        }
    }
    data::open(recipe, &folder.join("data"))
}

/// The trainer at its last checkpoint, or fresh.
fn resumed(
    recipe: &Recipe,
    folder: &Path,
    data: &Data,
    observe: &mut impl FnMut(Event) -> Control,
) -> Result<Trainer> {
    let tokenizer = &data.tokenizer;
    let eos: Vec<u32> = tokenizer.eos_id().into_iter().collect();
    let config = recipe.config(tokenizer.vocab_size(), tokenizer.bos_id(), &eos)?;
    let (found, warnings) = checkpoint::latest(recipe, &folder.join("checkpoints"))?;
    for warning in &warnings {
        observe(Event::Warning(warning));
    }
    let (precision, context) = (recipe.train.precision, recipe.train.context);
    let trainer = |model| Trainer::new(model, recipe.optimizer(), recipe.train.clip);
    Ok(match found {
        None => {
            let (deviation, seed) = (recipe.model.initializer_range, recipe.train.seed);
            trainer(Model::new(config, precision, context, deviation, seed)?)
        }
        Some(found) => {
            let values = found.parameters;
            let model = Model::from_values(config, precision, context, values, &Device::Cpu)?;
            Trainer {
                moments: found.moments,
                step: found.step,
                ..trainer(model)
            }
        }
    })
}

/// `metrics.jsonl`: what happened after the checkpoint that a run resumes from is dropped and written again.
struct Metrics {
    path: PathBuf,
    out: BufWriter<File>,
}

impl Metrics {
    fn open(path: &Path, step: u64) -> Result<Metrics> {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(e) => return Err(Error::io(path)(e)),
        };
        let done = |line: &&str| {
            let line: Option<Value> = serde_json::from_str(line).ok();
            line.is_some_and(|line| line["step"].as_u64().is_some_and(|s| s <= step))
        };
        let kept: String = text
            .lines()
            .filter(done)
            .flat_map(|line| [line, "\n"])
            .collect();
        durable::write(path, |w| w.write_all(kept.as_bytes())).map_err(Error::io(path))?;
        let file = File::options()
            .append(true)
            .open(path)
            .map_err(Error::io(path))?;
        Ok(Metrics {
            path: path.to_owned(),
            out: BufWriter::new(file),
        })
    }

    fn push(&mut self, line: Value) -> Result<()> {
        writeln!(self.out, "{line}").map_err(Error::io(&self.path))
    }

    /// Puts every line so far on the disk, so that no checkpoint is newer than its metrics.
    fn sync(&mut self) -> Result<()> {
        let synced = self
            .out
            .flush()
            .and_then(|()| self.out.get_ref().sync_data());
        synced.map_err(Error::io(&self.path))
    }
}
