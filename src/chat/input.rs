//! The messages of a conversation: lines that a person edits, or the lines of a pipe.
//!
//! The editor draws on `/dev/tty`, or on the console of Windows, so neither prompt nor keys reach a
//! stdout that is piped. The terminal is in the editor's modes only while a line is read. So Ctrl-C
//! is a key at the prompt, and a signal during an answer (`terminal::Stoppable`).

use std::cell::Cell;
use std::io::{IsTerminal, Lines, StdinLock};

use anyhow::Context;
use rustyline::completion::Completer;
use rustyline::error::ReadlineError;
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::history::MemHistory;
use rustyline::validate::Validator;
use rustyline::{Behavior, Config, Editor, Helper};

use crate::generate::BYTE_ORDER_MARK;
use crate::output::note;

pub enum Input {
    Editor(Box<Editor<Watch, MemHistory>>),
    /// A pipe, or a terminal that cannot move its cursor.
    Lines(Lines<StdinLock<'static>>),
}

impl Input {
    pub fn open() -> anyhow::Result<Input> {
        let is_dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        if !is_person() || is_dumb {
            return Ok(Input::Lines(std::io::stdin().lines()));
        }
        let config = Config::builder().behavior(Behavior::PreferTerm);
        let mut editor = Editor::with_history(config.build(), MemHistory::new())?;
        editor.set_helper(Some(Watch::default()));
        Ok(Input::Editor(Box::new(editor)))
    }

    /// The next message or command; `None` at the end of the conversation.
    pub fn message(&mut self) -> anyhow::Result<Option<String>> {
        match self {
            Input::Editor(editor) => edit(editor).context("the terminal"),
            Input::Lines(lines) => {
                let line = lines.next().transpose().context("the input")?;
                Ok(line.map(|line| line.trim_start_matches(BYTE_ORDER_MARK).to_owned()))
            }
        }
    }
}

/// Whether a person types the messages.
pub fn is_person() -> bool {
    std::io::stdin().is_terminal()
}

fn edit(editor: &mut Editor<Watch, MemHistory>) -> rustyline::Result<Option<String>> {
    let mut is_second = false;
    loop {
        match editor.readline("> ") {
            Ok(text) => {
                let text = text.trim_end_matches('\n'); // a pasted text often ends with it
                editor.add_history_entry(text)?;
                return Ok(Some(text.to_owned()));
            }
            Err(ReadlineError::Eof) => return Ok(None),
            Err(ReadlineError::Interrupted) => {
                if is_second && editor.helper().is_some_and(|watch| watch.is_empty.get()) {
                    return Ok(None);
                }
                note!("Ctrl-C again or Ctrl-D ends the conversation");
                is_second = true;
            }
            Err(error) => return Err(error),
        }
    }
}

/// Knows whether the line is empty; the editor does not report this when Ctrl-C clears the line.
#[derive(Default)]
pub struct Watch {
    is_empty: Cell<bool>,
}

impl Hinter for Watch {
    type Hint = String;

    /// Called after each change of the line.
    fn hint(&self, line: &str, _: usize, _: &rustyline::Context) -> Option<String> {
        self.is_empty.set(line.is_empty());
        None
    }
}

impl Completer for Watch {
    type Candidate = String;
}

impl Highlighter for Watch {}
impl Validator for Watch {}
impl Helper for Watch {}
