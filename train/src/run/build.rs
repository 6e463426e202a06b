//! Makes the parts of a run from its recipe: the config, the schedule, the optimizer, the teacher
//! and the trainer.
//!
//! No other file converts values of a recipe into these.

use candle_core::Device;
use serde_json::json;
use sterna_datasets::Tokenizer;
use sterna_ternary::{Config, Family};

use super::opened::Run;
use crate::model::refuse_family;
use crate::ops::Distillation;
use crate::optimizer::Optimizer;
use crate::recipe::{Recipe, TrainRecipe};
use crate::{Error, Model, Place, Precision, Result, Schedule, Spikes, Teacher, Trainer};

/// Added to the root of the second moment by AdamW.
const OPTIMIZER_EPS: f64 = 1e-8;

/// The schedule of a recipe.
pub(super) fn schedule(train: &TrainRecipe) -> Schedule {
    Schedule {
        shape: train.schedule,
        peak: train.learning_rate,
        second_peak: train.second_learning_rate.unwrap_or(train.learning_rate),
        warmup: train.warmup,
        decay_from: train.decay_from.unwrap_or(train.schedule.decay_from()),
        steps: train.steps,
        weight_decay: train.weight_decay,
        weight_decay_until: train.weight_decay_until.unwrap_or(1.0),
        ternary_from: match train.precision {
            Precision::Ternary => train.ternary_from,
            Precision::Full => u64::MAX,
        },
        ternary_ramp: train.ternary_ramp,
    }
}

/// The optimizer's constants.
fn optimizer(train: &TrainRecipe) -> Optimizer {
    Optimizer {
        method: train.optimizer,
        betas: train.betas,
        eps: OPTIMIZER_EPS,
        weight_decay: train.weight_decay,
    }
}

impl Run {
    /// The config for a tokenizer; see [`Run::config`].
    pub(super) fn config_for(&self, tokenizer: &Tokenizer) -> Result<Config> {
        // Texts and answers of conversations may end with different tokens.
        let end_of_turn = self.chat().map(|chat| &chat.end_of_turn);
        let end_of_turn = end_of_turn.and_then(|token| tokenizer.token_to_id(token));
        let mut eos: Vec<u32> = tokenizer.eos_id().into_iter().chain(end_of_turn).collect();
        eos.dedup();
        self.config(tokenizer.vocab_size(), tokenizer.bos_id(), &eos)
    }

    /// The config of the decoder for a tokenizer with `vocab_size` tokens and these special tokens.
    ///
    /// A run that starts from a checkpoint has the config of the checkpoint. The vocabulary of a
    /// teacher replaces that of the tokenizer, which may have fewer tokens. The token that ends an
    /// answer of the checkpoint's template is added to those that end a text.
    ///
    /// # Errors
    /// [`Error::Recipe`] for an unknown family, [`Error::Untrainable`] for one that is not trained,
    /// and [`Error::Ternary`] for an impossible shape.
    pub fn config(&self, vocab_size: usize, bos: u32, eos: &[u32]) -> Result<Config> {
        let context = self.recipe().train.context;
        let mut config = match (self.base(), self.teacher()) {
            (Some(base), _) => {
                let mut config = base.config.clone();
                config.max_position_embeddings = config.max_position_embeddings.max(context);
                config
            }
            (None, Some((teacher, _))) => {
                let their = &teacher.config;
                let bos = their.bos_token_id.unwrap_or(bos);
                from_recipe(self.recipe(), their.vocab_size, bos, &their.eos_token_id)?
            }
            (None, None) => from_recipe(self.recipe(), vocab_size, bos, eos)?,
        };
        let is_new = |id: &u32| !config.eos_token_id.contains(id);
        if let Some(id) = self.end_of_turn().filter(is_new) {
            config.eos_token_id.push(id);
        }
        Ok(config)
    }

