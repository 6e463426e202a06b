//! All that the program prints.
//!
//! Results go to stdout through [`out!`] and [`outln!`]. They return an error where `println!`
//! panics: a full device is reported, and a closed pipe ends the program quietly (`exit::report`).
//! Progress and warnings go to stderr through [`note!`]; an error of stderr is ignored.

use std::fmt::Arguments;
use std::io::{ErrorKind, Write};

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

/// Writes a line to stderr and ignores errors.
pub fn write_note(line: Arguments) {
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

/// Prints a line to stderr and ignores errors.
macro_rules! note {
    ($($text:tt)*) => { $crate::output::write_note(format_args!($($text)*)) };
}

pub(crate) use {note, out, outln};
