//! Costs, evaluations and values of a run in words and in JSON, as the command line prints them.

use serde_json::{Value, json};
use sterna_ternary::units;

use super::cost::RunCost;
use super::events::Evaluation;
use super::opened::Run;
use super::preparation::Preparation;
use super::statistics::TritStatistics;
use crate::recipe::TrainRecipe;

impl Run {
    /// Every value of the recipe with its origin, by key.
    pub fn values(&self) -> Value {
        let flat = self.recipe().flat().into_iter();
        let with_origin = |(key, value): (String, toml::Value)| {
            let origin = self.origins().of(&key).to_owned();
            (key, json!({"value": value, "from": origin}))
        };
        flat.map(with_origin)
            .collect::<serde_json::Map<_, _>>()
            .into()
    }

    /// The recipe as TOML, with the origin of each value in a comment.
    pub fn annotated_toml(&self) -> String {
        let (mut text, mut current) = (String::new(), "");
        let flat = self.recipe().flat();
        for (key, value) in &flat {
            let (section, name) = key.split_once('.').unwrap_or(("", key));
            if section != current {
                let gap = if current.is_empty() { "" } else { "\n" };
                text += &format!("{gap}[{section}]\n");
                current = section;
            }
            let value = format!("{name} = {value}");
            text += &format!("{value:<40} # {}\n", self.origins().of(key));
        }
        text
    }
}

impl RunCost {
    /// All figures.
    pub fn json(&self) -> Value {
        let preparation = self.preparation.as_ref().map(|of| {
            json!({"bytes": of.bytes, "measured_bytes": of.measured_bytes,
                "seconds": of.seconds, "peak_bytes": of.peak_bytes})
        });
        json!({"parameters": self.parameters, "ternary_parameters": self.ternary_parameters,
            "tokens": self.tokens, "state_bytes": self.state_bytes,
            "estimated_bytes": self.estimated_bytes, "limit_bytes": self.limit_bytes,
            "peak_bytes": self.peak_bytes, "checkpoint_bytes": self.checkpoint_bytes,
            "tokens_per_second": self.tokens_per_second,
            "share_of_peak": self.share_of_peak, "hours": self.hours(),
            "preparation": preparation})
    }

    /// The cost of training with these settings in words.
    pub fn describe(&self, train: &TrainRecipe) -> String {
        let peak = match self.peak_bytes {
            Some(bytes) => format!(", {} measured", units::bytes(bytes)),
            None => String::new(),
        };
        let limit = match self.limit_bytes {
            Some(bytes) => format!(" of {}", units::bytes(bytes)),
            None => String::new(),
        };
        let prepared = self.preparation.as_ref().map(Preparation::describe);
        let prepared = prepared.unwrap_or_default();
        format!(
            "parameters   {:.2} M, {:.2} M of them ternary\n\
             tokens       {:.1} M: {} steps of {}, {:.1} for each parameter\n\
             memory       {}{limit} estimated at the peak{peak}; {} are weights, moments and a \
             gradient\n\
             checkpoints  {} each\n\
             {prepared}\
             speed        {:.0} tokens/s, {:.0} % of the peak of matrix products; \
             the better of two real steps\n\
             time         {}, without evaluations",
            self.parameters as f64 / 1e6,
            self.ternary_parameters as f64 / 1e6,
            self.tokens / 1e6,
            train.steps,
            self.step_tokens,
            self.tokens / self.parameters as f64,
            units::bytes(self.estimated_bytes),
            units::bytes(self.state_bytes),
            units::bytes(self.checkpoint_bytes),
            self.tokens_per_second,
            100.0 * self.share_of_peak,
            units::duration(3600.0 * self.hours()),
        )
    }
}

impl Preparation {
    /// A line about the work before the first step.
    fn describe(&self) -> String {
        let peak = match self.peak_bytes {
            Some(bytes) => format!(", {} at the peak", units::bytes(bytes)),
            None => String::new(),
        };
        let share = match self.measured_bytes == self.bytes {
            true => String::new(),
            false => format!(" on {} of them", units::bytes(self.measured_bytes)),
        };
        format!(
            "preparation  {}{peak}: {} of data to tokens, measured{share}\n",
            units::duration(self.seconds),
            units::bytes(self.bytes),
        )
    }
}

/// Characters of a sample that are shown.
const SAMPLE: usize = 90;

impl Evaluation {
    /// The evaluation after this number of steps in words, with the beginning of the sample.
    pub fn describe(&self, step: u64) -> String {
        let Evaluation {
            loss,
            bits_per_byte,
            layers,
            sample,
        } = self;
        let mut line =
            format!("step {step}: held-out loss {loss:.4}, {bits_per_byte:.3} bits per byte");
        let trits: Vec<_> = layers.iter().filter_map(|layer| layer.trits).collect();
        if !trits.is_empty() {
            let mean = |of: fn(&TritStatistics) -> f64| {
                100.0 * trits.iter().map(of).sum::<f64>() / trits.len() as f64
            };
            let (zeros, flips) = (mean(|t| t.zeros), mean(|t| t.flips));
            line += &format!(", {zeros:.1} % zeros, {flips:.2} % flipped");
        }
        if let Some((prompt, more)) = sample {
            let more: String = more.chars().take(SAMPLE).collect();
            let text = format!("[{prompt}]{more}").replace(['\n', '\r'], " ");
            line += &format!("\n  {text}");
        }
        line
    }
}
