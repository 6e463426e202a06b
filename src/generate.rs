//! `sterna generate`: text from a packed file.

use crate::output::{note, out, outln};
use serde_json::{Value, json};
use sterna_runtime::{Generation, Message, Model, StopReason, Summary, Tokenizer};

/// Continue a text, or with --chat answer a message.
///
/// The text goes to stdout as it is generated, counts and speed go to stderr.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    model: crate::model::Args,
    /// The text to continue [default: none, the model begins on its own]
    #[arg(
        long,
        short,
        value_name = "TEXT",
        default_value = "",
        hide_default_value = true
    )]
    prompt: String,
    /// Take the prompt as a message, written as the chat template says.
    #[arg(long)]
    chat: bool,
    /// The system message before it.
    #[arg(long, value_name = "TEXT", requires = "chat")]
    system: Option<String>,
    /// Print one JSON object with text, ids, counts and speed instead.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    sampling: crate::sampling::Args,
}

pub fn run(args: &Args) -> anyhow::Result<()> {
    let model = args.model.open()?;
    let tokenizer = model.tokenizer()?;
    let prompt = args.prompt(&model, &tokenizer)?;
    let mut cache = args.sampling.cache(&model)?;
    let settings = args.sampling.settings(0);
    let mut generation = Generation::new(&model, &tokenizer, &mut cache, &prompt, settings)?;
    let mut text = String::new();
    for piece in generation.by_ref() {
        let piece = piece?;
        if !args.json {
            out!("{piece}")?;
        }
        text += &piece;
    }
    let summary = generation.summary();
    if args.json {
        let mut object = json!({
            "prompt": args.prompt,
            "prompt_ids": prompt,
            "text": text,
            "ids": generation.generated(),
        });
        append(&mut object, &summary);
        outln!("{object}")?;
    } else {
        outln!("")?;
        note!("{}", describe(&summary));
    }
    Ok(())
}

impl Args {
    fn prompt(&self, model: &Model, tokenizer: &Tokenizer) -> anyhow::Result<Vec<u32>> {
        if !self.chat {
            return Ok(tokenizer.encode(&self.prompt, true)?);
        }
        let system = self.system.iter().map(|text| Message::new("system", text));
        let mut messages: Vec<Message> = system.collect();
        messages.push(Message::new("user", &self.prompt));
        let text = model.chat_template()?.render(&messages, true)?;
        Ok(tokenizer.encode(&text, false)?)
    }
}

/// Adds counts and speed to a JSON object.
pub fn append(object: &mut Value, s: &Summary) {
    object["stop"] = s.stop.map_or("an interruption", reason).into();
    object["cached_tokens"] = s.cached_tokens.into();
    object["prompt_tokens"] = s.prompt_tokens.into();
    object["generated_tokens"] = s.generated_tokens.into();
    object["prompt_tokens_per_second"] = rate(s.prompt_tokens, s.prompt_time).into();
    let decoded = s.generated_tokens.saturating_sub(1);
    object["decode_tokens_per_second"] = rate(decoded, s.generated_time).into();
}

pub fn describe(s: &Summary) -> String {
    let cached = match s.cached_tokens {
        0 => String::new(),
        n => format!("{n} tokens were in the cache, "),
    };
    format!(
        "{cached}{} prompt tokens at {:.0} tokens/s, {} new ones at {:.1} tokens/s; ended by {}",
        s.prompt_tokens,
        rate(s.prompt_tokens, s.prompt_time),
        s.generated_tokens,
        rate(s.generated_tokens.saturating_sub(1), s.generated_time),
        s.stop.map_or("an interruption", reason),
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
