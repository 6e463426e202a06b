//! `sterna generate`: text from a packed file.

use std::io::{IsTerminal, Read};
use std::path::PathBuf;

use anyhow::Context;
use serde_json::{Value, json};
use sterna_runtime::{Generation, Message, Model, StopReason, Summary, Tokenizer};

use crate::exit::BadInput;
use crate::output::{note, out, outln};

/// Continue a text, or with --chat answer a message.
///
/// The text goes to stdout as it is generated, counts and speed go to stderr.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    model: crate::model::Args,
    #[command(flatten)]
    prompt: Prompt,
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

/// Where the prompt comes from.
#[derive(clap::Args)]
#[group(multiple = false)]
struct Prompt {
    /// The text to continue, or - for standard input [default: a pipe's text, or nothing]
    ///
    /// Without a text the model begins on its own.
    #[arg(value_name = "PROMPT")]
    text: Option<String>,
    /// The same, as a flag.
    #[arg(long, short, value_name = "TEXT", allow_hyphen_values = true)]
    prompt: Option<String>,
    /// A file with the text; the end of its last line is left out.
    #[arg(long, short = 'f', value_name = "FILE")]
    prompt_file: Option<PathBuf>,
}

pub fn run(args: &Args) -> anyhow::Result<()> {
    let given = args.prompt.read()?;
    let model = args.model.open()?;
    let tokenizer = model.tokenizer()?;
    let prompt = args.tokens(&given, &model, &tokenizer)?;
    let mut cache = args.sampling.cache(&model, prompt.len())?;
    let sampling = args.sampling.sampling(args.chat.then_some(&model))?;
    let settings = args
        .sampling
        .settings(sampling, 0, prompt.len(), cache.capacity());
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
            "prompt": given,
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

impl Prompt {
    fn read(&self) -> anyhow::Result<String> {
        let bytes = match (
            self.text.as_ref().or(self.prompt.as_ref()),
            &self.prompt_file,
        ) {
            (Some(text), _) if text != "-" => return Ok(text.clone()),
            (None, Some(path)) => {
                std::fs::read(path).map_err(|e| BadInput(format!("{}: {e}", path.display())))?
            }
            (None, None) if std::io::stdin().is_terminal() => return Ok(String::new()),
            _ => {
                let mut bytes = Vec::new();
                let read = std::io::stdin().read_to_end(&mut bytes);
                read.context("standard input cannot be read")?;
                bytes
            }
        };
        let mut text = String::from_utf8(bytes).map_err(|e| {
            let at = e.utf8_error().valid_up_to();
            BadInput(format!(
                "the prompt is not UTF-8 at byte {at}; convert it to UTF-8"
            ))
        })?;
        // Editors and `echo` end the last line; the text of a prompt rarely means this.
        let end = if text.ends_with("\r\n") {
            2
        } else {
            usize::from(text.ends_with('\n'))
        };
        text.truncate(text.len() - end);
        Ok(text)
    }
}

impl Args {
    fn tokens(
        &self,
        given: &str,
        model: &Model,
        tokenizer: &Tokenizer,
    ) -> anyhow::Result<Vec<u32>> {
        if !self.chat {
            return Ok(tokenizer.encode(given, true)?);
        }
        let system = self.system.iter().map(|text| Message::new("system", text));
        let mut messages: Vec<Message> = system.collect();
        messages.push(Message::new("user", given));
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
    object["prompt_tokens_per_second"] = prompt_rate(s).into();
    object["decode_tokens_per_second"] = decode_rate(s).into();
}

/// Tokens per second of the prompt; none if it was not computed.
fn prompt_rate(s: &Summary) -> Option<f64> {
    (s.generated_tokens > 0).then(|| rate(s.prompt_tokens, s.prompt_time))
}

/// Tokens per second after the first, which comes with the prompt; none without a second one.
fn decode_rate(s: &Summary) -> Option<f64> {
    (s.generated_tokens > 1).then(|| rate(s.generated_tokens - 1, s.generated_time))
}

pub fn describe(s: &Summary) -> String {
    let cached = match s.cached_tokens {
        0 => String::new(),
        n => format!("{n} tokens were in the cache, "),
    };
    let prompt = prompt_rate(s).map_or(String::new(), |rate| format!(" at {rate:.0} tokens/s"));
    let decode = decode_rate(s).map_or(String::new(), |rate| format!(" at {rate:.1} tokens/s"));
    format!(
        "{cached}{} prompt tokens{prompt}, {} new ones{decode}; ended by {}",
        s.prompt_tokens,
        s.generated_tokens,
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
