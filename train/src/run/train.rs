//! The training loop.
//!
//! A run is a folder: `recipe.toml` with the resolved recipe, `data/` with tokenizer and token
//! shards, `checkpoints/`, `metrics.jsonl` with a line per step, `run.json` with the origin of
//! everything, and `model/`, the Hugging Face folder, when the run ends. The same recipe in the
//! same folder resumes where the run stopped. If several ranks share the folder, only rank 0
//! writes.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::json;
use sterna_datasets::rows;
use sterna_ternary::Claim;

use super::build::schedule;
use super::data::Data;
use super::events::{Control, Evaluation, Event, Outcome};
use super::folder::prepared;
use super::metrics::Metrics;
use super::opened::Run;
use super::statistics::Statistics;
use super::{checkpoint, memory, provenance, sample};
use crate::model::flops_per_token;
use crate::sequences::scored;
use crate::{Error, NUMERICS, Place, Recipe, Result, Teacher, Trainer, card, export};

/// Tokens of held-out text that a sample continues.
const SAMPLE_PROMPT: usize = 8;

/// Trains a recipe in `folder` until its last step, or until `observe` returns [`Control::Stop`] on
/// any rank. A stopped run saves a checkpoint and exports its model too.
///
/// # Errors
/// A recipe, data, a checkpoint or a folder that cannot be used, [`Error::Diverged`], and the
/// errors of communication between ranks.
pub fn train(
    run: &Run,
    folder: &Path,
    place: &Place,
    mut observe: impl FnMut(Event) -> Control,
) -> Result<Outcome> {
    let (recipe, ranks) = (run.recipe(), &place.ranks);
    if let Some(warning) = memory::check(run, place)? {
        observe(Event::Warning(&warning));
    }
    let _claim = ranks.is_first().then(|| claimed(folder)).transpose()?;
    let data = prepared(run, folder, ranks, &mut observe)?;
    let (mut trainer, mut statistics) = resumed(run, folder, place, &data, &mut observe)?;
    trainer.agree("checkpoint")?;
    let mut metrics = match ranks.is_first() {
        true => Metrics::open(&folder.join("metrics.jsonl"), trainer.step)?,
        false => Metrics::discarded(),
    };
    let checkpoints = folder.join("checkpoints");
    let (train, schedule) = (&recipe.train, schedule(&recipe.train));
    if ranks.is_first() {
        provenance::record(run, folder, &trainer)?;
    }
    observe(Event::Started {
        parameters: trainer.model.parameter_count(),
        step: trainer.step,
        epochs: data.loader.epochs(train.steps),
        flops_per_token: flops_per_token(&trainer.model.config, train.context),
    });

    // A step has a fixed number of shards; more ranks than shards are useless.
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
        // Everything that changes from step to step is a function of the step.
        let batch = data.loader.batch(trainer.step);
        let learning_rate = schedule.rate(trainer.step);
        trainer.optimizer.weight_decay = schedule.weight_decay(trainer.step);
        trainer.model.lambda = schedule.lambda(trainer.step);
        let step = trainer.step(&batch.ids, train.context, learning_rate)?;
        let (index, last) = (trainer.step, trainer.step == train.steps);
        metrics.push(json!({"step": index, "loss": step.loss,
            "gradient_norm": step.gradient_norm, "learning_rate": learning_rate,
            "lambda": trainer.model.lambda, "skipped": step.is_skipped}))?;
        // Any rank can stop the run; all of them then leave the loop after this step.
        control = observe(Event::Step {
            step: index,
            of: step,
            learning_rate,
            tokens: batch.batch * batch.context,
        });
        if ranks.any(control == Control::Stop)? {
            control = Control::Stop;
        }
        // Held-out loss, statistics of the layers and a sample.
        let is_due = index.is_multiple_of(train.evaluate_every) || last;
        if is_due && !data.held_out.is_empty() {
            let found = evaluate(&trainer, &data, recipe, &mut statistics)?;
            metrics.push(json!({"step": index, "held_out_loss": found.loss,
                "bits_per_byte": found.bits_per_byte, "sample": found.sample,
                "layers": found.layers}))?;
            observe(Event::Evaluated {
                step: index,
                of: &found,
            });
            held_out_loss = last.then_some(found.loss);
        }
        // A checkpoint, after its metrics are on the disk.
        if index.is_multiple_of(train.checkpoint_every) || last || control == Control::Stop {
            trainer.agree("result of its steps")?;
            metrics.sync()?;
            if ranks.is_first() {
                let path = checkpoint::save(&trainer, &statistics, recipe, &checkpoints)?;
                observe(Event::Saved(&path));
            }
        }
    }
    // A finished run that is started again takes no step but is scored for its card.
    let is_finished = trainer.step == train.steps;
    if is_finished && held_out_loss.is_none() && !data.held_out.is_empty() {
        held_out_loss = Some(trainer.evaluate(&data.held_out, train.context)?);
    }
    let model = folder.join("model");
    if ranks.is_first() {
        let files = run.tokenizer_from().map(|from| &from.files[..]);
        let template = run.chat().map(|chat| &*chat.template.source);
        export::huggingface(&trainer.model, &data.tokenizer, files, template, &model)?;
        let loss = held_out_loss.map(|loss| (loss, trainer.step));
        card::write(run, &trainer.model, folder, loss, &model)?;
    }
    Ok(Outcome {
        step: trainer.step,
        held_out_loss,
        model,
    })
}

