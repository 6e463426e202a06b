//! Reads a recipe and refuses values that are out of range or contradict each other.

use std::path::Path;

use super::schema::{Recipe, Text};
use crate::{Error, Precision, Result};

impl Recipe {
    /// Reads a recipe from TOML. `path` is for error messages.
    ///
    /// # Errors
    /// [`Error::Recipe`] for invalid TOML, an unknown key, or an impossible value.
    pub fn parse(text: &str, path: &Path) -> Result<Recipe> {
        let fail = |e: toml::de::Error| Error::Recipe {
            path: path.to_owned(),
            why: e.to_string(),
        };
        let recipe: Recipe = toml::from_str(text).map_err(fail)?;
        let recipe = recipe.resolved();
        recipe.check(path)?;
        Ok(recipe)
    }

    /// Checks that every setting is in range. `path` is for error messages.
    ///
    /// # Errors
    /// [`Error::Recipe`] for the first setting that is not.
    pub fn check(&self, path: &Path) -> Result<()> {
        self.in_range().map_err(|why| Error::Recipe {
            path: path.to_owned(),
            why,
        })
    }

    /// The model needs a shape, or a checkpoint that has one.
    fn has_shape(&self) -> std::result::Result<(), String> {
        let m = &self.model;
        if m.from.is_some() {
            return Ok(());
        }
        if m.insert_sub_norms {
            return Err("[model] `insert_sub_norms` needs `from`".into());
        }
        let missing = [
            ("model", "family", usize::from(!m.family.is_empty())),
            ("model", "hidden_size", m.hidden_size),
            ("model", "intermediate_size", m.intermediate_size),
            ("model", "num_hidden_layers", m.num_hidden_layers),
            ("model", "num_attention_heads", m.num_attention_heads),
            (
                "data",
                "vocab_size",
                self.data.vocab_size + usize::from(self.teacher.is_some()),
            ),
        ];
        match missing.into_iter().find(|(_, _, value)| *value == 0) {
            None => Ok(()),
            Some((section, key, _)) => Err(format!(
                "[{section}] needs `{key}`, or `from` in [model], a checkpoint (`--from` on the \
                 command line)"
            )),
        }
    }

    fn teacher_in_range(&self) -> std::result::Result<(), String> {
        let Some(teacher) = &self.teacher else {
            return Ok(());
        };
        let (weight, temperature) = (teacher.weight, teacher.temperature);
        if !(0.0..=1.0).contains(&weight) {
            return Err(format!("[teacher] `weight` is {weight}, expected 0 to 1"));
        }
        if !(0.1..=100.0).contains(&temperature) {
            return Err(format!(
                "[teacher] `temperature` is {temperature}, expected 0.1 to 100"
            ));
        }
        Ok(())
    }

    /// `template` and `special_tokens` are allowed only where they have an effect.
    fn template_has_use(&self) -> std::result::Result<(), String> {
        let data = &self.data;
        if data.template.is_some() && !self.needs_template() {
            return Err(
                "[data] `template` is for models that are trained from scratch, and this one has \
                 the template of a checkpoint: remove it, or `from` in [model] and [teacher]"
                    .into(),
            );
        }
        let mut template = data.template.iter();
        if data.special_tokens.is_some() && !template.any(|t| t.ends_with(".jinja")) {
            return Err(
                "[data] `special_tokens` needs a `template` that is a .jinja file; named \
                 templates have their own"
                    .into(),
            );
        }
        Ok(())
    }

    fn in_range(&self) -> std::result::Result<(), String> {
        self.has_shape()?;
        self.teacher_in_range()?;
        let (data, train) = (&self.data, &self.train);
        let sources = [data.mix.is_some(), data.text.is_some(), data.chat.is_some()];
        if sources.into_iter().filter(|is_there| *is_there).count() != 1 {
            let why = "[data] needs one of `mix`, `text` and `chat` (`--text`, `--chat` on the \
                       command line)";
            return Err(why.into());
        }
        // Weights of texts: all or none, each a positive number.
        let weights: Vec<_> = data.text.iter().flatten().map(Text::weight).collect();
        if weights.contains(&None) && weights.iter().any(Option::is_some) {
            return Err("[data] `text`: give a weight to each path or to none".into());
        }
        if let Some(weight) = weights
            .iter()
            .flatten()
            .find(|w| !(**w > 0.0 && w.is_finite()))
        {
            return Err(format!(
                "[data] `text` has the weight {weight}, expected a number above 0"
            ));
        }
        self.template_has_use()?;
        for (key, value) in [
            // Counts that cannot be 0.
            ("steps", train.steps),
            ("batch", train.batch as u64),
            ("context", train.context as u64),
            ("accumulate", train.accumulate as u64),
            ("keep_last", train.keep_last as u64),
            ("spike_window", train.spike_window as u64),
            ("evaluate_every", train.evaluate_every),
            ("checkpoint_every", train.checkpoint_every),
        ] {
            if value == 0 {
                return Err(format!("[train] `{key}` is 0, expected at least 1"));
            }
        }
        for (key, value, below) in [
            // Numbers from 0 up to, but not including, a limit.
            ("learning_rate", train.learning_rate, 1.0),
            (
                "second_learning_rate",
                train.second_learning_rate.unwrap_or(0.0),
                1.0,
            ),
            ("z_loss", train.z_loss, 1.0),
            ("skip_spikes", train.skip_spikes, f64::INFINITY),
            ("weight_decay", train.weight_decay, f64::MAX),
            ("clip", train.clip, f64::INFINITY),
            ("betas", train.betas.0, 1.0),
            ("betas", train.betas.1, 1.0),
        ] {
            if !(0.0..below).contains(&value) {
                return Err(format!(
                    "[train] `{key}` is {value}, expected 0 up to {below}"
                ));
            }
        }
        for (key, share) in [
            ("decay_from", train.decay_from),
            ("weight_decay_until", train.weight_decay_until),
        ] {
            if let Some(share) = share
                && !(0.0..=1.0).contains(&share)
            {
                return Err(format!("[train] `{key}` is {share}, expected 0 to 1"));
            }
        }
        // Quantization has to be complete before the run ends.
        let late = train.ternary_from + train.ternary_ramp;
        if train.precision == Precision::Ternary && late >= train.steps {
            return Err(format!(
                "[train] `ternary_from` + `ternary_ramp` is {late}, expected less than the {} \
                 `steps`",
                train.steps
            ));
        }
        if train.precision == Precision::Full && late > 0 {
            return Err(
                "[train] `ternary_from` and `ternary_ramp` need `precision = \"ternary\"`".into(),
            );
        }
        Ok(())
    }
}
