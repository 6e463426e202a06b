//! `sterna generate`: text from a packed file.

use std::io::{IsTerminal, Read};
use std::path::PathBuf;

use anyhow::Context;
use serde_json::json;
use sterna_runtime::{Generation, Message, Model, Tokenizer};

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
    rule: crate::rule::Args,
    #[command(flatten)]
    sampling: crate::sampling::Args,
    #[command(flatten)]
    speculation: crate::speculation::Args,
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
    let mut settings = args
        .sampling
        .settings(sampling, 0, prompt.len(), cache.capacity());
    settings.constraint = args.rule.constraint(&model, &tokenizer)?;
    let guessing = args.speculation.open(&model, &tokenizer)?;
    let capacity = cache.capacity();
    let generation = Generation::new(&model, &tokenizer, &mut cache, &prompt, settings)?;
    let mut generation = guessing.add_to(generation, prompt.len(), capacity)?;
    let mut text = String::new();
    for piece in generation.by_ref() {
        let piece = piece?;
        if !args.json {
            out!("{piece}")?;
        }
        text += &piece;
    }
    crate::speculation::warn(&mut generation);
    let summary = generation.summary();
    if args.json {
        let mut object = json!({
            "prompt": given,
            "prompt_ids": prompt,
            "text": text,
            "ids": generation.generated(),
        });
        summary.add_to(&mut object);
        outln!("{object}")?;
    } else {
        outln!("")?;
        note!("{}", summary.describe());
    }
    Ok(())
}

/// What programs of Windows write before UTF-8, also into a pipe.
pub const BYTE_ORDER_MARK: char = '\u{feff}';

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
        // Editors of Windows begin a file with a mark, which is not part of its text.
        if text.starts_with(BYTE_ORDER_MARK) {
            text.drain(..BYTE_ORDER_MARK.len_utf8());
        }
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
