//! `sterna chat`: a conversation in the terminal, or one turn per line of a pipe.

mod input;

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde_json::json;
use sterna_runtime::{
    ChatTemplate, Constraint, Error, Generation, KvCache, Message, Model, Sampling, StopReason,
    Summary, Tokenizer,
};

use self::input::{Input, is_person};
use crate::output::{note, out, outln};
use crate::speculation::Guessing;
use crate::terminal::{self, Stoppable};

/// Talk with a model in the terminal, or answer the lines of a pipe.
///
/// Earlier turns stay in the cache, so a turn costs its own tokens only. Lines are edited with the
/// keys of a shell and have a history. Several lines that are pasted together are one message.
/// Ctrl-C stops an answer and clears a line. Ctrl-C twice at the prompt, or Ctrl-D, ends the
/// conversation. /help lists the commands. Without a terminal each line is a turn, and only answers
/// go to stdout.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    model: crate::model::Args,
    /// The system message, which says how to answer.
    #[arg(long, value_name = "TEXT")]
    system: Option<String>,
    /// Print one JSON object per answer, with text, ids, counts and speed.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    rule: crate::rule::Args,
    #[command(flatten)]
    sampling: crate::sampling::Args,
    #[command(flatten)]
    speculation: crate::speculation::Args,
}

const HELP: &str = "\
/reset         forget the conversation, but not the system message
/system TEXT   set the system message; without TEXT, remove it
/save FILE     write the messages as JSON
/speed         counts and speed of the last answer
/help          list the commands
/quit          end the conversation, like Ctrl-D or Ctrl-C twice";

pub fn run(args: &Args) -> anyhow::Result<()> {
    let model = args.model.open()?;
    let tokenizer = &model.tokenizer()?;
    let mut chat = Chat {
        args,
        tokenizer,
        constraint: args.rule.constraint(&model, tokenizer)?,
        guessing: args.speculation.open(&model, tokenizer)?,
        template: model.chat_template()?,
        cache: args.sampling.cache(&model, 0)?,
        sampling: args.sampling.sampling(Some(&model))?,
        model: &model,
        messages: Vec::new(),
        turns: 0,
        last: None,
    };
    chat.set_system(args.system.as_deref().unwrap_or_default());
    let mut input = Input::open()?;
    if is_person() {
        note!(
            "{} tokens of context; /help lists the commands",
            chat.cache.capacity()
        );
    }
    while let Some(text) = input.message()? {
        let turn = match chat.command(&text) {
            Some(Command::Quit) => break,
            Some(Command::Done(result)) => result,
            None => chat.turn(&text),
        };
        match turn {
            // A person can correct it and go on.
            Err(error) if is_person() => note!("error: {error:#}"),
            turn => turn?,
        }
    }
    Ok(())
}

struct Chat<'a> {
    args: &'a Args,
    model: &'a Model,
    tokenizer: &'a Tokenizer,
    template: ChatTemplate,
    cache: KvCache,
    sampling: Sampling,
    /// What every answer keeps to.
    constraint: Option<Box<dyn Constraint>>,
    guessing: Guessing,
    messages: Vec<Message>,
    turns: u64,
    last: Option<Summary>,
}

enum Command {
    Quit,
    Done(anyhow::Result<()>),
}

impl Chat<'_> {
    /// Runs a line that begins with a slash; `None` for a message.
    fn command(&mut self, line: &str) -> Option<Command> {
        let line = line.trim();
        if line.is_empty() {
            return Some(Command::Done(Ok(())));
        }
        let (name, argument) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let argument = argument.trim();
        let done = match name {
            "/quit" | "/exit" => return Some(Command::Quit),
            "/help" => say(HELP),
            "/reset" => {
                self.messages.retain(|m| m.role == "system");
                Ok(())
            }
            "/system" => {
                self.set_system(argument);
                Ok(())
            }
            "/save" => self.save(argument),
            "/speed" => {
                let last = self.last.as_ref().map(Summary::describe);
                say(&last.unwrap_or("there is no answer yet".into()))
            }
            _ if name.starts_with('/') => Err(anyhow::anyhow!(
                "{name} is not a command; /help lists the commands, and a message begins with \
                 another character"
            )),
            _ => return None,
        };
        Some(Command::Done(done))
    }

    fn set_system(&mut self, text: &str) {
        self.messages.retain(|m| m.role != "system");
        if !text.is_empty() {
            self.messages.insert(0, Message::new("system", text));
        }
    }

    fn save(&self, path: &str) -> anyhow::Result<()> {
        anyhow::ensure!(!path.is_empty(), "/save needs the name of a file");
        let path = PathBuf::from(path);
        let json = serde_json::to_string_pretty(&self.messages)? + "\n";
        let write = |w: &mut std::io::BufWriter<std::fs::File>| w.write_all(json.as_bytes());
        sterna_ternary::durable::write(Path::new(&path), write)
            .with_context(|| format!("{}: cannot be written", path.display()))?;
        note!("{}: {} messages", path.display(), self.messages.len());
        Ok(())
    }

    /// Answers a message; after an error the conversation is as before.
    fn turn(&mut self, text: &str) -> anyhow::Result<()> {
        self.messages.push(Message::new("user", text));
        let answered = self.answer();
        match &answered {
            Ok(answer) => self.messages.push(Message::new("assistant", answer)),
            Err(_) => drop(self.messages.pop()),
        }
        answered.map(drop)
    }

    fn answer(&mut self) -> anyhow::Result<String> {
        let _stoppable = Stoppable::answer();
        let text = self.template.render(&self.messages, true)?;
        let prompt = self.tokenizer.encode(&text, false)?;
        let capacity = self.cache.capacity();
        let args = &self.args.sampling;
        let mut settings = args.settings(self.sampling, self.turns, prompt.len(), capacity);
        settings.constraint.clone_from(&self.constraint);
        let generation = Generation::resume(
            self.model,
            self.tokenizer,
            &mut self.cache,
            &prompt,
            settings,
        );
        let generation = generation.map_err(|e| full(e, prompt.len(), capacity))?;
        let mut generation = self.guessing.add_to(generation, prompt.len(), capacity)?;
        let mut answer = String::new();
        for piece in generation.by_ref().take_while(|_| !terminal::interrupted()) {
            let piece = piece?;
            if !self.args.json {
                out!("{piece}")?;
            }
            answer += &piece;
        }
        crate::speculation::warn(&mut generation);
        let summary = generation.summary();
        if self.args.json {
            let mut object = json!({"text": answer, "ids": generation.generated()});
            summary.add_to(&mut object);
            outln!("{object}")?;
        } else {
            outln!("")?;
        }
        drop(generation);
        if summary.stop == Some(StopReason::Length) && self.cache.len() == capacity {
            note!("the context of {capacity} tokens is full; /reset begins a new conversation");
        }
        self.last = Some(summary);
        self.turns += 1;
        Ok(answer)
    }
}

fn say(text: &str) -> anyhow::Result<()> {
    note!("{text}");
    Ok(())
}

/// The error of a full context, with what to do in a conversation.
fn full(error: Error, tokens: usize, capacity: usize) -> anyhow::Error {
    match error {
        Error::ContextFull { .. } => anyhow::anyhow!(
            "the conversation has {tokens} tokens and leaves no room for an answer in a context of \
             {capacity}; /reset begins a new one, --context makes the context larger and \
             --max-tokens the answer shorter"
        ),
        error => error.into(),
    }
}