    /// The model that `teacher` names, on this device; none if the recipe has no teacher.
    fn teacher_model(&self, device: &Device) -> Result<Option<Teacher>> {
        let (Some((teacher, precision)), Some(recipe)) = (self.teacher(), &self.recipe().teacher)
        else {
            return Ok(None);
        };
        let (config, weights) = (teacher.config.clone(), teacher.weights()?);
        let context = self.recipe().train.context;
        let mut model = Model::from_values(config, precision, context, weights, &Device::Cpu)?;
        model.scaling = teacher.scaling;
        let settings = Distillation {
            weight: recipe.weight as f32,
            temperature: recipe.temperature as f32,
        };
        Ok(Some(Teacher::new(model.on(device)?, settings)?))
    }

    /// A trainer before its first step, with new weights or those of the checkpoint to start from.
    pub(super) fn fresh(&self, config: Config, place: &Place) -> Result<Trainer> {
        let (recipe, train) = (self.recipe(), &self.recipe().train);
        let (precision, context) = (train.precision, train.context);
        let model = match self.base() {
            Some(base) => {
                Model::from_values(config, precision, context, base.weights()?, &Device::Cpu)?
            }
            None => {
                let deviation = recipe.model.initializer_range;
                Model::new(config, precision, context, deviation, train.seed)?
            }
        };
        self.trainer(model, place)
    }

    /// A trainer with the parameters of a checkpoint of this run.
    pub(super) fn with_parameters(
        &self,
        config: Config,
        parameters: Vec<Vec<f32>>,
        place: &Place,
    ) -> Result<Trainer> {
        let train = &self.recipe().train;
        let (precision, context) = (train.precision, train.context);
        let model = Model::from_values(config, precision, context, parameters, &Device::Cpu)?;
        self.trainer(model, place)
    }

    /// A trainer with the settings of the recipe.
    fn trainer(&self, mut model: Model, place: &Place) -> Result<Trainer> {
        let train = &self.recipe().train;
        model.scaling = self.recipe().scaling();
        model.z_loss = train.z_loss as f32;
        if train.mask_documents {
            model.document_start = model.config.bos_token_id;
        }
        let model = model.on(&place.device)?;
        let mut trainer = Trainer::new(model, optimizer(train), train.clip);
        trainer.teacher = self.teacher_model(&place.device)?;
        trainer.accumulate = train.accumulate;
        trainer.reduction = train.loss;
        trainer.activations = train.activations;
        trainer.spikes = Spikes::new(train.skip_spikes, train.spike_window);
        trainer.ranks = place.ranks.clone();
        Ok(trainer)
    }
}

/// A config with the shape of a recipe.
fn from_recipe(recipe: &Recipe, vocab_size: usize, bos: u32, eos: &[u32]) -> Result<Config> {
    let m = &recipe.model;
    let family = Family::from_name(&m.family).ok_or_else(|| Error::Recipe {
        path: "[model]".into(),
        why: format!(
            "`family` is {:?}, expected one of {}",
            m.family,
            Family::known()
        ),
    })?;
    refuse_family(family)?;
    let json = json!({
        "architectures": [family.architecture],
        "model_type": family.model_type,
        "hidden_act": family.activation.name(),
        "hidden_size": m.hidden_size,
        "intermediate_size": m.intermediate_size,
        "num_hidden_layers": m.num_hidden_layers,
        "num_attention_heads": m.num_attention_heads,
        "num_key_value_heads": m.num_key_value_heads.unwrap_or(m.num_attention_heads),
        "head_dim": m.head_dim.unwrap_or(m.hidden_size / m.num_attention_heads.max(1)),
        "vocab_size": vocab_size,
        "max_position_embeddings": recipe.train.context,
        "rms_norm_eps": m.rms_norm_eps,
        "rope_theta": m.rope_theta,
        "tie_word_embeddings": m.tie_word_embeddings,
        "bos_token_id": bos,
        "eos_token_id": eos,
    });
    Ok(Config::from_json(&json)?)
}
