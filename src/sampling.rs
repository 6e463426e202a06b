//! The arguments of the verbs that write text.

use sterna_runtime::{KvCache, Model, Sampling, Settings};

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
    /// The default is smaller for a model that was made for fewer tokens.
    #[arg(long, value_name = "N")]
    context: Option<usize>,
    /// 0 takes the most probable token; higher is more random.
    #[arg(
        long,
        value_name = "T",
        default_value_t = 0.0,
        allow_negative_numbers = true
    )]
    temperature: f32,
    /// Only the K most probable tokens [default: all]
    #[arg(long, value_name = "K", default_value_t = 0, hide_default_value = true)]
    top_k: usize,
    /// Only the most probable tokens, up to this probability.
    #[arg(
        long,
        value_name = "P",
        default_value_t = 1.0,
        allow_negative_numbers = true
    )]
    top_p: f32,
    /// Only tokens with this share of the highest probability.
    #[arg(
        long,
        value_name = "P",
        default_value_t = 0.0,
        allow_negative_numbers = true
    )]
    min_p: f32,
    /// Above 1 makes tokens that were there less probable.
    #[arg(
        long,
        value_name = "X",
        default_value_t = 1.0,
        allow_negative_numbers = true
    )]
    repetition_penalty: f32,
    /// The same seed gives the same text.
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// End at this text; repeatable.
    #[arg(long, value_name = "TEXT")]
    stop: Vec<String>,
}

impl Args {
    pub fn cache(&self, model: &Model) -> sterna_runtime::Result<KvCache> {
        let longest = model.config().max_position_embeddings;
        model.new_cache(self.context.unwrap_or(longest.min(4096)))
    }

    /// The settings of answer number `turn`. Each answer has random numbers of its own.
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