/// Makes the folder of a run and keeps other processes from training in it.
fn claimed(folder: &Path) -> Result<Claim> {
    fs::create_dir_all(folder).map_err(Error::io(folder))?;
    let doing = "trains in this folder; wait for its end, or choose another folder";
    let claim = Claim::new(&folder.join("run.lock"));
    claim.map_err(|refusal| refusal.explain(folder, doing).into())
}

/// Scores held-out text, computes the statistics of the layers and writes a sample.
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
        let mut ends = trainer.model.config.eos_token_id.clone();
        ends.extend(tokenizer.eos_id());
        let ids = sample::greedy(&trainer.model, &prompt, count, context, &ends)?;
        sample = Some((tokenizer.decode(&prompt)?, tokenizer.decode(&ids)?));
    }
    Ok(Evaluation {
        loss,
        bits_per_byte: nats_per_byte / std::f64::consts::LN_2,
        layers: statistics.look(trainer)?,
        sample,
    })
}

/// The prompt of a sample: the first tokens of a text, or everything before the first answer of a
/// conversation.
fn prompt(row: &[u32]) -> Vec<u32> {
    let is_scored = |token: &u32| token & rows::UNSCORED == 0;
    let length = match row.iter().position(is_scored) {
        Some(answer) if answer > 0 => answer,
        _ => SAMPLE_PROMPT.min(row.len()),
    };
    row[..length].iter().copied().map(rows::id).collect()
}

/// The trainer at its last checkpoint, or before its first step.
fn resumed(
    run: &Run,
    folder: &Path,
    place: &Place,
    data: &Data,
    observe: &mut impl FnMut(Event) -> Control,
) -> Result<(Trainer, Statistics)> {
    let config = run.config_for(&data.tokenizer)?;
    let checkpoints = folder.join("checkpoints");
    let (found, warnings) = checkpoint::latest(run, &checkpoints)?;
    for warning in &warnings {
        observe(Event::Warning(&warning.to_string()));
    }
    let Some(found) = found else {
        let trainer = run.fresh(config, place)?;
        let statistics = Statistics::new(&trainer.model)?;
        return Ok((trainer, statistics));
    };
    if found.numerics != NUMERICS {
        return Err(Error::Numerics {
            path: checkpoints,
            found: found.numerics,
        });
    }
    let mut trainer = run.with_parameters(config, found.parameters, place)?;
    check_teacher(trainer.teacher.as_ref(), found.teacher, run.recipe())?;
    let statistics = Statistics::from_bytes(&trainer.model, &found.trits);
    let statistics = statistics.ok_or_else(|| Error::Checkpoint {
        path: checkpoints,
        why:
            "the trits in the newest checkpoint are those of another model; remove that checkpoint"
                .into(),
    })?;
    trainer.moments = found.moments;
    trainer.step = found.step;
    trainer.spikes.losses = found.losses;
    Ok((trainer, statistics))
}

/// Checks that the teacher is the one that this run has had so far.
///
/// # Errors
/// [`Error::Pretrained`] if it is not.
fn check_teacher(teacher: Option<&Teacher>, so_far: Option<String>, recipe: &Recipe) -> Result<()> {
    let now = teacher.map(|teacher| &teacher.sum);
    if now == so_far.as_ref() {
        return Ok(());
    }
    let teacher = recipe.teacher.as_ref();
    Err(Error::Pretrained {
        path: teacher.map_or_else(PathBuf::new, |t| (&t.from).into()),
        why: "its weights are not those of the teacher that this run had so far; use that one \
              again, or start a new run"
            .into(),
    })
}
