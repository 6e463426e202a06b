//! The arguments of the verbs that write text.

use sterna_runtime::{GenerationConfig, KvCache, Model, Sampler, Sampling, Settings};

use crate::exit::Usage;
use crate::output::{note, warning};

#[derive(clap::Args)]
#[group(skip)]
#[command(next_help_heading = "Sampling")]
pub struct Args {
    /// Tokens to generate at most [default: until the model ends]
    ///
    /// A full context ends the text too.
    #[arg(long, short = 'n', value_name = "N")]
    max_tokens: Option<usize>,
    /// Tokens of prompt and answer together [default: 4096]
    ///
    /// The default is smaller for a model that was made for fewer tokens, and larger where prompt
    /// and --max-tokens of `generate` need it.
    #[arg(long, value_name = "N")]
    context: Option<usize>,
    /// 0 takes the most probable token; higher is more random.
    ///
    /// In conversations the default of this and of the next four flags is what the
    /// generation_config.json of the model says, as in transformers.
    #[arg(long, value_name = "T", allow_negative_numbers = true)]
    temperature: Option<f32>,
    /// Only the K most probable tokens; 0 for all.
    #[arg(long, value_name = "K")]
    top_k: Option<usize>,
    /// Only the most probable tokens, up to this probability; 1 for all.
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    top_p: Option<f32>,
    /// Only tokens with this share of the highest probability.
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    min_p: Option<f32>,
    /// Above 1 makes tokens that were there less probable.
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    repetition_penalty: Option<f32>,
    /// The same seed gives the same text.
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// End at this text; repeatable.
    #[arg(long, value_name = "TEXT")]
    stop: Vec<String>,
}

/// Tokens of a context that the user did not choose.
const CONTEXT: usize = 4096;

impl Args {
    /// An empty cache for a prompt of this length.
    pub fn cache(&self, model: &Model, prompt: usize) -> anyhow::Result<KvCache> {
        let longest = model.config().max_position_embeddings;
        if let Some(context) = self.context.filter(|n| !(1..=longest).contains(n)) {
            let why =
                format!("--context {context}: expected 1 to {longest}, which the model takes");
            return Err(Usage(why).into());
        }
        let needed = prompt.saturating_add(self.max_tokens.unwrap_or(0));
        Ok(model.new_cache(self.context.unwrap_or(longest.min(CONTEXT.max(needed))))?)
    }

    /// How tokens are chosen: the flags over what the model's makers say, if it is asked.
    ///
    /// # Errors
    /// A flag that is out of range, and a generation_config.json that cannot be read.
    pub fn sampling(&self, model: Option<&Model>) -> anyhow::Result<Sampling> {
        let config = model.map(Model::generation_config).transpose()?;
        let GenerationConfig { sampling, ignored } = config.unwrap_or_default();
        let chosen = Sampling {
            temperature: self.temperature.unwrap_or(sampling.temperature),
            top_k: self.top_k.unwrap_or(sampling.top_k),
            top_p: self.top_p.unwrap_or(sampling.top_p),
            min_p: self.min_p.unwrap_or(sampling.min_p),
            repetition_penalty: self
                .repetition_penalty
                .unwrap_or(sampling.repetition_penalty),
            seed: self.seed,
            ..sampling
        };
        Sampler::new(chosen).map_err(|error| Usage(error.to_string()))?;
        // Cuts of the file do not matter for the most probable token.
        let is_sampled = self.temperature.is_none() && sampling.temperature > 0.0;
        let is_penalized = self.repetition_penalty.is_none() && sampling.repetition_penalty != 1.0;
        if is_sampled || is_penalized {
            let settings = chosen.describe();
            note!("{settings}, as the model's generation_config.json says; flags change it");
        }
        if !ignored.is_empty() {
            let keys = ignored.join(", ");
            warning!("generation_config.json sets what has no effect here: {keys}");
        }
        Ok(chosen)
    }

    /// The settings of answer number `turn` to a text of `prompt` tokens in a context of
    /// `capacity`. Each answer has random numbers of its own.
    pub fn settings(
        &self,
        sampling: Sampling,
        turn: u64,
        prompt: usize,
        capacity: usize,
    ) -> Settings {
        // The last token is not computed, so it needs no room.
        let room = (capacity + 1).saturating_sub(prompt);
        let is_cut = |tokens: &usize| room > 0 && *tokens > room;
        if let Some(tokens) = self.max_tokens.filter(is_cut) {
            note!(
                "--max-tokens {tokens}: a context of {capacity} tokens has room for {room} after \
                 {prompt} of the prompt"
            );
        }
        Settings {
            max_tokens: self
                .max_tokens
                .map(|tokens| if room > 0 { tokens.min(room) } else { tokens }),
            sampling: Sampling {
                seed: self.seed.wrapping_add(turn),
                ..sampling
            },
            stop: self.stop.clone(),
            constraint: None,
        }
    }
}
