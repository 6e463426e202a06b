//! The arguments that every verb shares that writes text.

use sterna_runtime::{KvCache, Model, Sampling, Settings};

#[derive(clap::Args)]
#[group(skip)]
pub struct Args {
    /// Most tokens to generate [default: until the model ends or the context is full]
    #[arg(long, short = 'n')]
    max_tokens: Option<usize>,
    /// Tokens that prompt and answer may have together [default: 4096, or fewer if the model has fewer]
    #[arg(long)]
    context: Option<usize>,
    /// 0 always takes the most probable token; higher is more surprising.
    #[arg(long, default_value_t = 0.0)]
    temperature: f32,
    /// Only the K most probable tokens [default: all]
    #[arg(long, value_name = "K", default_value_t = 0, hide_default_value = true)]
    top_k: usize,
    /// Only the most probable tokens that together have this probability.
    #[arg(long, default_value_t = 1.0)]
    top_p: f32,
    /// Only tokens with at least this share of the most probable one's probability.
    #[arg(long, default_value_t = 0.0)]
    min_p: f32,
    /// Above 1 makes tokens that were there before less probable.
    #[arg(long, default_value_t = 1.0)]
    repetition_penalty: f32,
    /// The same seed gives the same text.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// End at this text; can be given several times.
    #[arg(long)]
    stop: Vec<String>,
}

impl Args {
    pub fn cache(&self, model: &Model) -> sterna_runtime::Result<KvCache> {
        let longest = model.config().max_position_embeddings;
        model.new_cache(self.context.unwrap_or(longest.min(4096)))
    }

    /// The settings of the answer number `turn`, each of which has random numbers of its own.
    pub fn settings(&self, turn: u64) -> Settings {
        Settings {
            max_tokens: self.max_tokens,
            sampling: Sampling {
                temperature: self.temperature,
                top_k: self.top_k,
                top_p: self.top_p,
                min_p: self.min_p,
                repetition_penalty: self.repetition_penalty,
                seed: self.seed.wrapping_add(turn),
            },
            stop: self.stop.clone(),
        }
    }
}
