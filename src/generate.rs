//! `sterna generate`: text from a packed file.

use std::io::Write;

use serde_json::json;
use sterna_runtime::{Generation, Sampling, Settings, StopReason, Summary};

/// Continue a text. The text goes to stdout as it comes, counts and speed to stderr.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    model: crate::model::Args,
    /// The text to continue [default: none, the model begins on its own]
    #[arg(long, short, default_value = "", hide_default_value = true)]
    prompt: String,
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
    /// Print one JSON object with text, ids, counts and speed instead.
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args) -> anyhow::Result<()> {
    let model = args.model.open()?;
    let tokenizer = model.tokenizer()?;
    let prompt = tokenizer.encode(&args.prompt, true)?;
    let longest = model.config().max_position_embeddings;
    let mut cache = model.new_cache(args.context.unwrap_or(longest.min(4096)))?;
    let settings = Settings {
        max_tokens: args.max_tokens,
        sampling: Sampling {
            temperature: args.temperature,
            top_k: args.top_k,
            top_p: args.top_p,
            min_p: args.min_p,
            repetition_penalty: args.repetition_penalty,
            seed: args.seed,
        },
        stop: args.stop.clone(),
    };
    let mut generation = Generation::new(&model, &tokenizer, &mut cache, &prompt, settings)?;
    let mut text = String::new();
    let mut stdout = std::io::stdout().lock();
    for piece in generation.by_ref() {
        let piece = piece?;
        if !args.json {
            stdout.write_all(piece.as_bytes())?;
            stdout.flush()?;
        }
        text += &piece;
    }
    let summary = generation.summary();
    if args.json {
        writeln!(
            stdout,
            "{}",
            json(
                &args.prompt,
                &prompt,
                &text,
                generation.generated(),
                &summary
            )
        )?;
    } else {
        writeln!(stdout)?;
        eprintln!("{}", describe(&summary));
    }
    Ok(())
}

fn json(
    prompt: &str,
    ids: &[u32],
    text: &str,
    new: &[u32],
    summary: &Summary,
) -> serde_json::Value {
    json!({
        "prompt": prompt,
        "prompt_ids": ids,
        "text": text,
        "ids": new,
        "stop": summary.stop.map(reason),
        "prompt_tokens_per_second": rate(summary.prompt_tokens, summary.prompt_time),
        "decode_tokens_per_second": rate(summary.generated_tokens.saturating_sub(1), summary.generated_time),
    })
}

fn describe(s: &Summary) -> String {
    format!(
        "{} prompt tokens at {:.0} tokens/s, {} new ones at {:.1} tokens/s; ended by {}",
        s.prompt_tokens,
        rate(s.prompt_tokens, s.prompt_time),
        s.generated_tokens,
        rate(s.generated_tokens.saturating_sub(1), s.generated_time),
        s.stop.map_or("an error", reason),
    )
}

fn reason(stop: StopReason) -> &'static str {
    match stop {
        StopReason::Eos => "the model",
        StopReason::StopText => "a stop text",
        StopReason::Length => "length",
    }
}

pub fn rate(tokens: usize, time: std::time::Duration) -> f64 {
    tokens as f64 / time.as_secs_f64().max(1e-9)
}
