//! All that the program prints.
//!
//! Results go to stdout through [`out!`] and [`outln!`]. They return an error where `println!`
//! panics: a full device is reported, and a closed pipe ends the program quietly (`exit::report`).
//! Progress goes to stderr through [`note!`], details that only `--verbose` asks for through
//! [`detail!`], warnings through [`warning!`]. `--quiet` hides all but warnings. An error of stderr
//! is ignored.

use std::fmt::Arguments;
use std::io::{ErrorKind, Write};
use std::sync::atomic::{AtomicU8, Ordering};

/// Standard output could not be written.
#[derive(Debug, thiserror::Error)]
#[error("standard output cannot be written: {0}")]
pub struct Error(std::io::Error);

impl Error {
    /// Whether the reader closed the pipe, as `head` does once it has its lines.
    pub fn is_closed_pipe(&self) -> bool {
        self.0.kind() == ErrorKind::BrokenPipe
    }
}

/// Writes to stdout and flushes it, so an error is seen where it arises.
pub fn write(text: Arguments) -> Result<(), Error> {
    write_then(text, b"")
}

/// Writes a line to stdout and flushes it.
pub fn write_line(text: Arguments) -> Result<(), Error> {
    write_then(text, b"\n")
}

fn write_then(text: Arguments, end: &[u8]) -> Result<(), Error> {
    let mut stdout = std::io::stdout().lock();
    stdout.write_fmt(text).map_err(Error)?;
    stdout.write_all(end).map_err(Error)?;
    stdout.flush().map_err(Error)
}

/// Writes bytes to stdout and flushes it.
pub fn write_bytes(bytes: &[u8]) -> Result<(), Error> {
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(bytes).map_err(Error)?;
    stdout.flush().map_err(Error)
}

/// What goes to stderr, besides warnings and errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Level {
    /// Nothing.
    Quiet,
    /// Progress and facts that most people want.
    Normal,
    /// Also what was chosen, found and measured on the way.
    Verbose,
}

static LEVEL: AtomicU8 = AtomicU8::new(Level::Normal as u8);

/// Sets the level of the whole program.
pub fn set_level(level: Level) {
    LEVEL.store(level as u8, Ordering::Relaxed);
}

/// Whether lines of this level are printed.
pub fn shows(level: Level) -> bool {
    level as u8 <= LEVEL.load(Ordering::Relaxed)
}

/// Writes a line of this level to stderr.
pub fn write_at(level: Level, line: Arguments) {
    if shows(level) {
        write_stderr(line);
    }
}

/// Writes a line to stderr and ignores errors.
pub fn write_stderr(line: Arguments) {
    let mut stderr = std::io::stderr().lock();
    let _ = stderr
        .write_fmt(line)
        .and_then(|()| stderr.write_all(b"\n"));
}

/// Prints to stdout, or returns an error.
macro_rules! out {
    ($($text:tt)*) => { $crate::output::write(format_args!($($text)*)) };
}

/// Prints a line to stdout, or returns an error.
macro_rules! outln {
    ($($text:tt)*) => { $crate::output::write_line(format_args!($($text)*)) };
}

/// Prints a line to stderr, unless `--quiet` is given.
macro_rules! note {
    ($($text:tt)*) => {
        $crate::output::write_at($crate::output::Level::Normal, format_args!($($text)*))
    };
}

/// Prints a line to stderr if `--verbose` is given.
macro_rules! detail {
    ($($text:tt)*) => {
        $crate::output::write_at($crate::output::Level::Verbose, format_args!($($text)*))
    };
}

/// Prints a line that begins with `warning: ` to stderr.
macro_rules! warning {
    ($($text:tt)*) => {
        $crate::output::write_stderr(format_args!("warning: {}", format_args!($($text)*)))
    };
}

pub(crate) use {detail, note, out, outln, warning};
