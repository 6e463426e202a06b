//! All that the program prints.
//!
//! Results go to stdout through [`out!`] and [`outln!`], which return an error instead of panicking as `println!`
//! does: a full device is reported, and a reader that closed the pipe ends the program quietly (`exit::report`). Progress and
//! warnings go to stderr through [`note!`]; where stderr cannot be written, the work goes on without them.

use std::fmt::Arguments;
use std::io::{ErrorKind, Write};

/// Standard output could not be written.
#[derive(Debug, thiserror::Error)]
#[error("standard output cannot be written: {0}")]
pub struct Error(std::io::Error);

impl Error {
    /// Whether the reader of a pipe closed it, as `head` does once it has its lines.
    pub fn is_closed_pipe(&self) -> bool {
        self.0.kind() == ErrorKind::BrokenPipe
    }
}

/// Writes to stdout and flushes it, so that an error is seen where it arises.
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

/// Writes a line to stderr, if that is possible.
pub fn write_note(line: Arguments) {
    let mut stderr = std::io::stderr().lock();
    let _ = stderr
        .write_fmt(line)
        .and_then(|()| stderr.write_all(b"\n"));
}

/// Prints to stdout; an error for the caller where that fails.
macro_rules! out {
    ($($text:tt)*) => { $crate::output::write(format_args!($($text)*)) };
}

/// Prints a line to stdout; an error for the caller where that fails.
macro_rules! outln {
    ($($text:tt)*) => { $crate::output::write_line(format_args!($($text)*)) };
}

/// Prints a line to stderr, if that is possible.
macro_rules! note {
    ($($text:tt)*) => { $crate::output::write_note(format_args!($($text)*)) };
}

pub(crate) use {note, out, outln};
